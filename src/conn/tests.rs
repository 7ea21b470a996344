use std::time::Duration;

use super::*;

pub(super) fn settings() -> Settings {
    Settings {
        message_bytes_max: 1_000,
        handshake_timeout: Duration::from_secs(5),
        ping_interval: Duration::from_secs(25),
        pong_timeout: Duration::from_secs(10),
        idle_timeout: None,
        close_timeout: Duration::from_secs(3),
        echo: true,
        pages: vec![Page { path: "/", content_type: "text/html; charset=utf-8", body: b"<p>hi" }],
    }
}

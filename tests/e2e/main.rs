//! End to end: a real `ringcast` child process, real sockets, a client library nobody here wrote
//! (`tokio-tungstenite`), and bare TCP where a well-behaved client would not do.
//!
//! Every claim of [`messages`], [`dialects`], [`overflow`], [`patterns`], [`presence`], [`protocol`],
//! [`compression`], [`conflation`], [`http`], [`publish`], [`listen`], [`moving`], [`life`], [`resume`], [`stale`]
//! and [`shutdown`] runs on both drivers with one shard and with two; [`forbidden`] runs the same
//! claims about messages with io_uring taken away. `cargo test --test e2e -- uring_2` picks one column.

#![expect(unreachable_pub, reason = "in a test binary everything is, and `pub` reads better")]

mod client;
mod peer;
mod raw;
mod server;
mod stream;

mod command_line;
mod compression;
mod conflation;
mod cut_off;
mod dialects;
mod forbidden;
mod http;
mod life;
mod listen;
mod messages;
mod moving;
mod overflow;
mod patterns;
mod presence;
mod protocol;
mod publish;
mod resume;
mod shutdown;
mod stale;

/// Makes a test of each claim (an `async fn(Setup)`) for every driver and shard count.
macro_rules! on_every_setup {
    ($($claim:ident),+ $(,)?) => {
        crate::column!(uring_1, crate::server::Setup::uring(1), $($claim),+);
        crate::column!(uring_2, crate::server::Setup::uring(2), $($claim),+);
        crate::column!(epoll_1, crate::server::Setup::epoll(1), $($claim),+);
        crate::column!(epoll_2, crate::server::Setup::epoll(2), $($claim),+);
    };
}

/// One column of the matrix.
macro_rules! column {
    ($column:ident, $setup:expr, $($claim:ident),+) => {
        mod $column {
            $(
                #[tokio::test]
                async fn $claim() {
                    super::$claim($setup).await;
                }
            )+
        }
    };
}

pub(crate) use column;
pub(crate) use on_every_setup;

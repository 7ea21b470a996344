//! The program as it is typed: mistakes get one clear line and a status, and the small client
//! commands do what they say, through a restart too.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::client::Client;
use crate::raw;
use crate::server::{Server, Setup, command, free_address, patience};

/// Runs the program to its end.
pub async fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let input = input.to_owned();
    let pid = child.id();
    let running = tokio::task::spawn_blocking(move || {
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        child.wait_with_output().expect("waited for")
    });
    match tokio::time::timeout(patience(Duration::from_secs(20)), running).await {
        Ok(output) => output.expect("joined"),
        Err(_) => {
            let pid = i32::try_from(pid).expect("a process id");
            // SAFETY: takes two integers; the child has not been waited for, so the number is its.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            panic!("{arguments:?} did not end");
        }
    }
}

/// What the program said in a failure: it must be one line, and the status not 0.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it should have failed: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn one_line(output: &Output) -> String {
    let said = complaint(output);
    assert_eq!(said.trim_end().lines().count(), 1, "one clear line:\n{said}");
    said
}

#[tokio::test]
async fn a_port_in_use_is_told_in_one_line() {
    for driver in ["uring", "epoll"] {
        let server = Server::start(Setup { driver, shards: 2, forbidden: false }, "").await;
        let taken = server.address.to_string();
        let free = free_address().to_string();
        let other = free_address().to_string();
        for (listen, admin) in [(&taken, &free), (&other, &server.admin.to_string())] {
            let output =
                run(&["serve", "--driver", driver, "--listen", listen, "--admin", admin], "").await;
            let said = one_line(&output);
            let address = if listen == &taken { listen } else { admin };
            assert!(said.contains(address.as_str()) && said.contains("in use"), "{said}");
        }
        Client::open(&server).await.heard_nothing_more().await;
    }
}

#[tokio::test]
async fn a_full_disk_under_the_log_or_the_output_ends_nothing_that_serves() {
    let full = || fs::File::options().write(true).open("/dev/full").expect("a full device");
    let listen = free_address();
    let mut serving = command(&["demo", "--admin", "off", "--listen", &listen.to_string()]);
    let mut serving = serving.stdout(full()).stderr(full()).spawn().expect("the program starts");
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if raw::get(listen, "/").await.is_some_and(|answer| answer.status == 200) {
            break;
        }
    }
    let url = format!("ws://{listen}");
    let publish = run(&["pub", &url, "a", "1"], "").await;
    assert!(publish.status.success(), "{}", String::from_utf8_lossy(&publish.stderr));

    // What cannot be written although somebody wants it is a failure that is told.
    for arguments in [&["check"][..], &["check", "--example"], &["sub", &url, "md.AAPL"]] {
        let mut failing = command(arguments);
        let failing = failing.stdout(full()).stderr(Stdio::piped()).spawn().expect("starts");
        let waiting = tokio::task::spawn_blocking(move || failing.wait_with_output());
        let output = waiting.await.expect("joined").expect("waited for");
        let said = one_line(&output);
        assert!(said.contains("No space left"), "{arguments:?}: {said}");
    }
    serving.kill().expect("still running");
    let _ = serving.wait();
}

#[tokio::test]
async fn configuration_mistakes_are_told_together_with_their_lines() {
    let directory = tempfile::tempdir().expect("a place");
    let path = directory.path().join("bad.toml");
    let name = path.display().to_string();

    let missing = one_line(&run(&["serve", "--config", &name], "").await);
    assert!(missing.contains(&name), "{missing}");

    fs::write(
        &path,
        "listen = \"nowhere\"\n[limits]\nconections_max = 5\nmessage_bytes_max = \"17MiB\"\n\
         [timing]\nping_interval = \"soon\"\n[[channel]]\noverflow = \"close\"\n",
    )
    .expect("written");
    for arguments in [vec!["check", "--config", &name], vec!["serve", "--config", &name]] {
        let said = complaint(&run(&arguments, "").await);
        for part in [":1:", ":3:", ":4:", ":6:", "conections_max", "connections_max", "match"] {
            assert!(said.contains(part), "no {part} in\n{said}");
        }
        assert_eq!(said.trim_end().lines().count(), 5, "one line for each problem:\n{said}");
    }

    fs::write(&path, "listen = [").expect("written");
    complaint(&run(&["check", "--config", &name], "").await);

    fs::write(&path, "[[channel]]\nmatch = \"md.*\"\noverflow = \"drop_newest\"\n")
        .expect("written");
    let good = run(&["check", "--config", &name], "").await;
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
}

#[tokio::test]
async fn flags_that_make_no_sense_are_told_in_one_line() {
    for (arguments, part) in [
        (vec!["serve", "--shards", "0"], "shards"),
        (vec!["serve", "--shards", "many"], "shards"),
        (vec!["serve", "--driver", "kqueue"], "driver"),
        (vec!["serve", "--listen", "8080"], "listen"),
        (vec!["pub", "http://127.0.0.1:1", "a", "1"], "ws://"),
    ] {
        let said = one_line(&run(&arguments, "").await);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    complaint(&run(&["serve", "--frobnicate"], "").await);
    complaint(&run(&["sub"], "").await);
}

#[tokio::test]
async fn help_and_version_are_there() {
    let help = run(&["--help"], "").await;
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.status.success());
    for word in ["serve", "demo", "sub", "pub", "check", "--listen", "--driver"] {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
    let version = run(&["--version"], "").await;
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}

/// A `ringcast sub` whose lines can be waited for. Dropping it ends it.
struct Subscriber {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Subscriber {
    fn start(url: &str, channels: &[&str]) -> Self {
        let mut command = command(&["sub", url]);
        command.args(channels).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// Publishes `payload` until it is heard: the subscription may not be there yet.
    async fn hears(&self, url: &str, channel: &str, payload: &str) -> String {
        for _ in 0..100 {
            let output = run(&["pub", url, channel, payload], "").await;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            if let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
                return line;
            }
        }
        panic!("nothing heard on {channel}");
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn sub_hears_what_pub_says_and_both_survive_a_restart() {
    let mut server = Server::start(Setup::uring(2), "[timing]\ndrain_window = \"300ms\"").await;
    let url = format!("ws://{}", server.address);
    let subscriber = Subscriber::start(&url, &["news", "other"]);
    let first = subscriber.hears(&url, "news", r#"{"big":123456789012345678901234567890}"#).await;
    assert!(first.contains("news") && first.contains("123456789012345678901234567890"), "{first}");

    // One JSON value a line from standard input.
    while subscriber.lines.recv_timeout(Duration::from_millis(300)).is_ok() {}
    let output = run(&["pub", &url, "other", "-"], "1\n\"two\"\n[3]\n").await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for payload in ["1", "\"two\"", "[3]"] {
        let line = subscriber.lines.recv_timeout(Duration::from_secs(5)).expect("a line");
        assert!(line.starts_with("other ") && line.ends_with(payload), "{line}");
    }

    server.signal(libc::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(9)).await.code(), Some(0));
    server.restart().await;
    let again = subscriber.hears(&url, "news", "\"after\"").await;
    assert!(again.contains("after"), "{again}");

    let bad = run(&["pub", &url, "news", "not json"], "").await;
    complaint(&bad);
}

#[tokio::test(flavor = "current_thread")]
async fn sub_hears_every_channel_that_a_pattern_matches_across_a_restart() {
    let mut server = Server::start(Setup::epoll(2), "[timing]\ndrain_window = \"300ms\"").await;
    let url = format!("ws://{}", server.address);
    let subscriber = Subscriber::start(&url, &["iot.*.temp", "other"]);
    for channel in ["iot.1.temp", "iot.2.temp"] {
        let line = subscriber.hears(&url, channel, "21").await;
        assert!(line.starts_with(channel), "{line}");
        while subscriber.lines.recv_timeout(Duration::from_millis(300)).is_ok() {}
    }
    run(&["pub", &url, "iot.1.humidity", "3"], "").await;
    server.signal(libc::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(9)).await.code(), Some(0));
    server.restart().await;
    for channel in ["iot.2.temp", "iot.3.temp"] {
        let line = subscriber.hears(&url, channel, "22").await;
        assert!(line.starts_with(channel) && line.ends_with("22"), "{line}");
        while subscriber.lines.recv_timeout(Duration::from_millis(300)).is_ok() {}
    }

    for (arguments, part) in [
        (vec!["sub", &url, "a.>.b"], "a.>.b"),
        (vec!["sub", &url, "a.*", "--latest"], "a.*"),
        (vec!["pub", &url, "a.*", "1"], "channel"),
    ] {
        let said = complaint(&run(&arguments, "").await);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn demo_serves_the_page_and_live_ticks_to_this_machine_only() {
    let server = Server::start_with(Setup::uring(1), "", "demo", &[]).await;
    let page = raw::get(server.address, "/").await.expect("the page");
    assert!(page.body.starts_with("<!doctype html>"));
    assert!(server.log().contains(&format!("http://{}", server.address)), "{}", server.log());
    let mut client = Client::open(&server).await;
    client.subscribe("md.AAPL").await;
    client.subscribe("md.IBM").await;
    for _ in 0..5 {
        let tick = client.hear_kind("message").await;
        for member in [r#""symbol":""#, r#""price":"#, r#""change":"#, r#""volume":"#, r#""t":"#] {
            assert!(tick.payload().contains(member), "{}", tick.text);
        }
    }
}

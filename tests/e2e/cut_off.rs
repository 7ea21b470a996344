//! `ringcast sub` and `ringcast pub` over connections that break: what was missed comes after all
//! or is told, and what is published arrives once.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::command_line::run;
use crate::server::{Server, Setup, command, patience};

const HISTORY: &str = "[history]\nmessages = 20000\nage = \"10m\"\nbytes = \"16MiB\"\n";

/// What stands between a client and a server, and can break.
struct Middle {
    address: SocketAddr,
    /// Connections numbered below this are broken.
    broken: watch::Sender<u64>,
    accepted: Arc<AtomicU64>,
    /// Bytes that came from clients.
    bytes: Arc<AtomicU64>,
}

impl Middle {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (broken, watching) = watch::channel(0);
        let (accepted, bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (counted, measured) = (accepted.clone(), bytes.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                let (mut watching, measured) = (watching.clone(), measured.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = watching.wait_for(|broken| *broken > number) => {}
                        () = forward(client, server, &measured) => {}
                    }
                });
            }
        });
        Self { address, broken, accepted, bytes }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Breaks every connection there is, without a word.
    fn cut(&self) {
        self.broken.send_replace(self.accepted.load(Ordering::Relaxed));
    }

    /// Breaks also those that come, until the next cut.
    fn block(&self) {
        self.broken.send_replace(u64::MAX);
    }
}

async fn forward(client: TcpStream, server: SocketAddr, bytes: &AtomicU64) {
    let Ok(upstream) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = upstream.into_split();
    let uncounted = AtomicU64::new(0);
    tokio::select! {
        () = pass(from_client, to_server, bytes) => {}
        () = pass(from_server, to_client, &uncounted) => {}
    }
}

async fn pass(
    from: tokio::net::tcp::OwnedReadHalf,
    to: tokio::net::tcp::OwnedWriteHalf,
    bytes: &AtomicU64,
) {
    let mut buffer = [0; 4096];
    while from.readable().await.is_ok() {
        match from.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                let mut rest = &buffer[..read];
                while !rest.is_empty() && to.writable().await.is_ok() {
                    match to.try_write(rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
                bytes.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// A running client command. Dropping it ends it.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
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

    async fn line(&self) -> String {
        let deadline = tokio::time::Instant::now() + patience(Duration::from_secs(20));
        loop {
            match self.lines.try_recv() {
                Ok(line) => return line,
                Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("no line: {error}"),
            }
        }
    }

    /// Interrupts it; returns what it said on standard error, once it has ended well.
    async fn interrupted(mut self) -> String {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: takes two integers; the child has not been waited for, so the number is its.
        unsafe { libc::kill(pid, libc::SIGINT) };
        let mut said = String::new();
        let mut errors = self.child.stderr.take().expect("piped");
        let said = tokio::task::spawn_blocking(move || {
            errors.read_to_string(&mut said).expect("text");
            said
        });
        let said = said.await.expect("joined");
        assert!(self.child.wait().expect("waited for").success(), "{said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn publish(url: &str, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    let input: String = numbers.map(|number| format!("{number}\n")).collect();
    let output = run(&["pub", url, channel], &input).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a `sub` prints that ends by itself.
async fn printed(arguments: &[&str]) -> Vec<String> {
    let output = run(arguments, "").await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn sub_prints_after_a_broken_connection_what_it_missed_and_goes_on() {
    let server = Server::start(Setup::uring(2), HISTORY).await;
    let url = format!("ws://{}", server.address);
    let middle = Middle::start(server.address).await;
    publish(&url, "a", 1..=3).await;
    let sub = Running::start(&["sub", &middle.url(), "a", "--last", "2"]);
    assert_eq!(sub.line().await, "a 2 2");
    assert_eq!(sub.line().await, "a 3 3");
    for round in 0..2 {
        let first = 4 + round * 5;
        middle.block();
        publish(&url, "a", first..=first + 3).await;
        middle.cut();
        for number in first..first + 4 {
            assert_eq!(sub.line().await, format!("a {number} {number}"));
        }
        publish(&url, "a", first + 4..=first + 4).await;
        assert_eq!(sub.line().await, format!("a {0} {0}", first + 4));
    }
    let notes = sub.interrupted().await;
    for note in ["a: 4 to 7 are recovered", "a: 9 to 12 are recovered"] {
        assert!(notes.lines().any(|line| line == note), "no {note:?} in\n{notes}");
    }
    assert!(!notes.contains("missing"), "{notes}");

    // Where it stopped, the next run goes on.
    let position = notes.lines().find_map(|line| line.strip_prefix("what comes next: --since "));
    let position = position.expect("a position");
    assert!(position.ends_with(".13"), "{position}");
    publish(&url, "a", 14..=15).await;
    let next = ["sub", &url, "a", "--since", position, "--format", "payload", "--count", "2"];
    assert_eq!(printed(&next).await, ["14", "15"]);
    let latest = ["sub", &url, "a", "--latest", "--format", "json", "--count", "1"];
    assert_eq!(
        printed(&latest).await,
        [r#"{"type":"message","channel":"a","seq":15,"payload":15}"#]
    );
}

#[tokio::test]
async fn sub_says_what_a_server_without_history_has_lost_for_it() {
    let mut server = Server::start(Setup::epoll(2), "[timing]\ndrain_window = \"100ms\"\n").await;
    let url = format!("ws://{}", server.address);
    let middle = Middle::start(server.address).await;
    let sub = Running::start(&["sub", &middle.url(), "a", "b"]);
    // Until it is subscribed, what is published passes it by.
    let mut published = 0;
    while sub.lines.recv_timeout(Duration::from_millis(100)).is_err() {
        published += 1;
        publish(&url, "a", published..=published).await;
    }
    while sub.lines.recv_timeout(Duration::from_millis(300)).is_ok() {}
    middle.block();
    publish(&url, "a", published + 1..=published + 2).await;
    middle.cut();
    let (from, to) = (published + 1, published + 2);
    while sub.lines.recv_timeout(Duration::from_millis(100)).is_err() {
        published += 1;
        publish(&url, "a", published..=published).await;
    }

    server.signal(libc::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(9)).await.code(), Some(0));
    server.restart().await;
    let mut fresh = 0;
    while sub.lines.recv_timeout(Duration::from_millis(100)).is_err() {
        fresh += 1;
        publish(&url, "a", fresh..=fresh).await;
    }
    let notes = sub.interrupted().await;
    assert!(notes.contains(&format!("a: {from} to ")) && notes.contains("missing"), "{notes}");
    assert!(to > from && notes.contains("a: the server numbers it anew"), "{notes}");
}

#[tokio::test]
async fn pub_loses_and_repeats_nothing_though_its_connection_breaks() {
    const LINES: u64 = 12_000;
    for seed in [1, 2, 3] {
        let server = Server::start(Setup::uring(2), HISTORY).await;
        let url = format!("ws://{}", server.address);
        let middle = Middle::start(server.address).await;
        let through = middle.url();
        let input: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
        let publishing =
            tokio::spawn(async move { run(&["pub", &through, "a", "-v"], &input).await });
        // Somewhere among the bytes of the publishes, twice.
        let mut chance = fastrand::Rng::with_seed(seed);
        for _ in 0..2 {
            let before = middle.bytes.load(Ordering::Relaxed);
            let at = before + 2_000 + chance.u64(0..400_000);
            while middle.bytes.load(Ordering::Relaxed) < at && !publishing.is_finished() {
                tokio::task::yield_now().await;
            }
            middle.cut();
        }
        let output = publishing.await.expect("joined");
        let notes = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "seed {seed}: {notes}");
        assert!(notes.contains("connecting again"), "seed {seed}: nothing broke: {notes}");
        let expected: Vec<String> = (1..=LINES).map(|number| number.to_string()).collect();
        let acks: Vec<String> =
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        let (all, count) = (LINES.to_string(), LINES.to_string());
        let sub = ["sub", &url, "a", "--last", &all, "--count", &count, "--format", "payload"];
        assert_eq!(printed(&sub).await, expected, "seed {seed}");
        assert_eq!(acks, expected, "seed {seed}: acks");
    }
}

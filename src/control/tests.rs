use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tokio::sync::mpsc::{Sender, UnboundedSender, channel, unbounded_channel};

use super::*;

/// A control thread under test, on either runtime, with signals sent by hand: real ones would
/// reach every test of this process.
struct Bench {
    address: SocketAddr,
    signals: Sender<Signal>,
    shard: UnboundedSender<String>,
    drains: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Outcome>,
}

fn start(uring: bool, drain_deadline: Duration) -> Bench {
    let admin = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = admin.local_addr().expect("an address");
    let (signals, heard) = channel(2);
    let (shard, finished) = unbounded_channel();
    let drains = Arc::new(AtomicUsize::new(0));
    let (counted, draining) = (drains.clone(), Arc::new(AtomicBool::new(false)));
    let seen = draining.clone();
    let control = Control {
        admin: Some(admin),
        snapshot: Box::new(move || Snapshot {
            draining: seen.load(Ordering::Relaxed),
            ..crate::admin::tests::snapshot()
        }),
        drain: Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            draining.store(true, Ordering::Relaxed);
        }),
        alive: Box::new(|| true),
        finished,
        drain_deadline,
        uring,
    };
    let thread = thread::spawn(move || {
        if uring {
            let builder = tokio_uring::builder();
            // A machine without io_uring tests the other runtime twice.
            if let Ok(runtime) = tokio_uring::Runtime::new(&builder) {
                return runtime.block_on(watch(control, heard));
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), watch(control, heard))
    });
    Bench { address, signals, shard, drains, thread }
}

fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    // The answer may come, and the connection go, before a large request is through.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn pages_are_served_on_both_runtimes_until_all_shards_have_ended() {
    for uring in [true, false] {
        let bench = start(uring, LONG);
        let page = ask(bench.address, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("content-type: application/openmetrics-text"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
        let page = ask(bench.address, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(page.ends_with("\r\n\r\nready\n"), "{page}");

        bench.signals.blocking_send(Signal::Terminate).expect("somebody listens");
        while bench.drains.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        let page = ask(bench.address, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 503"), "{page}");
        assert!(page.ends_with("\r\n\r\ndraining\n"), "{page}");
        drop(bench.shard);
        let outcome = bench.thread.join().expect("no panic");
        assert_eq!((outcome, outcome.status()), (Outcome::Drained, 0));
        assert_eq!(bench.drains.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn requests_that_are_none_get_one_clear_status() {
    let bench = start(false, LONG);
    let endless = vec![b'a'; 1 << 20];
    for (request, status) in [
        (&b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n"[..], "HTTP/1.1 200 "),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 "),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 "),
        (b"nonsense\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        let answer = ask(bench.address, request);
        assert!(answer.starts_with(status), "{answer}");
        if request.starts_with(b"HEAD") {
            assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        }
    }
    // What has no end ends, and the next one is served.
    ask(bench.address, &endless);
    let page = ask(bench.address, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(page.ends_with("\r\n\r\nok\n"), "{page}");
    drop(bench.shard);
    assert_eq!(bench.thread.join().expect("no panic"), Outcome::Failed);
}

#[test]
fn a_second_signal_ends_at_once_with_its_own_status() {
    for (signal, status) in [(Signal::Terminate, 143), (Signal::Interrupt, 130)] {
        let bench = start(false, LONG);
        bench.signals.blocking_send(Signal::Terminate).expect("somebody listens");
        bench.signals.blocking_send(signal).expect("somebody listens");
        assert_eq!(bench.thread.join().expect("no panic").status(), status);
    }
}

#[test]
fn the_deadline_ends_what_shards_do_not() {
    let bench = start(false, Duration::from_millis(50));
    bench.signals.blocking_send(Signal::Interrupt).expect("somebody listens");
    let outcome = bench.thread.join().expect("no panic");
    assert_eq!((outcome, outcome.status()), (Outcome::DeadlinePassed, 0));
}

#[test]
fn a_shard_that_fails_takes_the_process_down_in_order() {
    let bench = start(true, LONG);
    bench.shard.send("ring: no memory".into()).expect("somebody listens");
    while bench.drains.load(Ordering::Relaxed) == 0 {
        thread::yield_now();
    }
    drop(bench.shard);
    assert_eq!(bench.thread.join().expect("no panic").status(), 1);
}

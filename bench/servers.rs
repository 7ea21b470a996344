//! The servers under test: how each is started, found ready, and ended.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::machine;

/// How long a server may take until it accepts a connection.
const START_TIME_MAX: Duration = Duration::from_secs(15);

/// One server of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Server {
    /// ringcast on its io_uring driver, one shard.
    RingcastUring,
    /// ringcast on its epoll driver, one shard.
    RingcastEpoll,
    /// Accept, recv, send of ready bytes, on io_uring.
    FloorUring,
    /// Accept, recv, send of ready bytes, on epoll.
    FloorEpoll,
    /// A server on the fastwebsockets crate.
    Fastwebsockets,
    /// A server on tokio-tungstenite as its examples write it.
    Tungstenite,
    /// A server on tokio-tungstenite, tuned.
    TungsteniteTuned,
}

/// What a server speaks above WebSocket frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// ringcast.json.v1: welcome, subscribe, publish with an id, ack.
    Ringcast,
    /// Takes the requests of ringcast.json.v1 by their length and answers with ready bytes;
    /// never greets, and everyone who connects to `/ws` is a subscriber.
    Canned,
    /// Sends every text that arrives on `/pub` to everyone who connected to `/ws`; no acks.
    Plain,
}

/// The sizes a floor server works by, since it understands nothing. Zero: none of that kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FloorSizes {
    /// Bytes of one request on the wire.
    pub(crate) request_bytes: usize,
    /// Bytes of the answer to whoever asked.
    pub(crate) answer_bytes: usize,
    /// Bytes of the message to each subscriber.
    pub(crate) deliver_bytes: usize,
    /// Whether connections are only held, with nothing armed on them.
    pub(crate) idle: bool,
}

impl Server {
    /// Every server, in the order of the tables.
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The name used on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RingcastUring => "ringcast-uring",
            Self::RingcastEpoll => "ringcast-epoll",
            Self::FloorUring => "floor-uring",
            Self::FloorEpoll => "floor-epoll",
            Self::Fastwebsockets => "fastwebsockets",
            Self::Tungstenite => "tungstenite",
            Self::TungsteniteTuned => "tungstenite-tuned",
        }
    }

    /// Whether this is ringcast, on either driver.
    pub(crate) fn is_ringcast(self) -> bool {
        matches!(self, Self::RingcastUring | Self::RingcastEpoll)
    }

    /// Whether this is a floor.
    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::FloorUring | Self::FloorEpoll)
    }

    /// Whether it can be started by this build with this server program.
    pub(crate) fn is_available(self, server_binary: &Path) -> bool {
        if self.is_ringcast() {
            server_binary.exists()
        } else {
            self.is_floor() || cfg!(feature = "peers")
        }
    }

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::RingcastUring | Self::RingcastEpoll => Dialect::Ringcast,
            Self::FloorUring | Self::FloorEpoll => Dialect::Canned,
            _ => Dialect::Plain,
        }
    }
}

/// Connections that ringcast is told to make room for.
const CONNECTIONS_MAX: &str = "18000";

/// A server that runs as a child of this process. Dropping it ends it.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    admin: Option<SocketAddr>,
    child: Child,
    /// What it writes to its standard error.
    log: PathBuf,
}

impl Running {
    /// Starts a server on its core and waits until it accepts.
    pub(crate) fn start(
        server: Server,
        binary: &Path,
        floor: FloorSizes,
        environment: &[(&str, &str)],
    ) -> io::Result<Self> {
        let address = free_address()?;
        let (mut command, admin) = match server {
            Server::RingcastUring | Server::RingcastEpoll => {
                let admin = free_address()?;
                let driver = if server == Server::RingcastUring { "uring" } else { "epoll" };
                let mut command = Command::new(binary);
                command.args(["serve", "--driver", driver, "--shards", "1", "--echo"]);
                command.args(["--listen", &address.to_string()]);
                command.args(["--admin", &admin.to_string()]);
                // What the largest scenario needs: so regular descriptors are chosen wherever
                // RLIMIT_NOFILE suffices. `hold` is about direct ones.
                command.env("RINGCAST_LIMITS_CONNECTIONS_MAX", CONNECTIONS_MAX);
                command.envs(environment.iter().copied());
                (command, Some(admin))
            }
            Server::FloorUring | Server::FloorEpoll => {
                let driver = if server == Server::FloorUring { "uring" } else { "epoll" };
                let mut command = Command::new(own_program()?);
                command.args(["floor", "--driver", driver]);
                command.args(["--port", &address.port().to_string()]);
                command.args(["--request-bytes", &floor.request_bytes.to_string()]);
                command.args(["--answer-bytes", &floor.answer_bytes.to_string()]);
                command.args(["--deliver-bytes", &floor.deliver_bytes.to_string()]);
                if floor.idle {
                    command.arg("--idle");
                }
                (command, None)
            }
            peer => {
                let mut command = Command::new(own_program()?);
                command.args(["peer", "--kind", peer.name()]);
                command.args(["--port", &address.port().to_string()]);
                (command, None)
            }
        };
        // A file, not a pipe: a server that logs much must not wait for a reader.
        let log_name = format!("ringcast-bench-{}-{}.log", std::process::id(), address.port());
        let log = std::env::temp_dir().join(log_name);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let child = spawn_pinned(&mut command, Some(machine::SERVER_CPU))?;
        let mut running = Self { server, address, admin, child, log };
        running.wait_until_ready()?;
        Ok(running)
    }

    /// The process to ask for CPU time and memory.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> io::Result<u64> {
        machine::cpu_ns(self.pid())
    }

    /// Bytes and sends the server counted itself, where it counts them: the difference
    /// of two such pairs is bytes per send.
    pub(crate) fn sends_counted(&self) -> Option<Sends> {
        let page = http_get(self.admin?, "/metrics").ok()?;
        let bytes = sum_of_series(&page, "ringcast_sent_bytes_total")?;
        let sends = sum_of_series(&page, "ringcast_sends_total")?;
        Some(Sends { bytes, sends })
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let started = Instant::now();
        loop {
            if TcpStream::connect(self.address).is_ok() {
                break;
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("ended at start with {status}")));
            }
            if started.elapsed() > START_TIME_MAX {
                return Err(self.failed("accepts no connection"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        let cpus = machine::allowed_cpus(self.pid())?;
        if cpus != [machine::SERVER_CPU.to_string()] {
            eprintln!("warning: {} has threads on CPUs {cpus:?}", self.server.name());
        }
        Ok(())
    }

    /// An error that carries the last words of the server.
    fn failed(&self, what: &str) -> io::Error {
        io::Error::other(format!("{} {what}: {}", self.server.name(), self.last_words()))
    }

    /// The last lines of the server's log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not a drain: what was measured is measured, and a drain may take half a minute.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}

/// What a server says it sent.
#[derive(Clone, Copy)]
pub(crate) struct Sends {
    bytes: f64,
    sends: f64,
}

impl Sends {
    /// Bytes per send between two readings; not a number where nothing was sent or counted.
    pub(crate) fn bytes_each(before: Option<Self>, after: Option<Self>) -> f64 {
        match (before, after) {
            (Some(before), Some(after)) if after.sends > before.sends => {
                (after.bytes - before.bytes) / (after.sends - before.sends)
            }
            _ => f64::NAN,
        }
    }
}

/// Starts a child that dies with this process, on one core if asked.
pub(crate) fn spawn_pinned(command: &mut Command, cpu: Option<usize>) -> io::Result<Child> {
    let prepare = move || {
        if let Some(cpu) = cpu {
            machine::pin_to(cpu)?;
        }
        // SAFETY: PR_SET_PDEATHSIG takes one number and touches no memory of ours.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls; its only allocation is
    // the text of an error, and this process has one thread, so no lock can be held elsewhere.
    unsafe { command.pre_exec(prepare) };
    let name = command.get_program().to_owned();
    command.spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("starting {}: {error}", name.to_string_lossy()))
    })
}

/// The program that is running: it contains the floor and the peers.
pub(crate) fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// The `ringcast` program beside this one.
pub(crate) fn binary_beside() -> io::Result<PathBuf> {
    Ok(own_program()?.with_file_name("ringcast"))
}

/// A loopback address whose port was free a moment ago.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Fetches a page of an admin listener.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// Sums every sample of one metric over its labels.
fn sum_of_series(page: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !rest.starts_with([' ', '{']) {
            continue;
        }
        let value = rest.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
        sum = Some(sum.unwrap_or(0.0) + value.unwrap_or(0.0));
    }
    sum
}

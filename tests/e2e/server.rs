//! A `ringcast serve` child: started on ports of its own, ended by its process id, its log kept
//! and shown when a test fails.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::raw;

/// The program under test: the one cargo built for these tests. RINGCAST_TEST_BINARY names another,
/// for machines that have no cargo.
pub fn binary() -> PathBuf {
    let named = std::env::var_os("RINGCAST_TEST_BINARY");
    named.map_or_else(|| env!("CARGO_BIN_EXE_ringcast").into(), PathBuf::from)
}

/// How long to wait before giving up, as `limit` is meant for ordinary machines. On those that are
/// many times slower (emulated ones), RINGCAST_TEST_PATIENCE says how many.
pub fn patience(limit: Duration) -> Duration {
    let factor = std::env::var("RINGCAST_TEST_PATIENCE").ok();
    let factor = factor.map_or(1, |factor| factor.parse().expect("RINGCAST_TEST_PATIENCE counts"));
    limit * factor
}

/// How a server is run.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub driver: &'static str,
    pub shards: usize,
    /// Whether the process is started with io_uring taken away.
    pub forbidden: bool,
}

impl Setup {
    pub fn uring(shards: usize) -> Self {
        Self { driver: "uring", shards, forbidden: false }
    }

    pub fn epoll(shards: usize) -> Self {
        Self { driver: "epoll", shards, forbidden: false }
    }

    pub fn forbidden() -> Self {
        Self { driver: "auto", shards: 2, forbidden: true }
    }
}

/// A running server. Dropping it ends it.
pub struct Server {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub child: Child,
    pub setup: Setup,
    arguments: Vec<String>,
    directory: TempDir,
}

impl Server {
    /// Starts a server with `config` (TOML) and waits until it is ready.
    pub async fn start(setup: Setup, config: &str) -> Self {
        Self::start_with(setup, config, "serve", &[]).await
    }

    pub async fn start_with(setup: Setup, config: &str, command: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a place for the configuration and the log");
        let path = directory.path().join("ringcast.toml");
        // Many servers share few CPUs here; bound to one, they would wait for each other.
        fs::write(&path, format!("pin = false\n{config}")).expect("the configuration is written");
        let (address, admin) = (free_address(), free_address());
        let mut arguments: Vec<String> = [command, "--config"].map(str::to_owned).into();
        arguments.push(path.display().to_string());
        arguments.extend(["--listen".into(), address.to_string()]);
        arguments.extend(["--admin".into(), admin.to_string()]);
        arguments.extend(["--driver".into(), setup.driver.into()]);
        arguments.extend(["--shards".into(), setup.shards.to_string()]);
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let child = spawn(&arguments, &directory, setup);
        let mut server = Self { address, admin, child, setup, arguments, directory };
        server.until_ready().await;
        server
    }

    /// Starts it again, on the same ports, after it has ended.
    pub async fn restart(&mut self) {
        assert!(self.child.try_wait().expect("waitable").is_some(), "it has not ended yet");
        self.child = spawn(&self.arguments, &self.directory, self.setup);
        self.until_ready().await;
    }

    async fn until_ready(&mut self) {
        let deadline = Instant::now() + patience(Duration::from_secs(20));
        loop {
            if let Some(answer) = raw::get(self.admin, "/readyz").await
                && answer.status == 200
            {
                return;
            }
            let ended = self.child.try_wait().expect("waitable");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the server did not get ready ({ended:?}):\n{}",
                self.log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Everything it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(&self.directory)).unwrap_or_default()
    }

    /// Sends `signal` to this process and no other.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill takes two integers and no memory; `pid` is our child, which has not been
        // waited for yet (only `ended` and drop do), so the number has not been given away.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "the child is there to be signalled");
    }

    /// How it ended, if it does within `limit` (and [`patience`]).
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience(limit);
        loop {
            if let Some(status) = self.child.try_wait().expect("waitable") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {limit:?}:\n{}", self.log());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether it still runs and takes new clients.
    pub async fn assert_lives(&mut self) {
        assert!(self.child.try_wait().expect("waitable").is_none(), "it ended:\n{}", self.log());
        let mut client = crate::client::Client::open(self).await;
        client.ask("alive", r#""type":"ping""#).await;
    }

    /// Bytes of memory that are really there, without the pages of the program, which come with its use.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("it is running");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("KiB");
        kib * 1024
    }

    /// The sum over all samples of the metric called `name`, whatever their labels.
    pub async fn metric(&self, name: &str) -> f64 {
        self.metric_with(name, "").await
    }

    /// The same, of the samples with this label.
    pub async fn metric_with(&self, name: &str, label: &str) -> f64 {
        let page = raw::get(self.admin, "/metrics").await.expect("the admin listener answers");
        assert_eq!(page.status, 200);
        let samples: Vec<f64> = page
            .body
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| line.contains(label))
            .map(|line| line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
            .collect();
        assert!(!samples.is_empty(), "no {name} in\n{}", page.body);
        samples.iter().sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(6000);
            let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("---- the server's log ----\n{}", &log[from..]);
        }
    }
}

/// A command with nothing of this process's environment that would configure it.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGCAST_") || name == "NOTIFY_SOCKET" {
            command.env_remove(name);
        }
    }
    command
}

fn spawn(arguments: &[String], directory: &TempDir, setup: Setup) -> Child {
    allow_many_descriptors();
    let log = File::options().create(true).append(true).open(log_path(directory)).expect("a log");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = command(&arguments);
    command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
    if setup.forbidden {
        // SAFETY: the function only makes two prctl calls, which are safe between fork and exec.
        unsafe { command.pre_exec(crate::forbidden::take_io_uring_away) };
    }
    command.spawn().expect("the program starts")
}

fn log_path(directory: &TempDir) -> PathBuf {
    directory.path().join("log")
}

/// An address nobody listens on. Ports are given out once per process, from below the range
/// that the kernel takes ports for outgoing connections from, and every process has a loopback
/// address of its own: neither two tests nor two runs ever race for one.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let pid = std::process::id();
    let [_, high, middle, low] = pid.to_be_bytes();
    let host = [127, 64 | high, middle, low];
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::from((host, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}

/// A thousand clients need a thousand descriptors, here and in the child, which inherits this.
fn allow_many_descriptors() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard).expect("within the hard limit");
    });
}

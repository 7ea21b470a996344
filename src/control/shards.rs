//! The shard threads: from a proven configuration to running loops, and what they tell the house.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tokio::sync::mpsc::UnboundedSender;

use crate::config::{Config, Descriptors, DriverKind, MemoryPlan};
use crate::io::epoll::Epoll;
use crate::io::uring::Uring;
use crate::io::{self as world, Choice, Description, Driver, ListenerSettings, Preference, Waker};
use crate::shard::{
    self, Address, Admission, Mailbox, MailboxRoom, Metrics, Post, Shard, Shared, mailbox,
};
use crate::time::{Clock, Time};
use crate::{conn, hub, web};

/// How often a shard looks at how much CPU it has used.
const LOAD_INTERVAL: Duration = Duration::from_millis(500);

/// Descriptors that are not clients: listeners, rings, eventfds, admin connections, files.
const DESCRIPTORS_RESERVED: usize = 512;

/// Sockets of a driver beside its connections: peers that are being told that there is no room.
const SOCKETS_SPARE: usize = 64;

/// The running shards.
#[derive(Debug)]
pub struct Shards {
    /// What drives them.
    pub description: Description,
    /// Why that driver.
    pub reason: String,
    /// Where clients connect.
    pub listening: SocketAddr,
    /// What each tells the house.
    pub metrics: Vec<Arc<Metrics>>,
    /// Who may come in.
    pub admission: Arc<Admission>,
    addresses: Vec<(Address, Waker)>,
    threads: Vec<JoinHandle<()>>,
}

impl Shards {
    /// Starts a thread for each shard. When this returns, clients can connect.
    ///
    /// `failures` hears why a shard failed, if one does; its last clone is dropped when all have
    /// ended.
    ///
    /// # Errors
    /// When a listener, a driver or a thread cannot be had; says which and what to raise.
    pub fn start(config: &Config, failures: UnboundedSender<String>) -> io::Result<Self> {
        let descriptors_max = raise_descriptor_limit();
        let (settings, note) = driver_settings(config, descriptors_max);
        let choice = world::choose(preference(config.driver), &settings)?;
        let (listeners, listening) = listeners(config)?;
        let connections_max = connections_max(config, &choice, descriptors_max);
        if connections_max < config.limits.connections_max {
            tracing::warn!(
                "RLIMIT_NOFILE {descriptors_max} is enough for {connections_max} connections, \
                 not for connections_max {}: peers beyond get 503; raise it (LimitNOFILE=)",
                config.limits.connections_max
            );
        }
        let admission = Arc::new(Admission::new(
            config.shards,
            connections_max,
            config.limits.connections_per_address_max,
        ));
        let mut seeds = Seeds::from_system()?;
        let home_seed = seeds.next();
        let (addresses, mailboxes): (Vec<_>, Vec<_>) =
            (0..config.shards).map(|_| mailbox(MailboxRoom::default())).unzip();
        let metrics: Vec<Arc<Metrics>> = (0..config.shards).map(|_| Arc::default()).collect();
        let cpus = allowed_cpus();
        // One beginning for all: messages travel between shards with the time of their publishing.
        let began = Instant::now();
        let (ready, started) = crossbeam_channel::bounded(config.shards);
        let mut starts = Vec::new();
        let mut threads = Vec::new();
        for (index, (listener, mailbox)) in listeners.into_iter().zip(mailboxes).enumerate() {
            let (start, go) = crossbeam_channel::bounded(1);
            starts.push(start);
            let plan = ThreadPlan {
                index,
                settings: shard_settings(config, index, home_seed),
                choice: choice.clone(),
                listener,
                mailbox,
                admission: admission.clone(),
                metrics: metrics[index].clone(),
                seed: seeds.next(),
                began,
                cpu: config.pin.then(|| cpus[index % cpus.len()]),
                ready: ready.clone(),
                go,
                failures: failures.clone(),
            };
            let thread = thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || plan.run())
                .map_err(|error| doing("starting a shard thread", &error))?;
            threads.push(thread);
        }
        drop(ready);
        let mut wakers: Vec<Option<Waker>> = vec![None; config.shards];
        let mut description = None;
        for _ in 0..config.shards {
            let (index, built) =
                started.recv().map_err(|_| io::Error::other("a shard thread ended at once"))?;
            let (waker, described) = built.map_err(|error| {
                doing(&format!("building the {} driver of shard {index}", choice.name()), &error)
            })?;
            wakers[index] = Some(waker);
            description = Some(described);
        }
        let wakers = wakers.into_iter().map(|waker| waker.expect("each shard has reported"));
        let addresses: Vec<(Address, Waker)> = addresses.into_iter().zip(wakers).collect();
        for start in starts {
            // A thread that is gone has told why through `failures`.
            let _ = start.send(addresses.clone());
        }
        let mut description = description.expect("there is at least one shard");
        if matches!(choice, Choice::Uring { .. }) {
            description.notes.push(note);
        }
        let reason = choice.reason().to_owned();
        Ok(Self { description, reason, listening, metrics, admission, addresses, threads })
    }

    /// A handle that tells every shard to drain.
    pub fn drainer(&self) -> impl FnMut() + Send + 'static {
        let addresses = self.addresses.clone();
        move || {
            for (address, waker) in &addresses {
                address.drain();
                waker.wake();
            }
        }
    }

    /// Waits until every thread has ended.
    pub fn join(self) {
        for thread in self.threads {
            // A panic has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Everything one shard thread is born with.
struct ThreadPlan {
    index: usize,
    settings: shard::Settings,
    choice: Choice,
    listener: OwnedFd,
    mailbox: Mailbox,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    seed: u64,
    began: Instant,
    cpu: Option<usize>,
    ready: crossbeam_channel::Sender<(usize, io::Result<(Waker, Description)>)>,
    go: crossbeam_channel::Receiver<Vec<(Address, Waker)>>,
    failures: UnboundedSender<String>,
}

impl ThreadPlan {
    fn run(self) {
        if let Some(cpu) = self.cpu
            && let Err(error) = pin(cpu)
        {
            tracing::warn!(shard = self.index, cpu, %error, "cannot be bound to its CPU");
        }
        match self.choice.clone() {
            Choice::Uring { settings, .. } => self.drive(Uring::new(&settings)),
            Choice::Epoll { settings, .. } => self.drive(Epoll::new(&settings)),
        }
    }

    fn drive<D: Driver>(self, driver: io::Result<D>) {
        let driver = match driver {
            Ok(driver) => driver,
            Err(error) => return drop(self.ready.send((self.index, Err(error)))),
        };
        if self.ready.send((self.index, Ok((driver.waker(), driver.describe())))).is_err() {
            return;
        }
        let Ok(others) = self.go.recv() else { return };
        let shared = Shared {
            post: Post::new(self.mailbox, others),
            admission: self.admission,
            metrics: self.metrics.clone(),
        };
        let random = fastrand::Rng::with_seed(self.seed);
        let mut shard = Shard::new(self.settings, driver, shared, random);
        let ended =
            shard.listen(self.listener).and_then(|()| run(&mut shard, &self.metrics, self.began));
        if let Err(error) = ended {
            let _ = self.failures.send(format!("shard {}: {error}", self.index));
        }
    }
}

/// Turns the loop until the shard has drained.
fn run<D: Driver>(shard: &mut Shard<D>, metrics: &Metrics, began: Instant) -> io::Result<()> {
    let mut clock = SystemClock(began);
    let mut load = Load::new(clock.now());
    let mut now = clock.now();
    loop {
        let goes_on = shard.tick(now, &mut clock)?;
        now = clock.now();
        load.measure(now, metrics);
        if !goes_on {
            return Ok(());
        }
    }
}

/// The operating system's monotonic clock, from the start of all shards.
struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&mut self) -> Time {
        Time::from_start(self.0.elapsed())
    }
}

/// How much of a CPU this thread uses.
struct Load {
    at: Time,
    used: Duration,
}

impl Load {
    fn new(at: Time) -> Self {
        Self { at, used: thread_cpu_time() }
    }

    fn measure(&mut self, now: Time, metrics: &Metrics) {
        let elapsed = now.since(self.at);
        if elapsed < LOAD_INTERVAL {
            return;
        }
        let used = thread_cpu_time();
        let permille = (used - self.used).as_millis() * 1000 / elapsed.as_millis();
        metrics.load_permille.set(u64::try_from(permille).unwrap_or(u64::MAX));
        (self.at, self.used) = (now, used);
    }
}

fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn shard_settings(config: &Config, index: usize, home_seed: u64) -> shard::Settings {
    let shards = config.shards as u64;
    let share = usize::try_from(MemoryPlan::of(config).messages_bytes() / shards)
        .expect("a share of memory_max fits the address space");
    let Config { limits, timing, .. } = config;
    shard::Settings {
        conn: conn::Settings {
            message_bytes_max: limits.message_bytes_max,
            body_bytes_max: limits.body_bytes_max,
            channels_per_client_max: limits.channels_per_client_max,
            handshake_timeout: timing.handshake_timeout,
            request_timeout: timing.request_timeout,
            ping_interval: timing.ping_interval,
            pong_timeout: timing.pong_timeout,
            idle_timeout: timing.idle_timeout,
            close_timeout: timing.close_timeout,
            cors: config.cors.clone(),
            compression: config.compression,
            compression_window_bytes_max: limits.compression_window_bytes_max.unwrap_or(0),
            echo: config.echo,
            pages: web::PAGES.to_vec(),
        },
        hub: hub::Settings {
            shard: index as u16,
            shards: config.shards as u16,
            home_seed,
            outbox: hub::Capacity {
                messages: limits.outbox_messages_max as u32,
                bytes: limits.outbox_bytes_max as u32,
            },
            channels_per_client_max: limits.channels_per_client_max,
            channels_max: limits.channels_max.div_ceil(config.shards),
            compression_level: config.compression_level,
            // A quarter of the share is for messages that clients have not finished sending.
            memory_bytes_max: share / 4 * 3,
            rules: config.rules(),
        },
        drain_window: timing.drain_window,
        held_bytes_max: share / 4,
    }
}

const fn preference(kind: DriverKind) -> Preference {
    match kind {
        DriverKind::Auto => Preference::Auto,
        DriverKind::Uring => Preference::Uring,
        DriverKind::Epoll => Preference::Epoll,
    }
}

/// How the drivers are built, and why the descriptors are kept as they are.
fn driver_settings(config: &Config, descriptors_max: usize) -> (world::Settings, String) {
    let connections_max = config.limits.connections_max;
    let needed = connections_max + DESCRIPTORS_RESERVED;
    let (direct, why) = match config.descriptors {
        Descriptors::Regular => (false, "regular descriptors were asked for".to_owned()),
        Descriptors::Direct => (true, "direct descriptors were asked for".to_owned()),
        Descriptors::Auto if needed > descriptors_max => (
            true,
            format!(
                "direct descriptors, because connections_max {connections_max} is beyond \
                 RLIMIT_NOFILE {descriptors_max}"
            ),
        ),
        Descriptors::Auto => (
            false,
            format!(
                "regular descriptors, because RLIMIT_NOFILE {descriptors_max} is enough for \
                 connections_max {connections_max} and tools can see them"
            ),
        ),
    };
    // Shards are never loaded quite alike: a quarter more than an equal share.
    let share = connections_max.div_ceil(config.shards) * 5 / 4 + SOCKETS_SPARE;
    // Those who are turned away hold a socket until their answer has left.
    let turned_away = connections_max / 16 + SOCKETS_SPARE;
    let sockets_max =
        if direct { share.min(descriptors_max) } else { connections_max + turned_away };
    let settings = world::Settings {
        sockets_max,
        direct,
        receive_buffers: crate::config::plan::RECEIVE_BUFFERS_PER_SHARD as u16,
        receive_buffer_bytes: crate::config::plan::RECEIVE_BUFFER_BYTES as u32,
        submissions: crate::config::plan::SUBMISSION_ENTRIES as u32,
        completions: crate::config::plan::COMPLETION_ENTRIES as u32,
        sends_apart: config.rules().have_max_age(),
        ..world::Settings::default()
    };
    (settings, why)
}

/// How many connections there may be: `connections_max`, or what there are descriptors for when
/// that is less. A peer beyond them is told so, which takes a descriptor, too; one that finds no
/// descriptor would hang in the listener's queue.
fn connections_max(config: &Config, choice: &Choice, descriptors_max: usize) -> usize {
    let sockets = match choice {
        Choice::Uring { settings, .. } if settings.direct => {
            config.shards * settings.sockets_max.saturating_sub(SOCKETS_SPARE)
        }
        _ => descriptors_max - DESCRIPTORS_RESERVED.min(descriptors_max / 4),
    };
    config.limits.connections_max.min(sockets)
}

/// One listener for each shard, all at one address.
fn listeners(config: &Config) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    let settings = ListenerSettings {
        backlog: u32::try_from(config.socket.backlog).unwrap_or(0),
        send_buffer_bytes: config.socket.send_buffer_bytes.map(|bytes| bytes as u32),
        notsent_lowat_bytes: config.socket.notsent_lowat_bytes.map(|bytes| bytes as u32),
        reuse_port: false,
    };
    // SO_REUSEPORT would let two servers of one user share a port without a word: first see
    // whether it is free for us alone.
    let address = bound_address(&world::listener(config.listen, &settings)?)?;
    let settings = ListenerSettings { reuse_port: true, ..settings };
    let listeners: io::Result<Vec<OwnedFd>> =
        (0..config.shards).map(|_| world::listener(address, &settings)).collect();
    Ok((listeners?, address))
}

fn bound_address(listener: &OwnedFd) -> io::Result<SocketAddr> {
    let address = socket2::SockRef::from(listener).local_addr()?;
    address.as_socket().ok_or_else(|| io::Error::other("the listener has no IP address"))
}

/// Raises the soft limit of descriptors to the hard one; returns what is allowed then.
fn raise_descriptor_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let now = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    usize::try_from(now).unwrap_or(usize::MAX)
}

/// The CPUs this process may use.
fn allowed_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let cpus: Vec<usize> =
        (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Chance for shards, drawn once from the system.
struct Seeds(fastrand::Rng);

impl Seeds {
    fn from_system() -> io::Result<Self> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(fastrand::Rng::with_seed(u64::from_ne_bytes(seed))))
    }

    fn next(&mut self) -> u64 {
        self.0.u64(..)
    }
}

/// An error with what was being done, and the limit to raise if it is one.
pub(super) fn doing(what: &str, error: &io::Error) -> io::Error {
    let cure = match error.raw_os_error() {
        Some(libc::ENOMEM) => " (raise RLIMIT_MEMLOCK: LimitMEMLOCK=infinity, or use fewer shards)",
        Some(libc::EMFILE) => " (raise RLIMIT_NOFILE: LimitNOFILE=)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{what}: {error}{cure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(connections: usize, shards: usize, descriptors: usize) -> (Config, world::Settings) {
        let mut config = Config { shards, ..Config::default() };
        config.limits.connections_max = connections;
        let (settings, _) = driver_settings(&config, descriptors);
        (config, settings)
    }

    fn uring(settings: &world::Settings) -> Choice {
        Choice::Uring { settings: settings.clone(), reason: String::new() }
    }

    fn epoll(settings: &world::Settings) -> Choice {
        Choice::Epoll { settings: settings.clone(), reason: String::new() }
    }

    #[test]
    fn there_is_always_a_socket_left_to_say_that_the_server_is_full() {
        for connections in [1, 4, 1_000, 100_000] {
            for shards in [1, 2, 7] {
                for descriptors in [1_024, 20_000, 1 << 20] {
                    let (config, settings) = planned(connections, shards, descriptors);
                    for choice in [uring(&settings), epoll(&settings)] {
                        let max = connections_max(&config, &choice, descriptors);
                        assert!((1..=connections).contains(&max));
                        let is_direct = matches!(choice, Choice::Uring { .. }) && settings.direct;
                        let sockets = settings.sockets_max * shards;
                        assert!(max < if is_direct { sockets } else { sockets.min(descriptors) });
                    }
                }
            }
        }
    }

    #[test]
    fn more_connections_than_descriptors_need_direct_ones_and_each_shard_has_the_limit() {
        let (config, settings) = planned(100_000, 6, 20_000);
        assert!(settings.direct && settings.sockets_max == 20_000);
        assert_eq!(connections_max(&config, &uring(&settings), 20_000), 100_000);
        assert_eq!(connections_max(&config, &epoll(&settings), 20_000), 20_000 - 512);
        let (config, settings) = planned(100_000, 2, 20_000);
        assert_eq!(connections_max(&config, &uring(&settings), 20_000), 39_872);
    }
}

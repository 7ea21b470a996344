//! `hold`: very many connections to one server process.
//!
//! The limit on descriptors is per process, and so are neither ports nor cores: parts of up to
//! 15,000 connections run in processes of their own, each from its own loopback address. They
//! subscribe, answer pings, and count; at the end one broadcast must reach everyone.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::generator::{Fleet, Greeting, TEXT, write_masked};
use crate::machine;
use crate::servers::{self, Dialect};

/// How long the broadcast may take to reach everyone.
const BROADCAST_TIME_MAX: Duration = Duration::from_secs(30);

const CHANNEL: &str = "hold";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Connections in all.
    #[arg(long, default_value_t = 100_000)]
    connections: usize,
    /// The server, as `ws://ADDRESS:PORT/ws`. Without it a server is started and ended here.
    #[arg(long, value_parser = address_of)]
    url: Option<SocketAddr>,
    /// The server's process, to read its memory, when it was not started here.
    #[arg(long)]
    server_pid: Option<u32>,
    /// The `ringcast` program to start. Default: the one beside this program.
    #[arg(long)]
    server_binary: Option<PathBuf>,
    /// Arguments of `ringcast serve` when it is started here.
    #[arg(long, default_value = "--shards 6 --descriptors direct", allow_hyphen_values = true)]
    server_arguments: String,
    /// Connections of one part at most: below the hard limit on descriptors.
    #[arg(long, default_value_t = 15_000)]
    part_connections_max: usize,
    /// How long to hold before the broadcast: longer than the ping interval.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
}

#[derive(clap::Args)]
pub(crate) struct PartArguments {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    source: Ipv4Addr,
    #[arg(long)]
    connections: usize,
    /// When to stop waiting for the broadcast, in seconds from the start.
    #[arg(long)]
    seconds_max: u64,
}

/// The address in a URL. Names are not looked up: this load stays on one machine.
fn address_of(url: &str) -> Result<SocketAddr, String> {
    let rest = url.strip_prefix("ws://").unwrap_or(url);
    let (address, path) = rest.split_once('/').unwrap_or((rest, "ws"));
    if path != "ws" {
        return Err("only /ws has channels".to_owned());
    }
    let address: SocketAddr =
        address.parse().map_err(|error| format!("{error} (wanted: ws://127.0.0.1:8080/ws)"))?;
    if !address.ip().is_loopback() {
        return Err("this load is for loopback only".to_owned());
    }
    Ok(address)
}

/// Holds, broadcasts, reports; returns whether everyone was reached.
pub(crate) fn run(arguments: &Arguments) -> io::Result<bool> {
    if arguments.connections == 0 || arguments.part_connections_max == 0 {
        return Err(io::Error::other("nothing to hold"));
    }
    let mut server = Server::take(arguments)?;
    let before = server.memory()?;
    let parts_count = arguments.connections.div_ceil(arguments.part_connections_max);
    let bar = ProgressBar::new(arguments.connections as u64);
    let mut parts = Vec::new();
    let mut opening = Duration::ZERO;
    for index in 0..parts_count {
        let share = arguments.connections / parts_count
            + usize::from(index < arguments.connections % parts_count);
        let started = Instant::now();
        // One after the other: the server's accept is not what is asked here.
        let part = Part::start(&server, index, share, arguments.seconds)?;
        opening += started.elapsed();
        bar.inc(share as u64);
        parts.push(part);
    }
    bar.finish_and_clear();
    println!("{} connections open after {:.1} s", arguments.connections, opening.as_secs_f64());

    let first_half = Duration::from_secs(arguments.seconds) / 2;
    thread::sleep(first_half);
    let held = server.memory()?;
    thread::sleep(Duration::from_secs(arguments.seconds) - first_half);
    server.must_live()?;

    let started = Instant::now();
    broadcast(server.address)?;
    let mut total = Counts::default();
    for part in &mut parts {
        total.add(&part.result()?);
    }
    let reached = started.elapsed();
    println!("\n## hold: {} connections in one process\n", arguments.connections);
    println!("| what | value |\n|---|---|");
    println!("| reached by the broadcast | {} |", total.reached);
    println!("| time until the last was reached | {:.0} ms |", reached.as_secs_f64() * 1e3);
    println!("| pings answered | {} |", total.pings);
    println!("| connections that were answered no ping | {} |", total.unpinged);
    println!("| closed by the server | {} |", total.closed);
    println!("| gap notices | {} |", total.gaps);
    if let (Some(before), Some(held)) = (before, held) {
        let each =
            |after: u64, before: u64| (after as f64 - before as f64) / arguments.connections as f64;
        println!("| server RSS per connection | {:.0} bytes |", each(held.0, before.0));
        let both = each(held.1, before.1);
        println!("| kernel slab per connection, both ends | {both:.0} bytes |");
    }
    let mut whole = true;
    if total.reached != arguments.connections as u64 || total.closed > 0 {
        whole = false;
        println!("\n**NOT everyone was reached**");
    }
    // Held for less than a ping interval, nobody is pinged, and nothing is shown about pings.
    if total.pings > 0 && total.unpinged > 0 {
        whole = false;
        println!("\n**NOT everyone was pinged: hold for longer than a ping interval**");
    }
    if whole {
        println!("\neveryone was reached");
    }
    Ok(whole)
}

/// The server, started here or elsewhere.
struct Server {
    address: SocketAddr,
    pid: Option<u32>,
    child: Option<Child>,
}

impl Server {
    fn take(arguments: &Arguments) -> io::Result<Self> {
        if let Some(address) = arguments.url {
            return Ok(Self { address, pid: arguments.server_pid, child: None });
        }
        let binary = match &arguments.server_binary {
            Some(path) => path.clone(),
            None => servers::binary_beside()?,
        };
        machine::raise_descriptor_limit()?;
        let address = servers::free_address()?;
        let mut command = Command::new(binary);
        command.arg("serve").args(arguments.server_arguments.split_whitespace());
        command.args(["--listen", &address.to_string()]);
        // The publisher comes on top, and the default stands at exactly 100,000.
        let connections_max = arguments.connections + 1_000;
        command.env("RINGCAST_LIMITS_CONNECTIONS_MAX", connections_max.to_string());
        command.args(["--admin", &servers::free_address()?.to_string()]);
        let child = servers::spawn_pinned(&mut command, None)?;
        let mut server = Self { address, pid: Some(child.id()), child: Some(child) };
        let started = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            server.must_live()?;
            if started.elapsed() > Duration::from_secs(15) {
                return Err(io::Error::other("the server accepts no connection"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(500));
        Ok(server)
    }

    fn must_live(&mut self) -> io::Result<()> {
        match self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            Some(status) => Err(io::Error::other(format!("the server ended with {status}"))),
            None => Ok(()),
        }
    }

    /// Resident memory of the server, and the kernel's slab.
    fn memory(&self) -> io::Result<Option<(u64, u64)>> {
        let Some(pid) = self.pid else { return Ok(None) };
        let slab = match machine::socket_slab_bytes() {
            Some(bytes) => bytes,
            None => machine::slab_bytes()?,
        };
        Ok(Some((machine::resident_bytes(pid)?, slab)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Some of the connections, in a process of their own.
struct Part {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Part {
    fn start(server: &Server, index: usize, connections: usize, seconds: u64) -> io::Result<Self> {
        let source = Ipv4Addr::new(127, 0, (index / 200) as u8, (2 + index % 200) as u8);
        let mut command = Command::new(servers::own_program()?);
        command.args(["hold-part", "--address", &server.address.to_string()]);
        command.args(["--source", &source.to_string()]);
        command.args(["--connections", &connections.to_string()]);
        // Parts that start first also wait for those that start last.
        command.args(["--seconds-max", &(seconds + 240).to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = servers::spawn_pinned(&mut command, None)?;
        let stdout = child.stdout.take().expect("standard output is piped");
        let mut part = Self { child, lines: BufReader::new(stdout) };
        part.line("open")?;
        Ok(part)
    }

    /// Reads a line that starts with this word.
    fn line(&mut self, word: &str) -> io::Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        match line.strip_prefix(word) {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => Err(io::Error::other(format!("a part ended early: {:?}", line.trim()))),
        }
    }

    fn result(&mut self) -> io::Result<Counts> {
        let line = self.line("counts")?;
        let mut numbers = line.split(' ').map(|field| field.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Ok(Counts {
            reached: next(),
            pings: next(),
            unpinged: next(),
            closed: next(),
            gaps: next(),
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Counts {
    reached: u64,
    pings: u64,
    /// Connections that no ping came to.
    unpinged: u64,
    closed: u64,
    gaps: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.reached += other.reached;
        self.pings += other.pings;
        self.unpinged += other.unpinged;
        self.closed += other.closed;
        self.gaps += other.gaps;
    }
}

/// One message to everyone.
fn broadcast(address: SocketAddr) -> io::Result<()> {
    let mut fleet = Fleet::new(true)?;
    fleet.open(&Greeting::new(address, Dialect::Ringcast), 1)?;
    let text = format!(r#"{{"type":"publish","id":1,"channel":"{CHANNEL}","payload":"all"}}"#);
    let mut frame = Vec::new();
    write_masked(&mut frame, TEXT, text.as_bytes());
    fleet.send(0, &frame)?;
    let started = Instant::now();
    let mut acked = false;
    while !acked {
        if started.elapsed() > BROADCAST_TIME_MAX {
            return Err(io::Error::other("the broadcast was not acked"));
        }
        fleet.hear(|_, frames, _| {
            for frame in frames {
                acked |= frame.is_type(b"ack");
            }
        })?;
    }
    Ok(())
}

/// The life of one part: open, say so, stay until the broadcast or the time is over, count.
pub(crate) fn part(arguments: &PartArguments) -> io::Result<()> {
    machine::raise_descriptor_limit()?;
    let started = Instant::now();
    let mut fleet = Fleet::new(true)?;
    let source = Some(arguments.source);
    let greeting = Greeting {
        source,
        channel: Some(CHANNEL),
        ..Greeting::new(arguments.address, Dialect::Ringcast)
    };
    let mut counts = Counts::default();
    let mut pinged = vec![false; arguments.connections];
    let mut left = arguments.connections;
    while left > 0 {
        let batch = left.min(1024);
        fleet.open(&greeting, batch)?;
        left -= batch;
        // Those that are open already must not miss their pings meanwhile.
        hear(&mut fleet, &mut counts, &mut pinged)?;
    }
    println!("open {}", arguments.connections);
    io::stdout().flush()?;
    let all = arguments.connections as u64;
    let mut first_reached: Option<Instant> = None;
    while counts.reached < all {
        hear(&mut fleet, &mut counts, &mut pinged)?;
        if counts.reached > 0 && first_reached.is_none() {
            first_reached = Some(Instant::now());
        }
        let over = first_reached.is_some_and(|at| at.elapsed() > BROADCAST_TIME_MAX);
        if over || started.elapsed() > Duration::from_secs(arguments.seconds_max) {
            break;
        }
    }
    let Counts { reached, pings, gaps, .. } = counts;
    let unpinged = pinged.iter().filter(|seen| !**seen).count();
    println!("counts {reached} {pings} {unpinged} {} {gaps}", fleet.closed());
    Ok(())
}

fn hear(fleet: &mut Fleet, counts: &mut Counts, pinged: &mut [bool]) -> io::Result<()> {
    let mut pings = Vec::new();
    fleet.hear(|client, frames, _| {
        for frame in frames {
            if frame.is_message() {
                counts.reached += 1;
            } else if frame.is_ping() {
                pings.push((client, frame.payload.to_vec()));
            } else if frame.is_type(b"gap") {
                counts.gaps += 1;
            }
        }
    })?;
    for (client, _) in &pings {
        counts.pings += 1;
        pinged[*client] = true;
    }
    fleet.answer(&mut pings)?;
    Ok(())
}

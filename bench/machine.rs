//! What the kernel tells about processes and about itself: pinning, limits, CPU time, memory.

use std::fs;
use std::io;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// The core every server under test runs on.
pub(crate) const SERVER_CPU: usize = 0;

/// The core the generator runs on.
pub(crate) const GENERATOR_CPU: usize = 1;

/// Pins the calling thread. On a machine with one core both ends share it, and the figures say
/// little; the caller is told.
pub(crate) fn pin_to(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|error| {
        io::Error::other(format!("pinning to CPU {cpu}: {error} (this needs two cores)"))
    })
}

/// Raises the soft limit on descriptors to the hard one and returns it.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// CPU time of a process in nanoseconds: the sum over its threads of the first field of
/// `/proc/PID/task/*/schedstat`. `/proc/PID/stat` has user and system time in ticks of 10 ms;
/// this is the scheduler's own count, late by at most one timer tick (4 ms at 250 Hz) for a
/// thread that runs while it is read. Kernel workers of a ring are threads of the process and
/// are counted.
pub(crate) fn cpu_ns(pid: u32) -> io::Result<u64> {
    schedstat(pid, 0)
}

/// Time in nanoseconds that a process's threads were ready to run while something else had their
/// core (the second field of the same files): how much other work disturbed it.
pub(crate) fn waited_ns(pid: u32) -> io::Result<u64> {
    schedstat(pid, 1)
}

fn schedstat(pid: u32, field: usize) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(path) else { continue };
        let value = text.split_whitespace().nth(field).and_then(|text| text.parse::<u64>().ok());
        sum += value.unwrap_or(0);
    }
    Ok(sum)
}

/// Resident memory of a process in bytes (`VmRSS`).
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    field_kib(&status, "VmRSS:").ok_or_else(|| io::Error::other("no VmRSS in /proc/PID/status"))
}

/// Kernel slab in bytes, as `/proc/meminfo` sums it (whole pages, also pages that hold freed
/// objects).
pub(crate) fn slab_bytes() -> io::Result<u64> {
    let page = fs::read_to_string("/proc/meminfo")?;
    field_kib(&page, "Slab:").ok_or_else(|| io::Error::other("no Slab in /proc/meminfo"))
}

/// Caches of slab that sockets, their files, and what waits on them are made of. The caches of
/// dentries and inode labels are left out: every socket has one of each under every server, and
/// any other work on the machine that opens files moves them by megabytes.
const SOCKET_CACHES: [&str; 12] = [
    "TCP",
    "TCPv6",
    "tw_sock_TCP",
    "request_sock_TCP",
    "sock_inode_cache",
    "filp",
    "eventpoll_epi",
    "eventpoll_pwq",
    "ep_head",
    "io_kiocb",
    "tcp_bind_bucket",
    "tcp_bind2_bucket",
];

/// Bytes of slab objects in use that sockets account for, from `/proc/slabinfo`: the caches
/// above, `kmalloc-*` and `skbuff_*`. `None` where it is not readable (it needs root).
pub(crate) fn socket_slab_bytes() -> Option<u64> {
    let page = fs::read_to_string("/proc/slabinfo").ok()?;
    let objects = page.lines().skip(2).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        let counted = SOCKET_CACHES.contains(&name)
            || name.starts_with("kmalloc-")
            || name.starts_with("skbuff_");
        let active: u64 = fields.next()?.parse().ok()?;
        let bytes_each: u64 = fields.nth(1)?.parse().ok()?;
        counted.then_some(active * bytes_each)
    });
    Some(objects.sum())
}

/// Cores a process's threads may run on, as the kernel lists them, each different list once.
pub(crate) fn allowed_cpus(pid: u32) -> io::Result<Vec<String>> {
    let mut lists: Vec<String> = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let list = list.unwrap_or("?").trim().to_owned();
        if !lists.contains(&list) {
            lists.push(list);
        }
    }
    Ok(lists)
}

fn field_kib(page: &str, name: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

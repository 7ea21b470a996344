//! What the kernel accounts to this process.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::admin::ProcessNumbers;

/// What the kernel accounts to this process now; `None` where it does not tell.
#[must_use]
pub fn process_numbers() -> Option<ProcessNumbers> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(ProcessNumbers {
        cpu_seconds: seconds(usage.user_time()) + seconds(usage.system_time()),
        resident_bytes: resident_bytes(&status)?,
    })
}

/// proc(5): `VmRSS:      5124 kB`, where kB means KiB.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_about_this_process() {
        let numbers = process_numbers().expect("a kernel with /proc");
        assert!(numbers.resident_bytes > 1 << 16);
        assert!(numbers.cpu_seconds >= 0.0);
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    5124 kB\n"), Some(5124 * 1024));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }
}

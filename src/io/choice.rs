//! Which driver serves on this machine: asked once at start, told in one line.

use std::io;

use nix::sys::resource::{Resource, getrlimit};

use super::uring::Uring;

/// What a driver is built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Sockets that one driver may hold. With direct descriptors the kernel's table is made
    /// this large at once (8 bytes each) and cannot exceed RLIMIT_NOFILE.
    pub sockets_max: usize,
    /// io_uring only: sockets live in the ring's own table and use up none of the process's
    /// descriptors, so that each driver may hold RLIMIT_NOFILE sockets. Where the process's
    /// descriptors suffice, regular ones are as fast and can be seen by tools (`ss -p`).
    pub direct: bool,
    /// Buffers to receive into, shared by all sockets of the driver. When all are in use the
    /// kernel waits for the next tick.
    pub receive_buffers: u16,
    /// Bytes of each. A message within one buffer is never copied before it is parsed.
    pub receive_buffer_bytes: u32,
    /// io_uring only: entries of the submission queue (64 bytes each, counted against
    /// RLIMIT_MEMLOCK). More submissions than that simply take another system call.
    pub submissions: u32,
    /// io_uring only: entries of the completion queue (16 bytes each, counted against
    /// RLIMIT_MEMLOCK). A larger burst costs the kernel an allocation for each completion.
    pub completions: u32,
    /// io_uring only: sends that succeed whole post no completion, where the self-test proves
    /// that this kernel can do so without losing count. Off, each posts one.
    pub sends_skip_success: bool,
    /// What one send hands over the kernel keeps apart from the next one (MSG_EOR). Else it fills up
    /// what it has not sent yet to a whole large segment, tens of KiB, whatever SO_SNDBUF and
    /// TCP_NOTSENT_LOWAT say: it asks them only when it begins another one (`tcp_sendmsg_locked`).
    pub sends_apart: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sockets_max: 16 * 1024,
            direct: false,
            receive_buffers: 512,
            receive_buffer_bytes: 4096,
            submissions: 1024,
            completions: 8192,
            sends_skip_success: true,
            sends_apart: false,
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preference {
    /// io_uring where the machine has what it takes, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// What will serve. Each shard builds its own driver on its own thread: a ring belongs to the
/// thread that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// [`Uring::new`] with these settings.
    Uring {
        /// What to build it with.
        settings: Settings,
        /// Why, in one line.
        reason: String,
    },
    /// [`Epoll::new`](super::epoll::Epoll::new) with these settings.
    Epoll {
        /// What to build it with.
        settings: Settings,
        /// Why, in one line.
        reason: String,
    },
}

impl Choice {
    /// "uring" or "epoll".
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Uring { .. } => "uring",
            Self::Epoll { .. } => "epoll",
        }
    }

    /// Why, in one line.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Uring { reason, .. } | Self::Epoll { reason, .. } => reason,
        }
    }
}

/// Tries what this machine can do, by building a small ring and throwing it away.
///
/// # Errors
/// When io_uring was asked for and is missing, and when a limit stands in its way: that is
/// nothing to fall back from silently, and the message names the limit to raise.
pub fn choose(preference: Preference, settings: &Settings) -> io::Result<Choice> {
    if preference == Preference::Epoll {
        let reason = "epoll was asked for".to_owned();
        return Ok(Choice::Epoll { settings: settings.clone(), reason });
    }
    // Small, so that a probe does not take from a tight RLIMIT_MEMLOCK what the shards need:
    // the kernel gives it back some time after the ring is gone.
    let probe = Settings {
        sockets_max: settings.sockets_max.min(64),
        receive_buffers: 8,
        submissions: 64,
        completions: 256,
        ..settings.clone()
    };
    match Uring::new(&probe) {
        Ok(_) => {
            if settings.direct {
                direct_fits(settings)?;
            }
            let reason = match preference {
                Preference::Auto => "this kernel has what it takes",
                _ => "io_uring was asked for",
            };
            Ok(Choice::Uring { settings: settings.clone(), reason: reason.to_owned() })
        }
        Err(error) if preference == Preference::Auto => match why_missing(&error) {
            Some(why) => {
                let reason = format!("io_uring is not to be had: {why}");
                Ok(Choice::Epoll { settings: settings.clone(), reason })
            }
            None => Err(error),
        },
        Err(error) => match why_missing(&error) {
            Some(why) => Err(io::Error::new(
                error.kind(),
                format!("io_uring was asked for and is not to be had: {why}"),
            )),
            None => Err(error),
        },
    }
}

/// Why a ring cannot be had on this machine at all; `None` when something else went wrong.
fn why_missing(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::ENOSYS => Some("the kernel does not know it, or a seccomp filter hides it (ENOSYS)"),
        libc::EPERM => Some(
            "it is forbidden here (EPERM: a container's seccomp filter, or kernel.io_uring_disabled)",
        ),
        libc::EACCES => Some("it is forbidden here (EACCES: a security policy)"),
        libc::EINVAL => Some("the kernel is older than 6.1 (EINVAL)"),
        libc::EOPNOTSUPP => Some("the kernel lacks a feature that is needed (EOPNOTSUPP)"),
        _ => None,
    }
}

/// A registered table larger than RLIMIT_NOFILE is refused by the kernel.
pub(super) fn direct_fits(settings: &Settings) -> io::Result<()> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if settings.sockets_max as u64 > soft {
        return Err(io::Error::other(format!(
            "{} direct descriptors for each shard exceed RLIMIT_NOFILE ({soft}): raise it \
             (LimitNOFILE=), use more shards, or allow fewer connections",
            settings.sockets_max
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::thread;

    use super::{Choice, Preference, Settings, choose};

    /// What `choose` says where making a ring fails with `code`, by a seccomp filter that binds
    /// one thread, as a container's binds all.
    fn choose_where_rings_fail(preference: Preference, code: i32) -> io::Result<Choice> {
        let forbid_and_choose = move || {
            let jump = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
            let call = u32::try_from(libc::SYS_io_uring_setup).expect("a small number");
            let refusal = libc::SECCOMP_RET_ERRNO | u32::try_from(code).expect("a small number");
            let mut program = [
                // The number of the call is the first word of what a filter sees.
                jump(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
                jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
                jump(libc::BPF_RET | libc::BPF_K, 0, 0, refusal),
                jump(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
            ];
            let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
            // SAFETY: the filter and its program live across the calls, which copy them. They
            // bind this thread alone, and it ends with this closure.
            let done = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                    && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) == 0
            };
            assert!(done, "a filter can be set: {}", io::Error::last_os_error());
            choose(preference, &Settings::default())
        };
        thread::spawn(forbid_and_choose).join().expect("no panic")
    }

    #[test]
    fn a_machine_that_forbids_io_uring_gets_epoll_and_the_reason() {
        for (code, name) in
            [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS"), (libc::EINVAL, "EINVAL")]
        {
            let choice = choose_where_rings_fail(Preference::Auto, code).expect("a fallback");
            assert_eq!(choice.name(), "epoll");
            assert!(choice.reason().contains(name), "{}", choice.reason());
            assert!(!choice.reason().contains('\n'));
            let error = choose_where_rings_fail(Preference::Uring, code).expect_err("no ring");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_limit_in_the_way_is_named_and_not_fallen_back_from() {
        for (code, limit) in [(libc::ENOMEM, "RLIMIT_MEMLOCK"), (libc::EMFILE, "RLIMIT_NOFILE")] {
            for preference in [Preference::Auto, Preference::Uring] {
                let error = choose_where_rings_fail(preference, code).expect_err("a limit");
                assert!(error.to_string().contains(limit), "{error}");
            }
        }
    }

    #[test]
    fn epoll_is_taken_when_asked_for_and_says_so() {
        let choice = choose(Preference::Epoll, &Settings::default()).expect("always there");
        assert!(matches!(choice, Choice::Epoll { .. }));
        assert!(choice.reason().contains("asked"));
    }

    #[test]
    fn more_direct_descriptors_than_the_limit_are_refused_by_name() {
        let settings =
            Settings { sockets_max: usize::MAX / 2, direct: true, ..Settings::default() };
        match choose(Preference::Auto, &settings) {
            Err(error) => assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}"),
            Ok(choice) => assert_eq!(choice.name(), "epoll", "only without io_uring"),
        }
    }
}

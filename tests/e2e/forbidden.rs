//! io_uring taken away, as the default seccomp profile of containers does it: the same claims
//! hold, and the log says in one line what was chosen instead and why.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use crate::client::Client;
use crate::server::{Server, Setup, binary, free_address, patience};
use crate::{column, life, messages, overflow, protocol, shutdown};

/// The claims about messages, and the hardest of the others, through the fallback.
mod claims {
    pub(crate) use super::life::a_peer_that_answers_no_ping_is_ended_and_one_that_does_stays;
    pub(crate) use super::messages::{
        every_subscriber_hears_everything_in_one_order, payloads_keep_their_bytes,
        publisher_hears_its_own_message_and_its_ack,
        requests_that_cannot_be_met_get_a_stable_code_and_the_connection_lives,
        unsubscribed_hears_nothing_after_its_ack,
    };
    pub(crate) use super::overflow::{
        a_client_that_never_reads_delays_nobody, drop_newest_keeps_the_oldest,
        drop_oldest_keeps_the_newest,
    };
    pub(crate) use super::protocol::{
        half_a_frame_and_a_hang_up_harm_nobody, lengths_beyond_reason_close_at_the_header,
    };
    pub(crate) use super::shutdown::every_subscriber_gets_goaway_then_1001_spread_over_the_window;

    crate::column!(
        auto_without_uring,
        crate::server::Setup::forbidden(),
        publisher_hears_its_own_message_and_its_ack,
        every_subscriber_hears_everything_in_one_order,
        unsubscribed_hears_nothing_after_its_ack,
        payloads_keep_their_bytes,
        requests_that_cannot_be_met_get_a_stable_code_and_the_connection_lives,
        drop_oldest_keeps_the_newest,
        drop_newest_keeps_the_oldest,
        a_client_that_never_reads_delays_nobody,
        half_a_frame_and_a_hang_up_harm_nobody,
        lengths_beyond_reason_close_at_the_header,
        a_peer_that_answers_no_ping_is_ended_and_one_that_does_stays,
        every_subscriber_gets_goaway_then_1001_spread_over_the_window
    );
}

column!(
    filtered,
    crate::server::Setup::forbidden(),
    auto_falls_back_to_epoll_and_says_why_in_one_line
);

pub async fn auto_falls_back_to_epoll_and_says_why_in_one_line(setup: Setup) {
    let server = Server::start(setup, "").await;
    Client::open(&server).await.heard_nothing_more().await;
    let log = server.log();
    let told: Vec<&str> =
        log.lines().filter(|line| line.contains("epoll") && line.contains("io_uring")).collect();
    assert_eq!(told.len(), 1, "one line says it:\n{log}");
    let page = crate::raw::get(server.admin, "/metrics").await.expect("the page");
    assert!(page.body.contains("driver=\"epoll\""), "{}", page.body);
}

#[tokio::test]
async fn asked_for_by_name_uring_refuses_to_start_without_io_uring() {
    use std::os::unix::process::CommandExt as _;
    let (listen, admin) = (free_address().to_string(), free_address().to_string());
    let arguments = ["serve", "--driver", "uring", "--listen", &listen, "--admin", &admin];
    let mut command = crate::server::command(&arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: see `spawn` in server.rs.
    unsafe { command.pre_exec(take_io_uring_away) };
    let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = tokio::time::timeout(patience(Duration::from_secs(10)), waiting).await;
    let output = output.expect("it gives up at once").expect("waited").expect("output");
    assert_ne!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("io_uring"), "{said}");
}

/// Installs a filter that answers EPERM to `io_uring_setup` and lets everything else pass; it
/// stays in force through exec. Called between fork and exec: no allocation, two system calls.
pub fn take_io_uring_away() -> io::Result<()> {
    const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    // The number of the system call is the first word of seccomp_data; io_uring_setup is 425 on
    // every architecture that has it, so the architecture need not be looked at.
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let give = libc::BPF_RET | libc::BPF_K;
    let mut program = [
        step(load, 0, 0, 0),
        step(equal, 0, 1, libc::SYS_io_uring_setup as u32),
        step(give, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(give, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: prctl reads the integers, and `filter` with the program it points to, both of
    // which live until it returns; the kernel keeps a copy.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

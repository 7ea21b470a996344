//! Accepting, running out of room, stopping, handing over.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringcast::io::{Driver, ListenerSettings, Settings};

use crate::Kind;
use crate::world::{World, settings};

pub(crate) fn a_burst_of_500_connects_is_accepted_with_the_right_peers<K: Kind>() {
    let mut world = World::<K>::new();
    let clients: Vec<TcpStream> = (0..500).map(|_| world.connect()).collect();
    world.until("500 accepts", |world| world.accepted.len() == 500);
    let peers: HashSet<_> = world.accepted.iter().map(|(_, peer)| *peer).collect();
    let names: HashSet<_> = clients.iter().map(|one| one.local_addr().expect("bound")).collect();
    assert_eq!(peers, names);
    // The names belong to the right sockets, not just to the right set.
    for mut client in clients {
        let socket = world.accepted_from(client.local_addr().expect("bound"));
        let said = client.local_addr().expect("bound").port().to_le_bytes();
        client.write_all(&said).expect("it is open");
        world.until_bytes(socket, 2);
        assert_eq!(world.of(socket).bytes, said);
    }
}

pub(crate) fn stopping_reports_what_was_accepted_and_then_that_it_is_closed<K: Kind>() {
    let mut world = World::<K>::new();
    // Nobody harvests: these wait in the queue of the kernel or in armed accepts.
    let clients: Vec<TcpStream> = (0..100).map(|_| world.connect()).collect();
    world.driver.stop_listening();
    world.driver.stop_listening();
    world.until("the end of listening", |world| world.listener_closed == 1);
    assert_eq!(world.accepted.len(), clients.len(), "none of the early ones was reset");
    for mut client in clients {
        let socket = world.accepted_from(client.local_addr().expect("bound"));
        world.send_all(socket, b"still here");
        let mut heard = [0; 10];
        client.read_exact(&mut heard).expect("it was not reset");
    }
    assert!(TcpStream::connect(world.address).is_err(), "nobody listens any more");
    world.idle(Duration::from_millis(50));
}

pub(crate) fn without_room_accepting_pauses_until_resumed<K: Kind>() {
    let settings = Settings { sockets_max: 40, ..settings() };
    let mut world = World::<K>::with(&settings, &ListenerSettings::default());
    let clients: Vec<TcpStream> = (0..60).map(|_| world.connect()).collect();
    world.until("a failure to accept", |world| !world.accept_failures.is_empty());
    assert_eq!(world.accepted.len(), 40, "what there is room for is accepted");
    world.idle(Duration::from_millis(50));
    assert_eq!(world.accept_failures.len(), 1, "a pause is told once");

    // Without room trying again fails again; with room it works.
    world.driver.resume_accepting();
    world.until("another failure", |world| world.accept_failures.len() == 2);
    for index in 0..20 {
        world.close(world.accepted[index].0);
    }
    // Some kernels free the slot of a direct descriptor a moment after its close: then another
    // failure may come first.
    let mut failures = 0;
    world.until("the others", |world| {
        if world.accept_failures.len() != failures {
            failures = world.accept_failures.len();
            world.driver.resume_accepting();
        }
        world.accepted.len() == 60
    });
    drop(clients);
}

/// Runs alone in a process of its own, because the limit on descriptors is the process's.
pub(crate) fn without_descriptors_accepting_pauses_until_resumed<K: Kind>() {
    const ALONE: &str = "RINGCAST_TEST_ALONE";
    if !K::REGULAR {
        return; // Direct descriptors use none.
    }
    if std::env::var_os(ALONE).is_none() {
        let name = thread::current().name().map(str::to_owned);
        assert!(name.is_none(), "claims run on threads of their own");
        let kind = std::any::type_name::<K>();
        let module = match kind {
            _ if kind.ends_with("EpollKind") => "epoll",
            _ if kind.ends_with("<false, true>") => "uring_regular",
            _ => "uring_answered_sends",
        };
        let claim = format!("{module}::without_descriptors_accepting_pauses_until_resumed");
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", &claim])
            .env(ALONE, "1")
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let mut world = World::<K>::new();
    let (client, first) = world.pair();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // Clients connect before the limit falls; accepting them needs what is gone then.
    let clients: Vec<TcpStream> = (0..3).map(|_| world.connect()).collect();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("lowering is allowed");
    world.until("a failure to accept", |world| !world.accept_failures.is_empty());
    let errors = &world.accept_failures;
    assert_eq!(errors[0].raw_os_error(), Some(nix::errno::Errno::EMFILE as i32), "{errors:?}");
    // Those who are in do not notice.
    (&client).write_all(b"?").expect("it is open");
    world.until_bytes(first, 1);
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("back to what it was");
    world.idle(Duration::from_millis(50));
    assert_eq!(world.accept_failures.len(), 1, "a pause is told once");
    world.driver.resume_accepting();
    world.until("the others", |world| world.accepted.len() == 1 + clients.len());
}

pub(crate) fn a_released_socket_lives_on_in_another_threads_driver<K: Kind>() {
    const COUNT: usize = 200;
    let mut world = World::<K>::new();
    let (give, take) = mpsc::channel();
    let (tell, ready) = mpsc::channel();
    let other = thread::spawn(move || {
        let mut world = World::<K>::without_listener(&settings());
        tell.send(world.driver.waker()).expect("the test waits for it");
        let mut taken = Vec::new();
        let mut told = std::collections::HashMap::new();
        while taken.len() < COUNT || told.values().sum::<usize>() < COUNT * 5 {
            while let Ok(fd) = take.try_recv() {
                taken.push(world.adopt(fd));
            }
            world.tick(Duration::from_millis(20));
            for socket in taken.clone() {
                let done = told.entry(socket).or_insert(0_usize);
                let bytes = world.of(socket).bytes[*done..].to_vec();
                *done += bytes.len();
                if !bytes.is_empty() {
                    world.send_all(socket, &bytes);
                }
            }
        }
        taken.len()
    });
    let waker = ready.recv().expect("it starts");
    let mut clients: Vec<TcpStream> = (0..COUNT).map(|_| world.connect()).collect();
    // Some speak before they are even accepted.
    for client in clients.iter_mut().step_by(2) {
        client.write_all(b"early").expect("it is open");
    }
    let mut released = 0;
    let start = std::time::Instant::now();
    while released < COUNT {
        assert!(start.elapsed() < Duration::from_secs(50), "released {released}");
        world.tick(Duration::from_millis(20));
        while released < world.accepted.len() {
            let socket = world.accepted[released].0;
            let Some(fd) = world.driver.release(socket) else {
                // Before FIXED_FD_INSTALL a direct descriptor cannot leave its ring; it stays.
                assert!(!K::REGULAR && kernel_before(6, 8), "nothing has happened to it yet");
                return;
            };
            world.forget(socket);
            give.send(fd).expect("the other driver lives");
            waker.wake();
            released += 1;
        }
    }
    for client in clients.iter_mut().skip(1).step_by(2) {
        client.write_all(b"later").expect("it is open");
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let mut heard = [0; 5];
        client.read_exact(&mut heard).expect("the other driver answers");
        assert_eq!(&heard, if index % 2 == 0 { b"early" } else { b"later" });
    }
    assert_eq!(other.join().expect("no panic"), COUNT);
    world.idle(Duration::from_millis(20));
}

/// Whether the running kernel is older than that.
fn kernel_before(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (major, minor)
}

//! The floor on epoll: level-triggered, one recv per event, one send per socket and tick.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, SockFlag, accept4, recv, send};

use super::{Peer, RECEIVE_BYTES, Ready, SWITCHING, must_be_whole};

pub(super) fn serve(listener: &TcpListener, ready: &Ready) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let listener_fd = listener.as_raw_fd();
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, listener_fd as u64))?;

    let mut peers: Vec<Option<(TcpStream, Peer)>> = Vec::new();
    let mut events = vec![EpollEvent::empty(); 512];
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            count => count?,
        };
        let mut messages = 0;
        for event in &events[..count] {
            let fd = event.data() as RawFd;
            if fd == listener_fd {
                accept_all(listener_fd, &epoll, &mut peers)?;
            } else {
                messages += receive(fd, &mut peers, &mut buffer, ready);
            }
        }
        if messages > 0 && ready.deliver_bytes > 0 {
            let bytes = ready.messages(messages);
            for (stream, _) in peers.iter().flatten().filter(|(_, peer)| peer.subscriber) {
                send_all(stream.as_raw_fd(), bytes);
            }
        }
    }
}

fn accept_all(
    listener: RawFd,
    epoll: &Epoll,
    peers: &mut Vec<Option<(TcpStream, Peer)>>,
) -> io::Result<()> {
    while let Ok(fd) = accept4(listener, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC) {
        // SAFETY: accept4 has just returned this descriptor, so nobody else owns it.
        let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, fd as u64))?;
        let index = fd as usize;
        if peers.len() <= index {
            peers.resize_with(index + 1, || None);
        }
        peers[index] = Some((stream, Peer::default()));
    }
    Ok(())
}

/// Hears one socket; returns how many messages its requests make.
fn receive(
    fd: RawFd,
    peers: &mut [Option<(TcpStream, Peer)>],
    buffer: &mut [u8],
    ready: &Ready,
) -> usize {
    let Some((_, peer)) = peers[fd as usize].as_mut() else { return 0 };
    match recv(fd, buffer, MsgFlags::empty()) {
        Err(Errno::EAGAIN | Errno::EINTR) => 0,
        Ok(0) | Err(_) => {
            if let Some((stream, _)) = peers[fd as usize].take() {
                // Closing takes the descriptor out of the epoll set as well.
                let _ = nix::unistd::close(stream.into_raw_fd());
            }
            0
        }
        Ok(bytes) if !peer.switched => {
            peer.switch(&buffer[..bytes]);
            send_all(fd, SWITCHING);
            0
        }
        Ok(bytes) => {
            let requests = peer.requests(bytes, ready.request_bytes);
            if requests > 0 && ready.answer_bytes > 0 {
                send_all(fd, ready.answers(requests));
            }
            requests
        }
    }
}

fn send_all(fd: RawFd, bytes: &[u8]) {
    let sent = match send(fd, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Ok(sent) => sent as i64,
        Err(error) => -(error as i64),
    };
    must_be_whole(sent, bytes.len());
}

//! Listening sockets, with every option that accepted sockets inherit set once.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

/// How a listening socket is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Handshakes that may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// SO_SNDBUF of every accepted socket: what the kernel keeps for a slow client, about twice
    /// this much memory. `None` leaves the kernel's own adapting size (up to 4 MiB).
    pub send_buffer_bytes: Option<u32>,
    /// TCP_NOTSENT_LOWAT of every accepted socket: a socket counts as full when this much
    /// waits unsent, so that a backlog stays where it can still be dropped or conflated.
    pub notsent_lowat_bytes: Option<u32>,
    /// SO_REUSEPORT: several shards listen on one address and the kernel spreads the clients.
    pub reuse_port: bool,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self { backlog: 4096, send_buffer_bytes: None, notsent_lowat_bytes: None, reuse_port: true }
    }
}

/// A listening socket at `address`. Accepted sockets inherit its options, so that no accepted
/// socket costs a system call for them (and a direct descriptor, which no such call can name,
/// has them too).
///
/// # Errors
/// When the kernel refuses; the message names the step.
pub fn listener(address: SocketAddr, settings: &ListenerSettings) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(|error| cannot_listen(&error, "making a socket", address))?;
    let set = || -> io::Result<()> {
        // Without it a restarted server could not listen while old connections linger.
        socket.set_reuse_address(true)?;
        if settings.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = settings.send_buffer_bytes {
            socket.set_send_buffer_size(bytes as usize)?;
        }
        if let Some(bytes) = settings.notsent_lowat_bytes {
            socket.set_tcp_notsent_lowat(bytes)?;
        }
        Ok(())
    };
    set().map_err(|error| {
        cannot_listen(&error, "cannot set the options of the socket for", address)
    })?;
    socket
        .bind(&address.into())
        .map_err(|error| cannot_listen(&error, "cannot bind to", address))?;
    let backlog = i32::try_from(settings.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(|error| cannot_listen(&error, "cannot listen on", address))?;
    Ok(socket.into())
}

/// An error of making a listener, with what often cures it. `what` goes before the address.
pub fn cannot_listen(error: &io::Error, what: &str, address: SocketAddr) -> io::Error {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => " (is another server running there?)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{what} {address}: {error}{cure}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::{SockRef, Socket};

    use super::{ListenerSettings, listener};

    #[test]
    fn accepted_sockets_inherit_the_listeners_options() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let settings = ListenerSettings {
                send_buffer_bytes: Some(16 * 1024),
                notsent_lowat_bytes: Some(4096),
                ..ListenerSettings::default()
            };
            let Ok(fd) = listener(address.parse().expect("an address"), &settings) else {
                assert!(address.starts_with('['), "IPv4 loopback is always there");
                continue;
            };
            let socket = Socket::from(fd);
            let at = socket.local_addr().expect("bound").as_socket().expect("IP");
            let _client = TcpStream::connect(at).expect("connects");
            let (accepted, _) = socket.accept().expect("accepts");
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().expect("readable"));
            assert_eq!(accepted.tcp_notsent_lowat().expect("readable"), 4096);
            // The kernel doubles what is set, for its own bookkeeping.
            assert_eq!(accepted.send_buffer_size().expect("readable"), 32 * 1024);
        }
    }

    #[test]
    fn two_shards_listen_on_one_port_only_when_told_to() {
        let settings = ListenerSettings { reuse_port: false, ..ListenerSettings::default() };
        let first = Socket::from(listener(([127, 0, 0, 1], 0).into(), &settings).expect("free"));
        let at = first.local_addr().expect("bound").as_socket().expect("IP");
        let error = listener(at, &settings).expect_err("taken");
        assert!(error.to_string().contains("another server"), "{error}");
    }
}

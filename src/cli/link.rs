//! One connection's life: to the server, through the handshake, and until it ends.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::answer::Answer;
use super::client::{Event, Shared};
use super::url::Url;
use crate::limits::{MESSAGE_BYTES_MAX_MAX, REQUEST_HEAD_BYTES_MAX};
use crate::proto::ws::close::write_close_masked;
use crate::proto::ws::frame::write_masked;
use crate::proto::ws::handshake::{self, Declined, SUBPROTOCOL};
use crate::proto::ws::{Decoder, Event as Frame, Opcode, Role};

/// From a name to a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long each piece of the answer to the handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take to take what we send. It stops reading from a client that does
/// not read; this client does.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Silence after which we ask whether the server is there. It pings every 25 s by itself.
const SILENCE_MAX: Duration = Duration::from_secs(35);

/// Silence after our ping that ends the connection.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the largest message taken: the largest any server can be set to accept, and what it
/// puts around it.
const MESSAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX_MAX + 4096;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody listens to us any more.
    Unheard,
    /// Trying again may help; after this delay, if the server asked for one.
    Broken(String, Option<Duration>),
    /// Trying again will not help.
    Refused(String),
}

fn broken(what: &str, error: &io::Error) -> End {
    End::Broken(format!("{what}: {error}"), None)
}

/// Connects, and tells `events` what comes until it ends.
pub(super) fn converse(url: &Url, shared: &Shared, events: &Sender<Event>) -> End {
    let opened = connect(url).and_then(|mut stream| {
        let random = shared.link().chance.bytes();
        let rest = shake_hands(&mut stream, url, random)?;
        let twin = stream.try_clone().map_err(|error| broken("connection", &error))?;
        Ok((stream, twin, rest))
    });
    let (stream, twin, rest) = match opened {
        Ok(opened) => opened,
        Err(end) => return end,
    };
    let number = shared.link().adopt(twin);
    if events.send(Event::Open(number)).is_err() {
        return End::Unheard;
    }
    let mut reading = Reading { decoder: Decoder::new(Role::Client), shared, events, away: None };
    match reading.run(stream, rest) {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

fn connect(url: &Url) -> Result<TcpStream, End> {
    let name = &url.authority;
    let addresses = (url.host.as_str(), url.port)
        .to_socket_addrs()
        .map_err(|error| broken(&format!("cannot find {name}"), &error))?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                // Without them every write and read works, too, only less well.
                let _ = stream.set_nodelay(true);
                let _ = stream.set_write_timeout(Some(SEND_TIMEOUT));
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(broken(&format!("cannot connect to {name}"), &last))
}

/// Opens the WebSocket; returns what the server sent behind its answer.
fn shake_hands(stream: &mut TcpStream, url: &Url, random: [u8; 16]) -> Result<Vec<u8>, End> {
    let failed = |error: io::Error| broken("handshake", &error);
    let key = handshake::key_of(random);
    let mut request = Vec::new();
    handshake::write_request(&mut request, &url.authority, &url.path, &key, Some(SUBPROTOCOL));
    stream.write_all(&request).map_err(failed)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(failed)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match handshake::check_response(&answer, &key) {
            Ok(Some(head_bytes)) => return Ok(answer.split_off(head_bytes)),
            Ok(None) if answer.len() <= REQUEST_HEAD_BYTES_MAX => {}
            Ok(None) => return Err(End::Refused(Declined::HeadTooLarge.to_string())),
            Err(declined) => return Err(judge(&declined)),
        }
        match stream.read(&mut piece).map_err(failed)? {
            0 => return Err(End::Broken("the server hung up during the handshake".into(), None)),
            bytes => answer.extend_from_slice(&piece[..bytes]),
        }
    }
}

/// RFC 9110 15.5: a 4xx says that the request is at fault, so the same again would get the
/// same. 408 and 429 are about time, and 5xx is the server's trouble.
fn judge(declined: &Declined) -> End {
    match declined {
        Declined::Status(408 | 429 | 500.., _) => End::Broken(declined.to_string(), None),
        _ => End::Refused(declined.to_string()),
    }
}

/// RFC 6455 7.4 and ours: what was closed for what we are will be closed again.
fn judge_close(code: u16, reason: &str, away: Option<Duration>) -> End {
    let text = match reason {
        "" => format!("closed by the server with {code}"),
        reason => format!("closed by the server with {code}: {reason}"),
    };
    match code {
        1002 | 1003 | 1007 | 1008 | 1010 | 4400 | 4401 | 4403 => End::Refused(text),
        _ => End::Broken(text, away),
    }
}

/// The reading half of a connection.
struct Reading<'a> {
    decoder: Decoder,
    shared: &'a Shared,
    events: &'a Sender<Event>,
    /// How long a `goaway` sent us away for.
    away: Option<Duration>,
}

impl Reading<'_> {
    fn run(
        &mut self,
        mut stream: TcpStream,
        mut rest: Vec<u8>,
    ) -> Result<std::convert::Infallible, End> {
        let failed = |error: io::Error| broken("connection", &error);
        self.take(&mut rest)?;
        let mut buffer = vec![0; READ_BYTES];
        let mut is_asked = false;
        loop {
            let patience = if is_asked { PONG_TIMEOUT } else { SILENCE_MAX };
            stream.set_read_timeout(Some(patience)).map_err(failed)?;
            match stream.read(&mut buffer) {
                Ok(0) => {
                    let why = "the server hung up without a goodbye".into();
                    return Err(End::Broken(why, self.away));
                }
                Ok(bytes) => {
                    is_asked = false;
                    self.take(&mut buffer[..bytes])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What a read that timed out says on Linux.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_asked => {
                    is_asked = true;
                    self.send(Opcode::Ping, b"");
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let why = "the server does not answer a ping".into();
                    return Err(End::Broken(why, self.away));
                }
                Err(error) => {
                    return Err(End::Broken(format!("connection: {error}"), self.away));
                }
            }
        }
    }

    fn send(&self, opcode: Opcode, payload: &[u8]) {
        self.shared.link().send(|out, key| write_masked(out, opcode, payload, key));
    }

    /// Takes bytes as they came.
    fn take(&mut self, mut bytes: &mut [u8]) -> Result<(), End> {
        loop {
            match self.decoder.next(&mut bytes, MESSAGE_BYTES_MAX) {
                Ok(None) => return Ok(()),
                Ok(Some(Frame::Text(text))) => {
                    let message = text.to_vec();
                    let answer = Answer::parse(&message);
                    if let Some(ms) = answer.and_then(|answer| answer.goaway_ms()) {
                        self.away = Some(Duration::from_millis(ms));
                    }
                    self.events.send(Event::Message(message)).map_err(|_| End::Unheard)?;
                }
                // Nothing of ours is binary or, since it was not offered, compressed; a pong has
                // done its work by coming.
                Ok(Some(Frame::Binary(_) | Frame::Compressed(..) | Frame::Pong(_))) => {}
                Ok(Some(Frame::Ping(payload))) => {
                    self.shared
                        .link()
                        .send(|out, key| write_masked(out, Opcode::Pong, payload, key));
                }
                Ok(Some(Frame::Close(reason))) => {
                    let (code, reason) = reason.unwrap_or((1005, ""));
                    let end = judge_close(code, reason, self.away);
                    // RFC 6455 5.5.1: a close is answered with the same code. 1005 means that
                    // there was none, and is never sent itself.
                    let code = if code == 1005 { 1000 } else { code };
                    self.shared.link().send(|out, key| write_close_masked(out, code, "", key));
                    return Err(end);
                }
                Err(violation) => {
                    let (code, reason) = (violation.close_code(), violation.reason());
                    self.shared.link().send(|out, key| write_close_masked(out, code, reason, key));
                    return Err(End::Refused(format!("the server breaks RFC 6455: {reason}")));
                }
            }
        }
    }
}

//! Proof, at every start, that on this kernel silence after a send means success.

use std::io::{IoSlice, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use socket2::SockRef;

use super::TAG_SEND;
use super::ring::Ring;
use super::send::{send_entry, send_flags};
use crate::io::SocketId;

/// Far above what a socket with a small send buffer and a peer that does not read can take.
const FLOOD_BYTES: usize = 1024 * 1024;

/// Sends of that size until the socket must be full.
const FLOODS_MAX: usize = 16;

/// Sends whole, partly, and to a full socket, both ways of sending, and counts what arrives.
///
/// # Errors
/// Why the trick cannot be relied on here.
pub(super) fn whole_sends_are_silent(ring: &mut Ring) -> Result<(), String> {
    for slices_count in [1, 2] {
        let (sender, mut receiver) =
            pair().map_err(|error| format!("no loopback connection to test it on ({error})"))?;
        let number = sender.as_raw_fd();
        let small = [1_u8];
        match send(ring, number, &[IoSlice::new(&small)])? {
            None => {}
            Some(result) => return Err(format!("a whole send answered {result}")),
        }
        let flood = vec![2_u8; FLOOD_BYTES / slices_count];
        let slices = vec![IoSlice::new(&flood); slices_count];
        let mut sent = 1;
        let mut full = false;
        for _ in 0..FLOODS_MAX {
            match send(ring, number, &slices)? {
                None => return Err("a send that cannot have been whole was silent".to_owned()),
                Some(bytes) if bytes > 0 => sent += bytes.unsigned_abs() as usize,
                Some(code) if code == -libc::EAGAIN => {
                    full = true;
                    break;
                }
                Some(code) => return Err(format!("a send failed with {code}")),
            }
        }
        if !full {
            return Err("a full socket went unnoticed".to_owned());
        }
        drop(sender);
        let mut arrived = Vec::new();
        match receiver.read_to_end(&mut arrived) {
            Ok(_) if arrived.len() == sent => {}
            Ok(count) => return Err(format!("{sent} bytes were counted and {count} arrived")),
            Err(error) => return Err(format!("what was sent did not arrive ({error})")),
        }
    }
    Ok(())
}

/// The outcome of one send, `None` for silence.
fn send(ring: &mut Ring, number: i32, slices: &[IoSlice<'_>]) -> Result<Option<i32>, String> {
    // SAFETY: a message header without name and control data is all zeroes.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    let name = SocketId::new(0, 0).pack(TAG_SEND);
    let (flags, entry_flags) = send_flags(true);
    // SAFETY: header and slices live until this function returns, and it submits. Should the
    // kernel go on with the send after that, which is what this test is to find out, it reads
    // no header (copied while submitting) and at worst stale bytes of a test pair.
    unsafe {
        let entry = send_entry(number, slices, &raw mut message, flags);
        ring.push(entry.flags(entry_flags).user_data(name));
    }
    ring.submit().map_err(|error| error.to_string())?;
    let mut result = None;
    while let Some(outcome) = ring.posted() {
        if outcome.user_data == name {
            result = Some(outcome.result);
        }
    }
    Ok(result)
}

/// A connection to ourselves, whose sending side has little room.
fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    let (receiver, _) = listener.accept()?;
    SockRef::from(&sender).set_send_buffer_size(16 * 1024)?;
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
    Ok((sender, receiver))
}

//! Which extension a connection uses: what Sec-WebSocket-Extensions offers (RFC 6455 9.1), and
//! what of it is agreed on. There is one: permessage-deflate (RFC 7692 7.1).

use std::borrow::Cow;

use super::deflate::Reach;

/// The extension, as it is called in the header.
const NAME: &str = "permessage-deflate";

const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// RFC 7692 7.1.2: the largest window, and the one where nothing was said.
const WINDOW_BITS_MAX: u8 = 15;

/// RFC 7692 7.1.2: the smallest window.
const WINDOW_BITS_MIN: u8 = 8;

/// The smallest window that is asked of a client: zlib, which most have, compresses with none of 8.
const NARROWED_BITS_MIN: u8 = 9;

/// What client and server agree on about compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// How far back our messages refer within themselves; never to another.
    pub reach: Reach,
    server_max_window_bits: Option<u8>,
    client_no_context_takeover: bool,
    client_max_window_bits: Option<u8>,
}

impl Agreement {
    /// Bytes of what the client has said that its next message may refer back to.
    #[must_use]
    pub fn window_bytes_max(&self) -> usize {
        match self.client_no_context_takeover {
            true => 0,
            false => 1 << self.client_max_window_bits.unwrap_or(WINDOW_BITS_MAX),
        }
    }

    /// Appends the value of the header that tells the client.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut write = |name: &str| out.extend_from_slice(name.as_bytes());
        write(NAME);
        write("; ");
        write(SERVER_NO_CONTEXT_TAKEOVER);
        if self.client_no_context_takeover {
            write("; ");
            write(CLIENT_NO_CONTEXT_TAKEOVER);
        }
        for (name, bits) in [
            (SERVER_MAX_WINDOW_BITS, self.server_max_window_bits),
            (CLIENT_MAX_WINDOW_BITS, self.client_max_window_bits),
        ] {
            if let Some(bits) = bits {
                write(&format!("; {name}={bits}"));
            }
        }
    }
}

/// The header does not have the form that RFC 6455 9.1 gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What comes of the header's `values`: the first offer that can be agreed to. Up to
/// `window_bytes_max` bytes are kept of what the client says, for its next messages to refer to.
///
/// # Errors
/// When a value is not of the form that RFC 6455 9.1 demands, which fails the handshake.
pub fn negotiate<'a>(
    values: impl Iterator<Item = &'a str>,
    window_bytes_max: usize,
) -> Result<Option<Agreement>, Malformed> {
    let mut agreement = None;
    for value in values {
        let mut rest = Rest(value.as_bytes());
        while let Some(offer) = rest.next_offer()? {
            agreement = agreement.or_else(|| Some(offer?.agree(window_bytes_max)));
        }
    }
    Ok(agreement)
}

/// One offer of permessage-deflate.
#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// With or without a number.
    client_max_window_bits: Option<Option<u8>>,
}

impl Offer {
    /// Takes a parameter. RFC 7692 7.1: an offer with one that is unknown, there twice, or has a
    /// value it must not have, is declined.
    fn take(&mut self, name: &str, value: Option<&[u8]>) -> Option<()> {
        let is_new = match (name, value) {
            (SERVER_NO_CONTEXT_TAKEOVER, None) => {
                !std::mem::replace(&mut self.server_no_context_takeover, true)
            }
            (CLIENT_NO_CONTEXT_TAKEOVER, None) => {
                !std::mem::replace(&mut self.client_no_context_takeover, true)
            }
            (SERVER_MAX_WINDOW_BITS, Some(value)) => {
                self.server_max_window_bits.replace(window_bits(value)?).is_none()
            }
            (CLIENT_MAX_WINDOW_BITS, value) => {
                let bits = match value {
                    Some(value) => Some(window_bits(value)?),
                    None => None,
                };
                self.client_max_window_bits.replace(bits).is_none()
            }
            _ => false,
        };
        is_new.then_some(())
    }

    /// What we agree to. Every offer can be met: our messages keep within any window.
    fn agree(self, window_bytes_max: usize) -> Agreement {
        // RFC 7692 7.1.2.2: without leave, the client's window cannot be narrowed.
        let asked = match self.client_max_window_bits {
            Some(bits) => bits.unwrap_or(WINDOW_BITS_MAX),
            None => WINDOW_BITS_MAX,
        };
        let affordable = window_bytes_max.checked_ilog2().map_or(0, |bits| bits as u8);
        let bits = asked.min(affordable);
        let may_narrow = self.client_max_window_bits.is_some();
        let is_agreed = bits == asked || (may_narrow && bits >= NARROWED_BITS_MIN);
        // RFC 7692 7.1.1.2: who offers not to refer back may as well be held to it.
        let client_no_context_takeover = self.client_no_context_takeover || !is_agreed;
        let narrowed = may_narrow && !client_no_context_takeover;
        let allowed = self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX);
        Agreement {
            reach: Reach::within(allowed),
            server_max_window_bits: self.server_max_window_bits.map(Reach::promised_bits),
            client_no_context_takeover,
            client_max_window_bits: narrowed.then_some(bits),
        }
    }
}

/// RFC 7692 7.1.2: a decimal number from 8 to 15 without leading zeros.
fn window_bits(value: &[u8]) -> Option<u8> {
    let bits = match value {
        [digit @ b'1'..=b'9'] => digit - b'0',
        [b'1', digit @ b'0'..=b'9'] => 10 + digit - b'0',
        _ => return None,
    };
    (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits).then_some(bits)
}

/// The rest of a header's value.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The next offer of the list: `None` at its end. One that cannot be met, of another extension
    /// for instance, is `Some(None)`.
    fn next_offer(&mut self) -> Result<Option<Option<Offer>>, Malformed> {
        // RFC 9110 5.6.1: a list may have empty elements.
        while self.skip(b',') {}
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut offer = (self.token()? == NAME).then(Offer::default);
        while self.skip(b';') {
            let name = self.token()?;
            let value = if self.skip(b'=') { Some(self.value()?) } else { None };
            offer = offer.and_then(|mut offer| offer.take(name, value.as_deref()).map(|()| offer));
        }
        match self.0.first() {
            None | Some(b',') => Ok(Some(offer)),
            Some(_) => Err(Malformed),
        }
    }

    /// Moves past `separator` and the spaces around it, if it comes next.
    fn skip(&mut self, separator: u8) -> bool {
        self.0 = self.0.trim_ascii_start();
        let Some(rest) = self.0.strip_prefix(&[separator]) else { return false };
        self.0 = rest.trim_ascii_start();
        true
    }

    fn token(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.0.iter().take_while(|byte| is_token(**byte)).count();
        let (token, rest) = self.0.split_at(bytes);
        self.0 = rest;
        let token = std::str::from_utf8(token).expect("tokens are ASCII");
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, in quotes perhaps.
    fn value(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        let Some(quoted) = self.0.strip_prefix(b"\"") else {
            return self.token().map(|token| token.as_bytes().into());
        };
        let mut value = Vec::new();
        let mut bytes = quoted.iter();
        loop {
            match bytes.next().ok_or(Malformed)? {
                b'"' => break,
                b'\\' => value.push(*bytes.next().ok_or(Malformed)?),
                byte => value.push(*byte),
            }
        }
        self.0 = bytes.as_slice();
        // RFC 6455 9.1: what is in the quotes must be a token, too.
        let is_value = !value.is_empty() && value.iter().all(|byte| is_token(*byte));
        if is_value { Ok(value.into()) } else { Err(Malformed) }
    }
}

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;

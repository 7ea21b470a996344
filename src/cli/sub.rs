//! `ringcast sub`: prints what is published, one line a message. What was missed is told on
//! standard error, so that the lines on standard output are messages and nothing else.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};

use super::answer::{Answer, one_line};
use super::client::{Client, Event};
use super::url::Url;
use super::{EXIT_USAGE, Sub, complain};
use crate::limits::CHANNEL_NAME_BYTES_MAX;
use crate::proto::envelope::is_channel;
use crate::proto::json::{write_number, write_string};

/// Events that wait while standard output is slow. Beyond it the server sees a slow client,
/// and does what its channel rules say.
const EVENTS_MAX: usize = 1024;

/// How long the server may take to answer a goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Subscribes and prints until it is interrupted, has seen enough, or cannot go on. Returns the
/// exit status.
#[must_use]
pub fn sub(arguments: Sub) -> u8 {
    let url = match Url::parse(&arguments.url) {
        Ok(url) => url,
        Err(error) => {
            complain(&error);
            return EXIT_USAGE;
        }
    };
    if let Some(channel) = arguments.channels.iter().find(|channel| !is_channel(channel)) {
        complain(&format_args!(
            "{channel:?} is no channel: a name has 1 to {CHANNEL_NAME_BYTES_MAX} bytes and no \
             control characters"
        ));
        return EXIT_USAGE;
    }
    let client = Client::start(url, EVENTS_MAX);
    let out = BufWriter::new(io::stdout().lock());
    let status = print(&client, &interrupts(), arguments, out, &mut io::stderr());
    client.close(GOODBYE);
    status
}

/// A channel on which SIGINT or SIGTERM arrives.
fn interrupts() -> Receiver<()> {
    let (sender, receiver) = bounded(1);
    thread::spawn(move || {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                interrupt = tokio::signal::ctrl_c() => interrupt?,
                _ = terminate.recv() => {}
            }
            let _ = sender.send(());
            // Held until the process ends: a second signal changes nothing.
            std::future::pending::<io::Result<()>>().await
        })
    });
    receiver
}

pub(super) fn print(
    client: &Client,
    interrupts: &Receiver<()>,
    arguments: Sub,
    mut out: impl Write,
    notes: &mut impl Write,
) -> u8 {
    let mut subscriptions = Subscriptions::new(arguments.channels);
    let mut missing = arguments.count;
    let mut interrupts = Some(interrupts);
    let never = crossbeam_channel::never();
    loop {
        // Lines are written out when no more are coming right now.
        if client.events().is_empty()
            && let Err(error) = out.flush()
        {
            return unwritten(&error, notes);
        }
        let event = select! {
            recv(client.events()) -> event => event.ok(),
            recv(interrupts.unwrap_or(&never)) -> interrupt => {
                if interrupt.is_ok() {
                    let _ = out.flush();
                    return 0;
                }
                // Without a handler the signal does what it does to every program.
                interrupts = None;
                continue;
            }
        };
        let written = match event {
            Some(Event::Open(number)) => {
                for request in subscriptions.requests() {
                    client.send(number, &request);
                }
                Ok(())
            }
            Some(Event::Message(text)) => match subscriptions.hear(&text) {
                Heard::Line(line) => {
                    missing = missing.map(|missing| missing.saturating_sub(1));
                    out.write_all(&line)
                }
                Heard::Note(note) => {
                    let _ = writeln!(notes, "{note}");
                    Ok(())
                }
                Heard::Refused(note) => {
                    let _ = writeln!(notes, "{note}");
                    if subscriptions.is_empty() {
                        return 1;
                    }
                    Ok(())
                }
                Heard::Nothing => Ok(()),
            },
            Some(Event::Lost(why, delay)) => {
                let _ = writeln!(notes, "{why}; connecting again in {:.1} s", delay.as_secs_f64());
                Ok(())
            }
            Some(Event::Refused(why)) => {
                let _ = writeln!(notes, "{why}");
                let _ = out.flush();
                return 1;
            }
            None => return 1,
        };
        if let Err(error) = written {
            return unwritten(&error, notes);
        }
        if missing == Some(0) {
            return match out.flush() {
                Ok(()) => 0,
                Err(error) => unwritten(&error, notes),
            };
        }
    }
}

/// What it means that standard output takes no more. Returns the exit status.
fn unwritten(error: &io::Error, notes: &mut impl Write) -> u8 {
    // A reader that went away (`| head`) is the usual end of a pipe.
    if error.kind() == io::ErrorKind::BrokenPipe {
        return 0;
    }
    let _ = writeln!(notes, "cannot write what was received: {error}");
    1
}

/// What one message means for who reads along.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Line(Vec<u8>),
    Note(String),
    Refused(String),
    Nothing,
}

/// What is known of each channel.
struct Subscriptions {
    channels: Vec<String>,
    known: HashMap<String, Known>,
}

/// The life of the numbering, and the last number seen or told of.
struct Known {
    epoch: String,
    seq: u64,
}

impl Subscriptions {
    fn new(channels: Vec<String>) -> Self {
        Self { channels, known: HashMap::new() }
    }

    fn is_empty(&self) -> bool {
        self.channels.iter().all(String::is_empty)
    }

    /// The requests to send on a new connection. Their `id` is the channel's index.
    fn requests(&self) -> impl Iterator<Item = Vec<u8>> {
        let channels = self.channels.iter().enumerate().filter(|(_, name)| !name.is_empty());
        channels.map(|(index, channel)| {
            let mut request = br#"{"type":"subscribe","id":"#.to_vec();
            write_number(&mut request, index as u64);
            request.extend_from_slice(br#","channel":"#);
            write_string(&mut request, channel);
            request.push(b'}');
            request
        })
    }

    fn hear(&mut self, text: &[u8]) -> Heard {
        let Some(answer) = Answer::parse(text) else { return Heard::Nothing };
        if answer.is("message") {
            return self.message(&answer).unwrap_or(Heard::Nothing);
        }
        if answer.is("gap") {
            return self.gap(&answer).unwrap_or(Heard::Nothing);
        }
        if answer.is("subscribed") {
            return self.subscribed(&answer).unwrap_or(Heard::Nothing);
        }
        if answer.is("error") {
            return self.error(&answer);
        }
        Heard::Nothing
    }

    fn message(&mut self, answer: &Answer<'_>) -> Option<Heard> {
        let (channel, seq) = (answer.text("channel")?, answer.number("seq")?);
        let mut line = Vec::new();
        // A name with a space in it would fall apart; as a JSON string it does not.
        match channel.contains(char::is_whitespace) {
            true => write_string(&mut line, &channel),
            false => line.extend_from_slice(channel.as_bytes()),
        }
        line.push(b' ');
        write_number(&mut line, seq);
        line.push(b' ');
        line.extend_from_slice(&one_line(answer.raw("payload")?));
        line.push(b'\n');
        if let Some(known) = self.known.get_mut(&channel) {
            known.seq = seq;
        }
        Some(Heard::Line(line))
    }

    fn gap(&mut self, answer: &Answer<'_>) -> Option<Heard> {
        let channel = answer.text("channel")?;
        let (from, to) = (answer.number("from")?, answer.number("to")?);
        let reason = answer.text("reason").unwrap_or_default();
        if let Some(known) = self.known.get_mut(&channel) {
            known.seq = to;
        }
        Some(Heard::Note(format!("{channel}: {from} to {to} are missing ({reason})")))
    }

    /// After a reconnect: what was published in between is gone, and how much that was is known.
    fn subscribed(&mut self, answer: &Answer<'_>) -> Option<Heard> {
        let (channel, epoch) = (answer.text("channel")?, answer.text("epoch")?);
        let seq = answer.number("seq")?;
        let before = self.known.insert(channel.clone(), Known { epoch: epoch.clone(), seq });
        Some(match before {
            Some(known) if known.epoch != epoch => {
                Heard::Note(format!("{channel}: the server numbers it anew"))
            }
            Some(known) if known.seq < seq => {
                let from = known.seq + 1;
                Heard::Note(format!("{channel}: {from} to {seq} are missing (not connected)"))
            }
            _ => Heard::Nothing,
        })
    }

    fn error(&mut self, answer: &Answer<'_>) -> Heard {
        let reason = answer.text("reason").or_else(|| answer.text("code")).unwrap_or_default();
        let index = answer.number("id").and_then(|id| usize::try_from(id).ok());
        match index.and_then(|index| self.channels.get_mut(index)) {
            // Not asked for again: it would be refused again.
            Some(channel) => {
                let channel = std::mem::take(channel);
                Heard::Refused(format!("{channel}: {reason}"))
            }
            None => Heard::Note(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> Heard {
        Heard::Note(text.into())
    }

    #[test]
    fn messages_become_lines_and_gaps_become_notes() {
        let mut subscriptions = Subscriptions::new(vec!["a".into(), "b c".into()]);
        let requests: Vec<Vec<u8>> = subscriptions.requests().collect();
        assert_eq!(requests[1], br#"{"type":"subscribe","id":1,"channel":"b c"}"#);
        for (text, expected) in [
            (
                &br#"{"type":"subscribed","id":0,"channel":"a","epoch":"k","seq":4,"recovered":true}"#[..],
                Heard::Nothing,
            ),
            (
                b"{\"type\":\"message\",\"channel\":\"a\",\"seq\":5,\"payload\":{\"x\":\n1e400}}",
                Heard::Line(b"a 5 {\"x\": 1e400}\n".to_vec()),
            ),
            (
                br#"{"type":"message","channel":"b c","seq":9,"payload":null}"#,
                Heard::Line(b"\"b c\" 9 null\n".to_vec()),
            ),
            (
                br#"{"type":"gap","channel":"a","from":6,"to":8,"reason":"slow_consumer"}"#,
                note("a: 6 to 8 are missing (slow_consumer)"),
            ),
            (
                br#"{"type":"subscribed","id":0,"channel":"a","epoch":"k","seq":12,"recovered":false}"#,
                note("a: 9 to 12 are missing (not connected)"),
            ),
            (
                br#"{"type":"subscribed","id":0,"channel":"a","epoch":"l","seq":3,"recovered":false}"#,
                note("a: the server numbers it anew"),
            ),
            (br#"{"type":"welcome","client":"x"}"#, Heard::Nothing),
            (b"nonsense", Heard::Nothing),
        ] {
            assert_eq!(subscriptions.hear(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_channel_that_was_refused_is_not_asked_for_again() {
        let mut subscriptions = Subscriptions::new(vec!["a".into(), "b".into()]);
        let heard = subscriptions
            .hear(br#"{"type":"error","id":0,"code":"bad_channel","reason":"no such channel"}"#);
        assert_eq!(heard, Heard::Refused("a: no such channel".into()));
        assert_eq!(subscriptions.requests().count(), 1);
        assert!(!subscriptions.is_empty());
    }
}

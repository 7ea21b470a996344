//! `ringcast sub`: prints what is published, one line a message. What was recovered after a
//! reconnect and what is missing is told on standard error, so that the lines on standard output
//! are messages and nothing else.

use std::io::{self, BufWriter, Write};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};

use super::answer::one_line;
use super::args::Format;
use super::client::{Client, Event};
use super::subscriptions::{Begin, Message, Subscriptions};
use super::url::Url;
use super::{EXIT_USAGE, Sub, complain};
use crate::proto::envelope::pattern::is_pattern;
use crate::proto::envelope::{CHANNEL_RULE, has_wildcard, is_channel};
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
    if let Some(name) =
        arguments.channels.iter().find(|name| !is_channel(name) && !is_pattern(name))
    {
        complain(&format_args!(
            "{name:?} is no channel and no pattern: {CHANNEL_RULE}, unless a segment is * or the last one >"
        ));
        return EXIT_USAGE;
    }
    let begin = match begin(&arguments) {
        Ok(begin) => begin,
        Err(error) => {
            complain(&error);
            return EXIT_USAGE;
        }
    };
    let client = Client::start(url, EVENTS_MAX);
    let mut printing = Printing {
        subscriptions: Subscriptions::new(arguments.channels, &begin),
        format: arguments.format,
        missing: arguments.count,
        out: BufWriter::new(io::stdout().lock()),
        notes: io::stderr(),
    };
    let status = printing.run(&client, &interrupts());
    client.close(GOODBYE);
    if status == 0
        && let Some(cursor) = printing.subscriptions.cursor()
    {
        complain(&format_args!("what comes next: --since {cursor}"));
    }
    status
}

/// Where the arguments say that it begins.
fn begin(arguments: &Sub) -> Result<Begin, String> {
    let pattern = arguments.channels.iter().find(|name| has_wildcard(name));
    if let Some(pattern) = pattern
        && (arguments.last.is_some() || arguments.latest)
    {
        return Err(format!(
            "{pattern} is a pattern: it begins with what is published from now on"
        ));
    }
    match (&arguments.since, arguments.last) {
        (Some(cursor), _) => Begin::after(cursor, arguments.channels.len()),
        (None, Some(count)) => Ok(Begin::Last(count)),
        (None, None) if arguments.latest => Ok(Begin::Latest),
        (None, None) => Ok(Begin::Live),
    }
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

/// What is printed, and where.
pub(super) struct Printing<Out, Notes> {
    pub(super) subscriptions: Subscriptions,
    pub(super) format: Format,
    /// Messages until it ends.
    pub(super) missing: Option<u64>,
    pub(super) out: Out,
    pub(super) notes: Notes,
}

impl<Out: Write, Notes: Write> Printing<Out, Notes> {
    /// Prints until it is interrupted, has seen enough, or cannot go on. Returns the exit status.
    pub(super) fn run(&mut self, client: &Client, interrupts: &Receiver<()>) -> u8 {
        match self.listen(client, interrupts).and_then(|status| self.out.flush().map(|()| status)) {
            Ok(status) => status,
            // A reader that went away (`| head`) is the usual end of a pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Err(error) => {
                let _ = writeln!(self.notes, "cannot write what was received: {error}");
                1
            }
        }
    }

    fn listen(&mut self, client: &Client, interrupts: &Receiver<()>) -> io::Result<u8> {
        let mut interrupts = Some(interrupts);
        let mut link = 0;
        let never = crossbeam_channel::never();
        while self.missing != Some(0) {
            // Lines are written out when no more are coming right now.
            if client.events().is_empty() {
                self.out.flush()?;
            }
            let event = select! {
                recv(client.events()) -> event => event.ok(),
                recv(interrupts.unwrap_or(&never)) -> interrupt => {
                    if interrupt.is_ok() {
                        return Ok(0);
                    }
                    // Without a handler the signal does what it does to every program.
                    interrupts = None;
                    continue;
                }
            };
            match event {
                Some(Event::Open(number)) => {
                    link = number;
                    for request in self.subscriptions.requests() {
                        client.send(link, &request);
                    }
                }
                Some(Event::Message(text)) => {
                    if !self.hear(&text)? {
                        return Ok(1);
                    }
                    for request in self.subscriptions.take_requests() {
                        client.send(link, &request);
                    }
                }
                Some(Event::Lost(why, delay)) => {
                    let seconds = delay.as_secs_f64();
                    self.note(&format_args!("{why}; connecting again in {seconds:.1} s"))?;
                }
                Some(Event::Refused(why)) => {
                    self.note(&why)?;
                    return Ok(1);
                }
                None => return Ok(1),
            }
        }
        Ok(0)
    }

    /// Returns whether there is something left to listen to.
    fn hear(&mut self, text: &[u8]) -> io::Result<bool> {
        let heard = self.subscriptions.hear(text);
        if let Some(note) = heard.note {
            self.note(&note)?;
        }
        if let Some(message) = heard.message {
            self.missing = self.missing.map(|missing| missing.saturating_sub(1));
            self.out.write_all(&line(self.format, &message, text))?;
        }
        Ok(!heard.is_refused || !self.subscriptions.is_empty())
    }

    /// Says something about what comes between the messages before it and those after it.
    fn note(&mut self, note: &dyn std::fmt::Display) -> io::Result<()> {
        self.out.flush()?;
        let _ = writeln!(self.notes, "{note}");
        Ok(())
    }
}

/// The line that stands for a message; `text` is how the server said it.
fn line(format: Format, message: &Message<'_>, text: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    match format {
        Format::Line => {
            let channel = &message.channel;
            // A name with a space in it would fall apart; as a JSON string it does not.
            match channel.contains(char::is_whitespace) {
                true => write_string(&mut line, channel),
                false => line.extend_from_slice(channel.as_bytes()),
            }
            line.push(b' ');
            write_number(&mut line, message.seq);
            line.push(b' ');
            line.extend_from_slice(&one_line(message.payload));
        }
        Format::Json => line = one_line(text),
        Format::Payload => line = one_line(message.payload),
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_in_every_format() {
        let text =
            b"{\"type\":\"message\",\"channel\":\"b c\",\"seq\":9,\"payload\":{\"x\":\n1e400}}";
        let mut subscriptions = Subscriptions::new(vec!["b c".into()], &Begin::Live);
        let message = subscriptions.hear(text).message.expect("a message");
        for (format, expected) in [
            (Format::Line, "\"b c\" 9 {\"x\": 1e400}\n"),
            (Format::Payload, "{\"x\": 1e400}\n"),
            (
                Format::Json,
                "{\"type\":\"message\",\"channel\":\"b c\",\"seq\":9,\"payload\":{\"x\": 1e400}}\n",
            ),
        ] {
            assert_eq!(String::from_utf8_lossy(&line(format, &message, text)), expected);
        }
    }
}

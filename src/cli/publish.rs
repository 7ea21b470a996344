//! `ringcast pub`: publishes one payload, or one a line from standard input, and waits until the
//! server has numbered each. What was not acknowledged when a connection broke is published
//! again on the next, under the same key: the server takes it once, and answers as the first time.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, Read as _, Write};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, bounded, select};

use super::answer::Answer;
use super::chance::Chance;
use super::client::{Client, Event};
use super::url::Url;
use super::{EXIT_USAGE, Pub, complain};
use crate::limits::MESSAGE_BYTES_MAX_MAX;
use crate::proto::json::{document, write_number, write_string};

/// Lines read ahead of what is on its way.
const LINES_MAX: usize = 64;

/// Events that wait beyond one answer for each message on its way: welcome, goaway, errors.
const EVENTS_SPARE: usize = 64;

/// How long the server may take to answer a goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Publishes and waits for the answers. Returns the exit status: 0 when every message was
/// acknowledged.
#[must_use]
pub fn publish(arguments: Pub) -> u8 {
    let url = match Url::parse(&arguments.url) {
        Ok(url) => url,
        Err(error) => {
            complain(&error);
            return EXIT_USAGE;
        }
    };
    let (sender, lines) = bounded(LINES_MAX);
    if arguments.payload == "-" {
        thread::spawn(move || read_lines(io::stdin().lock(), &sender));
    } else {
        if let Err(error) = check(arguments.payload.as_bytes()) {
            complain(&error);
            return EXIT_USAGE;
        }
        let line =
            Line { name: String::new(), payload: Ok(arguments.payload.clone().into_bytes()) };
        sender.send(line).expect("the other end is right here");
        // The end of the input: nothing else is published.
        drop(sender);
    }
    publish_lines(arguments, url, lines, io::stdout().lock(), io::stderr())
}

/// Publishes `lines` until there are no more, and all are answered.
pub(super) fn publish_lines(
    arguments: Pub,
    url: Url,
    lines: Receiver<Line>,
    out: impl Write,
    notes: impl Write,
) -> u8 {
    // An answer for every message on its way has room, so that the reading thread never waits
    // for us while we wait for the server to take a message.
    let client = Client::start(url, usize::from(arguments.window) + EVENTS_SPARE);
    let mut publishing = Publishing {
        client: &client,
        channel: arguments.channel,
        verbose: arguments.verbose,
        window: usize::from(arguments.window),
        give_up: Duration::from_secs(arguments.give_up.into()),
        opened: 0,
        number: None,
        message_bytes_max: MESSAGE_BYTES_MAX_MAX,
        key: key_of(&mut Chance::default()),
        next_id: 1,
        waiting: VecDeque::new(),
        pending: BTreeMap::new(),
        failed: 0,
        out,
        notes,
    };
    let status = publishing.run(lines);
    client.close(GOODBYE);
    status
}

/// One payload to publish, or why it is none.
pub(super) struct Line {
    /// What complaints call it.
    pub(super) name: String,
    pub(super) payload: Result<Vec<u8>, String>,
}

/// What no other run's keys begin with: 16 bytes of chance.
fn key_of(chance: &mut Chance) -> String {
    chance.bytes::<16>().iter().fold(String::new(), |key, byte| format!("{key}{byte:02x}"))
}

/// Says what is wrong with a payload, and how it is written.
fn check(payload: &[u8]) -> Result<(), String> {
    let Err(error) = document(payload) else { return Ok(()) };
    let hint = match std::str::from_utf8(payload) {
        Ok(text) if !text.contains(['"', '\'', '\\', '{', '[']) && !text.trim().is_empty() => {
            format!("; a text is written '\"{}\"'", text.trim())
        }
        _ => String::new(),
    };
    Err(format!("the payload is not JSON at byte {}{hint}", error.at))
}

/// Sends one [`Line`] for each line of `input` that is not blank.
fn read_lines(mut input: impl BufRead, lines: &Sender<Line>) {
    for number in 1.. {
        let name = format!("line {number}: ");
        let mut line = Vec::new();
        let limit = MESSAGE_BYTES_MAX_MAX as u64 + 1;
        let payload = match input.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == limit && line.last() != Some(&b'\n') => {
                // What follows is the rest of this line, not the next one.
                let _ = lines.send(Line { name, payload: Err("longer than any message".into()) });
                return;
            }
            Ok(_) => {
                let payload = line.trim_ascii();
                if payload.is_empty() {
                    continue;
                }
                match std::str::from_utf8(payload) {
                    Ok(_) => check(payload).map(|()| payload.to_vec()),
                    Err(_) => Err("not UTF-8".into()),
                }
            }
            Err(error) => {
                let error = format!("standard input: {error}");
                let _ = lines.send(Line { name: String::new(), payload: Err(error) });
                return;
            }
        };
        if lines.send(Line { name, payload }).is_err() {
            return;
        }
    }
}

/// One message on its way.
struct Pending {
    name: String,
    request: Vec<u8>,
}

struct Publishing<'a, Out, Notes> {
    client: &'a Client,
    channel: String,
    verbose: bool,
    window: usize,
    give_up: Duration,
    /// The last connection that was opened.
    opened: u64,
    /// The connection that is sent through, once the server has said what it takes.
    number: Option<u64>,
    /// What the server takes, once it has said so.
    message_bytes_max: usize,
    /// What the keys of this run begin with; the rest is the id.
    key: String,
    next_id: u64,
    /// Ids not sent on this connection yet.
    waiting: VecDeque<u64>,
    /// What is not acknowledged, by id.
    pending: BTreeMap<u64, Pending>,
    failed: u64,
    out: Out,
    notes: Notes,
}

impl<Out: Write, Notes: Write> Publishing<'_, Out, Notes> {
    fn run(&mut self, lines: Receiver<Line>) -> u8 {
        let mut lines = Some(lines);
        let mut progress = Instant::now();
        loop {
            if lines.is_none() && self.pending.is_empty() {
                return u8::from(self.failed > 0);
            }
            let never = crossbeam_channel::never();
            let room = lines.as_ref().filter(|_| self.pending.len() < self.window);
            // Waiting for input is no failure, however long it takes.
            let patience = match self.pending.is_empty() {
                true => crossbeam_channel::never(),
                false => at(progress + self.give_up),
            };
            select! {
                recv(room.unwrap_or(&never)) -> line => match line {
                    Ok(line) => {
                        if self.pending.is_empty() {
                            progress = Instant::now();
                        }
                        self.add(line);
                    }
                    Err(_) => lines = None,
                },
                recv(self.client.events()) -> event => match event {
                    Ok(Event::Refused(why)) => return self.abandon(&why),
                    Ok(event) => {
                        if self.hear(event) {
                            progress = Instant::now();
                        }
                    }
                    Err(_) => return self.abandon("the connection is gone"),
                },
                recv(patience) -> _ => {
                    let why = format!("no answer for {} s", self.give_up.as_secs());
                    return self.abandon(&why);
                }
            }
        }
    }

    fn abandon(&mut self, why: &str) -> u8 {
        let _ = self.out.flush();
        let count = self.pending.len();
        let _ = match count {
            0 => writeln!(self.notes, "{why}"),
            1 => writeln!(self.notes, "{why}; 1 message was not acknowledged"),
            _ => writeln!(self.notes, "{why}; {count} messages were not acknowledged"),
        };
        1
    }

    fn fail(&mut self, name: &str, why: &str) {
        self.failed += 1;
        let _ = writeln!(self.notes, "{name}{why}");
    }

    /// Takes a line up, and sends it if there is a connection.
    fn add(&mut self, line: Line) {
        let payload = match line.payload {
            Ok(payload) => payload,
            Err(why) => return self.fail(&line.name, &why),
        };
        let id = self.next_id;
        self.next_id += 1;
        let mut request = br#"{"type":"publish","id":"#.to_vec();
        write_number(&mut request, id);
        request.extend_from_slice(br#","channel":"#);
        write_string(&mut request, &self.channel);
        request.extend_from_slice(br#","key":""#);
        request.extend_from_slice(self.key.as_bytes());
        request.push(b'-');
        write_number(&mut request, id);
        request.extend_from_slice(br#"","payload":"#);
        request.extend_from_slice(&payload);
        request.push(b'}');
        self.pending.insert(id, Pending { name: line.name, request });
        self.waiting.push_back(id);
        self.send_waiting();
    }

    /// Sends what this connection has not seen. Nothing is sent before the server has said how
    /// much it takes: one message too large would cost the connection.
    fn send_waiting(&mut self) {
        let Some(number) = self.number else { return };
        while let Some(id) = self.waiting.pop_front() {
            let Some(pending) = self.pending.get(&id) else { continue };
            if pending.request.len() <= self.message_bytes_max {
                self.client.send(number, &pending.request);
            } else {
                let (bytes, most) = (pending.request.len(), self.message_bytes_max);
                let pending = self.pending.remove(&id).expect("it was just there");
                let why = format!("{bytes} bytes, and the server takes {most}");
                self.fail(&pending.name, &why);
            }
        }
    }

    /// Whether there was progress.
    fn hear(&mut self, event: Event) -> bool {
        match event {
            Event::Open(number) => {
                self.opened = number;
                false
            }
            Event::Lost(why, delay) => {
                self.number = None;
                self.waiting.clear();
                let seconds = delay.as_secs_f64();
                let _ = writeln!(self.notes, "{why}; connecting again in {seconds:.1} s");
                false
            }
            Event::Refused(_) => false,
            Event::Message(text) => self.answer(&text),
        }
    }

    fn answer(&mut self, text: &[u8]) -> bool {
        let Some(answer) = Answer::parse(text) else { return false };
        if answer.is("welcome") {
            if let Some(most) = answer.number("message_bytes_max") {
                self.message_bytes_max = usize::try_from(most).unwrap_or(usize::MAX);
            }
            self.number = Some(self.opened);
            self.waiting = self.pending.keys().copied().collect();
            self.send_waiting();
            return true;
        }
        let pending = answer.number("id").and_then(|id| self.pending.remove(&id));
        if answer.is("error") {
            let reason = answer.text("reason").or_else(|| answer.text("code")).unwrap_or_default();
            let name = pending.map(|pending| pending.name).unwrap_or_default();
            self.fail(&name, &reason);
            return true;
        }
        if self.verbose && answer.is("ack") && pending.is_some() {
            let seq = answer.number("seq").map(|seq| seq.to_string());
            let _ = writeln!(self.out, "{}", seq.unwrap_or_default());
        }
        pending.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_that_are_no_json_are_told_how_to_quote() {
        assert_eq!(check(br#"{"a":[1,"x"]}"#), Ok(()));
        assert_eq!(check(b"12345678901234567890123"), Ok(()));
        assert_eq!(
            check(b"hello").unwrap_err(),
            "the payload is not JSON at byte 0; a text is written '\"hello\"'"
        );
        assert_eq!(check(b"{\"a\":}").unwrap_err(), "the payload is not JSON at byte 5");
        assert!(check(b"").is_err());
    }

    #[test]
    fn lines_are_payloads_and_bad_ones_are_named() {
        let (sender, lines) = bounded(16);
        read_lines(&b"1\n\n  {\"a\": 2}\r\nnope\n\xff\n\"last\""[..], &sender);
        drop(sender);
        let lines: Vec<(String, Result<Vec<u8>, String>)> =
            lines.iter().map(|line| (line.name, line.payload)).collect();
        let names: Vec<&str> = lines.iter().map(|line| line.0.as_str()).collect();
        assert_eq!(names, ["line 1: ", "line 3: ", "line 4: ", "line 5: ", "line 6: "]);
        assert_eq!(lines[1].1.as_deref(), Ok(&b"{\"a\": 2}"[..]));
        assert!(lines[2].1.as_ref().is_err_and(|why| why.contains("not JSON")));
        assert_eq!(lines[3].1, Err("not UTF-8".into()));
        assert_eq!(lines[4].1.as_deref(), Ok(&b"\"last\""[..]));
    }
}

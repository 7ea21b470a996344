//! Server-Sent Events (HTML standard, 9.2), as far as objects need them: one event for each, whose id
//! is the cursor behind it.

/// The media type of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// Appends `object` as an event.
///
/// A line end in it stands between tokens, where JSON takes any of them for the other: each begins a
/// line of data, and the receiver has a line feed in its place.
pub fn write_event(out: &mut Vec<u8>, write_id: impl FnOnce(&mut Vec<u8>), object: &[u8]) {
    out.extend_from_slice(b"id: ");
    write_id(out);
    out.extend_from_slice(b"\ndata: ");
    let mut rest = object;
    while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
        out.extend_from_slice(&rest[..end]);
        out.extend_from_slice(b"\ndata: ");
        let is_pair = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(is_pair)..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\n\n");
}

/// Appends a comment, which is nothing but life.
pub fn write_heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n\n");
}

/// Appends how long the receiver is to wait before it comes back after the stream has ended.
pub fn write_retry(out: &mut Vec<u8>, milliseconds: u32) {
    out.extend_from_slice(format!("retry: {milliseconds}\n\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a browser makes of `stream`: data and id of each event.
    fn read(stream: &str) -> Vec<(String, String)> {
        let mut events = Vec::new();
        let (mut data, mut id): (Option<String>, _) = (None, String::new());
        for line in stream.replace("\r\n", "\n").split(['\n', '\r']) {
            if let Some(value) = line.strip_prefix("data: ") {
                data = Some(data.map_or(value.into(), |data| data + "\n" + value));
            } else if let Some(value) = line.strip_prefix("id: ") {
                id = value.into();
            } else if line.is_empty() {
                events.extend(data.take().map(|data| (data, id.clone())));
            } else {
                assert!(line.starts_with(':') || line.starts_with("retry: "), "{line:?}");
            }
        }
        events
    }

    #[test]
    fn an_object_is_one_event_however_its_lines_end() {
        let mut out = Vec::new();
        write_retry(&mut out, 2_000);
        write_heartbeat(&mut out);
        for object in ["{}", "{\"a\":\n1}", "{\r\n\"a\":\r1}\n", "\r\n\n{}", "{\n\r}"] {
            let write_id = |out: &mut Vec<u8>| out.extend_from_slice(b"k3x9.1,-");
            write_event(&mut out, write_id, object.as_bytes());
        }
        write_heartbeat(&mut out);
        let read = read(std::str::from_utf8(&out).unwrap());
        let data: Vec<_> = read.iter().map(|(data, _)| data.as_str()).collect();
        assert_eq!(data, ["{}", "{\"a\":\n1}", "{\n\"a\":\n1}\n", "\n\n{}", "{\n\n}"]);
        assert!(read.iter().all(|(_, id)| id == "k3x9.1,-"));
        assert_eq!(out.iter().filter(|byte| **byte == b'\r').count(), 0);
    }
}

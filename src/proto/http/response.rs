//! Responses written whole; the connection closes after each.

/// Appends a whole response. With `head_only` (the answer to HEAD) the body is announced but
/// not sent.
pub fn write_response(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    body: &[u8],
    head_only: bool,
) {
    write_status_line(out, status);
    out.extend_from_slice(
        format!(
            "Connection: close\r\n\
             Content-Type: {content_type}\r\n\
             Content-Length: {}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Cache-Control: no-cache\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    if !head_only {
        out.extend_from_slice(body);
    }
}

pub(super) fn write_status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason_phrase(status)).as_bytes());
}

/// The phrases of RFC 9110 and RFC 6585 for the statuses that are sent.
pub(super) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_request_gets_the_length_but_not_the_body() {
        let mut whole = Vec::new();
        write_response(&mut whole, 200, "text/html; charset=utf-8", b"<p>hi</p>", false);
        let mut head = Vec::new();
        write_response(&mut head, 200, "text/html; charset=utf-8", b"<p>hi</p>", true);
        assert_eq!(whole, [head.as_slice(), b"<p>hi</p>"].concat());
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(head.contains("\r\nContent-Length: 9\r\n"));
        assert!(head.contains("\r\nConnection: close\r\n"));
        assert!(head.ends_with("\r\n\r\n"));
    }
}

//! The address of a server, as it is typed.

/// The path of the WebSocket endpoint, for addresses that name none.
const PATH_DEFAULT: &str = "/ws";

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Name or address to connect to, without brackets.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// What the Host header says.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Url {
    /// Reads `ws://HOST[:PORT][/PATH]` (RFC 6455 3).
    ///
    /// # Errors
    /// One line that says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = |why: &str| Err(format!("{text}: {why}"));
        let rest = match text.split_once("://") {
            Some(("ws", rest)) => rest,
            Some(("wss", _)) => {
                return fail(
                    "this client does not speak TLS; connect with ws:// to the server itself, \
                     behind what ends TLS for it",
                );
            }
            Some(_) => return fail("the address of a WebSocket begins with ws://"),
            None => return fail("write ws://HOST:PORT"),
        };
        // RFC 3986 2: what else is not in a URI must be percent-encoded, and would break the
        // request line here.
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return fail("only printable ASCII can stand in an address; write %20 for a space");
        }
        if rest.contains('#') {
            return fail("the address of a WebSocket has no #fragment");
        }
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if authority.contains('@') {
            return fail("names and passwords cannot stand in the address");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, port)) => (host, port),
                None => return fail("the bracket of an IPv6 address is not closed"),
            },
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        if host.is_empty() {
            return fail("write ws://HOST:PORT");
        }
        let port = match port.strip_prefix(':').unwrap_or(port) {
            "" => 80,
            port => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return fail("the port is a number from 1 to 65535 (IPv6 stands in brackets)"),
            },
        };
        let path = match path {
            "" | "/" => PATH_DEFAULT.to_owned(),
            query if query.starts_with('?') => format!("{PATH_DEFAULT}{query}"),
            path => path.to_owned(),
        };
        Ok(Self { host: host.to_owned(), port, authority: authority.to_owned(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_the_path_has_a_default() {
        for (text, host, port, authority, path) in [
            ("ws://localhost:8080", "localhost", 8080, "localhost:8080", "/ws"),
            ("ws://localhost:8080/", "localhost", 8080, "localhost:8080", "/ws"),
            ("ws://edge.example", "edge.example", 80, "edge.example", "/ws"),
            ("ws://a/other?x=1", "a", 80, "a", "/other?x=1"),
            ("ws://a?token=b", "a", 80, "a", "/ws?token=b"),
            ("ws://[::1]:9/ws", "::1", 9, "[::1]:9", "/ws"),
            ("ws://[::1]", "::1", 80, "[::1]", "/ws"),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
            assert_eq!((url.authority.as_str(), url.path.as_str()), (authority, path), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_apart() {
        for (text, why) in [
            ("localhost:8080", "write ws://HOST:PORT"),
            ("wss://a", "this client does not speak TLS"),
            ("http://a", "begins with ws://"),
            ("ws://", "write ws://HOST:PORT"),
            ("ws://:80", "write ws://HOST:PORT"),
            ("ws://a:0", "the port is a number"),
            ("ws://a:99999", "the port is a number"),
            ("ws://::1:80", "write ws://HOST:PORT"),
            ("ws://[::1", "not closed"),
            ("ws://a b", "printable ASCII"),
            ("ws://a/\r\nX: y", "printable ASCII"),
            ("ws://u:p@a", "names and passwords"),
            ("ws://a/ws#top", "#fragment"),
        ] {
            let error = Url::parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}

//! Whose pages may use the doors: a browser asks on behalf of a page, and says of which origin.
//!
//! Programs send no `Origin` and are none of CORS's business. The browser asks first (a preflight)
//! for what a form could not have sent; it sends the rest at once and only hides the answer. So a
//! request that changes something is refused here when its origin is not allowed, whatever the
//! browser does with the answer.

use super::request::Request;
use super::response::Head;

/// Seconds that a browser may rely on a preflight's answer: Chromium keeps none longer.
const PREFLIGHT_AGE_S: u64 = 7_200;

/// The origins whose pages may use the doors, beside the server's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// No others.
    #[default]
    Off,
    /// Every one.
    Any,
    /// These, each as a browser writes it: `https://app.example`, with the port unless it is the
    /// scheme's own.
    Listed(Vec<Box<str>>),
}

/// On whose behalf a request comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No page's, or one that this server itself has served.
    Own,
    /// A page's that may read the answer: what `Access-Control-Allow-Origin` is to say.
    Allowed(Box<str>),
    /// A page's of another origin.
    Foreign,
}

impl Origin {
    /// What `Access-Control-Allow-Origin` is to say, if anything.
    #[must_use]
    pub fn allowed(&self) -> Option<&str> {
        match self {
            Self::Allowed(allowed) => Some(allowed),
            Self::Own | Self::Foreign => None,
        }
    }
}

impl Cors {
    /// Looks at where `request` comes from.
    #[must_use]
    pub fn judge(&self, request: &Request<'_>) -> Origin {
        if !request.has("origin") {
            return Origin::Own;
        }
        // One that is no text, or there twice, is nobody's.
        let mut origins = request.headers("origin");
        let (Some(origin), None) = (origins.next(), origins.next()) else { return Origin::Foreign };
        let is_listed = |list: &[Box<str>]| list.iter().any(|it| it.eq_ignore_ascii_case(origin));
        match self {
            Self::Any => Origin::Allowed("*".into()),
            Self::Listed(list) if is_listed(list) => Origin::Allowed(origin.into()),
            _ if is_own(origin, request.header("host")) => Origin::Own,
            _ => Origin::Foreign,
        }
    }
}

/// Whether a page of `origin` was served by `host`. Who ends TLS in front of this server passes
/// the Host on, or has to be listed.
fn is_own(origin: &str, host: Option<&str>) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    matches!((authority, host), (Some(own), Some(host)) if own.eq_ignore_ascii_case(host))
}

/// Whether `text` is an origin as a browser writes it: scheme, host, perhaps a port, no path.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    authority.is_some_and(|authority| {
        let is_plain = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        };
        !authority.is_empty() && authority.bytes().all(is_plain)
    })
}

/// Appends the answer to a preflight about a path that knows `methods`.
pub fn write_preflight(out: &mut Vec<u8>, methods: &str, origin: &Origin) {
    let head = Head::new(out, 204).field("Allow", methods).allow(origin.allowed());
    let Origin::Allowed(_) = origin else { return head.end() };
    head.field("Access-Control-Allow-Methods", methods)
        .field("Access-Control-Allow-Headers", "Content-Type, Last-Event-ID, Cache-Control")
        .number("Access-Control-Max-Age", PREFLIGHT_AGE_S)
        .end();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{HeaderSlots, parse_request};

    fn judged(cors: &Cors, fields: &str) -> Origin {
        let head = format!("POST /publish HTTP/1.1\r\nHost: edge.example:8080\r\n{fields}\r\n");
        let mut slots = HeaderSlots::new();
        cors.judge(&parse_request(head.as_bytes(), &mut slots).unwrap().unwrap())
    }

    fn listed() -> Cors {
        Cors::Listed(vec!["https://app.example".into(), "http://localhost:3000".into()])
    }

    #[test]
    fn without_configuration_only_the_servers_own_pages_are_served() {
        for (fields, origin) in [
            ("", Origin::Own),
            ("Origin: http://edge.example:8080\r\n", Origin::Own),
            ("Origin: https://EDGE.example:8080\r\n", Origin::Own),
            ("Origin: http://edge.example\r\n", Origin::Foreign),
            ("Origin: http://edge.example:8080.evil.example\r\n", Origin::Foreign),
            ("Origin: null\r\n", Origin::Foreign),
            ("Origin: \r\n", Origin::Foreign),
            ("Origin: \u{e9}\r\n", Origin::Foreign),
        ] {
            assert_eq!(judged(&Cors::Off, fields), origin, "{fields:?}");
        }
        let twice = "Origin: http://edge.example:8080\r\nOrigin: http://edge.example:8080\r\n";
        assert_eq!(judged(&Cors::Off, twice), Origin::Foreign);
    }

    #[test]
    fn the_listed_are_allowed_by_their_name_and_any_by_a_star() {
        let allowed = |name: &str| Origin::Allowed(name.into());
        let app = "Origin: https://app.example\r\n";
        assert_eq!(judged(&listed(), app), allowed("https://app.example"));
        let local = "Origin: http://localhost:3000\r\n";
        assert_eq!(judged(&listed(), local), allowed("http://localhost:3000"));
        for near in ["http://app.example", "https://app.example:444", "https://app.example.evil"] {
            assert_eq!(judged(&listed(), &format!("Origin: {near}\r\n")), Origin::Foreign);
        }
        assert_eq!(judged(&listed(), ""), Origin::Own);
        for fields in [app, "Origin: null\r\n"] {
            assert_eq!(judged(&Cors::Any, fields), allowed("*"));
        }
    }

    #[test]
    fn an_origin_has_a_scheme_a_host_and_nothing_behind_it() {
        for origin in ["https://app.example", "http://localhost:3000", "http://[::1]:8080"] {
            assert!(is_origin(origin), "{origin}");
        }
        for text in ["", "*", "app.example", "https://", "https://app.example/", "ftp://a", "null"]
        {
            assert!(!is_origin(text), "{text}");
        }
        assert!(!is_origin("https://a\r\nb") && !is_origin("https://a b"));
    }

    #[test]
    fn a_preflight_names_what_is_allowed_to_those_who_are() {
        let written = |origin: &Origin| {
            let mut out = Vec::new();
            write_preflight(&mut out, "POST, OPTIONS", origin);
            String::from_utf8(out).unwrap()
        };
        let allowed = written(&Origin::Allowed("https://app.example".into()));
        for line in [
            "HTTP/1.1 204 No Content\r\n",
            "\r\nAccess-Control-Allow-Origin: https://app.example\r\n",
            "\r\nAccess-Control-Allow-Methods: POST, OPTIONS\r\n",
            "\r\nAccess-Control-Allow-Headers: Content-Type,",
            "\r\nVary: Origin\r\n",
        ] {
            assert!(allowed.contains(line), "{line:?} in {allowed}");
        }
        for origin in [Origin::Own, Origin::Foreign] {
            let told = written(&origin);
            assert!(told.contains("\r\nAllow: POST, OPTIONS\r\n"));
            assert!(!told.contains("Access-Control"), "{told}");
        }
    }
}

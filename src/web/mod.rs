//! What a browser gets from the data listener: the demo page and the client it is built on.
//!
//! Both are part of the binary, so a box with nothing but the binary can show that it works.
//! Which requests reach this page, and how the answer is framed, is the connection's business.

/// A file that is served as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// For the `Content-Type` field.
    pub content_type: &'static str,
    /// The whole body.
    pub body: &'static [u8],
}

/// The demo page: self-contained but for [`CLIENT`], which it imports.
const PAGE: Asset =
    Asset { content_type: "text/html; charset=utf-8", body: include_bytes!("index.html") };

/// The browser client, an ES module. Browsers refuse to import a module that does not come with
/// a JavaScript type (HTML standard, "fetch a single module script").
const CLIENT: Asset =
    Asset { content_type: "text/javascript; charset=utf-8", body: include_bytes!("ringcast.js") };

/// What is served at `path` (without its query), if anything.
#[must_use]
pub fn asset(path: &str) -> Option<Asset> {
    match path {
        "/" => Some(PAGE),
        "/ringcast.js" => Some(CLIENT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::asset;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(asset(path).expect("a known path").body).expect("UTF-8")
    }

    #[test]
    fn the_page_and_the_client_are_served_with_their_types() {
        assert_eq!(asset("/").unwrap().content_type, "text/html; charset=utf-8");
        assert_eq!(asset("/ringcast.js").unwrap().content_type, "text/javascript; charset=utf-8");
        assert!(text("/").starts_with("<!doctype html>"));
        assert!(text("/ringcast.js").contains("export class Ringcast"));
    }

    #[test]
    fn nothing_else_is_served() {
        for path in ["", "/index.html", "/ringcast.js/", "/../Cargo.toml", "/ws", "//"] {
            assert_eq!(asset(path), None, "{path}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        // An edge box has no way out: whatever the page loads must come from the box itself.
        let page = text("/");
        for line in page.lines().filter(|line| line.contains("src=") || line.contains("href=")) {
            assert!(line.contains("href=\"data:"), "loads something: {line}");
        }
        // The namespace inside the icon is a name, not an address.
        assert_eq!(
            page.matches("http").count(),
            page.matches("xmlns='http://www.w3.org").count()
                + page.matches("http-equiv").count()
                + page.matches("https:\" ?").count()
        );
        assert!(page.contains("from \"./ringcast.js\""));
    }

    #[test]
    fn the_page_is_small_enough_for_a_slow_uplink() {
        assert!(text("/").len() + text("/ringcast.js").len() < 64 * 1024);
    }
}

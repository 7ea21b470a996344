//! What a browser gets from the data listener: the demo page and the client it is built on.
//!
//! Both are part of the binary, so a box with nothing but the binary can show that it works.
//! Which requests reach these pages, and how the answer is framed, is the connection's business.

use crate::conn::Page;

/// What GET answers. The page is self-contained but for the client, which it imports. Browsers
/// refuse to import a module that does not come with a JavaScript type (HTML standard, "fetch a
/// single module script").
pub const PAGES: [Page; 2] = [
    Page {
        path: "/",
        content_type: "text/html; charset=utf-8",
        body: include_bytes!("index.html"),
    },
    Page {
        path: "/ringcast.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_bytes!("ringcast.js"),
    },
];

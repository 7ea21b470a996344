//! What a browser gets from the data listener: the demo page, the client it is built on, and the
//! types of that client.
//!
//! All are part of the binary, so a box with nothing but the binary can show that it works.
//! Which requests reach these pages, and how the answer is framed, is the connection's business.

use crate::conn::Page;

/// What GET answers. The page is self-contained but for the client, which it imports. Browsers
/// refuse to import a module that does not come with a JavaScript type (HTML standard, "fetch a
/// single module script").
pub const PAGES: [Page; 3] = [
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
    Page {
        path: "/ringcast.d.ts",
        content_type: "application/typescript; charset=utf-8",
        body: include_bytes!("ringcast.d.ts"),
    },
];

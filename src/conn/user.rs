//! Who a client says that it is: `?user=ann` in the URL of every door but the one to publish through.

use crate::proto::envelope::{USER_RULE, is_user};
use crate::proto::http::{Refusal, Request, query};

/// What `request` says, if it does.
///
/// # Errors
/// 400 when that is no name, or there are two.
pub(super) fn of(request: &Request<'_>) -> Result<Option<Box<str>>, Refusal> {
    let mut user = None;
    for pair in query::pairs(request.query.unwrap_or_default()) {
        let (name, value) = pair?;
        if name != "user" {
            continue;
        }
        if !is_user(&value) {
            return Err(Refusal::BadRequest(USER_RULE));
        }
        if user.replace(value.into()).is_some() {
            return Err(Refusal::BadRequest("a parameter is there twice"));
        }
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{HeaderSlots, parse_request};

    fn asked(target: &str) -> Result<Option<Box<str>>, Refusal> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut slots = HeaderSlots::new();
        of(&parse_request(head.as_bytes(), &mut slots)?.expect("a whole head"))
    }

    #[test]
    fn a_client_may_say_who_it_is() {
        let long = "u".repeat(64);
        for (target, user) in [
            ("/ws", None),
            ("/ws?token=1&users=ann", None),
            ("/ws?user=ann", Some("ann")),
            ("/sse?channel=a&user=%C3%A9va%20b", Some("\u{e9}va b")),
            (&format!("/ws?user={long}"), Some(long.as_str())),
        ] {
            assert_eq!(asked(target), Ok(user.map(Into::into)), "{target}");
        }
    }

    #[test]
    fn what_is_no_name_or_not_one_name_is_refused() {
        let long = format!("/ws?user={}", "u".repeat(65));
        for target in
            ["/ws?user=", "/ws?user", "/ws?user=a%0Ab", "/ws?user=%ff", "/ws?user=a&user=a", &long]
        {
            assert!(matches!(asked(target), Err(Refusal::BadRequest(_))), "{target}");
        }
    }
}

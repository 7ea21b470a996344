//! What few clients have, and what everybody else pays one pointer for.

use std::sync::Arc;

use super::super::PatternId;
use super::super::listen::Listening;
use super::super::recovery::Recovery;

/// What few clients have.
#[derive(Debug, Default)]
pub(in crate::hub) struct Extra {
    /// What it has by patterns.
    pub(in crate::hub) followed: Option<Box<Followed>>,
    /// Channels in which it catches up, if there are any.
    #[expect(clippy::box_collection, reason = "few of those who have something have this")]
    pub(in crate::hub) recoveries: Option<Box<Vec<Recovery>>>,
    /// What it is called, if it has said so.
    pub(in crate::hub) user: Option<Arc<str>>,
    /// What there is to know of a client that listens over HTTP.
    pub(super) listening: Option<Box<Listening>>,
}

/// What a client has by patterns, or had.
#[derive(Debug, Default)]
pub(in crate::hub) struct Followed {
    /// Patterns that it is subscribed to.
    pub(in crate::hub) patterns: Vec<PatternId>,
    /// How many of its subscriptions only patterns hold.
    pub(in crate::hub) matched: u16,
    /// It has let go of a pattern since few replies waited for it.
    pub(in crate::hub) has_let_go: bool,
}

/// Whole lists of users, or of those who listen over HTTP, have one each.
const _: () = assert!(size_of::<Extra>() <= 40);

impl Extra {
    /// Whether nothing is lost without it.
    pub(super) const fn is_unused(&self) -> bool {
        let Self { followed, recoveries, user, listening } = self;
        followed.is_none() && recoveries.is_none() && user.is_none() && listening.is_none()
    }
}

//! Storage without a domain word: generation-tagged keys and the tables they index.
//!
//! Reading order: [`Key`], then [`Table`].

mod key;
mod table;

pub use key::Key;
pub use table::Table;

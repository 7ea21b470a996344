//! JSON to MessagePack and back, as one and the same value.
//!
//! Inside the server everything is JSON text, byte for byte as it was published; MessagePack is
//! another way to say it, for those who ask for it. Both directions are strict, linear, without
//! recursion and without an allocation for each value.
//!
//! | JSON | MessagePack |
//! |---|---|
//! | `null`, `true`, `false`, arrays, objects | the same; members keep their order, and duplicates |
//! | a number without fraction and exponent | the shortest integer that holds it |
//! | any other number, and `-0` | a 64-bit float, the nearest, as readers of JSON have it |
//! | a number that neither can hold (`1e400`, 30 digits) | ext type 74 (`J`) with its text |
//! | a string | str |
//! | a string with half of a surrogate pair, also as a name | ext type 74 with its text |
//! | `{"$bin":"base64"}` | bin |
//! | `{"$ext":[type,"base64"]}` | ext of any other type |
//!
//! The last two are one value in two spellings: an object of that shape and nothing else in it *is*
//! the binary value. The base64 is RFC 4648's with padding. MessagePack that JSON has no word for is
//! refused: a str that is not UTF-8, a name that is not a str, NaN and the infinities.
//!
//! Reading order: `token` (what MessagePack is made of), [`binary`] (the two shapes above),
//! [`from_json`], [`to_json`].

pub mod binary;
mod from_json;
mod to_json;
mod token;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub use from_json::from_json;
pub use to_json::{Fault, MsgpackError, to_json};

use crate::limits::JSON_DEPTH_MAX;

/// Depth of nesting in both directions: a payload, the message around it, and the list and the reply
/// that a history comes in.
pub const DEPTH_MAX: usize = JSON_DEPTH_MAX + 3;

/// The ext type of what JSON can say and MessagePack cannot: its data is the JSON text of a number
/// or a string. `J` in ASCII.
pub const EXT_JSON: i8 = 74;

//! Centrifuge protocol v2: encodings of `command` and `push`.

pub mod json;
pub mod protobuf;

/// `version` of a connect result.
const VERSION: &str = concat!("ringmain ", env!("CARGO_PKG_VERSION"));

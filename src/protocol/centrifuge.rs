//! Centrifuge protocol v2: encodings of `command` and `push`.

pub mod json;

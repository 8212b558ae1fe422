//! Promises of the JSON encoding.

//! Conditions on payloads.

//! Promises of the server API.

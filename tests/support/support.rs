//! What the tests of the real binary share.

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod deflate;
pub(crate) mod groups;
pub(crate) mod http;
pub(crate) mod joins;
pub(crate) mod process;
pub(crate) mod push;
pub(crate) mod request;
pub(crate) mod scenario;
pub(crate) mod stream;
pub(crate) mod tenants;
pub(crate) mod token;
pub(crate) mod transcode;
pub(crate) mod wait;

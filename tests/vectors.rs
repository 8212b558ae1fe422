//! JSON and Protobuf say the same: in the vectors that the SDKs' own codecs made, and for whatever can be said.

#[path = "vectors/identity.rs"]
mod identity;
#[path = "vectors/replies.rs"]
mod replies;
#[path = "vectors/sdk.rs"]
mod sdk;
#[path = "support/transcode.rs"]
mod transcode;

//! The server HTTP API (`spec/centrifuge.md` §8): bodies of services into requests, answers into JSON.
//!
//! What goes wrong has two levels. [`ApiDecodeError`] spoils the whole HTTP request and becomes its status. [`ApiError`]
//! answers one request in place of its result, with status 200 unless the service asked for transport errors.

mod answer;
mod decode;
mod error;
mod fields;
mod openapi;
mod request;

pub use answer::{ApiAnswer, ApiForm, ApiPublished, NodeInfo, encode_answer, presence_json};
pub use decode::{LegacyCommand, MethodFields, decode, decode_legacy, is_method, methods};
pub use error::{ApiDecodeError, ApiError, Closed};
pub use openapi::OPENAPI;
pub use request::{
    Batch, Broadcast, ConnectionRefresh, Data, HistoryCall, PublishOptions, Request, SubscribeCall,
    Whom,
};

//! JSON ⇄ Protobuf by the schema in `tests/vectors/client.proto`, with a codec that shares nothing with the proxy's.
//!
//! In the JSON view payload bytes that are JSON stand as JSON values; other payloads are `{"$bytes": "<hex>"}`. Zero values
//! are left out, but for those that the JSON encoding always prints (`spec/centrifuge.md` §2.1).

use std::sync::OnceLock;

use prost_reflect::prost::Message as _;
use prost_reflect::prost::encoding::{decode_varint, encode_varint};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value as Field,
};
use serde_json::{Map, Value, json};

/// Fields that are printed whatever they hold: message and name.
const PRINTED: [(&str, &str); 8] = [
    ("ClientInfo", "user"),
    ("ClientInfo", "client"),
    ("PresenceResult", "presence"),
    ("PresenceStatsResult", "num_clients"),
    ("PresenceStatsResult", "num_users"),
    ("HistoryResult", "publications"),
    ("HistoryResult", "epoch"),
    ("HistoryResult", "offset"),
];

/// Fields that this server adds and that clients skip: when to try again.
const ADDED: [(&str, u32); 1] = [("Error", 1000)];

/// The message of that name.
pub(crate) fn message(name: &str) -> MessageDescriptor {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
        let files = protox::compile(["client.proto"], [directory]).expect("the schema compiles");
        DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete")
    });
    pool.get_message_by_name(&format!("client.{name}"))
        .unwrap_or_else(|| panic!("no message {name}"))
}

/// The bytes of one message, without its length.
pub(crate) fn encode(name: &str, object: &Value) -> Vec<u8> {
    read_message(&message(name), object).encode_to_vec()
}

/// The JSON view of one message.
pub(crate) fn decode(name: &str, bytes: &[u8]) -> Value {
    let decoded = DynamicMessage::decode(message(name), bytes)
        .unwrap_or_else(|error| panic!("{name} {bytes:02x?}: {error}"));
    write_message(&decoded)
}

/// Puts its length before a message.
pub(crate) fn delimit(frame: &mut Vec<u8>, message: &[u8]) {
    encode_varint(message.len() as u64, frame);
    frame.extend_from_slice(message);
}

/// The messages of a frame.
pub(crate) fn split(mut frame: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !frame.is_empty() {
        let len = decode_varint(&mut frame).expect("a length") as usize;
        let (message, rest) = frame.split_at(len);
        messages.push(message);
        frame = rest;
    }
    messages
}

/// Payload bytes as they stand in the JSON view.
pub(crate) fn payload(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "$bytes": hex })
    })
}

fn payload_bytes(value: &Value) -> Vec<u8> {
    match value.as_object() {
        Some(object) if object.len() == 1 && object.contains_key("$bytes") => {
            unhex(object["$bytes"].as_str().expect("hex"))
        }
        _ => value.to_string().into_bytes(),
    }
}

/// Bytes out of hex digits.
pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn read_message(descriptor: &MessageDescriptor, object: &Value) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let object = object
        .as_object()
        .unwrap_or_else(|| panic!("{}: {object}", descriptor.name()));
    for (name, value) in object {
        // Names match in any case and unknown ones are left out, as in the JSON encoding.
        let field = descriptor.get_field_by_name(&name.to_ascii_lowercase());
        let Some(field) = field else { continue };
        if value.is_null() && field.kind() != Kind::Bytes {
            continue;
        }
        message.set_field(&field, read_field(&field, value));
    }
    message
}

fn read_field(field: &FieldDescriptor, value: &Value) -> Field {
    if field.is_map() {
        let entry = field.kind();
        let of = entry
            .as_message()
            .expect("an entry")
            .map_entry_value_field();
        let read = |value: &Value| match (value, of.kind()) {
            (Value::Null, Kind::Message(of)) => Field::Message(DynamicMessage::new(of)),
            _ => read_value(&of, value),
        };
        let entries = value.as_object().expect("a map").iter();
        return Field::Map(
            entries
                .map(|(key, value)| (MapKey::String(key.clone()), read(value)))
                .collect(),
        );
    }
    if field.cardinality() == Cardinality::Repeated {
        let items = value.as_array().expect("a list").iter();
        return Field::List(items.map(|item| read_value(field, item)).collect());
    }
    read_value(field, value)
}

fn read_value(field: &FieldDescriptor, value: &Value) -> Field {
    let wrong = || -> ! { panic!("{}: {value}", field.full_name()) };
    let signed = || value.as_i64().unwrap_or_else(|| wrong());
    let unsigned = || value.as_u64().unwrap_or_else(|| wrong());
    match field.kind() {
        Kind::Bool => Field::Bool(value.as_bool().unwrap_or_else(|| wrong())),
        Kind::String => Field::String(value.as_str().unwrap_or_else(|| wrong()).to_owned()),
        Kind::Bytes => Field::Bytes(payload_bytes(value).into()),
        Kind::Uint32 => Field::U32(u32::try_from(unsigned()).unwrap_or_else(|_| wrong())),
        Kind::Uint64 => Field::U64(unsigned()),
        Kind::Int32 => Field::I32(i32::try_from(signed()).unwrap_or_else(|_| wrong())),
        Kind::Int64 | Kind::Sint64 => Field::I64(signed()),
        Kind::Message(descriptor) => Field::Message(read_message(&descriptor, value)),
        other => panic!("{}: the schema has no {other:?}", field.full_name()),
    }
}

fn write_message(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    let mut object = Map::new();
    for field in descriptor.fields() {
        let is_printed = PRINTED.contains(&(descriptor.name(), field.name()));
        if message.has_field(&field) || is_printed {
            let value = write_value(&message.get_field(&field));
            object.insert(field.name().to_owned(), value);
        }
    }
    let unknown: Vec<u32> = message
        .unknown_fields()
        .map(|field| field.number())
        .filter(|&number| !ADDED.contains(&(descriptor.name(), number)))
        .collect();
    assert!(
        unknown.is_empty(),
        "{} has fields that the schema does not know: {unknown:?}",
        descriptor.name()
    );
    Value::Object(object)
}

fn write_value(value: &Field) -> Value {
    match value {
        Field::Bool(value) => json!(value),
        Field::I32(value) => json!(value),
        Field::I64(value) => json!(value),
        Field::U32(value) => json!(value),
        Field::U64(value) => json!(value),
        Field::String(value) => json!(value),
        Field::Bytes(bytes) => payload(bytes),
        Field::Message(message) => write_message(message),
        Field::List(items) => items.iter().map(write_value).collect(),
        Field::Map(entries) => {
            let entry = |(key, value): (&MapKey, &Field)| {
                let key = key.as_str().expect("a map's keys are text");
                (key.to_owned(), write_value(value))
            };
            Value::Object(entries.iter().map(entry).collect())
        }
        other => panic!("the schema has no such value: {other:?}"),
    }
}

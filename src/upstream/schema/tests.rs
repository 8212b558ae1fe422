use std::sync::Arc;

use super::*;
use crate::config::namespace::Delivery;
use crate::limits::{REFUSAL_BYTES_MAX, SCHEMA_BYTES_MAX};
use crate::model::EventId;
use crate::upstream::memory::{self, MemoryLog};

const ORDER: &str = r#"{"type":"object","required":["n"],"properties":{"n":{"type":"integer","minimum":1},
    "note":{"type":"string","maxLength":4},"mail":{"format":"email"}}}"#;

fn namespace(name: &str, versions: &[(u32, &str)], required: bool) -> Arc<Namespace> {
    let accepted = versions.iter().map(|&(version, text)| SchemaVersion {
        version,
        json_schema: text.to_owned(),
    });
    Arc::new(Namespace {
        name: name.to_owned(),
        delivery: Delivery::Durable,
        schema: Schema {
            accepted: accepted.collect(),
            required,
        },
        ..Namespace::default()
    })
}

fn config(versions: &[(u32, &str)], required: bool) -> Config {
    let mut config = Config::built_in();
    config.durable.append_timeout = Duration::from_millis(50);
    config.channels.namespaces = vec![namespace("orders", versions, required)];
    config
}

fn refusal_of(schemas: &Schemas, channel: &str, version: u32, data: &str) -> Option<String> {
    let record = Record {
        schema: version,
        ..memory::record(channel, EventId(1), data)
    };
    match schemas.check(&record) {
        Ok(()) => None,
        Err(LogError::Refused(text)) => Some(text.into()),
        Err(other) => panic!("{other:?} is no refusal"),
    }
}

fn refusal(schemas: &Schemas, version: u32, data: &str) -> Option<String> {
    refusal_of(schemas, "orders:1", version, data)
}

async fn fault(log: &MemoryLog, text: &str) -> Option<SchemaFault> {
    let (schemas, errors) = Schemas::load(log, &config(&[(1, text)], false)).await;
    let refused = refusal(&schemas, 1, "1").is_some_and(|text| text.contains("schema version 1: "));
    assert!(errors.is_empty() || refused);
    errors.into_iter().next().map(|error| error.fault)
}

#[tokio::test]
async fn refusal_names_the_rule() {
    let log = MemoryLog::default();
    let (schemas, errors) = Schemas::load(&log, &config(&[(1, ORDER), (3, "")], true)).await;
    assert_eq!(errors, []);
    for data in [r#"{"n":1}"#, r#"{"n":1,"note":"ñé","mail":"a@b.example"}"#] {
        assert_eq!(refusal(&schemas, 1, data), None);
    }
    for (version, data, parts) in [
        (0, r#"{"n":1}"#, &["must name", "accepted are 1, 3"][..]),
        (2, r#"{"n":1}"#, &["version 2 is not accepted", "1, 3"]),
        (1, "nonsense", &["not JSON"]),
        (
            1,
            r#"{"n":0}"#,
            &["`/n`", "`minimum`", "`/properties/n/minimum`", "it is 0"],
        ),
        (1, "{}", &["the payload", "`required`", "n"]),
        (1, r#"{"n":1,"mail":"x"}"#, &["`/mail`", "`format`"]),
    ] {
        let text = refusal(&schemas, version, data).unwrap_or_default();
        assert!(text.starts_with("namespace `orders`: "), "{text}");
        for part in parts {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }
    assert_eq!(refusal(&schemas, 3, "no schema, no rule"), None);
}

#[tokio::test]
async fn version_is_optional_unless_it_is_required() {
    let log = MemoryLog::default();
    let (schemas, _) = Schemas::load(&log, &config(&[(1, ORDER)], false)).await;
    assert_eq!(refusal(&schemas, 0, "anything"), None);
    let (schemas, _) = Schemas::load(&log, &config(&[], true)).await;
    assert!(refusal(&schemas, 0, "1").is_some());
    assert_eq!(refusal(&schemas, 77, "1"), None);
}

#[tokio::test]
async fn namespaces_without_schema_are_not_concerned() {
    let log = MemoryLog::default();
    let mut config = config(&[(1, "{")], true);
    let fine = namespace("fine", &[(1, r#"{"type":"string"}"#)], true);
    config.channels.namespaces.insert(0, fine);
    let (schemas, errors) = Schemas::load(&log, &config).await;
    assert_eq!(errors.len(), 1);
    for channel in ["elsewhere", "unknown:1", "$dead:group"] {
        assert_eq!(refusal_of(&schemas, channel, 0, "x"), None);
    }
    assert_eq!(refusal_of(&schemas, "fine:1", 1, "\"x\""), None);
    assert!(refusal_of(&schemas, "fine:1", 1, "1").is_some());
    let text = refusal_of(&schemas, "orders:1", 1, "1").unwrap_or_default();
    assert!(text.contains("not JSON"), "{text}");
}

#[tokio::test]
async fn refusals_are_short_whatever_the_payload_holds() {
    let log = MemoryLog::default();
    let text = r#"{"additionalProperties":false,"patternProperties":{"^e":{"additionalProperties":{"enum":[1]}}}}"#;
    let (schemas, _) = Schemas::load(&log, &config(&[(1, text)], false)).await;
    let long = "é".repeat(100_000);
    for data in [
        format!(r#"{{"x{long}":1}}"#),
        format!(r#"{{"{long}":"{long}"}}"#),
        format!(r#"{{"e":{{"{long}":"{long}"}}}}"#),
        long.clone(),
    ] {
        let text = refusal(&schemas, 1, &data).unwrap_or_else(|| "accepted".repeat(99));
        assert!(text.len() <= REFUSAL_BYTES_MAX, "{}", text.len());
    }
    let many: Vec<(u32, &str)> = (1..2000).map(|version| (version, "")).collect();
    let (schemas, _) = Schemas::load(&log, &config(&many, true)).await;
    assert!(refusal(&schemas, 0, "1").is_some_and(|text| text.len() <= REFUSAL_BYTES_MAX));
}

#[tokio::test]
async fn wider_text_is_taken_and_remembered_narrower_one_is_not() {
    let log = MemoryLog::default();
    assert_eq!(fault(&log, ORDER).await, None);
    let wider = ORDER.replace("\"minimum\":1", "\"minimum\":0");
    assert_eq!(fault(&log, &wider).await, None);
    let narrowed = fault(&log, ORDER).await;
    let Some(SchemaFault::Incompatible(narrowed)) = narrowed else {
        panic!("{narrowed:?}");
    };
    assert_eq!(&*narrowed.pointer, "/properties/n/minimum");
    let (schemas, errors) = Schemas::load(&log, &config(&[(1, ORDER)], false)).await;
    let told = errors.first().map(ToString::to_string).unwrap_or_default();
    for part in [
        "`orders`",
        "version 1",
        "/properties/n/minimum",
        "add a new version",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(refusal(&schemas, 1, r#"{"n":5}"#).is_some_and(|text| text.contains("tighter")));
    // Another version is another text.
    let (_, errors) = Schemas::load(&log, &config(&[(1, &wider), (2, ORDER)], false)).await;
    assert_eq!(errors, []);
    // What was not taken was not remembered.
    assert_eq!(fault(&log, &wider).await, None);
}

#[tokio::test]
async fn no_text_accepted_everything() {
    let log = MemoryLog::default();
    assert_eq!(fault(&log, "").await, None);
    assert!(matches!(
        fault(&log, ORDER).await,
        Some(SchemaFault::Incompatible(_))
    ));
    assert_eq!(fault(&log, " ").await, None);
}

#[tokio::test]
async fn texts_of_a_namespace_are_remembered_together_or_not_at_all() {
    let log = MemoryLog::default();
    Schemas::load(&log, &config(&[(1, ORDER), (2, "{")], false)).await;
    assert_eq!(fault(&log, "false").await, None);
}

#[tokio::test]
async fn log_that_is_down_stops_no_schema() {
    let log = MemoryLog::default();
    fault(&log, "true").await;
    log.down.set(true);
    let (schemas, errors) = Schemas::load(&log, &config(&[(1, ORDER)], false)).await;
    assert_eq!(errors, []);
    assert!(refusal(&schemas, 1, "{}").is_some());
    log.down.set(false);
    assert!(fault(&log, ORDER).await.is_some());
}

#[tokio::test]
async fn remembered_text_that_cannot_be_read_is_not_overwritten() {
    let log = MemoryLog::default();
    log.put("schema/orders/1", Some(b"\xff")).await.unwrap();
    let fault = fault(&log, ORDER).await;
    assert!(
        matches!(fault, Some(SchemaFault::Incompatible(_))),
        "{fault:?}"
    );
    assert_eq!(log.get("schema/orders/1").await, Ok(Some(b"\xff".to_vec())));
}

#[tokio::test]
async fn texts_that_cannot_be_used_are_refused() {
    let log = MemoryLog::default();
    let large = format!("{{\"title\":\"{}\"}}", "x".repeat(SCHEMA_BYTES_MAX));
    assert!(matches!(
        fault(&log, &large).await,
        Some(SchemaFault::TooLarge(_))
    ));
    assert!(matches!(
        fault(&log, "{").await,
        Some(SchemaFault::NotJson(_))
    ));
    for text in [
        r#"{"type":"nonsense"}"#,
        r#"{"properties":[]}"#,
        "7",
        r#"{"pattern":"(?=a)b"}"#,
        r#"{"pattern":"((a{1000}){1000}){1000}"}"#,
    ] {
        let fault = fault(&log, text).await;
        assert!(
            matches!(fault, Some(SchemaFault::NotASchema { .. })),
            "{text} {fault:?}"
        );
    }
    for text in [
        r#"{"$ref":"https://schemas.example/order.json"}"#,
        r#"{"properties":{"a":{"$ref":"file:///etc/hostname"}}}"#,
        r#"{"$schema":"https://schemas.example/dialect"}"#,
        r##"{"$ref":"#/$defs/gone"}"##,
    ] {
        let fault = fault(&log, text).await;
        assert!(
            matches!(fault, Some(SchemaFault::Reference(_))),
            "{text} {fault:?}"
        );
    }
    let (_, errors) = Schemas::load(&log, &config(&[(9, "true"), (9, "true")], false)).await;
    assert_eq!(
        errors.first().map(|error| &error.fault),
        Some(&SchemaFault::Repeated)
    );
}

/// Each of these would be applied to the same value for ever.
#[tokio::test]
async fn reference_that_leads_to_itself_ends() {
    for text in [
        r##"{"$ref":"#"}"##,
        r##"{"allOf":[{"$ref":"#"}]}"##,
        r##"{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"not":{"$ref":"#/$defs/a"}}},"$ref":"#/$defs/a"}"##,
        r##"{"$defs":{"a":{"$anchor":"x","anyOf":[{"$ref":"#x"}]}},"$ref":"#x"}"##,
        r##"{"$id":"http://schemas.example/y","anyOf":[{"$ref":"y"}]}"##,
        r##"{"$dynamicAnchor":"n","not":{"$dynamicRef":"#n"}}"##,
        r##"{"$schema":"https://json-schema.org/draft/2019-09/schema","$recursiveAnchor":true,"not":{"$recursiveRef":"#"}}"##,
        r##"{"$defs":{"a b":{"$ref":"#/$defs/a%20b"}},"$ref":"#/$defs/a%20b"}"##,
    ] {
        eprintln!("{text}");
        let log = MemoryLog::default();
        let (schemas, _) = Schemas::load(&log, &config(&[(1, text)], false)).await;
        let _ = refusal(&schemas, 1, r#"{"a":{"a":1}}"#);
    }
    let log = MemoryLog::default();
    let tree = r##"{"properties":{"next":{"$ref":"#"}},"additionalProperties":false}"##;
    let (schemas, errors) = Schemas::load(&log, &config(&[(1, tree)], false)).await;
    assert_eq!(errors, []);
    assert_eq!(refusal(&schemas, 1, r#"{"next":{"next":{}}}"#), None);
    assert!(refusal(&schemas, 1, r#"{"next":{"last":{}}}"#).is_some());
}

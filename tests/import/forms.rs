//! What Centrifugo itself writes and what its SDKs' compose files say: the whole default configuration in three formats,
//! variables of the environment in every form, options of the command line.

use std::fmt::Write as _;

use ringmain::config::Config;
use ringmain::import::{Fate, Format, Imported, Input, Version, import};
use serde_json::{Map, Value, json};

use crate::keys::{fate, load};

/// Names, kinds and defaults of all keys.
const KNOWN: &str = include_str!("../../src/import/known.txt");

/// A time as Go writes it: `1m0s`, `720h0m0s`.
fn go_time(text: &str) -> String {
    let time = ringmain::config::parse_duration(text).unwrap_or_default();
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) if millis > 0 => format!("{millis}ms"),
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// The default configuration as its program writes it: every key there is, off or empty or at its default.
fn default_configuration(list: &Value) -> Value {
    let mut root = Map::new();
    let mut tables: Vec<&str> = vec![""];
    for line in KNOWN.lines().filter(|line| !line.starts_with('#')) {
        if let Some(heads) = line.strip_prefix('@') {
            tables = heads.split_whitespace().collect();
            if tables.is_empty() {
                tables.push("");
            }
            continue;
        }
        let mut words = line.split(' ');
        let (name, kind) = (words.next().expect("a key"), words.next().expect("a kind"));
        let default = words.next().unwrap_or_default();
        let value = match kind {
            "boolean" => json!(default == "true"),
            "integer" => json!(default.parse::<i64>().unwrap_or(0)),
            "duration" => json!(go_time(default)),
            "list" if default.is_empty() => list.clone(),
            "list" => json!([default]),
            "map" => json!({}),
            _ => json!(default),
        };
        for table in &tables {
            let path = if table.is_empty() {
                name.to_owned()
            } else {
                format!("{table}.{name}")
            };
            let (path, value) = match path.split_once("[]") {
                Some((list, _)) => (list.to_owned(), json!([])),
                None => (path, value.clone()),
            };
            let mut at = &mut root;
            let mut parts: Vec<&str> = path.split('.').collect();
            let leaf = parts.pop().expect("a name");
            for part in parts {
                let inner = at.entry(part).or_insert_with(|| json!({}));
                at = inner.as_object_mut().expect("a table");
            }
            at.insert(leaf.to_owned(), value);
        }
    }
    Value::Object(root)
}

fn yaml(value: &Value, depth: usize, out: &mut String) {
    let Value::Object(fields) = value else {
        panic!("a table");
    };
    for (name, value) in fields {
        let indent = "    ".repeat(depth);
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                writeln!(out, "{indent}{name}:").expect("text");
                yaml(value, depth + 1, out);
            }
            Value::Array(members) if !members.is_empty() => {
                writeln!(out, "{indent}{name}:").expect("text");
                for member in members {
                    writeln!(out, "{indent}    - {}", member.as_str().expect("a text"))
                        .expect("text");
                }
            }
            Value::String(text)
                if !text.is_empty() && !text.contains(['#', '$', '{', ',']) && text != ":" =>
            {
                writeln!(out, "{indent}{name}: {text}").expect("text");
            }
            value => writeln!(out, "{indent}{name}: {value}").expect("text"),
        }
    }
}

/// Checks that the import of a default configuration says next to nothing.
fn says_nothing(name: &str, text: &str) -> Config {
    let imported = import(&Input {
        name,
        bytes: text.as_bytes(),
        format: Format::of_name(name),
        ..Input::default()
    })
    .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(imported.version, Version::Six);
    assert!(imported.entries.len() > 700, "{}", imported.entries.len());
    assert!(imported.is_whole(), "{}", imported.report(false));
    let report = imported.report(false);
    assert!(report.lines().count() < 25, "{report}");
    let named = imported.report(true);
    assert!(
        named.contains("  engine.redis.prefix: off, empty, or the default"),
        "{named}"
    );
    assert!(imported.toml.lines().count() < 25, "{}", imported.toml);
    load(&imported.toml)
}

#[test]
fn whole_default_configuration_says_nothing_in_any_format() {
    let of_json = default_configuration(&Value::Null);
    let text = serde_json::to_string_pretty(&of_json).expect("JSON");
    let from_json = says_nothing("config.json", &text);
    let of_others = default_configuration(&json!([]));
    let mut text = String::new();
    yaml(&of_others, 0, &mut text);
    let from_yaml = says_nothing("config.yaml", &text);
    let table: toml::Table = serde_json::from_value(of_others).expect("a table");
    let from_toml = says_nothing("config.toml", &table.to_string());
    assert_eq!(from_json, from_yaml);
    assert_eq!(from_json, from_toml);
    let nothing = import(&Input {
        name: "empty.json",
        bytes: b"{}",
        ..Input::default()
    });
    assert_eq!(from_json, load(&nothing.expect("nothing").toml));
}

fn of_variables(variables: &[(&str, &str)], arguments: &str) -> Imported {
    let variables: Vec<(String, String)> = variables
        .iter()
        .map(|&(name, text)| (format!("CENTRIFUGO_{name}"), text.to_owned()))
        .collect();
    import(&Input {
        variables: &variables,
        arguments,
        ..Input::default()
    })
    .unwrap_or_else(|error| panic!("{error}"))
}

const WITHOUT: [(&str, &str); 5] = [
    ("CHANNEL_WITHOUT_NAMESPACE_ALLOWED_DELTA_TYPES", "fossil"),
    ("CHANNEL_WITHOUT_NAMESPACE_DELTA_PUBLISH", "true"),
    ("CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE", "100"),
    ("CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL", "300s"),
    ("CHANNEL_WITHOUT_NAMESPACE_FORCE_RECOVERY", "true"),
];

#[test]
fn environment_of_a_compose_file_with_lists_of_names_comes_along() {
    let mut variables = vec![
        ("CLIENT_TOKEN_HMAC_SECRET_KEY", "secret"),
        ("LOG_LEVEL", "trace"),
        ("CLIENT_CONCURRENCY", "8"),
        ("CLIENT_SUBSCRIBE_TO_USER_PERSONAL_CHANNEL_ENABLED", "true"),
        ("CHANNEL_NAMESPACES", "short patched long-lived"),
        ("CHANNEL_NAMESPACES_SHORT_FORCE_RECOVERY", "true"),
        ("CHANNEL_NAMESPACES_SHORT_HISTORY_SIZE", "2"),
        ("CHANNEL_NAMESPACES_SHORT_HISTORY_TTL", "300s"),
        ("CHANNEL_NAMESPACES_PATCHED_ALLOWED_DELTA_TYPES", "fossil"),
        (
            "CHANNEL_NAMESPACES_PATCHED_ALLOW_SUBSCRIBE_FOR_CLIENT",
            "true",
        ),
        ("CHANNEL_NAMESPACES_LONG_LIVED_PRESENCE", "true"),
        ("RPC_NAMESPACES", "math"),
        ("RPC_NAMESPACES_MATH_PROXY_ENABLED", "true"),
        ("RPC_NAMESPACES_MATH_PROXY_NAME", "sums"),
        ("PROXIES", "sums"),
        ("PROXIES_SUMS_ENDPOINT", "http://127.0.0.1:3000/sums"),
        ("PROXIES_SUMS_HTTP_STATIC_HEADERS", r#"{"X-Key":"k"}"#),
        (
            "PROXIES_SUMS_HTTP_STATUS_TO_CODE_TRANSFORMS",
            r#"[{"status_code":404,"to_error":{"code":404}}]"#,
        ),
        ("CONSUMERS", "outbox"),
        ("CONSUMERS_OUTBOX_TYPE", "postgresql"),
        ("CONSUMERS_OUTBOX_ENABLED", "true"),
    ];
    variables.extend(WITHOUT);
    let imported = of_variables(&variables, "");
    let config = load(&imported.toml);
    assert_eq!(imported.version, Version::Six);
    let short = config.channels.resolve("short:1").expect("the namespace");
    assert!(short.force_recovery && short.history_size == 2);
    assert!(
        config
            .channels
            .resolve("patched:1")
            .expect("the namespace")
            .allow_subscribe_for_client
    );
    assert!(
        config
            .channels
            .resolve("long-lived:1")
            .expect("the namespace")
            .presence
    );
    assert!(config.channels.without_namespace.fossil());
    let target = &config.hooks.named[0];
    assert_eq!((target.name.as_str(), target.transforms.len()), ("sums", 1));
    assert_eq!(config.hooks.methods.namespaces[0].proxy_name, "sums");
    let report = imported.report(false);
    assert!(
        report.contains("consumers[outbox].type (CENTRIFUGO_CONSUMERS_OUTBOX_TYPE), a string"),
        "{report}"
    );
    assert!(!report.contains("secret"), "{report}");
}

#[test]
fn environment_and_options_of_a_compose_file_come_along() {
    let imported = of_variables(&WITHOUT, "centrifugo --client.insecure");
    let config = load(&imported.toml);
    assert!(config.client.insecure && config.channels.without_namespace.force_recovery);
    assert!(imported.is_whole(), "{}", imported.report(false));
    let streams = of_variables(
        &[
            ("CLIENT_INSECURE", "true"),
            ("HTTP_STREAM_ENABLED", "true"),
            ("SSE_ENABLED", "true"),
            ("HTTP_API_INSECURE", "true"),
            ("CHANNEL_WITHOUT_NAMESPACE_PRESENCE", "true"),
            ("CLIENT_CONCURRENCY", "8"),
            ("LOG_LEVEL", "trace"),
        ],
        "centrifugo",
    );
    let config = load(&streams.toml);
    assert!(config.http_stream.enabled && config.sse.enabled && config.http_api.insecure);
    assert!(streams.is_whole(), "{}", streams.report(false));
    let over = of_variables(&[("HTTP_SERVER_PORT", "7000")], "--http_server.port=9000");
    assert!(
        over.toml.contains("0.0.0.0:9000"),
        "options go over variables: {}",
        over.toml
    );
}

#[test]
fn names_stand_behind_the_members_of_the_file_and_numbers_are_not_read() {
    let variables: Vec<(String, String)> = [
        ("CENTRIFUGO_CHANNEL_NAMESPACES", "news chat"),
        ("CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_PRESENCE", "true"),
        ("CENTRIFUGO_CHANNEL_NAMESPACES_1_PRESENCE", "true"),
        ("CENTRIFUGO_CHANNEL_NAMESPACE_NEWS_PRESENCE", "true"),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .to_vec();
    let imported = import(&Input {
        name: "c.json",
        bytes: br#"{"channel": {"namespaces": [{"name": "chat", "history_size": 5, "history_ttl": "5s"}]}}"#,
        variables: &variables,
        ..Input::default()
    })
    .expect("a configuration");
    let config = load(&imported.toml);
    let chat = config.channels.resolve("chat:1").expect("the namespace");
    assert!(chat.presence && chat.history_size == 5);
    assert!(
        !config
            .channels
            .resolve("news:1")
            .expect("the namespace")
            .presence
    );
    let report = imported.report(false);
    assert!(
        report.contains(
            "did you mean CENTRIFUGO_CHANNEL_NAMESPACES_NEWS_PRESENCE, as members go by name?"
        ),
        "{report}"
    );
    assert!(!imported.is_whole());
}

#[test]
fn members_are_named_and_stand_in_the_order_of_their_numbers() {
    let members: Vec<Value> = (0..12)
        .map(|index| json!({ "name": format!("ns-{index}"), "subscribe_cel": "x" }))
        .collect();
    let bytes = json!({ "channel": { "namespaces": members } }).to_string();
    let imported = import(&Input {
        name: "c.json",
        bytes: bytes.as_bytes(),
        ..Input::default()
    })
    .expect("a configuration");
    let report = imported.report(false);
    let named: Vec<&str> = report
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("channel.namespaces[")?
                .split(']')
                .next()
        })
        .collect();
    let expected: Vec<String> = (0..12).map(|index| format!("ns-{index}")).collect();
    assert_eq!(named, expected, "{report}");
}

#[test]
fn what_moves_to_another_address_is_said() {
    let of = |value: Value| {
        let bytes = value.to_string();
        import(&Input {
            name: "c.json",
            bytes: bytes.as_bytes(),
            ..Input::default()
        })
        .expect("a configuration")
    };
    let one = of(
        json!({ "health": { "enabled": true, "handler_prefix": "/ping" }, "prometheus": { "enabled": true } }),
    );
    let config = load(&one.toml);
    assert!(config.health.enabled && config.health.handler_prefix == "/ping");
    assert!(matches!(fate(&one, "prometheus.enabled"), Fate::Moved(_)));
    let report = one.report(false);
    assert!(
        report.contains("prometheus.enabled: metrics are at /metrics of admin.listen"),
        "{report}"
    );
    let two = of(json!({
        "http_server": { "port": 8001, "internal_port": "9001" },
        "health": { "enabled": true }, "prometheus": { "enabled": true }, "http_api": { "external": true },
    }));
    let config = load(&two.toml);
    assert!(!config.health.enabled && config.http_api.external);
    assert_eq!(config.server.internal_listen.len(), 2, "{}", two.toml);
    assert!(
        !format!("{:?}", config.admin.listen).contains("8001"),
        "{}",
        two.toml
    );
    assert!(two.is_whole(), "{}", two.report(false));
    let same = of(json!({ "http_server": { "port": 8000, "internal_port": "8000" } }));
    assert!(
        load(&same.toml).server.internal_listen.is_empty(),
        "{}",
        same.toml
    );
}

#[test]
fn keys_of_the_commercial_edition_are_named_as_such() {
    let bytes = json!({
        "client": { "write_delay": "1ms", "max_messages_in_frame": 4, "reply_without_queue": false },
        "sentry": { "enabled": true, "dsn": "s3cret" },
        "cache": { "enabled": false },
    })
    .to_string();
    let imported = import(&Input {
        name: "c.json",
        bytes: bytes.as_bytes(),
        ..Input::default()
    })
    .expect("a configuration");
    for path in [
        "client.write_delay",
        "client.max_messages_in_frame",
        "sentry.dsn",
    ] {
        assert!(
            matches!(fate(&imported, path), Fate::Lost(reason) if reason.why.contains("PRO")),
            "{path}"
        );
    }
    for path in ["client.reply_without_queue", "cache.enabled"] {
        assert_eq!(*fate(&imported, path), Fate::Default, "{path}");
    }
}

#[test]
fn headers_that_ringmain_sets_are_taken_out_of_the_static_ones() {
    let bytes = json!({
        "client": { "proxy": { "connect": {
            "enabled": true, "endpoint": "http://127.0.0.1:1/",
            "http": { "static_headers": { "Content-Type": "x", "X-Key": "s3cret" } },
        } } },
    })
    .to_string();
    let imported = import(&Input {
        name: "c.json",
        bytes: bytes.as_bytes(),
        ..Input::default()
    })
    .expect("a configuration");
    let connect = load(&imported.toml).hooks.connect.clone();
    assert_eq!(connect.static_headers.len(), 1);
    let found = fate(&imported, "client.proxy.connect.http.static_headers");
    assert!(matches!(found, Fate::Partly { .. }), "{found:?}");
}

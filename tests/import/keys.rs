//! Which keys come along, in which form, and that each one is accounted for.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ringmain::config::{Config, Source};
use ringmain::import::{Entry, Fate, Format, ImportError, Imported, Input, import};
use serde_json::{Map, Value, json};

const VECTORS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/vectors/centrifugo-config"
);
/// Nothing of these may be in a report.
const SECRETS: &[&str] = &[
    "token-secret-of-the-tests",
    "api-key-of-the-tests",
    "the-secret-before",
    "a-secret-for-the-backend",
    "another-secret",
    "password",
    "license-key",
    "grpc-key",
    "admin-secret",
];

pub(crate) fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{VECTORS}/{name}")).expect("a vector")
}

fn of_file(name: &str) -> Imported {
    import(&Input {
        name,
        bytes: &vector(name),
        format: Format::of_name(name),
        ..Input::default()
    })
    .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn of_json(value: &Value) -> Result<Imported, ImportError> {
    import(&Input {
        name: "centrifugo.json",
        bytes: value.to_string().as_bytes(),
        format: Some(Format::Json),
        ..Input::default()
    })
}

fn with_environment(value: &Value, variables: &[(&str, &str)]) -> Result<Imported, ImportError> {
    let variables: Vec<(String, String)> = variables
        .iter()
        .map(|&(name, text)| (name.to_owned(), text.to_owned()))
        .collect();
    import(&Input {
        name: "centrifugo.json",
        bytes: value.to_string().as_bytes(),
        format: Some(Format::Json),
        variables: &variables,
        ..Input::default()
    })
}

pub(crate) fn load(toml: &str) -> Config {
    let source = Source {
        name: "output",
        text: toml,
    };
    Config::load(&[source], &[]).expect("our loader accepts the output")
}

pub(crate) fn fate<'a>(imported: &'a Imported, path: &str) -> &'a Fate {
    let found = imported.entries.iter().find(|entry| entry.path == path);
    &found
        .unwrap_or_else(|| panic!("{path} is accounted for"))
        .fate
}

/// The keys of a file that stand for themselves, counted without the importer.
pub(crate) fn leaves(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, name: &str, found: &mut BTreeSet<String>) {
        // Free names, which only count as such where Centrifugo has hooks.
        let is_hook = path.contains(".proxy.") || path.starts_with("proxies[");
        let depth = path.matches('.').count();
        let is_map = name == "static_headers"
            && path.ends_with("].http.static_headers") == (depth == 2)
            && is_hook;
        match value {
            Value::Object(fields) if !is_map && (!fields.is_empty() || path.is_empty()) => {
                for (name, value) in fields {
                    let name = name.to_lowercase();
                    let dot = if path.is_empty() { "" } else { "." };
                    walk(value, &format!("{path}{dot}{name}"), &name, found);
                }
            }
            Value::Array(members)
                if !is_map && !members.is_empty() && members.iter().all(Value::is_object) =>
            {
                for (index, member) in members.iter().enumerate() {
                    walk(member, &format!("{path}[{index}]"), "", found);
                }
            }
            _ => {
                found.insert(path.to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(value, "", "", &mut found);
    found
}

pub(crate) fn paths(entries: &[Entry]) -> BTreeSet<String> {
    entries.iter().map(|entry| entry.path.clone()).collect()
}

fn check_vector(name: &str, as_json: &Value) {
    let imported = of_file(name);
    let stem = name.split('.').next().expect("a name");
    for (kind, text) in [
        ("expected.toml", imported.toml.clone()),
        ("expected.txt", imported.report(false)),
    ] {
        let path = format!("{VECTORS}/{stem}.{kind}");
        if std::env::var_os("RINGMAIN_WRITE_VECTORS").is_some() {
            std::fs::write(&path, &text).expect("the vector is written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, expected, "{path}");
    }
    load(&imported.toml);
    load(&imported.annotated());
    assert_eq!(paths(&imported.entries), leaves(as_json), "{name}");
    let report = format!("{}{:?}", imported.report(false), imported.entries);
    for secret in SECRETS {
        // Names of keys may say `password`, values may not.
        let shown = report.matches(secret).count();
        let as_key = report.matches(&format!(".{secret}")).count();
        assert_eq!(shown, as_key, "{name} shows {secret}");
    }
}

#[test]
fn small_chat_comes_along_whole() {
    let text = vector("small-chat.json");
    check_vector(
        "small-chat.json",
        &serde_json::from_slice(&text).expect("JSON"),
    );
    let imported = of_file("small-chat.json");
    assert!(imported.is_whole(), "{}", imported.report(false));
    let config = load(&imported.toml);
    assert_eq!(config.log.level, "debug", "the nearest to trace");
    assert_eq!(
        config.drain.window + config.drain.grace,
        std::time::Duration::from_secs(20)
    );
    let chat = config.channels.resolve("chat:1").expect("the namespace");
    assert!(chat.presence && chat.force_recovery && chat.history_size == 50);
}

#[test]
fn large_installation_comes_along_but_for_what_is_named() {
    let imported = of_file("large.yaml");
    let Imported { entries, .. } = &imported;
    let expected = leaves_of_large();
    check_vector("large.yaml", &expected);
    let lost: Vec<&str> = entries
        .iter()
        .filter(|entry| {
            !matches!(
                entry.fate,
                Fate::Carried(_) | Fate::Needless(_) | Fate::Default
            )
        })
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(lost, Vec::<&str>::new(), "the second listener too");
    let config = load(&imported.toml);
    let internal: Vec<String> = config
        .server
        .internal_listen
        .iter()
        .map(|at| format!("{at:?}"))
        .collect();
    assert!(
        internal.len() == 1 && internal[0].contains("127.0.0.1:9001"),
        "{internal:?}"
    );
    assert_eq!(
        config.client.pong_timeout,
        std::time::Duration::from_secs(5),
        "5e9 nanoseconds"
    );
    assert_eq!(config.client.user_connection_limit, 10);
    assert!(
        config.hooks.connect_enabled && config.hooks.refresh_enabled,
        "a merge key"
    );
    assert_eq!(config.hooks.refresh.static_headers.len(), 1, "an alias");
    assert_eq!(
        config.hooks.named[0].static_headers.len(),
        1,
        "a list of pairs"
    );
}

/// The YAML as JSON, with anchors and merge keys written out: only keys count.
fn leaves_of_large() -> Value {
    let hook = json!({
        "enabled": 0, "endpoint": 0, "timeout": 0, "http_headers": 0,
        "http": { "static_headers": {}, "status_to_code_transforms": [
            { "status_code": 0, "to_disconnect": { "code": 0, "reason": 0 } },
            { "status_code": 0, "to_error": { "code": 0, "message": 0, "temporary": 0 } },
        ] },
    });
    json!({
        "http_server": { "address": 0, "port": 0, "internal_address": 0, "internal_port": 0 },
        "log": { "level": 0 },
        "client": {
            "token": {
                "hmac_secret_key": 0, "hmac_previous_secret_key": 0,
                "hmac_previous_secret_key_valid_until": 0, "audience": 0, "user_id_claim": 0,
            },
            "allowed_origins": 0, "ping_interval": 0, "pong_timeout": 0, "channel_limit": 0,
            "user_connection_limit": 0, "queue_max_size": 0, "presence_update_interval": 0,
            "concurrency": 0, "allow_anonymous_connect_without_token": 0,
            "connect_include_server_time": 0,
            "subscribe_to_user_personal_channel": { "enabled": 0, "personal_channel_namespace": 0 },
            "proxy": { "connect": hook, "refresh": hook },
        },
        "websocket": { "message_size_limit": 0, "write_timeout": 0, "use_write_buffer_pool": 0 },
        "http_stream": { "enabled": 0 },
        "sse": { "enabled": 0, "max_request_body_size": 0 },
        "uni_sse": { "enabled": 0, "connect_code_to_http_response": {
            "enabled": 0, "transforms": [{ "code": 0, "to": { "status_code": 0, "body": 0 } }],
        } },
        "http_api": { "key": 0, "error_mode": 0, "external": 0 },
        "prometheus": { "enabled": 0 },
        "health": { "enabled": 0, "handler_prefix": 0 },
        "admin": { "enabled": 0, "password": 0 },
        "usage_stats": { "disabled": 0 },
        "channel": {
            "max_length": 0, "history_meta_ttl": 0, "publication_data_format": 0,
            "proxy": { "subscribe": { "endpoint": 0, "http": hook["http"] } },
            "without_namespace": { "allow_user_limited_channels": 0 },
            "namespaces": [
                { "name": 0, "history_size": 0, "history_ttl": 0, "force_recovery": 0,
                  "allow_subscribe_for_client": 0, "allow_subscribe_for_anonymous": 0 },
                { "name": 0, "presence": 0, "subscribe_proxy_enabled": 0, "publish_proxy_enabled": 0,
                  "publish_proxy_name": 0, "history_size": 0, "history_ttl": 0, "history_meta_ttl": 0,
                  "allow_recovery": 0, "allow_positioning": 0 },
                { "name": 0, "allow_user_limited_channels": 0, "subscription_type": 0 },
            ],
        },
        "rpc": { "without_namespace": { "proxy_enabled": 0 }, "proxy": { "endpoint": 0 } },
        "proxies": [{ "name": 0, "endpoint": 0, "include_connection_meta": 0,
                      "http": { "static_headers": 0 } }],
        "shutdown": { "timeout": 0 },
    })
}

#[test]
fn cluster_is_told_what_it_loses_and_why() {
    let text = String::from_utf8(vector("cluster-pro.toml")).expect("text");
    let value: toml::Table = toml::from_str(&text).expect("TOML");
    check_vector(
        "cluster-pro.toml",
        &serde_json::to_value(value).expect("JSON"),
    );
    let imported = of_file("cluster-pro.toml");
    assert!(!imported.is_whole());
    for path in [
        "engine.type",
        "engine.redis.address",
        "consumers[0].postgresql.dsn",
        "http_server.tls.cert_pem",
        "push_notifications.queue",
        "clickhouse_analytics.enabled",
        "client.rate_limit.client_command.enabled",
        "grpc_api.key",
        "admin.password",
        "channel.namespaces[0].map.mode",
        "channel.namespaces[0].subscribe_cel",
        "channel.namespaces[1].pattern",
    ] {
        assert!(matches!(fate(&imported, path), Fate::Lost(_)), "{path}");
    }
    for path in [
        "broker.nats.url",
        "consumers[0].kafka.topics",
        "uni_grpc.port",
    ] {
        assert!(
            matches!(fate(&imported, path), Fate::Default),
            "{path} is switched off"
        );
    }
    assert_eq!(
        *fate(&imported, "client.chanel_limit"),
        Fate::Unknown(Some("client.channel_limit".to_owned()))
    );
    let config = load(&imported.toml);
    assert_eq!(config.client.ping_interval, None);
    assert_eq!(config.client.allowed_origins, ["*"]);
}

#[test]
fn nothing_said_gives_centrifugos_defaults_where_they_differ() {
    let config = load(&of_json(&json!({})).expect("an empty file").toml);
    let listen: Vec<String> = config
        .server
        .listen
        .iter()
        .map(|at| format!("{at:?}"))
        .collect();
    assert!(
        listen.len() == 2 && listen.iter().all(|at| at.contains("8000")),
        "{listen:?}"
    );
    assert_eq!(
        config.drain.window + config.drain.grace,
        std::time::Duration::from_secs(30)
    );
}

#[test]
fn refused_value_is_left_out_and_the_rest_comes_along() {
    for (mut value, key) in [
        (
            json!({ "client": { "channel_limit": 1_000_000 } }),
            "client.channel_limit",
        ),
        (
            json!({ "http_server": { "address": "edge.example.com" } }),
            "http_server.address",
        ),
        (
            json!({ "shutdown": { "timeout": "soon" } }),
            "shutdown.timeout",
        ),
        (json!({ "log": { "level": "loud" } }), "log.level"),
        (
            json!({ "channel": { "namespaces": [{ "name": "a b" }] } }),
            "channel.namespaces[0].name",
        ),
        (
            json!({ "channel": { "namespaces": [{ "name": "chat", "history_size": 1 }] } }),
            "channel.namespaces[0].history_size",
        ),
        (
            json!({ "client": { "proxy": { "connect": { "enabled": true, "endpoint": "grpc://127.0.0.1:1" } } } }),
            "client.proxy.connect.endpoint",
        ),
        (
            json!({ "client": { "token": { "jwks_public_endpoint": "https://id.example/{{realm}}/keys" } } }),
            "client.token.jwks_public_endpoint",
        ),
        (
            json!({ "client": { "token": { "hmac_secret_key": ["s3cret"] } } }),
            "client.token.hmac_secret_key",
        ),
        (
            json!({ "client": { "allowed_origins": ["https://s3cret.example/", "https://b.example"] } }),
            "client.allowed_origins",
        ),
        (
            json!({ "client": { "pong_timeout": "25s" } }),
            "client.pong_timeout",
        ),
        (
            json!({ "client": { "ping_interval": "5s" } }),
            "client.ping_interval",
        ),
    ] {
        value["http_api"] = json!({ "key": "api-key-of-the-tests" });
        let imported = of_json(&value).expect("the rest");
        assert!(
            matches!(fate(&imported, key), Fate::Refused(_)),
            "{key}: {:?}",
            fate(&imported, key)
        );
        let report = imported.report(false);
        assert!(
            report.starts_with("Refused by ringmain, and left out:\n"),
            "{report}"
        );
        assert!(!imported.is_whole());
        let config = load(&imported.toml);
        assert_eq!(config.http_api.key.0, "api-key-of-the-tests", "{key}");
        if key != "client.allowed_origins" {
            assert!(!report.contains("s3cret") && !imported.annotated().contains("s3cret"));
        }
    }
}

#[test]
fn origin_that_can_never_match_is_left_out_alone() {
    let imported = of_json(&json!({
        "client": { "allowed_origins": ["https://a.example/", "https://b.example", "https://[ab].example"] },
    }))
    .expect("the rest");
    let config = load(&imported.toml);
    assert_eq!(
        config.client.allowed_origins,
        ["https://b.example", "https://[ab].example"]
    );
    let found = fate(&imported, "client.allowed_origins");
    assert!(
        matches!(found, Fate::Refused(why) if why.contains("write \"https://a.example\"")),
        "{found:?}"
    );
}

#[test]
fn what_is_left_out_opens_nothing() {
    let imported = of_json(&json!({
        "client": {
            "allow_anonymous_connect_without_token": true,
            "token": { "hmac_secret_key": "s3cret", "audience_regex": "(" },
            "proxy": { "connect": { "enabled": true, "endpoint": "grpc://127.0.0.1:1" } },
        },
        "channel": {
            "proxy": { "subscribe": { "endpoint": "grpc://127.0.0.1:1" }, "publish": { "endpoint": "http://127.0.0.1:1" } },
            "namespaces": [
                { "name": "a b", "presence": true },
                { "name": "chat", "subscribe_proxy_enabled": true, "allow_subscribe_for_client": true,
                  "publish_proxy_enabled": true, "allow_publish_for_client": true },
                { "name": "news", "channel_regex": "(", "allow_subscribe_for_client": true },
            ],
        },
    }))
    .expect("the rest");
    let config = load(&imported.toml);
    assert!(!config.client.allow_anonymous_connect_without_token);
    assert_eq!(
        config.client.token.hmac_secret_key.0, "",
        "no token without the check of its audience"
    );
    let chat = config.channels.resolve("chat:1").expect("the namespace");
    assert!(!chat.subscribe_proxy_enabled && !chat.allow_subscribe_for_client);
    assert!(
        chat.publish_proxy_enabled && chat.allow_publish_for_client,
        "that hook is there"
    );
    let news = config.channels.resolve("news:1").expect("the namespace");
    assert!(!news.allow_subscribe_for_client);
    for key in [
        "channel.namespaces[0].presence",
        "channel.namespaces[1].allow_subscribe_for_client",
        "channel.namespaces[2].channel_regex",
        "client.allow_anonymous_connect_without_token",
        "client.token.hmac_secret_key",
    ] {
        assert!(matches!(fate(&imported, key), Fate::Refused(_)), "{key}");
    }
    let report = imported.report(false);
    assert!(
        report.contains("channel.namespaces[chat].allow_subscribe_for_client: it would open what"),
        "{report}"
    );
}

#[test]
fn values_take_every_form_that_centrifugo_takes() {
    let imported = of_json(&json!({
        "Client": {
            "Channel_Limit": "0x40", "stale_close_delay": 1_500_000_000, "insecure": "t",
            "allowed_origins": "https://example.com", "queue_max_size": 65536.0,
        },
        "client.token.issuer": 42,
        "http_api": { "disabled": true, "key": "s3cret" },
        "channel": { "max_length": 0, "private_prefix": "" },
    }))
    .expect("all of it is accepted");
    let config = load(&imported.toml);
    assert_eq!(config.client.channel_limit, 64);
    assert_eq!(
        config.client.stale_close_delay,
        std::time::Duration::from_millis(1500)
    );
    assert!(config.client.insecure);
    assert_eq!(config.client.allowed_origins, ["https://example.com"]);
    assert_eq!(config.client.queue_max_size, 65_536);
    assert_eq!(config.client.token.issuer, "42");
    assert_eq!(
        config.http_api.key.0, "",
        "a server API that is off opens with no key"
    );
    assert_eq!(config.channels.max_length, 255, "zero is unset there");
    assert_eq!(config.channels.private_prefix, "$", "so is an empty text");
    assert!(imported.is_whole(), "{}", imported.report(false));
}

#[test]
fn variables_of_the_environment_go_over_the_file() {
    let file = json!({
        "client": { "channel_limit": 10, "token": { "hmac_secret_key": "old" } },
        "channel": { "namespaces": [{ "name": "chat" }, { "name": "old-news" }] },
        "proxies": [{ "name": "a", "endpoint": "http://127.0.0.1:3000/" }],
    });
    let imported = with_environment(
        &file,
        &[
            ("CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY", "s3cret"),
            (
                "CENTRIFUGO_CLIENT_ALLOWED_ORIGINS",
                "https://a.example https://b.example",
            ),
            ("CENTRIFUGO_CLIENT_CHANNEL_LIMIT", ""),
            ("CENTRIFUGO_CHANNEL_NAMESPACES_OLD_NEWS_PRESENCE", "true"),
            (
                "CENTRIFUGO_PROXIES",
                r#"[{"name":"bb","endpoint":"http://127.0.0.1/"}]"#,
            ),
            (
                "CENTRIFUGO_PROXIES_BB_HTTP_STATIC_HEADERS",
                r#"{"X-Key":"Bearer ${CENTRIFUGO_VAR_KEY}"}"#,
            ),
            ("CENTRIFUGO_VAR_KEY", "t0ken"),
            ("CENTRIFUGO_PORT_8000_TCP_ADDR", "10.0.0.1"),
            ("CENTRIFUGO_CLIENT_CHANEL_LIMIT", "5"),
            ("OTHER", "x"),
        ],
    )
    .expect("all of it is accepted");
    let config = load(&imported.toml);
    assert_eq!(config.client.token.hmac_secret_key.0, "s3cret");
    assert_eq!(
        config.client.allowed_origins,
        ["https://a.example", "https://b.example"]
    );
    assert_eq!(
        config.client.channel_limit, 10,
        "an empty variable is unset"
    );
    assert!(
        config
            .channels
            .resolve("old-news:1")
            .expect("the namespace")
            .presence
    );
    let named: Vec<&str> = config
        .hooks
        .named
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(named, ["bb"], "a list is replaced as a whole");
    assert_eq!(config.hooks.named[0].static_headers[0].1.0, "Bearer t0ken");
    let report = imported.report(false);
    assert!(
        report.contains("CENTRIFUGO_CLIENT_CHANEL_LIMIT"),
        "{report}"
    );
    for hidden in ["s3cret", "t0ken", "10.0.0.1", "OTHER"] {
        assert!(!report.contains(hidden), "{report}");
    }
    let imported =
        with_environment(&file, &[("CENTRIFUGO_PROXIES", "[s3cret]")]).expect("the rest");
    let report = imported.report(false);
    assert!(
        report.contains("CENTRIFUGO_PROXIES: not JSON") && !report.contains("s3cret"),
        "{report}"
    );
    let unset = [(
        "CENTRIFUGO_PROXIES_A_HTTP_STATIC_HEADERS",
        r#"{"X-Key":"${CENTRIFUGO_VAR_NONE}"}"#,
    )];
    let imported = with_environment(&file, &unset).expect("the rest");
    let found = fate(&imported, "proxies[0].http.static_headers");
    assert!(
        matches!(found, Fate::Refused(why) if why.contains("CENTRIFUGO_VAR_NONE")),
        "{found:?}"
    );
}

/// Known tables and keys, and others, in every nesting.
fn trees() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "client",
        "channel",
        "namespaces",
        "proxies",
        "engine",
        "redis",
        "type",
        "enabled",
        "admin",
        "token",
        "name",
        "presence",
        "http_api",
        "key",
        "timeout",
        "shutdown",
        "log",
        "level",
        "http_server",
        "port",
        "address",
        "http",
        "static_headers",
        "rpc",
        "whatever",
        "tls",
        "consumers",
        "Client",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        "[a-z0-9.:/\\[\\]\\n\"]{0,12}".prop_map(|text| json!(text)),
        Just(json!([])),
        Just(json!({})),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|fields| {
                // Two spellings of one key would be refused.
                let mut seen = BTreeSet::new();
                let fields: Map<String, Value> = fields
                    .into_iter()
                    .filter(|(name, _)| seen.insert(name.to_lowercase()))
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect();
                Value::Object(fields)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn every_key_of_any_file_is_accounted_for_once(tree in trees()) {
        prop_assume!(tree.is_object());
        let entries = match of_json(&tree) {
            Ok(imported) => {
                load(&imported.toml);
                imported.entries
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        prop_assert_eq!(entries.len(), paths(&entries).len(), "once");
        prop_assert_eq!(paths(&entries), leaves(&tree));
    }
}

/// What such trees once showed.
#[test]
fn what_has_no_place_beside_old_keys_is_accounted_for_key_by_key() {
    for tree in [
        json!({ "http_server": [{}], "port": null }),
        json!({ "http_server": [{ "a": 1 }, { "b": { "c": 2 } }], "port": 1 }),
    ] {
        let imported = of_json(&tree).expect("it is read");
        assert_eq!(paths(&imported.entries), leaves(&tree), "{tree}");
    }
}

//! Configurations of Centrifugo 3 to 5: which version it is, and every old name at its place of today.

use std::collections::BTreeSet;
use std::time::Duration;

use ringmain::import::{Fate, Imported, Input, Version, import};
use serde_json::{Value, json};

use crate::keys::{fate, leaves, load, paths};

fn of(value: &Value) -> Imported {
    let bytes = value.to_string();
    import(&Input {
        name: "config.json",
        bytes: bytes.as_bytes(),
        ..Input::default()
    })
    .unwrap_or_else(|error| panic!("{error}"))
}

/// Every key of the input is accounted for once, by its own name.
fn is_accounted_for(imported: &Imported, value: &Value) {
    let found: Vec<&str> = imported
        .entries
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    let once: BTreeSet<&str> = found.iter().copied().collect();
    assert_eq!(found.len(), once.len(), "{found:?}");
    // Headers have free names: they are one key.
    let of_input = leaves(value).into_iter().map(|path| {
        let headers = path.find("static_http_headers.");
        let end = headers.map_or(path.len(), |at| at + "static_http_headers".len());
        path[..end].to_owned()
    });
    assert_eq!(paths(&imported.entries), of_input.collect());
}

#[test]
fn flat_names_of_version_5_come_along() {
    let text = r#"{
        "token_hmac_secret_key": "token-secret-of-the-tests",
        "token_audience": "edge",
        "api_key": "api-key-of-the-tests",
        "admin": true,
        "admin_password": "x",
        "port": "9000",
        "internal_port": "9001",
        "health": true,
        "prometheus": true,
        "log_level": "debug",
        "allowed_origins": ["https://example.com"],
        "client_channel_limit": 300,
        "ping_interval": "20s",
        "global_history_meta_ttl": "48h",
        "presence": true,
        "allow_subscribe_for_client": true,
        "proxy_subscribe": true,
        "user_subscribe_to_personal": true,
        "user_personal_channel_namespace": "user",
        "uni_sse": true,
        "http_stream": false,
        "websocket_compression": true,
        "websocket_disable": false,
        "engine": "redis",
        "redis_address": ["redis://r:1"],
        "redis_tls": true,
        "redis_tls_cert": "/c.pem",
        "sockjs": true,
        "sockjs_url": "https://cdn.example/s.js",
        "tls": true,
        "tls_key": "/k.pem",
        "proxy_connect_endpoint": "http://127.0.0.1:3000/connect",
        "proxy_connect_timeout": "2s",
        "proxy_subscribe_endpoint": "http://127.0.0.1:3000/subscribe",
        "proxy_rpc_endpoint": "http://127.0.0.1:3000/rpc",
        "proxy_http_headers": ["Cookie"],
        "proxy_static_http_headers": { "X-Key": "k" },
        "proxy_include_connection_meta": true,
        "client_connect_code_to_unidirectional_disconnect": {
            "enabled": true, "transforms": [{ "code": 109, "to": { "code": 4001, "reason": "renew" } }]
        },
        "shutdown_timeout": "20s",
        "namespaces": [
            { "name": "user" },
            { "name": "chat", "history_size": 10, "history_ttl": "60s", "force_recovery": true,
              "force_recovery_mode": "cache", "proxy_publish": false }
        ],
        "rpc_namespaces": [{ "name": "math" }],
        "channel_patterns": true,
        "nonsense": 1
    }"#;
    let value: Value = serde_json::from_str(text).expect("JSON");
    let imported = of(&value);
    assert_eq!(imported.version, Version::Five);
    let config = load(&imported.toml);
    assert_eq!(
        config.client.token.hmac_secret_key.0,
        "token-secret-of-the-tests"
    );
    assert_eq!(config.client.token.audience, "edge");
    assert_eq!(config.http_api.key.0, "api-key-of-the-tests");
    assert_eq!(config.server.internal_listen.len(), 2);
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.client.channel_limit, 300);
    assert_eq!(config.client.ping_interval, Some(Duration::from_secs(20)));
    assert_eq!(config.client.user_personal_channel.as_deref(), Some("user"));
    let without = &config.channels.without_namespace;
    assert!(
        without.presence && without.allow_subscribe_for_client && without.subscribe_proxy_enabled
    );
    assert_eq!(without.history_meta_ttl, Duration::from_hours(48));
    assert!(config.uni_sse.enabled && config.websocket.compression && !config.websocket.disabled);
    let connect = config
        .connect_hook(ringmain::model::TenantId::NONE)
        .expect("it is on");
    assert_eq!(
        (
            connect.timeout,
            connect.http_headers.len(),
            connect.static_headers.len()
        ),
        (Duration::from_secs(2), 1, 1)
    );
    assert!(config.hooks.subscribe.include_connection_meta && config.hooks.rpc.is_set());
    assert!(
        config.hooks.methods.without_namespace.proxy_enabled
            && config.hooks.methods.namespaces[0].proxy_enabled
    );
    assert!(
        config
            .client
            .connect_code_to_unidirectional_disconnect
            .of(109)
            .is_some()
    );
    assert_eq!(
        config.drain.window + config.drain.grace,
        Duration::from_secs(20)
    );
    let chat = config.channels.resolve("chat:1").expect("the namespace");
    assert!(chat.force_recovery && chat.history_size == 10);
    is_accounted_for(&imported, &value);
    for path in [
        "redis_address",
        "redis_tls_cert",
        "engine",
        "sockjs",
        "sockjs_url",
        "tls_key",
        "admin_password",
        "channel_patterns",
    ] {
        assert!(
            matches!(fate(&imported, path), Fate::Lost(_)),
            "{path}: {:?}",
            fate(&imported, path)
        );
    }
    assert_eq!(*fate(&imported, "nonsense"), Fate::Unknown(None));
    let report = imported.report(false);
    assert!(
        report.starts_with("Read as a configuration of Centrifugo 5;"),
        "{report}"
    );
    assert!(
        imported
            .toml
            .starts_with("# Made from config.json, of Centrifugo 5 by"),
        "{}",
        imported.toml
    );
    assert!(!report.contains("of-the-tests"), "{report}");
}

#[test]
fn hooks_by_name_come_along_in_granular_mode() {
    let value = json!({
        "granular_proxy_mode": true,
        "connect_proxy_name": "login",
        "rpc_proxy_name": "calls",
        "subscribe_proxy_name": "",
        "proxies": [
            { "name": "login", "endpoint": "http://127.0.0.1:1/login", "static_http_headers": { "X-Key": "k" }, "timeout": "3s" },
            { "name": "calls", "endpoint": "http://127.0.0.1:1/calls", "http_headers": ["Cookie"] },
        ],
        "namespaces": [{ "name": "chat", "publish_proxy_name": "calls" }],
        "rpc_namespaces": [{ "name": "math", "rpc_proxy_name": "calls" }],
    });
    let imported = of(&value);
    assert_eq!(imported.version, Version::FourOrFive);
    let config = load(&imported.toml);
    let connect = config
        .connect_hook(ringmain::model::TenantId::NONE)
        .expect("it is on");
    assert_eq!(connect.endpoint, "http://127.0.0.1:1/login");
    assert_eq!(
        (connect.static_headers.len(), connect.timeout),
        (1, Duration::from_secs(3))
    );
    let chat = config.channels.resolve("chat:1").expect("the namespace");
    assert!(chat.publish_proxy_enabled && chat.publish_proxy_name == "calls");
    let methods = &config.hooks.methods;
    assert!(methods.namespaces[0].proxy_enabled && methods.namespaces[0].proxy_name == "calls");
    assert!(
        methods.without_namespace.proxy_enabled && methods.without_namespace.proxy_name == "calls"
    );
    is_accounted_for(&imported, &value);
    assert!(imported.is_whole(), "{}", imported.report(false));
}

#[test]
fn permissions_of_version_3_become_those_of_today() {
    let value = json!({
        "token_hmac_secret_key": "k",
        "client_anonymous": true,
        "publish": true,
        "namespaces": [
            { "name": "open", "publish": true, "presence": true, "join_leave": true, "recover": true,
              "history_size": 10, "history_ttl": "60s" },
            { "name": "shut", "protected": true, "presence": true, "presence_disabled_for_client": true,
              "publish": true, "subscribe_to_publish": true, "anonymous": true,
              "history_size": 10, "history_ttl": "60s", "history_disabled_for_client": true },
        ],
    });
    let imported = of(&value);
    assert_eq!(imported.version, Version::Three);
    let config = load(&imported.toml);
    assert!(config.client.allow_anonymous_connect_without_token);
    let without = &config.channels.without_namespace;
    assert!(without.allow_subscribe_for_client && without.allow_publish_for_client);
    let open = config.channels.resolve("open:1").expect("the namespace");
    assert!(
        open.allow_subscribe_for_client
            && open.allow_publish_for_client
            && open.allow_publish_for_anonymous
    );
    assert!(
        open.allow_presence_for_subscriber
            && open.allow_history_for_subscriber
            && open.force_push_join_leave
    );
    assert!(open.force_recovery && !open.allow_subscribe_for_anonymous);
    let shut = config.channels.resolve("shut:1").expect("the namespace");
    assert!(
        !shut.allow_subscribe_for_client
            && !shut.allow_subscribe_for_anonymous
            && !shut.allow_publish_for_client
    );
    assert!(
        shut.allow_publish_for_subscriber
            && !shut.allow_presence_for_subscriber
            && !shut.allow_history_for_subscriber
    );
    is_accounted_for(&imported, &value);
    assert!(
        imported
            .toml
            .contains("# version 3 allows it without being told"),
        "{}",
        imported.toml
    );
}

#[test]
fn variables_and_options_of_older_versions_come_along() {
    let variables: Vec<(String, String)> = [
        ("CENTRIFUGO_TOKEN_HMAC_SECRET_KEY", "s3cret"),
        ("CENTRIFUGO_API_KEY", "k3y"),
        (
            "CENTRIFUGO_ALLOWED_ORIGINS",
            "https://a.example https://b.example",
        ),
        (
            "CENTRIFUGO_NAMESPACES",
            r#"[{"name": "chat", "presence": true}]"#,
        ),
        ("CENTRIFUGO_PORT", "9000"),
        ("CENTRIFUGO_HEALTH", "true"),
        ("CENTRIFUGO_CLIENT_CHANNEL_LIMIT", "77"),
        ("CENTRIFUGO_SERVICE_HOST", "10.0.0.1"),
        ("CENTRIFUGO_NONSENSE", "1"),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .to_vec();
    let imported = import(&Input {
        variables: &variables,
        arguments: "centrifugo --uni_sse --log_level=debug",
        ..Input::default()
    })
    .expect("a configuration");
    assert_eq!(imported.version, Version::FourOrFive);
    let config = load(&imported.toml);
    assert_eq!(config.client.token.hmac_secret_key.0, "s3cret");
    assert_eq!(
        config.client.allowed_origins,
        ["https://a.example", "https://b.example"]
    );
    assert!(
        config
            .channels
            .resolve("chat:1")
            .expect("the namespace")
            .presence
    );
    assert!(config.health.enabled && config.uni_sse.enabled);
    assert_eq!(
        (config.client.channel_limit, config.log.level.as_str()),
        (77, "debug")
    );
    let unknown: Vec<&str> = imported
        .entries
        .iter()
        .filter(|entry| matches!(entry.fate, Fate::Unknown(_)))
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(unknown, ["CENTRIFUGO_NONSENSE"]);
}

#[test]
fn old_name_in_a_file_of_version_6_is_told_its_name_of_today() {
    let imported = of(&json!({
        "client": { "channel_limit": 5 }, "port": 9000, "api_key": "k", "token_hmac_secret_key": "k", "presence": true,
    }));
    assert_eq!(imported.version, Version::Six);
    for (old, today) in [
        ("port", "http_server.port"),
        ("api_key", "http_api.key"),
        ("token_hmac_secret_key", "client.token.hmac_secret_key"),
        ("presence", "channel.without_namespace.presence"),
    ] {
        assert_eq!(*fate(&imported, old), Fate::Unknown(Some(today.to_owned())));
    }
    assert_eq!(
        load(&imported.toml).http_api.key.0,
        "",
        "version 6 does not read it"
    );
}

#[test]
fn version_can_be_said() {
    let bytes =
        json!({ "token_hmac_secret_key": "k", "namespaces": [{ "name": "chat" }] }).to_string();
    let read = |version| {
        let imported = import(&Input {
            name: "config.json",
            bytes: bytes.as_bytes(),
            version,
            ..Input::default()
        });
        let config = load(&imported.expect("a configuration").toml);
        config
            .channels
            .resolve("chat:1")
            .expect("the namespace")
            .allow_subscribe_for_client
    };
    assert!(
        !read(None),
        "closed, where nothing tells that it is version 3"
    );
    assert!(read(Version::of_number(3)));
    assert!(!read(Version::of_number(5)));
}

#[test]
fn channels_without_a_namespace_that_version_3_has_unsaid_stay_open() {
    let imported = of(&json!({ "token_hmac_secret_key": "k", "client_anonymous": true }));
    assert_eq!(imported.version, Version::Three);
    let config = load(&imported.toml);
    let without = &config.channels.without_namespace;
    assert!(without.allow_subscribe_for_client && without.allow_user_limited_channels);
    assert!(!without.allow_subscribe_for_anonymous && !without.allow_publish_for_client);
}

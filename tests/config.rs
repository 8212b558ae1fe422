//! The configuration as an operator meets it: text in, a checked configuration or errors that say what to do, out.

#[path = "config/access.rs"]
mod access;
#[path = "config/environment.rs"]
mod environment;
#[path = "config/joins.rs"]
mod joins;
#[path = "config/pushes.rs"]
mod pushes;
#[path = "config/reach.rs"]
mod reach;
#[path = "config/sources.rs"]
mod sources;

use std::time::Duration;

use proptest::prelude::*;
use ringmain::config::namespace::{DataFormat, OPTIONS, SlowConsumer};
use ringmain::config::{
    Config, ConfigError, ConfigErrors, ListenAddr, LogFormat, ReactorChoice, Secret, Setting,
    Source, Token, TrustedProxy, UserLimitPolicy, ValueOrigin,
};

const EXAMPLE: &str = include_str!("../tuning/ringmain.example.toml");

const EVERY_SECTION: &str = r#"
[server]
listen = ["[::]:9000", "unix:/run/ringmain.sock"]
shards = 4
reactor = "portable"
cores = [2, 3]
backlog = 1024
connections_per_shard_max = 1000
handshake_timeout = "5s"
http_idle_timeout = "1m30s"
input_max_size = 1048576
[admin]
listen = ""
[client]
allowed_origins = ["https://*.Example.com"]
ping_interval = "0s"
[client.token]
hmac_secret_key = "k"
audience = "edge"
[client.subscription_token]
enabled = true
hmac_secret_key = "other"
[client.subscribe_to_user_personal_channel]
enabled = true
personal_channel_namespace = "user"
[http_api]
key = "api"
error_mode = "transport"
[channel]
max_length = 100
history_meta_ttl = "2h"
publication_data_format = "json"
[[channel.namespaces]]
name = "user"
[[channel.namespaces]]
name = "chat"
history_size = 10
history_ttl = "1m"
force_recovery = true
history_meta_ttl = "1h"
slow_consumer = "drop_oldest"
[drain]
window = "0s"
[log]
level = "debug"
format = "json"
"#;

fn load(text: &str) -> Result<Config, ConfigErrors> {
    Config::load(
        &[Source {
            name: "ringmain.toml",
            text,
        }],
        &[],
    )
}

/// The one error of a text.
fn error(text: &str) -> ConfigError {
    let mut errors = load(text).expect_err("a text with an error").0;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

fn line(line: usize) -> ValueOrigin {
    ValueOrigin::File {
        name: "ringmain.toml".to_owned(),
        line,
    }
}

/// A configuration with every secret that is set replaced by what `effective` shows.
fn masked(mut config: Config) -> Config {
    let mask = |secret: &mut Secret| {
        if !secret.0.is_empty() {
            "***".clone_into(&mut secret.0);
        }
    };
    let separate = config.client.subscription_token != config.client.token;
    mask(&mut config.http_api.key);
    mask(&mut config.client.token.hmac_secret_key);
    mask(&mut config.client.token.hmac_previous_secret_key);
    if separate {
        mask(&mut config.client.subscription_token.hmac_secret_key);
        mask(&mut config.client.subscription_token.hmac_previous_secret_key);
    } else {
        config.client.subscription_token = config.client.token.clone();
    }
    config
}

#[test]
fn nothing_written_gives_the_documented_defaults() {
    let config = load("").unwrap();
    assert_eq!(config, Config::built_in());
    assert_eq!(
        config.server.listen,
        [ListenAddr::Tcp("127.0.0.1:8000".parse().unwrap())]
    );
    assert_eq!(
        config.admin.listen,
        Some(ListenAddr::Tcp("127.0.0.1:8001".parse().unwrap()))
    );
    let client = &config.client;
    assert_eq!(client.ping_interval, Some(Duration::from_secs(25)));
    assert_eq!(client.pong_timeout, Duration::from_secs(8));
    assert_eq!(client.stale_close_delay, Duration::from_secs(10));
    assert_eq!(
        (client.expired_close_delay, client.expired_sub_close_delay),
        (Duration::from_secs(25), Duration::from_secs(25))
    );
    assert_eq!(
        (
            client.queue_max_size,
            client.channel_limit,
            client.user_connection_limit
        ),
        (1_048_576, 128, 0)
    );
    assert_eq!(
        (
            client.history_max_publication_limit,
            client.recovery_max_publication_limit
        ),
        (300, 300)
    );
    assert!(!client.insecure && !client.allow_anonymous_connect_without_token);
    assert_eq!(client.token, Token::default());
    assert_eq!(config.websocket.message_size_limit, 65_536);
    assert_eq!(config.channels.max_length, 255);
    assert_eq!(
        config.channels.without_namespace.history_meta_ttl,
        Duration::from_secs(720 * 3600)
    );
    assert_eq!(
        config.channels.without_namespace.idempotency_ttl,
        Duration::from_secs(300)
    );
    assert!(!config.http_api.insecure && config.http_api.key.0.is_empty());
}

#[test]
fn every_section_is_read() {
    let config = load(EVERY_SECTION).unwrap();
    assert_eq!(
        config.server.listen[1],
        ListenAddr::Unix("/run/ringmain.sock".into())
    );
    assert_eq!(
        (config.server.shards, config.server.reactor),
        (4, ReactorChoice::Portable)
    );
    assert_eq!(config.server.cores, [2, 3]);
    assert_eq!(config.server.http_idle_timeout, Duration::from_secs(90));
    assert_eq!(config.server.input_max_size, 1 << 20);
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.client.ping_interval, None);
    assert_eq!(config.client.subscription_token.hmac_secret_key.0, "other");
    assert_eq!(config.client.subscription_token.audience, "");
    assert_eq!(config.client.user_personal_channel.as_deref(), Some("user"));
    assert!(config.allows_origin(Some("https://a.example.com")));
    assert!(config.http_api.transport_errors);
    let names: Vec<&str> = config
        .channels
        .namespaces
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["chat", "user"],
        "sorted, because names are looked up by halving"
    );
    let chat = config.channels.resolve("chat:1").unwrap();
    assert_eq!(
        (chat.history_size, chat.history_ttl),
        (10, Duration::from_secs(60))
    );
    assert_eq!(chat.history_meta_ttl, Duration::from_secs(3600));
    assert_eq!(chat.slow_consumer, SlowConsumer::DropOldest);
    assert_eq!(chat.publication_data_format, DataFormat::Json);
    let user = config.channels.resolve("user:1").unwrap();
    assert_eq!(
        user.history_meta_ttl,
        Duration::from_secs(7200),
        "the default of [channel] reaches every namespace"
    );
    assert_eq!(
        config.channels.without_namespace.publication_data_format,
        DataFormat::Json
    );
    assert_eq!(
        (config.log.level.as_str(), config.log.format),
        ("debug", LogFormat::Json)
    );
}

#[test]
fn one_key_serves_both_kinds_of_token_unless_separated() {
    let config = load("[client.token]\nhmac_secret_key = \"k\"").unwrap();
    assert_eq!(config.client.subscription_token, config.client.token);
}

#[test]
fn unknown_key_is_refused_with_the_nearest_known_name() {
    let unknown = |text: &str| match error(text) {
        ConfigError::UnknownKey {
            origin,
            key,
            nearest,
        } => (origin, key, nearest),
        other => panic!("{other:?}"),
    };
    let (origin, key, nearest) = unknown("[client]\n\npong_timeuot = \"1s\"\n");
    assert_eq!(
        (origin, key.as_str(), nearest.as_deref()),
        (line(3), "client.pong_timeuot", Some("client.pong_timeout"))
    );
    assert_eq!(unknown("[serever]\n").2.as_deref(), Some("server"));
    assert_eq!(
        unknown("ping_interval = \"1s\"").2.as_deref(),
        Some("client.ping_interval"),
        "known in another table"
    );
    assert_eq!(unknown("[log]\nzzzzzz = 1").2, None);
    let (_, key, nearest) = unknown("[[channel.namespaces]]\nname = \"chat\"\nhistory_siz = 1");
    assert_eq!(key, "channel.namespaces[0].history_siz");
    assert_eq!(
        nearest.as_deref(),
        Some("channel.namespaces[0].history_size")
    );
}

#[test]
fn keys_of_features_that_do_not_exist_are_refused() {
    for text in [
        "[websocket]\ncompression_dictionary = true",
        "[client]\npresence_update_interval = \"27s\"",
        "[channel.without_namespace]\nsubscribe_stream_proxy_enabled = true",
        "[channel.without_namespace]\nname = \"x\"",
        "[uni_grpc]\nenabled = true",
    ] {
        assert!(
            matches!(error(text), ConfigError::UnknownKey { .. }),
            "{text}"
        );
    }
}

#[test]
fn keys_of_tokens_are_checked_when_they_are_read() {
    let rsa = include_str!("vectors/keys/rsa.pub.pem");
    let p256 = include_str!("vectors/keys/p256.pub.pem");
    let weak = include_str!("vectors/keys/rsa-weak.pub.pem");
    let private = include_str!("vectors/keys/rsa.pem");
    let table = |key: &str, value: &str| format!("[client.token]\n{key} = \"\"\"{value}\"\"\"");
    for (key, value) in [
        ("rsa_public_key", "a key"),
        ("rsa_public_key", weak),
        ("rsa_public_key", private),
        ("rsa_public_key", p256),
        ("ecdsa_public_key", rsa),
        ("jwks_public_endpoint", "ftp://id.example/keys"),
        ("jwks_public_endpoint", "https://id.example/{{realm}}/keys"),
        ("audience_regex", "("),
        ("user_id_claim", "a-b"),
    ] {
        let error = error(&table(key, value));
        assert!(
            matches!(&error, ConfigError::Malformed { key: found, .. } if *found == format!("client.token.{key}")),
            "{error}"
        );
    }
    let both = error("[client.token]\nissuer = \"a\"\nissuer_regex = \"b\"");
    assert!(matches!(both, ConfigError::Both { .. }), "{both}");
    let config = load(&format!(
        "{}\necdsa_public_key = \"\"\"{p256}\"\"\"\naudience_regex = \"^a$\"\njwks_public_endpoint = \"https://id.example/keys\"",
        table("rsa_public_key", rsa)
    ))
    .unwrap();
    assert_eq!(
        config
            .client
            .token
            .rsa_public_key
            .as_ref()
            .map(|key| key.pem()),
        Some(rsa)
    );
    assert_eq!(config.client.subscription_token, config.client.token);
    let again = load(&config.effective()).unwrap();
    assert_eq!(again, config, "the effective configuration reads back");
}

#[test]
fn every_error_names_file_line_and_key_and_says_what_to_do() {
    let text = |toml: &str| error(toml).to_string();
    assert_eq!(
        text("[client]\nping_intervall = \"1s\""),
        "ringmain.toml:2: unknown key `client.ping_intervall`; did you mean `client.ping_interval`?"
    );
    assert_eq!(
        text("[server]\nshards = 65"),
        "ringmain.toml:2: `server.shards` must be between 0 and 64"
    );
    assert_eq!(
        text("[client]\npong_timeout = 8"),
        "ringmain.toml:2: `client.pong_timeout` must be a duration such as \"25s\", \"500ms\" or \"1h30m\", but this is a number"
    );
    assert_eq!(
        text("[http_api]\nerror_mode = \"http\""),
        "ringmain.toml:2: `http_api.error_mode` must be one of \"\", `transport`"
    );
    assert_eq!(
        text("[client]\nping_interval = \"2h\""),
        "ringmain.toml:2: `client.ping_interval` must be between 1s and 1h, or 0"
    );
    assert!(text("[server\nshards = 1").starts_with("ringmain.toml:1: this is not valid TOML: "));
}

#[test]
fn values_of_the_wrong_kind_or_form_are_refused() {
    for (text, at) in [
        ("server = 1", 1),
        ("[server]\nlisten = \"127.0.0.1:8000\"", 2),
        ("[server]\nlisten = [8000]", 2),
        (
            "[server]\nlisten = [\n\"127.0.0.1:1\",\n\"localhost:8000\"]",
            4,
        ),
        ("[server]\nlisten = [\"unix:\"]", 2),
        ("[server]\nlisten = []", 2),
        ("[server]\nshards = \"4\"", 2),
        ("[server]\nshards = -1", 2),
        ("[server]\nshards = 1.5", 2),
        ("[server]\ncores = [\"0\"]", 2),
        ("[server]\nbacklog = 0", 2),
        ("[server]\nreactor = \"epoll\"", 2),
        ("[admin]\nlisten = \"8001\"", 2),
        ("[client]\ninsecure = \"true\"", 2),
        ("[client]\nping_interval = \"1500ms\"", 2),
        ("[client]\nchannel_limit = 0", 2),
        ("[client.token]\nhmac_secret_key = 7", 2),
        ("[client.token]\nuser_id_claim = \"user-id\"", 2),
        ("[channel]\nmax_length = 5000", 2),
        ("[channel]\nnamespace_boundary = \"\"", 2),
        ("[channel]\nnamespaces = {}", 2),
        ("[channel]\nnamespaces = [1]", 2),
        ("[channel.without_namespace]\nhistory_ttl = \"1d\"\n", 2),
        ("[[channel.namespaces]]\nname = \"a\"", 2),
        ("[[channel.namespaces]]\nname = \"a:b\"", 2),
        ("[[channel.namespaces]]\npresence = true", 1),
        ("[log]\nlevel = \"trace\"", 2),
    ] {
        assert_eq!(error(text).origin(), &line(at), "{text}");
    }
}

#[test]
fn all_errors_are_reported_in_the_order_of_lines() {
    let errors =
        load("[server]\nshards = 99\nx = 1\n[log]\nlevel = 3\n[client]\npong_timeout = \"30s\"")
            .unwrap_err();
    let lines: Vec<ValueOrigin> = errors
        .0
        .iter()
        .map(|error| error.origin().clone())
        .collect();
    assert_eq!(lines, [line(2), line(3), line(5), line(7)]);
    assert_eq!(errors.to_string().lines().count(), 4);
}

#[test]
fn history_needs_both_size_and_ttl() {
    let half = error("[channel.without_namespace]\nhistory_size = 5");
    assert!(
        matches!(half, ConfigError::HalfHistory { ref missing, .. } if missing == "channel.without_namespace.history_ttl")
    );
    let half = error("[[channel.namespaces]]\nname = \"chat\"\nhistory_ttl = \"5s\"");
    assert!(matches!(half, ConfigError::HalfHistory { ref origin, .. } if *origin == line(3)));
    let fraction = error("[channel.without_namespace]\nhistory_size = 5\nhistory_ttl = \"1500ms\"");
    assert!(
        matches!(fraction, ConfigError::NotWholeSeconds { .. }),
        "and nothing about half a history"
    );
}

#[test]
fn forced_recovery_needs_history() {
    let error = error("[channel.without_namespace]\nforce_recovery = true");
    assert!(matches!(error, ConfigError::RecoveryWithoutHistory { .. }));
}

#[test]
fn history_does_not_outlive_its_metadata() {
    let error = error(
        "[channel]\nhistory_meta_ttl = \"1m\"\n[channel.without_namespace]\nhistory_size = 1\nhistory_ttl = \"2m\"",
    );
    assert!(
        matches!(error, ConfigError::HistoryOutlivesMeta { ref origin, .. } if *origin == line(5))
    );
}

#[test]
fn pong_timeout_is_smaller_than_ping_interval() {
    for text in [
        "[client]\npong_timeout = \"25s\"",
        "[client]\nping_interval = \"8s\"",
    ] {
        let error = error(text);
        assert!(
            matches!(error, ConfigError::PongNotBelowPing { ref origin, .. } if *origin == line(2)),
            "{error}"
        );
    }
    assert!(load("[client]\nping_interval = \"0s\"\npong_timeout = \"1m\"").is_ok());
    let error = error("[client]\nping_interval = \"5s\"\npong_timeout = \"1x\"");
    assert!(
        matches!(error, ConfigError::Malformed { .. }),
        "a refused value is not compared"
    );
}

#[test]
fn namespace_names_are_unique() {
    let error =
        error("[[channel.namespaces]]\nname = \"chat\"\n[[channel.namespaces]]\nname = \"chat\"");
    assert!(
        matches!(error, ConfigError::Repeated { ref origin, ref first, .. } if *origin == line(4) && *first == line(2))
    );
}

#[test]
fn addresses_are_unique() {
    assert!(matches!(
        error("[server]\nlisten = [\"[::]:1\", \"[::]:1\"]"),
        ConfigError::Repeated { .. }
    ));
    assert!(matches!(
        error("[admin]\nlisten = \"127.0.0.1:8000\""),
        ConfigError::Repeated { .. }
    ));
    assert!(
        matches!(
            error("[server]\nlisten = [\"0.0.0.0:1\"]\n[admin]\nlisten = \"[::]:1\""),
            ConfigError::Repeated { .. }
        ),
        "every address of the admin listener is IPv4 as well"
    );
    assert!(
        load("[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"").is_ok(),
        "port 0 is any port"
    );
}

#[test]
fn marks_in_channel_names_differ() {
    assert!(matches!(
        error("[channel]\nuser_boundary = \":\""),
        ConfigError::SameMark { .. }
    ));
}

#[test]
fn personal_channel_needs_its_namespace() {
    let error = error(
        "[client.subscribe_to_user_personal_channel]\nenabled = true\npersonal_channel_namespace = \"user\"",
    );
    assert!(matches!(error, ConfigError::UnknownNamespace { .. }));
}

#[test]
fn previous_key_needs_a_current_one() {
    assert!(matches!(
        error("[client.token]\nhmac_previous_secret_key = \"k\""),
        ConfigError::PreviousKeyAlone { .. }
    ));
}

#[test]
fn later_files_go_over_earlier_ones_key_by_key() {
    let sources = [
        Source {
            name: "base.toml",
            text: "[server]\nshards = 2\nbacklog = 100\n[[channel.namespaces]]\nname = \"aa\"",
        },
        Source {
            name: "more.toml",
            text: "[server]\nshards = 3\n[[channel.namespaces]]\nname = \"bb\"\nx = 1",
        },
    ];
    let errors = Config::load(&sources, &[]).unwrap_err().0;
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].origin().to_string(), "more.toml:5");
    let text = "[server]\nshards = 3\n[[channel.namespaces]]\nname = \"bb\"";
    let config = Config::load(
        &[
            sources[0],
            Source {
                name: "more.toml",
                text,
            },
        ],
        &[],
    )
    .unwrap();
    assert_eq!((config.server.shards, config.server.backlog), (3, 100));
    assert!(config.channels.namespace("aa").is_none() && config.channels.namespace("bb").is_some());
}

#[test]
fn command_line_goes_the_same_way() {
    let shards = |text: &str| Setting {
        origin: "--shards".to_owned(),
        key: "server.shards".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(Config::load(&[], &[shards("7")]).unwrap().server.shards, 7);
    let errors = Config::load(&[], &[shards("700")]).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "--shards: `server.shards` must be between 0 and 64"
    );
}

#[test]
fn secrets_reach_neither_the_effective_configuration_nor_an_error() {
    let good = "[http_api]\nkey = \"hunter2\"\n[client.token]\nhmac_secret_key = \"hunter2\"\n";
    let effective = load(good).unwrap().effective();
    assert!(
        !effective.contains("hunter2") && effective.contains("key = \"***\""),
        "{effective}"
    );
    for bad in [
        "[http_api]\nkey = \"hunter2",
        "[http_api]\nkey = hunter2",
        "[http_api]\nkey = [\"hunter2\"]",
        "[http_api]\nkey = \"hunter2\" \"hunter2\"",
        "[http_api]\nkey = \"hunter2\"\nkey = \"hunter2\"",
        "[client.token]\nhmac_secret_key = 'hunter2\nx = 1",
    ] {
        let errors = load(bad).unwrap_err();
        assert!(
            !format!("{errors} {errors:?}").contains("hunter2"),
            "{errors}"
        );
    }
}

#[test]
fn effective_configuration_of_the_defaults_reads_back() {
    let effective = Config::built_in().effective();
    assert_eq!(load(&effective).unwrap(), Config::built_in(), "{effective}");
}

#[test]
fn example_file_is_valid_and_reads_back() {
    let config = load(EXAMPLE).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(load(&config.effective()).unwrap(), masked(config));
}

#[test]
fn option_table_lists_exactly_the_keys_that_are_read() {
    let effective: toml::Table = Config::built_in().effective().parse().unwrap();
    let read = effective["channel"]["without_namespace"]
        .as_table()
        .unwrap();
    assert_eq!(read.len(), OPTIONS.len() + 1, "`schema` is a table");
    for (name, kind, default, meaning) in OPTIONS {
        let value = read
            .get(*name)
            .unwrap_or_else(|| panic!("{name} is not read"));
        assert_eq!(value.to_string(), *default, "{name}");
        let kind_of_default = match value {
            toml::Value::Boolean(_) => "bool",
            toml::Value::Integer(_) => "int",
            toml::Value::Array(_) => "list",
            toml::Value::String(text)
                if text == "default" || ["channel_regex", "compact_by"].contains(name) =>
            {
                "string"
            }
            toml::Value::String(text) if text.starts_with(char::is_numeric) => "duration",
            _ => "enum",
        };
        assert_eq!(kind_of_default, *kind, "{name}");
        assert!(meaning.ends_with('.'), "{name}");
        let text = format!("[[channel.namespaces]]\nname = \"chat\"\n{name} = {default}");
        assert!(load(&text).is_ok(), "{name}");
    }
}

#[test]
fn reload_refuses_what_is_read_only_at_start() {
    let old = load("[server]\nshards = 2\n[client.token]\nhmac_secret_key = \"a\"").unwrap();
    let live = load("[server]\nshards = 2\n[client.token]\nhmac_secret_key = \"b\"\n[[channel.namespaces]]\nname = \"chat\"").unwrap();
    assert_eq!(old.reload_from(&live), Ok(()));
    let fixed =
        load("[server]\nshards = 3\nlisten = [\"127.0.0.1:9\"]\n[admin]\nlisten = \"\"").unwrap();
    let refused = old.reload_from(&fixed).unwrap_err();
    assert_eq!(
        refused.keys,
        ["server.listen", "server.shards", "admin.listen"]
    );
    assert!(
        refused
            .to_string()
            .starts_with("nothing was changed: `server.listen`, ")
    );
}

prop_compose! {
    /// Lines that look like TOML: known keys and others, with values that fit and that do not.
    fn some_toml()(
        lines in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "[server]\n", "[client]\n", "[client.token]\n", "[channel]\n", "[[channel.namespaces]]\n", "[x]\n", "", "", "", "",
                ]),
                prop::sample::select(vec![
                    "shards", "listen", "ping_interval", "hmac_secret_key", "name", "history_size", "history_ttl",
                    "namespaces", "max_length", "server.shards", "a.b.c", "\"\"", "presence",
                ]),
                prop::sample::select(vec![
                    "1", "-1", "0x7fffffffffffffff", "99999999999999999999", "1.5", "nan", "true", "\"1s\"", "\"chat\"", "\"\"", "[]",
                    "[[1]]", "{}", "{ name = \"aa\" }", "[{ name = 1 }]", "1979-05-27", "[1, \"a\"]", "'''\n'''", "",
                ]),
            ),
            0..12,
        )
    ) -> String {
        lines.iter().map(|(header, key, value)| format!("{header}{key} = {value}\n")).collect()
    }
}

prop_compose! {
    fn some_config()(
        shards in 0u16..=64,
        ping in 0u64..100,
        pong in 10u64..900,
        limit in 1usize..65_536,
        secret in ".{0,12}",
        other in prop::option::of(".{0,12}"),
        audience in ".{0,12}",
        names in prop::collection::btree_set("[-a-zA-Z0-9_.]{2,9}", 0..4),
        size in 0u32..1000,
        ttl in 1u64..100_000,
        flags in any::<[bool; 4]>(),
    ) -> Config {
        let mut config = Config::built_in();
        config.server.shards = shards;
        config.client.ping_interval = (ping > 0).then(|| Duration::from_secs(ping));
        config.client.pong_timeout = Duration::from_millis(pong);
        config.client.channel_limit = limit;
        config.client.token.hmac_secret_key = Secret(secret);
        config.client.token.audience = audience;
        config.client.subscription_token = config.client.token.clone();
        if let Some(other) = other {
            config.client.subscription_token = Token { hmac_secret_key: Secret(other), ..Token::default() };
        }
        let namespace = |name: &String| {
            let mut one = ringmain::config::Namespace { name: name.clone(), presence: flags[0], ..Default::default() };
            if size > 0 {
                one.history_size = size;
                one.history_ttl = Duration::from_secs(ttl);
                one.force_recovery = flags[1];
            }
            one.allow_publish_for_client = flags[2];
            std::sync::Arc::new(one)
        };
        config.client.single_connection = flags[1];
        config.client.connection_limit = size;
        config.client.ipv6_prefix = 1 + (size % 128) as u8;
        if flags[0] {
            config.client.user_connection_limit_policy = UserLimitPolicy::CloseOldest;
            config.server.trusted_proxies = ["unix", "10.0.0.0/8"].iter().filter_map(|text| TrustedProxy::parse(text)).collect();
        }
        config.client.user_personal_channel = flags[3].then(|| names.first().cloned().unwrap_or_default());
        config.channels.namespaces = names.iter().map(namespace).collect();
        config
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = load(&text);
    }

    #[test]
    fn arbitrary_toml_never_panics_and_what_loads_reads_back(text in some_toml()) {
        if let Ok(config) = load(&text) {
            prop_assert_eq!(load(&config.effective()), Ok(masked(config)));
        }
    }

    #[test]
    fn arbitrary_settings_never_panic(name in "RINGMAIN(__(SERVER|CHANNEL|SHARDS|NAMESPACES|X)){0,3}", text in ".{0,30}") {
        let _ = environment::with_environment("[server]\nshards = 1", &[(&name, &text)]);
    }

    #[test]
    fn effective_configuration_reads_back(config in some_config()) {
        let effective = config.effective();
        prop_assert_eq!(load(&effective).map_err(|errors| format!("{errors}\n{effective}")), Ok(masked(config)));
    }
}

#[test]
fn what_a_client_may_have_under_way_and_get_wrong_is_configured() {
    let text =
        "[client]\nconcurrency = 8\ninvalid_token_limit = 3\ninvalid_token_rate_per_prefix = 5\n";
    let client = load(text).expect("a text without error").client;
    assert_eq!(
        (
            client.concurrency,
            client.invalid_token_limit,
            client.invalid_token_rate_per_prefix
        ),
        (8, 3, 5)
    );
    let client = load("").expect("nothing").client;
    assert_eq!(
        (
            client.concurrency,
            client.invalid_token_limit,
            client.invalid_token_rate_per_prefix
        ),
        (1, 10, 0)
    );
    error("[client]\nconcurrency = 0");
}

#[test]
fn what_jetstream_cannot_keep_less_of_is_refused_by_its_key() {
    let refused = |more: &str| {
        let namespace = "[[channel.namespaces]]\nname = \"news\"\ndelivery = \"durable\"\n";
        let text = format!("[durable]\nengine = \"nats\"\n{namespace}{more}");
        load(&text).err().map(|errors| errors.to_string())
    };
    for allowed in [
        "retention_age = \"1h\"",
        "retention_count = 3",
        "expired = \"dead_letter\"",
    ] {
        assert_eq!(refused(allowed), None, "{allowed}");
    }
    for (key, more) in [
        ("retention_bytes", "retention_bytes = 2000000"),
        ("expired", "retention_count = 3\nexpired = \"dead_letter\""),
        ("compact_by", "compact_by = \"tag:id\""),
    ] {
        let said = refused(more).expect("an error");
        assert!(said.contains(key) && said.contains("JetStream"), "{said}");
    }
}

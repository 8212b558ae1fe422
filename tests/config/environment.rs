//! Keys set by variables of the environment, over a file and without one.

use std::time::Duration;

use ringmain::config::{Config, ConfigErrors, KeyKind, Setting, Source, keys};

use crate::{EXAMPLE, load};

pub(crate) fn with_environment(
    text: &str,
    variables: &[(&str, &str)],
) -> Result<Config, ConfigErrors> {
    let variables = variables
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()));
    Config::load(
        &[Source {
            name: "ringmain.toml",
            text,
        }],
        &Setting::from_environment(variables),
    )
}

#[test]
fn environment_overrides_a_key() {
    let config = with_environment(
        "[server]\nshards = 2\nbacklog = 7\n[channel.without_namespace]\npresence = true",
        &[
            ("RINGMAIN__SERVER__SHARDS", "3"),
            ("RINGMAIN__SERVER__LISTEN", "127.0.0.1:1,unix:/tmp/x"),
            ("RINGMAIN__SERVER__CORES", "[1, 2]"),
            ("RINGMAIN__CLIENT__PING_INTERVAL", "5s"),
            ("RINGMAIN__CLIENT__PONG_TIMEOUT", "2s"),
            (
                "RINGMAIN__CLIENT__ALLOWED_ORIGINS",
                r#"["https://a.com", "https://b.com"]"#,
            ),
            ("RINGMAIN__CLIENT__TOKEN__HMAC_SECRET_KEY", "[not = a list"),
            (
                "RINGMAIN__CHANNEL__WITHOUT_NAMESPACE",
                r#"{"join_leave": true}"#,
            ),
            ("RINGMAIN__CHANNEL__WITHOUT_NAMESPACE__RATE", "9"),
            (
                "RINGMAIN__CHANNEL__NAMESPACES",
                r#"[{"name": "chat", "presence": true, "history_size": 2, "history_ttl": "3s"}]"#,
            ),
            ("RINGMAIN__DRAIN", "{ notice = \"7s\", window = \"1s\" }"),
            ("RINGMAIN__DRAIN__GRACE", "2s"),
            ("RINGMAIN_CONFIG", "not ours"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!((config.server.shards, config.server.backlog), (3, 7));
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.cores, [1, 2]);
    assert_eq!(config.client.ping_interval, Some(Duration::from_secs(5)));
    assert_eq!(
        config.client.allowed_origins,
        ["https://a.com", "https://b.com"]
    );
    assert_eq!(config.client.token.hmac_secret_key.0, "[not = a list");
    let without = &config.channels.without_namespace;
    assert!(without.presence && without.join_leave && without.rate == 9);
    assert_eq!(config.channels.resolve("chat:1").unwrap().history_size, 2);
    assert_eq!(
        (config.drain.notice, config.drain.window, config.drain.grace),
        (
            Duration::from_secs(7),
            Duration::from_secs(1),
            Duration::from_secs(2)
        )
    );
}

#[test]
fn error_in_the_environment_names_the_variable() {
    let text = |name: &str, value: &str| {
        with_environment("[server]\nshards = 2", &[(name, value)])
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        text("RINGMAIN__SERVER__SHARD", "3"),
        "RINGMAIN__SERVER__SHARD: unknown key `server.shard`; did you mean `server.shards`?"
    );
    assert_eq!(
        text("RINGMAIN__SERVER__SHARDS", "many"),
        "RINGMAIN__SERVER__SHARDS: `server.shards` must be a whole number"
    );
    for (name, value) in [
        ("RINGMAIN__SERVER__SHARDS__X", "1"),
        ("RINGMAIN__SERVER", "1"),
        ("RINGMAIN____", "1"),
        ("RINGMAIN__", "1"),
        ("RINGMAIN__CLIENT__INSECURE", "yes"),
        ("RINGMAIN__CHANNEL__NAMESPACES", "chat"),
        ("RINGMAIN__CHANNEL__NAMESPACES__0__NAME", "chat"),
        ("RINGMAIN__SERVER__LISTEN", "[1"),
    ] {
        assert!(
            text(name, value).starts_with(&format!("{name}: ")),
            "{name}"
        );
    }
}

#[test]
fn members_of_a_list_have_commas_or_blanks_between_them() {
    let origins = |text: &str| {
        with_environment("", &[("RINGMAIN__CLIENT__ALLOWED_ORIGINS", text)])
            .unwrap_or_else(|errors| panic!("{text}: {errors}"))
            .client
            .allowed_origins
    };
    for text in [
        "https://a.com https://b.com",
        " https://a.com,https://b.com ",
        "https://a.com,  https://b.com",
        "https://a.com\nhttps://b.com\n",
        r#"["https://a.com", "https://b.com"]"#,
    ] {
        assert_eq!(
            origins(text),
            ["https://a.com", "https://b.com"],
            "{text:?}"
        );
    }
    assert_eq!(
        origins("https://{a,b}.com,*"),
        ["https://{a,b}.com", "*"],
        "a comma within braces belongs to the pattern"
    );
    assert!(origins("").is_empty());
    let listen = with_environment(
        "",
        &[(
            "RINGMAIN__SERVER__LISTEN",
            "unix:/run/a b,[::1]:9,0.0.0.0:9",
        )],
    );
    let shown: Vec<String> = listen
        .unwrap()
        .server
        .listen
        .iter()
        .map(|at| format!("{at:?}"))
        .collect();
    assert!(
        shown.len() == 3 && shown[0].contains("/run/a b"),
        "{shown:?}"
    );
}

/// The example with every key in force: what stands behind `# ` is a key or the head of a table.
fn whole_example() -> String {
    let is_toml = |line: &str| {
        let name = line.split(['=', ']']).next().unwrap_or_default().trim();
        line.starts_with('[') && line.ends_with(']')
            || line.contains(" = ")
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(bare) if is_toml(bare) => bare,
        Some(_) => "",
        None => line,
    });
    lines.collect::<Vec<&str>>().join("\n")
}

/// Every key of a table that is no table, with its value; lists of tables are values as a whole.
fn leaves(table: &toml::Table, path: &str, found: &mut Vec<(String, toml::Value)>) {
    for (name, value) in table {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match value {
            toml::Value::Table(inner) if !path.ends_with("static_headers") => {
                leaves(inner, &path, found)
            }
            value => found.push((path, value.clone())),
        }
    }
}

#[test]
fn every_key_of_the_example_can_be_given_by_the_environment_alone() {
    // Two things of which the example shows both, and which exclude each other.
    let text = whole_example()
        .replace("enabled = false", "enabled = true")
        .replace("to_error]\ncode = 404", "to_error]\ncode = 0");
    let table: toml::Table = text
        .parse()
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut given = Vec::new();
    leaves(&table, "", &mut given);
    let shown = |value: &toml::Value| match value {
        toml::Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let variables: Vec<(String, String)> = given
        .iter()
        .map(|(path, value)| {
            let name = path.to_ascii_uppercase().replace('.', "__");
            (format!("RINGMAIN__{name}"), shown(value))
        })
        .collect();
    let from_file = load(&text).map_err(|errors| errors.to_string());
    let from_environment = Config::load(&[], &Setting::from_environment(variables.clone()))
        .map_err(|errors| errors.to_string());
    match (&from_file, &from_environment) {
        (Ok(file), Ok(environment)) => assert_eq!(environment, file),
        // What the example alone does not say, such as a namespace that is referred to, is wrong in both.
        (Err(file), Err(environment)) => {
            let reasons = |text: &str| {
                let mut lines: Vec<String> = text
                    .lines()
                    .map(|line| {
                        line.split_once(": ")
                            .map_or(line, |(_, why)| why)
                            .to_owned()
                    })
                    .collect();
                lines.sort();
                lines
            };
            assert_eq!(reasons(environment), reasons(file));
        }
        _ => panic!("{from_file:?}\n{from_environment:?}"),
    }
    let known: Vec<String> = keys()
        .into_iter()
        .filter(|key| !key.path.contains("[]") && key.kind != KeyKind::Tables)
        .map(|key| key.path)
        .collect();
    for path in &known {
        let variable = (
            format!("RINGMAIN__{}", path.to_ascii_uppercase().replace('.', "__")),
            "\u{1}".to_owned(),
        );
        if let Err(errors) = Config::load(&[], &Setting::from_environment([variable])) {
            assert!(
                !errors.to_string().contains("unknown key"),
                "{path}: {errors}"
            );
        }
    }
}

#[test]
fn lists_of_tables_are_toml_or_json_in_one_variable() {
    for (name, text) in [
        (
            "CHANNEL__NAMESPACES",
            r#"[{ name = "chat", presence = true }, { name = "news" }]"#,
        ),
        (
            "CHANNEL__NAMESPACES",
            r#"[{"name": "chat", "presence": true}, {"name": "news"}]"#,
        ),
        (
            "CHANNEL",
            r#"{ namespaces = [{ name = "chat", presence = true }, { name = "news" }] }"#,
        ),
    ] {
        let config = with_environment("", &[(&format!("RINGMAIN__{name}"), text)]);
        let config = config.unwrap_or_else(|errors| panic!("{text}: {errors}"));
        assert!(
            config.channels.resolve("chat:1").unwrap().presence,
            "{text}"
        );
        assert!(config.channels.resolve("news:1").is_ok(), "{text}");
    }
    let errors = with_environment("", &[("RINGMAIN__PROXIES", "orders")]).unwrap_err();
    assert!(
        errors.to_string().contains("[{ name ="),
        "says how: {errors}"
    );
}

#[test]
fn value_may_have_lines_and_a_break_at_its_end_as_manifests_write_it() {
    let namespaces = "[\n  { name = \"chat\", presence = true },\n  { name = \"orders\", delivery = \"durable\" },\n]\n";
    let config = with_environment(
        "",
        &[
            ("RINGMAIN__CHANNEL__NAMESPACES", namespaces),
            ("RINGMAIN__DRAIN", "{ notice = \"7s\" }\n"),
        ],
    )
    .unwrap();
    assert!(config.channels.resolve("chat:1").unwrap().presence);
    assert!(config.channels.resolve("orders:1").is_ok());
    assert_eq!(config.drain.notice, Duration::from_secs(7));
}

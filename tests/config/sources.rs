//! Sources as a file and the environment have them, and what of them is refused.

use ringmain::config::sources::{OnError, SourceKind};

use crate::environment::with_environment;
use crate::{error, load};

const DURABLE: &str = "[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n";
const POSTGRES: &str =
    "[[sources]]\nname = \"shop\"\n[sources.postgres]\ndatabase = \"d\"\nuser = \"u\"\n";
const KAFKA: &str = "[[sources]]\nname = \"events\"\nkind = \"kafka\"\nchannel = \"orders:{key}\"\n[sources.kafka]\nbrokers = [\"k:9092\"]\ntopics = [\"t\"]\n";

fn refused(sources: &str) -> (String, String) {
    let error = error(&format!("{DURABLE}{sources}"));
    (error.key().expect("a key").to_owned(), error.to_string())
}

#[test]
fn sources_are_read_from_a_file_and_from_the_environment_and_show_no_password() {
    let password = "password = \"hunter2\"\n";
    let text = format!("{DURABLE}{POSTGRES}{password}{KAFKA}user = \"k\"\n{password}");
    let config = load(&text).expect("a configuration");
    let [shop, events] = &config.sources[..] else {
        panic!("{:?}", config.sources);
    };
    assert_eq!(shop.kind, SourceKind::Postgres);
    assert_eq!((shop.on_error, shop.batch), (OnError::Stop, 1000));
    assert!(shop.postgres.delete);
    assert_eq!(events.kafka.topics, ["t"]);
    let sources = r#"[{"name":"shop","postgres":{"database":"d","user":"u","password":"hunter2"}},
        {"name":"events","kind":"kafka","channel":"orders:{key}","kafka":{"brokers":["k:9092"],"topics":["t"],"user":"k","password":"hunter2"}}]"#;
    let of_environment = with_environment(DURABLE, &[("RINGMAIN__SOURCES", sources)]);
    assert_eq!(of_environment, Ok(config.clone()));
    let shown = config.effective();
    assert!(!shown.contains("hunter2"), "{shown}");
    let again = load(&shown).unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
    assert_eq!(again.sources.len(), 2);
    assert!(config.secret_texts().contains(&"hunter2".to_owned()));
}

#[test]
fn source_that_could_not_work_is_refused_with_what_would() {
    let postgres = |more: &str| format!("{POSTGRES}{more}");
    let own =
        |more: &str| POSTGRES.replace("[sources.postgres]", &format!("{more}\n[sources.postgres]"));
    for (text, key, says) in [
        (
            POSTGRES.replace("name = \"shop\"", ""),
            "sources[0].name",
            "missing",
        ),
        (
            format!("{POSTGRES}{POSTGRES}"),
            "sources[1].name",
            "repeats",
        ),
        (
            POSTGRES.replace("database = \"d\"", ""),
            "sources[0].postgres.database",
            "missing",
        ),
        (
            postgres("password = \"a\"\npassword_file = \"/b\""),
            "sources[0].postgres.password_file",
            "exclude",
        ),
        (
            postgres("table = \"a.b.c\""),
            "sources[0].postgres.table",
            "shop.outbox",
        ),
        (
            postgres("id_column = \"\""),
            "sources[0].postgres.id_column",
            "a name of 1 to 63 bytes",
        ),
        (
            postgres("host = \"postgres://u@h\""),
            "sources[0].postgres.host",
            "this is a URL",
        ),
        (
            own("channel = \"orders:{key}\""),
            "sources[0].channel",
            "channel_column",
        ),
        (own("channel = \"chat:1\""), "sources[0].channel", "durable"),
        (
            own("kafka = { topics = [\"t\"] }"),
            "sources[0].kafka",
            "kind = \"kafka\"",
        ),
        (own("batch = 10001"), "sources[0].batch", "10000"),
        (
            KAFKA.replace("channel = \"orders:{key}\"", ""),
            "sources[0].channel",
            "missing",
        ),
        (
            KAFKA.replace("{key}", "{id}"),
            "sources[0].channel",
            "{topic}, {partition} or {key}",
        ),
        (
            KAFKA.replace("orders:", "chat:"),
            "sources[0].channel",
            "durable",
        ),
        (
            KAFKA.replace("topics = [\"t\"]", ""),
            "sources[0].kafka.topics",
            "missing",
        ),
        (
            KAFKA.replace("k:9092", "k"),
            "sources[0].kafka.brokers",
            "with a port",
        ),
        (
            KAFKA.replace("\"t\"", "\"a b\""),
            "sources[0].kafka.topics",
            "letters",
        ),
        (
            format!("{KAFKA}password = \"p\""),
            "sources[0].kafka.user",
            "missing",
        ),
        (
            format!("{KAFKA}[sources.postgres]\nport = 1"),
            "sources[0].postgres",
            "kind = \"postgres\"",
        ),
    ] {
        let (found, error) = refused(&text);
        assert_eq!(found, key, "{text}: {error}");
        assert!(error.contains(says), "{text}: {error}");
    }
    let error = error(POSTGRES);
    assert_eq!(
        error.key(),
        Some("sources[0]"),
        "without a durable namespace"
    );
    for fine in ["{key}", "{topic}:{partition}", "orders:x"] {
        load(&format!("{DURABLE}{}", KAFKA.replace("orders:{key}", fine))).expect(fine);
    }
}

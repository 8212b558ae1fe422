//! Keys of services and operators as a file and the environment have them.

use ringmain::config::{ConfigError, KeyVerdict};

use crate::environment::with_environment;
use crate::{error, line, load};

const HASH: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn keys_are_read_from_a_file_and_from_the_environment_alone() {
    let in_file = format!(
        "[[http_api.keys]]\nname = \"one\"\nkey = \"first\"\nmethods = [\"publish\", \"history*\"]\nnamespaces = [\"\"]\n\
         expires = \"2030-01-31T12:00:00Z\"\n[[http_api.keys]]\nname = \"two\"\nhash = \"{HASH}\"\n\
         [[admin.keys]]\nname = \"one\"\nkey = \"operator\"\n"
    );
    let api = format!(
        r#"[{{"name":"one","key":"first","methods":["publish","history*"],"namespaces":[""],"expires":"2030-01-31T12:00:00Z"}},{{"name":"two","hash":"{HASH}"}}]"#
    );
    let variables = [
        ("RINGMAIN__HTTP_API__KEYS", api.as_str()),
        (
            "RINGMAIN__ADMIN__KEYS",
            r#"[{ name = "one", key = "operator" }]"#,
        ),
    ];
    let of_file = load(&in_file).expect("a configuration");
    assert_eq!(with_environment("", &variables), Ok(of_file.clone()));
    let api = &of_file.http_api;
    assert!(matches!(api.judge(b"first", 0), KeyVerdict::Named(key) if key.name == "one"));
    assert!(matches!(api.judge(b"test", 0), KeyVerdict::Named(key) if key.name == "two"));
    assert_eq!(api.judge(b"first", 1_896_091_200), KeyVerdict::Expired);
    assert_eq!(of_file.judge_admin_key(b"first", 0), KeyVerdict::Unknown);
    let shown = of_file.effective();
    for hidden in ["first", "operator", &HASH[7..]] {
        assert!(!shown.contains(hidden), "{shown}");
        assert!(!format!("{of_file:?}").contains(hidden));
    }
    let again = load(&shown).unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
    assert_eq!(again.http_api.keys.len(), 2);
    assert_eq!(again.http_api.judge(b"***", 0), KeyVerdict::Unknown);
}

#[test]
fn what_is_wrong_with_a_key_is_told_with_its_place_and_without_the_key() {
    let one = |lines: &str| format!("[[http_api.keys]]\n{lines}\n");
    let namespaces = "[[channel.namespaces]]\nname = \"orders\"\n";
    for (text, at, words) in [
        (
            one("key = \"hunter2\""),
            1,
            "`http_api.keys[0].name` is missing",
        ),
        (
            one("name = \"a b\"\nkey = \"hunter2\""),
            2,
            "letters, digits",
        ),
        (one("name = \"a\""), 1, "`ringmain key new`"),
        (
            one(&format!(
                "name = \"a\"\nkey = \"hunter2\"\nhash = \"{HASH}\""
            )),
            4,
            "exclude each other",
        ),
        (
            one("name = \"a\"\nhash = \"sha256:hunter2\""),
            3,
            "`ringmain key hash`",
        ),
        (one("name = \"a\"\nkey = \"hunter2\\n\""), 3, "line break"),
        (
            one("name = \"a\"\nkey = \"hunter2\"\nmethods = [\"pubish\"]"),
            4,
            "did you mean \"publish\"?",
        ),
        (
            one("name = \"a\"\nkey = \"hunter2\"\nmethods = [\"batch\"]"),
            4,
            "that may be in it",
        ),
        (
            one("name = \"a\"\nkey = \"hunter2\"\nnamespaces = [\"order\"]"),
            4,
            "does not exist",
        ),
        (
            format!(
                "{}{namespaces}",
                one(
                    "name = \"a\"\nkey = \"hunter2\"\nmethods = [\"info\"]\nnamespaces = [\"orders\"]"
                )
            ),
            4,
            "acts on no channel",
        ),
        (
            one("name = \"a\"\nkey = \"hunter2\"\nexpires = \"tomorrow\""),
            4,
            "2027-01-31T12:00:00Z",
        ),
        (
            one("name = \"a\"\nkey = \"hunter2\"\nexpires = 2030-01-31T12:00:00Z"),
            4,
            "in quotes",
        ),
        (
            one("name = \"a\"\nkey = \"hunter2\"") + &one("name = \"a\"\nkey = \"other\""),
            5,
            "repeats",
        ),
        (
            one("name = \"a\"\nkey = \"test\"") + &one(&format!("name = \"b\"\nhash = \"{HASH}\"")),
            4,
            "repeats",
        ),
        (
            format!(
                "[http_api]\nkey = \"hunter2\"\n{}",
                one("name = \"a\"\nkey = \"hunter2\"")
            ),
            3,
            "repeats",
        ),
        (
            "[[admin.keys]]\nname = \"a\"\nkey = \"hunter2\"\nmethods = [\"publish\"]\n".to_owned(),
            4,
            "unknown key",
        ),
    ] {
        let error = error(&text);
        assert_eq!(error.origin(), &line(at), "{text}: {error}");
        let said = error.to_string();
        assert!(said.contains(words) && !said.contains("hunter2"), "{said}");
    }
    let many: String = (0..65)
        .map(|number| one(&format!("name = \"n{number}\"\nkey = \"k{number}\"")))
        .collect();
    assert!(error(&many).to_string().contains("at most 64 keys"));
}

#[test]
fn previous_secret_needs_the_one_that_follows_it() {
    let pem = |name: &str| {
        let path = format!("{}/tests/vectors/keys/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("a key of the tests")
    };
    for text in [
        format!("[client.token]\nrsa_previous_public_key = '''{}'''", pem("rsa.pub.pem")),
        format!("[client.token]\necdsa_previous_public_key = '''{}'''", pem("p256.pub.pem")),
        "[hooks]\nsignature_previous_secret = \"x\"".to_owned(),
        "[rpc.proxy.http]\nsignature_previous_secret = \"x\"".to_owned(),
        "[[proxies]]\nname = \"tell\"\nendpoint = \"http://h/\"\n[proxies.http]\nsignature_previous_secret = \"x\"".to_owned(),
    ] {
        let error = error(&text);
        assert!(matches!(error, ConfigError::PreviousKeyAlone { .. }), "{text}: {error}");
    }
    let both = "[[proxies]]\nname = \"tell\"\nendpoint = \"http://h/\"\n[proxies.http]\nsignature_secret = \"y\"\nsignature_previous_secret = \"x\"";
    let config = load(both).expect("a configuration");
    assert_eq!(config.hooks.named[0].signing.secrets().count(), 2);
}

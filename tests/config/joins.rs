//! Joins of triggers as a file has them, and what of them is refused.

use std::time::Duration;

use crate::{error, load};

fn with(join: &str, more: &str) -> String {
    format!(
        "[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n{more}\
         [[channel.namespaces.triggers]]\nname = \"all\"\n{join}\n"
    )
}

#[test]
fn join_is_read_and_a_bare_name_is_a_tag() {
    let text = with(
        "append = \"orders:{key}\"\njoin = { by = \"run\", expected = \"data:of\", within = \"90s\" }",
        "",
    );
    let config = load(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let join = &config.channels.namespaces[0].triggers[0].join;
    assert_eq!(
        (&*join.by, join.count, &*join.expected),
        ("tag:run", 0, "data:of")
    );
    assert_eq!(join.within, Duration::from_secs(90));
    let shown = config.effective();
    let again = load(&shown).unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
    assert_eq!(again.channels.namespaces[0].triggers[0].join, *join);
}

#[test]
fn join_that_could_not_work_is_refused_with_what_would() {
    let append = "append = \"orders:all\"\n";
    let join = |inside: &str| with(&format!("{append}join = {{ {inside} }}"), "");
    let all = "by = \"run\", count = 2, within = \"1m\"";
    for (text, key, says) in [
        (
            join("count = 2, within = \"1m\""),
            "join.by",
            "have in common",
        ),
        (
            join("by = \"run\", within = \"1m\""),
            "join.count",
            "how many parts",
        ),
        (
            join("by = \"run\", count = 1, within = \"1m\""),
            "join.count",
            "2 or more",
        ),
        (
            join("by = \"run\", count = 1001, within = \"1m\""),
            "join.count",
            "1000",
        ),
        (
            join("by = \"run\", count = 2, expected = \"of\", within = \"1m\""),
            "join.expected",
            "only one of",
        ),
        (
            join("by = \"run\", expected = \"user\", within = \"1m\""),
            "join.expected",
            "a number",
        ),
        (
            join("by = \"data:\", count = 2, within = \"1m\""),
            "join.by",
            "`data:PATH`",
        ),
        (join("by = \"run\", count = 2"), "join.within", "from 1s on"),
        (
            join("by = \"run\", count = 2, within = \"0s\""),
            "join.within",
            "from 1s on",
        ),
        (
            join("by = \"run\", count = 2, within = \"721h\""),
            "join.within",
            "between 1s and 720h",
        ),
        (
            join("by = \"run\", count = 2, within = \"73h\""),
            "join.within",
            "retention_age",
        ),
        (
            with(
                &format!("{append}join = {{ {all} }}"),
                "retention_age = \"30s\"\n",
            ),
            "join.within",
            "retention_age",
        ),
        (
            format!(
                "[[proxies]]\nname = \"work\"\nendpoint = \"http://127.0.0.1:1/h\"\n{}",
                with(&format!("hook = \"work\"\njoin = {{ {all} }}"), "")
            ),
            "append",
            "a channel",
        ),
        (
            with("append = \"orders:{key}\"", ""),
            "append",
            "{key} where",
        ),
    ] {
        let error = error(&text);
        let path = format!("channel.namespaces[0].triggers[0].{key}");
        assert_eq!(error.key(), Some(&*path), "{text}\n{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

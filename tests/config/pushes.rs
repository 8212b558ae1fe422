//! Push rules as a file has them.

use crate::load;

#[test]
fn push_rule_is_shown_as_it_is_read() {
    let text = r#"
[[proxies]]
name = "work"
endpoint = "http://127.0.0.1:1/work"

[[channel.namespaces]]
name = "orders"
delivery = "durable"

[[queue.push]]
group = "g"
channels = ["orders:*"]
target = "work"
tags = { shop = "north", "a.b" = "c" }
key = "user"
lanes = { by = "tag:priority", weights = [1, 1, 1, 9] }
backoff.factor = 3
"#;
    let config = load(text).unwrap_or_else(|errors| panic!("{errors}"));
    let push = &config.queue.push[0];
    let mut tags = push.tags.clone();
    tags.sort();
    let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(tags, [tag("a.b", "c"), tag("shop", "north")]);
    assert_eq!(
        (&*push.lanes_by, &*push.lanes_weights),
        ("tag:priority", &[1, 1, 1, 9][..])
    );
    let shown = config.effective();
    let again = load(&shown).unwrap_or_else(|errors| panic!("{errors}\n{shown}"));
    assert_eq!(again.queue.push, config.queue.push);
}

//! What a namespace says of slow subscribers.

use super::load;

#[test]
fn what_a_namespace_says_of_slow_subscribers_fits_together() {
    let said = |poll: bool, more: &str| {
        let namespace = "[[channel.namespaces]]\nname = \"news\"\n";
        let text = format!("[poll]\nenabled = {poll}\n{namespace}{more}");
        load(&text).err().map(|errors| errors.to_string())
    };
    let degrade = "slow_consumer = \"degrade\"\n";
    let history = "history_size = 1\nhistory_ttl = \"1s\"\n";
    let conflate = "slow_consumer = \"conflate\"\n";
    let whole = format!("{degrade}{history}allow_recovery = true");
    for allowed in [
        format!("{conflate}conflate_key = \"data:a.b\""),
        whole.clone(),
        "outbox_age_max = \"100ms\"\noutbox_bytes_max = 1".to_owned(),
    ] {
        assert_eq!(said(true, &allowed), None, "{allowed}");
    }
    for (key, poll, more) in [
        ("conflate_key", true, conflate.to_owned()),
        (
            "conflate_key",
            true,
            "conflate_key = \"channel\"".to_owned(),
        ),
        (
            "conflate_key",
            true,
            format!("{conflate}conflate_key = \"tag:\""),
        ),
        ("slow_consumer", false, whole),
        ("slow_consumer", true, degrade.to_owned()),
        ("slow_consumer", true, format!("{degrade}{history}")),
        (
            "outbox_age_max",
            true,
            "outbox_age_max = \"99ms\"".to_owned(),
        ),
    ] {
        let said = said(poll, &more).unwrap_or_else(|| panic!("{more}"));
        assert!(said.contains(&format!("].{key}`")), "{more}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

//! Tenants and sets of namespaces as they are written.

use ringmain::config::{AddedTenant, Config, Source, TextFile, Written};
use ringmain::model::TenantId;

fn load(text: &str) -> Result<Config, String> {
    let name = "ringmain.toml";
    Config::load(&[Source { name, text }], &[]).map_err(|errors| errors.to_string())
}

fn refusal(text: &str) -> String {
    load(text).expect_err("it is refused")
}

const TWO: &str = r#"
[[tenants]]
id = "b"
hosts = ["B.example", "*.b.example"]
token = { hmac_secret_key = "2", issuer = "id.b" }
keys = [{ name = "k", key = "two" }]
[[tenants]]
id = "a"
channel_set = "rooms"
keys = [{ name = "k", key = "one" }]
[[channel_sets]]
name = "rooms"
namespaces = [{ name = "room" }, { name = "hall" }]
"#;

#[test]
fn tenants_are_found_by_id_host_path_issuer_and_key() {
    let config = load(TWO).expect("a configuration");
    let tenants = &config.tenants;
    let id = |tenant: Option<&std::sync::Arc<ringmain::config::Tenant>>| {
        tenant.map(|tenant| tenant.id.clone())
    };
    for (host, expected) in [
        ("b.example", Some("b")),
        ("b.example:8000", Some("b")),
        ("B.EXAMPLE.", Some("b")),
        ("x.b.example", Some("b")),
        ("x.y.b.example:1", Some("b")),
        ("xb.example", None),
        ("example", None),
        ("", None),
        ("[::1]:80", None),
    ] {
        assert_eq!(id(tenants.of_host(host)).as_deref(), expected, "{host}");
    }
    let of = |host: &'static str, path: &'static str| {
        let found = tenants.of_request(Some(host), path);
        found.map(|(tenant, rest)| (id(tenant), rest))
    };
    let some = |id: &str| Some(id.to_owned());
    assert_eq!(of("x", "/api"), Some((None, "/api")));
    assert_eq!(of("x", "/t/a/api/info"), Some((some("a"), "/api/info")));
    assert_eq!(of("x", "/t/a"), Some((some("a"), "")));
    assert_eq!(of("x", "/t/default/api"), Some((None, "/api")));
    assert_eq!(of("b.example", "/api"), Some((some("b"), "/api")));
    assert_eq!(of("b.example", "/t/b/api"), Some((some("b"), "/api")));
    for (host, path) in [
        ("b.example", "/t/a/api"),
        ("b.example", "/t/default/api"),
        ("x", "/t/c/api"),
        ("x", "/t//api"),
        ("x", "/t/"),
    ] {
        assert_eq!(of(host, path), None, "{host} {path}");
    }
    assert_eq!(id(tenants.of_issuer("id.b")).as_deref(), Some("b"));
    assert_eq!(id(tenants.of_issuer("")), None);
    assert!(
        tenants
            .judge(b"two", 0)
            .is_some_and(|(tenant, _)| tenant.id == "b")
    );
    assert!(tenants.judge(b"three", 0).is_none() && tenants.judge(b"", 0).is_none());
}

#[test]
fn a_tenant_has_the_common_namespaces_or_those_of_its_set() {
    let config = load(&format!("[[channel.namespaces]]\nname = \"chat\"\n{TWO}")).expect("one");
    let known = |tenant: &str, channel: &str| {
        let whole = TenantId::new(tenant).whole(channel).into_owned();
        config.channels.resolve_whole(&whole).is_ok()
    };
    for (tenant, channel, is_known) in [
        ("default", "chat:1", true),
        ("b", "chat:1", true),
        ("a", "chat:1", false),
        ("a", "hall:1", true),
        ("b", "hall:1", false),
        ("default", "hall:1", false),
        ("c", "plain", false),
        ("a", "plain", true),
    ] {
        assert_eq!(known(tenant, channel), is_known, "{tenant} {channel}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let with = |more: &str| refusal(&format!("{TWO}\n{more}"));
    for (more, key) in [
        ("[[tenants]]\nid = \"a\"", "`tenants[2].id` repeats"),
        ("[[tenants]]\nhosts = [\"h\"]", "`tenants[2].id` is missing"),
        ("[[tenants]]\nid = \"default\"", "`tenants[2].id` must be"),
        ("[[tenants]]\nid = \"A\"", "`tenants[2].id` must be"),
        ("[[tenants]]\nid = \"a_b\"", "`tenants[2].id` must be"),
        (
            "[[tenants]]\nid = \"c\"\nhosts = [\"b.EXAMPLE\"]",
            "`tenants[2].hosts[0]` repeats",
        ),
        (
            "[[tenants]]\nid = \"c\"\nhosts = [\"*b.example\"]",
            "`tenants[2].hosts[0]`: a star",
        ),
        (
            "[[tenants]]\nid = \"c\"\ntoken = { issuer = \"id.b\" }",
            "`tenants[2].token.issuer` repeats",
        ),
        (
            "[[tenants]]\nid = \"c\"\nchannel_set = \"none\"",
            "`tenants[2].channel_set`: there is no table",
        ),
        (
            "[[tenants]]\nid = \"c\"\nkeys = [{ name = \"k\", key = \"one\" }]",
            "`tenants[2].keys[0]` repeats",
        ),
        (
            "[[tenants]]\nid = \"c\"\nkeys = [{ name = \"k\" }]",
            "`tenants[2].keys[0]`",
        ),
        (
            "[[tenants]]\nid = \"c\"\nkeys = [{ name = \"k\", key = \"3\", namespaces = [\"xx\"] }]",
            "`tenants[2].keys[0].namespaces[0]`",
        ),
        ("[http_api]\nkey = \"one\"", "`tenants[1].keys[0]` repeats"),
        (
            "[[http_api.keys]]\nname = \"n\"\nkey = \"two\"",
            "`tenants[0].keys[0]` repeats",
        ),
        (
            "[[tenants]]\nid = \"c\"\nproxies = [{ name = \"none\", endpoint = \"http://h/\" }]",
            "`tenants[2].proxies[0].name`: it stands for a target of everybody",
        ),
        (
            "[[tenants]]\nid = \"c\"\nproxies = [{ name = \"rpc.proxy\" }]",
            "`tenants[2].proxies[0].endpoint` is missing",
        ),
        (
            "[[tenants]]\nid = \"c\"\nproxies = [{ endpoint = \"http://h/\" }]",
            "`tenants[2].proxies[0].name` is missing",
        ),
        (
            "[[tenants]]\nid = \"c\"\nproxies = [{ name = \"rpc.proxy\", endpoint = \"http://h/\" }, { name = \"rpc.proxy\", endpoint = \"http://h/\" }]",
            "`tenants[2].proxies[1].name` repeats",
        ),
        (
            "[[tenants]]\nid = \"c\"\nproxies = [{ name = \"rpc.proxy\", endpoint = \"http://h/\", http = { signature_previous_secret = \"x\" } }]",
            "`tenants[2].proxies[0].http.signature_previous_secret`",
        ),
        (
            "[client.subscribe_to_user_personal_channel]\nenabled = true\npersonal_channel_namespace = \"mine\"\n[[channel.namespaces]]\nname = \"mine\"",
            "no client of this tenant could connect",
        ),
        (
            "[[channel_sets]]\nname = \"rooms\"",
            "`channel_sets[1].name` repeats",
        ),
        (
            "[[channel_sets]]\nname = \"s\"\nnamespaces = [{ name = \"xx\", history_size = 1 }]",
            "`channel_sets[1].namespaces[0].history_size`",
        ),
        (
            "[[channel_sets]]\nname = \"s\"\nnamespaces = [{ name = \"xx\" }, { name = \"xx\" }]",
            "`channel_sets[1].namespaces[1].name` repeats",
        ),
        (
            "[[channel_sets]]\nname = \"s\"\nnamespaces = [{ name = \"xx\", delivery = \"durable\", retention_count = 1 }]",
            "it is for namespaces of `channel`",
        ),
    ] {
        let text = with(more);
        assert!(text.contains(key), "{more}: {text}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let config = load(TWO).expect("a configuration");
    let shown = config.effective();
    assert!(
        !shown.contains("\"two\"") && !shown.contains("\"2\""),
        "{shown}"
    );
    let again = load(&shown).expect("it is a configuration");
    let ids = |config: &Config| {
        config
            .tenants
            .list
            .iter()
            .map(|one| one.id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&again), ["a", "b"]);
    assert_eq!(again.channel_sets, config.channel_sets);
}

#[test]
fn weights_are_one_up_to_a_thousand_and_one_where_nothing_is_said() {
    let text = "[[tenants]]\nid = \"a\"\nweight = 3\n[[tenants]]\nid = \"b\"\n";
    let weights = &load(text).expect("a configuration").tenants.weights;
    let of = |id| weights.of(TenantId::new(id));
    assert_eq!(["a", "b", "default", "nobody"].map(of), [3, 1, 1, 1]);
    for wrong in [0, 1001] {
        let refused = refusal(&format!("[[tenants]]\nid = \"a\"\nweight = {wrong}"));
        assert!(refused.contains("`tenants[0].weight` must be"), "{refused}");
    }
}

fn file(name: &str, text: &str) -> TextFile {
    TextFile {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn with_files(files: &[(&str, &str)], added: &[(&str, &str)]) -> Result<Config, String> {
    let written = Written {
        files: vec![file("ringmain.toml", TWO)],
        settings: Vec::new(),
        tenants: files.iter().map(|(name, text)| file(name, text)).collect(),
    };
    let added: Vec<AddedTenant<'_>> = added
        .iter()
        .map(|&(id, text)| AddedTenant { id, text })
        .collect();
    written.load(&added).map_err(|errors| errors.to_string())
}

#[test]
fn a_tenant_has_a_file_of_its_own_or_comes_from_the_api_and_counts_like_the_others() {
    let config = with_files(
        &[("t/c.toml", "id = \"c\"\nhosts = [\"c.example\"]")],
        &[(
            "d",
            r#"{"id":"d","channel_set":"rooms","token":{"issuer":"id.d"}}"#,
        )],
    )
    .expect("a configuration");
    let ids: Vec<&str> = config.tenants.list.iter().map(|one| &*one.id).collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    assert!(
        config
            .tenants
            .of_host("c.example")
            .is_some_and(|one| one.id == "c")
    );
    assert!(
        config
            .tenants
            .of_issuer("id.d")
            .is_some_and(|one| one.id == "d")
    );
    let room = TenantId::new("d").whole("room:1").into_owned();
    assert!(config.channels.resolve_whole(&room).is_ok());
}

#[test]
fn what_tenants_of_several_places_have_twice_is_refused_with_both_places() {
    for (files, added, says) in [
        (
            &[("t/c.toml", "\nid = \"a\"")][..],
            &[][..],
            "t/c.toml:2: `tenants[2].id` repeats what stands at ringmain.toml:8",
        ),
        (
            &[
                ("t/c.toml", "id = \"c\"\nhosts = [\"h\"]"),
                ("t/d.toml", "id = \"d\"\nhosts = [\"h\"]"),
            ],
            &[],
            "t/d.toml:2: `tenants[3].hosts[0]` repeats what stands at t/c.toml:2",
        ),
        (
            &[("t/c.toml", "id = \"c\"")],
            &[("c", r#"{"id":"c"}"#)],
            "tenant `c`, added at /admin/tenants: `tenants[3].id` repeats what stands at t/c.toml:1",
        ),
        (
            &[],
            &[("c", r#"{"id":"c","token":{"issuer":"id.b"}}"#)],
            "`tenants[2].token.issuer` repeats what stands at ringmain.toml:5",
        ),
        (
            &[("t/c.toml", "id = c")],
            &[],
            "t/c.toml:1: this is not valid TOML",
        ),
        (
            &[("t/c.toml", "")],
            &[],
            "t/c.toml:1: `tenants[2].id` is missing",
        ),
        (
            &[("t/c.toml", "id = \"c\"\n[tokens]")],
            &[],
            "t/c.toml:2: unknown key `tenants[2].tokens`; did you mean `tenants[2].token`?",
        ),
        (
            &[],
            &[("c", r#"{"id":"c","host":["h"]}"#)],
            "unknown key `tenants[2].host`",
        ),
        (&[], &[("c", "[]")], "must be a table"),
        (
            &[],
            &[("c", "{\"id\":\n\"c\"")],
            "tenant `c`, added at /admin/tenants: this is not valid JSON: line 2",
        ),
    ] {
        let text = with_files(files, added).expect_err(says);
        assert!(text.contains(says), "{text}");
    }
}

//! What is well-formed and yet could not work is refused, with what would.

use ringmain::config::{Config, ConfigError, ConfigErrors, Source};

fn load(text: &str) -> Result<Config, ConfigErrors> {
    let source = Source {
        name: "ringmain.toml",
        text,
    };
    Config::load(&[source], &[])
}

/// The one error of a text.
fn refused(text: &str) -> (String, String) {
    let errors = load(text).expect_err(text).0;
    match &errors[..] {
        [error] => (error.key().expect("a key").to_owned(), error.to_string()),
        _ => panic!("{text}: {errors:?}"),
    }
}

#[test]
fn origin_that_can_never_match_is_refused_where_it_stands() {
    let text = "[client]\nallowed_origins = [\n\"https://a.example\",\n\"https://b.example/\",\n\"c.example\"]\n";
    let errors = load(text).expect_err("two of them").0;
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "ringmain.toml:4: `client.allowed_origins`: \"https://b.example/\" can never match: nothing stands behind the host and port of an origin; write \"https://b.example\"",
            "ringmain.toml:5: `client.allowed_origins`: \"c.example\" can never match: it has no scheme; write \"https://c.example\"",
        ]
    );
    let several = refused("[client]\nallowed_origins = [\"https://a https://b\"]");
    assert!(several.1.contains("several origins"), "{}", several.1);
    let config =
        load("[client]\nallowed_origins = [\"https://[ab].example\", \"http{,s}://x?.example\"]")
            .unwrap();
    assert!(config.allows_origin(None, Some("https://a.example")));
    assert!(config.allows_origin(None, Some("http://x1.example")));
    assert!(!config.allows_origin(None, Some("https://c.example")));
}

#[test]
fn path_that_no_client_comes_to_is_refused() {
    for (path, says) in [
        ("/a//b", "two slashes"),
        ("/a/../b", "resolve"),
        ("/./a", "resolve"),
        ("/a%20b", "as they are sent"),
        ("/{room}", "as they are sent"),
        ("connection", "write \\\"/connection\\\""),
        ("/a b", "printable"),
    ] {
        let (key, error) = refused(&format!("[websocket]\nhandler_prefix = \"{path}\""));
        assert_eq!(key, "websocket.handler_prefix");
        let says = says.replace("\\", "");
        assert!(error.contains(&says), "{path}: {error}");
    }
    for path in ["/", "/a/", "/connection/websocket//", "/a.b/c~d"] {
        load(&format!("[websocket]\nhandler_prefix = \"{path}\"")).unwrap();
    }
}

#[test]
fn endpoint_does_not_stand_before_the_server_api() {
    for path in ["/api", "/api/", "/api/publish"] {
        let (key, error) = refused(&format!("[websocket]\nhandler_prefix = \"{path}\""));
        assert_eq!(key, "websocket.handler_prefix");
        assert!(error.contains("the server API"), "{error}");
    }
    load("[websocket]\nhandler_prefix = \"/apis\"").unwrap();
    load("[sse]\nhandler_prefix = \"/api\"").expect("it is off");
}

#[test]
fn socket_that_the_kernel_does_not_make_is_refused() {
    let listen = |path: &str| format!("[server]\nlisten = [\"unix:{path}\"]");
    load(&listen(&format!("/{}", "x".repeat(106)))).unwrap();
    let (_, error) = refused(&listen(&format!("/{}", "x".repeat(107))));
    assert!(
        error.contains("at most 107 bytes, and this one has 108"),
        "{error}"
    );
    let (_, error) = refused(&listen("/run/ringmain/"));
    assert!(error.contains("slash"), "{error}");
    for (address, says) in [
        ("8000", "0.0.0.0:8000"),
        (":8000", "0.0.0.0:8000"),
        ("127.0.0.1", "port"),
        ("localhost:8000", "not a name"),
    ] {
        let (_, error) = refused(&format!("[server]\nlisten = [\"{address}\"]"));
        assert!(error.contains(says), "{address}: {error}");
    }
}

#[test]
fn port_of_the_admin_listener_is_its_own() {
    for (listen, admin) in [
        ("0.0.0.0:8000", "127.0.0.1:8000"),
        ("127.0.0.1:8000", "0.0.0.0:8000"),
        ("[::]:8000", "[::1]:8000"),
    ] {
        let (key, _) = refused(&format!(
            "[server]\nlisten = [\"{listen}\"]\n[admin]\nlisten = \"{admin}\""
        ));
        assert_eq!(key, "admin.listen", "{listen} {admin}");
    }
    load("[server]\nlisten = [\"127.0.0.2:8000\"]\n[admin]\nlisten = \"127.0.0.1:8000\"").unwrap();
}

#[test]
fn key_that_no_header_can_carry_is_refused_and_not_shown() {
    for (key, says) in [
        ("hunter2\\n", "ends with a line break"),
        ("hunter2\\r\\n", "ends with a line break"),
        ("hunt\\ner2", "control character"),
        ("hunter2\\u0007", "control character"),
        (" hunter2", "blanks"),
    ] {
        for table in ["http_api", "admin"] {
            let (path, error) = refused(&format!("[{table}]\nkey = \"{key}\""));
            assert_eq!(path, format!("{table}.key"));
            assert!(error.contains(says) && !error.contains("hunt"), "{error}");
        }
    }
}

#[test]
fn header_that_frames_the_message_is_not_a_static_one() {
    let with = |name: &str| {
        format!("[client.proxy.connect.http]\nstatic_headers = {{ \"{name}\" = \"hunter2\" }}")
    };
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Content-Type",
        "X-Ringmain-Signature",
    ] {
        let (_, error) = refused(&with(name));
        assert!(
            error.contains("own to set") && !error.contains("hunter2"),
            "{error}"
        );
    }
    load(&with("Authorization")).unwrap();
    for endpoint in ["http://backend:0/", "http://backend:70000/"] {
        let (key, _) = refused(&format!("[rpc.proxy]\nendpoint = \"{endpoint}\""));
        assert_eq!(key, "rpc.proxy.endpoint");
    }
}

#[test]
fn times_and_sizes_that_exclude_each_other_are_refused() {
    let (key, _) = refused("[poll]\ntimeout = \"2m\"");
    assert_eq!(key, "poll.timeout");
    let (key, _) = refused("[poll]\nmax_timeout = \"5s\"");
    assert_eq!(key, "poll.max_timeout");
    let (key, error) = refused(
        "[client]\nqueue_max_size = 4096\n[[channel.namespaces]]\nname = \"chat\"\nsize_max = 4097",
    );
    assert_eq!(key, "channel.namespaces[0].size_max");
    assert!(error.contains("disconnected as slow"), "{error}");
    load(
        "[client]\nqueue_max_size = 4096\n[[channel.namespaces]]\nname = \"chat\"\nsize_max = 4096",
    )
    .unwrap();
}

#[test]
fn regular_expression_that_matches_no_text_is_refused() {
    for (text, key) in [
        (
            "[client.token]\naudience_regex = \"edge$x\"",
            "client.token.audience_regex",
        ),
        (
            "[client.token]\nissuer_regex = \"a^b\"",
            "client.token.issuer_regex",
        ),
        (
            "[channel.without_namespace]\nchannel_regex = '[^\\s\\S]'",
            "channel.without_namespace.channel_regex",
        ),
    ] {
        let (found, error) = refused(text);
        assert_eq!(found, key);
        assert!(error.contains("matches no text"), "{error}");
    }
}

#[test]
fn log_in_nats_has_a_server() {
    let (key, _) = refused(
        "[durable]\nengine = \"nats\"\n[durable.nats]\nservers = []\n[channel.without_namespace]\ndelivery = \"durable\"",
    );
    assert_eq!(key, "durable.nats.servers");
    for server in [
        "nats://a:99999",
        "nats://",
        "nats://a b",
        "nats://a:x",
        "http://a",
    ] {
        let (key, _) = refused(&format!("[durable.nats]\nservers = [\"{server}\"]"));
        assert_eq!(key, "durable.nats.servers", "{server}");
    }
    load("[durable.nats]\nservers = [\"nats://a\", \"tls://[::1]:4222\", \"wss://a/path\"]")
        .unwrap();
}

#[test]
fn secrets_in_urls_are_not_shown() {
    let text = "[rpc.proxy]\nendpoint = \"https://backend.example/hook?key=hunter2&hunter2\"\n[client.token]\njwks_public_endpoint = \"https://id.example/jwks?token=hunter2\"\n[durable.nats]\nservers = [\"wss://nats.example/?token=hunter2\"]";
    let effective = load(text).unwrap().effective();
    assert!(!effective.contains("hunter2"), "{effective}");
    assert!(
        effective.contains("\"https://backend.example/hook?key=***&***\""),
        "{effective}"
    );
    assert!(
        effective.contains("\"https://id.example/jwks?token=***\""),
        "{effective}"
    );
    load(&effective).unwrap_or_else(|errors| panic!("{errors}\n{effective}"));
    for refused in [
        "[rpc.proxy]\nendpoint = \"https://user:hunter2@backend/\"",
        "[client.token]\njwks_public_endpoint = \"ftp://id?hunter2\"",
        "[durable.nats]\nservers = [\"nats://hunter2@x\"]",
        "[client]\nallowed_origins = [\"https://user:hunter2@x/\"]",
    ] {
        let errors = load(refused).expect_err(refused);
        assert!(
            !format!("{errors} {errors:?}").contains("hunter2"),
            "{errors}"
        );
    }
    let shown = ringmain::config::shown_url("https://user:hunter2@x.example/a?b=hunter2");
    assert_eq!(shown, "https://***@x.example/a?b=***");
}

#[test]
fn error_of_this_kind_says_key_and_place() {
    let error = load("[http_api]\nkey = \"k\\n\"")
        .expect_err("a line break")
        .0
        .remove(0);
    assert!(matches!(error, ConfigError::Unworkable { .. }));
    assert!(
        error
            .to_string()
            .starts_with("ringmain.toml:2: `http_api.key`: "),
        "{error}"
    );
}

#[test]
fn namespace_that_no_name_leads_to_is_refused() {
    let named = |name: &str| format!("[[channel.namespaces]]\nname = \"{name}\"\n");
    for (text, says) in [
        (
            format!("[channel]\nnamespace_boundary = \"-\"\n{}", named("a-b")),
            "namespace_boundary",
        ),
        (
            format!("[channel]\nprivate_prefix = \"a\"\n{}", named("abc")),
            "private_prefix",
        ),
        (
            format!("[channel]\nmax_length = 5\n{}", named("chat")),
            "max_length",
        ),
    ] {
        let (key, error) = refused(&text);
        assert_eq!(key, "channel.namespaces[0].name");
        assert!(error.contains(says), "{error}");
    }
    load(&format!("[channel]\nmax_length = 6\n{}", named("chat"))).unwrap();
    let (key, _) = refused("[rpc]\nnamespace_boundary = \"-\"\n[[rpc.namespaces]]\nname = \"a-b\"");
    assert_eq!(key, "rpc.namespaces[0].name");
}

#[test]
fn transform_of_no_code_is_refused() {
    for list in [
        "client.connect_code_to_unidirectional_disconnect.transforms",
        "uni_sse.connect_code_to_http_response.transforms",
        "uni_http_stream.connect_code_to_http_response.transforms",
    ] {
        let (key, _) = refused(&format!("[[{list}]]\n"));
        assert_eq!(key, format!("{list}[0].code"));
        load(&format!("[[{list}]]\ncode = 109\n")).unwrap();
    }
}

#[test]
fn trigger_that_nothing_sets_off_is_refused() {
    let with = |trigger: &str| {
        format!(
            "[[channel.namespaces]]\nname = \"safe\"\ndelivery = \"durable\"\n[[channel.namespaces.triggers]]\nname = \"t\"\n{trigger}"
        )
    };
    let (key, _) = refused(&with("channels = \"other:*\"\nappend = \"safe:x\""));
    assert_eq!(key, "channel.namespaces[0].triggers[0].channels");
    let (key, _) = refused(&with("append = \"safe:{name}\""));
    assert_eq!(key, "channel.namespaces[0].triggers[0].append");
    for fine in [
        "channels = \"*\"",
        "channels = \"sa*\"",
        "channels = \"safe:a*\"",
        "channels = \"safe:a\"",
    ] {
        load(&with(&format!("{fine}\nappend = \"safe:large:{{rest}}\""))).unwrap();
    }
    let (key, _) = refused(
        "[channel.without_namespace]\ndelivery = \"durable\"\n[[channel.without_namespace.triggers]]\nname = \"t\"\nappend = \"x\"",
    );
    assert_eq!(key, "channel.without_namespace.triggers");
}

#[test]
fn time_to_live_belongs_to_what_a_trigger_appends() {
    let with = |trigger: &str| {
        format!(
            "[[proxies]]\nname = \"work\"\nendpoint = \"http://127.0.0.1:1/h\"\n[[channel.namespaces]]\nname = \"safe\"\ndelivery = \"durable\"\n[[channel.namespaces.triggers]]\nname = \"t\"\nttl = \"1m\"\n{trigger}"
        )
    };
    let (key, _) = refused(&with("hook = \"work\""));
    assert_eq!(key, "channel.namespaces[0].triggers[0].ttl");
    load(&with("append = \"safe:x\"")).unwrap();
}

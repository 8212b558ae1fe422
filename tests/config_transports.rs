//! Configuration of the transports beside the WebSocket: every key is read, and what cannot be is refused.

use std::time::Duration;

use ringmain::config::{Config, ConfigError, DisconnectCode, HttpAnswer, Source};

fn load(text: &str) -> Result<Config, Vec<ConfigError>> {
    let source = Source {
        name: "ringmain.toml",
        text,
    };
    Config::load(&[source], &[]).map_err(|errors| errors.0)
}

const EVERY_KEY: &str = r#"
[client.connect_code_to_unidirectional_disconnect]
enabled = true
[[client.connect_code_to_unidirectional_disconnect.transforms]]
code = 109
to = { code = 4001, reason = "renew" }

[websocket]
disabled = true
handler_prefix = "/ws/"

[http_stream]
enabled = true
handler_prefix = "/stream"
max_request_body_size = 1000

[sse]
enabled = true
handler_prefix = "/sse"
max_request_body_size = 1001

[emulation]
handler_prefix = "/say"
max_request_body_size = 1002

[uni_websocket]
enabled = true
handler_prefix = "/uni"
message_size_limit = 1003
join_push_messages = true
disable_disconnect_push = true
disable_closing_handshake = true

[uni_sse]
enabled = true
handler_prefix = "/uni-sse"
max_request_body_size = 1004

[uni_http_stream]
enabled = true
handler_prefix = "/uni-stream"
max_request_body_size = 1005
[uni_http_stream.connect_code_to_http_response]
enabled = true
[[uni_http_stream.connect_code_to_http_response.transforms]]
code = 3500
[uni_http_stream.connect_code_to_http_response.transforms.to]
status_code = 401
body = "who are you?"

[init]
enabled = true
handler_prefix = "/init"

[poll]
enabled = true
handler_prefix = "/poll"
timeout = "5s"
max_timeout = "10s"
"#;

#[test]
fn every_key_of_every_transport_is_read() {
    let config = load(EVERY_KEY).unwrap();
    let websocket = &config.websocket;
    assert_eq!(
        (websocket.disabled, websocket.handler_prefix.as_str()),
        (true, "/ws"),
        "a trailing slash says nothing"
    );
    let stream = &config.http_stream;
    assert_eq!(
        (
            stream.enabled,
            stream.handler_prefix.as_str(),
            stream.max_request_body_size
        ),
        (true, "/stream", 1000)
    );
    assert_eq!(config.sse.max_request_body_size, 1001);
    assert_eq!(
        (
            config.emulation.handler_prefix.as_str(),
            config.emulation.max_request_body_size
        ),
        ("/say", 1002)
    );
    let uni = &config.uni_websocket;
    assert_eq!(uni.message_size_limit, 1003);
    assert!(
        uni.enabled
            && uni.join_push_messages
            && uni.disable_disconnect_push
            && uni.disable_closing_handshake
    );
    assert_eq!(config.uni_sse.max_request_body_size, 1004);
    assert!(!config.uni_sse.connect_code_to_http_response.enabled);
    let answer = HttpAnswer {
        status_code: 401,
        body: "who are you?".to_owned(),
    };
    let answers = &config.uni_http_stream.connect_code_to_http_response;
    assert_eq!(answers.of(3500), Some(&answer));
    let disconnects = &config.client.connect_code_to_unidirectional_disconnect;
    let disconnect = DisconnectCode {
        code: 4001,
        reason: "renew".to_owned(),
    };
    assert_eq!(disconnects.of(109), Some(&disconnect));
    assert!(config.init.enabled && config.init.handler_prefix == "/init");
    assert_eq!(
        (config.poll.timeout, config.poll.max_timeout),
        (Duration::from_secs(5), Duration::from_secs(10))
    );
    let effective = config.effective();
    assert_eq!(load(&effective), Ok(config), "{effective}");
}

#[test]
fn endpoints_are_at_different_paths_unless_one_is_off() {
    let errors = load("[sse]\nenabled = true\nhandler_prefix = \"/connection/websocket\"\n");
    assert!(
        matches!(&errors.unwrap_err()[..], [ConfigError::Repeated { key, .. }] if key == "sse.handler_prefix")
    );
    load("[sse]\nenabled = false\nhandler_prefix = \"/connection/websocket\"\n").unwrap();
    let errors = load(
        "[http_stream]\nenabled = true\nhandler_prefix = \"/x\"\n[emulation]\nhandler_prefix = \"/x/\"\n",
    );
    assert!(
        matches!(&errors.unwrap_err()[..], [ConfigError::Repeated { key, .. }] if key == "emulation.handler_prefix")
    );
}

#[test]
fn paths_and_reasons_that_no_client_could_use_are_refused() {
    for path in ["", "connection", "/a b", "/a?b", "/a#b", "/\u{e4}"] {
        let text = format!("[websocket]\nhandler_prefix = \"{path}\"\n");
        assert!(
            matches!(
                &load(&text).unwrap_err()[..],
                [ConfigError::Malformed { .. } | ConfigError::Unworkable { .. }]
            ),
            "{path:?}"
        );
    }
    for (code, reason) in [
        (2999, "x"),
        (5000, "x"),
        (4000, ""),
        (4000, "{}"),
        (4000, "7"),
    ] {
        let text = format!(
            "[[client.connect_code_to_unidirectional_disconnect.transforms]]\ncode = 100\nto = {{ code = {code}, reason = '{reason}' }}\n"
        );
        assert_eq!(load(&text).unwrap_err().len(), 1, "{code} {reason:?}");
    }
}

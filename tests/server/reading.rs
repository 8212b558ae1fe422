//! What a client sends ahead of its answers waits in its socket, not in the server.

use serde_json::json;

use crate::support::client::tcp;
use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, Server, config};

fn server() -> Server {
    Server::start(&config(
        r#"
[client]
allow_anonymous_connect_without_token = true

[poll]
enabled = true

[channel.without_namespace]
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#,
    ))
}

#[test]
fn requests_behind_a_long_poll_wait_in_the_socket_and_are_answered_in_order() {
    const REQUESTS: usize = 600;
    let server = server();
    let socket = tcp(server.listen);
    let mut writer = socket.try_clone().expect("a second handle");
    let mut http = Http::over(socket);
    http.send(&encode(
        "GET",
        "/connection/poll?channel=waits&timeout=60",
        &[],
        b"",
    ));
    // 12 MB: more than the kernel's buffers take, so the writer stands until the server reads again.
    let fill = "x".repeat(20_000);
    let writer = std::thread::spawn(move || {
        for n in 1..=REQUESTS {
            let body = json!({ "channel": "sent", "data": { "n": n, "fill": fill } }).to_string();
            let request = encode(
                "POST",
                "/api/publish",
                &[("X-API-Key", API_KEY)],
                body.as_bytes(),
            );
            std::io::Write::write_all(&mut writer, &request).expect("the server reads on");
        }
    });
    crate::support::wait::until("the connection to be read no further", || {
        (server.metric("ringmain_receives_paused_total") > 0.0).then_some(())
    });
    server.api_result("publish", &json!({ "channel": "waits", "data": 1 }));
    assert_eq!(http.response().expect("the poll's answer").status, 200);
    for n in 1..=REQUESTS {
        let response = http.response().unwrap_or_else(|| panic!("answer {n}"));
        assert_eq!(response.json()["result"]["offset"], n);
    }
    writer.join().expect("everything was taken");
}

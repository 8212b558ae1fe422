//! A NATS server that stands still: publishers wait for it once, are refused at once from then on, and are served when it goes on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::nats_server::NatsServer;
use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, Start, config, signal};
use crate::support::wait;

/// A publisher waits so long.
const PATIENCE: Duration = Duration::from_millis(1500);

fn start(nats: &NatsServer) -> Server {
    let rules = config(&format!(
        r#"
[client]
insecure = true

[durable]
engine = "nats"
append_timeout = "1500ms"
nats.servers = ["{}"]

[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#,
        nats.url()
    ));
    let server = Start::with_config(&rules).shards(2).run();
    wait::until("the log", || {
        let published = publish(&server, "first");
        published.get("error").is_none().then_some(())
    });
    server
}

fn publish(server: &Server, key: &str) -> Value {
    let body = json!({ "channel": "orders:1", "data": key, "idempotency_key": key });
    server.api("publish", &body)
}

fn breaker(server: &Server) -> String {
    let ready = Http::open(server.admin).get("/ready", &[]).json();
    let breaker = ready["durable"]["breaker"].as_str();
    breaker.expect("it is shown").to_owned()
}

fn await_breaker(server: &Server, state: &str) {
    wait::until(state, || (breaker(server) == state).then_some(()));
}

#[test]
fn log_that_stands_still_costs_a_wait_once_and_then_nobody_until_it_answers() {
    let nats = NatsServer::start();
    let server = start(&nats);
    let pid = nats.pid().expect("it runs");
    let mut client = Client::anonymous(&server);
    assert_eq!(breaker(&server), "closed");
    let mut acknowledged: Vec<String> = vec!["first".to_owned()];
    for round in 1..=2 {
        signal(pid, "STOP");
        // Whoever asks now waits, as the log may go on in time.
        let late = format!("late {round}");
        let began = wait::now();
        let error = publish(&server, &late)["error"]["code"].as_u64();
        assert_eq!(error, Some(100));
        assert!(began.elapsed() >= PATIENCE);
        await_breaker(&server, "open");
        let began = wait::now();
        for n in 0..20 {
            let answer = publish(&server, &format!("refused {round} {n}"));
            let error = &answer["error"];
            assert_eq!(error["code"], 100, "{answer}");
            assert!(error["retry_after_ms"].as_u64() >= Some(100), "{answer}");
        }
        let reply = client.call("publish", &json!({ "channel": "orders:1", "data": 1 }));
        assert_eq!(reply["error"]["code"], 100, "{reply}");
        assert!(
            reply["error"]["retry_after_ms"].as_u64() >= Some(100),
            "{reply}"
        );
        assert!(began.elapsed() < PATIENCE, "they did not wait");
        assert!(server.metric("ringmain_durable_breaker_state") >= 2.0);
        signal(pid, "CONT");
        // Nobody has to ask for that.
        wait::until("an answer", || (breaker(&server) != "open").then_some(()));
        let key = format!("again {round}");
        wait::until("it is kept", || {
            let answer = publish(&server, &key);
            answer.get("error").is_none().then_some(())
        });
        acknowledged.push(key);
        await_breaker(&server, "closed");
        // What was given to the log before is there once at most, and its key says where.
        assert!(publish(&server, &late).get("error").is_none());
        acknowledged.push(late);
    }
    assert!(server.metric("ringmain_durable_breaker_opened_total") >= 2.0);
    assert!(server.metric("ringmain_durable_breaker_refused_total") >= 42.0);
    let history = server.api_result("history", &json!({ "channel": "orders:1", "limit": 100 }));
    let kept = history["publications"].as_array().expect("a list");
    let kept: Vec<&str> = kept.iter().filter_map(|one| one["data"].as_str()).collect();
    for key in &acknowledged {
        let times = kept.iter().filter(|data| *data == key).count();
        assert_eq!(times, 1, "{key}: {kept:?}");
    }
    assert!(
        !kept.iter().any(|data| data.starts_with("refused")),
        "{kept:?}"
    );
}

#[test]
fn log_that_answers_in_time_is_refused_nothing() {
    let nats = NatsServer::start();
    let server = start(&nats);
    let pid = nats.pid().expect("it runs");
    for n in 0..5 {
        signal(pid, "STOP");
        let mut client = Client::anonymous(&server);
        let publish = json!({ "channel": "orders:2", "data": n });
        let id = client.send("publish", &publish);
        std::thread::park_timeout(PATIENCE / 3);
        signal(pid, "CONT");
        let reply = client.reply(id);
        assert!(reply.get("error").is_none(), "{reply}");
    }
    assert!(server.metric("ringmain_durable_breaker_refused_total") < 1.0);
}

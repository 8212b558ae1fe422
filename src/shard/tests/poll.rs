//! Long polls: when they are answered, and with what.

use super::*;
use crate::config::Glob;
use crate::mesh::build;

fn house() -> House {
    House::with(build(1), |config| {
        config.poll.enabled = true;
        config.client.allowed_origins = vec![Glob::parse("https://app.example.com").unwrap()];
        config.channels.namespaces = vec![Arc::new(Namespace {
            force_recovery: true,
            ..kept("kept", 10)
        })];
    })
}

/// Asks with this query; what comes is in the wire.
fn poll(house: &mut House, slot: u32, query: &str) -> Who {
    let who = house.accept(0, slot);
    let head = format!(
        "GET /connection/poll?{query} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example.com\r\n\r\n"
    );
    house.receive(who, head.as_bytes());
    house.go();
    who
}

/// The answer that has come, if there is one: its head and its body.
fn answer(house: &mut House, who: Who) -> Option<(String, Value)> {
    let came = std::mem::take(&mut house.wire(who).came);
    let text = String::from_utf8(came).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_owned(), serde_json::from_str(body).unwrap()))
}

fn data(body: &Value) -> Vec<Value> {
    let publications = body["publications"].as_array().unwrap();
    publications.iter().map(|one| one["data"].clone()).collect()
}

/// Publishes so many, beginning with 1.
fn fill(house: &mut House, count: u32) {
    let publisher = house.client(0, 9);
    for n in 1..=count {
        house.say(publisher, &[publish(10 + n, "kept:a", n)]);
    }
    house.go();
}

#[test]
fn poll_with_a_position_is_answered_at_once_with_what_it_has_missed() {
    let mut house = house();
    fill(&mut house, 3);
    let client = poll(&mut house, 0, "channel=kept:a&offset=1");
    let (head, body) = answer(&mut house, client).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(data(&body), [2, 3]);
    assert_eq!(body["recovered"], true);
    let head = head.to_lowercase();
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(
        head.contains("access-control-allow-origin: https://app.example.com"),
        "{head}"
    );
}

#[test]
fn poll_without_a_position_waits_for_the_next_publication_or_its_time() {
    let mut house = house();
    fill(&mut house, 3);
    let [first, second] = [0, 1].map(|slot| poll(&mut house, slot, "channel=kept:a&timeout=2"));
    assert!(answer(&mut house, first).is_none());
    house.wait(Duration::from_secs(1));
    assert!(answer(&mut house, second).is_none());
    let delivered = house.shards[0].counters().deliveries;
    let publisher = house.client(0, 2);
    house.say(publisher, &[publish(2, "kept:a", 4)]);
    house.go();
    for client in [first, second] {
        let (_, body) = answer(&mut house, client).unwrap();
        assert_eq!(data(&body), [4]);
        assert_eq!(body["offset"], 4);
    }
    assert_eq!(house.shards[0].counters().deliveries - delivered, 2);

    let client = poll(&mut house, 3, "channel=kept:a&timeout=2");
    house.wait(Duration::from_secs(1));
    assert!(answer(&mut house, client).is_none());
    house.wait(Duration::from_millis(1300));
    let (head, body) = answer(&mut house, client).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(data(&body), [0; 0]);
    assert_eq!(body["offset"], 4, "it goes on from there");
}

#[test]
fn poll_that_has_missed_what_is_not_kept_any_more_is_told_at_once() {
    let mut house = house();
    fill(&mut house, 30);
    let client = poll(&mut house, 0, "channel=kept:a&offset=1");
    let (_, body) = answer(&mut house, client).unwrap();
    assert_eq!(body["recovered"], false);
    assert_eq!(body["offset"], 30);
}

#[test]
fn poll_that_asks_for_nothing_is_refused() {
    let mut house = house();
    let client = poll(&mut house, 0, "offset=1");
    let (head, body) = answer(&mut house, client).unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(body["error"]["code"], 107);
}

#[test]
fn poll_for_bytes_that_are_no_json_is_refused() {
    let mut house = house();
    let service = house.accept(0, 0);
    let bytes = json!({ "channel": "kept:a", "b64data": "AAH/" }).to_string();
    house.receive(service, request("api/publish", &bytes).as_bytes());
    house.go();
    let client = poll(&mut house, 1, "channel=kept:a&offset=0");
    let (head, _) = answer(&mut house, client).unwrap();
    assert!(head.starts_with("HTTP/1.1 406 "), "{head}");
}

//! Checks 57, 60 – 62: the latest publication, publications as patches.

use ringmain::wire::fossil;
use serde_json::{Value, json};

use crate::recovery::slow_reader;
use crate::servers::plain;
use crate::support::client::{Client, Encoding};
use crate::support::token::sign;

/// What a subscription with delta has read so far: the bytes of its last publication.
struct Chain {
    encoding: Encoding,
    last: Vec<u8>,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            encoding: Encoding::of_the_crate(),
            last: Vec::new(),
        }
    }
}

impl Chain {
    /// Takes a publication in. Returns its payload, and whether it came as a patch.
    fn read(&mut self, publication: &Value) -> (Value, bool) {
        let data = &publication["data"];
        let told = match self.encoding {
            Encoding::Json => {
                let text = data.as_str();
                let text = text.unwrap_or_else(|| panic!("not a string: {publication}"));
                text.as_bytes().to_vec()
            }
            Encoding::Protobuf => match data["$bytes"].as_str() {
                Some(hex) => bytes_of(hex),
                None => data.to_string().into_bytes(),
            },
        };
        let is_patch = publication.get("delta").is_some();
        self.last = if is_patch {
            assert_eq!(publication["delta"], true);
            let target = fossil::apply(&self.last, &told, 1 << 20);
            target.expect("the patch fits what came before")
        } else {
            told
        };
        (serde_json::from_slice(&self.last).expect("JSON"), is_patch)
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// Long enough that a patch is worth it, and not only ASCII.
fn payload(n: u64) -> Value {
    json!({ "n": n, "text": "der flinke braune Fuchs läuft über die Straße 🦊", "list": [1, 2, 3, n] })
}

fn publish(channel: &str, n: u64) {
    let request = json!({ "channel": channel, "data": payload(n), "delta": true });
    plain().api_result("publish", &request);
}

fn subscribe(client: &mut Client, channel: &str) -> Value {
    client.ok(
        "subscribe",
        &json!({ "channel": channel, "delta": "fossil", "recoverable": true }),
    )
}

fn recover(client: &mut Client, channel: &str, epoch: &Value, offset: u64) -> Value {
    client.ok("subscribe", &json!({ "channel": channel, "delta": "fossil", "recoverable": true, "recover": true, "epoch": epoch, "offset": offset }))
}

/// Reads the publications of a subscribe result.
fn read_missed(chain: &mut Chain, result: &Value) -> Vec<(Value, bool)> {
    let missed = result["publications"]
        .as_array()
        .map_or(&[][..], |list| list);
    missed
        .iter()
        .map(|publication| chain.read(publication))
        .collect()
}

#[test]
fn c57_cache_recovery_delivers_exactly_the_latest_publication() {
    let mut client = Client::anonymous(plain());
    let result = client.subscribe("cache:c57");
    assert!(result.get("was_recovering").is_none(), "{result}");
    let epoch = result["epoch"].clone();
    for n in 1..=3 {
        plain().api_result("publish", &json!({ "channel": "cache:c57", "data": n }));
    }
    for (offset, sent) in [
        (1, &epoch),
        (0, &json!("")),
        (9, &epoch),
        (3, &json!("another0")),
    ] {
        let mut client = Client::anonymous(plain());
        let request =
            json!({ "channel": "cache:c57", "recover": true, "epoch": sent, "offset": offset });
        let result = client.ok("subscribe", &request);
        assert_eq!(result["recovered"], true, "{result}");
        assert_eq!(result["was_recovering"], true);
        assert_eq!(result["epoch"], epoch);
        assert_eq!(
            result.get("offset").map_or(Some(0), Value::as_u64),
            Some(offset),
            "the request offset"
        );
        assert_eq!(result["publications"], json!([{ "data": 3, "offset": 3 }]));
        plain().api_result(
            "publish",
            &json!({ "channel": "cache:c57-other", "data": 0 }),
        );
    }
    let mut client = Client::anonymous(plain());
    let request = json!({ "channel": "cache:c57", "recover": true, "epoch": epoch, "offset": 3 });
    let result = client.ok("subscribe", &request);
    assert_eq!(
        result["recovered"], true,
        "what the client has is not sent again"
    );
    assert!(result.get("publications").is_none(), "{result}");
    plain().api_result("publish", &json!({ "channel": "cache:c57", "data": 4 }));
    assert_eq!(client.publication("cache:c57")["offset"], 4);
}

#[test]
fn c57_cache_without_a_publication_is_recovered_only_by_whoever_has_its_position() {
    plain().api_result(
        "publish",
        &json!({ "channel": "cache:c57-empty", "data": 1 }),
    );
    plain().api_result("history_remove", &json!({ "channel": "cache:c57-empty" }));
    let mut client = Client::anonymous(plain());
    let epoch = client.subscribe("cache:c57-empty")["epoch"].clone();
    for (offset, recovered) in [(1, true), (0, false)] {
        let mut client = Client::anonymous(plain());
        let request = json!({ "channel": "cache:c57-empty", "recover": true, "epoch": epoch, "offset": offset });
        let result = client.ok("subscribe", &request);
        assert_eq!(result.get("recovered").is_some(), recovered, "{result}");
        assert_eq!(result["offset"], 1);
    }
}

#[test]
fn c57_every_subscription_starts_with_the_latest_publication() {
    let mut client = Client::anonymous(plain());
    let result = client.subscribe("latest:c57");
    assert_eq!(result["was_recovering"], true, "{result}");
    assert!(result.get("recovered").is_none(), "there is none yet");
    for n in 1..=2 {
        publish("latest:c57", n);
    }
    let latest = json!([{ "data": payload(2), "offset": 2 }]);
    let mut client = Client::anonymous(plain());
    let result = client.subscribe("latest:c57");
    assert_eq!(result["recovered"], true, "{result}");
    assert_eq!(result["publications"], latest);
    // So do subscriptions that the server makes.
    let token = sign(&json!({ "sub": "42", "channels": ["latest:c57"] }));
    let client = Client::with_token(plain(), &token);
    let result = &client.connected["subs"]["latest:c57"];
    assert_eq!(result["recovered"], true, "{result}");
    assert_eq!(result["publications"], latest);
}

#[test]
fn c60_first_publication_is_whole_and_the_next_a_patch() {
    let mut client = Client::anonymous(plain());
    let mut other = Client::anonymous(plain());
    other.subscribe("delta:c60");
    let result = subscribe(&mut client, "delta:c60");
    assert_eq!(result["delta"], true, "{result}");
    let mut chain = Chain::default();
    for n in 1..=4 {
        publish("delta:c60", n);
        let publication = client.publication("delta:c60");
        assert_eq!(publication["offset"], n);
        assert_eq!(chain.read(&publication), (payload(n), n > 1));
        assert_eq!(
            other.publication("delta:c60")["data"],
            payload(n),
            "without delta: as it is"
        );
    }
    // Whoever comes later begins with a whole one, and the others go on.
    let mut late = Client::anonymous(plain());
    subscribe(&mut late, "delta:c60");
    let mut late_chain = Chain::default();
    for n in 5..=7 {
        publish("delta:c60", n);
        assert_eq!(
            chain.read(&client.publication("delta:c60")),
            (payload(n), true)
        );
        assert_eq!(
            late_chain.read(&late.publication("delta:c60")),
            (payload(n), n > 5)
        );
    }
}

#[test]
fn c60_delta_is_granted_where_the_namespace_lists_it_and_the_type_is_known() {
    let mut client = Client::anonymous(plain());
    let result = client.ok(
        "subscribe",
        &json!({ "channel": "three:c60", "delta": "fossil" }),
    );
    assert!(result.get("delta").is_none(), "{result}");
    plain().api_result(
        "publish",
        &json!({ "channel": "three:c60", "data": { "a": 1 } }),
    );
    assert_eq!(client.publication("three:c60")["data"], json!({ "a": 1 }));
    client.send(
        "subscribe",
        &json!({ "channel": "delta:c60-type", "delta": "xdelta" }),
    );
    client.ends_with(3501);
}

#[test]
fn c60_publication_that_its_publisher_does_not_allow_is_whole_and_is_a_base() {
    let mut client = Client::anonymous(plain());
    subscribe(&mut client, "delta:c60-flag");
    let mut chain = Chain::default();
    for (n, flag) in [(1, true), (2, false), (3, true)] {
        let request = json!({ "channel": "delta:c60-flag", "data": payload(n), "delta": flag });
        plain().api_result("publish", &request);
        let read = chain.read(&client.publication("delta:c60-flag"));
        assert_eq!(read, (payload(n), n == 3));
    }
    client.publish("delta:c60-flag", &payload(4));
    let read = chain.read(&client.publication("delta:c60-flag"));
    assert_eq!(
        read,
        (payload(4), false),
        "a client's publication without `delta_publish`"
    );
}

#[test]
fn c60_subscription_without_position_gets_strings_and_no_patch() {
    let mut client = Client::anonymous(plain());
    let request = json!({ "channel": "patches:c60", "delta": "fossil" });
    assert_eq!(client.ok("subscribe", &request), json!({ "delta": true }));
    let mut positioned = Client::anonymous(plain());
    subscribe(&mut positioned, "patches:c60");
    let (mut chain, mut positioned_chain) = (Chain::default(), Chain::default());
    for n in 1..=3 {
        client.publish("patches:c60", &payload(n));
        assert_eq!(
            chain.read(&client.publication("patches:c60")),
            (payload(n), false)
        );
        let read = positioned_chain.read(&positioned.publication("patches:c60"));
        assert_eq!(
            read,
            (payload(n), n > 1),
            "`delta_publish` counts for clients too"
        );
    }
}

#[test]
fn c60_publication_outside_the_stream_is_followed_by_a_whole_one() {
    let mut client = Client::anonymous(plain());
    subscribe(&mut client, "delta:c60-skip");
    let mut chain = Chain::default();
    for n in 1..=2 {
        publish("delta:c60-skip", n);
        chain.read(&client.publication("delta:c60-skip"));
    }
    let request =
        json!({ "channel": "delta:c60-skip", "data": [0], "skip_history": true, "delta": true });
    plain().api_result("publish", &request);
    assert_eq!(
        chain.read(&client.publication("delta:c60-skip")),
        (json!([0]), false)
    );
    for n in 3..=4 {
        publish("delta:c60-skip", n);
        let read = chain.read(&client.publication("delta:c60-skip"));
        assert_eq!(read, (payload(n), n == 4));
    }
}

#[test]
fn c60_history_is_never_told_as_patches_or_strings() {
    let mut client = Client::anonymous(plain());
    subscribe(&mut client, "delta:c60-history");
    for n in 1..=3 {
        publish("delta:c60-history", n);
    }
    let history = client.ok(
        "history",
        &json!({ "channel": "delta:c60-history", "limit": 10 }),
    );
    for (at, publication) in history["publications"]
        .as_array()
        .expect("a list")
        .iter()
        .enumerate()
    {
        assert_eq!(publication["data"], payload(at as u64 + 1));
        assert!(publication.get("delta").is_none());
    }
}

#[test]
fn c61_publication_that_shares_nothing_with_the_last_is_whole() {
    let mut client = Client::anonymous(plain());
    subscribe(&mut client, "delta:c61");
    let mut chain = Chain::default();
    for (data, is_patch) in [
        (payload(1), false),
        (json!("0123456789"), false),
        (json!(7), false),
        (payload(2), false),
        (payload(3), true),
    ] {
        let request = json!({ "channel": "delta:c61", "data": data, "delta": true });
        plain().api_result("publish", &request);
        assert_eq!(
            chain.read(&client.publication("delta:c61")),
            (data, is_patch)
        );
    }
}

#[test]
fn c62_chain_across_recovery_reconstructs_every_payload() {
    let mut client = Client::anonymous(plain());
    let epoch = subscribe(&mut client, "delta:c62")["epoch"].clone();
    let mut chain = Chain::default();
    // Patches are made while somebody takes them.
    let mut witness = Client::anonymous(plain());
    subscribe(&mut witness, "delta:c62");
    let mut n = 0;
    for round in 0..6 {
        for _ in 0..2 {
            n += 1;
            publish("delta:c62", n);
            let (data, is_patch) = chain.read(&client.publication("delta:c62"));
            assert_eq!(data, payload(n));
            assert_eq!(
                is_patch,
                n > 1,
                "the first live one after recovery is a patch of the last recovered"
            );
        }
        drop(client);
        let last = n;
        for _ in 0..=round % 3 {
            n += 1;
            publish("delta:c62", n);
        }
        client = Client::anonymous(plain());
        let result = recover(&mut client, "delta:c62", &epoch, last);
        assert_eq!(result["recovered"], true, "{result}");
        assert_eq!(result["delta"], true);
        assert_eq!(result["offset"], last);
        let missed = read_missed(&mut chain, &result);
        assert_eq!(missed.len() as u64, n - last);
        for (at, (data, is_patch)) in missed.into_iter().enumerate() {
            assert_eq!(data, payload(last + 1 + at as u64));
            assert_eq!(is_patch, at > 0, "the first recovered is whole");
        }
    }
}

#[test]
fn c62_recovery_that_finds_nothing_is_followed_by_a_whole_one() {
    let mut client = Client::anonymous(plain());
    let epoch = subscribe(&mut client, "delta:c62-nothing")["epoch"].clone();
    publish("delta:c62-nothing", 1);
    client.publication("delta:c62-nothing");
    for (offset, recovered) in [(1, true), (9, false)] {
        let mut client = Client::anonymous(plain());
        let result = recover(&mut client, "delta:c62-nothing", &epoch, offset);
        assert_eq!(result.get("recovered").is_some(), recovered);
        let mut chain = Chain::default();
        let n = result["offset"].as_u64().expect("an offset");
        for next in n + 1..=n + 2 {
            publish("delta:c62-nothing", next);
            let read = chain.read(&client.publication("delta:c62-nothing"));
            assert_eq!(read, (payload(next), next == n + 2));
        }
    }
}

#[test]
fn c62_cache_recovery_begins_a_chain() {
    let mut witness = Client::anonymous(plain());
    subscribe(&mut witness, "latest:c62");
    publish("latest:c62", 1);
    publish("latest:c62", 2);
    let mut client = Client::anonymous(plain());
    let result = subscribe(&mut client, "latest:c62");
    let mut chain = Chain::default();
    assert_eq!(read_missed(&mut chain, &result), [(payload(2), false)]);
    publish("latest:c62", 3);
    let read = chain.read(&client.publication("latest:c62"));
    assert_eq!(read, (payload(3), true));
}

#[test]
fn c62_subscriber_that_lost_publications_begins_another_chain() {
    let channel = "patches:c62-lost";
    let mut client = slow_reader(&json!({}));
    client.set_read_deadline(std::time::Duration::from_secs(30));
    let epoch = subscribe(&mut client, channel)["epoch"].clone();
    for n in 0..200_u8 {
        // Every second one shares nothing with the last; each of the others is a small patch.
        let fill = char::from(b'a' + n / 2 % 26).to_string().repeat(60_000);
        plain().api_result(
            "publish",
            &json!({ "channel": channel, "data": { "fill": fill, "n": n } }),
        );
    }
    let mut chain = Chain::default();
    let mut offset = 0;
    loop {
        let push = client.push();
        if push.get("unsubscribe").is_some() {
            assert_eq!(push["unsubscribe"]["code"], 2500);
            break;
        }
        let (data, _) = chain.read(&push["pub"]);
        assert_eq!(data["n"], offset, "no hole without notice");
        offset += 1;
    }
    assert!(offset < 200, "something was lost");
    let result = recover(&mut client, channel, &epoch, offset);
    read_missed(&mut chain, &result);
    let recovered = result.get("recovered").is_some();
    for n in 1..=3 {
        publish(channel, n);
        let (data, is_patch) = chain.read(&client.publication(channel));
        assert_eq!(data, payload(n));
        assert!(
            !is_patch || n > 1 || recovered,
            "a whole one begins the chain"
        );
    }
}

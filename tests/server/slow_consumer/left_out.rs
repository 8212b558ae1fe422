//! What waits for a slow subscriber and is left out: of each key but the latest, what is too old or too much, or all of it.

use serde_json::{Value, json};

use super::{OF_EACH_KIND, Reader, Told, flood_and_end, kinds, narrow, narrow_socket, noise, told};
use crate::support::client::Encoding;
use crate::support::http::{Http, encode};
use crate::support::wait;

#[test]
fn slow_reader_of_a_conflating_channel_gets_the_latest_of_each_key() {
    let server = kinds();
    let channel = "latest:prices";
    let mut readers = Reader::of_every_transport(&server, channel);
    let named = json!({ "channel": channel, "delta": "fossil" });
    let patched = Reader::socket(&server, Encoding::Json, &json!({})).subscribed(&named);
    readers.push(("delta", patched));
    // What is left of all keys fits into a queue.
    let fill = noise(10_000);
    let publish = |data: Value| {
        server.api_result("publish", &json!({ "channel": channel, "data": data }));
    };
    for n in 0..300 {
        publish(json!({ "k": format!("a{}", n % 3), "n": n, "fill": fill }));
    }
    publish(json!({ "k": "b", "end": true }));
    for (name, reader) in &mut readers {
        let (mut seen, mut count, mut said) = (std::collections::BTreeMap::new(), 0, (0, 0));
        while !seen.contains_key("b") || count + said.0 + said.1 < 301 {
            let push = reader
                .push()
                .unwrap_or_else(|code| panic!("{name}: {code}"));
            let lost = &push["message"]["data"]["lost"];
            if lost.is_object() {
                said.0 += lost["publications"].as_u64().expect("how many");
                said.1 += lost["conflated"].as_u64().unwrap_or(0);
                continue;
            }
            count += 1;
            let data = match &push["pub"]["data"] {
                // With delta it is told as a string: whole, as nothing is its base.
                Value::String(text) => serde_json::from_str(text).expect("a whole payload"),
                data => data.clone(),
            };
            let key = data["k"].as_str().expect("a key").to_owned();
            seen.insert(key, data["n"].as_u64());
        }
        assert_eq!(count + said.1, 301, "{name}: nothing else is lost");
        assert_eq!(said.0, 0, "{name}");
        assert!(said.1 > 20, "{name}: {said:?}");
        for (key, latest) in [("a0", 297), ("a1", 298), ("a2", 299)] {
            assert_eq!(seen[key], Some(latest), "{name}");
        }
    }
    assert!(server.metric("ringmain_conflated_total") > 20.0);
}

#[test]
fn what_waits_too_long_or_is_too_much_of_one_channel_is_left_out_and_said() {
    let server = kinds();
    for (channel, metric) in [
        ("aging:news", "ringmain_aged_total"),
        ("narrow:news", "ringmain_dropped_slow_total"),
    ] {
        let mut readers = Reader::of_every_transport(&server, channel);
        let before = server.metric(metric);
        flood_and_end(&server, channel);
        wait::until("something to be left out of each outbox", || {
            (server.metric(metric) >= before + readers.len() as f64).then_some(())
        });
        if channel == "aging:news" {
            // The end may have waited too long as well.
            for (name, reader) in &mut readers {
                let (mut got, mut lost) = (0, 0);
                while got + lost < OF_EACH_KIND {
                    let push = reader
                        .push()
                        .unwrap_or_else(|code| panic!("{name}: {code}"));
                    got += u64::from(push.get("pub").is_some());
                    let said = &push["message"]["data"]["lost"];
                    lost += said["publications"].as_u64().unwrap_or(0);
                }
                assert!(lost > 0, "{name}");
            }
            continue;
        }
        for (name, reader) in &mut readers {
            match told(name, reader, channel) {
                Told::Lost { got, lost } => assert_eq!(got + lost, OF_EACH_KIND, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[test]
fn degraded_reader_goes_on_where_the_reason_of_its_end_says() {
    let server = kinds();
    let channel = "polled:news";
    let mut readers = Reader::of_every_transport(&server, channel);
    let mut slow = narrow(&server, channel);
    let count = readers.len() as f64 + 1.0;
    let fill = noise(60_000);
    let mut published = 0;
    wait::until("all of them to be told to poll", || {
        let data = json!({ "fill": fill });
        server.api_result("publish", &json!({ "channel": channel, "data": data }));
        published += 1;
        (server.metric("ringmain_disconnected_degraded_total") >= count).then_some(())
    });
    for (name, reader) in &mut readers {
        let code = loop {
            if let Err(code) = reader.push() {
                break code;
            }
        };
        assert_eq!(code, 4510, "{name}");
    }
    let ended = slow.ended();
    assert_eq!(ended.code, 4510, "SDKs stay away");
    let got = slow.unread().len() as u64;
    let target = ended.reason.strip_prefix("poll ").expect("where to poll");
    assert!(
        target.contains(&format!("offset={got}&")),
        "{target} after {got}"
    );
    let mut http = Http::over(narrow_socket(&server));
    http.send(&encode("GET", &format!("{target}&timeout=0"), &[], b""));
    let answer = http.response().expect("an answer").json();
    assert_eq!(answer["recovered"], true, "{target}: {answer}");
    assert_eq!(answer["publications"][0]["offset"], got + 1);
    assert!(published > got);
}

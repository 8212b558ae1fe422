//! How fast one connection may send: commands and bytes.

use super::image::replace;
use super::*;
use crate::mesh::build;

/// Bytes of one publication in the tests.
const SIZE: usize = 400;

fn house(shards: u16, change: impl FnOnce(&mut Config)) -> House {
    House::with(build(shards), |config| {
        config.channels.namespaces = vec![Arc::new(kept("kept", 100))];
        config.client.ping_interval = Some(Duration::from_secs(5));
        config.client.pong_timeout = Duration::from_secs(2);
        change(config);
    })
}

fn error(reply: &Value) -> Option<(u64, u64)> {
    let error = reply.get("error")?;
    Some((error["code"].as_u64()?, error["retry_after_ms"].as_u64()?))
}

fn reload(house: &mut House, change: impl FnOnce(&mut Config)) {
    let mut config = (**house.shards[0].config()).clone();
    change(&mut config);
    let config = Arc::new(config);
    for shard in &mut house.shards {
        shard.handle_control(house.now, ToShard::Reload(Arc::clone(&config)));
    }
    house.go();
}

/// All shards go on as what their images say.
fn move_all(house: &mut House) {
    for shard in &mut house.shards {
        let image = shard.to_image();
        assert_eq!(replace(shard, &image), Ok(()));
    }
}

#[test]
fn commands_beyond_the_rate_are_refused_in_their_order_and_the_next_is_taken_when_it_was_told() {
    for shards in [1, 2] {
        let mut house = house(shards, |config| {
            config.client.command_rate = 10;
            config.client.command_burst = 5;
        });
        let channel = owned_by(shards - 1, shards, "kept:");
        // Connecting is the first.
        let client = house.client(0, 0);
        let frame: Vec<Value> = (2..=8).map(|id| publish(id, &channel, id)).collect();
        house.say(client, &frame);
        house.go();
        let heard = house.heard(client);
        assert_eq!(ids(&heard), [2, 3, 4, 5, 6, 7, 8]);
        let errors: Vec<_> = heard.iter().map(error).collect();
        let refused = Some((111, 100));
        assert_eq!(errors, [None, None, None, None, refused, refused, refused]);
        assert_eq!(house.shards[0].counters().commands_too_fast, 3);
        move_all(&mut house);
        house.say(client, &[publish(9, &channel, 9)]);
        house.go();
        assert_eq!(error(&house.heard(client)[0]), refused);
        house.wait(Duration::from_millis(100));
        house.say(
            client,
            &[publish(10, &channel, 10), publish(11, &channel, 11)],
        );
        house.go();
        let heard = house.heard(client);
        assert_eq!([&heard[0], &heard[1]].map(error), [None, refused]);
        let other = house.client(0, 1);
        house.say(other, &[publish(2, &channel, 2)]);
        house.go();
        assert_eq!(error(&house.heard(other)[0]), None, "each has its own");
        reload(&mut house, |config| config.client.command_rate = 0);
        let frame: Vec<Value> = (12..60).map(|id| publish(id, &channel, id)).collect();
        house.say(client, &frame);
        house.go();
        assert!(
            house
                .heard(client)
                .iter()
                .all(|reply| error(reply).is_none())
        );
    }
}

#[test]
fn command_that_waits_for_its_turn_counts_once() {
    let mut house = house(1, |config| {
        with_backend(config);
        config.client.command_rate = 1;
        config.client.command_burst = 4;
    });
    let client = house.client(0, 0);
    house.say(client, &[rpc(2), rpc(3), rpc(4), rpc(5)]);
    house.go();
    for _ in 0..3 {
        house.answer_call(0);
        house.go();
    }
    let heard = house.heard(client);
    assert_eq!(ids(&heard), [2, 3, 4, 5]);
    assert!(heard[..3].iter().all(|reply| error(reply).is_none()));
    assert_eq!(error(&heard[3]), Some((111, 1000)));
}

#[test]
fn commands_of_a_stream_come_in_requests_and_count_for_their_session() {
    let mut house = house(1, |config| {
        config.http_stream.enabled = true;
        config.client.command_rate = 1;
        config.client.command_burst = 3;
    });
    let (stream, connected) = house.stream(0, 0);
    for id in 2..=4 {
        let status = house.emulate(10 + id, &connected, &[publish(id, "kept:a", id)]);
        assert_eq!(status, "204");
    }
    let heard = house.heard(stream);
    let errors: Vec<_> = heard.iter().map(error).collect();
    assert_eq!(errors, [None, None, Some((111, 1000))]);
}

#[test]
fn whoever_sends_too_much_is_read_at_the_rate_and_loses_nothing() {
    let mut house = house(2, |config| {
        config.client.input_rate = 1000;
        config.client.input_burst = 2000;
    });
    let channel = owned_by(1, 2, "kept:");
    let client = house.client(0, 0);
    let text = "x".repeat(SIZE - 80);
    let (mut sent, mut left) = (0, 0);
    let mut ms = 0;
    // A socket: what it sends while nobody reads comes later. It answers no ping, as that would stand behind.
    while ms < 20_000 {
        if !house.wire(client).is_paused && left == 0 {
            let ten: Vec<Value> = (0..10)
                .map(|n| publish(2 + sent + n, &channel, text.clone()))
                .collect();
            sent += 10;
            house.say(client, &ten);
            house.go();
            left = usize::from(house.wire(client).is_paused);
        }
        if ms == 4000 {
            move_all(&mut house);
        }
        house.wait(Duration::from_millis(100));
        ms += 100;
        if !house.wire(client).is_paused {
            left = 0;
        }
        if ms == 12_000 {
            house.say(client, &[json!({})]);
        }
    }
    let bytes = sent as usize * SIZE;
    assert!(
        (18_000..28_000).contains(&bytes),
        "{bytes} in twenty seconds"
    );
    assert_eq!(house.wire(client).closed, None);
    let replies = house.heard(client);
    assert_eq!(ids(&replies).len(), sent as usize);
    assert!(replies.iter().all(|reply| error(reply).is_none()));
    let slowed = house.shards[0].counters().input_slowed;
    assert!((3..10).contains(&slowed), "{slowed}");
    assert!(house.wire(client).is_paused);
    reload(&mut house, |config| config.client.input_rate = 0);
    assert!(!house.wire(client).is_paused, "a reload lets it go on");
}

#[test]
fn requests_of_services_do_not_count_and_those_of_others_do() {
    let mut house = house(1, |config| {
        config.client.input_rate = 1000;
    });
    let body = json!({ "channel": "kept:a", "data": "x".repeat(5000) }).to_string();
    let service = house.accept(0, 0);
    for _ in 0..5 {
        house.receive(service, request("api/publish", &body).as_bytes());
        house.go();
        assert!(!house.wire(service).is_paused);
    }
    let other = house.accept(0, 1);
    house.receive(other, request("nothing", &body).as_bytes());
    house.go();
    assert!(house.wire(other).is_paused);
    assert!(house.wire(other).came.starts_with(b"HTTP/1.1 404 "));
    house.wait(Duration::from_secs(6));
    assert!(!house.wire(other).is_paused);
}

#[test]
fn only_those_that_have_sent_something_of_late_are_kept_in_mind() {
    let mut house = house(1, |config| {
        config.client.ping_interval = None;
        config.client.command_rate = 10;
        config.client.input_rate = 10_000;
    });
    let clients: Vec<Who> = (0..100).map(|slot| house.client(0, slot)).collect();
    let shard = &mut house.shards[0];
    assert_eq!(shard.connections.paced(), 100);
    shard.shrink();
    assert_eq!(shard.connections.paced(), 100, "they have not all again");
    house.wait(Duration::from_secs(1));
    house.say(clients[0], &[publish(2, "kept:a", 1)]);
    house.go();
    house.shards[0].shrink();
    assert_eq!(house.shards[0].connections.paced(), 1);
    house.end(clients[0], EndCause::Reset);
    house.go();
    assert_eq!(house.shards[0].connections.paced(), 0);
}

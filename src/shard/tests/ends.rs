//! Clients that leave while what they have said waits for its turn.

use super::*;
use crate::mesh::build;

/// A house with a backend, and somebody who hears what is published in `a`.
fn house() -> (House, Who) {
    let mut house = House::with(build(1), |config| {
        with_backend(config);
        config.http_stream.enabled = true;
    });
    let reader = house.client(0, 0);
    house.say(reader, &[subscribe(2, "a")]);
    house.go();
    house.heard(reader);
    (house, reader)
}

#[test]
fn commands_in_front_of_the_end_of_a_websocket_are_carried_out() {
    for closes in [false, true] {
        let (mut house, reader) = house();
        let client = house.client(0, 1);
        house.say(client, &[rpc(2)]);
        house.say(client, &[publish(3, "a", 1), publish(4, "a", 2)]);
        if closes {
            house.receive(client, CLOSE);
        }
        house.end(client, EndCause::Eof);
        house.go();
        assert_eq!(
            house.wire(client).closed,
            None,
            "the backend has not answered"
        );
        house.answer_call(0);
        house.go();
        assert_eq!(published(&house.heard(reader)), [1, 2], "closes: {closes}");
        assert_eq!(ids(&house.heard(client))[0], 2, "closes: {closes}");
        assert_eq!(house.wire(client).closed, Some(Close::Finish));
    }
}

#[test]
fn commands_of_a_stream_that_its_client_has_left_are_carried_out() {
    for cause in [EndCause::Eof, EndCause::Reset] {
        let (mut house, reader) = house();
        let (client, told) = house.stream(0, 1);
        let commands = [rpc(2), publish(3, "a", 1), publish(4, "a", 2)];
        assert_eq!(house.emulate(10, &told, &commands), "204");
        house.end(client, cause);
        house.go();
        assert_eq!(
            house.wire(client).closed,
            None,
            "the backend has not answered"
        );
        house.answer_call(0);
        house.go();
        assert_eq!(published(&house.heard(reader)), [1, 2], "{cause:?}");
        assert_eq!(house.wire(client).closed, Some(Close::Finish), "{cause:?}");
    }
}

#[test]
fn who_left_does_not_stay_for_a_backend_that_never_answers() {
    let (mut house, reader) = house();
    let client = house.client(0, 1);
    house.say(client, &[rpc(2), publish(3, "a", 1)]);
    house.end(client, EndCause::Eof);
    house.wait(Duration::from_secs(29));
    assert_eq!(house.wire(client).closed, None);
    house.wait(Duration::from_secs(2));
    assert_eq!(house.wire(client).closed, Some(Close::Finish));
    assert_eq!(published(&house.heard(reader)), [0; 0]);
}

#[test]
fn client_that_was_told_to_go_is_looked_at_no_more() {
    let mut house = House::with(build(1), |_| {});
    let client = house.client(0, 0);
    // No command, and behind it no frame.
    house.receive(client, &frame("{}"));
    house.receive(client, &[0xff; 1000]);
    house.go();
    let wire = house.wire(client);
    assert_eq!(
        wire.came[..4],
        [0x88, 13, 0x0d, 0xad],
        "3501: {:?}",
        wire.came
    );
    assert!(wire.is_half_closed, "nothing more comes");
    let counters = house.shards[0].counters();
    assert_eq!(
        (
            counters.disconnected_bad_request,
            counters.websocket_refused
        ),
        (1, 0)
    );
    house.wait(Duration::from_secs(4));
    assert_eq!(
        house.wire(client).closed,
        None,
        "a reset would take the frame"
    );
    house.end(client, EndCause::Eof);
    house.go();
    assert_eq!(house.wire(client).closed, Some(Close::Finish));

    // Nobody is waited for longer.
    let client = house.client(0, 1);
    house.receive(client, &[0xff; 2]);
    house.go();
    assert!(house.wire(client).is_half_closed);
    house.wait(Duration::from_secs(6));
    assert_eq!(house.wire(client).closed, Some(Close::Finish));
    assert_eq!(house.shards[0].counters().websocket_refused, 1);
}

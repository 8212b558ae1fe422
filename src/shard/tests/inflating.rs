//! Small messages that inflate to large ones: a turn inflates so much, and the rest is its clients' turn in the next ones.

use super::*;
use crate::limits::ANSWERS_BYTES_MAX;
use crate::mesh::build;
use crate::shard::websocket::INFLATED_PER_TURN;
use crate::wire::websocket::deflate::Deflater;

/// Bytes of one message, inflated.
const EACH: usize = 60_000;
/// Messages after which a turn has inflated enough.
const PER_TURN: usize = INFLATED_PER_TURN.div_ceil(EACH);

/// A frame with a command that is answered at once. Around the command are blanks: they cost next to nothing on the wire.
fn inflates(id: usize) -> Vec<u8> {
    let command = json!({ "id": id, "rpc": { "method": "nobody has it", "data": 1 } }).to_string();
    let message = format!("{command}{}", " ".repeat(EACH - command.len()));
    let mut payload = Vec::new();
    Deflater::shared(6).deflate(message.as_bytes(), &mut payload);
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0xc1, 0xfe, high, low, 0, 0, 0, 0][..], &payload].concat()
}

fn frames(ids: std::ops::Range<usize>) -> Vec<u8> {
    ids.flat_map(inflates).collect()
}

fn house() -> House {
    House::with(build(1), |config| {
        config.websocket.compression = true;
        // What the server says is plain.
        config.websocket.compression_min_size = usize::MAX;
    })
}

/// A client that compression was agreed on with.
fn client(house: &mut House, slot: u32) -> Who {
    let who = house.accept(0, slot);
    let head = std::str::from_utf8(UPGRADE).unwrap();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    house.receive(
        who,
        head.replacen("\r\n\r\n", &format!("\r\n{offer}"), 1)
            .as_bytes(),
    );
    house.go();
    let head = std::mem::take(&mut house.wire(who).came);
    assert!(String::from_utf8_lossy(&head).contains("permessage-deflate"));
    house.say(who, &[json!({ "id": 1, "connect": {} })]);
    house.go();
    assert_eq!(ids(&house.heard(who)), [1]);
    who
}

/// What clients were answered in one turn: everything that waits for more is left for the next.
fn turn(house: &mut House, who: Who) -> Vec<u64> {
    house.turn_of(0);
    ids(&house.heard(who))
}

fn all(ids: std::ops::Range<usize>) -> Vec<u64> {
    ids.map(|id| id as u64).collect()
}

#[test]
fn a_turn_inflates_so_much_and_the_next_ones_go_on_in_order() {
    let mut house = house();
    let client = client(&mut house, 0);
    let begin = 10;
    let count = 3 * PER_TURN + 2;
    house.receive(client, &frames(begin..begin + count));
    assert!(house.shards[0].has_work(), "it says that it goes on");
    house.take_outputs(0);
    let mut told = ids(&house.heard(client));
    assert_eq!(told.len(), PER_TURN);
    // What comes behind them meanwhile stays behind them.
    house.receive(client, &frames(begin + count..begin + count + 2));
    house.take_outputs(0);
    assert!(house.heard(client).is_empty());
    for rest in [PER_TURN, PER_TURN, 2 + 2] {
        let heard = turn(&mut house, client);
        assert_eq!(heard.len(), rest);
        told.extend(heard);
    }
    assert_eq!(told, all(begin..begin + count + 2));
    assert!(!house.shards[0].has_work());
}

#[test]
fn all_clients_share_what_a_turn_inflates_and_who_came_first_goes_first() {
    let mut house = house();
    let clients = [client(&mut house, 0), client(&mut house, 1)];
    let plain = house.client(0, 2);
    // The first one takes the whole of this turn, the second stands behind it.
    house.receive(clients[0], &frames(10..10 + PER_TURN + 1));
    house.receive(clients[1], &frames(10..10 + PER_TURN + 1));
    // Who sends what need not be inflated waits for nobody.
    house.say(plain, &[rpc(10)]);
    house.take_outputs(0);
    let heard = |house: &mut House, who| ids(&house.heard(who)).len();
    assert_eq!(heard(&mut house, clients[0]), PER_TURN);
    assert_eq!(heard(&mut house, clients[1]), 0);
    assert_eq!(heard(&mut house, plain), 1);
    house.turn_of(0);
    assert_eq!(heard(&mut house, clients[0]), 1);
    assert_eq!(heard(&mut house, clients[1]), PER_TURN - 1);
    house.turn_of(0);
    assert_eq!(heard(&mut house, clients[1]), 2);
}

#[test]
fn a_peer_that_goes_meanwhile_is_forgotten_with_what_it_has_sent() {
    let mut house = house();
    let (gone, stays) = (client(&mut house, 0), client(&mut house, 1));
    house.receive(gone, &frames(10..10 + 2 * PER_TURN));
    house.receive(stays, &frames(10..12));
    let before = house.shards[0].counters().commands;
    house.end(gone, EndCause::Reset);
    house.take_outputs(0);
    assert_eq!(house.wire(gone).closed, Some(Close::Abort));
    // Its slot has another owner, who has said nothing.
    let next = client(&mut house, gone.1.slot);
    house.go();
    let commands = house.shards[0].counters().commands - before;
    assert_eq!(commands, 3, "two of who stays, and the connect of the next");
    assert_eq!(ids(&house.heard(stays)), [10, 11]);
    assert_eq!(ids(&house.heard(next)), [0; 0]);
    assert_eq!(house.shards[0].input_bytes_counted(), (0, 0));
}

#[test]
fn a_peer_that_says_no_more_is_answered_all_of_it() {
    let mut house = house();
    let client = client(&mut house, 0);
    let count = 2 * PER_TURN + 3;
    house.receive(client, &frames(10..10 + count));
    house.receive(client, CLOSE);
    house.end(client, EndCause::Eof);
    house.go();
    assert_eq!(ids(&house.heard(client)), all(10..10 + count));
    assert_eq!(house.wire(client).closed, Some(Close::Finish));
}

#[test]
fn a_peer_that_takes_no_answers_goes_on_where_it_was_when_it_does() {
    let mut house = house();
    let client = client(&mut house, 0);
    house.give_room(client, Some(0));
    let owed = |house: &House| house.shards[0].connections.of(client.1.slot).unsent_bytes();
    let mut next = 10;
    while owed(&house) < ANSWERS_BYTES_MAX - 500 {
        house.say(client, &[rpc(next)]);
        house.go();
        next += 1;
    }
    // Some of these are answered before it owes too much to be asked more, in the middle of a turn.
    let last = next as usize + 2 * PER_TURN;
    house.receive(client, &frames(next as usize..last));
    house.go();
    assert!(owed(&house) > ANSWERS_BYTES_MAX);
    assert!(owed(&house) < ANSWERS_BYTES_MAX + 500, "it is held up");
    house.give_room(client, None);
    assert_eq!(ids(&house.heard(client)), all(10..last));
}

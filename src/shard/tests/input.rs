//! Input that is not whole, of all connections together.

use super::*;
use crate::mesh::build;
use crate::mesh::control::FromShard;

#[test]
fn who_holds_most_goes_when_all_together_hold_too_much() {
    const MOST: usize = 400_000;
    const EACH: usize = 60_000;
    let mut house = House::with(build(1), |config| config.server.input_max_size = MOST);
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 1000000\r\n\r\n"
    );
    let half = |house: &mut House, slot, bytes| {
        let who = house.accept(0, slot);
        house.receive(who, head.as_bytes());
        house.receive(who, &vec![b' '; bytes]);
        who
    };
    let largest = half(&mut house, 0, 2 * EACH);
    let others = [1, 2, 3, 4].map(|slot| half(&mut house, slot, EACH));
    assert_eq!(house.shards[0].counters().input_given_up, 0);
    half(&mut house, 5, EACH);
    let told = |house: &House| {
        let reports = house.shards[0].reports.iter();
        let is_full = |report: &&FromShard| matches!(report, FromShard::InputFull(..));
        reports.filter(is_full).count()
    };
    assert_eq!(told(&house), 1);
    assert_eq!(house.shards[0].counters().input_given_up, 1);
    let (bytes, again) = house.shards[0].input_bytes_counted();
    assert_eq!(bytes, again);
    assert!(bytes <= MOST - MOST / 8, "there is room for the next ones");
    house.go();
    let answer = String::from_utf8_lossy(&house.wire(largest).came).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    for other in others {
        assert!(house.wire(other).came.is_empty(), "it disturbs nobody");
    }
}

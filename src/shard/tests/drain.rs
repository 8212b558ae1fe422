//! A shard that ends: whoever stood in a listener's queue is served first.

use std::time::Duration;

use super::*;
use crate::mesh::build;
use crate::mesh::control::ToShard;

#[test]
fn request_of_one_who_stood_in_the_queue_is_answered_also_where_its_socket_is_looked_at_late() {
    let mut house = House::with(build(1), |_| {});
    let old = house.accept(0, 0);
    house.shards[0].handle_control(
        house.now,
        ToShard::Drain {
            window: Duration::from_millis(100),
            grace: Duration::from_secs(60),
        },
    );
    let (served, silent) = (house.accept(0, 1), house.accept(0, 2));
    house.wait(Duration::from_millis(800));
    assert!(house.wire(old).closed.is_some(), "it has asked nothing");
    house.receive(served, request("api/info", "{}").as_bytes());
    house.go();
    let answer = String::from_utf8(house.wire(served).came.clone()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    assert!(!answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(house.wire(silent).closed, None);
    house.wait(Duration::from_millis(300));
    assert!(house.wire(silent).closed.is_some(), "a second is enough");
}

//! Commands that wait for the key of their token.

use super::order::{with_key_service, with_unknown_key};
use super::*;
use crate::config::keys::KeySource;
use crate::limits::KEY_WAITS_BYTES_MAX;
use crate::mesh::build;

#[test]
fn bytes_of_all_commands_that_wait_for_keys_have_one_bound() {
    let mut house = House::with(build(1), with_key_service);
    let clients: Vec<Who> = (0..3).map(|slot| house.client(0, slot)).collect();
    // Others hold what leaves room for one more.
    house.say(clients[0], &[with_unknown_key(2, "a")]);
    let each = house.shards[0].key_waits.bytes();
    assert!(each > 0);
    house.shards[0]
        .key_waits
        .fill(KEY_WAITS_BYTES_MAX - 2 * each);
    for client in &clients[1..] {
        house.say(*client, &[with_unknown_key(2, "a")]);
    }
    house.go();
    assert!(
        house.heard(clients[1]).is_empty(),
        "the bound is not passed"
    );
    let refused = house.heard(clients[2]);
    assert_eq!(
        (ids(&refused), &refused[0]["error"]["code"]),
        (vec![2], &json!(100))
    );
    house.shards[0].keys_answered(KeySource::Subscription, None);
    house.go();
    for client in &clients[..2] {
        let heard = house.heard(*client);
        assert_eq!(ids(&heard), [2], "{heard:?}");
    }
    let left = house.shards[0].key_waits.bytes();
    assert_eq!(left, KEY_WAITS_BYTES_MAX - 2 * each, "they gave it back");
}

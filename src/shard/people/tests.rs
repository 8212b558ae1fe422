use std::time::Duration;

use super::*;
use crate::config::TrustedProxy;

fn people(config: &Config) -> People {
    People::new(&Key::new([1; 32]), &Key::new([2; 32]), config)
}

fn conn(slot: u32) -> ConnId {
    ConnId {
        slot,
        generation: 0,
    }
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn sessions_are_found_by_their_user_and_users_are_counted_once() {
    // Whose the sessions in slots 0 to 4 are.
    const USERS: [&str; 5] = ["ann", "bob", "ann", "", "ann"];
    let user_of = |slot: u32| USERS[slot as usize];
    let mut people = people(&Config::built_in());
    // Who comes (or leaves: false); then sessions, users, slots of ann, slots of the anonymous user.
    type Row = (u32, bool, u64, u32, &'static [u32], &'static [u32]);
    let rows: [Row; 10] = [
        (0, true, 1, 1, &[0], &[]),
        (1, true, 2, 2, &[0], &[]),
        (2, true, 3, 2, &[0, 2], &[]),
        (3, true, 4, 3, &[0, 2], &[3]),
        (0, false, 3, 3, &[2], &[3]),
        (4, true, 4, 3, &[2, 4], &[3]),
        (2, false, 3, 3, &[4], &[3]),
        (4, false, 2, 2, &[], &[3]),
        (3, false, 1, 1, &[], &[]),
        (1, false, 0, 0, &[], &[]),
    ];
    for (row, (slot, comes, sessions, users, anns, nobodys)) in rows.into_iter().enumerate() {
        if comes {
            people.connected(slot, user_of);
        } else {
            people.disconnected(slot, user_of);
        }
        let sorted = |user| {
            let mut slots = people.slots_of(user, user_of);
            slots.sort_unstable();
            slots
        };
        assert_eq!(people.sessions(), sessions, "row {row}");
        assert_eq!(people.count_users().distinct, users, "row {row}");
        assert_eq!(
            people.count_users().sample.len(),
            users as usize,
            "row {row}"
        );
        assert_eq!(sorted("ann"), anns, "row {row}");
        assert_eq!(sorted(""), nobodys, "row {row}");
    }
}

#[test]
#[should_panic(expected = "a session is filed under its user while it is known")]
fn a_session_that_was_never_filed_cannot_leave() {
    people(&Config::built_in()).disconnected(0, |_| "ann");
}

#[test]
fn a_sample_of_many_users_is_bounded_and_whole_again_when_they_are_few() {
    const MANY: u32 = 20_000;
    const FEW: u32 = 100;
    let names: Vec<String> = (0..MANY).map(|user| format!("user {user}")).collect();
    let user_of = |slot: u32| names[slot as usize].as_str();
    let mut people = people(&Config::built_in());
    for slot in 0..MANY {
        people.connected(slot, user_of);
    }
    let many = people.count_users();
    assert_eq!(many.distinct, MANY);
    assert!(many.below < u64::MAX && many.sample.len() < MANY as usize / 4);
    assert!(many.sample.iter().all(|&hash| hash <= many.below));
    for slot in FEW..MANY {
        people.disconnected(slot, user_of);
    }
    let few = people.count_users();
    assert_eq!((few.distinct, few.below), (FEW, u64::MAX));
    assert_eq!(few.sample.len(), FEW as usize);
}

#[test]
fn a_registry_counts_the_connections_of_its_users() {
    let mut people = people(&Config::built_in());
    const HERE: ShardId = ShardId(0);
    const THERE: ShardId = ShardId(1);
    // Who comes, from where, of how many, displacing others; those that go for it.
    type Row = (
        &'static str,
        (ShardId, u32),
        u32,
        bool,
        Option<&'static [(ShardId, u32)]>,
    );
    let rows: [Row; 8] = [
        ("ann", (HERE, 1), 2, false, Some(&[])),
        ("ann", (THERE, 1), 2, false, Some(&[])),
        ("ann", (HERE, 2), 2, false, None),
        ("bob", (HERE, 2), 2, false, Some(&[])),
        ("ann", (HERE, 3), 2, true, Some(&[(HERE, 1)])),
        // The limit became smaller.
        ("ann", (HERE, 4), 1, true, Some(&[(THERE, 1), (HERE, 3)])),
        // A limit of none is one of one.
        ("eve", (THERE, 5), 0, false, Some(&[])),
        ("eve", (THERE, 6), 0, false, None),
    ];
    for (row, (user, (shard, slot), limit, displaces, wanted)) in rows.into_iter().enumerate() {
        let gone = people.admit(user, (shard, conn(slot)), limit, displaces);
        let wanted: Option<Vec<_>> = wanted.map(|gone| {
            let gone = gone.iter();
            gone.map(|&(shard, slot)| (shard, conn(slot))).collect()
        });
        assert_eq!(gone, wanted, "row {row}");
    }
    // One that was displaced has left already; the last one takes its user along.
    people.release("ann", HERE, conn(1));
    people.release("bob", HERE, conn(2));
    people.release("eve", HERE, conn(5));
    let mut registered = people.registered();
    registered.sort_unstable();
    assert_eq!(registered, [("ann".into(), 1), ("eve".into(), 1)]);
}

#[test]
fn a_client_is_let_in_once_and_leaves_under_what_it_was_counted_under() {
    let mut config = Config::built_in();
    let mut people = people(&config);
    people.came(&config, 1, address("10.0.0.1"));
    assert_eq!(
        people.let_in(&config.client, 1, None),
        LetIn::Yes,
        "no limit"
    );
    assert_eq!(people.left(1), None, "and nobody counted it");

    config.client.connection_limit_per_prefix = 1;
    people.came(&config, 1, address("10.0.0.1"));
    let from = people.client_address(&config, 1, ["6.6.6.6"].into_iter());
    assert_eq!(from, address("10.0.0.1"), "who trusts nobody hears nobody");
    let LetIn::Ask(prefix) = people.let_in(&config.client, 1, from) else {
        panic!("a limit is asked about");
    };
    assert!(people.is_asked(1) && prefix.is_some());
    assert_eq!(
        people.client_address(&config, 1, [].into_iter()),
        None,
        "it was asked about already"
    );
    people.entered(1, prefix);
    assert_eq!(people.let_in(&config.client, 1, None), LetIn::Yes);
    assert_eq!((people.is_asked(1), people.here()), (false, 1));
    assert_eq!(people.left(1), Some(prefix));
    assert_eq!((people.left(1), people.here()), (None, 0));
}

#[test]
fn who_is_here_when_limits_come_is_counted_once() {
    let mut config = Config::built_in();
    config.client.connection_limit = 10;
    let mut people = people(&config);
    assert_eq!(people.let_in(&config.client, 2, None), LetIn::Ask(None));
    people.entered(2, None);
    assert_eq!(people.let_in(&config.client, 3, None), LetIn::Ask(None));
    assert_eq!(people.adopt([1, 2, 3, 4].into_iter()), 2, "2 is in, 3 asks");
    assert_eq!(people.adopt([1, 4].into_iter()), 0);
    assert_eq!(people.left(4), Some(None));
}

#[test]
fn clients_of_one_prefix_stand_for_each_other_wherever_they_come_in() {
    let mut config = Config::built_in();
    config.client.ipv4_prefix = 24;
    config.server.trusted_proxies = vec![TrustedProxy::parse("10.0.0.0/8").unwrap()];
    let mut people = people(&config);
    let mut other = People::new(&Key::new([9; 32]), &Key::new([2; 32]), &config);
    people.came(&config, 1, address("1.1.1.1"));
    people.came(&config, 2, address("1.1.1.200"));
    people.came(&config, 3, address("1.1.2.1"));
    people.came(&config, 4, address("10.0.0.1"));
    other.came(&config, 7, address("1.1.1.7"));
    let from = people.client_address(&config, 4, ["1.1.1.9"].into_iter());
    assert_eq!(from, None, "no limit needs it");
    let one = people.prefix_at(1);
    assert_ne!(one, 0);
    assert_eq!([people.prefix_at(2), people.prefix_at(4)], [one; 2]);
    assert_eq!(other.prefix_at(7), one, "another shard of the process");
    assert_ne!(people.prefix_at(3), one);
    assert_eq!((people.prefix_at(0), people.prefix_at(99)), (0, 0));
}

#[test]
fn a_prefix_with_many_invalid_tokens_is_barred_for_a_while_and_no_other() {
    let mut config = Config::built_in();
    config.client.invalid_token_rate_per_prefix = 2;
    let mut people = people(&config);
    let client = &config.client;
    let start = Instant::START + Duration::from_secs(5);
    people.came(&config, 1, address("1.1.1.1"));
    people.came(&config, 2, address("2.2.2.2"));
    people.came(&config, 3, None);
    for slot in [1, 1, 3, 3] {
        assert!(!people.is_offender(client, slot, start));
        people.add_offender(client, slot, start);
    }
    assert!(people.is_offender(client, 1, start));
    assert!(!people.is_offender(client, 2, start), "another prefix");
    assert!(!people.is_offender(client, 3, start), "nobody knows whose");
    let later = start + Duration::from_millis(501);
    assert!(!people.is_offender(client, 1, later));
    config.client.invalid_token_rate_per_prefix = 0;
    assert!(
        !people.is_offender(&config.client, 1, start),
        "not asked for"
    );
}

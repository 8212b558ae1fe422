//! What an owner keeps, and what it does not.

mod image;

use bytes::Bytes;

use super::*;
use crate::config::Namespace;
use crate::config::namespace::Delivery;
use crate::mesh::durable::{Page, Span};
use crate::mesh::message::{QueryFor, Recover};
use crate::model::{AskId, ConnId, HubId, Since};

const KEPT: Duration = Duration::from_secs(60);
const META: Duration = Duration::from_secs(3600);
const SHARD: ShardId = ShardId(0);

fn at(seconds: u64) -> Now {
    Now {
        at: Instant::START + Duration::from_secs(seconds),
        unix_ms: 1_700_000_000_000 + seconds * 1000,
    }
}

/// `kept:…` has history, `safe:…` is durable, the others keep nothing.
fn rules() -> ChannelRules {
    let kept = Namespace {
        name: "kept".to_owned(),
        history_size: 10,
        history_ttl: KEPT,
        history_meta_ttl: META,
        ..Namespace::default()
    };
    let safe = Namespace {
        name: "safe".to_owned(),
        delivery: Delivery::Durable,
        ..kept.clone()
    };
    ChannelRules {
        namespaces: vec![Arc::new(kept), Arc::new(safe)],
        ..ChannelRules::default()
    }
}

const CONN: ConnId = ConnId {
    slot: 0,
    generation: 0,
};
const HUB: HubId = HubId {
    slot: 0,
    generation: 0,
};
const SUBSCRIBER: (ShardId, InterestFor) = (
    SHARD,
    InterestFor(AskId {
        slot: 0,
        generation: 0,
    }),
);
const ASKER: QueryFor = QueryFor::Client { conn: CONN, id: 1 };

fn owner() -> Owner {
    Owner::new(&Key::new([1; 32]))
}

fn publish(channel: &str) -> Box<Draft> {
    let rules = rules();
    let namespace = rules.resolve(channel).unwrap();
    let data = Bytes::from_static(b"1");
    let channel = ChannelName::from_whole(channel);
    Box::new(Draft::new(namespace.terms(), channel, data, true))
}

fn keyed(mut draft: Box<Draft>) -> Box<Draft> {
    draft.record.key = "k".into();
    draft
}

fn by(channel: &str, user: &str, client: u128, prefix: u32) -> Box<Draft> {
    let mut draft = publish(channel);
    draft.prefix = prefix;
    draft.record.publisher = Some(Arc::new(ClientInfo {
        user: user.into(),
        client: ClientId(client),
        conn_info: Bytes::new(),
        chan_info: Bytes::new(),
    }));
    draft
}

fn ask(owner: &mut Owner, now: Now, channel: &str, what: QueryKind) -> AnswerKind {
    let query = Query {
        channel: ChannelName::from_whole(channel),
        what,
    };
    owner.query(now, &query, &rules())
}

const HISTORY: QueryKind = QueryKind::History {
    limit: 100,
    since: None,
    reverse: false,
};

fn history(owner: &mut Owner, now: Now, channel: &str) -> (usize, StreamPosition) {
    match ask(owner, now, channel, HISTORY) {
        AnswerKind::History(page, position, _) => (page.len(), position),
        other => panic!("{other:?}"),
    }
}

fn interest(channel: &str, from: Option<StreamPosition>) -> Box<Interest> {
    Box::new(Interest {
        channel: ChannelName::from_whole(channel),
        hub: HUB,
        recover: from.map(|from| Recover {
            epoch: Since::Epoch(from.epoch),
            offset: from.offset.0,
            limit: 100,
            cache: false,
        }),
        presence: None,
        keep: false,
        join: false,
        delta: false,
    })
}

fn enter(owner: &mut Owner, now: Now, channel: &str, from: Option<StreamPosition>) -> Interested {
    let answer = owner.interest(
        now,
        SUBSCRIBER,
        interest(channel, from),
        Tries::FIRST,
        &rules(),
    );
    answer.expect("not durable")
}

fn leave(owner: &mut Owner, now: Now, channel: &str) {
    let leave = Leave {
        channel: ChannelName::from_whole(channel),
        hub: HUB,
        info: None,
        leave: false,
        last: true,
    };
    owner.leave(now, SHARD, leave);
}

/// Everything that is due until then, as the shard does it: again and again while there is more.
fn sweep(owner: &mut Owner, now: Now) -> usize {
    let mut sweeps = 0;
    while owner.next_sweep().is_some_and(|next| next <= now.at) {
        owner.sweep(now);
        sweeps += 1;
        assert!(sweeps < 10_000, "a sweep leaves nothing due for ever");
    }
    sweeps
}

#[test]
fn publication_says_whether_its_publisher_allows_a_patch() {
    let mut owner = owner();
    for delta in [true, false] {
        let mut draft = publish("c");
        draft.version = 1 + u64::from(!delta);
        draft.record.delta = delta;
        let outcome = owner.publish(at(0), draft, &rules()).unwrap();
        assert_eq!(outcome.deliver.unwrap().publication.delta, delta);
    }
}

#[test]
fn reload_between_door_and_owner_keeps_to_the_rules_in_force() {
    let without = |name: &str| {
        let mut rules = rules();
        rules.namespaces.retain(|namespace| namespace.name != name);
        rules
    };
    // The namespace is gone: nothing is kept by the old rules.
    let mut owner = owner();
    let refused = owner.publish(at(0), publish("kept:a"), &without("kept"));
    assert_eq!(refused.err(), Some(PublishError::UnknownChannel));
    assert!(owner.is_empty());
    // It keeps nothing any more: nobody listens, and no record stays.
    let mut passing = rules();
    passing.namespaces[0] = Arc::new(Namespace {
        name: "kept".to_owned(),
        ..Namespace::default()
    });
    let outcome = owner.publish(at(0), publish("kept:a"), &passing).unwrap();
    assert_eq!(outcome.position.offset, Offset(0));
    assert!(owner.is_empty());
    // It is durable now: the publication did not go to the log, and its publisher tries again.
    let mut durable = rules();
    durable.namespaces[0] = Arc::new(Namespace {
        delivery: Delivery::Durable,
        ..Namespace::clone(&rules().namespaces[0])
    });
    let refused = owner.publish(at(0), publish("kept:a"), &durable);
    assert_eq!(refused.err(), Some(PublishError::Overloaded));
    assert!(owner.is_empty());
    // Where there is a record, its namespace counts, which a reload has changed.
    enter(&mut owner, at(1), "kept:a", None);
    owner.reload(&passing);
    let outcome = owner.publish(at(1), publish("kept:a"), &passing).unwrap();
    assert_eq!(outcome.position.offset, Offset(0));
    assert_eq!(outcome.deliver.unwrap().shards, 1);
    owner.reload(&durable);
    let refused = owner.publish(at(1), publish("kept:a"), &durable);
    assert_eq!(refused.err(), Some(PublishError::Overloaded));
}

#[test]
fn questions_about_unknown_channels_leave_nothing_behind() {
    let mut owner = owner();
    for channel in ["kept:a", "plain", "kept:b"] {
        for what in [
            QueryKind::EVERYBODY,
            QueryKind::PresenceStats,
            QueryKind::HistoryRemove,
            HISTORY,
        ] {
            ask(&mut owner, at(0), channel, what);
            assert!(owner.is_empty(), "{channel} {what:?}");
        }
    }
    let mut unkept = publish("kept:a");
    unkept.skip_history = true;
    owner.publish(at(0), unkept, &rules()).unwrap();
    owner.publish(at(0), publish("plain"), &rules()).unwrap();
    assert!(owner.is_empty());
    assert_eq!(owner.next_sweep(), None);
}

#[test]
fn channel_without_publications_is_forgotten_with_its_last_subscriber() {
    let mut owner = owner();
    for channel in ["kept:a", "plain"] {
        enter(&mut owner, at(0), channel, None);
        assert_eq!((owner.len(), owner.active()), (1, 1));
        leave(&mut owner, at(1), channel);
        assert_eq!((owner.len(), owner.active()), (0, 0), "{channel}");
    }
}

#[test]
fn position_before_the_first_publication_stays_true_without_a_record() {
    let mut owner = owner();
    let (_, asked) = history(&mut owner, at(0), "kept:a");
    let subscribed = enter(&mut owner, at(1), "kept:a", None).position;
    assert_eq!(asked, subscribed);
    leave(&mut owner, at(2), "kept:a");
    let again = enter(&mut owner, at(3), "kept:a", Some(asked));
    assert!(again.recovered && again.missed.is_empty());
    leave(&mut owner, at(4), "kept:a");
    owner.publish(at(5), publish("kept:a"), &rules()).unwrap();
    let later = enter(&mut owner, at(6), "kept:a", Some(asked));
    assert!(later.recovered, "the same life");
    assert_eq!(later.missed.len(), 1);
}

#[test]
fn old_position_means_nothing_in_the_next_life_of_a_channel() {
    let mut owner = owner();
    let first = owner.publish(at(0), publish("kept:a"), &rules()).unwrap();
    sweep(&mut owner, at(7200));
    assert!(owner.is_empty());
    owner
        .publish(at(10_000), publish("kept:a"), &rules())
        .unwrap();
    let back = enter(&mut owner, at(10_001), "kept:a", Some(first.position));
    assert!(!back.recovered);
    assert_ne!(back.position.epoch, first.position.epoch);
    assert_eq!(back.position.offset, first.position.offset);
}

#[test]
fn version_outlives_the_sweep_in_a_channel_without_history() {
    let mut owner = owner();
    let version = |version| {
        let mut draft = publish("c");
        draft.version = version;
        draft
    };
    let is_new = |owner: &mut Owner, now, n| {
        let outcome = owner.publish(now, version(n), &rules()).unwrap();
        outcome.deliver.is_some()
    };
    assert!(is_new(&mut owner, at(0), 5));
    sweep(&mut owner, at(60));
    assert!(!is_new(&mut owner, at(60), 5));
    assert!(is_new(&mut owner, at(60), 6));
    sweep(&mut owner, at(721 * 3600));
    assert!(owner.is_empty(), "it ends with `history_meta_ttl`");
}

#[test]
fn key_alone_makes_no_record_of_a_channel_and_counts_in_each() {
    let mut owner = owner();
    let keyed = |channel| keyed(publish(channel));
    owner.publish(at(0), keyed("plain"), &rules()).unwrap();
    assert!(owner.is_empty());
    assert_eq!(owner.counts().keys, 1);
    enter(&mut owner, at(1), "plain", None);
    let again = owner.publish(at(1), keyed("plain"), &rules()).unwrap();
    assert!(again.deliver.is_none(), "it was made");
    let other = owner.publish(at(1), keyed("kept:a"), &rules()).unwrap();
    assert!(other.deliver.is_some());
    sweep(&mut owner, at(302));
    assert_eq!(owner.counts().keys, 0);
}

#[test]
fn history_and_keys_do_not_notice_a_wall_clock_that_is_set() {
    for step_ms in [600_000_i64, -600_000, 7 * 3_600_000, -7 * 3_600_000] {
        let set = |now: Now| Now {
            unix_ms: now.unix_ms.saturating_add_signed(step_ms),
            ..now
        };
        let mut owner = owner();
        let first = keyed(publish("kept:a"));
        owner.publish(at(0), first, &rules()).unwrap();
        sweep(&mut owner, set(at(1)));
        assert_eq!(history(&mut owner, set(at(59)), "kept:a").0, 1, "{step_ms}");
        assert_eq!(history(&mut owner, set(at(60)), "kept:a").0, 0, "{step_ms}");
        let again = keyed(publish("kept:a"));
        let again = owner.publish(set(at(61)), again, &rules()).unwrap();
        assert!(again.deliver.is_none(), "{step_ms}");
    }
}

#[test]
fn sweep_forgets_a_bounded_number_of_publications_however_few_channels_have_them() {
    const EACH: usize = 5000;
    let kept = Namespace {
        history_size: EACH as u32,
        ..Namespace::clone(&rules().namespaces[0])
    };
    let rules = ChannelRules {
        namespaces: vec![Arc::new(kept)],
        ..ChannelRules::default()
    };
    let mut owner = owner();
    for n in 0..4 * EACH {
        let name = format!("kept:{}", n % 4);
        owner.publish(at(0), publish(&name), &rules).unwrap();
    }
    let kept = |owner: &Owner| owner.inspect().iter().map(|one| one.kept.len()).sum();
    let (mut before, mut sweeps): (usize, _) = (kept(&owner), 0);
    while owner.next_sweep().is_some_and(|next| next <= at(120).at) {
        owner.sweep(at(120));
        let left = kept(&owner);
        assert!(before - left <= 8192, "{} at once", before - left);
        (before, sweeps) = (left, sweeps + 1);
    }
    assert_eq!((before, sweeps), (0, 3), "the next one follows at once");
}

#[test]
fn sweeping_keeps_up_with_what_made_the_work_in_steps_of_a_bounded_size() {
    let mut owner = owner();
    for n in 0..5000 {
        let name = format!("kept:{n}");
        owner.publish(at(0), publish(&name), &rules()).unwrap();
    }
    let first = owner.next_sweep().unwrap();
    assert!(first <= at(120).at);
    owner.sweep(at(120));
    let left = owner
        .inspect()
        .iter()
        .filter(|one| !one.kept.is_empty())
        .count();
    assert_eq!(left, 5000 - 1024, "one sweep has a bound");
    assert!(
        sweep(&mut owner, at(120)) <= 5,
        "the next ones follow at once"
    );
    assert!(sweep(&mut owner, at(3601)) <= 6);
    assert!(owner.is_empty());
}

#[test]
fn full_table_forgets_the_channel_without_subscribers_that_was_used_longest_ago() {
    let rules = ChannelRules {
        owned_limit: 3,
        ..rules()
    };
    let mut owner = owner();
    let put =
        |owner: &mut Owner, second, channel| owner.publish(at(second), publish(channel), &rules);
    for (second, channel) in [(0, "kept:a"), (1, "kept:b"), (2, "kept:c")] {
        put(&mut owner, second, channel).unwrap();
    }
    enter(&mut owner, at(3), "kept:a", None);
    history(&mut owner, at(4), "kept:b");
    put(&mut owner, 5, "kept:d").unwrap();
    assert_eq!(
        names(&owner),
        ["kept:a", "kept:b", "kept:d"],
        "c was used before b"
    );
    let answer = owner.interest(
        at(6),
        SUBSCRIBER,
        interest("plain", None),
        Tries::FIRST,
        &rules,
    );
    assert!(answer.unwrap().refused.is_none());
    assert_eq!(names(&owner), ["kept:a", "kept:d", "plain"]);
    let answer = owner.interest(
        at(7),
        SUBSCRIBER,
        interest("plain2", None),
        Tries::FIRST,
        &rules,
    );
    assert!(answer.unwrap().refused.is_none());
    let refused = put(&mut owner, 8, "kept:e").map(|outcome| outcome.position);
    assert_eq!(
        refused,
        Err(PublishError::Overloaded),
        "all have subscribers"
    );
    assert_eq!(
        (owner.counts().evicted, owner.counts().refused_full),
        (3, 1)
    );
}

fn names(owner: &Owner) -> Vec<String> {
    let names = owner
        .inspect()
        .into_iter()
        .map(|one| one.name.whole().to_owned());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

#[test]
fn client_that_makes_too_many_channels_loses_its_own() {
    let rules = ChannelRules {
        kept_limit_per_user: 3,
        kept_limit_per_prefix: 5,
        ..rules()
    };
    let mut owner = owner();
    owner
        .publish(at(0), by("kept:other", "7", 7, 77), &rules)
        .unwrap();
    owner
        .publish(at(0), publish("kept:service"), &rules)
        .unwrap();
    for n in 0..20 {
        let name = format!("kept:{n}");
        owner.publish(at(1), by(&name, "42", 1, 4), &rules).unwrap();
    }
    assert_eq!(
        names(&owner),
        [
            "kept:17",
            "kept:18",
            "kept:19",
            "kept:other",
            "kept:service"
        ]
    );
    for n in 20..40 {
        let name = format!("kept:{n}");
        let user = n.to_string();
        owner
            .publish(at(2), by(&name, &user, 2, 4), &rules)
            .unwrap();
    }
    assert_eq!(
        names(&owner).len(),
        7,
        "five of the prefix, whoever made them"
    );
    assert!(names(&owner).contains(&"kept:other".to_owned()));
    for n in 40..60 {
        let name = format!("kept:{n}");
        owner.publish(at(3), by(&name, "", 9, 0), &rules).unwrap();
    }
    assert_eq!(
        names(&owner).len(),
        10,
        "an anonymous one counts by its connection"
    );
    enter(&mut owner, at(4), "kept:57", None);
    enter(&mut owner, at(4), "kept:58", None);
    owner
        .publish(at(5), by("kept:60", "", 9, 0), &rules)
        .unwrap();
    assert!(
        names(&owner).contains(&"kept:57".to_owned()),
        "it has a subscriber"
    );
}

#[test]
fn client_that_subscribes_before_it_publishes_makes_what_stays_when_it_leaves() {
    let rules = ChannelRules {
        kept_limit_per_user: 3,
        new_rate_limit: 10,
        ..rules()
    };
    let mut owner = owner();
    let mut refused = 0;
    for n in 0..150 {
        let kept = n % 2 == 0;
        let name = format!("{}{n}", if kept { "kept:" } else { "plain" });
        let mut draft = by(&name, "42", 1, 4);
        draft.version = u64::from(!kept);
        enter(&mut owner, at(1), &name, None);
        refused += usize::from(owner.publish(at(1), draft, &rules).is_err());
        leave(&mut owner, at(1), &name);
    }
    assert_eq!(refused, 50, "its rate counts them");
    assert_eq!(names(&owner), ["kept:98", "plain97", "plain99"]);
    for n in 0..10 {
        let name = format!("kept:s{n}");
        enter(&mut owner, at(2), &name, None);
        owner.publish(at(2), publish(&name), &rules).unwrap();
        owner
            .publish(at(2), by(&name, "42", 1, 4), &rules)
            .expect("what a service made is there");
        leave(&mut owner, at(2), &name);
    }
    assert_eq!(owner.len(), 13);
}

#[test]
fn channels_with_subscribers_do_not_count_against_who_made_them_before_those_have_gone() {
    let rules = ChannelRules {
        kept_limit_per_user: 3,
        ..rules()
    };
    let mut owner = owner();
    let name = |n: usize| format!("kept:{n:03}");
    for n in 0..100 {
        enter(&mut owner, at(1), &name(n), None);
        let made = owner.publish(at(1), by(&name(n), "42", 1, 4), &rules);
        assert!(made.is_ok(), "{n}");
    }
    for n in 0..100 {
        leave(&mut owner, at(2), &name(n));
    }
    for n in 100..200 {
        owner
            .publish(at(3), by(&name(n), "42", 1, 4), &rules)
            .unwrap();
    }
    assert_eq!(names(&owner), ["kept:197", "kept:198", "kept:199"]);
    assert_eq!(owner.counts().refused_full, 0);
}

#[test]
fn place_that_two_channels_had_is_told_of_once() {
    let mut owner = owner();
    let name = ChannelName::from_whole("kept:a");
    for _ in 0..2 {
        enter(&mut owner, at(0), "kept:a", None);
        owner.mark_behind(&name, SHARD);
        leave(&mut owner, at(0), "kept:a");
    }
    enter(&mut owner, at(0), "kept:a", None);
    owner.mark_behind(&name, SHARD);
    assert!(owner.take_behind(|_| false).is_empty());
    assert_eq!(owner.behind.len(), 1);
    assert_eq!(owner.take_behind(|_| true).len(), 1);
}

#[test]
fn parts_of_the_log_are_counted_until_they_go_and_their_channel_stays_as_long() {
    let rules = ChannelRules {
        owned_limit: 1,
        ..rules()
    };
    let mut owner = owner();
    let epoch = Epoch(*b"abcdefgh");
    let query = || {
        Box::new(Query {
            channel: ChannelName::from_whole("safe:a"),
            what: HISTORY,
        })
    };
    let asker = |query| PartAsker::Query(SHARD, ASKER, query);
    assert!(
        owner
            .query_durable(at(0), query(), asker, Tries::FIRST, &rules)
            .is_none()
    );
    let mut answer = None;
    while answer.is_none() {
        for read in owner.take_reads() {
            let publication = Publication {
                offset: Offset(1),
                epoch,
                data: Bytes::from_static(b"1"),
                json: true,
                info: None,
                tags: Box::default(),
                unix_ms: 0,
                tells_time: false,
                patch: None,
                delta: false,
            };
            let wanted = read.after.is_some();
            let page = Page {
                channel: read.channel,
                position: StreamPosition {
                    epoch,
                    offset: Offset(1),
                },
                after: read.after,
                span: Span::behind(0, u64::from(wanted)),
                publications: wanted.then(|| Arc::new(publication)).into_iter().collect(),
            };
            owner.read(at(0), page);
        }
        while let Some((_, tries)) = owner.take_woken() {
            answer = owner.query_durable(at(0), query(), asker, tries, &rules);
        }
    }
    assert!(owner.part_bytes > 0);
    let refused = owner.publish(at(1), publish("kept:b"), &rules);
    assert_eq!(refused.err(), Some(PublishError::Overloaded));
    ask(&mut owner, at(1), "safe:a", QueryKind::HistoryRemove);
    assert!(
        owner.publish(at(1), publish("kept:b"), &rules).is_ok(),
        "it has none any more"
    );
    for second in [6, 12] {
        owner.sweep(at(second));
    }
    assert_eq!((owner.part_bytes, owner.parts.len()), (0, 0));
}

#[test]
fn client_that_makes_channels_too_fast_is_told_to_come_later_and_a_service_is_not() {
    let rules = ChannelRules {
        new_rate_limit: 10,
        ..rules()
    };
    let mut owner = owner();
    let mut made = 0;
    for n in 0..200 {
        let name = format!("kept:{n}");
        match owner.publish(at(1), by(&name, "42", 1, 4), &rules) {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(error, PublishError::TooManyNew),
        }
    }
    assert_eq!(made, 100, "ten seconds at once");
    assert_eq!((owner.len(), owner.counts().refused_rate), (100, 100));
    let known = owner.publish(at(1), by("kept:0", "42", 1, 4), &rules);
    assert!(known.is_ok(), "what is there costs nothing");
    assert!(
        owner
            .publish(at(1), by("plain", "42", 1, 4), &rules)
            .is_ok()
    );
    assert!(owner.publish(at(1), publish("kept:s"), &rules).is_ok());
    let with_key = keyed(by("plain", "42", 1, 4));
    let refused = owner
        .publish(at(1), with_key, &rules)
        .map(|outcome| outcome.position);
    assert_eq!(
        refused,
        Err(PublishError::TooManyNew),
        "a key is kept as well"
    );
}

#[test]
fn durable_channel_of_nobody_is_forgotten_soon_and_at_once_where_the_log_has_nothing() {
    let mut owner = owner();
    let asker = |query| PartAsker::Query(SHARD, ASKER, query);
    for channel in ["safe:a", "safe:b"] {
        let query = Box::new(Query {
            channel: ChannelName::from_whole(channel),
            what: HISTORY,
        });
        let answer = owner.query_durable(at(0), query, asker, Tries::FIRST, &rules());
        assert!(answer.is_none(), "the log is asked");
    }
    sweep(&mut owner, at(30));
    assert_eq!(owner.len(), 2, "somebody waits");
    for read in owner.take_reads() {
        let top = u64::from(read.channel.whole() == "safe:b");
        let position = StreamPosition {
            epoch: Epoch(*b"abcdefgh"),
            offset: Offset(top),
        };
        let page = Page {
            channel: read.channel,
            position,
            after: read.after,
            span: Span::behind(top, top),
            publications: Vec::new(),
        };
        owner.read(at(31), page);
    }
    while let Some((asker, tries)) = owner.take_woken() {
        if let PartAsker::Query(from, asker, query) = asker {
            let again = |query| PartAsker::Query(from, asker, query);
            owner.query_durable(at(31), query, again, tries, &rules());
        }
    }
    owner.read_failed(&ChannelName::from_whole("safe:b"));
    sweep(&mut owner, at(40));
    assert_eq!(names(&owner), ["safe:b"]);
    sweep(&mut owner, at(100));
    assert!(owner.is_empty());
}

#[test]
fn names_that_share_the_public_hash_do_not_share_their_place() {
    let colliding: Vec<ChannelName> = colliding_names(500);
    let hashes: std::collections::BTreeSet<u64> = colliding.iter().map(channel_hash).collect();
    assert_eq!(hashes.len(), 1, "the names are what they are meant to be");
    let owner = owner();
    let places: std::collections::BTreeSet<u64> = colliding
        .iter()
        .map(|name| owner.table.hash(name))
        .collect();
    assert_eq!(places.len(), 500);
}

/// Names of 63 bytes that the public hash cannot tell apart: eight of them make one factor of a product zero, so that the
/// other does not matter.
fn colliding_names(count: usize) -> Vec<ChannelName> {
    /// Constants of foldhash.
    const SEED: u64 = 0xc0ac_29b7_c97c_50dd;
    const START: u64 = 0x7269_6e67_6d61_696e ^ 0x082e_fa98_ec4e_6c89;
    let word = |name: &[u8], at: usize| {
        let bytes: [u8; 8] = name[at..at + 8].try_into().unwrap();
        u64::from_ne_bytes(bytes)
    };
    let mut name = *b"kept:xxx........................................................";
    let name = &mut name[..63];
    for n in 0..1_000_000_u32 {
        name[47..55].copy_from_slice(format!("{n:08}").as_bytes());
        let start = START.rotate_right(63);
        let product = u128::from(word(name, 0) ^ start) * u128::from(word(name, 47) ^ SEED);
        let factor = ((product as u64) ^ (product >> 64) as u64).to_ne_bytes();
        if factor.iter().all(u8::is_ascii_graphic) {
            name[16..24].copy_from_slice(&factor);
            break;
        }
    }
    let names = (0..count).map(|n| {
        name[32..39].copy_from_slice(format!("{n:07}").as_bytes());
        ChannelName::from_whole(std::str::from_utf8(name).unwrap())
    });
    names.collect()
}

#[test]
fn shard_whose_subscribers_left_is_made_no_patches_for_when_others_come() {
    let rules = ChannelRules {
        namespaces: vec![Arc::new(Namespace {
            name: "kept".to_owned(),
            history_size: 10,
            history_ttl: KEPT,
            delta_publish: true,
            allowed_delta_types: vec![crate::config::namespace::DeltaType::Fossil],
            ..Namespace::default()
        })],
        ..ChannelRules::default()
    };
    let mut owner = owner();
    let published = |owner: &mut Owner| {
        let mut draft = publish("kept:a");
        draft.record.data = Bytes::from(vec![b'1'; 500]);
        let outcome = owner.publish(at(1), draft, &rules).unwrap();
        outcome.deliver.unwrap().publication.patch.is_some()
    };
    let enter = |owner: &mut Owner, delta| {
        let mut interest = interest("kept:a", None);
        interest.delta = delta;
        assert!(
            owner
                .interest(at(0), SUBSCRIBER, interest, Tries::FIRST, &rules)
                .is_some()
        );
    };
    enter(&mut owner, true);
    published(&mut owner);
    assert!(published(&mut owner), "somebody takes patches");
    leave(&mut owner, at(2), "kept:a");
    enter(&mut owner, false);
    assert!(!published(&mut owner), "nobody takes patches any more");
}

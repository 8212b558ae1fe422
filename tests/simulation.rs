//! Whole shards with the real mesh, on one thread and in virtual time, under everything that sockets, clients and a busy
//! machine may do to them. The seed of a run decides all of it: `RINGMAIN_SEED=7 cargo test --test simulation` repeats
//! one run exactly, `RINGMAIN_SEEDS=n` says how many there are, from `RINGMAIN_SEED_FIRST` on, and `RINGMAIN_FIND=what` names
//! those of them that come to something.

#![allow(missing_docs, reason = "a test")]

#[path = "support/transcode.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod transcode;

mod simulation {
    mod backend;
    mod client;
    mod faulty_log;
    mod frames;
    mod keys;
    mod link;
    mod network;
    mod poller;
    mod reactor;
    mod service;
    mod setup;
    mod streams;
    pub mod truth;
    pub mod world;
}

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use simulation::truth::situation;
use simulation::world::{Seen, run, run_unmoved, run_with_faulty_mesh};

/// Runs in CI.
const SEEDS: u64 = 500;

/// Runs with a faulty mesh.
const FAULTY_SEEDS: u64 = 60;

/// What the runs are made to reach: without it their promises hold for nothing.
const REACHED: &[&str] = &[
    "recovered something",
    "patch",
    "unrecovered",
    "unsubscribe 2000",
    "unsubscribe 2500",
    "unsubscribe 2501",
    "subscribe push",
    "close 3001",
    "told by a drain",
    "left in the queue",
    "told behind an answer",
    "told before a younger one",
    "close 3008",
    "close 3010",
    "close 3012",
    "close 3504",
    "close 4510",
    "error 112",
    "log append refused",
    "log append repeated",
    "log append unknown",
    "log read",
    "log read failed",
    "log restarted",
    "log told twice",
    "counter log_overdue",
    "counter recovery_parts",
    "counter dropped_mesh",
    "counter dropped_slow",
    "counter conflated",
    "counter aged",
    "told of conflation",
    "counter refused",
    "counter refused_mesh",
    "counter sends_short",
    "counter turned_away_limit",
    "counter users_displaced",
    "counter users_refused",
    "wall clock set",
    "HttpStream",
    "HttpStream Protobuf",
    "Sse",
    "UniHttpStream",
    "UniSse",
    "UniWebSocket",
    "WebSocket",
    "WebSocket Protobuf",
    "emulated",
    "emulation forged",
    "commands in a request lost",
    "poll answered",
    "polled a publication",
    "poll 403",
    "poll 503",
    "hook connect",
    "hook refresh",
    "hook subscribe",
    "hook sub_refresh",
    "hook publish",
    "hook rpc",
    "rpc answered",
    "error 1000",
    "close 4100",
    "close 3503",
    "close 3500",
    "keys wanted",
    "keys not fetched",
    situation::REMEMBERS_EMPTY_RINGS,
    situation::ENDS_BEFORE_GATE,
    situation::ENDS_BEFORE_REGISTRY,
    situation::ENDS_BEFORE_BACKEND,
    situation::BEHIND_CONNECT,
    situation::ENDS_WHILE_PENDING,
    situation::CATCH_UP_PUT_OFF,
    situation::STALE_REFRESH,
    situation::READ_NO_FURTHER,
    situation::WAITS_FOR_KEY,
    situation::NO_MORE_UNDER_WAY,
    "told of a loss that nothing kept",
    "replaced by an image",
    situation::MOVED_WHOLE,
    "close 3006",
];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// Names the seed of a run that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "\nseed {0} fails: RINGMAIN_SEED={0} cargo test --test simulation",
                self.0
            );
        }
    }
}

fn named(seed: u64) -> (u64, Seen) {
    let _named = Named(seed);
    run(seed)
}

fn named_with_faulty_mesh(seed: u64) -> (u64, Seen) {
    let _named = Named(seed);
    run_with_faulty_mesh(seed)
}

fn sum(total: &mut Seen, seen: Seen) {
    for (what, count) in seen {
        *total.entry(what).or_default() += count;
    }
}

/// Runs the seeds on as many threads as the machine has, and adds up what they saw.
fn run_all(seeds: Range<u64>, run: fn(u64) -> (u64, Seen)) -> Seen {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let one = || {
        let mut total = Seen::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return total;
            }
            sum(&mut total, run(seed).1);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let mut total = Seen::default();
        for thread in threads {
            match thread.join() {
                Ok(seen) => sum(&mut total, seen),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        total
    })
}

#[test]
fn every_promise_holds_under_faults() {
    if let Some(seed) = variable("RINGMAIN_SEED") {
        println!("seed {seed}");
        let (hash, seen) = named(seed);
        println!("hash {hash:016x} {seen:#?}");
        return;
    }
    let first = variable("RINGMAIN_SEED_FIRST").unwrap_or(1);
    let seeds = variable("RINGMAIN_SEEDS").unwrap_or(SEEDS);
    let seeds = first..first + seeds;
    if let Ok(what) = std::env::var("RINGMAIN_FIND") {
        return find(&what, seeds);
    }
    println!("seeds {seeds:?}");
    let total = run_all(seeds.clone(), named);
    println!("{total:#?}");
    if seeds.end - seeds.start >= SEEDS {
        for what in REACHED {
            assert!(
                total.get(*what).is_some_and(|&count| count > 0),
                "no run reached: {what}"
            );
        }
    }
}

/// Names the seeds whose runs come to `what`, and how often.
fn find(what: &str, seeds: Range<u64>) {
    for seed in seeds {
        for (seen, count) in named(seed).1 {
            if seen.contains(what) {
                println!("seed {seed}: {seen} ({count})");
            }
        }
    }
}

// What was once handled wrongly. With the mistake back in place these runs fail.

/// The runs of these seeds come into `situation` and through it: one of them at least, since what is changed elsewhere may keep
/// a run from it.
fn shows(seeds: &[u64], situation: &str) {
    let comes_to_it = |&seed: &u64| named(seed).1.contains_key(situation);
    assert!(
        seeds.iter().filter(|seed| comes_to_it(seed)).count() > 0,
        "seeds {seeds:?} no longer show it: look for others with scripts/simulate --find '{situation}'"
    );
}

#[test]
fn positions_of_the_ring_mean_something_until_no_connection_remembers_one() {
    shows(&[7, 3], situation::REMEMBERS_EMPTY_RINGS);
}

#[test]
fn a_client_that_ends_while_it_waits_for_admission_is_gone() {
    shows(&[6, 5], situation::ENDS_BEFORE_GATE);
}

#[test]
fn commands_in_one_frame_with_a_connect_that_waits_are_answered() {
    shows(&[3, 12], situation::BEHIND_CONNECT);
}

#[test]
fn a_subscription_that_ends_while_it_is_pending_is_answered_first() {
    shows(&[6, 7], situation::ENDS_WHILE_PENDING);
}

#[test]
fn a_place_granted_too_late_goes_back_to_its_users_registry() {
    shows(&[8, 16], situation::ENDS_BEFORE_REGISTRY);
}

#[test]
fn a_catch_up_that_found_a_full_queue_is_asked_for_again() {
    shows(&[4, 40], situation::CATCH_UP_PUT_OFF);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [1, 2, 3] {
        assert_eq!(named(seed), named(seed), "seed {seed}");
    }
}

#[test]
fn a_shard_that_goes_on_as_its_image_sends_the_same_bytes() {
    for seed in 1..=20 {
        let (sent, _) = named(seed);
        let (sent_unmoved, _) = run_unmoved(seed);
        assert_eq!(sent, sent_unmoved, "seed {seed}");
    }
}

/// What the runs with a faulty mesh are made to reach.
const REACHED_WITHOUT_ANSWERS: &[&str] = &[
    "lost admit",
    "lost admitted",
    "lost answer",
    "lost answers",
    "lost commands",
    "lost enter",
    "lost interest",
    "lost interested",
    "lost publish",
    "lost published",
    "lost query",
    "wire stood still",
    "counter asks_overdue",
    "counter stale_answers",
];

#[test]
fn everybody_is_answered_and_nothing_is_left_where_the_mesh_loses_questions_and_answers() {
    if let Some(seed) = variable("RINGMAIN_SEED") {
        named_with_faulty_mesh(seed);
        return;
    }
    let first = variable("RINGMAIN_SEED_FIRST").unwrap_or(1);
    let seeds = variable("RINGMAIN_SEEDS").unwrap_or(FAULTY_SEEDS);
    let total = run_all(first..first + seeds, named_with_faulty_mesh);
    println!("{total:#?}");
    if seeds >= FAULTY_SEEDS {
        for what in REACHED_WITHOUT_ANSWERS {
            assert!(
                total.get(*what).is_some_and(|&count| count > 0),
                "no run reached: {what}"
            );
        }
    }
}

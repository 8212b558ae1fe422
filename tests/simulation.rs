//! Whole shards with the real mesh, on one thread and in virtual time, under everything that sockets, clients and a busy
//! machine may do to them. The seed of a run decides all of it: `RINGMAIN_SEED=7 cargo test --test simulation` repeats
//! one run exactly, `RINGMAIN_SEEDS=n` says how many there are, from `RINGMAIN_SEED_FIRST` on.

#![allow(missing_docs, reason = "a test")]

mod simulation {
    mod client;
    mod faulty_log;
    mod frames;
    mod link;
    mod reactor;
    mod service;
    mod setup;
    mod truth;
    pub mod world;
}

use simulation::world::run;

/// Runs in CI.
const SEEDS: u64 = 500;

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
    "close 3008",
    "close 3010",
    "close 3012",
    "close 3504",
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
    "counter refused",
    "counter refused_mesh",
    "counter sends_short",
    "counter turned_away_limit",
    "counter users_displaced",
    "counter users_refused",
    "wall clock set",
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

fn named(seed: u64) -> (u64, simulation::world::Seen) {
    let _named = Named(seed);
    run(seed)
}

#[test]
fn every_promise_holds_under_faults() {
    if let Some(seed) = variable("RINGMAIN_SEED") {
        println!("seed {seed}");
        let (hash, seen) = named(seed);
        println!("hash {hash:016x} {seen:?}");
        return;
    }
    let first = variable("RINGMAIN_SEED_FIRST").unwrap_or(1);
    let seeds = variable("RINGMAIN_SEEDS").unwrap_or(SEEDS);
    println!("seeds {first} to {}", first + seeds - 1);
    let mut total = simulation::world::Seen::default();
    for seed in first..first + seeds {
        for (what, count) in named(seed).1 {
            *total.entry(what).or_default() += count;
        }
    }
    println!("{total:?}");
    if seeds >= SEEDS {
        for what in REACHED {
            assert!(
                total.get(*what).is_some_and(|&count| count > 0),
                "no run reached: {what}"
            );
        }
    }
}

// Seeds that fail without what the name promises.

#[test]
fn positions_of_the_ring_mean_something_until_no_connection_remembers_one() {
    named(1);
}

#[test]
fn a_client_that_ends_while_it_waits_for_admission_is_gone() {
    named(63);
}

#[test]
fn commands_in_one_frame_with_a_connect_that_waits_are_answered() {
    named(3);
}

#[test]
fn a_subscription_that_ends_while_it_is_pending_is_answered_first() {
    named(9);
}

#[test]
fn a_place_granted_too_late_goes_back_to_its_users_registry() {
    named(5);
}

#[test]
fn a_catch_up_that_found_a_full_queue_is_asked_for_again() {
    named(18);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [1, 2, 3] {
        assert_eq!(named(seed), named(seed), "seed {seed}");
    }
}

//! Faults around the log, whichever engine keeps it: restarts that change something, workers that vanish, alerts that nobody
//! takes.

use std::sync::atomic::Ordering;

use super::actors::Options;
use super::ledger::Ledger;
use super::workers;
use super::world::{Engine, Settings, World};

/// Shards of a proxy at most.
const SHARDS_MAX: u64 = 3;

/// The proxy ends, by itself or killed, and another one is started.
fn restart(world: &mut World, between: impl FnOnce(&mut World)) {
    if world.random.below(2) == 0 {
        world.end();
    } else {
        world.kill();
    }
    between(world);
    world.start_again();
}

/// A restart with another number of shards.
pub(crate) fn shards(engine: &Engine, rounds: u32, seed: u64) -> Ledger {
    let mut world = World::start(engine, &[], seed);
    for _ in 0..rounds {
        let acknowledgements = world.random.between(50, 400);
        world.go_on(acknowledgements);
        restart(&mut world, |world| {
            let other = 1 + world.random.below(SHARDS_MAX - 1);
            let is_more = other >= u64::from(world.shards);
            world.shards = u32::try_from(other + u64::from(is_more)).unwrap_or(1);
        });
    }
    world.go_on(200);
    world.finish()
}

/// Rules of groups and options of namespaces change between restarts, sometimes with nothing under way.
pub(crate) fn options(engine: &Engine, rounds: u32, seed: u64) -> Ledger {
    let mut world = World::start(engine, &[], seed);
    for round in 0..rounds {
        let acknowledgements = world.random.between(50, 400);
        world.go_on(acknowledgements);
        if round % 3 == 2 {
            world.come_to_rest();
        }
        restart(&mut world, change);
        world.resume();
    }
    world.go_on(200);
    world.finish()
}

fn change(world: &mut World) {
    let random = &mut world.random;
    let mut one_of = |all: [u8; 3]| all[random.below(3) as usize];
    let settings = Settings {
        push_batch: one_of([1, 4, 20]).into(),
        push_concurrency: one_of([1, 2, 8]).into(),
        push_attempts: one_of([2, 3, 5]).into(),
        history_size: one_of([1, 16, 255]).into(),
        idempotency_hours: one_of([12, 18, 24]).into(),
    };
    let options = Options {
        attempts: one_of([2, 3, 5]),
        cap_ms: one_of([5, 20, 100]),
        is_free_ordered: one_of([0, 1, 1]) == 1,
        has_lanes: one_of([0, 1, 1]) == 1,
        key_concurrency: one_of([0, 1, 4]),
        is_update: true,
    };
    world.orders.change(options);
    world.configure(&settings);
    world.ledger.count("changes", 1);
}

/// The hook for dead letters is away, or refuses, or is too slow, sometimes over a restart.
pub(crate) fn letters(engine: &Engine, rounds: u32, seed: u64) -> Ledger {
    let mut world = World::start(engine, &[], seed);
    for round in 0..rounds {
        let mood = 1 + (round % 3) as u8;
        world.backends.mood.store(mood, Ordering::SeqCst);
        let acknowledgements = world.random.between(100, 400);
        world.go_on(acknowledgements);
        if round % 2 == 0 {
            restart(&mut world, |_| ());
            world.go_on(50);
        }
        let told = world.ledger.told();
        world.backends.mood.store(0, Ordering::SeqCst);
        // A hook that was away is asked again after a while, and nothing more need come meanwhile.
        world.orders.pause();
        world.until("the hook", |world| world.ledger.told() > told);
        world.resume();
    }
    world.finish()
}

/// Workers vanish: with what they were given, in the midst of an answer, or while they wait.
pub(crate) fn gone(engine: &Engine, rounds: u32, seed: u64) -> Ledger {
    let mut world = World::start(engine, &[], seed);
    for round in 0..rounds {
        for kind in 0..3 {
            let acknowledgements = world.random.between(30, 150);
            world.go_on(acknowledgements);
            workers::vanish(&world.orders, kind);
        }
        // Where nothing is to be had, whoever waits and goes must not be given anything.
        world.come_to_rest();
        let begun = world.orders.next_moment();
        for group in ["free", "fetched", "keyed", "lanes"] {
            workers::wait_and_vanish(&world.orders, group, round % 2 == 0);
        }
        world.resume();
        world.go_on(100);
        let end = world.orders.next_moment();
        world.ledger.untried.push(begun..end);
        world.come_to_rest();
        world.resume();
    }
    world.go_on(100);
    world.finish()
}

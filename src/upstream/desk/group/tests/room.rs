//! Bytes under way, and who has room for more.

use super::*;

/// An entry with a payload of so many bytes.
fn large(world: &mut World, cursor: u64, bytes: usize) {
    let payload = format!("\"{}\"", "x".repeat(bytes));
    let record = memory::record("a:1", EventId(cursor.into()), &payload);
    let entry = memory::entry(cursor, cursor, record);
    world.entries.insert(cursor, entry);
    world.log.insert(cursor, Kept::default());
}

#[test]
fn bytes_under_way_are_credit_and_one_delivery_is_always_possible() {
    let mut world = World::new(false);
    world.window_bytes = 500_000;
    for cursor in 1..=6 {
        large(
            &mut world,
            cursor,
            if cursor == 3 { 1_500_000 } else { 200_000 },
        );
    }
    world.do_(&Step::Join(0, 16));
    let cursors = |world: &World| world.out.iter().map(|out| out.cursor).collect::<Vec<_>>();
    assert_eq!(cursors(&world), [1, 2]);
    world.do_(&Step::Ack(0));
    assert_eq!(
        cursors(&world),
        [2],
        "the large one is next and waits for all the room"
    );
    world.do_(&Step::Ack(0));
    assert_eq!(cursors(&world), [3]);
    world.do_(&Step::Nak(0, Some(0)));
    assert_eq!(cursors(&world), [3], "alone once more");
    world.do_(&Step::Ack(0));
    assert_eq!(cursors(&world), [4, 5]);
    world.finish();
}

#[test]
fn worker_without_room_holds_up_nobody_who_has_some() {
    let mut world = World::new(false);
    world.window_bytes = 500_000;
    for cursor in 1..=8 {
        large(&mut world, cursor, 200_000);
    }
    for number in 0..3 {
        world.do_(&Step::Join(number, 16));
    }
    for number in 0..3 {
        let holder = Holder::Connection(worker(number));
        assert!(world.bytes_of(holder) > 400_000, "{number}");
    }
    world.do_(&Step::Leave(1));
    world.do_(&Step::Fetch(100));
    assert!(
        world.fetching.is_empty(),
        "a fetch is answered with what fits"
    );
}

#[test]
fn window_is_shared_by_groups_and_whoever_waits_for_room_is_told() {
    let mut world = World::new(false);
    let window = Window::new(100_000);
    window.take(99_900);
    let taker = Taker::Connection(worker(0));
    world.group.handle_joined(taker, 4, &window, "w");
    world.credit.insert(0, 4);
    world.windows.insert(0, Rc::clone(&window));
    world.publish(0);
    world.publish(0);
    assert_eq!(world.out.len(), 1, "one, though another group has the room");
    assert!(window.give(99_900), "this group waits for it");
    world.turn();
    assert_eq!(world.out.len(), 2);
}

#[test]
fn window_has_room_beside_other_groups_within_bounds() {
    let window = Window::new(1000);
    window.take(1000);
    assert!(!window.fits(1) && window.fits_beside(5000));
    window.take(1000);
    assert!(window.fits_beside(1000) && !window.fits_beside(1001));
}

#[test]
fn worker_with_room_behind_many_without_any_is_found_and_the_search_ends() {
    let mut world = World::new(false);
    let full = Window::new(1000);
    full.take(1_000_000);
    let join = |world: &mut World, number, window: &Rc<Window>| {
        let taker = Taker::Connection(worker(number));
        assert!(world.group.handle_joined(taker, 1, window, "w"));
        world.credit.insert(number, 1);
    };
    let many = 3 * PASSED_PER_TURN as u32;
    for number in 0..many {
        join(&mut world, number, &full);
    }
    world.publish(0);
    let mut turns = 0;
    let looks_on = |world: &World| world.group.poll_timeout() == Some(Instant::START);
    while looks_on(&world) {
        world.turn();
        turns += 1;
        assert!(turns < 4, "nobody has room");
    }
    join(&mut world, many, &Window::new(1000));
    world.turn();
    for _ in 0..3 {
        if looks_on(&world) {
            world.turn();
        }
    }
    assert_eq!(world.out.len(), 1);
}

#[test]
fn what_ends_every_connection_that_has_it_is_dead_at_last() {
    let mut world = world_with(false, 1);
    for losses in 1..=ATTEMPTS * LOSSES_PER_ATTEMPT {
        assert!(!world.log[&1].is_dead, "{losses}");
        world.do_(&Step::Join(0, 1));
        world.advance(Duration::from_secs(10));
        assert_eq!(world.out.len(), 1, "{losses}");
        world.do_(&Step::Gone(0));
    }
    assert!(world.log[&1].is_dead);
    let reasons = world.log[&1].failures.iter().map(|one| &*one.reason);
    assert!(reasons.eq(["connection_lost"; ATTEMPTS as usize]));
}

#[test]
fn what_has_ended_while_it_was_ready_is_given_to_nobody() {
    for ordered in [false, true] {
        let mut group = Group::new("g", 5, settings(ordered), 1);
        let now = World::new(ordered).now;
        let leased = |cursor: u64, ttl_ms| {
            let mut record = memory::record("a:1", EventId(cursor.into()), "1");
            (record.unix_ms, record.ttl_ms) = (now.unix_ms, ttl_ms);
            Leased {
                lease: Lease(cursor),
                entry: memory::entry(cursor, cursor, record),
                failures: Vec::new(),
                was_delayed: false,
            }
        };
        group.handle_leased(now, vec![leased(1, 500), leased(2, 0)]);
        let later = Now {
            at: now.at + Duration::from_millis(500),
            unix_ms: now.unix_ms + 500,
        };
        let (taker, window) = (Taker::Fetch(asker(1), None), Window::new(usize::MAX));
        group.handle_fetch(later, taker, 8, &window, Duration::from_secs(1), "w");
        group.handle_timeout(later);
        let Some(Output::Fetched(_, given, _)) = group.poll_output() else {
            panic!("what has not ended is given")
        };
        let cursors: Vec<u64> = given.iter().map(|one| one.entry.cursor).collect();
        assert_eq!(cursors, [2]);
        assert_eq!(group.take_settled(), [(Lease(1), Settled::Returned)]);
    }
}

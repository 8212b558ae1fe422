use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::limits::ANSWERS_BYTES_MAX;
use crate::mem::{HeldBytes, TimerWheel};
use crate::mesh::build;
use crate::mesh::message::Revocation;
use crate::model::{Format, Speaker};
use crate::shard::Mode;
use crate::shard::backlog::Backlog;
use crate::time::{Instant, Now};

const SLOT: u32 = 3;

/// A shard with one connection.
fn shard(state: State, phase: Phase) -> Shard {
    let endpoint = build(1).remove(0);
    let config = Arc::new(Config::built_in());
    let mut shard = Shard::new(endpoint.shard(), Mode::Proxy, config, endpoint, 7);
    shard.now = Now {
        at: Instant::START + Duration::from_secs(100),
        unix_ms: 1_700_000_000_000,
    };
    let mut connection = Connection {
        state,
        is_session: true,
        ..Connection::default()
    };
    connection.session.phase = phase;
    connection.session.user = crate::model::UserId::new(crate::model::TenantId::NONE, "ann");
    shard.connections.insert(SLOT, connection);
    shard
}

fn connection(shard: &mut Shard) -> &mut Connection {
    shard.connections.of_mut(SLOT)
}

/// What is to be seen of a connection when nothing is due any more: its state, whether it is known and whether it stands in `ready`.
fn seen(shard: &mut Shard) -> (State, bool, usize) {
    assert_eq!(connection(shard).due, Due::NOTHING);
    let ready = shard.ready.len();
    let connection = connection(shard);
    (connection.state, connection.is_known, ready)
}

#[test]
fn a_connection_follows_the_phase_of_its_session_when_that_is_due() {
    use Phase::{Connected, Connecting, Ended, Fresh, Refused};
    use State::{Finishing, Open, Waiting};
    // State and phase; then state, whether it is known, whether it goes on.
    let rows = [
        (Open, Fresh, Open, false, 0),
        (Open, Connecting, Waiting, false, 0),
        (Open, Connected, Open, true, 0),
        (Open, Refused, Open, false, 0),
        (Waiting, Connecting, Waiting, false, 0),
        (Waiting, Connected, Open, true, 1),
        (Waiting, Refused, Open, false, 1),
        (Waiting, Ended, Waiting, false, 0),
        (Finishing, Ended, Finishing, false, 0),
    ];
    for (row, (state, phase, then, known, ready)) in rows.into_iter().enumerate() {
        let mut shard = shard(state, phase);
        shard.after(SLOT);
        assert_eq!(seen(&mut shard), (state, false, 0), "row {row}: not due");
        connection(&mut shard).due = Due::PHASE;
        shard.after(SLOT);
        assert_eq!(seen(&mut shard), (then, known, ready), "row {row}");
        let user = shard.people.sessions();
        assert_eq!(user, u64::from(known), "row {row}");
        connection(&mut shard).due = Due::PHASE;
        shard.after(SLOT);
        assert_eq!(seen(&mut shard), (then, known, ready), "row {row}: once");
    }
}

#[test]
fn a_poll_waits_whatever_its_session_does() {
    let mut shard = shard(State::Waiting, Phase::Connected);
    connection(&mut shard).session.format = Format {
        speaker: Speaker::Poll,
        ..Format::default()
    };
    connection(&mut shard).due = Due::PHASE;
    shard.after(SLOT);
    assert_eq!(seen(&mut shard), (State::Waiting, true, 0));
}

#[test]
fn who_was_shut_out_while_it_connected_is_closed() {
    let mut shard = shard(State::Waiting, Phase::Connected);
    let block = Revocation::Block {
        user: "ann".into(),
        until: None,
    };
    assert!(shard.revoke(&block));
    connection(&mut shard).due = Due::PHASE;
    shard.after(SLOT);
    let (state, known, _) = seen(&mut shard);
    assert_eq!((state, known), (State::Refused, false));
    assert_eq!(shard.people.sessions(), 0);
}

#[test]
fn the_nearest_deadline_is_filed_when_one_has_moved() {
    let tick = |seconds| TimerWheel::tick(Instant::START + Duration::from_secs(seconds));
    // Of the state, of the session, filed, waiting for a key; filed then.
    let rows = [
        (0, 0, 0, false, 0),
        (0, tick(110), 0, false, tick(110)),
        (tick(105), tick(110), 0, false, tick(105)),
        (tick(115), tick(110), 0, false, tick(110)),
        (0, tick(110), tick(105), false, tick(105)),
        (0, tick(110), tick(115), false, tick(110)),
        (0, tick(110), 0, true, 0),
        (tick(105), tick(110), 0, true, tick(105)),
    ];
    for (row, (by, next, filed, is_parked, then)) in rows.into_iter().enumerate() {
        let mut shard = shard(State::Open, Phase::Connected);
        // The wheel's own time moves on with what fires.
        assert!(shard.connections.fire(shard.now.at).is_none());
        let one = connection(&mut shard);
        (one.by, one.filed, one.is_parked) = (by, filed, is_parked);
        one.session.next = next;
        one.due = Due::TIME;
        shard.after(SLOT);
        assert_eq!(connection(&mut shard).filed, then, "row {row}");
    }
}

#[test]
fn who_owed_answers_goes_on_when_it_does_no_more() {
    for (row, (due, owes, ready)) in [
        (Due::ROOM, false, 0),
        (Due::OWED, false, 1),
        (Due::OWED, true, 0),
        (Due::TURN, true, 1),
        (Due::OWED.and(Due::TURN), false, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut shard = shard(State::Open, Phase::Connected);
        if owes {
            let mut backlog = Backlog::new(&HeldBytes::default());
            backlog.push(&[0; ANSWERS_BYTES_MAX + 1]);
            backlog.answered(ANSWERS_BYTES_MAX + 1);
            connection(&mut shard).backlog = Some(Box::new(backlog));
        }
        connection(&mut shard).due = due;
        shard.after(SLOT);
        assert_eq!(seen(&mut shard).2, ready, "row {row}");
    }
}

#[test]
fn input_behind_a_request_is_read_when_that_is_answered() {
    let mut shard = shard(State::Waiting, Phase::Fresh);
    connection(&mut shard).is_session = false;
    connection(&mut shard).keep_alive = true;
    shard.hold(SLOT, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    shard.after(SLOT);
    let held = |shard: &mut Shard| connection(shard).held.is_some();
    assert!(held(&mut shard), "it waits still");
    let unsent = connection(&mut shard).unsent_bytes();
    shard.respond(SLOT, 200, "text/plain", b"answer");
    assert!(!held(&mut shard), "the next request was taken");
    let sent = connection(&mut shard).unsent_bytes() - unsent;
    assert!(sent > 200, "two answers in {sent} bytes");
    assert_eq!(seen(&mut shard).0, State::Head);
}

#[test]
fn a_step_shows_what_it_makes_due() {
    type Step = fn(&mut crate::session::Session);
    let rows: [(Step, Due); 9] = [
        (|_| {}, Due::NOTHING),
        (
            |session| session.phase = Phase::Refused,
            Due::PHASE.and(Due::TIME),
        ),
        (|session| session.next = 9, Due::TIME),
        (|session| session.next = 0, Due::NOTHING),
        (|session| session.pong_by = 9, Due::TIME),
        (|session| session.pong_by = 0, Due::NOTHING),
        (|session| session.expire_at = 9, Due::TIME),
        (|session| drop(session.subscriptions.pop()), Due::NOTHING),
        (
            |session| {
                session.subscriptions.push(crate::session::Subscription {
                    hub: 2,
                    place: Some(crate::mem::Place::new(0)),
                    expire_at: 0,
                    flags: 0,
                    extra: None,
                });
            },
            Due::TIME,
        ),
    ];
    for (row, (step, due)) in rows.into_iter().enumerate() {
        let mut session = crate::session::Session {
            phase: Phase::Connected,
            next: 5,
            pong_by: 5,
            ..Default::default()
        };
        session.subscriptions.push(crate::session::Subscription {
            hub: 1,
            place: Some(crate::mem::Place::new(0)),
            expire_at: 0,
            flags: 0,
            extra: None,
        });
        let before = session.stamp();
        step(&mut session);
        assert_eq!(Due::of(before, session.stamp()), due, "row {row}");
    }
}

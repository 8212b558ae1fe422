//! The books find what they are there to find: run before any fault, since a checker that sees nothing proves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ledger::{Fact, Ledger, Letters, Line, Rules, Said, Sought};
use super::names::{Id, Nature};
use crate::support::wait::now;

/// The second publication of customer 1 is poisoned when it is number 9; numbers from 20 on are hesitant.
const NATURE: Nature = Nature {
    is_poisoned: |id| id.1 == 9,
    is_hesitant: |id| id.1 >= 20,
    customer: |id| id.0,
    lane: |_| 0,
};
const GROUP: Rules = Rules {
    name: "g",
    line: Line::Channel,
    is_synced: true,
};

fn seen_at(subscriber: u32, id: Id, offset: u64, unix_ms: u64) -> Fact {
    Fact::Seen {
        subscriber,
        id,
        channel: "c".to_owned(),
        epoch: "e".to_owned(),
        offset,
        unix_ms,
    }
}

fn seen(subscriber: u32, id: Id, offset: u64) -> Fact {
    seen_at(subscriber, id, offset, 1000)
}

fn acknowledged(id: Id, offset: u64) -> Fact {
    Fact::Acknowledged {
        id,
        begun: u64::from(id.1),
        channel: "c".to_owned(),
        epoch: "e".to_owned(),
        offset,
    }
}

fn attempt(id: Id, offset: u64, event: &str, attempt: u32) -> Fact {
    Fact::Delivered {
        group: "g",
        id,
        channel: "c".to_owned(),
        offset,
        event: event.to_owned(),
        attempt,
        published_ms: 1000,
        at: now(),
        unix_ms: 1000,
    }
}

fn delivered(id: Id, offset: u64, event: &str) -> Fact {
    attempt(id, offset, event, 1)
}

fn saying(id: Id, said: Said) -> Fact {
    Fact::Saying {
        group: "g",
        id,
        said,
    }
}

fn settled(id: Id, is_done: bool) -> Fact {
    Fact::Settled {
        group: "g",
        id,
        is_done,
        at: now(),
    }
}

fn told(event: &str) -> Fact {
    Fact::Told {
        group: "g",
        event: event.to_owned(),
    }
}

fn close(facts: Vec<Fact>, kept: &[&str], announced: &[&str]) -> Ledger {
    let mut ledger = Ledger::new(&[GROUP], NATURE, 2);
    ledger.untried.push(0..5);
    facts.into_iter().for_each(|fact| ledger.book(fact));
    let owned = |event: &&str| (*event).to_owned();
    let letters = Letters {
        kept: BTreeMap::from([("g", kept.iter().map(owned).collect())]),
        announced: BTreeMap::from([("g", announced.iter().map(owned).collect())]),
        ..Letters::default()
    };
    ledger.close(1, &letters);
    ledger
}

/// The books find what they are there to find.
pub(crate) fn examine() {
    let right = vec![
        acknowledged((0, 1), 1),
        acknowledged((0, 9), 2),
        seen(0, (0, 1), 1),
        seen(0, (0, 9), 2),
        delivered((0, 1), 1, "a"),
        saying((0, 1), Said::Done),
        delivered((0, 9), 2, "b"),
        saying((0, 9), Said::Failed(1)),
        attempt((0, 9), 2, "b", 2),
        saying((0, 9), Said::Failed(2)),
        told("b"),
        told("b"),
    ];
    let with = |more: Vec<Fact>| right.iter().cloned().chain(more).collect::<Vec<_>>();
    // A publication more, up to its delivery.
    let next = |id: Id, more: Vec<Fact>| {
        let mut facts = vec![acknowledged(id, 3), seen(0, id, 3), delivered(id, 3, "d")];
        facts.extend(more);
        close(with(facts), &["b"], &["b"])
    };
    let later = |wait: u64| Said::Later(1, now() + Duration::from_millis(wait));
    let sought = |to: Sought| {
        vec![
            Fact::Seeking { group: "g" },
            Fact::Sought {
                group: "g",
                to,
                moment: 30,
            },
        ]
    };
    let delayed = |due_ms: u64| {
        let accepted = Fact::Accepted {
            id: (0, 3),
            begun: 0,
            due_ms,
        };
        vec![accepted, seen(0, (0, 3), 3), delivered((0, 3), 3, "d")]
    };
    let kept = [
        close(right.clone(), &["b"], &["b"]),
        close(with(delayed(1000)), &["b"], &["b"]),
        close(with(sought(Sought::New)), &["b"], &["b"]),
        next(
            (0, 20),
            vec![saying((0, 20), later(0)), attempt((0, 20), 3, "d", 2)],
        ),
        next(
            (0, 20),
            vec![saying((0, 20), later(9999)), attempt((0, 20), 3, "d", 1)],
        ),
        next(
            (0, 3),
            vec![saying((0, 3), Said::Done), delivered((0, 3), 3, "d")],
        ),
    ];
    for (at, ledger) in kept.iter().enumerate() {
        assert!(ledger.is_kept(), "{at}: {:?}", ledger.broken());
    }
    let mut seeking = vec![saying((0, 20), later(9999)), settled((0, 20), false)];
    seeking.insert(0, Fact::Seeking { group: "g" });
    seeking.push(delivered((0, 20), 3, "d"));
    let seeking = next((0, 20), seeking);
    assert!(seeking.is_kept(), "{:?}", seeking.broken());
    let one = |fact: Fact| close(with(vec![fact]), &["b"], &["b"]);
    let wrong = [
        (one(acknowledged((0, 3), 3)), "lost"),
        (one(seen(0, (0, 1), 1)), "repeated"),
        (one(seen(0, (0, 4), 4)), "a hole"),
        (
            close(
                with(vec![seen(0, (0, 1), 3), delivered((0, 4), 3, "c")]),
                &["b"],
                &["b"],
            ),
            "stored twice",
        ),
        (one(delivered((0, 1), 3, "c")), "delivered as another event"),
        (one(delivered((0, 4), 1, "c")), "out of order"),
        (close(right.clone(), &[], &["b"]), "poisoned and not dead"),
        (
            close(right.clone(), &["a", "b"], &["b"]),
            "healthy and dead",
        ),
        (close(right.clone(), &["b"], &["a", "b"]), "not told"),
        (close(right.clone(), &["b"], &[]), "not announced"),
        (one(told("a")), "told of nothing"),
        (one(Fact::Broken("x".to_owned())), "told by a client"),
        (
            close(with(delayed(1003)), &["b"], &["b"]),
            "before its time",
        ),
        (
            next(
                (0, 20),
                vec![saying((0, 20), later(9999)), attempt((0, 20), 3, "d", 2)],
            ),
            "put off, and before its time",
        ),
        (
            next(
                (0, 20),
                vec![
                    saying((0, 20), later(0)),
                    settled((0, 20), false),
                    attempt((0, 20), 3, "d", 1),
                ],
            ),
            "put off with sync, and forgotten",
        ),
        (
            next(
                (0, 3),
                vec![
                    saying((0, 3), Said::Done),
                    settled((0, 3), true),
                    delivered((0, 3), 3, "d"),
                ],
            ),
            "done with sync, and came again",
        ),
        (
            next((0, 3), vec![attempt((0, 3), 3, "d", 2)]),
            "a second attempt where nobody had the first",
        ),
        (
            next(
                (0, 3),
                vec![
                    acknowledged((0, 4), 4),
                    seen(0, (0, 4), 4),
                    delivered((0, 4), 4, "f"),
                ],
            ),
            "behind one of its line that is not done",
        ),
        (
            close(with(sought(Sought::All)), &["b"], &["b"]),
            "not taken back",
        ),
        (
            close(
                with(sought(Sought::From("c".to_owned(), 2))),
                &["b"],
                &["b"],
            ),
            "a part not taken back",
        ),
    ];
    for (ledger, what) in wrong {
        assert!(!ledger.is_kept(), "the books do not find: {what}");
    }
    let mut closed = Ledger::new(&[GROUP], NATURE, 2);
    closed.closed = Some(3);
    closed.book(acknowledged((0, 2), 1));
    assert!(closed.is_kept(), "{:?}", closed.broken());
    closed.book(acknowledged((0, 3), 2));
    assert!(
        !closed.is_kept(),
        "the books do not find: acknowledged by a log that is gone"
    );
}

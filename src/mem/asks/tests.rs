use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::image::{ImageReader, ImageWriter};
use crate::model::ConnId;

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

#[test]
fn question_ends_once_with_its_answer_or_with_its_deadline() {
    let mut asks = Asks::new(4, 100);
    let answered = asks.open(at(10), 1, "answered").unwrap();
    let overdue = asks.open(at(20), 1, "overdue").unwrap();
    assert_eq!(asks.next_at(), Some(at(10)));
    assert_eq!(asks.close(answered), Some("answered"));
    assert_eq!(asks.close(answered), None, "answered twice");
    assert_eq!(asks.next_at(), Some(at(20)));
    assert_eq!(asks.next_overdue(at(19)), None);
    assert_eq!(asks.next_overdue(at(20)), Some((overdue, "overdue")));
    assert_eq!(asks.next_overdue(at(20)), None);
    let again = asks.open(at(30), 1, "in the same slot").unwrap();
    assert_eq!(again.slot, answered.slot);
    assert_eq!(asks.close(answered), None, "too late");
    assert_eq!((asks.stale(), asks.len()), (2, 1));
    assert_eq!(asks.close(again), Some("in the same slot"));
    assert_eq!(asks.next_at(), None);
}

#[test]
fn questions_that_were_bytes_end_as_they_would_have() {
    let mut before = Asks::new(4, 100);
    let ids: Vec<_> = [(30, 3u32), (10, 1), (20, 2)]
        .map(|(end, value)| before.open(at(end), 5, value).unwrap())
        .to_vec();
    before.close(ids[0]);
    let held = before.open(at(40), 5, 4).unwrap();
    before.hold(held);
    let mut out = ImageWriter::default();
    before.write(&mut out);
    let image = out.finish();
    let mut asks = Asks::<u32>::read(4, 100, &mut ImageReader::new(&image).unwrap()).unwrap();
    assert_eq!((asks.len(), asks.bytes(), asks.stale()), (3, 15, 0));
    assert_eq!(asks.close(ids[0]), None, "it had its answer");
    assert_eq!(
        asks.next_overdue(at(39)),
        Some((ids[1], 1)),
        "put off behind 30"
    );
    assert_eq!(asks.next_overdue(at(39)), Some((ids[2], 2)));
    assert_eq!(asks.next_overdue(at(99)), None, "the other one is held");
    assert_eq!((asks.close(held), before.close(held)), (Some(4), Some(4)));
    let again = asks.open(at(50), 5, 5).unwrap();
    assert_eq!(again, before.open(at(50), 5, 5).unwrap(), "the same slots");
}

#[test]
fn number_and_bytes_are_bounded() {
    let mut asks = Asks::new(2, 100);
    let first = asks.open(at(1), 60, 1).unwrap();
    assert_eq!(asks.open(at(1), 41, 2), Err(Full::Table), "bytes");
    let second = asks.open(at(1), 40, 2).unwrap();
    assert_eq!(asks.open(at(1), 0, 3), Err(Full::Table), "number");
    assert_eq!(asks.close(first), Some(1));
    assert!(asks.open(at(1), 61, 3).is_err());
    assert_eq!(asks.next_overdue(at(1)), Some((second, 2)));
    assert!(asks.has_room(100));
}

#[test]
fn late_question_is_told_once_and_keeps_its_place_until_it_is_answered() {
    let mut asks = Asks::new(1, 10);
    let id = asks.open(at(5), 10, "append").unwrap();
    assert_eq!(asks.next_late(at(4)), None);
    assert_eq!(asks.next_late(at(5)), Some((id, &mut "append")));
    assert_eq!(asks.next_late(at(6)), None, "it was told");
    assert_eq!(asks.next_at(), None);
    assert!(!asks.has_room(0));
    assert_eq!(asks.close(id), Some("append"));
    assert_eq!((asks.stale(), asks.has_room(10)), (0, true));
}

#[test]
fn shorter_deadline_behind_a_longer_one_waits_for_it() {
    let mut asks = Asks::new(4, 0);
    asks.open(at(50), 0, "long").unwrap();
    asks.open(at(10), 0, "short").unwrap();
    assert_eq!(asks.next_overdue(at(49)), None);
    assert_eq!(
        asks.next_overdue(at(50)).map(|(_, name)| name),
        Some("long")
    );
    assert_eq!(
        asks.next_overdue(at(50)).map(|(_, name)| name),
        Some("short")
    );
}

#[test]
fn share_is_taken_with_a_question_and_given_back_when_it_ends() {
    let mut asks = SharedAsks::new(64, 6400);
    let whose = |slot| Whose {
        conn: ConnId {
            slot,
            generation: 1,
        },
        user: "a",
        from: 0,
    };
    let ids: Vec<_> = (0..16)
        .map(|slot| asks.open(at(1), Some(&whose(slot)), 1, slot).unwrap())
        .collect();
    assert_eq!(asks.open(at(1), Some(&whose(99)), 1, 99), Err(Full::Share));
    assert!(asks.open(at(9), None, 1, 100).is_ok(), "nobody's");
    assert_eq!(asks.close(ids[3]), Some(3));
    let refilled = asks.open(at(9), Some(&whose(99)), 1, 99);
    assert!(refilled.is_ok());
    assert_eq!(asks.next_late(at(1)).map(|(_, slot)| *slot), Some(0));
    assert_eq!(
        asks.open(at(9), Some(&whose(98)), 1, 98),
        Err(Full::Share),
        "it is under way still"
    );
    assert_eq!(asks.next_overdue(at(1)).map(|(_, slot)| slot), Some(1));
    assert!(asks.open(at(9), Some(&whose(98)), 1, 98).is_ok());
}

#[derive(Clone, Debug)]
enum Step {
    Open(u64, usize),
    /// One of those that were ever opened.
    Close(usize),
    Overdue(u64),
    Late(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..30_u64, 0..40_usize).prop_map(|(wait, bytes)| Step::Open(wait, bytes)),
        4 => any::<usize>().prop_map(Step::Close),
        1 => (0..10_u64).prop_map(Step::Overdue),
        1 => (0..10_u64).prop_map(Step::Late),
    ]
}

/// The same as a list: number, deadline, bytes, not told to be late.
#[derive(Default)]
struct Naive {
    list: VecDeque<(usize, u64, usize, bool)>,
    latest: u64,
}

impl Naive {
    fn first(&self, now: u64) -> Option<usize> {
        let at = self.list.iter().position(|one| one.3)?;
        (self.list[at].1 <= now).then_some(at)
    }
}

proptest! {
    #[test]
    fn table_does_what_a_list_does(steps in proptest::collection::vec(step(), 1..200)) {
        const MOST: usize = 6;
        const BYTES: usize = 100;
        let mut asks = Asks::new(MOST as u32, BYTES);
        let mut naive = Naive::default();
        let mut ids: Vec<AskId> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Open(wait, bytes) => {
                    let held: usize = naive.list.iter().map(|one| one.2).sum();
                    let fits = naive.list.len() < MOST && held + bytes <= BYTES;
                    let opened = asks.open(at(now + wait), bytes, ids.len());
                    prop_assert_eq!(opened.is_ok(), fits);
                    if let Ok(id) = opened {
                        // As late as the one before it.
                        let last = naive.list.iter().rev().find(|one| one.3);
                        naive.latest = (now + wait).max(last.map_or(0, |one| one.1));
                        naive.list.push_back((ids.len(), naive.latest, bytes, true));
                        ids.push(id);
                    }
                }
                Step::Close(_) if ids.is_empty() => {}
                Step::Close(which) => {
                    let number = which % ids.len();
                    let place = naive.list.iter().position(|one| one.0 == number);
                    let stale = asks.stale() + u64::from(place.is_none());
                    prop_assert_eq!(asks.close(ids[number]), place.map(|_| number));
                    prop_assert_eq!(asks.stale(), stale);
                    place.map(|place| naive.list.remove(place));
                }
                Step::Overdue(pass) => {
                    now += pass;
                    let first = naive.first(now).and_then(|first| naive.list.remove(first));
                    let ended = asks.next_overdue(at(now));
                    prop_assert_eq!(ended.map(|(_, number)| number), first.map(|one| one.0));
                }
                Step::Late(pass) => {
                    now += pass;
                    let first = naive.first(now);
                    let number = first.map(|first| naive.list[first].0);
                    prop_assert_eq!(asks.next_late(at(now)).map(|(_, number)| *number), number);
                    if let Some(first) = first {
                        naive.list[first].3 = false;
                    }
                }
            }
            let next = naive.list.iter().find(|one| one.3).map(|one| at(one.1));
            prop_assert_eq!(asks.next_at(), next);
            prop_assert_eq!(asks.len(), naive.list.len());
        }
    }
}

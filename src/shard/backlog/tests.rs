use super::*;
use crate::mem::OriginKey;

fn backlog() -> Backlog {
    Backlog::new(&HeldBytes::default())
}

/// Hub slots, and how many publications each lost.
fn dropped(losses: Losses) -> Vec<(u32, u64)> {
    let counts = losses
        .into_iter()
        .map(|(hub, loss)| (hub, loss.publications));
    counts.collect()
}

impl Backlog {
    /// As if others got it too.
    fn get(&mut self, bytes: &[u8], hub: Option<u32>) {
        let of = Shared::new(bytes.to_vec(), &self.held);
        self.share(&of, hub.map(Place::new));
    }

    /// A publication with this offset and, unless it is empty, key.
    fn publish(&mut self, hub: u32, offset: u64, key: &str, len: usize) {
        let key = (!key.is_empty()).then(|| OriginKey {
            // All collide: the bytes tell them apart.
            hash: 7,
            bytes: key.as_bytes().into(),
        });
        let origin = Origin {
            offset,
            key,
            ..Origin::default()
        };
        let of = Shared::of(vec![offset as u8; len], origin, &self.held);
        self.share(&of, Some(Place::new(hub)));
    }

    fn offsets(&self) -> Vec<u64> {
        self.publications()
            .map(|(_, origin)| origin.offset)
            .collect()
    }

    fn left(&self) -> Vec<(usize, Option<u32>)> {
        let tail = (!self.tail.is_empty()).then_some((self.tail.len(), None));
        let pieces = self
            .pieces
            .iter()
            .map(|one| (one.bytes().len(), one.hub.map(Place::get)));
        pieces.chain(tail).collect()
    }

    fn all(&self) -> Vec<u8> {
        let mut all: Vec<u8> = (self.pieces.iter())
            .flat_map(|one| one.bytes().to_vec())
            .collect();
        all.extend_from_slice(&self.tail);
        all
    }
}

#[test]
fn a_batch_is_a_part_and_what_it_begins_can_no_longer_be_dropped() {
    let mut backlog = backlog();
    backlog.push(b"reply");
    backlog.get(&[1; OWNED_BATCH_BYTES_MAX - 10], Some(1));
    backlog.get(&[2; 20], Some(2));
    backlog.get(&[3; 30], Some(1));
    let batch = backlog.take_batch();
    assert_eq!(batch.len(), OWNED_BATCH_BYTES_MAX);
    assert_eq!(batch[..6], *b"reply\x01");
    assert_eq!(batch[batch.len() - 5..], [2; 5]);
    assert_eq!(backlog.left(), [(15, None), (30, Some(1))]);
    assert_eq!(backlog.unsent(), OWNED_BATCH_BYTES_MAX + 45);
    assert_eq!(dropped(backlog.drop_oldest(0, 0, |_| true)), [(1, 1)]);
    assert_eq!(backlog.all(), [2; 15]);
    // What the kernel did not take comes first again.
    backlog.batch_back(&batch, batch.len() - 3);
    assert_eq!(backlog.take_batch(), [2; 18]);
    assert!(backlog.is_empty() && backlog.left().is_empty());
}

#[test]
fn bytes_that_many_get_count_once_and_until_the_last_has_them() {
    const LARGE: usize = 10_000 + Shared::AROUND;
    let held = HeldBytes::default();
    let mut backlogs: Vec<Backlog> = (0..3).map(|_| Backlog::new(&held)).collect();
    let large = Shared::new(vec![1; 10_000], &held);
    for backlog in &mut backlogs {
        backlog.share(&large, None);
        backlog.push(b"own");
    }
    drop(large);
    let each = QueuedPiece::BYTES + 3;
    assert_eq!(held.get(), LARGE + 3 * each, "the large ones once");
    let batch = backlogs[0].take_batch();
    assert_eq!(batch.len(), 10_003);
    assert_eq!(held.get(), LARGE + 2 * each + batch.len(), "a copy is out");
    backlogs[0].batch_back(&batch, batch.len());
    assert_eq!(held.get(), LARGE + 2 * each);
    backlogs.pop();
    assert_eq!(held.get(), LARGE + each);
    let batch = backlogs[1].take_batch();
    assert_eq!(held.get(), batch.len(), "nobody else has them");
    backlogs[1].batch_back(&batch, 4_000);
    let rest = batch.len() - 4_000 + Shared::AROUND + QueuedPiece::BYTES;
    assert_eq!(held.get(), rest);
    drop(backlogs);
    assert_eq!(held.get(), 0);
}

#[test]
fn places_in_the_queues_of_those_who_share_count_for_each() {
    const PIECES: usize = 1000;
    let held = HeldBytes::default();
    let mut backlogs: Vec<Backlog> = (0..100).map(|_| Backlog::new(&held)).collect();
    for _ in 0..PIECES {
        let small = Shared::new(vec![1; 20], &held);
        for backlog in &mut backlogs {
            backlog.share(&small, Some(Place::new(7)));
        }
    }
    let shared = PIECES * (20 + Shared::AROUND);
    let places = backlogs.len() * PIECES * QueuedPiece::BYTES;
    let channels = backlogs.len() * OfChannel::BYTES;
    let places = places + channels;
    assert_eq!(held.get(), shared + places);
    let lost = dropped(backlogs[0].drop_oldest(10_000, 0, |_| true));
    assert_eq!(lost, [(7, PIECES as u64 / 2)]);
    assert_eq!(
        held.get(),
        shared + places - PIECES / 2 * QueuedPiece::BYTES,
        "the others still have them"
    );
    drop(backlogs);
    assert_eq!(held.get(), 0);
}

#[test]
fn what_many_get_stands_between_what_came_before_and_after() {
    let mut backlog = backlog();
    backlog.push(b"a");
    backlog.get(b"small", None);
    backlog.get(&[b'x'; SHARED_FROM_BYTES], None);
    backlog.push(b"b");
    backlog.get(b"droppable", Some(7));
    backlog.push(b"c");
    let x = "x".repeat(SHARED_FROM_BYTES);
    assert_eq!(
        backlog.left(),
        [
            (6, None),
            (SHARED_FROM_BYTES, None),
            (1, None),
            (9, Some(7)),
            (1, None)
        ]
    );
    let batch = backlog.take_batch();
    assert_eq!(batch, format!("asmall{x}bdroppablec").as_bytes());
    backlog.push(b"d");
    backlog.batch_back(&batch, batch.len() - 1);
    assert_eq!(backlog.take_batch(), b"cd");
}

#[test]
fn one_message_does_not_count_whatever_its_size_is() {
    let mut backlog = backlog();
    backlog.push(&[0; 10]);
    backlog.get(&[0; 5000], Some(1));
    backlog.get(&[0; 20], Some(1));
    assert_eq!((backlog.unsent(), backlog.waiting()), (5030, 30));
    // While it is on its way a second one counts.
    backlog.get(&[0; 4000], Some(1));
    assert_eq!(backlog.waiting(), 4030);
    let batch = backlog.take_batch();
    backlog.batch_back(&batch, 2000);
    assert_eq!((backlog.unsent(), backlog.waiting()), (7030, 4020));
    let batch = backlog.take_batch();
    backlog.batch_back(&batch, 3010);
    assert_eq!((backlog.unsent(), backlog.waiting()), (4020, 4020));
    backlog.get(&[0; 9000], Some(1));
    assert_eq!(backlog.waiting(), 4020);
}

#[test]
fn answers_that_are_not_taken_are_owed_until_the_last_byte() {
    let mut backlog = backlog();
    backlog.push(&[0; 100]);
    backlog.push(&[0; ANSWERS_BYTES_MAX]);
    backlog.answered(ANSWERS_BYTES_MAX);
    assert!(!backlog.owes_answers(), "as much as may wait");
    backlog.push(&[0; 1]);
    backlog.answered(1);
    backlog.get(&[0; 1000], Some(1));
    assert!(backlog.owes_answers());
    backlog.gone(100 + ANSWERS_BYTES_MAX);
    assert!(backlog.owes_answers());
    backlog.gone(1);
    assert!(!backlog.owes_answers(), "what follows is no answer");
}

#[test]
fn newest_stays_where_only_its_size_exceeds() {
    let mut backlog = backlog();
    backlog.get(&[0; 600], Some(2));
    assert_eq!(backlog.waiting(), 0);
    assert_eq!(dropped(backlog.drop_oldest(500, 1000, |_| true)), []);
    assert_eq!(backlog.left(), [(600, Some(2))]);
    backlog.push(&[0; 2000]);
    let lost = backlog.drop_oldest(100, 500, |_| true);
    assert_eq!(dropped(lost), [(2, 1)], "others exceed too");
}

#[test]
fn only_the_oldest_droppable_pieces_go() {
    let mut backlog = backlog();
    for (bytes, hub) in [
        (&b"reply"[..], None),
        (b"a1", Some(1)),
        (b"b1", Some(2)),
        (b"more", None),
        (b"a2", Some(1)),
    ] {
        backlog.get(bytes, hub);
    }
    let lost = backlog.drop_oldest(12, 0, |_| true);
    assert_eq!(dropped(lost), [(1, 1), (2, 1)]);
    assert_eq!(backlog.all(), b"replymorea2");
    assert_eq!(backlog.left(), [(5, None), (4, None), (2, Some(1))]);
}

#[test]
fn latest_of_each_key_stays_where_a_channel_may_be_conflated() {
    let mut backlog = backlog();
    for (offset, (hub, key)) in (1..).zip([
        (1, "a"),
        (1, "b"),
        (2, "a"),
        (1, ""),
        (1, "a"),
        (3, "a"),
        (1, ""),
        (3, "a"),
        (1, "a"),
    ]) {
        backlog.publish(hub, offset, key, 10);
    }
    assert!(backlog.has_unconflated());
    let lost = backlog.conflate(|hub| hub != 3);
    let mut wanted = Loss::conflated(&Origin {
        offset: 1,
        ..Origin::default()
    });
    wanted.add(Loss::conflated(&Origin {
        offset: 5,
        ..Origin::default()
    }));
    assert_eq!(lost, [(1, wanted)]);
    assert_eq!(backlog.offsets(), [2, 3, 4, 6, 7, 8, 9]);
    assert!(!backlog.has_unconflated());
    assert_eq!(
        backlog.conflate(|_| true).len(),
        1,
        "the other channel, if asked"
    );
    // What has begun is followed by its rest, and is no longer looked at.
    let mut all = backlog.take_batch();
    assert_eq!(all.len(), 60);
    backlog.batch_back(&all, 60);
    backlog.publish(1, 10, "a", OWNED_BATCH_BYTES_MAX + 5);
    all = backlog.take_batch();
    backlog.publish(1, 11, "a", 3);
    assert!(backlog.conflate(|_| true).is_empty());
    backlog.batch_back(&all, all.len());
    assert_eq!(
        backlog.take_batch(),
        [[10; 5].as_slice(), &[11; 3]].concat()
    );
}

#[test]
fn a_look_for_later_ones_is_paid_for_by_those_that_came() {
    let mut backlog = backlog();
    let mut looks = 0;
    for offset in 1..=10_000 {
        backlog.publish(1, offset, &(offset % 100).to_string(), 10);
        if backlog.has_much_unconflated() {
            backlog.conflate(|_| true);
            looks += 1;
        }
        assert!(backlog.pieces.len() <= 2 * 100 + 17, "{offset}");
    }
    assert!(looks < 10_000 / 100, "{looks}");
}

#[test]
fn oldest_of_one_channel_go_and_its_newest_stays_whatever_its_size_is() {
    let mut backlog = backlog();
    backlog.publish(1, 1, "", 1000);
    assert!(!backlog.has_too_much(1, 100), "it stands alone");
    backlog.publish(2, 2, "", 1000);
    backlog.publish(1, 3, "", 30);
    backlog.publish(1, 4, "", 40);
    backlog.publish(1, 5, "", 50);
    assert!(backlog.has_too_much(1, 100) && !backlog.has_too_much(2, 100));
    assert_eq!(dropped(backlog.drop_oldest_of(1, 100)), [(1, 2)]);
    assert_eq!(backlog.offsets(), [2, 4, 5]);
    backlog.publish(1, 6, "", 500);
    assert_eq!(dropped(backlog.drop_oldest_of(1, 100)), [(1, 2)]);
    assert_eq!(backlog.offsets(), [2, 6]);
    assert_eq!(backlog.purge(1).from(), 6);
    assert_eq!(backlog.hubs().collect::<Vec<_>>(), [2]);
}

#[test]
fn what_is_cut_ends_between_messages_and_all_memory_goes_back() {
    let held = HeldBytes::default();
    let mut backlog = Backlog::new(&held);
    backlog.publish(1, 1, "", OWNED_BATCH_BYTES_MAX + 10);
    backlog.publish(1, 2, "a", 500);
    backlog.push(&[9; 100]);
    let batch = backlog.take_batch();
    // The kernel took less: its rest stands before what has begun.
    backlog.batch_back(&batch, 1000);
    assert_eq!(dropped(backlog.cut()), [(1, 1)]);
    backlog.push(b"close");
    let mut left = Vec::new();
    while !backlog.is_empty() {
        let batch = backlog.take_batch();
        backlog.batch_back(&batch, batch.len());
        left.extend(batch);
    }
    let mut wanted = vec![1; OWNED_BATCH_BYTES_MAX + 10 - 1000];
    wanted.extend(b"close");
    assert!(left == wanted);
    drop(backlog);
    assert_eq!(held.get(), 0);
}

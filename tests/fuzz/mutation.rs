//! Changes to valid input.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Cases of a target in every run of the tests.
const CASES: u32 = 1000;
/// Changes to one input.
const CHANGES_MAX: usize = 6;
/// Bytes that one change adds at most.
const ADDED_BYTES_MAX: usize = 4096;

/// What every target runs with. A failure is shown with its input, and nothing is written beside the sources.
pub(crate) fn config() -> ProptestConfig {
    let asked = std::env::var("RINGMAIN_FUZZ_CASES");
    let cases = asked.map_or(CASES, |text| text.parse().expect("a number of cases"));
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// One change.
#[derive(Clone, Debug)]
enum Change {
    Truncate(Index),
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// A piece of another input in place of the rest.
    Splice(Index, Index, Index),
    /// A piece many times.
    Repeat(Index, usize, usize),
}

/// Bytes in which decoders have an interest: ends of number ranges, lengths that are not there, brackets.
const TELLING: &[&[u8]] = &[
    b"\0",
    b"\x7f",
    b"\x80\x01",
    b"\xff\xff\x03",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x10",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\n",
    b"\r\n",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[[[[",
    b"null",
    b"-1",
    b"18446744073709551616",
    b"1e400",
];

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![
        vec(any::<u8>(), 1..16),
        proptest::sample::select(TELLING).prop_map(<[u8]>::to_vec),
    ];
    let at = any::<Index>;
    prop_oneof![
        1 => at().prop_map(Change::Truncate),
        4 => (at(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        3 => (at(), bytes).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (at(), 1usize..16).prop_map(|(at, len)| Change::Remove(at, len)),
        2 => (at(), at(), at()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
        2 => (at(), 1usize..64, 2usize..64).prop_map(|(at, len, times)| Change::Repeat(at, len, times)),
    ]
}

fn apply(corpus: &[Vec<u8>], bytes: &mut Vec<u8>, change: &Change) {
    let end = bytes.len();
    let place = |index: &Index| index.index(end + 1);
    match change {
        Change::Truncate(at) => bytes.truncate(place(at)),
        Change::Flip(at, bit) if end > 0 => bytes[at.index(end)] ^= 1 << bit,
        Change::Set(at, byte) if end > 0 => bytes[at.index(end)] = *byte,
        Change::Flip(..) | Change::Set(..) => {}
        Change::Insert(at, added) => {
            let at = place(at);
            bytes.splice(at..at, added.iter().copied());
        }
        Change::Remove(at, len) => {
            let at = place(at);
            bytes.drain(at..end.min(at + len));
        }
        Change::Splice(at, other, from) => {
            let other = &corpus[other.index(corpus.len())];
            bytes.truncate(place(at));
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
        Change::Repeat(at, len, times) => {
            let at = place(at);
            let piece = bytes[at..end.min(at + len)].repeat(*times);
            let added = piece.len().min(ADDED_BYTES_MAX);
            bytes.splice(at..at, piece[..added].iter().copied());
        }
    }
}

/// Inputs near those of `corpus`, and a few that are near nothing.
pub(crate) fn near(corpus: &'static [Vec<u8>]) -> impl Strategy<Value = Vec<u8>> {
    let changed = (any::<Index>(), vec(change(), 0..=CHANGES_MAX)).prop_map(|(base, changes)| {
        let mut bytes = corpus[base.index(corpus.len())].clone();
        for change in &changes {
            apply(corpus, &mut bytes, change);
        }
        bytes
    });
    prop_oneof![9 => changed, 1 => vec(any::<u8>(), 0..300)]
}

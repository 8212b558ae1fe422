//! What a returning subscriber missed (`spec/centrifuge.md` §4.4), and pages of history (§4.5).

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::limits::HISTORY_BYTES_MAX;
use crate::mesh::message::Recover;
use crate::model::{Offset, Publication, Since, StreamPosition};
use crate::time::Instant;

/// Publications kept, ascending and without holes, ending at `top.offset` unless some were removed.
#[derive(Debug, Default)]
pub struct KeptHistory {
    publications: VecDeque<Arc<Publication>>,
    /// When each was taken in. The wall clock in a publication may be set; this one only runs.
    taken: VecDeque<Instant>,
    /// Of their payloads.
    bytes: u64,
}

fn bytes_of(publications: &VecDeque<Arc<Publication>>) -> u64 {
    let bytes = |one: &Arc<Publication>| one.data.len() as u64;
    publications.iter().map(bytes).sum()
}

impl KeptHistory {
    /// One more, the newest.
    pub fn push(&mut self, now: Instant, publication: Arc<Publication>) {
        self.bytes += publication.data.len() as u64;
        self.publications.push_back(publication);
        self.taken.push_back(now);
    }

    /// When the oldest was taken in.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.taken.front().copied()
    }

    /// Forgets the oldest.
    pub fn pop_front(&mut self) {
        if let Some(oldest) = self.publications.pop_front() {
            self.bytes -= oldest.data.len() as u64;
        }
        self.taken.pop_front();
    }

    /// Bytes of the payloads that are kept.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forgets those at these offsets, ascending.
    pub fn forget(&mut self, offsets: &[u64]) {
        let is_kept = |one: &Arc<Publication>| offsets.binary_search(&one.offset.0).is_err();
        let mut kept = self.publications.iter().map(is_kept);
        self.taken.retain(|_| kept.next().unwrap_or(true));
        self.publications.retain(is_kept);
        self.bytes = bytes_of(&self.publications);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Deref for KeptHistory {
    type Target = VecDeque<Arc<Publication>>;
    fn deref(&self) -> &Self::Target {
        &self.publications
    }
}

impl Image for KeptHistory {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            publications,
            taken,
            bytes: _,
        } = self;
        publications.write(out);
        for at in taken {
            at.write(out);
        }
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let publications = VecDeque::read(from)?;
        let taken = publications.iter().map(|_| Instant::read(from));
        let taken = taken.collect::<Result<_, _>>()?;
        Ok(Self {
            bytes: bytes_of(&publications),
            publications,
            taken,
        })
    }
}

/// Entries with an offset greater than `after`.
fn newer(history: &KeptHistory, after: u64) -> impl DoubleEndedIterator<Item = &Arc<Publication>> {
    let from = history.partition_point(|publication| publication.offset.0 <= after);
    history.range(from..)
}

/// Recovery: the missed publications and whether they are all that matters of what was missed.
#[must_use]
pub fn recover(
    history: &KeptHistory,
    top: StreamPosition,
    from: &Recover,
) -> (Vec<Arc<Publication>>, bool) {
    let Recover { epoch, offset, .. } = *from;
    if from.cache {
        return latest(history, top, from);
    }
    if !epoch.fits(top.epoch) {
        return (Vec::new(), false);
    }
    let missed: Vec<_> = newer(history, offset)
        .take(from.limit as usize)
        .cloned()
        .collect();
    let complete = match (missed.first(), missed.last()) {
        (Some(first), Some(last)) => first.offset.0 == offset + 1 && last.offset == top.offset,
        _ => top.offset.0 == offset,
    };
    if complete {
        (missed, true)
    } else {
        (Vec::new(), false)
    }
}

/// Keeps what is at the front within a number of payload bytes, one publication whatever its size. True if something was left out.
pub fn cut(publications: &mut Vec<Arc<Publication>>, bytes_max: usize) -> bool {
    let mut bytes = 0;
    let over = publications.iter().position(|publication| {
        let is_first = bytes == 0;
        bytes += publication.data.len().max(1);
        !is_first && bytes > bytes_max
    });
    over.is_some_and(|over| {
        publications.truncate(over);
        true
    })
}

/// Cache recovery: the latest publication, unless the client has it.
fn latest(
    history: &KeptHistory,
    top: StreamPosition,
    from: &Recover,
) -> (Vec<Arc<Publication>>, bool) {
    let has_it = from.offset == top.offset.0 && from.epoch.is(top.epoch);
    match history.back().filter(|latest| latest.offset == top.offset) {
        Some(latest) if !has_it => (vec![Arc::clone(latest)], true),
        Some(_) | None => (Vec::new(), has_it),
    }
}

/// A page of history; `None` when `since` names another epoch (error 112).
#[must_use]
pub fn page(
    history: &KeptHistory,
    top: StreamPosition,
    limit: u32,
    since: Option<(u64, Since)>,
    reverse: bool,
) -> Option<Vec<Arc<Publication>>> {
    if since.is_some_and(|(_, epoch)| !epoch.fits(top.epoch)) {
        return None;
    }
    let limit = limit as usize;
    let mut page: Vec<_> = match (since, reverse) {
        (Some((offset, _)), false) => newer(history, offset).take(limit).cloned().collect(),
        (Some((offset, _)), true) => {
            let end = history.partition_point(|publication| publication.offset < Offset(offset));
            history.range(..end).rev().take(limit).cloned().collect()
        }
        (None, false) => history.iter().take(limit).cloned().collect(),
        (None, true) => history.iter().rev().take(limit).cloned().collect(),
    };
    // The next page begins where this one ends.
    cut(&mut page, HISTORY_BYTES_MAX);
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;
    use bytes::Bytes;

    const EPOCH: Epoch = Epoch(*b"abcdefgh");

    #[test]
    fn cut_keeps_what_fits_and_one_publication_in_any_case() {
        let sized = |sizes: &[usize]| -> Vec<Arc<Publication>> {
            let (history, _) = history(1..=sizes.len() as u64);
            let with = |(publication, size): (&Arc<Publication>, &usize)| {
                let data = Bytes::from(vec![b'1'; *size]);
                Arc::new(Publication {
                    data,
                    ..Publication::clone(publication)
                })
            };
            history.iter().zip(sizes).map(with).collect()
        };
        for (sizes, kept) in [
            (&[4, 6][..], 2),
            (&[4, 6, 1], 2),
            (&[11], 1),
            (&[11, 1], 1),
            (&[], 0),
        ] {
            let mut publications = sized(sizes);
            let is_cut = cut(&mut publications, 10);
            assert_eq!(
                (publications.len(), is_cut),
                (kept, kept < sizes.len()),
                "{sizes:?}"
            );
        }
    }

    fn history(offsets: std::ops::RangeInclusive<u64>) -> (KeptHistory, StreamPosition) {
        let top = StreamPosition {
            epoch: EPOCH,
            offset: Offset(*offsets.end()),
        };
        let mut history = KeptHistory::default();
        for offset in offsets {
            history.push(
                Instant::START,
                Arc::new(Publication {
                    offset: Offset(offset),
                    epoch: EPOCH,
                    data: Bytes::new(),
                    json: true,
                    info: None,
                    tags: Box::default(),
                    unix_ms: 0,
                    tells_time: false,
                    patch: None,
                    delta: false,
                }),
            );
        }
        (history, top)
    }

    fn offsets(page: &[Arc<Publication>]) -> Vec<u64> {
        page.iter()
            .map(|publication| publication.offset.0)
            .collect()
    }

    #[test]
    fn recovery_is_all_or_nothing() {
        let (entries, top) = history(4..=8);
        let fits = Since::Epoch(EPOCH);
        let recover = |epoch, offset, limit| {
            let from = Recover {
                epoch,
                offset,
                limit,
                cache: false,
            };
            recover(&entries, top, &from)
        };
        assert_eq!(offsets(&recover(fits, 6, 10).0), [7, 8]);
        assert_eq!(recover(fits, 8, 10), (vec![], true));
        assert!(!recover(fits, 2, 10).1, "offset 3 is gone");
        assert!(!recover(fits, 3, 4).1, "more than the limit");
        assert!(!recover(fits, 9, 10).1, "from the future");
        assert!(!recover(Since::Nothing, 8, 10).1);
        assert!(recover(Since::Any, 8, 10).1);
    }

    #[test]
    fn cache_recovery_gives_the_latest_to_whoever_does_not_have_it() {
        let (entries, top) = history(4..=8);
        let fits = Since::Epoch(EPOCH);
        let latest = |entries: &KeptHistory, epoch, offset| {
            let from = Recover {
                epoch,
                offset,
                limit: 10,
                cache: true,
            };
            let (missed, recovered) = recover(entries, top, &from);
            (offsets(&missed), recovered)
        };
        assert_eq!(latest(&entries, fits, 1), (vec![8], true));
        assert_eq!(latest(&entries, Since::Any, 0), (vec![8], true));
        assert_eq!(latest(&entries, fits, 7), (vec![8], true));
        assert_eq!(latest(&entries, fits, 8), (vec![], true));
        assert_eq!(
            latest(&entries, Since::Nothing, 8),
            (vec![8], true),
            "another epoch"
        );
        let none = KeptHistory::default();
        assert_eq!(latest(&none, fits, 8), (vec![], true));
        assert_eq!(latest(&none, fits, 7), (vec![], false));
        assert_eq!(latest(&none, Since::Nothing, 8), (vec![], false));
    }

    #[test]
    fn pages_go_both_ways_without_overlap() {
        let (entries, top) = history(1..=5);
        let since = |offset| Some((offset, Since::Any));
        assert_eq!(
            offsets(&page(&entries, top, 2, None, false).unwrap()),
            [1, 2]
        );
        assert_eq!(
            offsets(&page(&entries, top, 2, since(2), false).unwrap()),
            [3, 4]
        );
        assert_eq!(
            offsets(&page(&entries, top, 2, None, true).unwrap()),
            [5, 4]
        );
        assert_eq!(
            offsets(&page(&entries, top, 9, since(4), true).unwrap()),
            [3, 2, 1]
        );
        assert!(page(&entries, top, 2, Some((2, Since::Nothing)), false).is_none());
    }
}

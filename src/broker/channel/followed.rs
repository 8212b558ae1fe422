//! A channel that is followed: what comes down, what is read for those who wait, and what there is for them.

use std::sync::Arc;

use super::Channel;
use crate::broker::followed::{Followed, FoundInLog, LogPart, Opened, Stored, Tries};
use crate::limits::{
    HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX, LOG_AHEAD_MAX, LOG_PAGE_BYTES, LOG_PAGE_ENTRIES,
};
use crate::mesh::durable::{Page, Read, Span};
use crate::mesh::message::{QueryKind, Recover};
use crate::model::{Publication, StreamPosition};
use crate::time::Instant;

impl Channel {
    pub(in crate::broker) fn followed_mut(&mut self) -> &mut Followed {
        self.followed.get_or_insert_default()
    }

    pub(in crate::broker) fn is_open(&self) -> bool {
        self.followed
            .as_ref()
            .is_some_and(|followed| followed.is_open)
    }

    /// What is needed to know the channel's end; `None` if it is known or asked for.
    pub(in crate::broker) fn open_read(&mut self) -> Option<Read> {
        let channel = self.name.clone();
        let followed = self.followed_mut();
        if followed.is_open || followed.reading.contains(&None) {
            return None;
        }
        followed.reading.push(None);
        Some(Read {
            channel,
            after: None,
            limit: 0,
            bytes: 0,
        })
    }

    /// What is needed to read a part; `None` if that is under way.
    pub(in crate::broker) fn part_read(&mut self, after: u64) -> Option<Read> {
        let channel = self.name.clone();
        let followed = self.followed_mut();
        if followed.reading.contains(&Some(after)) {
            return None;
        }
        followed.reading.push(Some(after));
        Some(Read {
            channel,
            after: Some(after),
            limit: LOG_PAGE_ENTRIES,
            bytes: LOG_PAGE_BYTES,
        })
    }

    /// A publication from the log. What subscribers get of it: nothing, or it and those that waited for it.
    pub(in crate::broker) fn stored(
        &mut self,
        now: Instant,
        publication: Arc<Publication>,
    ) -> Stored {
        let followed = self.followed_mut();
        if !followed.is_open {
            if followed.ahead.len() < LOG_AHEAD_MAX {
                followed.ahead.push(publication);
            } else {
                followed.ahead_lost = true;
            }
            return Stored::Nothing;
        }
        if publication.epoch == self.epoch && publication.offset <= self.top {
            return Stored::Nothing;
        }
        if publication.epoch != self.epoch || publication.offset.0 != self.top.0 + 1 {
            self.reopen();
            return self.stored(now, publication);
        }
        Stored::Next(self.keep(now, publication))
    }

    /// The end is asked for anew.
    pub(in crate::broker) fn reopen(&mut self) {
        let followed = self.followed_mut();
        followed.is_open = false;
        followed.ahead.clear();
        followed.ahead_lost = false;
        // An answer that is on its way may be older than what made this necessary.
        followed.reread = followed.reading.contains(&None);
    }

    /// The answer about the end came: is it to be asked for once more?
    pub(in crate::broker) fn asks_again(&mut self) -> bool {
        let followed = self.followed_mut();
        followed.reading.retain(Option::is_some);
        std::mem::take(&mut followed.reread)
    }

    /// The log says where the channel ends. What came meanwhile and is later.
    pub(in crate::broker) fn opened(&mut self, now: Instant, position: StreamPosition) -> Opened {
        let is_same = self.epoch == position.epoch && self.top == position.offset;
        if !is_same {
            // What is in memory may end before the new end.
            self.history.clear();
        }
        if self.epoch != position.epoch {
            self.epoch = position.epoch;
            let followed = self.followed_mut();
            followed.pages.clear();
            followed.first_kept = 0;
        }
        self.top = position.offset;
        let followed = self.followed_mut();
        followed.is_open = true;
        let ahead = std::mem::take(&mut followed.ahead);
        let lost = std::mem::take(&mut followed.ahead_lost);
        let mut later = Vec::new();
        for publication in ahead {
            if let Stored::Next(publication) = self.stored(now, publication) {
                later.push(publication);
            }
        }
        if lost {
            self.reopen();
        }
        Opened {
            moved: !is_same,
            later,
        }
    }

    fn keep(&mut self, now: Instant, mut publication: Arc<Publication>) -> Arc<Publication> {
        self.top = publication.offset;
        let patch = self.patch(&publication);
        let tells_time = self.namespace.publication_time;
        if patch.is_some() || tells_time {
            let own = Arc::make_mut(&mut publication);
            own.patch = patch;
            own.tells_time = tells_time;
        }
        while self.history.len() >= (self.namespace.history_size as usize).max(1) {
            self.history.pop_front();
        }
        self.history.push(now, Arc::clone(&publication));
        publication
    }

    /// A part of the log has been read. Bytes of it that are kept.
    pub(in crate::broker) fn part_came(&mut self, page: Page) -> usize {
        let tells_time = self.namespace.publication_time;
        let top = self.top.0;
        let epoch = self.epoch;
        let followed = self.followed_mut();
        followed.reading.retain(|&other| other != page.after);
        let Some(after) = page.after.filter(|_| page.position.epoch == epoch) else {
            return 0;
        };
        if page.span.from > after + 1 && after < top {
            followed.first_kept = followed.first_kept.max(page.span.from);
        }
        if page.span.to < page.span.from {
            return 0;
        }
        let mut publications = page.publications;
        if tells_time {
            for publication in &mut publications {
                Arc::make_mut(publication).tells_time = true;
            }
        }
        let bytes = size_of::<LogPart>() + bytes_of(&publications);
        followed.pages.push_back(LogPart {
            after,
            span: page.span,
            publications,
        });
        bytes
    }

    /// Some of what the log kept has ended before its turn.
    pub(in crate::broker) fn ended(&mut self, offsets: &[u64]) {
        self.history.forget(offsets);
        let followed = self.followed_mut();
        for part in &mut followed.pages {
            part.publications
                .retain(|one| offsets.binary_search(&one.offset.0).is_err());
        }
    }

    /// The log could not be read: nobody waits for these parts any more.
    pub(in crate::broker) fn read_failed(&mut self) {
        let followed = self.followed_mut();
        followed.reading.clear();
        followed.reread = false;
    }

    /// Forgets the oldest part that was read.
    pub(in crate::broker) fn drop_part(&mut self) {
        if let Some(followed) = &mut self.followed {
            followed.pages.pop_front();
        }
    }

    /// The log keeps nothing before this offset.
    pub(in crate::broker) fn begins(&mut self, first: u64) {
        let top = self.top.0;
        while self
            .history
            .front()
            .is_some_and(|oldest| oldest.offset.0 < first)
        {
            self.history.pop_front();
        }
        let followed = self.followed_mut();
        followed.first_kept = followed.first_kept.max(first.min(top + 1));
    }

    /// What the log has kept was removed.
    pub(in crate::broker) fn trimmed(&mut self) {
        let next = self.top.0 + 1;
        self.history.clear();
        let followed = self.followed_mut();
        followed.pages.clear();
        followed.first_kept = next;
    }

    /// Whoever left off somewhere: what it missed, or the first part of that.
    pub(in crate::broker) fn missed(&self, from: &Recover) -> FoundInLog {
        if !from.epoch.fits(self.epoch) || from.offset > self.top.0 {
            return FoundInLog::Gone;
        }
        self.after(from.offset, from.limit.max(1) as usize, usize::MAX)
    }

    /// At most `limit` publications after an offset; one at least, unless nothing is left before the channel's end.
    fn after(&self, offset: u64, limit: usize, bytes: usize) -> FoundInLog {
        let mut at = offset;
        loop {
            let mut found = self.next_after(at, limit, bytes);
            if let FoundInLog::Some {
                publications,
                span,
                more,
            } = &mut found
            {
                if publications.is_empty() && *more && span.to > at {
                    at = span.to;
                    continue;
                }
                span.from = offset + 1;
            }
            return found;
        }
    }

    /// The same, of one part.
    fn next_after(&self, offset: u64, limit: usize, bytes: usize) -> FoundInLog {
        let top = self.top.0;
        let nothing = FoundInLog::Some {
            publications: Vec::new(),
            span: Span::behind(offset, offset),
            more: false,
        };
        if offset >= top {
            return nothing;
        }
        let Some(followed) = &self.followed else {
            return FoundInLog::Read(offset);
        };
        if offset + 1 < followed.first_kept {
            return FoundInLog::Gone;
        }
        let some = |list: &mut dyn Iterator<Item = &Arc<Publication>>, end: u64| {
            let (mut sum, mut publications) = (0, Vec::new());
            let (mut to, end) = (offset, end.min(top));
            let mut is_cut = false;
            // A part may have been read when the log had more than has come down as news yet.
            for publication in list.take_while(|publication| publication.offset.0 <= end) {
                let fits = sum == 0 || sum + publication.data.len() <= bytes;
                is_cut = publications.len() >= limit || !fits;
                if is_cut {
                    break;
                }
                sum += publication.data.len();
                to = publication.offset.0;
                publications.push(Arc::clone(publication));
            }
            if !is_cut {
                to = end;
            }
            FoundInLog::Some {
                publications,
                span: Span::behind(offset, to),
                more: to < top,
            }
        };
        let covers = |oldest: &Arc<Publication>| oldest.offset.0 <= offset + 1;
        if self.history.front().is_some_and(covers) {
            let from = self
                .history
                .partition_point(|publication| publication.offset.0 <= offset);
            return some(&mut self.history.range(from..), top);
        }
        let holds = |span: Span| span.from <= offset + 1 && span.to > offset;
        let part = followed.pages.iter().rev().find(|part| holds(part.span));
        if let Some(part) = part {
            let from = part
                .publications
                .partition_point(|publication| publication.offset.0 <= offset);
            return some(&mut part.publications[from..].iter(), part.span.to);
        }
        // Parts begin at multiples of their size, so that those who left off at different places share them.
        let aligned = offset - offset % u64::from(LOG_PAGE_ENTRIES);
        let is_there = followed.pages.iter().any(|part| part.after == aligned);
        FoundInLog::Read(if is_there { offset } else { aligned })
    }

    /// The latest publication, unless the asker has it.
    pub(in crate::broker) fn latest(&self, from: &Recover) -> FoundInLog {
        let has_it = from.offset == self.top.0 && from.epoch.is(self.epoch);
        if has_it || self.top.0 == 0 {
            return FoundInLog::Some {
                publications: Vec::new(),
                span: Span::behind(self.top.0, self.top.0),
                more: false,
            };
        }
        self.after(self.top.0 - 1, 1, usize::MAX)
    }

    /// A page of history, in the order asked for.
    pub(in crate::broker) fn page(&self, what: QueryKind, tries: Tries) -> FoundInLog {
        let QueryKind::History {
            limit,
            since,
            reverse,
        } = what
        else {
            return FoundInLog::Gone;
        };
        if since.is_some_and(|(_, epoch)| !epoch.fits(self.epoch)) {
            return FoundInLog::Gone;
        }
        let limit = u64::from(limit).min(HISTORY_ENTRIES_MAX);
        let first_kept = self
            .followed
            .as_ref()
            .map_or(0, |followed| followed.first_kept);
        let until = match since.filter(|_| reverse) {
            Some((offset, _)) => offset.saturating_sub(1).min(self.top.0),
            None => self.top.0,
        };
        let after = match since {
            _ if reverse => until.saturating_sub(limit),
            Some((offset, _)) => offset,
            None => 0,
        };
        let start = first_kept.saturating_sub(1);
        let mut after = after.max(start);
        let from = after + 1;
        let mut out: Vec<Arc<Publication>> = Vec::new();
        if reverse {
            let (mut end, mut step) = (until, limit);
            loop {
                let older = match self.stretch(after, end, tries) {
                    Ok(found) => found,
                    Err(read) => return read,
                };
                out.splice(0..0, older);
                // The newest ones come first: of too much the oldest are left out.
                let all = out.len();
                keep_newest(&mut out, limit as usize, HISTORY_BYTES_MAX);
                let is_full = out.len() as u64 >= limit || out.len() < all;
                if is_full || after <= start {
                    break;
                }
                // Some have ended: there are older ones in their stead.
                step = step.saturating_mul(2);
                (end, after) = (after, after.saturating_sub(step).max(start));
            }
            out.reverse();
            return FoundInLog::Some {
                publications: out,
                span: Span { from, to: until },
                more: false,
            };
        }
        let mut at = after;
        let mut bytes = HISTORY_BYTES_MAX;
        while at < until && (out.len() as u64) < limit {
            let room = limit - out.len() as u64;
            match self.after(at, room as usize, bytes) {
                FoundInLog::Some {
                    publications, span, ..
                } => {
                    if span.to <= at {
                        break;
                    }
                    at = span.to;
                    let took = bytes_of(&publications);
                    out.extend(publications);
                    if took >= bytes {
                        break;
                    }
                    bytes -= took;
                }
                FoundInLog::Gone => break,
                FoundInLog::Read(_) if tries.is_over() => break,
                FoundInLog::Read(after) => return FoundInLog::Read(after),
            }
        }
        FoundInLog::Some {
            publications: out,
            span: Span { from, to: at },
            more: at < until,
        }
    }

    /// All that is kept of a stretch, or as much of it as may be asked for; `Err`: the log has to be read.
    fn stretch(
        &self,
        after: u64,
        until: u64,
        tries: Tries,
    ) -> Result<Vec<Arc<Publication>>, FoundInLog> {
        let (mut at, mut out) = (after, Vec::new());
        while at < until {
            match self.after(at, (until - at) as usize, HISTORY_BYTES_MAX) {
                FoundInLog::Some {
                    publications, span, ..
                } if span.to > at => {
                    at = span.to;
                    out.extend(publications);
                    keep_newest(&mut out, usize::MAX, HISTORY_BYTES_MAX);
                }
                FoundInLog::Some { .. } | FoundInLog::Gone => break,
                FoundInLog::Read(_) if tries.is_over() => break,
                FoundInLog::Read(after) => return Err(FoundInLog::Read(after)),
            }
        }
        out.retain(|one: &Arc<Publication>| one.offset.0 <= until);
        Ok(out)
    }
}

fn bytes_of(publications: &[Arc<Publication>]) -> usize {
    publications.iter().map(size_of_one).sum()
}

fn size_of_one(publication: &Arc<Publication>) -> usize {
    publication.data.len() + size_of::<Publication>()
}

/// Leaves out the oldest ones until the rest fits. One stays whatever its size.
fn keep_newest(publications: &mut Vec<Arc<Publication>>, limit: usize, most: usize) {
    let mut sum = 0;
    let newest = publications
        .iter()
        .rev()
        .take(limit)
        .take_while(|publication| {
            sum += size_of_one(publication);
            sum <= most
        });
    let kept = newest.count().max(1).min(publications.len());
    publications.drain(..publications.len() - kept);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::config::Namespace;
    use crate::config::namespace::Delivery;
    use crate::model::{ChannelName, Epoch, Offset, Since};

    const EPOCH: Epoch = Epoch(*b"abcdefgh");

    fn publication(offset: u64) -> Arc<Publication> {
        Arc::new(Publication {
            offset: Offset(offset),
            epoch: EPOCH,
            data: Bytes::from_static(b"1"),
            json: true,
            info: None,
            tags: Box::default(),
            unix_ms: 0,
            tells_time: false,
            patch: None,
            delta: false,
        })
    }

    fn position(offset: u64) -> StreamPosition {
        StreamPosition {
            epoch: EPOCH,
            offset: Offset(offset),
        }
    }

    fn channel(top: u64, window: u32) -> Channel {
        let namespace = Namespace {
            delivery: Delivery::Durable,
            history_size: window,
            history_ttl: Duration::from_secs(300),
            ..Namespace::default()
        };
        let mut channel = Channel::new(
            ChannelName::from_whole("d"),
            Arc::new(namespace),
            Epoch::default(),
            Instant::START,
        );
        assert!(channel.open_read().is_some());
        assert!(channel.open_read().is_none(), "asked once");
        assert!(!channel.asks_again());
        channel.opened(Instant::START, position(top));
        channel
    }

    fn recover(offset: u64, limit: u32) -> Recover {
        Recover {
            epoch: Since::Epoch(EPOCH),
            offset,
            limit,
            cache: false,
        }
    }

    fn offsets(found: FoundInLog) -> (Vec<u64>, bool) {
        match found {
            FoundInLog::Some {
                publications, more, ..
            } => (
                publications
                    .iter()
                    .map(|publication| publication.offset.0)
                    .collect(),
                more,
            ),
            other => panic!("{other:?}"),
        }
    }

    fn read(channel: &mut Channel, after: u64, to: u64) {
        assert!(channel.part_read(after).is_some());
        channel.part_came(Page {
            channel: ChannelName::from_whole("d"),
            position: position(channel.top.0),
            after: Some(after),
            publications: (after + 1..=to).map(publication).collect(),
            span: Span::behind(after, to),
        });
    }

    #[test]
    fn what_came_while_the_end_was_asked_for_follows_it() {
        let mut channel = channel(0, 4);
        channel.reopen();
        for offset in 5..=7 {
            assert!(matches!(
                channel.stored(Instant::START, publication(offset)),
                Stored::Nothing
            ));
        }
        let opened = channel.opened(Instant::START, position(5));
        assert!(opened.moved);
        let later: Vec<u64> = opened.later.iter().map(|p| p.offset.0).collect();
        assert_eq!(later, [6, 7]);
        assert_eq!(channel.top, Offset(7));
        assert!(matches!(
            channel.stored(Instant::START, publication(7)),
            Stored::Nothing
        ));
        assert!(matches!(
            channel.stored(Instant::START, publication(8)),
            Stored::Next(_)
        ));
    }

    #[test]
    fn gap_in_the_log_makes_the_owner_ask_again() {
        let mut channel = channel(5, 4);
        assert!(matches!(
            channel.stored(Instant::START, publication(8)),
            Stored::Nothing
        ));
        assert!(channel.open_read().is_some());
        assert!(!channel.asks_again());
        let opened = channel.opened(Instant::START, position(7));
        assert_eq!(opened.later.len(), 1, "8 was kept");
    }

    #[test]
    fn recovery_goes_back_through_parts_that_are_shared() {
        let size = u64::from(LOG_PAGE_ENTRIES);
        let mut channel = channel(3 * size, 4);
        let from = size + 7;
        assert_eq!(channel.missed(&recover(from, 1000)), FoundInLog::Read(size));
        read(&mut channel, size, 2 * size);
        let (found, more) = offsets(channel.missed(&recover(from, 1000)));
        assert_eq!((found[0], found.len() as u64), (from + 1, size - 7));
        assert!(more);
        let (other, _) = offsets(channel.missed(&recover(size + 90, 10)));
        assert_eq!(other[0], size + 91, "another place, the same part");
        assert_eq!(
            channel.missed(&recover(2 * size, 10)),
            FoundInLog::Read(2 * size)
        );
    }

    #[test]
    fn part_that_is_ahead_of_the_news_is_given_up_to_the_end_that_is_known() {
        let mut channel = channel(10, 4);
        read(&mut channel, 0, 14);
        let (found, more) = offsets(channel.missed(&recover(6, 100)));
        assert_eq!((found, more), (vec![7, 8, 9, 10], false));
        for offset in 11..=14 {
            let stored = channel.stored(Instant::START, publication(offset));
            assert!(matches!(stored, Stored::Next(_)), "{offset} comes once");
        }
    }

    #[test]
    fn short_part_is_followed_by_one_from_its_end() {
        let mut channel = channel(200, 4);
        read(&mut channel, 0, 3);
        assert_eq!(channel.missed(&recover(3, 10)), FoundInLog::Read(3));
        read(&mut channel, 3, 6);
        assert_eq!(offsets(channel.missed(&recover(3, 10))).0, [4, 5, 6]);
    }

    #[test]
    fn what_the_log_has_forgotten_is_gone() {
        let mut channel = channel(200, 4);
        assert!(channel.part_read(0).is_some());
        channel.part_came(Page {
            channel: ChannelName::from_whole("d"),
            position: position(200),
            after: Some(0),
            publications: (50..=100).map(publication).collect(),
            span: Span { from: 50, to: 100 },
        });
        assert_eq!(channel.missed(&recover(10, 10)), FoundInLog::Gone);
        assert_eq!(offsets(channel.missed(&recover(49, 2))).0, [50, 51]);
        assert_eq!(channel.missed(&recover(201, 10)), FoundInLog::Gone);
        assert_eq!(offsets(channel.missed(&recover(200, 10))), (vec![], false));
        let since = QueryKind::History {
            limit: 3,
            since: None,
            reverse: false,
        };
        assert_eq!(offsets(channel.page(since, Tries::FIRST)).0, [50, 51, 52]);
    }

    /// A page, with all that has to be read for it.
    fn whole_page(
        channel: &mut Channel,
        (first, ended): (u64, &[u64]),
        what: QueryKind,
    ) -> Vec<u64> {
        loop {
            match channel.page(what, Tries::FIRST) {
                FoundInLog::Read(after) => {
                    let (top, from) = (channel.top.0, first.max(after + 1));
                    assert!(channel.part_read(after).is_some());
                    channel.part_came(Page {
                        channel: ChannelName::from_whole("d"),
                        position: position(top),
                        after: Some(after),
                        publications: (from..=top.min(from + 4))
                            .filter(|offset| !ended.contains(offset))
                            .map(publication)
                            .collect(),
                        span: Span {
                            from,
                            to: top.min(from + 4),
                        },
                    });
                }
                found => return offsets(found).0,
            }
        }
    }

    #[test]
    fn every_page_of_history_is_the_slice_of_the_whole() {
        const TOP: u64 = 12;
        const ENDED: [&[u64]; 5] = [
            &[],
            &[3, 4],
            &[6, 7, 8, 9, 10, 11],
            &[9, 12],
            &[1, 10, 11, 12],
        ];
        let windows = [(1, 4), (1, 1), (5, 3), (9, 4)];
        for ((first, window), ended) in windows
            .into_iter()
            .flat_map(|window| ENDED.map(|ended| (window, ended)))
        {
            for (limit, since, reverse) in (0..=14u32).flat_map(|limit| {
                let sinces = std::iter::once(None).chain((1..=17).map(Some));
                sinces.flat_map(move |since| [false, true].map(|back| (limit, since, back)))
            }) {
                let mut channel = channel(TOP - u64::from(window), window);
                for offset in TOP - u64::from(window) + 1..=TOP {
                    channel.stored(Instant::START, publication(offset));
                }
                channel.ended(ended);
                let page = QueryKind::History {
                    limit,
                    since: since.map(|offset| (offset, Since::Epoch(EPOCH))),
                    reverse,
                };
                let all = (first..=TOP).filter(|offset| !ended.contains(offset));
                let is_meant = |offset: &u64| match since {
                    Some(since) if reverse => *offset < since,
                    Some(since) => *offset > since,
                    None => true,
                };
                let mut whole: Vec<u64> = all.filter(|offset| is_meant(offset)).collect();
                if reverse {
                    whole.reverse();
                }
                whole.truncate(limit as usize);
                assert_eq!(
                    whole_page(&mut channel, (first, ended), page),
                    whole,
                    "from {first} without {ended:?}, window {window}, limit {limit}, since {since:?}, {reverse}"
                );
            }
        }
    }

    /// What somebody missed, part by part; `None` where that cannot be had.
    fn whole_recovery(
        channel: &mut Channel,
        (first, ended): (u64, &[u64]),
        from: u64,
        limit: u32,
    ) -> Option<Vec<u64>> {
        let (mut at, mut all) = (from, Vec::new());
        loop {
            match channel.missed(&recover(at, limit)) {
                FoundInLog::Gone => return None,
                FoundInLog::Some {
                    publications, more, ..
                } => {
                    all.extend(publications.iter().map(|one| one.offset.0));
                    if !more {
                        return Some(all);
                    }
                    at = *all.last().expect("whoever goes on has got something");
                }
                FoundInLog::Read(after) => {
                    let (top, from) = (channel.top.0, first.max(after + 1));
                    let to = top.min(from + 2);
                    assert!(channel.part_read(after).is_some());
                    channel.part_came(Page {
                        channel: ChannelName::from_whole("d"),
                        position: position(top),
                        after: Some(after),
                        publications: (from..=to)
                            .filter(|offset| !ended.contains(offset))
                            .map(publication)
                            .collect(),
                        span: Span { from, to },
                    });
                }
            }
        }
    }

    #[test]
    fn what_has_ended_makes_nobody_lose_his_place_and_what_retention_took_does() {
        const TOP: u64 = 12;
        let ended: [&[u64]; 5] = [&[], &[3, 4], &[6, 7, 8, 9, 10, 11], &[12], &[1, 2, 11, 12]];
        for ((first, window), ended) in [(1, 4), (1, 1), (5, 3)]
            .into_iter()
            .flat_map(|window| ended.map(|ended| (window, ended)))
        {
            for (from, limit) in (0..=TOP).flat_map(|from| [1, 2, 100].map(|limit| (from, limit))) {
                let mut channel = channel(TOP - u64::from(window), window);
                for offset in TOP - u64::from(window) + 1..=TOP {
                    channel.stored(Instant::START, publication(offset));
                }
                channel.ended(ended);
                let missed = (from + 1..=TOP).filter(|offset| !ended.contains(offset));
                let expected = (from + 1 >= first || from == TOP).then(|| missed.collect());
                assert_eq!(
                    whole_recovery(&mut channel, (first, ended), from, limit),
                    expected,
                    "from {from} by {limit}, kept from {first} without {ended:?}, window {window}"
                );
            }
        }
    }

    #[test]
    fn page_backwards_that_is_cut_begins_with_the_newest() {
        let mut channel = channel(0, 10);
        for offset in 1..=10 {
            let large = Publication {
                data: Bytes::from(vec![b'1'; HISTORY_BYTES_MAX / 4]),
                ..Publication::clone(&publication(offset))
            };
            channel.stored(Instant::START, Arc::new(large));
        }
        let page = QueryKind::History {
            limit: 10,
            since: None,
            reverse: true,
        };
        assert_eq!(offsets(channel.page(page, Tries::FIRST)).0, [10, 9, 8]);
    }

    #[test]
    fn history_pages_go_both_ways_through_memory_and_log() {
        let mut channel = channel(0, 4);
        for offset in 1..=10 {
            channel.stored(Instant::START, publication(offset));
        }
        let page = |limit, since: Option<u64>, reverse| QueryKind::History {
            limit,
            since: since.map(|offset| (offset, Since::Epoch(EPOCH))),
            reverse,
        };
        assert_eq!(
            offsets(channel.page(page(2, None, true), Tries::FIRST)).0,
            [10, 9]
        );
        assert_eq!(
            offsets(channel.page(page(2, Some(7), false), Tries::FIRST)).0,
            [8, 9]
        );
        assert_eq!(
            channel.page(page(9, Some(3), false), Tries::FIRST),
            FoundInLog::Read(0),
            "4 is not in memory"
        );
        read(&mut channel, 0, 7);
        assert_eq!(
            offsets(channel.page(page(9, Some(3), false), Tries::FIRST)).0,
            [4, 5, 6, 7, 8, 9, 10]
        );
        assert_eq!(
            offsets(channel.page(page(3, Some(6), true), Tries::FIRST)).0,
            [5, 4, 3]
        );
    }
}

//! Reads: parts of a channel and of the whole log, many messages for one request.
//!
//! JetStream finds messages by sequence and by time, not by our offsets. The first message behind an offset is looked for by
//! its subject: offsets and sequences grow together, so a few questions ("the next one from here on") find it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::header::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;

use super::head::{self, Head};
use super::link::{Link, Opened};
use super::message::{self, Content};
use super::subject;
use crate::mesh::durable::{LogError, Read, Span};
use crate::model::{Entry, Epoch};
use crate::time::rfc3339;
use crate::upstream::desk::unix_ms;
use crate::upstream::log::{Scan, Scanned, Slice};

/// Messages of one request.
const PAGE: usize = 1000;
/// Longest wait for the next message of an answer.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Channels of which the end of the last read is remembered.
const HINTS_KEPT: usize = 4096;
/// A server that has the stream but does not lead it may be behind: how often it is asked, and the pause.
const BEHIND: (usize, Duration) = (20, Duration::from_millis(50));
/// Entries looked at for the first one of a time, which are stored a little later than they are taken in.
const LOOKED_AT_PER_SEEK: usize = 20_000;

/// A request for messages (`$JS.API.DIRECT.GET`, ADR-31).
#[derive(Serialize)]
pub(super) struct Ask<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    next_by_subj: &'a str,
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<usize>,
}

/// A message as it stands in the stream.
pub(super) struct Found {
    pub sequence: u64,
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// Messages in order, and whether more are behind them.
pub(super) struct Answer {
    pub messages: Vec<Found>,
    pub pending: u64,
}

/// Reads parts of the log.
pub(super) struct Reader {
    link: Arc<Link>,
    /// Where the last read of a channel ended: its epoch, an offset, and the sequence of that message.
    hints: RefCell<HashMap<String, (Epoch, u64, u64)>>,
}

impl Reader {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            hints: RefCell::default(),
        }
    }

    /// See `Entries::read`.
    pub(super) async fn read(&self, read: &Read) -> Result<Slice, LogError> {
        let opened = self.link.opened()?;
        let subject = self.link.subjects.channel(read.channel.whole());
        let head = head::for_read(&self.link, &opened, &subject).await?;
        let position = head.position;
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let Some(after) = read.after.filter(|after| *after < position.offset.0) else {
            let after = read.after.unwrap_or(0);
            return Ok(Slice {
                position,
                entries,
                span: Span::behind(after, after),
            });
        };
        // Everything that is there is looked at, also what has ended.
        let mut span = Span::behind(after, after);
        let now_ms = unix_ms();
        let limit = read.limit as usize;
        let mut from = self.locate(&opened, &subject, &head, after).await?;
        let (mut bytes, mut idle) = (0, 0);
        'pages: while from <= head.sequence && entries.len() < limit && bytes < read.bytes as usize
        {
            let batch = (limit - entries.len()).min(PAGE);
            let room = (read.bytes as usize - bytes).max(1);
            let answer = self
                .ask(&opened, from_sequence(from, &subject, batch, room))
                .await?;
            let Some(last) = answer.messages.last() else {
                idle += 1;
                if !self.link.is_replicated() || idle > BEHIND.0 {
                    break;
                }
                tokio::time::sleep(BEHIND.1).await;
                continue;
            };
            from = last.sequence + 1;
            for found in answer.messages {
                let Some(Content::Entry(entry)) = self.decode(found) else {
                    continue;
                };
                let (at, offset) = (entry.position.epoch, entry.position.offset);
                if at != position.epoch || offset.0 <= after {
                    continue;
                }
                if entries.is_empty() && offset.0 > span.to + 1 {
                    // What was before it is forgotten.
                    span.from = offset.0;
                } else if offset.0 != span.to + 1 {
                    break 'pages;
                }
                let size = entry.record.data.len();
                let is_over = entry.record.is_over(now_ms);
                let fits = is_over || entries.is_empty() || bytes + size <= read.bytes as usize;
                if !fits || offset > position.offset || entries.len() == limit {
                    break 'pages;
                }
                span.to = offset.0;
                if !is_over {
                    bytes += size;
                    entries.push(Arc::from(entry));
                }
            }
        }
        if let Some(last) = entries.last() {
            let mut hints = self.hints.borrow_mut();
            if hints.len() >= HINTS_KEPT {
                hints.clear();
            }
            hints.insert(
                subject,
                (position.epoch, last.position.offset.0, last.cursor),
            );
        }
        if span.to < span.from {
            // Nothing of it is there.
            span = Span::behind(position.offset.0, position.offset.0);
        }
        Ok(Slice {
            position,
            entries,
            span,
        })
    }

    /// Sequence of the first message of the channel's life that is behind an offset. There is one, or there was.
    async fn locate(
        &self,
        opened: &Opened,
        subject: &str,
        head: &Head,
        after: u64,
    ) -> Result<u64, LogError> {
        let hint = self.hints.borrow().get(subject).copied();
        let hint =
            hint.filter(|(epoch, offset, _)| *epoch == head.position.epoch && *offset <= after);
        // Offsets up to `low.0` are before the sequence `low.1`; the message at `best` is behind the offset.
        let mut low = match hint {
            Some((_, offset, sequence)) if offset == after => return Ok(sequence + 1),
            Some((_, offset, sequence)) => (offset, sequence + 1),
            None => (0, 1),
        };
        let mut best = (head.position.offset.0, head.sequence);
        let mut end = head.sequence.saturating_sub(1);
        let mut round = 0u32;
        while low.1 <= end {
            let width = end - low.1;
            let middle = match round {
                0 => low.1,
                _ if round % 2 == 1 => {
                    let part = u128::from(after + 1 - low.0) * u128::from(width);
                    let part = part / u128::from((best.0 - low.0).max(1));
                    low.1 + u64::try_from(part).unwrap_or(width).min(width)
                }
                _ => low.1 + width / 2,
            };
            round += 1;
            let answer = self
                .ask(opened, from_sequence(middle, subject, 1, usize::MAX))
                .await?;
            let Some(found) = answer.messages.first() else {
                // Nothing is kept from here on, or the server that answered is behind.
                return Ok(low.1);
            };
            let position = message::position(&found.headers);
            let is_behind = position.is_some_and(|position| {
                position.epoch == head.position.epoch && position.offset.0 > after
            });
            if is_behind || found.sequence >= best.1 {
                if is_behind {
                    let offset = position.map_or(best.0, |position| position.offset.0);
                    best = (offset, found.sequence);
                    if offset == after + 1 {
                        break;
                    }
                }
                end = middle.saturating_sub(1);
            } else {
                let same = position.filter(|position| position.epoch == head.position.epoch);
                low = (
                    same.map_or(low.0, |position| position.offset.0),
                    found.sequence + 1,
                );
            }
        }
        Ok(best.1)
    }

    /// See `Entries::scan`.
    pub(super) async fn scan(&self, scan: &Scan) -> Result<Scanned, LogError> {
        let opened = self.link.opened()?;
        let filters = self
            .link
            .subjects
            .filters(scan.channels.iter().map(|glob| &**glob));
        let filter = match &filters[..] {
            [one] => one.clone(),
            _ => self.link.subjects.publications(),
        };
        let mut entries = Vec::new();
        let (mut next, mut bytes, mut looked_at, mut at_end) = (scan.after, 0, 0, false);
        let now_ms = unix_ms();
        while !at_end
            && entries.len() < scan.limit
            && bytes < scan.bytes
            && looked_at < scan.looked_at
        {
            let batch = (scan.looked_at - looked_at).min(PAGE);
            let batch = batch.min((scan.limit - entries.len()).max(64));
            let room = (scan.bytes - bytes).max(1);
            let answer = self
                .ask(&opened, from_sequence(next + 1, &filter, batch, room))
                .await?;
            at_end = answer.pending == 0;
            for found in answer.messages {
                looked_at += 1;
                let sequence = found.sequence;
                if let Some(Content::Entry(entry)) = self.decode(found)
                    && !entry.record.is_over(now_ms)
                    && (scan.channels.is_empty()
                        || subject::matches(&scan.channels, entry.record.channel.whole()))
                {
                    let size = entry.record.bytes();
                    let fits = entries.is_empty() || bytes + size <= scan.bytes;
                    if entries.len() == scan.limit || !fits {
                        return Ok(Scanned {
                            entries,
                            next,
                            at_end: false,
                        });
                    }
                    bytes += size;
                    entries.push(Arc::from(entry));
                }
                next = sequence;
            }
        }
        Ok(Scanned {
            entries,
            next,
            at_end,
        })
    }

    /// See `Entries::seek`.
    pub(super) async fn seek(&self, unix_ms: u64) -> Result<u64, LogError> {
        let opened = self.link.opened()?;
        let filter = self.link.subjects.publications();
        let mut request = Ask {
            seq: None,
            start_time: Some(rfc3339(unix_ms)),
            next_by_subj: &filter,
            batch: PAGE,
            max_bytes: None,
        };
        let mut looked_at = 0;
        loop {
            let answer = self.ask(&opened, request).await?;
            let Some(last) = answer.messages.last().map(|found| found.sequence) else {
                break;
            };
            looked_at += answer.messages.len();
            for found in answer.messages {
                if let Some(Content::Entry(entry)) = self.decode(found)
                    && entry.record.unix_ms >= unix_ms
                {
                    return Ok(entry.cursor);
                }
            }
            if looked_at >= LOOKED_AT_PER_SEEK {
                return Ok(last + 1);
            }
            request = from_sequence(last + 1, &filter, PAGE, usize::MAX);
        }
        let info = opened.stream.get_info().await;
        let info = info.map_err(|error| self.link.failed(&error))?;
        Ok(info.state.last_sequence + 1)
    }

    /// When the oldest entry from this sequence on that these filters match was taken in.
    pub(super) async fn oldest(
        &self,
        opened: &Opened,
        from: u64,
        filters: &[String],
    ) -> Result<Option<u64>, LogError> {
        let mut oldest: Option<(u64, u64)> = None;
        for filter in filters {
            let answer = self
                .ask(opened, from_sequence(from, filter, 1, usize::MAX))
                .await?;
            let Some(found) = answer.messages.into_iter().next() else {
                continue;
            };
            let sequence = found.sequence;
            if oldest.is_none_or(|(known, _)| sequence < known)
                && let Some(Content::Entry(entry)) = self.decode(found)
            {
                oldest = Some((sequence, entry.record.unix_ms));
            }
        }
        Ok(oldest.map(|(_, unix_ms)| unix_ms))
    }

    /// How many messages these filters match from a sequence on.
    pub(super) async fn pending(
        &self,
        opened: &Opened,
        from: u64,
        filters: &[String],
    ) -> Result<u64, LogError> {
        let mut sum = 0;
        for filter in filters {
            let ask = from_sequence(from, filter, 1, usize::MAX);
            let answer = self.ask(opened, ask).await?;
            sum += answer.messages.len() as u64 + answer.pending;
        }
        Ok(sum)
    }

    /// How many publications of one subject there are from a sequence on: its first message may be the mark of an order to forget.
    pub(super) async fn publications(
        &self,
        opened: &Opened,
        from: u64,
        subject: &str,
    ) -> Result<u64, LogError> {
        let ask = from_sequence(from, subject, 1, usize::MAX);
        let answer = self.ask(opened, ask).await?;
        let mut count = answer.pending;
        for found in answer.messages {
            count += u64::from(matches!(self.decode(found), Some(Content::Entry(_))));
        }
        Ok(count)
    }

    fn decode(&self, found: Found) -> Option<Content> {
        message::decode(
            &self.link.subjects,
            &found.subject,
            found.sequence,
            &found.headers,
            found.payload,
        )
    }

    /// The oldest publications that a filter matches.
    pub(super) async fn first(
        &self,
        opened: &Opened,
        filter: &str,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Arc<Entry>>, LogError> {
        let ask = from_sequence(1, filter, limit, bytes);
        let found = self.ask(opened, ask).await?.messages.into_iter();
        let entry = |found| match self.decode(found) {
            Some(Content::Entry(entry)) => Some(Arc::from(entry)),
            Some(Content::Trimmed) | None => None,
        };
        Ok(found.filter_map(entry).collect())
    }

    async fn ask(&self, opened: &Opened, ask: Ask<'_>) -> Result<Answer, LogError> {
        direct(&self.link, opened, ask).await
    }
}

/// The entry with this sequence; `None` if it is gone.
pub(super) async fn entry(
    link: &Link,
    opened: &Opened,
    sequence: u64,
) -> Result<Option<Arc<Entry>>, LogError> {
    let subject = link.subjects.publications();
    let answer = direct(
        link,
        opened,
        from_sequence(sequence, &subject, 1, usize::MAX),
    )
    .await?;
    let found = answer.messages.into_iter().next();
    let found = found.filter(|found| found.sequence == sequence);
    let content = found.and_then(|found| {
        message::decode(
            &link.subjects,
            &found.subject,
            found.sequence,
            &found.headers,
            found.payload,
        )
    });
    Ok(match content {
        Some(Content::Entry(entry)) => Some(Arc::from(entry)),
        _ => None,
    })
}

/// Messages from any server that has the stream.
pub(super) async fn direct(link: &Link, opened: &Opened, ask: Ask<'_>) -> Result<Answer, LogError> {
    let failed = |error: &dyn std::fmt::Display| link.failed(error);
    let subject = format!("$JS.API.DIRECT.GET.{}", opened.name);
    let request = serde_json::to_vec(&ask).map_err(|error| failed(&error))?;
    let client = link.client();
    let inbox = client.new_inbox();
    let mut replies = client
        .subscribe(inbox.clone())
        .await
        .map_err(|error| failed(&error))?;
    let sent = client
        .publish_with_reply(subject, inbox, request.into())
        .await;
    sent.map_err(|error| failed(&error))?;
    let mut answer = Answer {
        messages: Vec::new(),
        pending: 0,
    };
    loop {
        let reply = tokio::time::timeout(MESSAGE_TIMEOUT, replies.next()).await;
        let Ok(Some(reply)) = reply else {
            return Err(failed(&"NATS did not answer in time"));
        };
        let headers = reply.headers.unwrap_or_default();
        let number = |name: &str| headers.get(name)?.as_str().parse::<u64>().ok();
        match reply.status.map(|status| status.as_u16()) {
            None | Some(200) => {}
            Some(204) => {
                answer.pending = number("Nats-Num-Pending").unwrap_or(0);
                return Ok(answer);
            }
            Some(404) => return Ok(answer),
            Some(503) => return Err(failed(&"the stream has no leader")),
            Some(status) => {
                let text = reply.description.unwrap_or_default();
                return Err(failed(&format!("{status} {text}")));
            }
        }
        let (Some(sequence), Some(subject)) =
            (number("Nats-Sequence"), headers.get("Nats-Subject"))
        else {
            return Err(failed(&"NATS gave an answer that cannot be read"));
        };
        if answer.messages.len() >= PAGE {
            return Err(failed(&"NATS gave more than it was asked for"));
        }
        answer.messages.push(Found {
            sequence,
            subject: subject.as_str().to_owned(),
            payload: reply.payload,
            headers,
        });
    }
}

/// Asks for messages from a sequence on.
pub(super) fn from_sequence(
    sequence: u64,
    subject: &str,
    batch: usize,
    max_bytes: usize,
) -> Ask<'_> {
    Ask {
        seq: Some(sequence.max(1)),
        start_time: None,
        next_by_subj: subject,
        batch,
        max_bytes: (max_bytes < usize::MAX / 2).then_some(max_bytes),
    }
}

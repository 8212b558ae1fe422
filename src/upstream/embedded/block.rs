//! A block: records of one channel that were stored by one commit, one after the other.
//!
//! What ends before its block does (its time is over, or a later one has its key) leaves a mark of two bytes in its place: cursors and
//! offsets of the others follow from their places.
//!
//! `crc32` (of what follows) · format · channel id · epoch · first offset · log time · time mark · bytes of the segment
//! so far · count · channel · records. Integers of the head have their full width, lowest byte first.

use std::sync::Arc;

use bytes::Bytes;

use super::bytes::{Damage, Reader, put_bytes, put_number};
use crate::model::{
    ChannelName, ClientId, ClientInfo, Entry, Epoch, EventId, Offset, Origin, Record,
    StreamPosition,
};

/// Records of one block at most.
pub const RECORDS_PER_BLOCK: usize = 256;
/// Bytes of the records of one block at most; a larger record is alone. An entry that was read keeps its whole block in
/// memory.
pub const BYTES_PER_BLOCK: usize = 64 << 10;

const FORMAT: u8 = 1;
/// Of blocks that a release before it would read wrongly: with records that end by themselves, or have.
const FORMAT_ENDING: u8 = 2;
/// Up to and without the channel's name.
const HEAD_BYTES: usize = 4 + 1 + 8 + 8 + 8 + 8 + 8 + 8 + 2;

const JSON: u8 = 1;
const DELTA: u8 = 1 << 1;
const KEY: u8 = 1 << 2;
const TAGS: u8 = 1 << 3;
const PUBLISHER: u8 = 1 << 4;
const TRACE: u8 = 1 << 5;
const ORIGIN: u8 = 1 << 6;
/// A second byte of flags follows.
const MORE: u8 = 1 << 7;
const SCHEMA: u8 = 1;
const HOPS: u8 = 1 << 1;

/// It ends by itself.
const TTL: u8 = 1 << 3;
/// It has ended; nothing else follows.
const GONE: u8 = 1 << 4;
/// Bytes of a record beside what `Record::bytes` counts, as a guess for the memory to take.
const RECORD_BYTES_BESIDE: usize = 64;

/// What all records of a block have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The channel's number.
    pub channel_id: u64,
    /// The channel's epoch.
    pub epoch: Epoch,
    /// Offset of the first record.
    pub first_offset: u64,
    /// Log time of the commit, Unix milliseconds: never falls from block to block.
    pub log_ms: u64,
    /// The latest `Record::unix_ms` of all records up to the end of this block: never falls either.
    pub mark_ms: u64,
    /// Bytes of all blocks of the segment before this one.
    pub bytes_before: u64,
    /// Records.
    pub count: u16,
    /// The channel.
    pub channel: ChannelName,
}

impl Head {
    /// Reads the head alone; no checksum is looked at.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read(value: &[u8]) -> Result<Self, Damage> {
        let fixed = value.get(..HEAD_BYTES).ok_or(Damage::Short)?;
        check_format(fixed[4])?;
        let word = |at: usize| -> [u8; 8] { fixed[at..at + 8].try_into().unwrap_or_default() };
        let number = |at: usize| u64::from_le_bytes(word(at));
        Ok(Self {
            channel_id: number(5),
            epoch: Epoch(word(13)),
            first_offset: number(21),
            log_ms: number(29),
            mark_ms: number(37),
            bytes_before: number(45),
            count: u16::from_le_bytes([fixed[53], fixed[54]]),
            channel: ChannelName::from_whole(Self::channel_of(value)?),
        })
    }

    /// The channel's name and the number of records, without taking memory.
    ///
    /// # Errors
    ///
    /// It is no block.
    pub fn peek(value: &[u8]) -> Result<(&str, u16), Damage> {
        let fixed = value.get(..HEAD_BYTES).ok_or(Damage::Short)?;
        check_format(fixed[4])?;
        let count = u16::from_le_bytes([fixed[53], fixed[54]]);
        Ok((Self::channel_of(value)?, count))
    }

    /// Some of its records may have ended, or end by themselves.
    #[must_use]
    pub fn may_have_holes(value: &[u8]) -> bool {
        value.get(4) == Some(&FORMAT_ENDING)
    }

    /// The channel's number and the offset of the first record.
    #[must_use]
    pub fn place(value: &[u8]) -> Option<(u64, u64)> {
        let number = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
        Some((number(5)?, number(21)?))
    }

    fn channel_of(value: &[u8]) -> Result<&str, Damage> {
        let length = value.get(HEAD_BYTES..HEAD_BYTES + 2).ok_or(Damage::Short)?;
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        let start = HEAD_BYTES + 2;
        let name = value.get(start..start + length).ok_or(Damage::Short)?;
        str::from_utf8(name).map_err(|_| Damage::Value)
    }
}

const fn check_format(format: u8) -> Result<(), Damage> {
    match format {
        FORMAT | FORMAT_ENDING => Ok(()),
        other => Err(Damage::Format(other)),
    }
}

/// Records of one channel as they are stored, in place of what `out` has. `head.count` must be theirs.
pub fn encode_into<'a>(
    out: &mut Vec<u8>,
    head: &Head,
    records: impl Iterator<Item = &'a Record> + Clone,
) {
    encode_left(out, head, records.map(Some));
}

/// See `encode_into`.
#[must_use]
pub fn encode<'a>(head: &Head, records: impl Iterator<Item = &'a Record> + Clone) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(&mut out, head, records);
    out
}

/// The same; `None` is one that has ended.
fn encode_left<'a>(
    out: &mut Vec<u8>,
    head: &Head,
    records: impl Iterator<Item = Option<&'a Record>> + Clone,
) {
    let name = head.channel.whole().as_bytes();
    let bytes: usize = (records.clone().flatten())
        .map(|record| record.bytes() + RECORD_BYTES_BESIDE)
        .sum();
    let ends = |record: Option<&Record>| record.is_none_or(|record| record.ttl_ms > 0);
    let format = match records.clone().any(ends) {
        true => FORMAT_ENDING,
        false => FORMAT,
    };
    out.clear();
    out.reserve(HEAD_BYTES + 2 + name.len() + bytes);
    out.extend_from_slice(&[0, 0, 0, 0, format]);
    out.extend_from_slice(&head.channel_id.to_le_bytes());
    out.extend_from_slice(&head.epoch.0);
    for number in [
        head.first_offset,
        head.log_ms,
        head.mark_ms,
        head.bytes_before,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&head.count.to_le_bytes());
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&name[..usize::from(length)]);
    for record in records {
        match record {
            Some(record) => put_record(out, record),
            None => out.extend_from_slice(&[MORE, GONE]),
        }
    }
    let checksum = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The same block without the records at these cursors; the one of the first is `first_cursor`.
///
/// # Errors
///
/// It is no block, or a damaged one.
pub fn without(
    first_cursor: u64,
    value: &Bytes,
    is_gone: impl Fn(u64) -> bool,
) -> Result<Vec<u8>, Damage> {
    let head = Head::read(value)?;
    let entries = decode(first_cursor, value)?;
    let mut left: Vec<Option<&Record>> = vec![None; usize::from(head.count)];
    for entry in entries.iter().filter(|entry| !is_gone(entry.cursor)) {
        let at = usize::try_from(entry.cursor - first_cursor).unwrap_or(usize::MAX);
        if let Some(place) = left.get_mut(at) {
            *place = Some(&entry.record);
        }
    }
    let mut out = Vec::new();
    encode_left(&mut out, &head, left.iter().copied());
    Ok(out)
}

/// The same block in another epoch of its channel.
///
/// # Errors
///
/// It is no block, or a damaged one.
pub fn with_epoch(value: &[u8], epoch: Epoch) -> Result<Vec<u8>, Damage> {
    Head::peek(value)?;
    let (checksum, content) = value.split_at(4);
    if crc32fast::hash(content).to_le_bytes() != checksum {
        return Err(Damage::Checksum);
    }
    let mut out = value.to_vec();
    out[13..21].copy_from_slice(&epoch.0);
    let checksum = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
    Ok(out)
}

/// All entries of a block whose first has this cursor, without those that have ended.
///
/// # Errors
///
/// It is no block, or a damaged one.
pub fn decode(first_cursor: u64, value: &Bytes) -> Result<Vec<Arc<Entry>>, Damage> {
    let head = Head::read(value)?;
    let checksum = u32::from_le_bytes([value[0], value[1], value[2], value[3]]);
    if crc32fast::hash(&value[4..]) != checksum {
        return Err(Damage::Checksum);
    }
    let mut reader = Reader::new(value, HEAD_BYTES + 2 + head.channel.whole().len());
    // A record has at least a flag, its id, a time and a length; what has ended, two bytes.
    let least = if Head::may_have_holes(value) { 2 } else { 19 };
    let room = value.len() / least;
    if usize::from(head.count) > room {
        return Err(Damage::Short);
    }
    let mut entries = Vec::new();
    for index in 0..u64::from(head.count) {
        let offset = head.first_offset.checked_add(index).ok_or(Damage::Value)?;
        let Some(record) = take_record(&mut reader, &head.channel)? else {
            continue;
        };
        entries.push(Arc::new(Entry {
            cursor: first_cursor.checked_add(index).ok_or(Damage::Value)?,
            position: StreamPosition {
                epoch: head.epoch,
                offset: Offset(offset),
            },
            record,
        }));
    }
    if !reader.is_at_end() {
        return Err(Damage::Value);
    }
    Ok(entries)
}

fn put_record(out: &mut Vec<u8>, record: &Record) {
    let flag = |is: bool, bit: u8| if is { bit } else { 0 };
    let more = flag(record.schema != 0, SCHEMA)
        | flag(record.hops != 0, HOPS)
        | flag(record.ttl_ms > 0, TTL);
    out.push(
        flag(record.json, JSON)
            | flag(record.delta, DELTA)
            | flag(!record.key.is_empty(), KEY)
            | flag(!record.tags.is_empty(), TAGS)
            | flag(record.publisher.is_some(), PUBLISHER)
            | flag(!record.trace.is_empty(), TRACE)
            | flag(record.origin.is_some(), ORIGIN)
            | flag(more != 0, MORE),
    );
    if more != 0 {
        out.push(more);
    }
    out.extend_from_slice(&record.event.0.to_be_bytes());
    put_number(out, record.unix_ms);
    if record.schema != 0 {
        put_number(out, u64::from(record.schema));
    }
    if record.hops != 0 {
        out.push(record.hops);
    }
    if record.ttl_ms > 0 {
        put_number(out, record.ttl_ms);
    }
    for text in [&record.key, &record.trace] {
        if !text.is_empty() {
            put_bytes(out, text.as_bytes());
        }
    }
    if !record.tags.is_empty() {
        put_number(out, record.tags.len() as u64);
        for (name, value) in &record.tags {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
    }
    if let Some(info) = &record.publisher {
        let client = info.client;
        put_bytes(out, info.user.as_bytes());
        out.extend_from_slice(&client.0.to_be_bytes());
        put_bytes(out, &info.conn_info);
        put_bytes(out, &info.chan_info);
    }
    if let Some(origin) = &record.origin {
        put_bytes(out, origin.channel.whole().as_bytes());
        out.extend_from_slice(&origin.position.epoch.0);
        put_number(out, origin.position.offset.0);
    }
    put_bytes(out, &record.data);
}

/// `None`: it has ended.
fn take_record(reader: &mut Reader<'_>, channel: &ChannelName) -> Result<Option<Record>, Damage> {
    let flags = reader.byte()?;
    let more = if flags & MORE == 0 { 0 } else { reader.byte()? };
    if more & GONE != 0 {
        return Ok(None);
    }
    let event = EventId(u128::from_be_bytes(reader.array()?));
    let unix_ms = reader.number()?;
    let schema = if more & SCHEMA == 0 {
        0
    } else {
        u32::try_from(reader.number()?).map_err(|_| Damage::Value)?
    };
    let hops = if more & HOPS == 0 { 0 } else { reader.byte()? };
    let ttl_ms = if more & TTL == 0 { 0 } else { reader.number()? };
    let mut text = |is: bool| -> Result<Box<str>, Damage> {
        if is {
            reader.text().map(Into::into)
        } else {
            Ok(Box::default())
        }
    };
    let key = text(flags & KEY != 0)?;
    let trace = text(flags & TRACE != 0)?;
    let mut tags = Vec::new();
    if flags & TAGS != 0 {
        for _ in 0..reader.number()? {
            tags.push((reader.text()?.into(), reader.text()?.into()));
        }
    }
    let publisher = if flags & PUBLISHER == 0 {
        None
    } else {
        Some(Arc::new(ClientInfo {
            user: reader.text()?.into(),
            client: ClientId(u128::from_be_bytes(reader.array()?)),
            conn_info: reader.shared()?,
            chan_info: reader.shared()?,
        }))
    };
    let origin = if flags & ORIGIN == 0 {
        None
    } else {
        Some(Box::new(Origin {
            channel: ChannelName::from_whole(reader.text()?),
            position: StreamPosition {
                epoch: Epoch(reader.array()?),
                offset: Offset(reader.number()?),
            },
        }))
    };
    Ok(Some(Record {
        channel: channel.clone(),
        event,
        key,
        schema,
        tags: tags.into(),
        publisher,
        trace,
        unix_ms,
        ttl_ms,
        data: reader.shared()?,
        json: flags & JSON != 0,
        delta: flags & DELTA != 0,
        hops,
        origin,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info() -> impl Strategy<Value = Option<Arc<ClientInfo>>> {
        proptest::option::of((".{0,9}", any::<u128>(), any::<Vec<u8>>()).prop_map(
            |(user, client, info)| {
                Arc::new(ClientInfo {
                    user: user.into(),
                    client: ClientId(client),
                    conn_info: info.clone().into(),
                    chan_info: info.into(),
                })
            },
        ))
    }

    prop_compose! {
        fn record()(
            event: u128, key in ".{0,12}", schema: u32,
            tags in proptest::collection::vec((".{0,4}", ".{0,4}"), 0..4), publisher in info(), trace in ".{0,20}",
            unix_ms: u64, ttl: u64, data: Vec<u8>, flags: (bool, bool, u8), origin in proptest::option::of((".{0,9}", any::<[u8; 8]>(), any::<u64>())),
        ) -> Record {
            Record {
                channel: ChannelName::from_whole("c"), event: EventId(event), key: key.into(), schema,
                tags: tags.into_iter().map(|(name, value)| (name.into(), value.into())).collect(), publisher,
                trace: trace.into(), unix_ms, ttl_ms: ttl, data: data.into(), json: flags.0, delta: flags.1, hops: flags.2,
                origin: origin.map(|(channel, epoch, offset)| Box::new(Origin {
                    channel: ChannelName::from_whole(&channel),
                    position: StreamPosition { epoch: Epoch(epoch), offset: Offset(offset) },
                })),
            }
        }
    }

    fn head(count: usize) -> Head {
        Head {
            channel_id: 7,
            epoch: Epoch(*b"abcdefgh"),
            first_offset: 11,
            log_ms: 5,
            mark_ms: 6,
            bytes_before: 9,
            count: u16::try_from(count).unwrap(),
            channel: ChannelName::from_whole("c"),
        }
    }

    proptest! {
        #[test]
        fn records_come_back(records in proptest::collection::vec(record(), 1..5)) {
            let head = head(records.len());
            let value = Bytes::from(encode(&head, records.iter()));
            prop_assert_eq!(Head::read(&value), Ok(head.clone()));
            prop_assert_eq!(Head::peek(&value), Ok(("c", head.count)));
            prop_assert_eq!(Head::place(&value), Some((7, 11)));
            let other = with_epoch(&value, Epoch(*b"12345678")).unwrap();
            let before = Head { epoch: Epoch(*b"12345678"), ..head.clone() };
            prop_assert_eq!(other, encode(&before, records.iter()));
            let entries = decode(100, &value).unwrap();
            for (index, entry) in (0..).zip(&entries) {
                prop_assert_eq!(entry.cursor, 100 + index);
                prop_assert_eq!(entry.position.offset.0, 11 + index);
            }
            prop_assert_eq!(entries.into_iter().map(|entry| entry.record.clone()).collect::<Vec<_>>(), records);
        }

        #[test]
        fn what_has_ended_leaves_the_others_in_their_places(records in proptest::collection::vec(record(), 1..6), gone: [bool; 6]) {
            let value = Bytes::from(encode(&head(records.len()), records.iter()));
            let is_gone = |cursor: u64| gone[(cursor - 100) as usize];
            let left = Bytes::from(without(100, &value, is_gone).unwrap());
            let once_more = Bytes::from(without(100, &left, |_| false).unwrap());
            prop_assert_eq!(&once_more, &left);
            prop_assert_eq!(Head::read(&left), Head::read(&value));
            prop_assert!(!gone[..records.len()].contains(&true) || Head::may_have_holes(&left));
            let expected: Vec<_> = decode(100, &value).unwrap();
            let expected: Vec<_> = expected.into_iter().filter(|entry| !is_gone(entry.cursor)).collect();
            prop_assert_eq!(decode(100, &left).unwrap(), expected);
            prop_assert!(left.len() <= value.len());
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(mut bytes: Vec<u8>, whole: bool) {
            if whole && bytes.len() > 5 {
                bytes[4] = if bytes[5] & 1 == 0 { FORMAT } else { FORMAT_ENDING };
                let checksum = crc32fast::hash(&bytes[4..]);
                bytes[..4].copy_from_slice(&checksum.to_le_bytes());
            }
            let _ = decode(u64::MAX, &Bytes::from(bytes));
        }

        #[test]
        fn a_changed_byte_is_found(records in proptest::collection::vec(record(), 1..3), at: prop::sample::Index, bits in 1u8..) {
            let mut value = encode(&head(records.len()), records.iter());
            let at = at.index(value.len());
            value[at] ^= bits;
            prop_assert!(decode(1, &Bytes::from(value)).is_err());
        }
    }
}

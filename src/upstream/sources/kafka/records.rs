//! Batches of records, without those of transactions that were aborted.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;

/// Bytes before what the length of a batch counts.
const LENGTH_END: usize = 12;
/// Bytes of a batch without records.
const HEAD: usize = 61;
const VERSION_AT: usize = 16;
const ATTRIBUTES_AT: usize = 21;
const LAST_DELTA_AT: usize = 23;
const PRODUCER_AT: usize = 43;
const COUNT_AT: usize = 57;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
/// The only form of batches that servers of these years store.
const VERSION: u8 = 2;
/// Type of the control record that ends a transaction which is to be forgotten.
const ABORT: i16 = 0;

/// A record, as far as it is of interest.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) offset: i64,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Vec<(String, Option<Bytes>)>,
}

/// What an answer has of one partition.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Ascending.
    pub(super) records: Vec<Taken>,
    /// The offset behind everything that was looked at.
    pub(super) next: i64,
}

/// Reads whole batches; a half one at the end comes again. `aborted` are producers with the first offset of a transaction that
/// was aborted.
pub(super) fn decode(
    mut bytes: Bytes,
    from: i64,
    mut aborted: Vec<(i64, i64)>,
) -> Result<Decoded, String> {
    // The earliest is the last of the list.
    aborted.sort_unstable_by_key(|(_, first)| std::cmp::Reverse(*first));
    let mut aborting = BTreeSet::new();
    let mut decoded = Decoded {
        records: Vec::new(),
        next: from,
    };
    while let Some(batch) = Batch::split(&mut bytes)? {
        while let Some((producer, _)) = aborted.pop_if(|(_, first)| *first <= batch.last) {
            aborting.insert(producer);
        }
        if batch.attributes & CONTROL != 0 {
            if batch.is_abort()? {
                aborting.remove(&batch.producer);
            }
        } else if batch.attributes & TRANSACTIONAL == 0 || !aborting.contains(&batch.producer) {
            batch.take(from, &mut decoded.records)?;
        }
        decoded.next = decoded.next.max(batch.last + 1);
    }
    Ok(decoded)
}

struct Batch {
    bytes: Bytes,
    last: i64,
    attributes: i16,
    producer: i64,
}

impl Batch {
    /// The next whole batch.
    fn split(bytes: &mut Bytes) -> Result<Option<Self>, String> {
        if bytes.len() < HEAD {
            return Ok(None);
        }
        let length = number::<4>(bytes, LENGTH_END - 4);
        let whole = usize::try_from(i32::from_be_bytes(length))
            .map(|length| length + LENGTH_END)
            .map_err(|_negative| "a batch of records with a negative length".to_owned())?;
        if bytes[VERSION_AT] != VERSION {
            let version = bytes[VERSION_AT];
            return Err(format!(
                "records in the old form {version}; they are to be written in form {VERSION}"
            ));
        }
        if whole < HEAD {
            return Err("a batch of records without a head".to_owned());
        }
        if bytes.len() < whole {
            return Ok(None);
        }
        let bytes = bytes.split_to(whole);
        let base = i64::from_be_bytes(number(&bytes, 0));
        let delta = i32::from_be_bytes(number(&bytes, LAST_DELTA_AT));
        let count = i32::from_be_bytes(number(&bytes, COUNT_AT));
        // So many places are made at once.
        if delta < 0 || count < 0 || i64::from(count) > i64::from(delta) + 1 {
            return Err(format!("a batch of {count} records up to {delta}"));
        }
        let last = base.checked_add(i64::from(delta));
        let last = last.filter(|last| *last < i64::MAX);
        Ok(Some(Self {
            last: last.ok_or("a batch of records beyond every offset")?,
            attributes: i16::from_be_bytes(number(&bytes, ATTRIBUTES_AT)),
            producer: i64::from_be_bytes(number(&bytes, PRODUCER_AT)),
            bytes,
        }))
    }

    fn read(&self) -> Result<Vec<kafka_protocol::records::Record>, String> {
        let set = RecordBatchDecoder::decode(&mut self.bytes.clone());
        set.map(|set| set.records)
            .map_err(|error| format!("records that cannot be read: {error}"))
    }

    /// Does it end a transaction that is to be forgotten?
    fn is_abort(&self) -> Result<bool, String> {
        let records = self.read()?;
        let mut keys = records.iter().filter_map(|record| record.key.as_ref());
        Ok(keys.any(|key| key.get(2..4) == Some(&ABORT.to_be_bytes()[..])))
    }

    fn take(&self, from: i64, out: &mut Vec<Taken>) -> Result<(), String> {
        let records = self.read()?.into_iter();
        let records = records.filter(|record| record.offset >= from);
        out.extend(records.map(|record| {
            Taken {
                offset: record.offset,
                key: record.key,
                value: record.value,
                headers: record
                    .headers
                    .into_iter()
                    .map(|(name, value)| (name.to_string(), value))
                    .collect(),
            }
        }));
        Ok(())
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::records::{
        Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };

    use super::*;

    fn record(offset: i64, producer: i64, is_control: bool) -> Record {
        Record {
            transactional: producer >= 0,
            control: is_control,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: producer,
            producer_epoch: 0,
            timestamp_type: TimestampType::Creation,
            offset,
            sequence: i32::try_from(offset).expect("small"),
            timestamp: 0,
            key: None,
            value: Some(Bytes::from(offset.to_string())),
            headers: Default::default(),
        }
    }

    fn ended(offset: i64, producer: i64, kind: i16) -> Record {
        let key = [[0; 2], kind.to_be_bytes()].concat();
        Record {
            key: Some(key.into()),
            ..record(offset, producer, true)
        }
    }

    fn batches(of: &[&[Record]]) -> Bytes {
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        for records in of {
            RecordBatchEncoder::encode(&mut out, *records, &options).expect("a batch");
        }
        out.freeze()
    }

    fn offsets(decoded: &Decoded) -> Vec<i64> {
        decoded.records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn records_before_the_place_and_half_batches_are_left() {
        let bytes = batches(&[
            &[record(5, -1, false), record(6, -1, false)],
            &[record(7, -1, false), record(8, -1, false)],
        ]);
        let whole = decode(bytes.clone(), 6, Vec::new()).expect("records");
        assert_eq!(offsets(&whole), [6, 7, 8]);
        assert_eq!(whole.next, 9);
        let half = decode(bytes.slice(..bytes.len() - 1), 6, Vec::new()).expect("records");
        assert_eq!(offsets(&half), [6]);
        assert_eq!(half.next, 7);
        let none = decode(Bytes::new(), 6, Vec::new()).expect("none");
        assert!(none.records.is_empty() && none.next == 6);
    }

    #[test]
    fn what_was_aborted_is_not_read_and_what_its_producer_does_afterwards_is() {
        const COMMIT: i16 = 1;
        let bytes = batches(&[
            &[record(0, 1, false)],
            &[record(1, 2, false)],
            &[ended(2, 1, ABORT)],
            &[record(3, 1, false)],
            &[ended(4, 2, COMMIT)],
            &[record(5, -1, false)],
            &[ended(6, 1, COMMIT)],
            &[record(7, 2, false)],
            &[ended(8, 2, ABORT)],
        ]);
        let decoded = decode(bytes.clone(), 0, vec![(2, 7), (1, 0)]).expect("records");
        assert_eq!(offsets(&decoded), [1, 3, 5]);
        assert_eq!(decoded.next, 9, "behind what is no record");
        let all = decode(bytes, 0, Vec::new()).expect("records");
        assert_eq!(offsets(&all), [0, 1, 3, 5, 7]);
    }

    #[test]
    fn damaged_batches_are_errors() {
        let good = batches(&[&[record(5, -1, false)]]);
        for at in [LENGTH_END - 4, VERSION_AT, LAST_DELTA_AT, COUNT_AT, HEAD] {
            let mut bad = BytesMut::from(&good[..]);
            bad[at] ^= 0x80;
            assert!(decode(bad.freeze(), 0, Vec::new()).is_err(), "{at}");
        }
    }
}

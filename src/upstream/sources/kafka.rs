//! Logs of a Kafka cluster: all partitions are read, each from where it was left, and what is in transactions once they are committed.
//!
//! The place of each partition is kept after its records were published. A connection to each server that leads partitions asks for all of
//! them together; when the cluster has changed, everything begins anew.

mod cluster;
mod link;
mod place;
mod records;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse};
use kafka_protocol::protocol::StrBytes;
use tracing::warn;

use super::offer::{self, Fault, Offer, publish};
use super::{Context, Sink};
use crate::config::sources::{ChannelPattern, OnError, StartAt};
use crate::limits::{SOURCE_BATCH_BYTES_MAX, TRACE_BYTES_MAX};
use crate::model::Record;
use crate::upstream::log::Values;

use cluster::{Cluster, EARLIEST, LATEST, Partition};
use link::{Link, Login, named};
use place::Places;
use records::Taken;

/// Bytes of one partition in an answer; at least one batch of records comes whatever its size.
const PARTITION_BYTES: i32 = 1 << 20;
/// A server waits at most this long for records.
const WAIT_MOST: Duration = Duration::from_secs(5);
/// Is the cluster as it was? Asked this often.
const CLUSTER_INTERVAL: Duration = Duration::from_secs(15);
/// Versions of the question for records in which logs have names.
const FETCH_VERSIONS: (i16, i16) = (4, 12);
/// What is committed only.
const READ_COMMITTED: i8 = 1;
/// `OFFSET_OUT_OF_RANGE`
const OUT_OF_RANGE: i16 = 1;
/// Tag with the key of a record.
const KEY_TAG: &str = "kafka.key";
/// Header with a trace id.
const TRACE_HEADER: &str = "traceparent";
/// Header that says for how many milliseconds the publication is kept.
const TTL_HEADER: &str = "ringmain-ttl";

/// Which record.
#[derive(Clone, Debug)]
struct RecordName {
    log: Rc<str>,
    partition: i32,
    offset: i64,
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}/{}/{}", self.log, self.partition, self.offset)
    }
}

/// What the readers of one source share.
struct Shared<'a, L, O> {
    context: &'a Context<L, O>,
    channel: ChannelPattern,
    /// As they were kept.
    before: Places,
    places: RefCell<Places>,
    /// How far behind each partition is.
    lags: RefCell<BTreeMap<(Rc<str>, i32), u64>>,
}

/// Reads what one server leads.
struct Reader<'a, L, O> {
    shared: &'a Shared<'a, L, O>,
    link: Link,
    partitions: Vec<Partition>,
}

/// What came of one partition.
struct Part {
    partition: Partition,
    offers: Vec<Offer<RecordName>>,
    /// Its place when all of them are done with.
    next: i64,
}

/// Reads and publishes until that fails.
pub(super) async fn read<L: Values, O: Sink>(context: &Context<L, O>) -> Fault {
    loop {
        if let Err(fault) = session(context).await {
            return fault;
        }
    }
}

/// Until something fails, or the cluster has changed.
async fn session<L: Values, O: Sink>(context: &Context<L, O>) -> Result<(), Fault> {
    let spec = &context.spec.kafka;
    let channel = ChannelPattern::parse(&context.spec.channel);
    let login = Login {
        user: spec.user.clone(),
        password: context.password(&spec.password.0, &spec.password_file)?,
    };
    let mut first = cluster::enter(&spec.brokers, &login).await?;
    let cluster = Cluster::ask(&mut first, &spec.topics).await?;
    let places = match context.place().await? {
        Some(text) => Places::parse(&text).ok_or_else(|| context.foreign_place())?,
        None => Places::default(),
    };
    let shared = Shared {
        context,
        channel: channel.map_err(|needs| Fault::Unfit(needs.to_owned()))?,
        before: places.clone(),
        places: RefCell::new(places),
        lags: RefCell::default(),
    };
    let mut readers = Vec::new();
    for (address, partitions) in cluster.by_leader()? {
        let mut link = Link::open(&address, &login).await?;
        shared.begin(&mut link, &partitions).await?;
        readers.push(Reader {
            shared: &shared,
            link,
            partitions,
        });
    }
    // Before anything is read: where "the end" was is not to be asked again.
    let text = shared.places.borrow().text();
    context.keep_place(&text).await?;
    let mut running: FuturesUnordered<_> = readers.into_iter().map(Reader::run).collect();
    tokio::select! {
        Some(fault) = running.next() => Err(fault),
        changed = cluster.changed(&mut first, &spec.topics, CLUSTER_INTERVAL) => changed,
    }
}

impl<L: Values, O: Sink> Shared<'_, L, O> {
    /// Partitions that were never read get their place.
    async fn begin(&self, link: &mut Link, partitions: &[Partition]) -> Result<(), Fault> {
        for partition in partitions {
            let at = match self.before.of(partition) {
                place::Known::At(_) => continue,
                // Everything in it is new.
                place::Known::New => EARLIEST,
                place::Known::Never => match self.context.spec.kafka.start {
                    StartAt::Beginning => EARLIEST,
                    StartAt::End => LATEST,
                },
            };
            let offset = cluster::offset(link, partition, at).await?;
            self.places.borrow_mut().set(partition, offset);
        }
        Ok(())
    }

    fn place(&self, partition: &Partition) -> i64 {
        match self.places.borrow().of(partition) {
            place::Known::At(next) => next,
            place::Known::Never | place::Known::New => 0,
        }
    }

    /// Publishes what was read, and keeps the places of what is done with.
    async fn publish(&self, parts: Vec<Part>) -> Result<(), Fault> {
        let most = self.context.spec.batch as usize;
        let mut ends = Vec::with_capacity(parts.len());
        let (mut offers, mut offsets) = (Vec::new(), Vec::new());
        for part in parts {
            let start = offsets.len();
            offsets.extend(part.offers.iter().map(|offer| offer.name.offset));
            offers.extend(part.offers);
            ends.push((start, offsets.len(), part.partition, part.next));
        }
        let mut offers = offers.into_iter().peekable();
        let mut reach = 0;
        loop {
            let mut fault = None;
            if offers.peek().is_some() {
                let batch: Vec<_> = offers.by_ref().take(most).collect();
                let outcome = publish(self.context, batch).await;
                reach += outcome.reach;
                fault = outcome.fault;
            }
            let mut is_moved = false;
            for (start, end, partition, next) in &ends {
                let place = match reach {
                    all if all >= *end => *next,
                    some if some > *start => offsets[some],
                    _ => continue,
                };
                if self.place(partition) != place {
                    self.places.borrow_mut().set(partition, place);
                    is_moved = true;
                }
            }
            if is_moved {
                let text = self.places.borrow().text();
                self.context.keep_place(&text).await?;
            }
            match fault {
                Some(fault) => return Err(fault),
                None if offers.peek().is_none() => return Ok(()),
                None => {}
            }
        }
    }

    fn offer(&self, partition: &Partition, taken: Taken) -> Offer<RecordName> {
        let name = RecordName {
            log: Rc::clone(&partition.log),
            partition: partition.number,
            offset: taken.offset,
        };
        let record = self.record(partition, &name, taken);
        Offer { name, record }
    }

    fn record(
        &self,
        partition: &Partition,
        name: &RecordName,
        taken: Taken,
    ) -> Result<Record, String> {
        let key = taken.key.as_ref();
        let key = key.and_then(|key| str::from_utf8(key).ok());
        let channel = self.channel.fill(&name.log, name.partition, key);
        let channel = channel.ok_or("the channel needs its key, and it has none that is text")?;
        let mut record = offer::record(&channel, taken.value.as_deref().unwrap_or_default());
        let log = if partition.id.is_empty() {
            &partition.log
        } else {
            &partition.id
        };
        let source = &self.context.spec.name;
        record.key = format!("source/{source}/{log}/{}/{}", name.partition, name.offset).into();
        let mut tags: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (header, value) in taken.headers {
            let Some(value) = value.and_then(|value| String::from_utf8(value.to_vec()).ok()) else {
                continue;
            };
            if &*header == TRACE_HEADER && value.len() <= TRACE_BYTES_MAX {
                record.trace = value.into();
            } else if &*header == TTL_HEADER {
                record.ttl_ms = value.trim().parse().map_err(|_text| {
                    format!("header {TTL_HEADER}: expected milliseconds from 0")
                })?;
            } else {
                tags.push((header.into(), value.into()));
            }
        }
        if let Some(key) = key
            && !tags.iter().any(|(name, _)| &**name == KEY_TAG)
        {
            tags.push((KEY_TAG.into(), key.into()));
        }
        record.tags = tags.into();
        Ok(record)
    }
}

impl<L: Values, O: Sink> Reader<'_, L, O> {
    async fn run(mut self) -> Fault {
        loop {
            if let Err(fault) = self.turn().await {
                return fault;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Fault> {
        let answer = self.fetch().await?;
        named(answer.error_code, || "fetch".to_owned())?;
        let mut parts = Vec::new();
        for log in answer.responses {
            for data in log.partitions {
                let partition = self.partitions.iter().find(|partition| {
                    *partition.log == **log.topic && partition.number == data.partition_index
                });
                if let Some(partition) = partition.cloned()
                    && let Some(part) = self.part(partition, data).await?
                {
                    parts.push(part);
                    // The log has the thread in between.
                    tokio::task::yield_now().await;
                }
            }
        }
        // Those that were asked for last are asked for first: an answer that is full has nothing of the others.
        if let Some(first) = self.partitions.pop() {
            self.partitions.insert(0, first);
        }
        self.shared.publish(parts).await?;
        let behind = self.shared.lags.borrow().values().sum();
        self.shared.context.ledger.behind(behind);
        self.shared.context.ledger.went_on();
        Ok(())
    }

    async fn fetch(&mut self) -> Result<FetchResponse, Fault> {
        let wait = self.shared.context.spec.poll_interval.min(WAIT_MOST);
        let mut request = FetchRequest::default();
        request.max_wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        request.min_bytes = 1;
        request.max_bytes = i32::try_from(SOURCE_BATCH_BYTES_MAX).unwrap_or(i32::MAX);
        request.isolation_level = READ_COMMITTED;
        for partition in &self.partitions {
            let mut one = FetchPartition::default();
            one.partition = partition.number;
            one.fetch_offset = self.shared.place(partition);
            one.partition_max_bytes = PARTITION_BYTES;
            let mut log = FetchTopic::default();
            log.topic = StrBytes::from_string(partition.log.to_string()).into();
            log.partitions = vec![one];
            request.topics.push(log);
        }
        let version = self.link.version(ApiKey::Fetch, FETCH_VERSIONS)?;
        self.link.ask(ApiKey::Fetch, version, &request).await
    }

    /// What one partition has given.
    async fn part(
        &mut self,
        partition: Partition,
        data: PartitionData,
    ) -> Result<Option<Part>, Fault> {
        if data.error_code == OUT_OF_RANGE {
            self.go_on_elsewhere(&partition).await?;
            return Ok(None);
        }
        named(data.error_code, || partition.to_string())?;
        let from = self.shared.place(&partition);
        let aborted = data.aborted_transactions.unwrap_or_default();
        let aborted = aborted
            .iter()
            .map(|one| (one.producer_id.0, one.first_offset))
            .collect();
        let decoded = records::decode(data.records.unwrap_or_default(), from, aborted);
        let decoded = decoded.map_err(|why| Fault::Unfit(format!("{partition}: {why}")))?;
        let lag = data.last_stable_offset - decoded.next;
        let at = (Rc::clone(&partition.log), partition.number);
        let lag = u64::try_from(lag).unwrap_or(0);
        self.shared.lags.borrow_mut().insert(at, lag);
        let offers = decoded.records.into_iter();
        let offers = offers
            .map(|taken| self.shared.offer(&partition, taken))
            .collect();
        Ok(Some(Part {
            partition,
            offers,
            next: decoded.next,
        }))
    }

    /// What was to be read next is not there any more, or not yet.
    async fn go_on_elsewhere(&mut self, partition: &Partition) -> Result<(), Fault> {
        let place = self.shared.place(partition);
        let earliest = cluster::offset(&mut self.link, partition, EARLIEST).await?;
        let latest = cluster::offset(&mut self.link, partition, LATEST).await?;
        let (what, next) = if place < earliest {
            (
                format!("its records {place} to {} are gone", earliest - 1),
                earliest,
            )
        } else {
            let what = format!("it ends at {latest}, and was read up to {place}");
            (what, latest)
        };
        if self.shared.context.spec.on_error == OnError::Stop {
            return Err(Fault::Unfit(format!(
                "{partition}: {what}; with `on_error = \"skip\"` it goes on at {next}"
            )));
        }
        let source = &self.shared.context.spec.name;
        warn!(%source, %partition, %what, next, "the source goes on elsewhere");
        self.shared.places.borrow_mut().set(partition, next);
        let text = self.shared.places.borrow().text();
        self.shared.context.keep_place(&text).await
    }
}

//! Which partitions there are, and who leads them.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::link::{Link, Login, named};
use crate::limits::SOURCE_PARTITIONS_MAX;
use crate::upstream::sources::offer::Fault;

/// The oldest record that is kept.
pub(super) const EARLIEST: i64 = -2;
/// What comes next.
pub(super) const LATEST: i64 = -1;

const METADATA_VERSIONS: (i16, i16) = (1, 12);
const OFFSETS_VERSIONS: (i16, i16) = (2, 7);
/// `UNKNOWN_TOPIC_OR_PARTITION`
const UNKNOWN: i16 = 3;
/// What an id of a log is where servers know of none.
const NO_ID: &str = "00000000-0000-0000-0000-000000000000";
/// Of an offset that is committed.
const READ_COMMITTED: i8 = 1;

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// Name of the log.
    pub(super) log: Rc<str>,
    /// What tells the log from one of the same name that was deleted; empty where servers do not say.
    pub(super) id: Rc<str>,
    pub(super) number: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}/{}", self.log, self.number)
    }
}

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    /// Addresses by the number of the server.
    servers: BTreeMap<i32, String>,
    /// Partitions with the number of their leader.
    partitions: Vec<(Partition, i32)>,
}

/// A connection to the first of these servers that lets us in.
pub(super) async fn enter(servers: &[String], login: &Login) -> Result<Link, Fault> {
    let mut fault = Fault::Unfit("no Kafka server is configured".to_owned());
    for server in servers {
        match Link::open(server, login).await {
            Ok(link) => return Ok(link),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

impl Cluster {
    /// What the cluster knows of these logs.
    pub(super) async fn ask(link: &mut Link, logs: &[String]) -> Result<Self, Fault> {
        let mut request = MetadataRequest::default();
        request.allow_auto_topic_creation = false;
        let named_logs = logs.iter().map(|name| {
            let mut log = MetadataRequestTopic::default();
            log.name = Some(StrBytes::from_string(name.clone()).into());
            log
        });
        request.topics = Some(named_logs.collect());
        let version = link.version(ApiKey::Metadata, METADATA_VERSIONS)?;
        let answer: MetadataResponse = link.ask(ApiKey::Metadata, version, &request).await?;
        let mut partitions = Vec::new();
        for log in answer.topics {
            let name: Rc<str> = log.name.as_deref().map_or("", |name| name).into();
            if log.error_code == UNKNOWN {
                return Err(Fault::Unfit(format!("Kafka has no topic {name}")));
            }
            named(log.error_code, || format!("topic {name}"))?;
            let id = log.topic_id.to_string();
            let id: Rc<str> = if id == NO_ID { "".into() } else { id.into() };
            for partition in log.partitions {
                let one = Partition {
                    log: Rc::clone(&name),
                    id: Rc::clone(&id),
                    number: partition.partition_index,
                };
                partitions.push((one, partition.leader_id.0));
            }
        }
        if partitions.len() > SOURCE_PARTITIONS_MAX {
            return Err(Fault::Unfit(format!(
                "{} partitions, at most {SOURCE_PARTITIONS_MAX} are read",
                partitions.len()
            )));
        }
        partitions.sort_by(|(a, _), (b, _)| (&a.log, a.number).cmp(&(&b.log, b.number)));
        let servers = answer.brokers.iter();
        let servers = servers
            .map(|one| (one.node_id.0, format!("{}:{}", &*one.host, one.port)))
            .collect();
        Ok(Self {
            servers,
            partitions,
        })
    }

    /// The partitions of each server that leads some.
    pub(super) fn by_leader(&self) -> Result<Vec<(String, Vec<Partition>)>, Fault> {
        let mut found = BTreeMap::<&String, Vec<Partition>>::new();
        for (partition, leader) in &self.partitions {
            let Some(server) = self.servers.get(leader) else {
                return Err(Fault::Away(format!("{partition} has no leader now")));
            };
            found.entry(server).or_default().push(partition.clone());
        }
        let found = found.into_iter();
        Ok(found
            .map(|(server, partitions)| (server.clone(), partitions))
            .collect())
    }

    /// Waits until it is another one.
    pub(super) async fn changed(
        &self,
        link: &mut Link,
        logs: &[String],
        interval: Duration,
    ) -> Result<(), Fault> {
        loop {
            tokio::time::sleep(interval).await;
            if Self::ask(link, logs).await? != *self {
                return Ok(());
            }
        }
    }
}

/// The offset of a time, or of `EARLIEST` or `LATEST`.
pub(super) async fn offset(link: &mut Link, partition: &Partition, at: i64) -> Result<i64, Fault> {
    let mut one = ListOffsetsPartition::default();
    one.partition_index = partition.number;
    one.timestamp = at;
    let mut log = ListOffsetsTopic::default();
    log.name = StrBytes::from_string(partition.log.to_string()).into();
    log.partitions = vec![one];
    let mut request = ListOffsetsRequest::default();
    request.replica_id = (-1).into();
    request.isolation_level = READ_COMMITTED;
    request.topics = vec![log];
    let version = link.version(ApiKey::ListOffsets, OFFSETS_VERSIONS)?;
    let answer: ListOffsetsResponse = link.ask(ApiKey::ListOffsets, version, &request).await?;
    let mut found = answer.topics.iter().flat_map(|log| &log.partitions);
    let Some(found) = found.find(|one| one.partition_index == partition.number) else {
        return Err(Fault::Away(format!("{partition}: no answer about it")));
    };
    named(found.error_code, || partition.to_string())?;
    Ok(found.offset)
}

//! A real Kafka server of a test: one process that is broker and controller, with a directory and ports of its own. And a
//! producer that says what the test wants said, transactions included.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey, CreateTopicsRequest,
    CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, EndTxnRequest, EndTxnResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest,
    ProduceResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use tempfile::TempDir;

use crate::support::wait::{unix_seconds, until};

/// Name of the cluster.
const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";
/// Who may log in at the second listener.
pub(crate) const USER: &str = "ringmain";
pub(crate) const PASSWORD: &str = "secret-of-kafka";
/// Small, and ready soon.
const JAVA: [&str; 3] = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];

/// One server, killed when it is dropped.
pub(crate) struct KafkaServer {
    directory: TempDir,
    port: u16,
    login_port: u16,
    process: Option<Child>,
    guard: Option<Child>,
}

impl KafkaServer {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Self {
            port: free_port(),
            login_port: free_port(),
            process: None,
            guard: None,
            directory,
        };
        server.initialise(free_port());
        server.restart();
        server
    }

    fn properties(&self) -> PathBuf {
        self.directory.path().join("server.properties")
    }

    fn initialise(&self, controller: u16) {
        let (port, login) = (self.port, self.login_port);
        let data = self.directory.path().join("data");
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},LOGIN://127.0.0.1:{login},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},LOGIN://127.0.0.1:{login}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             sasl.enabled.mechanisms=PLAIN\n\
             listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\n\
             log.initial.task.delay.ms=0\n\
             broker.session.timeout.ms=2000\n",
            data.display()
        );
        std::fs::write(self.properties(), properties).expect("properties");
        let output = java()
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"])
            .arg(self.properties())
            .output()
            .expect("java");
        assert!(
            output.status.success(),
            "format: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where clients connect that log in.
    pub(crate) fn login_address(&self) -> String {
        format!("127.0.0.1:{}", self.login_port)
    }

    /// Starts it with what it has stored, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        let log = File::create(self.directory.path().join("log")).expect("a log");
        let errors = log.try_clone().expect("a log");
        let child = java()
            .arg("kafka.Kafka")
            .arg(self.properties())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("java");
        self.guard = Some(guard(child.id()));
        self.process = Some(child);
        for _ in 0..1200 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        panic!("kafka does not listen:\n{log}");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        for mut process in self.guard.take().into_iter().chain(self.process.take()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// A connection.
    pub(crate) fn open(&self) -> Producer {
        Producer::try_open(self.port).expect("a server that answers")
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Makes a topic, once the server is ready for it.
    pub(crate) fn make(&self, name: &str, partitions: i32) {
        until("a topic", || {
            let mut producer = Producer::try_open(self.port)?;
            (producer.make(name, partitions)? == 0).then_some(())
        });
    }
}

impl Drop for KafkaServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection that waits for every answer. `None`: the server went away.
pub(crate) struct Producer {
    stream: TcpStream,
    asked: i32,
}

/// A transaction under way.
pub(crate) struct Transaction {
    name: StrBytes,
    id: i64,
    epoch: i16,
    sequence: i32,
}

/// A record to write: key, value, headers.
pub(crate) type Written<'a> = (Option<&'a str>, Option<&'a str>, &'a [(&'a str, &'a str)]);

impl Producer {
    pub(crate) fn try_open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Some(Self { stream, asked: 0 })
    }

    fn ask<Q, A>(&mut self, key: ApiKey, version: i16, question: &Q) -> Option<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        self.asked += 1;
        let mut header = RequestHeader::default();
        header.request_api_key = key as i16;
        header.request_api_version = version;
        header.correlation_id = self.asked;
        header.client_id = Some(StrBytes::from_static_str("tests"));
        let mut out = BytesMut::new();
        header
            .encode(&mut out, Q::header_version(version))
            .expect("a header");
        question.encode(&mut out, version).expect("a question");
        let length = u32::try_from(out.len()).expect("small").to_be_bytes();
        self.stream.write_all(&[&length[..], &out].concat()).ok()?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer).ok()?;
        let mut answer = Bytes::from(answer);
        ResponseHeader::decode(&mut answer, A::header_version(version)).expect("a header");
        Some(A::decode(&mut answer, version).expect("an answer"))
    }

    fn make(&mut self, name: &str, partitions: i32) -> Option<i16> {
        let mut log = CreatableTopic::default();
        log.name = text(name).into();
        log.num_partitions = partitions;
        log.replication_factor = 1;
        let mut request = CreateTopicsRequest::default();
        request.topics = vec![log];
        request.timeout_ms = 5000;
        let answer: CreateTopicsResponse = self.ask(ApiKey::CreateTopics, 5, &request)?;
        Some(answer.topics[0].error_code)
    }

    /// Deletes a topic.
    pub(crate) fn delete(&mut self, name: &str) {
        let mut request = DeleteTopicsRequest::default();
        request.topic_names = vec![text(name).into()];
        request.timeout_ms = 5000;
        let answer: DeleteTopicsResponse = self
            .ask(ApiKey::DeleteTopics, 5, &request)
            .expect("an answer");
        assert_eq!(answer.responses[0].error_code, 0);
    }

    /// Deletes the records before an offset.
    pub(crate) fn forget(&mut self, name: &str, partition: i32, before: i64) {
        let mut one = DeleteRecordsPartition::default();
        one.partition_index = partition;
        one.offset = before;
        let mut log = DeleteRecordsTopic::default();
        log.name = text(name).into();
        log.partitions = vec![one];
        let mut request = DeleteRecordsRequest::default();
        request.topics = vec![log];
        request.timeout_ms = 5000;
        let answer: DeleteRecordsResponse = self
            .ask(ApiKey::DeleteRecords, 1, &request)
            .expect("an answer");
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    }

    /// Writes records. The code of the error, 0 for none.
    pub(crate) fn write(
        &mut self,
        name: &str,
        partition: i32,
        records: &[Written<'_>],
        compression: Compression,
        transaction: Option<&mut Transaction>,
    ) -> Option<i16> {
        let (mut id, mut epoch, mut sequence, mut transactional) = (-1, -1, -1, None);
        if let Some(transaction) = transaction {
            (id, epoch, sequence) = (transaction.id, transaction.epoch, transaction.sequence);
            transactional = Some(transaction.name.clone().into());
            transaction.sequence += i32::try_from(records.len()).expect("few");
        }
        let record = |(at, (key, value, headers)): (usize, &Written<'_>)| Record {
            transactional: transactional.is_some(),
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: id,
            producer_epoch: epoch,
            timestamp_type: TimestampType::Creation,
            offset: at as i64,
            sequence: if sequence < 0 {
                at as i32
            } else {
                sequence + at as i32
            },
            timestamp: unix_seconds() * 1000,
            key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            headers: headers
                .iter()
                .map(|(name, value)| (text(name), Some(Bytes::copy_from_slice(value.as_bytes()))))
                .collect(),
        };
        let records: Vec<Record> = records.iter().enumerate().map(record).collect();
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions {
            version: 2,
            compression,
        };
        RecordBatchEncoder::encode(&mut batch, &records, &options).expect("a batch");
        let mut one = PartitionProduceData::default();
        one.index = partition;
        one.records = Some(batch.freeze());
        let mut log = TopicProduceData::default();
        log.name = text(name).into();
        log.partition_data = vec![one];
        let mut request = ProduceRequest::default();
        request.transactional_id = transactional;
        request.acks = -1;
        request.timeout_ms = 5000;
        request.topic_data = vec![log];
        let answer: ProduceResponse = self.ask(ApiKey::Produce, 8, &request)?;
        Some(answer.responses[0].partition_responses[0].error_code)
    }

    /// Begins a transaction in one partition.
    pub(crate) fn begin(&mut self, who: &str, name: &str, partition: i32) -> Transaction {
        let mut find = FindCoordinatorRequest::default();
        find.key = text(who);
        find.key_type = 1;
        let mut begin = InitProducerIdRequest::default();
        begin.transactional_id = Some(text(who).into());
        begin.transaction_timeout_ms = 60_000;
        let begun = until("a producer", || {
            let found: FindCoordinatorResponse = self
                .ask(ApiKey::FindCoordinator, 2, &find)
                .expect("an answer");
            let begun: InitProducerIdResponse = self
                .ask(ApiKey::InitProducerId, 2, &begin)
                .expect("an answer");
            (found.error_code == 0 && begun.error_code == 0).then_some(begun)
        });
        let mut log = AddPartitionsToTxnTopic::default();
        log.name = text(name).into();
        log.partitions = vec![partition];
        let mut add = AddPartitionsToTxnRequest::default();
        add.v3_and_below_transactional_id = text(who).into();
        add.v3_and_below_producer_id = begun.producer_id;
        add.v3_and_below_producer_epoch = begun.producer_epoch;
        add.v3_and_below_topics = vec![log];
        let added: AddPartitionsToTxnResponse = self
            .ask(ApiKey::AddPartitionsToTxn, 3, &add)
            .expect("an answer");
        let added = &added.results_by_topic_v3_and_below[0].results_by_partition[0];
        assert_eq!(added.partition_error_code, 0);
        Transaction {
            name: text(who),
            id: begun.producer_id.0,
            epoch: begun.producer_epoch,
            sequence: 0,
        }
    }

    /// Ends it one way or the other.
    pub(crate) fn end(&mut self, transaction: Transaction, is_committed: bool) {
        let mut request = EndTxnRequest::default();
        request.transactional_id = transaction.name.into();
        request.producer_id = transaction.id.into();
        request.producer_epoch = transaction.epoch;
        request.committed = is_committed;
        let answer: EndTxnResponse = self.ask(ApiKey::EndTxn, 3, &request).expect("an answer");
        assert_eq!(answer.error_code, 0);
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Java with Kafka's classes: `KAFKA_LIBS`, or where `scripts/test` puts them.
fn java() -> Command {
    let libraries = std::env::var_os("KAFKA_LIBS").map(PathBuf::from);
    let libraries = libraries.unwrap_or_else(|| {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        target.unwrap_or_else(|| root.join("target")).join("kafka")
    });
    assert!(
        libraries.is_dir(),
        "no Kafka in {}: `scripts/test` puts it there",
        libraries.display()
    );
    let mut command = Command::new("java");
    command.args(JAVA).arg("-cp").arg(libraries.join("*"));
    command
}

/// Kills the server when this test process is gone, however it ends: the guard's standard input closes with it.
fn guard(pid: u32) -> Child {
    Command::new("sh")
        .args(["-c", &format!("read _; kill -9 {pid} 2>/dev/null")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

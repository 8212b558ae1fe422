//! What does the embedded log reach beside a minimal program with the same library and the same batches, and beside the
//! same on redb? How long does one publisher with one publication under way wait, beside a bare write and fdatasync?
//!
//! `cargo bench --bench log [-- --entries N] [--directory PATH]`; tiny under `cargo test --benches`. Rounds alternate, and
//! medians are reported. `--entries` (default 2 million) is how much is there for reopening, scanning and a queue group.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use ringmain::config::durable::Durable;
use ringmain::model::{ChannelName, Draft, EventId, Terms};
use ringmain::upstream::Embedded;
use ringmain::upstream::log::{Entries as _, Group, Groups as _, Scan, Settled};

// As in the program itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records of one commit, their payload, and the channels they are of.
const BATCH: usize = 2048;
const PAYLOAD: usize = 256;
const CHANNELS: usize = 64;
/// Rounds of which the median is reported.
const ROUNDS: usize = 7;
const MODULUS: u64 = CHANNELS as u64;

#[derive(Clone)]
struct Plan {
    commits: usize,
    singles: usize,
    rounds: usize,
    entries: u64,
    directory: PathBuf,
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)
    };
    let home = tempfile::tempdir_in(value("--directory").map_or(".", String::as_str));
    let home = home.expect("a directory");
    let is_bench = args.iter().any(|arg| arg == "--bench");
    let entries = value("--entries").and_then(|text| text.parse().ok());
    let plan = Plan {
        commits: if is_bench { 150 } else { 2 },
        singles: if is_bench { 600 } else { 2 },
        rounds: if is_bench { ROUNDS } else { 1 },
        entries: if is_bench {
            entries.unwrap_or(2_000_000)
        } else {
            5000
        },
        directory: home.path().to_owned(),
    };
    throughput(&plan);
    latency(&plan);
    large(&plan);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn open(directory: &Path) -> Embedded {
    let mut config = Durable::default();
    config.embedded.directory = directory.to_owned();
    Embedded::open(&config).expect("opens")
}

fn batch(names: &[ChannelName], from: u64, count: usize) -> Vec<Draft> {
    let append = |n: u64| {
        let channel = names[(n % MODULUS) as usize].clone();
        let mut draft = Draft::new(
            Terms::log(Duration::ZERO),
            channel,
            payload(n).into(),
            false,
        );
        draft.record.event = EventId::new(n, u128::from(n));
        draft.record.unix_ms = 1_700_000_000_000 + n / 1000;
        draft
    };
    (from..from + count as u64).map(append).collect()
}

fn names() -> Vec<ChannelName> {
    (0..CHANNELS)
        .map(|n| ChannelName::from_whole(&format!("orders:{n}")))
        .collect()
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn percentile(samples: &[Duration], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[at].as_secs_f64() * 1e6
}

/// Bytes that this process has had written to a disk.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines()
        .find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok())
        .unwrap_or(0)
}

struct Lane {
    name: &'static str,
    rates: Vec<f64>,
    commits: Vec<Duration>,
    written: u64,
}

impl Lane {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            rates: Vec::new(),
            commits: Vec::new(),
            written: 0,
        }
    }

    fn round(&mut self, plan: &Plan, mut commit: impl FnMut()) {
        let before = written();
        let start = now();
        for _ in 0..plan.commits {
            let begun = now();
            commit();
            self.commits.push(begun.elapsed());
        }
        self.rates
            .push((plan.commits * BATCH) as f64 / start.elapsed().as_secs_f64());
        self.written += written() - before;
    }

    fn report(&mut self, plan: &Plan) -> f64 {
        let rate = median(&mut self.rates);
        let payload = plan.commits * plan.rounds * BATCH * PAYLOAD;
        println!(
            "{:16} {:8.0} records/s, commit p50 {:7.0} µs p99 {:7.0} µs, {:4.2} bytes written for each of payload",
            self.name,
            rate,
            percentile(&self.commits, 0.5),
            percentile(&self.commits, 0.99),
            self.written as f64 / payload as f64,
        );
        rate
    }
}

/// Digits that differ, so that compression has no easy game: half of their bits are chance.
fn payload(n: u64) -> Vec<u8> {
    let mut state = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let digit = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b"0123456789abcdef"[(state >> 60) as usize]
    };
    (0..PAYLOAD).map(digit).collect()
}

/// Payloads of one commit, as blocks of one channel each.
fn raw_blocks() -> Vec<Vec<u8>> {
    (0..CHANNELS)
        .map(|channel| {
            (0..BATCH / CHANNELS)
                .flat_map(|n| payload((channel * BATCH + n) as u64))
                .collect()
        })
        .collect()
}

fn minimal(directory: &Path) -> (Database, Keyspace) {
    let db = Database::builder(directory)
        .journal_compression(CompressionType::None)
        .manual_journal_persist(true)
        .worker_threads(1)
        .open()
        .expect("opens");
    let keyspace = db
        .keyspace("log", KeyspaceCreateOptions::default)
        .expect("opens");
    (db, keyspace)
}

fn throughput(plan: &Plan) {
    println!(
        "{} records of {PAYLOAD} B of {CHANNELS} channels a commit, fdatasync, {} rounds of {} commits",
        BATCH, plan.rounds, plan.commits
    );
    let names = names();
    let log = open(&plan.directory.join("ringmain"));
    let (db, keyspace) = minimal(&plan.directory.join("minimal"));
    let redb = redb::Database::create(plan.directory.join("redb")).expect("creates");
    let table = redb::TableDefinition::<u64, &[u8]>::new("log");
    let (mut ours, mut theirs, mut other) = (
        Lane::new("embedded"),
        Lane::new("minimal fjall"),
        Lane::new("minimal redb"),
    );
    let (mut next, mut cursor) = (0u64, 0u64);
    for _ in 0..plan.rounds {
        block_on(async {
            let before = written();
            let mut spent = Duration::ZERO;
            for _ in 0..plan.commits {
                let batch = batch(&names, next, BATCH);
                next += BATCH as u64;
                let begun = now();
                let results = log.append(batch).await;
                ours.commits.push(begun.elapsed());
                assert!(results.iter().all(Result::is_ok));
                // Whoever follows the log takes what was stored.
                let mut seen = 0;
                while seen < BATCH {
                    seen += log.tail().await.expect("follows").len();
                }
                spent += begun.elapsed();
            }
            ours.rates
                .push((plan.commits * BATCH) as f64 / spent.as_secs_f64());
            ours.written += written() - before;
        });
        let blocks = raw_blocks();
        theirs.round(plan, || {
            let mut batch = db.batch().durability(Some(PersistMode::SyncData));
            for block in &blocks {
                cursor += 1;
                batch.insert(&keyspace, cursor.to_be_bytes(), block.as_slice());
            }
            batch.commit().expect("commits");
        });
        other.round(plan, || {
            let transaction = redb.begin_write().expect("begins");
            {
                let mut table = transaction.open_table(table).expect("opens");
                for block in &blocks {
                    cursor += 1;
                    table.insert(cursor, block.as_slice()).expect("inserts");
                }
            }
            transaction.commit().expect("commits");
        });
    }
    let (ours, theirs, other) = (ours.report(plan), theirs.report(plan), other.report(plan));
    println!(
        "embedded ÷ minimal fjall {:4.2}, ÷ minimal redb {:4.2}",
        ours / theirs,
        ours / other
    );
}

fn latency(plan: &Plan) {
    let names = names();
    let log = open(&plan.directory.join("single"));
    let mut file = File::create(plan.directory.join("bare")).expect("creates");
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        block_on(async {
            for n in 0..plan.singles as u64 {
                let batch = batch(&names, n, 1);
                let start = now();
                let results = log.append(batch).await;
                ours.push(start.elapsed());
                assert!(results[0].is_ok());
            }
        });
        for _ in 0..plan.singles {
            let start = now();
            file.write_all(&[b'x'; PAYLOAD]).expect("writes");
            file.sync_data().expect("syncs");
            bare.push(start.elapsed());
        }
    }
    for (name, samples) in [("one under way", &ours), ("bare fdatasync", &bare)] {
        println!(
            "{name:16} p50 {:7.0} µs, p99 {:7.0} µs",
            percentile(samples, 0.5),
            percentile(samples, 0.99)
        );
    }
    println!(
        "p50 ratio {:4.2}, p99 ratio {:4.2}",
        percentile(&ours, 0.5) / percentile(&bare, 0.5),
        percentile(&ours, 0.99) / percentile(&bare, 0.99)
    );
}

fn large(plan: &Plan) {
    let directory = plan.directory.join("large");
    let names = names();
    let mut next = 0;
    let log = open(&directory);
    block_on(async {
        while next < plan.entries {
            let results = log.append(batch(&names, next, BATCH)).await;
            assert!(results.iter().all(Result::is_ok));
            next += BATCH as u64;
        }
    });
    drop(log);
    let mut opened = Vec::new();
    for _ in 0..plan.rounds.min(3) {
        let start = now();
        drop(open(&directory));
        opened.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("{next} entries: open in {:.0} ms", median(&mut opened));
    let log = open(&directory);
    block_on(async {
        for what in ["cold scan", "hot scan"] {
            let start = now();
            let mut scan = Scan {
                after: 0,
                channels: Vec::new(),
                limit: 4096,
                bytes: 4 << 20,
                looked_at: 1 << 16,
            };
            let mut seen = 0;
            loop {
                let scanned = log.scan(&scan).await.expect("scans");
                seen += scanned.entries.len() as u64;
                scan.after = scanned.next;
                if scanned.at_end {
                    break;
                }
            }
            assert_eq!(seen, next);
            println!(
                "{what:16} {:8.0} entries/s",
                seen as f64 / start.elapsed().as_secs_f64()
            );
        }
        for channels in ["*", "orders:1"] {
            let group = Group {
                name: channels.into(),
                channels: vec![channels.into()],
                from_beginning: true,
                start_after: None,
                lease: Duration::from_secs(60),
                ordered: false,
            };
            log.open_group(&group).await.expect("opens");
            let wanted = if channels == "*" {
                next
            } else {
                next / MODULUS
            };
            let start = now();
            let mut seen = 0;
            while seen < wanted {
                let leased = log.fetch(channels, 256).await.expect("fetches");
                seen += leased.len() as u64;
                let settled: Vec<_> = leased
                    .iter()
                    .map(|leased| (leased.lease, Settled::Done))
                    .collect();
                log.settle(channels, &settled).await.expect("settles");
            }
            println!(
                "group of {channels:8} {:8.0} fetched and settled/s, of {next} in {:.0} ms",
                seen as f64 / start.elapsed().as_secs_f64(),
                start.elapsed().as_secs_f64() * 1e3
            );
        }
    });
}

//! Faults of the embedded log: its process killed, its file torn, its disk full, its clock stepped, its directory gone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::actors::acknowledged;
use super::ledger::Ledger;
use super::link::{Link, temporary};
use super::names::{Random, parameters};
use super::world::{Engine, OWN, World};
use crate::support::process::{Server, config};
use crate::support::wait::now;

/// Longest wait for one step of a fault.
const DEADLINE: Duration = Duration::from_secs(60);
/// Publications of which some are on the disk, and none is acknowledged, when the file is torn.
const TORN_PUBLICATIONS: u32 = 300;
/// No write of the log is shorter.
const LAST_WRITE: u64 = 64;
/// Bytes of a disk that becomes full.
const DISK: &str = "192m";
/// Where Debian has the library that fakes the clock.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];
/// A clock is stepped by at most so many seconds: within the time that keys are remembered.
const STEP_MAX: u64 = 11 * 3600;

/// `kill -9` of the proxy after a random number of acknowledgements.
pub(crate) fn kill(engine: &Engine, rounds: u32, seed: u64) -> Ledger {
    let mut world = World::start(engine, &[], seed);
    for _ in 0..rounds {
        let acknowledgements = world.random.between(20, 400);
        world.go_on(acknowledgements);
        world.kill();
        world.start_again();
    }
    world.go_on(200);
    world.finish()
}

/// What a process that dies amid a write leaves at the end of its newest file: a part of the write, nothing of it, zeros
/// where the file has grown before its bytes came, or bytes of something else.
///
/// Only bytes are torn whose publications nobody was told of: the world is brought to rest, the lengths of all files are
/// noted, then publications are sent whose answers nobody reads, and what is torn lies behind the noted lengths. What
/// was acknowledged before must all be there; what was not is published again with the same keys.
pub(crate) fn torn(rounds: u32, seed: u64) -> Ledger {
    let mut world = World::start(&Engine::Embedded, &[], seed);
    for round in 0..rounds {
        let acknowledgements = world.random.between(100, 600);
        world.go_on(acknowledgements);
        world.come_to_rest();
        let before = lengths(&world.log);
        let numbers = round * TORN_PUBLICATIONS..(round + 1) * TORN_PUBLICATIONS;
        // Held open until the kill: nothing that it gets is read.
        let link = send_without_reading(&world, numbers.clone());
        let end = now() + DEADLINE;
        while grown(&world.log, &before).is_none() {
            assert!(now() < end, "nothing is written");
            std::thread::yield_now();
        }
        // Some of it, or all of it, is on the disk by then.
        for _ in 0..world.random.below(2000) {
            std::thread::yield_now();
        }
        world.kill();
        drop(link);
        let (path, from) = grown(&world.log, &before).expect("a file has grown");
        tear(&path, from, &mut world.random);
        world.start_again();
        publish_again(&mut world, numbers);
        world.resume();
    }
    world.finish()
}

fn send_without_reading(world: &World, numbers: std::ops::Range<u32>) -> Link {
    let mut link = Link::to(world.orders.address, "torn");
    for n in numbers {
        link.rpc("ringmain.publish", &parameters((OWN, n)))
            .unwrap_or_else(|_| panic!("a connection"));
    }
    link
}

fn publish_again(world: &mut World, numbers: std::ops::Range<u32>) {
    let mut link = Link::to(world.orders.address, "torn");
    let mut open: BTreeMap<u64, u32> = BTreeMap::new();
    let send = |link: &mut Link, open: &mut BTreeMap<u64, u32>, n| {
        let id = link.rpc("ringmain.publish", &parameters((OWN, n)));
        open.insert(id.unwrap_or_else(|_| panic!("a connection")), n);
    };
    for n in numbers {
        send(&mut link, &mut open, n);
    }
    let end = now() + DEADLINE;
    while !open.is_empty() {
        assert!(now() < end, "{} publications are not answered", open.len());
        for reply in link.receive().unwrap_or_else(|_| panic!("a connection")) {
            let Some(n) = reply["id"].as_u64().and_then(|id| open.remove(&id)) else {
                continue;
            };
            match acknowledged((OWN, n), 0, &reply["rpc"]["data"]) {
                Some(fact) => world.ledger.book(fact),
                None if temporary(&reply["error"]).is_some() => send(&mut link, &mut open, n),
                None => panic!("{n} was refused: {reply}"),
            }
        }
    }
}

/// Where the last byte of each file is that is not zero: files may be longer than what is in them.
fn lengths(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)
            .expect("a directory")
            .flatten()
        {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    found.insert(entry.path(), used(&entry.path()).unwrap_or(0));
                }
                // Files come and go while the log lives.
                _ => {}
            }
        }
    }
    found
}

fn used(path: &Path) -> std::io::Result<u64> {
    const BLOCK: u64 = 64 * 1024;
    let mut file = File::open(path)?;
    let mut end = file.metadata()?.len();
    let mut bytes = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        bytes.clear();
        Read::by_ref(&mut file)
            .take(end - start)
            .read_to_end(&mut bytes)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The file that has grown most, and how long it was: those that are new are complete before anything names them.
fn grown(directory: &Path, before: &BTreeMap<PathBuf, u64>) -> Option<(PathBuf, u64)> {
    let after = lengths(directory);
    let growth = |(path, len): (&PathBuf, &u64)| {
        let now = after.get(path).copied().unwrap_or(0);
        (now > *len).then(|| (now - len, path.clone(), *len))
    };
    let most = before.iter().filter_map(growth).max()?;
    Some((most.1, most.2))
}

fn tear(path: &Path, from: u64, random: &mut Random) {
    let end = used(path).expect("the file");
    let at = random.between(from, end + 1);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("the file");
    let cut = |file: &File| file.set_len(at).expect("a shorter file");
    match random.below(4) {
        // A part of the write has come.
        0 => cut(&file),
        // The file has grown, its bytes have not come.
        1 => {
            cut(&file);
            file.set_len(end + random.below(8192))
                .expect("a longer file");
        }
        // Bytes that were there before, of another file.
        2 => {
            cut(&file);
            let garbage: Vec<u8> = (0..random.between(1, 8192))
                .map(|_| random.below(256) as u8)
                .collect();
            file.seek(SeekFrom::Start(at)).expect("the end");
            file.write_all(&garbage).expect("garbage");
        }
        // One bit of the unfinished write is wrong: what was stored after it would tell damage from that.
        _ if at < end => {
            let at = random.between(from.max(end.saturating_sub(LAST_WRITE)), end);
            let mut byte = [0];
            file.seek(SeekFrom::Start(at)).expect("a place");
            file.read_exact(&mut byte).expect("a byte");
            byte[0] ^= 1 << random.below(8);
            file.seek(SeekFrom::Start(at)).expect("a place");
            file.write_all(&byte).expect("a byte");
        }
        _ => {}
    }
    file.sync_all().expect("a disk");
}

/// A file system of the world's own; it is unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).ok()?;
        let mount = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={DISK}"),
                "ringmain-chaos",
            ])
            .arg(at)
            .output();
        mount.ok()?.status.success().then(|| Self(at.to_owned()))
    }

    /// Takes all the space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).expect("a file");
        for size in [1 << 20, 4096, 1] {
            let block = vec![b'b'; size];
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that ends may still hold files of it.
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

/// The log's disk has no space for a while. `None` where no file system may be mounted.
pub(crate) fn disk(rounds: u32, seed: u64) -> Option<Ledger> {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Disk::mount(&directory.path().join("disk"))?;
    let mut world = World::start(&Engine::EmbeddedAt(disk.0.join("log")), &[], seed);
    for _ in 0..rounds {
        let acknowledgements = world.random.between(200, 1000);
        world.go_on(acknowledgements);
        let errors = world.ledger.temporary;
        // What the log gives free goes into the ballast, until publishers notice.
        let mut ballast = disk.fill();
        world.until("temporary errors", |world| {
            if world.ledger.temporary == errors {
                ballast = disk.fill();
            }
            world.ledger.temporary > errors
        });
        expect(&mut world, "/ready says that the log is down", |world| {
            world.ready()["durable"]["up"] == json!(false)
        });
        if let Err(text) = world.fast_path_works() {
            panic!("while the disk is full: {text}");
        }
        std::fs::remove_file(&ballast).expect("the ballast");
        world.go_on(200);
        expect(&mut world, "/ready says that the log is up", |world| {
            world.ready()["durable"]["up"] == json!(true)
        });
    }
    let ledger = world.finish();
    drop(disk);
    Some(ledger)
}

/// Waits for a fact that clients do not see.
pub(crate) fn expect(world: &mut World, what: &str, mut is_so: impl FnMut(&World) -> bool) {
    let end = now() + DEADLINE;
    while !is_so(world) {
        assert!(now() < end, "waited for: {what}; {}", world.ready());
        world.book(Duration::from_millis(20));
    }
}

/// The wall clock of the proxy jumps, back and forth, sometimes over a kill. `None` without libfaketime.
pub(crate) fn clock(rounds: u32, seed: u64) -> Option<Ledger> {
    let library = FAKETIME.iter().find(|path| Path::new(path).exists())?;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("clock");
    let step = |seconds: i64| {
        let partial = file.with_extension("partial");
        std::fs::write(&partial, format!("{seconds:+}\n")).expect("a file");
        std::fs::rename(&partial, &file).expect("a file");
    };
    step(0);
    let environment = [
        ("LD_PRELOAD", (*library).to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // A step of the wall clock leaves the monotonic one alone.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let mut world = World::start(&Engine::Embedded, &environment, seed);
    world.ledger.is_clock_false = true;
    for round in 0..rounds {
        let acknowledgements = world.random.between(50, 300);
        world.go_on(acknowledgements);
        let seconds = world.random.below(2 * STEP_MAX) as i64 - STEP_MAX as i64;
        step(seconds);
        if round % 3 == 2 {
            world.kill();
            world.start_again();
        }
    }
    world.go_on(200);
    // What was put off while the clock was ahead is due at last.
    step(STEP_MAX as i64);
    Some(world.finish())
}

/// The directory of the log is moved away under the process, and another log is put in its place or none, until it is put
/// back; at last it is deleted. Nothing is acknowledged meanwhile, and what was before counts as long as the log is there.
pub(crate) fn vanish(rounds: u32, seed: u64) -> Ledger {
    let place = tempfile::tempdir().expect("a directory");
    let (log, aside) = (place.path().join("log"), place.path().join("aside"));
    let engine = Engine::EmbeddedAt(log.clone());
    let mut world = World::start(&engine, &[], seed);
    for round in 0..rounds {
        let acknowledgements = world.random.between(50, 400);
        world.go_on(acknowledgements);
        std::fs::rename(&log, &aside).expect("moved away");
        let other = (round % 2 == 1).then(|| another_log(&log));
        let why = match other {
            Some(_) => "another one is in its place",
            None => "has vanished",
        };
        nothing_is_acknowledged(&mut world, why);
        drop(other);
        world.open_books();
        if log.exists() {
            std::fs::remove_dir_all(&log).expect("deleted");
        }
        std::fs::rename(&aside, &log).expect("put back");
        world.go_on(100);
    }
    std::fs::rename(&log, &aside).expect("moved away");
    nothing_is_acknowledged(&mut world, "has vanished");
    std::fs::remove_dir_all(&aside).expect("deleted");
    let before = world.abandon();
    let mut world = World::start(&engine, &[], seed + 1);
    world.go_on(200);
    world.finish().and(before)
}

/// A process with a log of its own there, which has publications of the same channels.
fn another_log(directory: &Path) -> Server {
    let server = Server::start(&config(&format!(
        "[durable.embedded]\ndirectory = \"{}\"\n[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n",
        directory.display()
    )));
    let answer = server.api("publish", &json!({ "channel": "orders:0", "data": 1 }));
    assert_eq!(answer["result"]["offset"], 1, "{answer}");
    server
}

/// The log is not there any more: from now on whatever is published gets a temporary error, and `/ready` says why.
pub(crate) fn nothing_is_acknowledged(world: &mut World, why: &str) {
    world.close_books();
    let errors = world.ledger.temporary;
    expect(world, why, |world| {
        let ready = world.ready();
        let down = ready["durable"]["down"].as_str().unwrap_or_default();
        down.contains(why) && world.ledger.temporary > errors + 20
    });
    if let Err(text) = world.fast_path_works() {
        panic!("while the log is gone: {text}");
    }
    world.ledger.count("vanished logs", 1);
}

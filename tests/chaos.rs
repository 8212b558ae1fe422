//! Faults, each with a ledger: what was acknowledged is never lost, nothing comes twice, order is kept, and dead letters
//! are the poisoned publications. `scripts/chaos` runs the long forms; under `cargo test` each fault comes a few times.

#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[path = "support/support.rs"]
mod support;

#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[path = "support/nats_server.rs"]
mod nats_server;

#[path = "chaos/actors.rs"]
mod actors;
#[path = "chaos/around.rs"]
mod around;
#[path = "chaos/embedded.rs"]
mod embedded;
#[path = "chaos/examine.rs"]
mod examine;
#[path = "chaos/jetstream.rs"]
mod jetstream;
#[path = "chaos/joins.rs"]
mod joins;
#[path = "chaos/ledger.rs"]
mod ledger;
#[path = "chaos/link.rs"]
mod link;
#[path = "chaos/names.rs"]
mod names;
#[path = "chaos/operator.rs"]
mod operator;
#[path = "chaos/workers.rs"]
mod workers;
#[path = "chaos/world.rs"]
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use ledger::Ledger;
use support::wait::now;
use world::Engine;

/// A fault by its name, how often it comes, and how often under `cargo test`.
struct Fault {
    name: &'static str,
    rounds: u32,
    rounds_short: u32,
    /// `Err` says what is missing on this machine.
    run: fn(u32, u64) -> Result<Ledger, &'static str>,
}

/// Short forms that run at a time.
const AT_ONCE: u32 = 4;

const NO_MOUNT: &str = "no file system can be mounted: root is needed";
const NO_FAKETIME: &str = "libfaketime is not installed (Debian package faketime)";
const NO_NATS: &str = "nats-server is neither on the PATH nor in GOPATH/bin";

const FAULTS: [Fault; 19] = [
    Fault {
        name: "kill",
        rounds: 200,
        rounds_short: 10,
        run: |rounds, seed| Ok(embedded::kill(&Engine::Embedded, rounds, seed)),
    },
    Fault {
        name: "torn",
        rounds: 40,
        rounds_short: 4,
        run: |rounds, seed| Ok(embedded::torn(rounds, seed)),
    },
    Fault {
        name: "disk",
        rounds: 10,
        rounds_short: 1,
        run: |rounds, seed| embedded::disk(rounds, seed).ok_or(NO_MOUNT),
    },
    Fault {
        name: "clock",
        rounds: 40,
        rounds_short: 4,
        run: |rounds, seed| embedded::clock(rounds, seed).ok_or(NO_FAKETIME),
    },
    Fault {
        name: "vanish",
        rounds: 20,
        rounds_short: 2,
        run: |rounds, seed| Ok(embedded::vanish(rounds, seed)),
    },
    Fault {
        name: "shards",
        rounds: 60,
        rounds_short: 3,
        run: |rounds, seed| Ok(around::shards(&Engine::Embedded, rounds, seed)),
    },
    Fault {
        name: "options",
        rounds: 60,
        rounds_short: 4,
        run: |rounds, seed| Ok(around::options(&Engine::Embedded, rounds, seed)),
    },
    Fault {
        name: "letters",
        rounds: 30,
        rounds_short: 2,
        run: |rounds, seed| Ok(around::letters(&Engine::Embedded, rounds, seed)),
    },
    Fault {
        name: "gone",
        rounds: 30,
        rounds_short: 2,
        run: |rounds, seed| Ok(around::gone(&Engine::Embedded, rounds, seed)),
    },
    Fault {
        name: "nats-proxy",
        rounds: 200,
        rounds_short: 3,
        run: |rounds, seed| with_nats(|| jetstream::proxy(rounds, seed)),
    },
    Fault {
        name: "nats-server",
        rounds: 200,
        rounds_short: 3,
        run: |rounds, seed| with_nats(|| jetstream::server(rounds, seed)),
    },
    Fault {
        name: "nats-leader",
        rounds: 200,
        rounds_short: 2,
        run: |rounds, seed| with_nats(|| jetstream::leader(rounds, seed)),
    },
    Fault {
        name: "nats-network",
        rounds: 20,
        rounds_short: 2,
        run: |rounds, seed| with_nats(|| jetstream::network(rounds, seed)),
    },
    Fault {
        name: "nats-stopped",
        rounds: 20,
        rounds_short: 1,
        run: |rounds, seed| with_nats(|| jetstream::stopped(rounds, seed)),
    },
    Fault {
        name: "nats-vanish",
        rounds: 10,
        rounds_short: 1,
        run: |rounds, seed| with_nats(|| jetstream::vanish(rounds, seed)),
    },
    Fault {
        name: "nats-shards",
        rounds: 40,
        rounds_short: 2,
        run: |rounds, seed| around_nats(around::shards, rounds, seed),
    },
    Fault {
        name: "nats-options",
        rounds: 40,
        rounds_short: 2,
        run: |rounds, seed| around_nats(around::options, rounds, seed),
    },
    Fault {
        name: "nats-letters",
        rounds: 20,
        rounds_short: 2,
        run: |rounds, seed| around_nats(around::letters, rounds, seed),
    },
    Fault {
        name: "nats-gone",
        rounds: 20,
        rounds_short: 1,
        run: |rounds, seed| around_nats(around::gone, rounds, seed),
    },
];

fn around_nats(
    run: fn(&Engine, u32, u64) -> Ledger,
    rounds: u32,
    seed: u64,
) -> Result<Ledger, &'static str> {
    with_nats(|| {
        let (_nats, engine) = jetstream::alone();
        run(&engine, rounds, seed)
    })
}

fn with_nats(run: impl FnOnce() -> Ledger) -> Result<Ledger, &'static str> {
    if nats_server::binary().is_file() {
        Ok(run())
    } else {
        Err(NO_NATS)
    }
}

/// What the command line asks for.
struct Wanted {
    names: Vec<String>,
    /// The long forms.
    is_long: bool,
    rounds: Option<u32>,
    seed: u64,
}

impl Wanted {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wanted = Self {
            names: Vec::new(),
            is_long: false,
            rounds: None,
            seed: 1,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let text = arguments.next().unwrap_or_default();
                text.parse::<u64>()
                    .map_err(|_| format!("{argument} takes a number, not {text:?}"))
            };
            match argument.as_str() {
                "--long" => wanted.is_long = true,
                "--rounds" => wanted.rounds = Some(u32::try_from(number()?).unwrap_or(u32::MAX)),
                "--seed" => wanted.seed = number()?,
                // Of the test programs beside this one.
                _ if argument.starts_with('-') && !wanted.is_long => {}
                name => wanted.names.push(name.to_owned()),
            }
        }
        let known = |name: &String| FAULTS.iter().any(|fault| fault.name == name.as_str());
        match wanted.names.iter().find(|name| !known(name)) {
            Some(name) if wanted.is_long => {
                let all: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
                Err(format!("no fault is called {name}: {}", all.join(", ")))
            }
            _ => Ok(wanted),
        }
    }

    fn has(&self, fault: &Fault) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name == fault.name)
    }
}

fn main() -> ExitCode {
    let wanted = match Wanted::parse(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(text) => {
            eprintln!("chaos: {text}");
            return ExitCode::from(2);
        }
    };
    examine::examine();
    joins::examine();
    let faults = FAULTS.iter().filter(|fault| wanted.has(fault));
    let (faults, next): (Vec<&'static Fault>, _) = (faults.collect(), AtomicUsize::new(0));
    // The short forms wait for timers, not for cores.
    let at_once = if wanted.is_long { 1 } else { AT_ONCE };
    let (tell, told) = channel();
    let mut broken = Vec::new();
    let verdicts: Vec<Verdict> = std::thread::scope(|scope| {
        for _ in 0..at_once {
            let (tell, faults, next, wanted) = (tell.clone(), &faults, &next, &wanted);
            scope.spawn(move || {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let (verdict, text) = run(fault, wanted);
                    tell.send((fault.name, verdict, text))
                        .expect("somebody listens");
                }
            });
        }
        drop(tell);
        let lines = told.iter().map(|(name, verdict, text)| {
            println!("{text}");
            if verdict == Verdict::Broken {
                broken.push((name, text));
            }
            verdict
        });
        lines.collect()
    });
    // As other test programs name what failed, so that whoever looks for it finds it.
    for (name, text) in &broken {
        println!("\n---- {name} stdout ----\n{text}");
    }
    if !broken.is_empty() {
        let names: Vec<&str> = broken.iter().map(|(name, _)| *name).collect();
        println!("\nfailures:\n    {}\n", names.join("\n    "));
    }
    let count = |wanted| verdicts.iter().filter(|one| **one == wanted).count();
    let (passed, failed) = (count(Verdict::Kept), count(Verdict::Broken));
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    ExitCode::from(u8::from(failed > 0))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Kept,
    Broken,
    /// Nobody can say on this machine.
    LeftOut,
}

/// Runs a fault; its line.
fn run(fault: &Fault, wanted: &Wanted) -> (Verdict, String) {
    let usual = if wanted.is_long {
        fault.rounds
    } else {
        fault.rounds_short
    };
    let rounds = wanted.rounds.unwrap_or(usual);
    let begun = now();
    let (run, seed) = (fault.run, wanted.seed);
    // A fault that fails in the midst of it is one broken promise, and the others still run.
    let outcome = std::thread::Builder::new()
        .name(fault.name.to_owned())
        .spawn(move || run(rounds, seed))
        .expect("a thread")
        .join();
    let head = format!(
        "{}: {rounds} rounds, seed {seed}, {:.0} s",
        fault.name,
        begun.elapsed().as_secs_f64()
    );
    match outcome {
        Ok(Ok(ledger)) if ledger.is_kept() => (Verdict::Kept, format!("{head}: {ledger}: kept")),
        Ok(Ok(ledger)) => {
            let broken = ledger.broken().join("\n    ");
            let text = format!("{head}: {ledger}: BROKEN\n    {broken}");
            (Verdict::Broken, text)
        }
        // Who may not mount has the full disk of the log's own tests only; everything else can be installed.
        Ok(Err(NO_MOUNT)) if !wanted.is_long => (
            Verdict::LeftOut,
            format!("{}: left out: {NO_MOUNT}", fault.name),
        ),
        Ok(Err(missing)) => (
            Verdict::Broken,
            format!("{}: not run: {missing}", fault.name),
        ),
        Err(_) => (Verdict::Broken, format!("{head}: BROKEN: see above")),
    }
}

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
#[path = "chaos/embedded.rs"]
mod embedded;
#[path = "chaos/jetstream.rs"]
mod jetstream;
#[path = "chaos/ledger.rs"]
mod ledger;
#[path = "chaos/link.rs"]
mod link;
#[path = "chaos/world.rs"]
mod world;

use std::process::ExitCode;

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

const NO_MOUNT: &str = "no file system can be mounted: root is needed";
const NO_FAKETIME: &str = "libfaketime is not installed (Debian package faketime)";
const NO_NATS: &str = "nats-server is neither on the PATH nor in GOPATH/bin";

const FAULTS: [Fault; 8] = [
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
];

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
    ledger::examine();
    let (mut passed, mut failed) = (0, 0);
    for fault in FAULTS.iter().filter(|fault| wanted.has(fault)) {
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
            Ok(Ok(ledger)) if ledger.is_kept() => {
                passed += 1;
                println!("{head}: {ledger}: kept");
            }
            Ok(Ok(ledger)) => {
                failed += 1;
                println!("{head}: {ledger}: BROKEN");
                ledger
                    .broken()
                    .iter()
                    .for_each(|text| println!("    {text}"));
            }
            // Who may not mount has the full disk of the log's own tests only; everything else can be installed.
            Ok(Err(NO_MOUNT)) if !wanted.is_long => {
                println!("{}: left out: {NO_MOUNT}", fault.name)
            }
            Ok(Err(missing)) => {
                failed += 1;
                println!("{}: not run: {missing}", fault.name);
            }
            Err(_) => {
                failed += 1;
                println!("{head}: BROKEN: see above");
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    ExitCode::from(u8::from(failed > 0))
}

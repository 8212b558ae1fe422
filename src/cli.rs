//! The command line, and how its options become settings of the configuration.

pub(crate) mod manual;
pub(crate) mod sources;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringmain::config::Setting;
use ringmain::reference;

/// Self-hosted edge proxy for realtime traffic.
#[derive(Debug, Parser)]
#[command(name = "ringmain", version = version(), about, long_about = None, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Configuration file. Without one ./ringmain.toml is taken; without that the environment, if it sets a key, and a
    /// development set-up otherwise
    #[arg(long, global = true, env = "RINGMAIN_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The version, and the commit where whoever built the program has said it in `RINGMAIN_COMMIT`.
pub(crate) fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| version_of(COMMIT));
    &TEXT
}

/// The commit that the program was built from; empty if nobody has said it.
pub(crate) const COMMIT: &str = match option_env!("RINGMAIN_COMMIT") {
    Some(commit) => commit,
    None => "",
};

fn version_of(commit: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match commit {
        "" => version.to_owned(),
        commit => format!("{version} ({commit})"),
    }
}

impl Cli {
    /// `ringmain --shards 2` means `ringmain serve --shards 2`; before another subcommand the options of `serve` mean nothing.
    pub(crate) fn into_command(self) -> Result<(Option<PathBuf>, Command), clap::Error> {
        let command = match self.command {
            None => Command::Serve(self.serve),
            Some(command) if self.serve == ServeArgs::default() => command,
            Some(_) => {
                let text =
                    "options of `serve` stand after `serve`, and no other command takes them here";
                return Err(<Self as clap::CommandFactory>::command()
                    .error(clap::error::ErrorKind::ArgumentConflict, text));
            }
        };
        Ok((self.config, command))
    }
}

/// Commands and options of Centrifugo, and what does the same here.
const CENTRIFUGO: &[(&[&str], &str)] = &[
    (
        &["genconfig"],
        "`ringmain` without a configuration makes a development set-up with secrets of its own; tuning/ringmain.example.toml is a configuration to begin with",
    ),
    (
        &["checkconfig"],
        "`ringmain check --config FILE`, and `ringmain import-centrifugo FILE` for a file of Centrifugo",
    ),
    (
        &["defaultconfig", "defaultenv", "configdoc"],
        "`ringmain check` prints every key with its value; RINGMAIN__TABLE__KEY sets one from the environment",
    ),
    (&["version"], "`ringmain --version`"),
    (&["gentoken"], "`ringmain token --user ID`"),
    (
        &["gensubtoken"],
        "`ringmain token --user ID --channel CHANNEL`",
    ),
    (
        &["checktoken", "checksubtoken"],
        "`ringmain token --check TOKEN`",
    ),
    (&["-c"], "`--config FILE`"),
    (
        &[
            "-p",
            "--port",
            "-a",
            "--address",
            "--http_server.port",
            "--http_server.address",
        ],
        "`--listen ADDRESS:PORT`, or server.listen in the configuration",
    ),
    (
        &[
            "--internal_port",
            "--internal_address",
            "--http_server.internal_port",
            "--http_server.internal_address",
        ],
        "server.internal_listen in the configuration, or RINGMAIN__SERVER__INTERNAL_LISTEN=ADDRESS:PORT",
    ),
    (
        &["--admin", "--admin.enabled"],
        "there is no web interface; `--admin ADDRESS:PORT` says where /health, /ready and /metrics are",
    ),
    (
        &["--health", "--health.enabled"],
        "health.enabled = true in the configuration, or RINGMAIN__HEALTH__ENABLED=true; it is always at admin.listen too",
    ),
    (
        &["--prometheus", "--prometheus.enabled"],
        "/metrics is always on, at admin.listen and server.internal_listen",
    ),
];

/// What to do instead of a command or option of Centrifugo that stands on the command line.
pub(crate) fn hint(arguments: &[String]) -> Option<String> {
    let named = |word: &str| {
        CENTRIFUGO
            .iter()
            .find(|(words, _)| words.contains(&word))
            .map(|(_, instead)| format!("`{word}` is Centrifugo's; here: {instead}"))
    };
    let option = |word: &str| {
        let name = word.strip_prefix("--")?;
        name.contains(['_', '.']).then(|| {
            format!(
                "`{word}` looks like an option of Centrifugo; `ringmain import-centrifugo --args \"{word} …\"` makes a configuration of its options"
            )
        })
    };
    let words = || {
        arguments
            .iter()
            .skip(1)
            .map(|word| word.split('=').next().unwrap_or(word))
    };
    words().find_map(named).or_else(|| words().find_map(option))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the proxy (the default)
    Serve(ServeArgs),
    /// Validate the configuration and print it as it is in force, secrets hidden
    Check,
    /// Print a token that the configured proxy accepts, or say why it accepts one or not
    Token(TokenArgs),
    /// Make a key for a service or an operator, and its hash for the configuration
    Key(KeyArgs),
    /// Look whether this host fits and what the running proxy lacks: limits, settings, drops, queue groups, and what helps
    Doctor(DoctorArgs),
    /// Pack what a maintainer asks for first into one file, without secrets
    SupportBundle(ringmain::tools::bundle::BundleArgs),
    /// Turn a configuration of Centrifugo 3 to 6 into one of ringmain, and say what has no equivalent
    ImportCentrifugo(ImportArgs),
    /// Look at dead letters of queue groups, retry or drop them
    Dlq(ringmain::tools::DlqArgs),
    /// Read durable channels again: write their events, or append them elsewhere
    Replay(Box<ringmain::tools::ReplayArgs>),
    /// Look at publications that wait for their time, cancel them or give them another one
    Scheduled(Box<ringmain::tools::ScheduledArgs>),
    /// Publish one payload, or lines of JSON from standard input
    Publish(ringmain::tools::PublishArgs),
    /// Print what is published to channels, as a client over WebSocket
    Subscribe(ringmain::tools::SubscribeArgs),
    /// Print publications of durable channels, the work of a group or dead letters, and go on as they come
    Tail(ringmain::tools::TailArgs),
    /// Publish what `replay`, `tail` or `log export` has written, where it was or into a channel of a sandbox
    Import(ringmain::tools::ImportArgs),
    /// Back up, restore, check, export and import the durable log
    Log(Box<ringmain::tools::LogArgs>),
    /// Look at queue groups
    Queue(ringmain::tools::QueueArgs),
    /// List, add and remove tenants of the running proxy
    Tenants(ringmain::tools::TenantsArgs),
    /// Ask the running proxy whether it runs, or whether it serves clients
    Health(ringmain::tools::HealthArgs),
    /// Drain the running proxy: its clients are told to come back elsewhere, and it ends. Prints what came of it
    Drain(ringmain::tools::DrainArgs),
    /// Generate load and measure
    Bench(Box<ringmain::bench::Args>),
    /// Plain WebSocket echo server on the same reactor, for conformance suites and benchmarks
    Echo(EchoArgs),
    /// Print a page for `man`, or write all of them
    Man(ManArgs),
    /// Print the script with which a shell completes commands and options
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the help of a command, or a page of the reference: configuration, options, metrics, codes, api, limits, commands
    Help {
        /// A command or a page; nothing lists them
        topic: Option<String>,
    },
}

/// What `ringmain help TOPIC` prints; `None` if there is no such topic.
pub(crate) fn help(topic: Option<&str>) -> Option<String> {
    let mut command = <Cli as clap::CommandFactory>::command();
    command.build();
    let Some(topic) = topic else {
        let mut out = command.render_long_help().to_string();
        out.push_str("\nPages of the reference, by `ringmain help PAGE`:\n");
        for page in &reference::PAGES {
            out.push_str(&format!("  {:<16} {}\n", page.name, page.about));
        }
        out.push_str(&format!("  {COMMANDS:<16} every command and option\n"));
        return Some(out);
    };
    if topic == COMMANDS {
        return Some(commands(&mut command));
    }
    if let Some(page) = reference::PAGES.iter().find(|page| page.name == topic) {
        return Some((page.page)());
    }
    let found = command.find_subcommand_mut(topic)?;
    Some(found.render_long_help().to_string())
}

/// The page of all commands.
const COMMANDS: &str = "commands";

fn commands(command: &mut clap::Command) -> String {
    fn one(out: &mut String, command: &mut clap::Command, depth: usize) {
        let name = command
            .get_bin_name()
            .unwrap_or_else(|| command.get_name())
            .to_owned();
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
        out.push_str(&format!(
            "\n{} `{name}`\n\n```text\n{}\n```\n",
            "#".repeat(depth),
            lines.join("\n")
        ));
        for below in command.get_subcommands_mut() {
            one(out, below, depth + 1);
        }
    }
    let mut out = String::from(
        "# Commands\n\nThis page lets you look up every command of the program with its options.\n\
         This page is made by the program: `ringmain help commands` prints it.\n",
    );
    one(&mut out, command, 2);
    out
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) shards: ShardArgs,
    /// Where clients connect: IP:PORT or unix:PATH. May be repeated
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<String>,
    /// Where /health, /ready and /metrics are; an empty text turns them off
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<String>,
    /// A drain takes no longer than this, such as 30s
    #[arg(long, value_name = "TIME")]
    pub(crate) drain_deadline: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct ShardArgs {
    /// Threads that serve clients; 0 means one for each allowed core
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u16>,
    /// What drives them
    #[arg(long, value_enum)]
    pub(crate) reactor: Option<Reactor>,
    /// Written once everything listens: JSON with the addresses and the reactor
    #[arg(long, value_name = "PATH")]
    pub(crate) ready_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    pub(crate) shards: ShardArgs,
    /// Agree to permessage-deflate as clients offer it: every window, with and without context takeover
    #[arg(long)]
    pub(crate) deflate: bool,
    /// Where clients connect: IP:PORT or unix:PATH. May be repeated
    #[arg(long, required = true, value_name = "ADDR")]
    pub(crate) listen: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reactor {
    /// io_uring where the kernel allows it
    Auto,
    /// io_uring or refuse to start
    Uring,
    /// epoll
    Portable,
}

/// Status 1 if something is wrong, 0 if there is nothing or advice only.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// One JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
    /// Look at the host and the configuration alone
    #[arg(long, conflicts_with_all = ["address", "key", "api_key"])]
    pub(crate) host_only: bool,
    #[command(flatten)]
    pub(crate) target: ringmain::tools::TargetArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The page to print: a command such as `token` or `dlq-list`, or `ringmain.toml` [default: that of the program]
    #[arg(conflicts_with = "output")]
    pub(crate) page: Option<String>,
    /// Write all pages into this directory instead
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// User id
    #[arg(long, value_name = "ID", required_unless_present = "check")]
    pub(crate) user: Option<String>,
    /// Say whether the configured proxy accepts this token, and why not. `-` reads it from standard input. Status 1 if it
    /// does not
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["user", "channel", "info", "consume"])]
    pub(crate) check: Option<String>,
    /// Make a subscription token for this channel
    #[arg(long, value_name = "CH")]
    pub(crate) channel: Option<String>,
    /// Life of the token: a number and s, m, h or d; 0 for no end
    #[arg(long, default_value = "1h", value_parser = expire, value_name = "TIME")]
    pub(crate) expire: Duration,
    /// Connection info (with --channel: subscription info), one JSON value
    #[arg(long, value_parser = json, value_name = "JSON")]
    pub(crate) info: Option<serde_json::Value>,
    /// Let its client consume a queue group from channels, both patterns; may be given several times
    #[arg(long, value_parser = consume, value_name = "GROUP=CHANNEL,…", conflicts_with = "channel")]
    pub(crate) consume: Vec<(String, Vec<String>)>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) action: KeyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyAction {
    /// Print a new key, which is shown this once, and below it its lines for [[http_api.keys]] or [[admin.keys]]
    New {
        /// Name of the key
        #[arg(long, value_parser = key_name, value_name = "NAME")]
        name: Option<String>,
    },
    /// Read a key from standard input, and print its lines for the configuration
    Hash {
        /// Name of the key
        #[arg(long, value_parser = key_name, value_name = "NAME")]
        name: Option<String>,
    },
}

fn key_name(text: &str) -> Result<String, &'static str> {
    let is_name = ringmain::config::access::is_name(text);
    is_name
        .then(|| text.to_owned())
        .ok_or("letters, digits, `-` and `_`, up to 64")
}

fn consume(text: &str) -> Result<(String, Vec<String>), String> {
    let (group, channels) = text
        .split_once('=')
        .filter(|(group, channels)| !group.is_empty() && !channels.is_empty())
        .ok_or("a group and its channels, such as billing=orders:*")?;
    let channels = channels.split(',').map(str::to_owned).collect();
    Ok((group.to_owned(), channels))
}

/// The configuration goes to standard output, what does not carry over, and why, to standard error.
///
/// Exit status: 0 everything came along, 3 something has no equivalent or is refused by ringmain (the rest came along),
/// 2 the input cannot be read, 1 nothing can be made of it, or a file cannot be written.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Centrifugo's configuration: .json, .yaml, .yml or .toml; any other name is tried as each; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["env", "args"])]
    pub(crate) file: Option<PathBuf>,
    /// Lay this process' CENTRIFUGO_… variables over the file
    #[arg(long)]
    pub(crate) env: bool,
    /// Options of Centrifugo's command line, which go over both: "--port 9000 --health"
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    pub(crate) args: Option<String>,
    /// For which version of Centrifugo all of it is, if its names are not to tell
    #[arg(long, value_name = "3|4|5|6", value_parser = clap::value_parser!(u8).range(3..=6))]
    pub(crate) centrifugo_version: Option<u8>,
    /// Name also the keys that are off, empty or at their default
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Write here instead of standard output. It holds the secrets of the input: only the owner may read it
    #[arg(long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite the output
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    /// Repeat what does not carry over as comments at the end of the output
    #[arg(long)]
    pub(crate) annotate: bool,
}

impl ServeArgs {
    /// Options as settings; they go over the environment, which goes over the file.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut settings = self.shards.settings();
        settings.extend(listen(&self.listen));
        settings.extend(
            self.admin
                .as_ref()
                .map(|text| setting("--admin", "admin.listen", text)),
        );
        settings.extend(
            self.drain_deadline
                .as_ref()
                .map(|text| setting("--drain-deadline", "drain.deadline", text)),
        );
        settings
    }
}

impl EchoArgs {
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut settings = self.shards.settings();
        settings.extend(listen(&self.listen));
        settings.push(setting("echo", "admin.listen", ""));
        if self.deflate {
            settings.push(setting("--deflate", "websocket.compression", "true"));
        }
        settings
    }
}

impl ShardArgs {
    fn settings(&self) -> Vec<Setting> {
        let shards = self
            .shards
            .map(|shards| setting("--shards", "server.shards", &shards.to_string()));
        let reactor = self.reactor.and_then(|reactor| reactor.to_possible_value());
        let reactor = reactor.map(|value| setting("--reactor", "server.reactor", value.get_name()));
        shards.into_iter().chain(reactor).collect()
    }
}

fn listen(addresses: &[String]) -> Option<Setting> {
    (!addresses.is_empty()).then(|| setting("--listen", "server.listen", &addresses.join(",")))
}

fn setting(origin: &str, key: &str, text: &str) -> Setting {
    Setting {
        origin: origin.to_owned(),
        key: key.to_owned(),
        text: text.to_owned(),
    }
}

fn expire(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "a number and s, m, h or d, or 0";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit = text.chars().last().ok_or(EXPECTED)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(EXPECTED),
    };
    let count: u32 = text[..text.len() - unit.len_utf8()]
        .parse()
        .map_err(|_| EXPECTED)?;
    Ok(Duration::from_secs(u64::from(count) * seconds))
}

fn json(text: &str) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Option<PathBuf>, Command), clap::Error> {
        Cli::try_parse_from(line.split(' '))?.into_command()
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_with_its_options() {
        for line in [
            "ringmain --shards 2 --listen a --listen b",
            "ringmain serve --shards 2 --listen a --listen b",
        ] {
            let (_, command) = parse(line).expect("a command");
            let Command::Serve(serve) = command else {
                panic!("{command:?}")
            };
            let settings: Vec<(String, String)> = serve
                .settings()
                .into_iter()
                .map(|setting| (setting.key, setting.text))
                .collect();
            let expected = [("server.shards", "2"), ("server.listen", "a,b")]
                .map(|(key, text)| (key.to_owned(), text.to_owned()));
            assert_eq!(settings, expected, "{line}");
        }
    }

    #[test]
    fn the_configuration_file_may_stand_before_and_after_the_command() {
        for line in [
            "ringmain --config x.toml check",
            "ringmain check --config x.toml",
        ] {
            let (config, command) = parse(line).expect("a command");
            assert_eq!(config.as_deref(), Some(std::path::Path::new("x.toml")));
            assert!(matches!(command, Command::Check));
        }
    }

    #[test]
    fn options_of_serve_before_another_command_are_refused() {
        assert_eq!(
            parse("ringmain --shards 2 check")
                .err()
                .map(|error| error.exit_code()),
            Some(2)
        );
        assert!(parse("ringmain --reactor fast").is_err());
        assert!(parse("ringmain echo").is_err());
    }

    #[test]
    fn import_needs_a_file_or_an_environment() {
        for line in [
            "import-centrifugo c.json --annotate",
            "import-centrifugo --env",
        ] {
            let (_, command) = parse(&format!("ringmain {line}")).expect("a command");
            assert!(matches!(command, Command::ImportCentrifugo(_)), "{line}");
        }
        assert!(parse("ringmain import-centrifugo").is_err());
        assert!(parse("ringmain import-centrifugo c.json --force").is_err());
    }

    #[test]
    fn commands_for_the_durable_log_are_read() {
        for line in [
            "dlq list --group g --json",
            "dlq show --group g 0198-x",
            "dlq retry --group g --all",
            "dlq drop --group g a b --address 127.0.0.1:1 --api-key k",
            "dlq list --class failed --channel orders:* --from -2h --to 2026-11-25T08:00:00Z --idempotency-key k --reason no",
            "dlq retry --group g --all --reason declined --to-group h",
            "dlq retry --group g a --data {} --to-channel orders:1",
            "dlq drop --group g --all --from -3d",
            "replay --channel orders:* --from -2h --to now --rate 100",
            "queue groups",
            "scheduled list --channel c --json",
            "scheduled cancel --channel c --idempotency-key k",
            "scheduled change --channel c 0198-x --to +15m",
        ] {
            assert!(parse(&format!("ringmain {line}")).is_ok(), "{line}");
        }
        for line in [
            "dlq retry --group g",
            "dlq drop --group g a --all",
            "dlq show a",
            "dlq retry --group g --all --data {}",
            "dlq retry --group g a --to-group h --to-channel c",
            "dlq list --from 17",
            "replay",
            "replay --channel a --into b:1 --into-group g",
            "replay --channel a --rate 0",
            "replay --channel a --from yesterday",
            "scheduled cancel --channel a",
            "scheduled cancel --channel a x --idempotency-key k",
            "scheduled change --channel a x --to soon",
        ] {
            let error = parse(&format!("ringmain {line}")).err();
            assert_eq!(error.map(|error| error.exit_code()), Some(2), "{line}");
        }
    }

    #[test]
    fn commands_and_options_of_centrifugo_are_met_with_ours() {
        for (line, instead) in [
            ("genconfig", "ringmain.example.toml"),
            ("checkconfig -c config.json", "ringmain check"),
            ("version", "--version"),
            ("gentoken -u 42", "token --user ID"),
            ("gensubtoken -u 42 -s news", "--channel"),
            ("checktoken x", "token --check TOKEN"),
            ("-c config.json", "--config"),
            ("--port=9000", "--listen"),
            ("serve --port 9000 --address 0.0.0.0", "--listen"),
            ("--admin", "no web interface"),
            ("--health", "health.enabled"),
            ("--client_insecure", "import-centrifugo"),
            ("--engine.type redis", "import-centrifugo"),
        ] {
            let line = format!("ringmain {line}");
            assert_eq!(
                parse(&line).err().map(|error| error.exit_code()),
                Some(2),
                "{line}"
            );
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let hint = hint(&words).expect(&line);
            assert!(hint.contains(instead), "{line}: {hint}");
        }
        for line in ["--never", "never", "--shards x"] {
            let words: Vec<String> = format!("ringmain {line}")
                .split(' ')
                .map(str::to_owned)
                .collect();
            assert_eq!(hint(&words), None, "{line}");
        }
    }

    #[test]
    fn the_version_has_the_commit_that_it_was_told() {
        assert_eq!(version_of(""), env!("CARGO_PKG_VERSION"));
        assert!(version_of("0123abc").ends_with(" (0123abc)"));
    }

    #[test]
    fn token_options_are_read() {
        let (_, command) =
            parse("ringmain token --user 42 --expire 90m --info {\"a\":1}").expect("a command");
        let Command::Token(token) = command else {
            panic!("{command:?}")
        };
        assert_eq!(
            (token.user.as_deref(), token.expire),
            (Some("42"), Duration::from_secs(5400))
        );
        assert!(parse("ringmain token").is_err());
        assert!(parse("ringmain token --check x").is_ok());
        assert!(parse("ringmain token --check x --user 42").is_err());
        assert_eq!(token.info, Some(serde_json::json!({ "a": 1 })));
        for wrong in ["", "1", "h", "1w", "-1s", "1é"] {
            assert!(expire(wrong).is_err(), "{wrong}");
        }
    }
}

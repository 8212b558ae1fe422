//! Arguments → configuration → kernel probe → mesh → shards → control → exit code.

mod cli;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use crossbeam_queue::ArrayQueue;
use ringmain::config::{Config, ListenAddr, Written};
use ringmain::control::first_run;
use ringmain::control::key;
use ringmain::control::tenants::{self, Tenancy};
use ringmain::control::token::{self, Checked, Claims};
use ringmain::control::{self, Supervisor, logging};
use ringmain::limits::SHARDS_TO_CONTROL_MAX;
use ringmain::mesh::bell::Doorbell;
use ringmain::mesh::control::{FromShard, ShardLink};
use ringmain::reactor::Chosen;
use ringmain::shard::{Door, Mode};
use ringmain::time::{Instant, Now};
use ringmain::upstream::bell::Bell;
use ringmain::upstream::bridge;
use ringmain::uring::inherited::Inherited;
use ringmain::uring::listen::{Bound, Terms};
use ringmain::{bench, doctor, import, reactor, tools};

use cli::sources::{Sources, environment, variables};
use cli::{Cli, Command, EchoArgs, ImportArgs, KeyAction, KeyArgs, ServeArgs, TokenArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The status for a log that no further start would read: `EX_DATAERR` of `sysexits.h`, as service managers show it.
const UNREADABLE_LOG: u8 = 65;

/// Why the program ends early.
enum Failure {
    /// Wrong usage or configuration: status 2.
    Usage(anyhow::Error),
    /// The durable log is damaged, foreign or of a later version: status 65.
    Log(anyhow::Error),
    /// While running: status 1.
    Running(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Running(error)
    }
}

fn main() -> ExitCode {
    let (config, command) = Cli::try_parse()
        .and_then(Cli::into_command)
        .unwrap_or_else(|error| refuse(&error));
    let status = match command {
        Command::Serve(args) => serve(config, &args),
        Command::Echo(args) => echo(&args),
        Command::Help { topic } => help(topic.as_deref()),
        Command::Man(args) => manual(&args),
        Command::Completions { shell } => shown(&cli::manual::completions(shell)),
        Command::Check => check(config),
        Command::Token(args) => mint(config, args),
        Command::Key(args) => make_key(&args),
        Command::Doctor(args) => diagnose(config, &args),
        Command::SupportBundle(args) => bundle(config, &args),
        Command::ImportCentrifugo(args) => import_centrifugo(&args),
        Command::Dlq(args) => {
            let address = &args.target().address;
            tool(config, address, |config| tools::dlq(config, &args))
        }
        Command::Scheduled(args) => {
            let address = &args.target().address;
            tool(config, address, |config| tools::scheduled(config, &args))
        }
        Command::Log(args) => log(config, &args),
        Command::Replay(args) => {
            let address = &args.target.address;
            tool(config, address, |config| tools::replay(config, &args))
        }
        Command::Tail(args) => tool(config, &args.target.address, |config| {
            tools::tail(config, &args)
        }),
        Command::Publish(args) => tool(config, &args.target.address, |config| {
            tools::publish(config, &args)
        }),
        Command::Import(args) => tool(config, &args.target.address, |config| {
            tools::import(config, &args)
        }),
        Command::Subscribe(args) => tool(config, &args.address, |config| {
            tools::subscribe(config, &args)
        }),
        Command::Queue(args) => {
            let address = &args.target().address;
            tool(config, address, |config| tools::queue(config, &args))
        }
        Command::Tenants(args) => tool(config, &args.target().address, |config| {
            tools::tenants(config, &args)
        }),
        Command::Health(args) => tool(config, &args.address, |config| tools::health(config, &args)),
        Command::Drain(args) => drain(config, &args),
        Command::Bench(args) => bench::run(&args).map_err(|error| Failure::Running(anyhow!(error))),
    };
    let (status, error) = match status {
        Ok(status) => return ExitCode::from(status),
        Err(Failure::Usage(error)) => (2, error),
        Err(Failure::Log(error)) => (UNREADABLE_LOG, error),
        Err(Failure::Running(error)) => (1, error),
    };
    eprintln!("ringmain: {}", told(&error));
    ExitCode::from(status)
}

/// Prints the help of a command or a page of the reference.
fn help(topic: Option<&str>) -> Result<u8, Failure> {
    let Some(text) = cli::help(topic) else {
        let topic = topic.unwrap_or_default();
        let text = format!("there is no help about `{topic}`; `ringmain help` lists what there is");
        return Err(Failure::Usage(anyhow!(text)));
    };
    shown(text.as_bytes())
}

/// Prints a text for people. Whoever reads it may have gone, as `head` does.
fn shown(text: &[u8]) -> Result<u8, Failure> {
    let _ = std::io::stdout().write_all(text);
    Ok(0)
}

fn manual(args: &cli::ManArgs) -> Result<u8, Failure> {
    if let Some(directory) = &args.output {
        let name = || directory.display().to_string();
        let count = cli::manual::write(directory).with_context(name)?;
        eprintln!("ringmain: {count} pages in {}", name());
        return Ok(0);
    }
    let page = cli::manual::page(args.page.as_deref()).context("the manual")?;
    let Some(page) = page else {
        let name = args.page.as_deref().unwrap_or_default();
        let text =
            format!("there is no page `{name}`; `ringmain man --output DIR` writes all of them");
        return Err(Failure::Usage(anyhow!(text)));
    };
    shown(&page)
}

/// Ends the process over its command line, or after its help.
fn refuse(error: &clap::Error) -> ! {
    if error.use_stderr() {
        let arguments: Vec<String> = std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        if let Some(hint) = cli::hint(&arguments) {
            eprintln!("ringmain: {hint}\n");
        }
    }
    error.exit()
}

/// An error with its causes. A cause that the text before it holds already is not told again.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn serve(path: Option<PathBuf>, args: &ServeArgs) -> Result<u8, Failure> {
    let supervisor = Supervisor::new().context("control")?;
    let sources = Sources::new(path, args.settings());
    let (written, secrets) = sources.written().map_err(Failure::Usage)?;
    let config = written.load(&[]);
    let config = config.map_err(|errors| Failure::Usage(anyhow!(errors)))?;
    let reread = Box::new(move || {
        let (written, _) = sources.written().map_err(|error| told(&error))?;
        Ok(written)
    });
    let announce = |config: &Config, listen: &[String]| -> anyhow::Result<Option<String>> {
        let Some(secrets) = &secrets else {
            return Ok(None);
        };
        let expires = unix_s() + first_run::TOKEN_LIFE.as_secs();
        let token = |user: &str| {
            let claims = Claims {
                user: user.to_owned(),
                expires: Some(expires),
                consume: vec![("*".to_owned(), vec!["*".to_owned()])],
                ..Claims::default()
            };
            token::mint(&config.client.token, &claims)
        };
        let tokens = [token(first_run::USER)?, token(first_run::OTHER_USER)?];
        let tokens = [&*tokens[0], &*tokens[1]];
        Ok(Some(first_run::welcome(listen, tokens, &secrets.api_key)))
    };
    run(
        supervisor,
        config,
        written,
        Mode::Proxy,
        args.shards.ready_file.clone(),
        reread,
        announce,
    )
}

fn echo(args: &EchoArgs) -> Result<u8, Failure> {
    let supervisor = Supervisor::new().context("control")?;
    let mut settings = environment();
    settings.extend(args.settings());
    let config = Config::load(&[], &settings).map_err(|errors| Failure::Usage(anyhow!(errors)))?;
    let reread = Box::new(|| Err("`ringmain echo` has no configuration".to_owned()));
    run(
        supervisor,
        config,
        Written::default(),
        Mode::Echo,
        args.shards.ready_file.clone(),
        reread,
        |_, _| Ok(None),
    )
}

/// Everything from the kernel probe on. `announce` gets the addresses with the ports the kernel gave.
fn run(
    mut supervisor: Supervisor,
    config: Config,
    written: Written,
    mode: Mode,
    ready_file: Option<PathBuf>,
    reread: control::Reread,
    announce: impl FnOnce(&Config, &[String]) -> anyhow::Result<Option<String>>,
) -> Result<u8, Failure> {
    let set_level = logging::install(&config.log);
    for doubt in config
        .doubts()
        .into_iter()
        .chain(config.ending_keys(unix_s()))
    {
        tracing::warn!("{doubt}");
    }
    let config = Arc::new(config);
    let of_start = Arc::clone(&config);
    let start = supervisor
        .prepare(move || Start::prepare(of_start, written, mode))
        .context("control")?;
    let Some(start) = start else {
        return Ok(0);
    };
    let Start {
        config,
        written,
        tenancy,
        reactor,
        shards,
        admin,
        configs,
        log,
        reports,
        bell,
        hook_bell,
    } = start?;
    let addresses = control::admin::Addresses {
        listen: shards.addresses(Door::Clients).map(display).collect(),
        internal: shards.addresses(Door::Internal).map(display).collect(),
        admin: admin
            .as_ref()
            .map_or_else(String::new, |bound| display(bound.address())),
    };
    let announcement = announce(&config, &addresses.listen)?;
    let (durable, log) = log.unzip();
    let links = shards.links.clone();
    // From here on whoever connects is served, and a signal finds somebody who obeys it.
    let admin = admin
        .map(|bound| control::admin::listen(&bound))
        .transpose()
        .map_err(|error| anyhow!("{error}"))?;
    shards.launch().map_err(|error| anyhow!("{error}"))?;
    let parts = control::Parts {
        configs,
        durable,
        config,
        written,
        tenancy,
        links,
        reports,
        bell,
        hook_bell,
        admin,
        reactor: match reactor {
            Chosen::Uring(_) => "uring",
            Chosen::Portable => "portable",
        },
        addresses,
        ready_file,
        announcement,
        reread,
        set_level,
    };
    let ending = supervisor.run(parts).context("control")?;
    if let Some((stop, thread)) = log {
        // It may have ended already.
        let _ = stop.send(());
        let _ = thread.join();
    }
    Ok(ending.status())
}

/// What stands before anybody is accepted.
struct Start {
    /// With the tenants that the log keeps.
    config: Arc<Config>,
    written: Written,
    tenancy: Tenancy,
    reactor: Chosen,
    shards: reactor::Prepared,
    admin: Option<Bound>,
    configs: tokio::sync::watch::Sender<Arc<Config>>,
    log: Option<(control::Durable, LogEnd)>,
    reports: Arc<ArrayQueue<FromShard>>,
    bell: Arc<Bell>,
    hook_bell: Arc<Bell>,
}

impl Start {
    /// Addresses are taken before the log is opened, and listened on after it: who finds either in use has disturbed nobody.
    fn prepare(config: Arc<Config>, written: Written, mode: Mode) -> Result<Self, Failure> {
        let (shards, cores) = shards_and_cores(&config)?;
        let (reactor, refusal) = reactor::choose(&config, shards).context("server.reactor")?;
        if let Some(refusal) = refusal {
            tracing::warn!(%refusal, "io_uring is refused: the portable reactor serves");
        }
        let terms = Terms {
            key: "admin.listen",
            backlog: control::admin::BACKLOG,
            shared: false,
            only_v6: false,
            mode: config.admin.unix_mode,
            group: config.admin.unix_group.clone(),
        };
        let mut inherited =
            Inherited::take().map_err(|error| Failure::Usage(anyhow!("{error}")))?;
        let admin = inherited
            .bind(config.admin.listen.as_slice(), 1, &terms)
            // Its text names the cause already.
            .map_err(|error| anyhow!("{error}"))?
            .pop();
        let no_randomness = |_| anyhow!("the kernel gives no randomness");
        let seed = getrandom::u64().map_err(no_randomness)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(no_randomness)?;
        let plan = reactor::Plan {
            config: Arc::clone(&config),
            mode,
            reactor,
            shards,
            cores,
            seed,
            key,
            inherited,
        };
        let reports = Arc::new(ArrayQueue::new(SHARDS_TO_CONTROL_MAX));
        let [bell, hook_bell, log_bell] = [(); 3].map(|()| Arc::new(Bell::default()));
        let ring = |bell: &Arc<Bell>| -> Arc<dyn Doorbell> { Arc::<Bell>::clone(bell) };
        let shards = reactor::prepare(
            plan,
            Arc::clone(&reports),
            ring(&bell),
            ring(&hook_bell),
            ring(&log_bell),
        )
        .map_err(|error| match error {
            reactor::StartError::Inherit(error) => Failure::Usage(anyhow!("{error}")),
            error => Failure::Running(anyhow!("{error}")),
        })?;
        let (configs, follow) = tokio::sync::watch::channel(Arc::clone(&config));
        let log = open_log(&config, &shards.links, log_bell, follow)?;
        let values = log.as_ref().map(|(durable, _)| &durable.values);
        let (config, tenancy) = tenants::at_start(&written, config, values, &shards.links);
        configs.send_replace(Arc::clone(&config));
        Ok(Self {
            config,
            written,
            tenancy,
            reactor,
            shards,
            admin,
            configs,
            log,
            reports,
            bell,
            hook_bell,
        })
    }
}

/// Stops the bridge, and waits for its end.
type LogEnd = (
    tokio::sync::oneshot::Sender<()>,
    std::thread::JoinHandle<()>,
);

/// Opens the durable log, if some namespace needs it.
fn open_log(
    config: &Arc<Config>,
    links: &[ShardLink],
    bell: Arc<Bell>,
    configs: tokio::sync::watch::Receiver<Arc<Config>>,
) -> Result<Option<(control::Durable, LogEnd)>, Failure> {
    /// Questions that may wait for the bridge.
    const ASKS_QUEUED: usize = 64;
    if !config.is_durable() {
        return Ok(None);
    }
    let (ask, questions) = tokio::sync::mpsc::channel(ASKS_QUEUED);
    let (copy, copies) = tokio::sync::mpsc::channel(1);
    let (keep, values) = tokio::sync::mpsc::channel(1);
    let (call, hooks) = tokio::sync::mpsc::channel(ASKS_QUEUED);
    let (push, pushes) = tokio::sync::mpsc::channel(ASKS_QUEUED);
    let ends = links.iter().map(|link| bridge::ShardEnd {
        link: link.durable.clone(),
        bell: Arc::clone(&link.bell),
    });
    let bridge = bridge::start(bridge::Parts {
        config: Arc::clone(config),
        shards: ends.collect(),
        bell,
        owner: ringmain::broker::owner::owner_of,
        configs,
        questions,
        copies,
        values,
        hooks: call,
        pushes: push,
    })
    .map_err(|error| match &error {
        of if of.is_of_configuration() => Failure::Usage(anyhow!(error)),
        of if of.is_lasting() => Failure::Log(anyhow!(error)),
        _ => Failure::Running(anyhow!(error)),
    })?;
    let durable = control::Durable {
        report: bridge.report,
        questions: ask,
        copies: copy,
        values: keep,
        hooks,
        pushes,
    };
    Ok(Some((durable, (bridge.stop, bridge.thread))))
}

/// How many shards there are, and which core each is pinned to.
fn shards_and_cores(config: &Config) -> Result<(u16, Vec<usize>), Failure> {
    if let Some(core) = config.server.cores.iter().find(|&&core| !may_pin(core)) {
        return Err(Failure::Usage(anyhow!(
            "server.cores: no thread of this process may run on core {core}"
        )));
    }
    let cores = if config.server.cores.is_empty() {
        let allowed = core_affinity::get_core_ids().unwrap_or_default();
        allowed.iter().map(|core| core.id).collect()
    } else {
        config.server.cores.clone()
    };
    let shards = match config.server.shards {
        0 => u16::try_from(cores.len().clamp(1, ringmain::limits::SHARDS_MAX)).unwrap_or(1),
        shards => shards,
    };
    Ok((shards, cores))
}

/// Tried on a thread of its own: the mask that the process was started with says less than the kernel, which lets a
/// thread leave it as long as the cpuset has the core.
fn may_pin(core: usize) -> bool {
    /// Cores in a `cpu_set_t`.
    const CORES_MAX: usize = 1024;
    let pin = move || core_affinity::set_for_current(core_affinity::CoreId { id: core });
    core < CORES_MAX && std::thread::spawn(pin).join().unwrap_or(false)
}

fn check(path: Option<PathBuf>) -> Result<u8, Failure> {
    let sources = Sources::new(path, Vec::new());
    let (config, _) = sources.read().map_err(Failure::Usage)?;
    shards_and_cores(&config)?;
    let unusable = ringmain::upstream::schema::unusable(&config);
    if !unusable.is_empty() {
        let lines = unusable
            .iter()
            .map(|(key, fault)| format!("`{key}`: {fault}"));
        let lines: Vec<String> = lines.collect();
        return Err(Failure::Usage(anyhow!(lines.join("\n"))));
    }
    let from = sources.name();
    print(&format!("# from {from}\n{}", config.effective()))?;
    let ending = config.ending_keys(unix_s());
    let doubts = config.doubts().into_iter().chain(ending);
    for doubt in doubts.chain(doctor::places(&config)) {
        eprintln!("ringmain: warning: {doubt}");
    }
    eprintln!("ringmain: {from}: fine");
    Ok(0)
}

fn mint(path: Option<PathBuf>, args: TokenArgs) -> Result<u8, Failure> {
    let sources = Sources::new(path, Vec::new());
    let (config, _) = sources.read().map_err(Failure::Usage)?;
    if let Some(token) = &args.check {
        return check_token(&config, token);
    }
    let rules = if args.channel.is_some() {
        &config.client.subscription_token
    } else {
        &config.client.token
    };
    let expires = (!args.expire.is_zero()).then(|| unix_s() + args.expire.as_secs());
    let claims = Claims {
        user: args.user.unwrap_or_default(),
        channel: args.channel,
        expires,
        info: args.info,
        consume: args.consume,
    };
    let token = token::mint(rules, &claims).map_err(|error| Failure::Usage(anyhow!(error)))?;
    print(&format!("{token}\n"))?;
    Ok(0)
}

fn make_key(args: &KeyArgs) -> Result<u8, Failure> {
    let wrong = |error: key::KeyError| Failure::Usage(anyhow!(error));
    match &args.action {
        KeyAction::New { name } => {
            let fresh = key::fresh().map_err(|error| Failure::Running(anyhow!(error)))?;
            let lines = key::lines(name.as_deref(), &fresh);
            print(&format!("{fresh}\n{lines}"))?;
            eprintln!(
                "ringmain: the first line is the key, for who uses it: it is shown this once. The rest goes below [[http_api.keys]] or [[admin.keys]]"
            );
        }
        KeyAction::Hash { name } => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .take(key::LONGEST as u64 + 3)
                .read_to_end(&mut bytes)
                .context("standard input")?;
            let given = key::given(&bytes).map_err(wrong)?;
            print(&key::lines(name.as_deref(), given))?;
        }
    }
    Ok(0)
}

/// The verdict goes to standard output; status 1 is for a token that nobody gets in with.
fn check_token(config: &Config, token: &str) -> Result<u8, Failure> {
    let mut text = token.to_owned();
    if token == "-" {
        text.clear();
        let most = ringmain::limits::TOKEN_BYTES_MAX as u64 + 2;
        let mut input = std::io::stdin().take(most);
        input.read_to_string(&mut text).context("standard input")?;
        text.truncate(text.trim_end().len());
    }
    let now = Now {
        at: Instant::START,
        unix_ms: unix_s() * 1000,
    };
    let (line, status) = match token::check(config, &text, now) {
        Checked::Counts(said) => (format!("accepted: {}", said.join(", ")), 0),
        Checked::Unsigned(reason) => (format!("not to be told here: {reason}"), 1),
        Checked::Refused(reason) => (format!("refused: {reason}"), 1),
    };
    print(&format!("{line}\n"))?;
    Ok(status)
}

fn diagnose(path: Option<PathBuf>, args: &cli::DoctorArgs) -> Result<u8, Failure> {
    let config = Sources::new(path, environment())
        .configuration(&args.target.address)
        .map_err(Failure::Usage)?;
    let findings = if args.host_only {
        tools::examination::host(&config)
    } else {
        tools::examination::whole(&config, &args.target).findings
    };
    let mut out = std::io::stdout().lock();
    let printed = if args.json {
        writeln!(out, "{}", doctor::json(&findings))
    } else {
        doctor::print(&findings, &mut out)
    };
    printed.context("standard output")?;
    Ok(u8::from(doctor::has_problem(&findings)))
}

fn bundle(path: Option<PathBuf>, args: &tools::bundle::BundleArgs) -> Result<u8, Failure> {
    let about = tools::bundle::About {
        version: cli::version().to_owned(),
        source: Sources::new(path.clone(), Vec::new()).name(),
        variables: std::env::vars_os()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect(),
    };
    tool(path, &args.target.address, |config| {
        tools::bundle::write(config, &about, args)
    })
}

/// Runs a command that asks a running server, which an argument or the configuration names.
fn tool(
    path: Option<PathBuf>,
    address: &Option<String>,
    run: impl FnOnce(&Config) -> Result<(), tools::ToolError>,
) -> Result<u8, Failure> {
    let config = Sources::new(path, Vec::new())
        .configuration(address)
        .map_err(Failure::Usage)?;
    run_tool(&config, run)
}

/// Drains a running proxy. The status tells how that ended.
fn drain(path: Option<PathBuf>, args: &tools::DrainArgs) -> Result<u8, Failure> {
    let mut status = 0;
    tool(path, &args.target.address, |config| {
        status = tools::drain(config, args)?;
        Ok(())
    })?;
    Ok(status)
}

/// Runs a command that has to do with the durable log.
fn log(path: Option<PathBuf>, args: &tools::LogArgs) -> Result<u8, Failure> {
    let run = |config: &Config| tools::log(config, args);
    if args.needs_configuration() {
        let address = args.target().and_then(|target| target.address.clone());
        return tool(path, &address, run);
    }
    let config = Sources::new(path, Vec::new()).read_if_there();
    run_tool(&config.unwrap_or_else(Config::built_in), run)
}

fn run_tool(
    config: &Config,
    run: impl FnOnce(&Config) -> Result<(), tools::ToolError>,
) -> Result<u8, Failure> {
    run(config).map(|()| 0).map_err(|error| {
        if error.is_usage() {
            Failure::Usage(anyhow!(error))
        } else {
            Failure::Running(anyhow!(error))
        }
    })
}

fn import_centrifugo(args: &ImportArgs) -> Result<u8, Failure> {
    let name = args.file.as_ref().map(|path| match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    });
    let bytes = match &args.file {
        None => Vec::new(),
        Some(path) => read_bounded(path).map_err(Failure::Usage)?,
    };
    let variables = if args.env { variables() } else { Vec::new() };
    let name = name.unwrap_or_default();
    let imported = import::import(&import::Input {
        name: &name,
        bytes: &bytes,
        format: import::Format::of_name(&name),
        variables: &variables,
        arguments: args.args.as_deref().unwrap_or_default(),
        version: args.centrifugo_version.and_then(import::Version::of_number),
    });
    let imported = imported.map_err(|error| match error {
        error @ import::ImportError::Unreadable { .. } => Failure::Usage(anyhow!(error)),
        error @ import::ImportError::Refused { .. } => Failure::Running(anyhow!(error)),
    })?;
    let text = if args.annotate {
        imported.annotated()
    } else {
        imported.toml.clone()
    };
    match &args.output {
        Some(path) => {
            write_secret(path, &text, args.force).with_context(|| path.display().to_string())?
        }
        None => print(&text)?,
    }
    eprint!("{}", imported.report(args.verbose));
    Ok(if imported.is_whole() { 0 } else { 3 })
}

/// One byte more than a configuration may have, so that the importer can say that it is too large.
fn read_bounded(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = || path.display().to_string();
    let file: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(name)?)
    };
    let mut bytes = Vec::new();
    file.take(import::BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(name)?;
    Ok(bytes)
}

/// Writes a file that only its owner may read, as it holds secrets.
fn write_secret(path: &Path, text: &str, overwrite: bool) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(0o600);
    if overwrite {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}

fn display(address: &ListenAddr) -> String {
    address.to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the life of a token is counted from the wall clock, and this is no core module"
)]
fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

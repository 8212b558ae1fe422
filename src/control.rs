//! The control thread: supervises the shards, answers the admin listener, obeys signals.
//!
//! It shares queues and immutable values with the shards and nothing else. Everything here may be slow; nothing here is on the way of a
//! publication.

pub mod admin;
mod clock;
mod drain;
pub mod first_run;
pub mod hooks;
mod http_client;
mod jwks;
pub mod key;
mod log_hooks;
pub mod logging;
mod observe;
pub mod process;
pub mod prometheus;
mod roster;
mod service;
mod stage;
mod strain;
pub mod tenants;
pub mod token;

use std::future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use crate::config::durable::Engine;
use crate::config::keys::{KeySet, KeySource};
use crate::config::{Config, ReactorChoice, Server, Written};
use crate::doctor;
use crate::limits::{CONTROL_TO_SHARD_MAX, SCRAPES_MAX};
use crate::mesh::control::{
    ControlPage, DrainOutcome, FromShard, PageFor, PageKind, ShardLink, Strain, TableKind, ToShard,
};
use crate::model::ShardId;
use crate::upstream::bell::Bell;
use crate::upstream::bridge::{
    CopyWanted, HookCall, PushCall, Question as LogQuestion, Report as LogReport, ValueAsk,
};
use crate::uring::socket;

use admin::{Addresses, Admin, Listening, Phase, Readiness};
use drain::Begun;
use hooks::Hooks;

use observe::{Gather, Question};
use process::Reload;
use roster::Roster;
use service::Service;
use stage::{Stage, Wish};
use strain::{Line, Strains};
use tenants::{Keeper, Tenancy};

/// A shard that does not report its counters within this time is reported as silent.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Places of a shard's queue kept for what must arrive: `Drain` and `Stop`.
const QUEUE_RESERVE: usize = 8;
/// Keys and pages that found a shard's queue full are offered again after this.
const RETRY: Duration = Duration::from_millis(100);

const _: () = assert!(
    QUEUE_RESERVE < CONTROL_TO_SHARD_MAX / 2,
    "observations use the lower half of the queue, reloads all but the reserve"
);

/// Reads the texts of the configuration again, where they first came from. The text of a failure names the file.
pub type Reread = Box<dyn Fn() -> Result<Written, String>>;

/// What control is made of.
pub struct Parts {
    /// The configuration the shards were started with.
    pub config: Arc<Config>,
    /// What it was made of, but for the tenants that the log keeps.
    pub written: Written,
    /// Those.
    pub tenancy: Tenancy,
    /// One line to each shard, in the order of their ids.
    pub links: Vec<ShardLink>,
    /// What the shards report.
    pub reports: Arc<ArrayQueue<FromShard>>,
    /// Rung by the shards after a report.
    pub bell: Arc<Bell>,
    /// Rung by the shards after a call to a backend.
    pub hook_bell: Arc<Bell>,
    /// The admin listener; `None` when it is off.
    pub admin: Option<Listening>,
    /// `uring` or `portable`.
    pub reactor: &'static str,
    /// Where clients, and services and probes, connect, with the ports the kernel gave.
    pub addresses: Addresses,
    /// Written once every shard is ready.
    pub ready_file: Option<PathBuf>,
    /// Printed to standard output once every shard is ready.
    pub announcement: Option<String>,
    /// For SIGHUP.
    pub reread: Reread,
    /// What is in force, for those who follow it.
    pub configs: watch::Sender<Arc<Config>>,
    /// The durable log; `None` without one.
    pub durable: Option<Durable>,
    /// Follows `log.level` after a reload.
    pub set_level: logging::SetLevel,
}

impl Parts {
    /// The server as it runs: so many shards on that reactor.
    fn in_force(&self) -> Server {
        let is_portable = self.reactor == "portable";
        Server {
            shards: u16::try_from(self.links.len()).unwrap_or(u16::MAX),
            reactor: if is_portable {
                ReactorChoice::Portable
            } else {
                ReactorChoice::Uring
            },
            ..self.config.server.clone()
        }
    }
}

/// Control's end of the line to the durable log.
pub struct Durable {
    /// How it does.
    pub report: watch::Receiver<LogReport>,
    /// Questions of the admin listener.
    pub questions: mpsc::Sender<LogQuestion>,
    /// Copies that the admin listener wants.
    pub copies: mpsc::Sender<CopyWanted>,
    /// What control keeps there.
    pub values: mpsc::Sender<ValueAsk>,
    /// Hooks that it wants called.
    pub hooks: mpsc::Receiver<HookCall>,
    /// Deliveries that it wants posted.
    pub pushes: mpsc::Receiver<PushCall>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every shard drained; status 0 unless something accepted was not acknowledged.
    Drained(DrainOutcome),
    /// A shard failed, or did not report in time.
    Failed,
    /// A second signal.
    Aborted,
}

impl Ending {
    /// Exit status: 0 fine, 1 failure while running.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Drained(outcome) if outcome.unacked == 0 => 0,
            Self::Drained(_) | Self::Failed | Self::Aborted => 1,
        }
    }
}

/// The control thread before there is something to supervise: its runtime, and what signals ask for. Made first of all, so
/// that from then on no signal ends the process otherwise than in order.
pub struct Supervisor {
    runtime: tokio::runtime::Runtime,
    signals: Signals,
    /// A reload was asked for while there was nothing to reload.
    reload: bool,
}

impl Supervisor {
    /// Takes the signals.
    ///
    /// # Errors
    /// When the runtime or the signals cannot be set up.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let signals = {
            let _inside = runtime.enter();
            Signals::install()?
        };
        Ok(Self {
            runtime,
            signals,
            reload: false,
        })
    }

    /// Lets another thread prepare what is to be supervised. `None` when the process was told to end meanwhile: nobody
    /// was accepted yet, so there is nobody to tell.
    ///
    /// # Errors
    /// When there is no such thread, or it panicked.
    pub fn prepare<T: Send + 'static>(
        &mut self,
        prepare: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Option<T>> {
        let (done, mut prepared) = oneshot::channel();
        let prepare = move || drop(done.send(prepare()));
        std::thread::Builder::new()
            .name("start".to_owned())
            .spawn(prepare)?;
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    biased;
                    word = self.signals.next() => match word {
                        Word::Reload => self.reload = true,
                        Word::End(signal) => {
                            info!(signal, "ended while starting");
                            return Ok(None);
                        }
                    },
                    done = &mut prepared => {
                        let panicked = |_| io::Error::other("the start ended in a panic");
                        return done.map(Some).map_err(panicked);
                    }
                }
            }
        })
    }

    /// Supervises until the process may end, on the calling thread.
    ///
    /// # Errors
    /// When the ready file cannot be written.
    pub fn run(self, parts: Parts) -> io::Result<Ending> {
        let Self {
            runtime,
            signals,
            reload,
        } = self;
        let ending = runtime.block_on(supervise(parts, signals, reload));
        Service::of_environment().closing();
        ending
    }
}

async fn supervise(parts: Parts, mut signals: Signals, reload: bool) -> io::Result<Ending> {
    let (questions_in, mut questions) = mpsc::channel(SCRAPES_MAX);
    let (fetched_in, mut fetched) = mpsc::channel(jwks::RESULTS_QUEUED);
    for cut in strain::at_start(doctor::examine(&parts.in_force())) {
        info!("{cut}");
    }
    let mut control = Control::new(parts);
    control
        .key_services
        .insert(jwks::Services::new(fetched_in))
        .follow(&control.parts.config);
    let (asked_in, asked) = mpsc::channel(SCRAPES_MAX);
    let durable = control.parts.durable.take();
    let (durable, pushes) = match durable {
        Some(mut durable) => {
            // Where there is no log, nothing is pushed.
            let pushes = std::mem::replace(&mut durable.pushes, mpsc::channel(1).1);
            (Some(durable), pushes)
        }
        None => (None, mpsc::channel(1).1),
    };
    tokio::spawn(hooks::run(
        Hooks::new(&control.parts.config, &control.parts.links),
        Arc::clone(&control.parts.hook_bell),
        control.parts.configs.subscribe(),
        asked,
        pushes,
    ));
    let (wanted_in, mut tenants_wanted) = mpsc::channel(1);
    let tenancy = control.tenancy.subscribe();
    let changes = durable.as_ref().map(|durable| {
        let (changes, asked) = mpsc::channel(SCRAPES_MAX);
        let keeper = Keeper {
            values: durable.values.clone(),
            wanted: wanted_in,
            tenancy: tenancy.clone(),
            is_shared: control.parts.config.durable.engine == Engine::Nats,
        };
        tokio::spawn(keeper.run(asked));
        changes
    });
    let log = durable.map(|durable| {
        let configs = control.parts.configs.subscribe();
        tokio::spawn(log_hooks::run(durable.hooks, configs));
        admin::Log {
            report: durable.report,
            questions: durable.questions,
            copies: durable.copies,
        }
    });
    let (pages_in, mut pages) = mpsc::unbounded_channel();
    let (drains_in, mut drains) = mpsc::channel(SCRAPES_MAX);
    control.pages = Some(Pages {
        admin: Admin {
            config: control.parts.configs.subscribe(),
            readiness: control.readiness.subscribe(),
            questions: questions_in,
            hooks: asked_in,
            drains: drains_in,
            log,
            tenants: admin::TenantsLine { tenancy, changes },
        },
        written: pages_in,
    });
    let mut listens = None;
    if let Some(pages) = &control.pages {
        tokio::spawn(service::attend(control.service, pages.admin.clone()));
        if let Some(listener) = control.parts.admin.take() {
            let closing = control.closing.subscribe();
            listens = Some(tokio::spawn(admin::serve(
                listener,
                pages.admin.clone(),
                closing,
            )));
        }
    }
    if reload {
        control.reload();
    }
    loop {
        let bell = Arc::clone(&control.parts.bell);
        tokio::select! {
            biased;
            word = signals.next() => {
                if let Some(ending) = control.obey(word) {
                    return Ok(ending);
                }
            }
            () = bell.rung() => {}
            Some(question) = questions.recv() => control.ask(question),
            Some((source, set)) = fetched.recv() => control.spread(source, set),
            Some(page) = pages.recv() => control.deliver_page(page),
            Some(wanted) = drains.recv() => control.drain_wanted(wanted),
            Some(wanted) = tenants_wanted.recv() => control.tenants_wanted(wanted),
            () = until(control.deadline()) => {}
        }
        control.collect()?;
        if let Some(ending) = control.expire(Instant::now()) {
            // Nobody answers these any more.
            drop(questions);
            control.report_drain(ending).await;
            // A second begins with one that came in time.
            while let Ok(wanted) = drains.try_recv() {
                control.drain_wanted(wanted);
            }
            control.close_admin(listens).await;
            return Ok(ending);
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => future::pending().await,
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    End(&'static str),
    Reload,
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Word {
        tokio::select! {
            _ = self.term.recv() => Word::End("SIGTERM"),
            _ = self.int.recv() => Word::End("SIGINT"),
            _ = self.hup.recv() => Word::Reload,
        }
    }
}

struct Control {
    parts: Parts,
    roster: Roster,
    strains: Strains,
    gather: Option<Gather>,
    /// When the notice of the end is over; set until then.
    notice_until: Option<Instant>,
    /// When shards that have not drained are given up; set while draining.
    drain_until: Option<Instant>,
    /// The drain under way.
    begun: Option<Begun>,
    /// How far it is, for whoever waits for its end.
    stage: watch::Sender<Stage>,
    /// The admin listener ends: what is under way there is answered.
    closing: watch::Sender<bool>,
    readiness: watch::Sender<Readiness>,
    /// Where public keys of tokens come from; `None` before the runtime runs.
    key_services: Option<jwks::Services>,
    /// What the services said last, for shards (by index) whose queue was full.
    keys_undelivered: Vec<(usize, KeySource, Option<Arc<KeySet>>)>,
    retry: Option<Instant>,
    /// Writes pages for those who ask at the shards; `None` before the runtime runs.
    pages: Option<Pages>,
    /// Pages for shards whose queue was full.
    pages_undelivered: Vec<WrittenPage>,
    service: Service,
    /// Tenants that the log keeps.
    tenancy: watch::Sender<Tenancy>,
    /// The next configuration, if it was asked for.
    checked: Option<tenants::Checked>,
    /// Who waits for all shards.
    awaited: Vec<tenants::Awaited>,
}

/// A page for a request at a shard.
type WrittenPage = (ShardId, PageFor, ControlPage);

/// Who writes pages, and where they go. A shard awaits `PAGES_MAX` of them at most.
struct Pages {
    admin: Admin,
    written: mpsc::UnboundedSender<WrittenPage>,
}

impl Control {
    fn new(mut parts: Parts) -> Self {
        let tenancy = watch::Sender::new(std::mem::take(&mut parts.tenancy));
        for (at, link) in parts.links.iter().enumerate() {
            assert_eq!(
                usize::from(link.shard.0),
                at,
                "links come in the order of the shards"
            );
        }
        let roster = Roster::new(parts.links.len());
        let descriptors = socket::descriptors_max();
        let strains = Strains::new(parts.links.len(), &parts.config.server, descriptors);
        let readiness = Readiness {
            phase: Phase::Starting,
            shards: parts.links.len(),
            shards_ready: 0,
            reactor: parts.reactor,
            filling: [0; TableKind::ALL.len()],
            warnings: Vec::new(),
            reload: Reload {
                taken_unix_s: process::unix_s(),
                refused: None,
            },
        };
        Self {
            parts,
            roster,
            strains,
            gather: None,
            notice_until: None,
            drain_until: None,
            begun: None,
            stage: watch::Sender::default(),
            closing: watch::Sender::new(false),
            readiness: watch::Sender::new(readiness),
            key_services: None,
            keys_undelivered: Vec::new(),
            retry: None,
            pages: None,
            pages_undelivered: Vec::new(),
            service: Service::of_environment(),
            tenancy,
            checked: None,
            awaited: Vec::new(),
        }
    }

    fn obey(&mut self, word: Word) -> Option<Ending> {
        match word {
            Word::Reload => {
                self.reload();
                None
            }
            Word::End(signal) => self.end_by(signal),
        }
    }

    fn reload(&mut self) {
        if self.is_ending() {
            warn!("reload refused: draining");
            self.service.reload_refused_at_the_end();
            return;
        }
        // Nobody was told that it is ready yet.
        let is_told = self.readiness.borrow().phase == Phase::Serving;
        if is_told {
            self.service.reloading();
        }
        let refused = self.try_reload().err();
        match &refused {
            None => info!("configuration reloaded"),
            Some(reason) => warn!(%reason, "reload refused"),
        }
        if is_told {
            self.service.reloaded(refused.as_deref());
        }
        self.readiness.send_modify(|readiness| {
            if refused.is_none() {
                readiness.reload.taken_unix_s = process::unix_s();
            }
            readiness.reload.refused = refused.map(Arc::from);
        });
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let written = (self.parts.reread)()?;
        let next = self.with_kept(&written)?;
        self.parts.written = written;
        (self.parts.set_level)(&next.log);
        for ending in next.ending_keys(clock::unix_s()) {
            warn!("{ending}");
        }
        Ok(())
    }

    /// A configuration with what is counted for the tenants of the one in force.
    fn going_on(&self, mut next: Config) -> Config {
        next.channels.inherit_quotas(&self.parts.config.channels);
        next
    }

    /// Has everybody work with a configuration that was checked.
    fn take(&mut self, next: Arc<Config>) -> Result<(), String> {
        // All shards or none: a shard that does not empty its queue must not keep the old rules alone.
        let full = self
            .parts
            .links
            .iter()
            .find(|link| link.queue.len() >= CONTROL_TO_SHARD_MAX - QUEUE_RESERVE);
        if let Some(link) = full {
            return Err(format!("shard {} does not take messages", link.shard.0));
        }
        // Whoever is asked by a shard that has it knows it, too.
        self.parts.configs.send_replace(Arc::clone(&next));
        for link in &self.parts.links {
            let sent = send(link, ToShard::Reload(Arc::clone(&next)), QUEUE_RESERVE);
            assert!(
                sent,
                "control alone fills the queue and its room was checked"
            );
        }
        if let Some(services) = &mut self.key_services {
            services.follow(&next);
        }
        self.parts.config = next;
        Ok(())
    }

    /// Gives every shard what a service with keys said.
    fn spread(&mut self, source: KeySource, set: Option<Arc<KeySet>>) {
        self.keys_undelivered
            .retain(|(_, undelivered, _)| *undelivered != source);
        let all = (0..self.parts.links.len()).map(|at| (at, source.clone(), set.clone()));
        self.keys_undelivered.extend(all);
        self.deliver_keys();
    }

    fn deliver_keys(&mut self) {
        let (links, roster) = (&self.parts.links, &self.roster);
        self.keys_undelivered.retain(|(at, source, set)| {
            let link = &links[*at];
            let keys = ToShard::Keys(source.clone(), set.clone());
            !roster.has_ended(link.shard) && !send(link, keys, QUEUE_RESERVE)
        });
        self.retry_later();
    }

    /// A shard came near a limit of the system, or is no longer near it.
    fn strained(&mut self, shard: ShardId, strain: Strain) {
        for line in self.strains.take(usize::from(shard.0), strain) {
            match line {
                Line::Near(text) => warn!("{text}"),
                Line::Over(text) => info!("{text}"),
            }
        }
        let warnings = self.strains.warnings();
        self.readiness
            .send_modify(|readiness| readiness.warnings = warnings);
    }

    /// Has a page written for a request at a shard.
    fn write_page(&self, shard: ShardId, request: PageFor, kind: PageKind) {
        let Some(Pages { admin, written }) = &self.pages else {
            return;
        };
        let (admin, written) = (admin.clone(), written.clone());
        tokio::spawn(async move {
            // Control may be gone.
            let _ = written.send((shard, request, admin.page(kind).await));
        });
    }

    fn deliver_page(&mut self, page: WrittenPage) {
        self.pages_undelivered.push(page);
        self.deliver_pages();
    }

    fn deliver_pages(&mut self) {
        let (links, roster) = (&self.parts.links, &self.roster);
        self.pages_undelivered.retain(|(shard, request, page)| {
            let link = &links[usize::from(shard.0)];
            let page = ToShard::Page(*request, page.clone());
            !roster.has_ended(*shard) && !send(link, page, QUEUE_RESERVE)
        });
        self.retry_later();
    }

    /// What found a shard's queue full is offered again; what comes meanwhile does not put that off.
    fn retry_later(&mut self) {
        let is_due = !self.keys_undelivered.is_empty() || !self.pages_undelivered.is_empty();
        let at = self.retry.unwrap_or_else(|| Instant::now() + RETRY);
        self.retry = is_due.then_some(at);
    }

    /// Starts a gathering of counters, or joins the one under way.
    fn ask(&mut self, question: Question) {
        let (links, roster) = (&self.parts.links, &self.roster);
        let gather = self.gather.get_or_insert_with(|| {
            let mut gather = Gather::new(links.len(), Instant::now() + OBSERVE_TIMEOUT);
            for link in links {
                if roster.has_ended(link.shard)
                    || !send(link, ToShard::Observe, CONTROL_TO_SHARD_MAX / 2)
                {
                    gather.give_up(link.shard);
                }
            }
            gather
        });
        gather.waiting.push(question);
    }

    fn collect(&mut self) -> io::Result<()> {
        while let Some(report) = self.parts.reports.pop() {
            match report {
                FromShard::KeysWanted(_, source) => {
                    if let Some(services) = &self.key_services {
                        services.want(&source);
                    }
                }
                FromShard::InputFull(shard, bytes) => warn!(
                    shard = shard.0,
                    bytes,
                    "unfinished input of clients has reached server.input_max_size: the largest is given up"
                ),
                FromShard::Ready(shard) => self.on_ready(shard)?,
                FromShard::Reloaded(shard, config) => self.taken_by(shard, Some(&config)),
                FromShard::Strained(shard, strain) => self.strained(shard, strain),
                FromShard::PageWanted(shard, request, kind) => {
                    self.write_page(shard, request, kind);
                }
                FromShard::Table(shard, table, is_filling) => {
                    self.table_fills(shard, table, is_filling);
                }
                FromShard::Observed(shard, counters) => {
                    if let Some(gather) = &mut self.gather {
                        gather.observed(shard, counters);
                    }
                }
                FromShard::Drained(shard, outcome) => {
                    debug!(shard = shard.0, ?outcome, "shard drained");
                    self.ended(shard, Some(outcome));
                }
                FromShard::Failed(shard, reason) => {
                    error!(shard = shard.0, %reason, "shard failed");
                    self.ended(shard, None);
                    if !self.is_ending() {
                        self.begin_drain("the failure of a shard", Wish::default(), false);
                    }
                }
            }
        }
        Ok(())
    }

    /// A table that peers fill is nearly full, or has room again: one line, and a word in `/ready`.
    fn table_fills(&mut self, shard: ShardId, table: TableKind, is_filling: bool) {
        if is_filling {
            warn!(
                shard = shard.0,
                table = table.name(),
                "a table is four fifths full: what was not used for the longest time goes first, then newcomers are refused"
            );
        } else {
            info!(
                shard = shard.0,
                table = table.name(),
                "a table has room again"
            );
        }
        self.readiness.send_modify(|readiness| {
            let shards = &mut readiness.filling[table as usize];
            *shards &= !(1 << shard.0);
            *shards |= u64::from(is_filling) << shard.0;
        });
    }

    fn on_ready(&mut self, shard: ShardId) -> io::Result<()> {
        self.roster.ready(shard);
        let ready = self.roster.ready_count();
        self.readiness
            .send_modify(|readiness| readiness.shards_ready = ready);
        if !self.roster.is_all_ready() || self.is_ending() {
            return Ok(());
        }
        self.readiness
            .send_modify(|readiness| readiness.phase = Phase::Serving);
        let Addresses {
            listen,
            internal,
            admin,
        } = &self.parts.addresses;
        let (listen, internal) = (listen.join(" "), internal.join(" "));
        info!(%listen, %internal, %admin, reactor = self.parts.reactor, shards = ready, "ready");
        if let Some(path) = self.parts.ready_file.take() {
            admin::write_ready_file(&path, &self.parts.addresses, self.parts.reactor)?;
        }
        self.service.ready();
        if let Some(text) = self.parts.announcement.take() {
            // Nobody may be reading; that is no reason to stop.
            if let Err(error) = io::Write::write_all(&mut io::stdout(), text.as_bytes()) {
                warn!(%error, "standard output");
            }
        }
        Ok(())
    }

    fn ended(&mut self, shard: ShardId, outcome: Option<DrainOutcome>) {
        self.roster.ended(shard, outcome);
        self.taken_by(shard, None);
        if let Some(gather) = &mut self.gather {
            gather.give_up(shard);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        [
            self.notice_until,
            self.drain_until,
            self.retry,
            self.gather.as_ref().map(|gather| gather.until),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Closes what is complete or out of time.
    fn expire(&mut self, now: Instant) -> Option<Ending> {
        if self.retry.take_if(|at| *at <= now).is_some() {
            self.deliver_keys();
            self.deliver_pages();
        }
        if let Some(gather) = self
            .gather
            .take_if(|gather| gather.is_complete() || now >= gather.until)
        {
            gather.answer();
        }
        self.drain_expired(now)
    }
}

/// Puts a message into a shard's queue unless that would leave fewer than `reserve` places. True when it is in.
fn send(link: &ShardLink, message: ToShard, reserve: usize) -> bool {
    if link.queue.len() + reserve >= link.queue.capacity() || link.queue.push(message).is_err() {
        return false;
    }
    link.bell.ring();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    use crate::metrics::Counters;
    use crate::model::AskId;

    fn control(shards: u16) -> Control {
        control_with(shards, Duration::ZERO)
    }

    fn control_with(shards: u16, notice: Duration) -> Control {
        let mut config = Config::built_in();
        config.drain.notice = notice;
        let bell = Arc::new(Bell::default());
        let link = |shard| ShardLink {
            shard: ShardId(shard),
            queue: Arc::new(ArrayQueue::new(CONTROL_TO_SHARD_MAX)),
            bell: Arc::<Bell>::clone(&bell),
            hooks: crate::mesh::hook::HookLink::new(Arc::<Bell>::clone(&bell)),
            durable: crate::mesh::durable::DurableLink::new(Arc::<Bell>::clone(&bell)),
        };
        Control::new(Parts {
            hook_bell: Arc::default(),
            configs: watch::Sender::new(Arc::new(config.clone())),
            durable: None,
            config: Arc::new(config),
            written: Written::default(),
            tenancy: Tenancy::default(),
            links: (0..shards).map(link).collect(),
            reports: Arc::new(ArrayQueue::new(16)),
            bell: Arc::clone(&bell),
            admin: None,
            reactor: "portable",
            addresses: Addresses::default(),
            ready_file: None,
            announcement: None,
            reread: Box::new({
                let reread = Cell::new(0);
                move || {
                    reread.set(reread.get() + 1);
                    let limit = crate::config::Setting {
                        origin: "test".to_owned(),
                        key: "client.channel_limit".to_owned(),
                        text: if reread.get() > 2 { "none" } else { "1" }.to_owned(),
                    };
                    Ok(Written {
                        settings: vec![limit],
                        ..Written::default()
                    })
                }
            }),
            set_level: Box::new(|_| ()),
        })
    }

    fn report(control: &mut Control, report: FromShard) {
        control.parts.reports.push(report).expect("room");
        control.collect().expect("collected");
    }

    fn taken(control: &Control, shard: usize) -> Option<ToShard> {
        control.parts.links[shard].queue.pop()
    }

    #[tokio::test]
    async fn serving_begins_with_the_last_shard_and_ends_with_the_signal() {
        let mut control = control(2);
        report(&mut control, FromShard::Ready(ShardId(1)));
        assert_eq!(control.readiness.borrow().phase, Phase::Starting);
        report(&mut control, FromShard::Ready(ShardId(0)));
        assert_eq!(control.readiness.borrow().phase, Phase::Serving);
        assert_eq!(control.obey(Word::End("SIGTERM")), None);
        assert_eq!(control.readiness.borrow().phase, Phase::Draining);
        assert!(matches!(taken(&control, 0), Some(ToShard::Drain { .. })));
        assert_eq!(control.obey(Word::End("SIGTERM")), Some(Ending::Aborted));
    }

    #[tokio::test]
    async fn pages_that_wait_do_not_put_the_next_try_off() {
        let mut control = control(1);
        while send(&control.parts.links[0], ToShard::Observe, QUEUE_RESERVE) {}
        let page = || {
            let page = ControlPage {
                status: 200,
                content_type: "text/plain",
                body: bytes::Bytes::new(),
            };
            (ShardId(0), PageFor(AskId::default()), page)
        };
        control.deliver_page(page());
        let at = control.deadline().expect("a deadline");
        control.deliver_page(page());
        assert_eq!(control.deadline(), Some(at));
        assert_eq!(control.expire(at), None);
        let next = control.deadline().expect("the queue is full still");
        assert!(next > at, "{next:?}");
        while taken(&control, 0).is_some() {}
        assert_eq!(control.expire(next), None);
        assert_eq!(control.deadline(), None);
    }

    #[tokio::test]
    async fn shards_are_told_to_drain_when_the_notice_is_over_and_readiness_goes_first() {
        let notice = Duration::from_secs(3);
        let mut control = control_with(1, notice);
        report(&mut control, FromShard::Ready(ShardId(0)));
        control.obey(Word::End("SIGTERM"));
        assert_eq!(control.readiness.borrow().phase, Phase::Draining);
        let until = control.deadline().expect("a deadline");
        assert_eq!(control.expire(until - Duration::from_millis(1)), None);
        assert!(taken(&control, 0).is_none(), "everything is served still");
        control.obey(Word::Reload);
        assert!(taken(&control, 0).is_none(), "nothing changes any more");
        assert_eq!(control.expire(until), None);
        assert!(matches!(taken(&control, 0), Some(ToShard::Drain { .. })));
        assert_eq!(control.obey(Word::End("SIGINT")), Some(Ending::Aborted));
    }

    #[tokio::test]
    async fn second_signal_cuts_the_notice_short_too() {
        let mut control = control_with(1, Duration::from_secs(3));
        report(&mut control, FromShard::Ready(ShardId(0)));
        assert_eq!(control.obey(Word::End("SIGTERM")), None);
        assert_eq!(control.obey(Word::End("SIGTERM")), Some(Ending::Aborted));
    }

    #[tokio::test]
    async fn the_process_ends_well_when_every_shard_drained_and_nothing_is_unacknowledged() {
        for (unacked, status) in [(0, 0), (1, 1)] {
            let mut control = control(2);
            control.obey(Word::End("SIGTERM"));
            report(
                &mut control,
                FromShard::Drained(
                    ShardId(0),
                    DrainOutcome {
                        told: 1,
                        forced: 2,
                        unacked,
                        ..DrainOutcome::default()
                    },
                ),
            );
            assert_eq!(control.expire(Instant::now()), None);
            report(
                &mut control,
                FromShard::Drained(ShardId(1), DrainOutcome::default()),
            );
            assert_eq!(
                control.expire(Instant::now()).map(Ending::status),
                Some(status)
            );
        }
    }

    #[tokio::test]
    async fn a_failed_shard_drains_the_others_and_fails_the_process() {
        let mut control = control(2);
        report(
            &mut control,
            FromShard::Failed(ShardId(0), "gone".to_owned()),
        );
        assert!(matches!(taken(&control, 1), Some(ToShard::Drain { .. })));
        report(
            &mut control,
            FromShard::Drained(ShardId(1), DrainOutcome::default()),
        );
        assert_eq!(control.expire(Instant::now()), Some(Ending::Failed));
    }

    #[tokio::test]
    async fn a_shard_that_never_drains_is_given_up() {
        let mut control = control(1);
        control.obey(Word::End("SIGTERM"));
        let until = control.deadline().expect("a deadline");
        assert_eq!(control.expire(until - Duration::from_millis(1)), None);
        assert_eq!(control.expire(until), Some(Ending::Failed));
    }

    #[tokio::test]
    async fn a_reload_reaches_every_shard_or_none() {
        let mut control = control(2);
        while control.parts.links[1].queue.len() < CONTROL_TO_SHARD_MAX - QUEUE_RESERVE {
            control.parts.links[1]
                .queue
                .push(ToShard::Observe)
                .expect("room");
        }
        control.obey(Word::Reload);
        assert!(taken(&control, 0).is_none(), "shard 1 has no room");
        while taken(&control, 1).is_some() {}
        control.obey(Word::Reload);
        for shard in 0..2 {
            assert!(
                matches!(taken(&control, shard), Some(ToShard::Reload(config)) if config.client.channel_limit == 1)
            );
        }
        control.obey(Word::Reload);
        assert!(
            taken(&control, 0).is_none(),
            "the configuration was refused"
        );
    }

    #[tokio::test]
    async fn a_silent_shard_does_not_hold_up_a_scrape() {
        let mut control = control(2);
        let (question, answer) = oneshot::channel();
        control.ask(question);
        assert!(matches!(taken(&control, 0), Some(ToShard::Observe)));
        report(
            &mut control,
            FromShard::Observed(
                ShardId(0),
                Box::new(Counters {
                    closed: 3,
                    ..Counters::default()
                }),
            ),
        );
        let until = control.deadline().expect("a deadline");
        control.expire(until);
        let observation = answer.await.expect("an answer");
        assert_eq!(
            observation[0].as_ref().map(|counters| counters.closed),
            Some(3)
        );
        assert!(observation[1].is_none());
        assert_eq!(control.deadline(), None);
    }
}

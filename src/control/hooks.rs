//! Hooks: calls of the shards to backends over HTTP (`spec/centrifuge.md` §9).
//!
//! One task owns all targets; each call under way is a task of its own. A target has its own bounds and its own breaker for each
//! tenant, so a slow one delays nobody else's calls.

mod answer;
mod breaker;
mod exchange;
mod push;
pub(super) mod request;
pub(super) mod signature;
mod target;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;

use super::http_client::Client;
use crate::config::Config;
use crate::config::hooks::Signing;
use crate::mesh::bell::Doorbell;
use crate::mesh::control::ShardLink;
use crate::mesh::hook::{Call, HookAnswer, Verdict};
use crate::model::TenantId;
use crate::upstream::bell::Bell;
use crate::upstream::bridge::PushCall;
use crate::upstream::desk::Pushed;

use breaker::Pass;
use exchange::{Answer, Done};
use target::{Admission, Pending, Target};

pub use target::{Counts, Report};

/// Calls taken from one shard before everything else on the thread gets its turn.
const CALLS_PER_TURN: usize = 64;

/// Who wants to know how the targets do.
pub(super) type Question = oneshot::Sender<Vec<Report>>;

/// The way to one shard.
struct Line {
    calls: Arc<ArrayQueue<Box<Call>>>,
    answers: Arc<ArrayQueue<HookAnswer>>,
    bell: Arc<dyn Doorbell>,
}

/// A request that is over, with the call that it was for.
struct Finished {
    pending: Pending,
    pass: Pass,
    done: Done,
    /// Of a push.
    pushed: Option<Pushed>,
}

/// See the module.
pub(super) struct Hooks {
    lines: Vec<Line>,
    client: Client,
    targets: Vec<Target>,
    /// Where each is, by tenant and name. A tenant has its own ones as soon as something of its clients is asked: bounds, pace and
    /// breaker are its own, also where all ask the same backend.
    places: HashMap<(Box<str>, Box<str>), usize>,
    /// Those with calls that wait.
    waited_for: BTreeSet<usize>,
    under_way: JoinSet<Finished>,
    /// Levels of nesting of what goes to clients.
    levels: usize,
    /// Secrets for targets without their own.
    signing: Signing,
}

/// Makes the calls of all shards until the process ends.
pub(super) async fn run(
    mut hooks: Hooks,
    bell: Arc<Bell>,
    mut config: watch::Receiver<Arc<Config>>,
    mut questions: mpsc::Receiver<Question>,
    mut pushes: mpsc::Receiver<PushCall>,
) {
    loop {
        let expiry = hooks.next_expiry();
        tokio::select! {
            // No call goes out by the rules before a reload once it was told of.
            () = bell.rung() => hooks.catch_up(&mut config),
            Some(finished) = hooks.under_way.join_next() => match finished {
                Ok(finished) => {
                    hooks.catch_up(&mut config);
                    hooks.finished(finished);
                }
                Err(error) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            },
            Ok(()) = config.changed() => {
                config.mark_changed();
                hooks.catch_up(&mut config);
            }
            Some(question) = questions.recv() => {
                // Whoever hears of a reload and asks then is told of what it has brought.
                hooks.catch_up(&mut config);
                // Whoever asked may have gone.
                drop(question.send(hooks.reports()));
            }
            Some(push) = pushes.recv() => {
                hooks.catch_up(&mut config);
                hooks.admit(Pending::Push(push));
            }
            () = super::until(expiry) => {}
        }
        hooks.expire();
        if hooks.take_calls() {
            bell.ring();
            yield_now().await;
        }
    }
}

impl Hooks {
    pub(super) fn new(config: &Config, links: &[ShardLink]) -> Self {
        let line = |link: &ShardLink| Line {
            calls: Arc::clone(&link.hooks.calls),
            answers: Arc::clone(&link.hooks.answers),
            bell: Arc::clone(&link.bell),
        };
        let mut hooks = Self {
            lines: links.iter().map(line).collect(),
            client: exchange::client(),
            targets: Vec::new(),
            places: HashMap::new(),
            waited_for: BTreeSet::new(),
            under_way: JoinSet::new(),
            levels: 0,
            signing: Signing::default(),
        };
        hooks.reload(config);
        hooks
    }

    fn reports(&self) -> Vec<Report> {
        let now = Instant::now();
        self.targets
            .iter()
            .map(|target| target.report(now))
            .collect()
    }

    /// Takes over a reload.
    fn catch_up(&mut self, config: &mut watch::Receiver<Arc<Config>>) {
        if config.has_changed().unwrap_or(false) {
            let config = Arc::clone(&config.borrow_and_update());
            self.reload(&config);
        }
    }

    fn reload(&mut self, config: &Config) {
        let now = Instant::now();
        self.levels = config.client.json_depth_max as usize;
        self.signing.clone_from(&config.hooks.signing);
        self.places.clear();
        self.waited_for.clear();
        for mut target in std::mem::take(&mut self.targets) {
            let tenant = TenantId::new(target.tenant());
            if let Some(wanted) = config.find_target(tenant, target.name()) {
                target.reload(wanted, &self.signing, now);
                self.add(target);
                continue;
            }
            let pending: Vec<Pending> = target.give_up().collect();
            for pending in pending {
                self.answer(pending, Verdict::Failed);
            }
        }
        for wanted in config.hooks.targets() {
            if self.find(("", &wanted.name)).is_none() {
                self.add(Target::new("", wanted, &self.signing, now));
            }
        }
    }

    fn add(&mut self, target: Target) -> usize {
        let at = self.targets.len();
        if target.is_waited_for() {
            self.waited_for.insert(at);
        }
        let place = (target.tenant().into(), target.name().into());
        self.places.insert(place, at);
        self.targets.push(target);
        at
    }

    fn find(&self, (tenant, name): (&str, &str)) -> Option<usize> {
        self.places.get(&(tenant.into(), name.into())).copied()
    }

    /// Takes what the shards have sent. Returns whether there is more.
    fn take_calls(&mut self) -> bool {
        let mut more = false;
        for shard in 0..self.lines.len() {
            for _ in 0..CALLS_PER_TURN {
                let Some(call) = self.lines[shard].calls.pop() else {
                    break;
                };
                self.admit(Pending::Call { shard, call });
            }
            more |= !self.lines[shard].calls.is_empty();
        }
        more
    }

    fn admit(&mut self, pending: Pending) {
        // A reload may have reached the shard first, and the target then comes with the call.
        let at = match (self.find(pending.target()), &pending) {
            (Some(at), _) => at,
            (None, Pending::Call { call, .. }) => {
                let (tenant, _) = pending.target();
                let target = Target::new(tenant, &call.target, &self.signing, Instant::now());
                self.add(target)
            }
            (None, Pending::Push(_)) => return self.answer(pending, Verdict::Failed),
        };
        match self.targets[at].admit(Instant::now(), pending) {
            Admission::Go(pending, pass) => self.start(at, pending, pass),
            Admission::Waits => drop(self.waited_for.insert(at)),
            Admission::Refused(pending) => self.answer(pending, Verdict::Failed),
        }
    }

    fn start(&mut self, at: usize, pending: Pending, pass: Pass) {
        let client = self.client.clone();
        let prepared = Arc::clone(&self.targets[at].prepared);
        let levels = self.levels;
        self.under_way.spawn(async move {
            let (done, pushed) = match &pending {
                Pending::Call { call, .. } => {
                    let done = exchange::exchange(client, prepared, call, levels).await;
                    (done, None)
                }
                Pending::Push(push) => {
                    let (done, pushed) = push::push(&client, &prepared, push.body.clone()).await;
                    (done, Some(pushed))
                }
            };
            Finished {
                pending,
                pass,
                done,
                pushed,
            }
        });
    }

    fn finished(&mut self, finished: Finished) {
        let Finished {
            pending,
            pass,
            done,
            pushed,
        } = finished;
        if let Some(at) = self.find(pending.target()) {
            let now = Instant::now();
            self.targets[at].done(now, pass, &done);
            self.go_on(at, now);
        }
        match (pending, pushed) {
            // Whoever pushed may have stopped waiting.
            (Pending::Push(push), Some(pushed)) => drop(push.done.send(pushed)),
            (pending, _) => {
                let verdict = match done.result {
                    Ok(Answer::Verdict(verdict)) => verdict,
                    Ok(Answer::Pushed) | Err(_) => Verdict::Failed,
                };
                self.answer(pending, verdict);
            }
        }
    }

    /// Calls that waited go out, as far as there is room for them.
    fn go_on(&mut self, at: usize, now: Instant) {
        while let Some(next) = self.targets[at].next(now) {
            match next {
                Ok((pending, pass)) => self.start(at, pending, pass),
                Err(pending) => self.answer(pending, Verdict::Failed),
            }
        }
    }

    fn next_expiry(&self) -> Option<Instant> {
        let now = Instant::now();
        let each = self.waited_for.iter().map(|&at| &self.targets[at]);
        each.filter_map(|target| target.next_expiry(now)).min()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let waited_for: Vec<usize> = self.waited_for.iter().copied().collect();
        for at in waited_for {
            while let Some(pending) = self.targets[at].expired(now) {
                self.answer(pending, Verdict::Failed);
            }
            self.go_on(at, now);
            if !self.targets[at].is_waited_for() {
                self.waited_for.remove(&at);
            }
        }
    }

    /// What a shard gets; nobody was asked about a push.
    fn answer(&mut self, pending: Pending, verdict: Verdict) {
        let (shard, call) = match pending {
            Pending::Call { shard, call } => (shard, call),
            Pending::Push(push) => {
                let reason = "the target takes no calls now".to_owned();
                return drop(push.done.send(Pushed::Away(reason, None)));
            }
        };
        let line = &self.lines[shard];
        let answer = HookAnswer { call, verdict };
        assert!(
            line.answers.push(answer).is_ok(),
            "a call has a place for its answer"
        );
        line.bell.ring();
    }
}

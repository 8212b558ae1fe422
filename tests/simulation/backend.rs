//! A backend that decides about what clients want: it is slow, fails, refuses, disconnects, and speaks of times that are past. Of what was
//! asked it changes nothing that a client could not tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmain::config::hooks::{Hooks, Target};
use ringmain::mem::Rng;
use ringmain::mesh::hook::{
    Call, ConnectVerdict, HookAnswer, HookEvent, PublishVerdict, RefreshVerdict, SubscribeVerdict,
    Verdict,
};
use ringmain::model::{ChosenError, ClientId, Encoding, Overrides};
use ringmain::time::{Instant, Now};

use super::setup::SERVER_CHANNELS;
use super::truth::{Truth, situation};

pub struct Backend {
    rng: Rng,
    /// What is to be answered, by time and the order in which it came.
    pending: BTreeMap<(Instant, u64), (usize, Box<Call>)>,
    asked: u64,
    /// When which client's refresh came to nothing.
    failed: BTreeMap<ClientId, Instant>,
    /// How unkind it is: of 100.
    faults: u64,
}

/// Which events of a run go to it.
pub fn hooks(rng: &mut Rng) -> Hooks {
    let target = |name: &str| {
        Arc::new(Target {
            endpoint: "http://backend/".to_owned(),
            ..Target::named(name)
        })
    };
    let mut hooks = Hooks {
        connect_enabled: rng.below(2) == 0,
        connect: target("client.proxy.connect"),
        refresh_enabled: rng.below(2) == 0,
        refresh: target("client.proxy.refresh"),
        subscribe: target("channel.proxy.subscribe"),
        publish: target("channel.proxy.publish"),
        sub_refresh: target("channel.proxy.sub_refresh"),
        rpc: target("rpc.proxy"),
        ..Hooks::default()
    };
    hooks.methods.without_namespace.proxy_enabled = true;
    hooks
}

impl Backend {
    pub fn new(mut rng: Rng) -> Self {
        Self {
            pending: BTreeMap::new(),
            asked: 0,
            failed: BTreeMap::new(),
            faults: [0, 5, 20][rng.below(3) as usize],
            rng,
        }
    }

    /// A shard asks. Answers to different calls overtake each other.
    pub fn ask(&mut self, now: Now, shard: usize, call: Box<Call>, truth: &mut Truth) {
        truth.count(&format!("hook {}", call.event.name()));
        if call.event == HookEvent::Refresh {
            self.check_patience(now, call.client, truth);
        }
        let delay = match self.rng.below(100) {
            0..=49 => Duration::from_micros(self.rng.below(2000)),
            50..=95 => Duration::from_millis(self.rng.below(200)),
            _ => Duration::from_millis(self.rng.below(8000)),
        };
        self.asked += 1;
        self.pending
            .insert((now.at + delay, self.asked), (shard, call));
    }

    /// What a shard is told now. Times that an answer names are those of when it is given.
    pub fn poll(
        &mut self,
        now: Now,
        shard: usize,
        calm: bool,
        truth: &mut Truth,
    ) -> Option<HookAnswer> {
        let due = self
            .pending
            .iter()
            .find(|((at, _), (to, _))| *to == shard && (calm || *at <= now.at));
        let key = *due?.0;
        let (_, call) = self.pending.remove(&key)?;
        let verdict = self.verdict(now, &call, if calm { 0 } else { self.faults }, truth);
        self.note(now, &call, &verdict, truth);
        Some(HookAnswer { call, verdict })
    }

    pub fn is_due(&self, now: Now, shard: usize, calm: bool) -> bool {
        self.pending
            .iter()
            .any(|((at, _), (to, _))| *to == shard && (calm || *at <= now.at))
    }

    /// Nothing is asked that is not answered.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// What expires while its backend fails is prolonged: the backend is not asked again at once.
    fn check_patience(&mut self, now: Now, client: ClientId, truth: &Truth) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let failed = self.failed.remove(&client);
        // A service that names a time by a clock that is set meanwhile may name one that is past.
        let is_unsure = truth
            .clock_set
            .is_some_and(|at| now.at.since(at) < Duration::from_secs(60));
        let is_early = failed.is_some_and(|at| now.at.since(at) < PATIENCE);
        assert!(
            is_unsure || !is_early,
            "{client} is refreshed again at once"
        );
    }

    /// What has to follow.
    fn note(&mut self, now: Now, call: &Call, verdict: &Verdict, truth: &mut Truth) {
        let is_past = |at: u64| at != 0 && at <= now.unix_s();
        let client = call.client.to_string();
        match (&call.event, verdict) {
            (HookEvent::Connect { .. }, Verdict::Connect(Some(connected)))
                if is_past(connected.expire_at) =>
            {
                truth.turned_away.insert(client);
            }
            (HookEvent::Connect { .. }, Verdict::Connect(_)) => {}
            (HookEvent::Connect { .. }, _) => {
                truth.turned_away.insert(client);
            }
            (HookEvent::Refresh, Verdict::Refresh(refreshed)) => {
                let goes_on = |one: &RefreshVerdict| !one.expired && !is_past(one.expire_at);
                if !refreshed.as_ref().is_some_and(goes_on) {
                    truth.ended.insert(client);
                }
            }
            (HookEvent::Refresh, _) => {
                self.failed.insert(call.client, now.at);
            }
            _ => {}
        }
    }

    fn verdict(&mut self, now: Now, call: &Call, faults: u64, truth: &mut Truth) -> Verdict {
        if self.rng.below(100) < faults {
            return match self.rng.below(4) {
                0 => Verdict::Error(ChosenError {
                    code: 1000,
                    message: "simulated".into(),
                    temporary: false,
                }),
                1 => Verdict::Disconnect(4100, "simulated".into()),
                // Clients do not understand it: as if nobody had answered.
                2 => Verdict::Disconnect(7, "simulated".into()),
                _ => Verdict::Failed,
            };
        }
        match &call.event {
            HookEvent::Connect { .. } => self.connect(now, call, faults),
            HookEvent::Refresh | HookEvent::SubRefresh { .. } => self.refresh(now, faults, truth),
            HookEvent::Subscribe { .. } => Verdict::Subscribe(self.subscribed(now, faults)),
            HookEvent::Publish { data, .. } => self.publish(data),
            HookEvent::Rpc { data, .. } => {
                let asked: serde_json::Value =
                    serde_json::from_slice(data).expect("what is asked of it is JSON");
                // Raw line breaks would be two messages to a client.
                let answer = format!("{{\"answer\":\n{}}}", asked["ask"]);
                Verdict::Rpc(answer.into())
            }
        }
    }

    /// Seconds of Unix time at which something ends; 0 for never.
    fn end(&mut self, now: Now, faults: u64) -> u64 {
        match self.rng.below(10) {
            0 if faults > 0 => now.unix_s().saturating_sub(5),
            0..=3 => now.unix_s() + 1 + self.rng.below(5),
            4..=5 => now.unix_s() + 1000,
            _ => 0,
        }
    }

    fn info(&mut self) -> Bytes {
        match self.rng.below(2) {
            0 => Bytes::new(),
            _ => Bytes::from_static(b"{\"of\":\n\"backend\"}"),
        }
    }

    fn connect(&mut self, now: Now, call: &Call, faults: u64) -> Verdict {
        if self.rng.below(20) == 0 {
            return Verdict::Connect(None);
        }
        let mut subs = Vec::new();
        for channel in SERVER_CHANNELS {
            if self.rng.below(3) == 0 {
                let options = self.subscribed(now, 0);
                subs.push(((*channel).into(), options));
            }
        }
        let is_binary = call.format.encoding == Encoding::Protobuf;
        Verdict::Connect(Some(Box::new(ConnectVerdict {
            user: match self.rng.below(3) {
                0 => Box::default(),
                _ => format!("h{}", self.rng.below(5)).into(),
            },
            expire_at: self.end(now, faults),
            info: self.info(),
            data: match is_binary {
                true => Bytes::from_static(&[0, 1, 255]),
                false => self.info(),
            },
            subs,
            meta: self.info(),
        })))
    }

    fn subscribed(&mut self, now: Now, faults: u64) -> SubscribeVerdict {
        let mut perhaps = || [None, Some(false), Some(true)][self.rng.below(3) as usize];
        let overrides = Overrides {
            presence: perhaps(),
            join_leave: perhaps(),
            force_push_join_leave: perhaps(),
            force_recovery: perhaps(),
            force_positioning: perhaps(),
        };
        SubscribeVerdict {
            expire_at: self.end(now, faults),
            info: self.info(),
            data: self.info(),
            overrides,
            cache_recover: false,
        }
    }

    fn publish(&mut self, data: &Bytes) -> Verdict {
        let text = std::str::from_utf8(data).expect("payloads of a run are text");
        let n: serde_json::Value = serde_json::from_str(text).expect("payloads are JSON");
        let keyed = self.rng.below(4) == 0;
        Verdict::Publish(Box::new(PublishVerdict {
            // The same, written otherwise.
            data: (self.rng.below(3) == 0).then(|| text.replacen(',', ",\n ", 1).into()),
            skip_history: self.rng.below(10) == 0,
            tags: vec![("of".into(), "backend".into())],
            idempotency_key: match keyed {
                true => format!("hook{}", n["n"]).into(),
                false => Box::default(),
            },
            ..PublishVerdict::default()
        }))
    }

    fn refresh(&mut self, now: Now, faults: u64, truth: &mut Truth) -> Verdict {
        if self.rng.below(20) == 0 {
            return Verdict::Refresh(None);
        }
        let expire_at = self.end(now, faults);
        if expire_at != 0 && expire_at <= now.unix_s() {
            truth.count(situation::STALE_REFRESH);
        }
        Verdict::Refresh(Some(RefreshVerdict {
            expired: self.rng.below(20) == 0,
            expire_at,
            info: self.info(),
            meta: self.info(),
        }))
    }
}

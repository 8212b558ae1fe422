//! Triggers: a durable publication leads to one thing more, at least once. Each is a queue group that the desk works off.

use std::sync::Arc;
use std::time::Duration;

use super::encode::Given;
use super::parts::{Joining, joined};
use super::settings::{Settings, is_own};
use super::{JOIN_CREDIT, Outlet, TRIGGER_CREDIT, encode, unix_ms};
use crate::config::Config;
use crate::config::durable::Trigger;
use crate::config::namespace::DEAD_PREFIX;
use crate::limits::TRIGGER_HOPS_MAX;
use crate::mesh::durable::LogError;
use crate::model::{ChannelName, Draft, Entry, EventId, Record, Terms};
use crate::wire::condition::Condition;

/// Start of the names of triggers' groups.
pub const TRIGGER_PREFIX: &str = "$trigger:";
/// The group that tells the hook of dead letters. No trigger's has such a name, which has its namespace in it.
const HOOK_GROUP: &str = "$trigger:dead_letter_hook";
/// A trigger that did its work and was interrupted before it could say so stores nothing twice within this time.
const KEY_TTL: Duration = Duration::from_hours(24);
/// A log that cannot store is asked again after this.
const RETRY: Duration = Duration::from_millis(500);

/// A trigger, ready to run.
#[derive(Debug)]
pub struct Rule {
    /// Name of its group.
    pub group: String,
    /// Channels it listens to.
    pub channels: Vec<Box<str>>,
    /// `None`: every publication. `Some(Err)`: the condition cannot be read.
    condition: Option<Result<Condition, String>>,
    trigger: Trigger,
    /// Several publications lead to one.
    join: Option<Joining>,
    /// It tells the hook of dead letters, in order, and never gives up.
    pub tells_letters: bool,
}

/// Why a publication's work is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is tried again.
    Failed(String),
    /// It is not.
    Hopeless(String),
}

impl Rule {
    /// All triggers of a configuration.
    #[must_use]
    pub fn all(config: &Config) -> Vec<Self> {
        let boundary = &config.channels.namespace_boundary;
        let mut rules = Vec::new();
        for namespace in &config.channels.namespaces {
            if !namespace.is_durable() {
                continue;
            }
            for trigger in &namespace.triggers {
                let channels = if trigger.channels.is_empty() {
                    format!("{}{boundary}*", namespace.name)
                } else {
                    trigger.channels.clone()
                };
                let condition = (!trigger.condition.is_empty()).then(|| {
                    Condition::parse(&trigger.condition).map_err(|error| error.to_string())
                });
                rules.push(Self {
                    group: format!("{TRIGGER_PREFIX}{}:{}", namespace.name, trigger.name),
                    channels: vec![channels.into()],
                    condition,
                    join: Joining::new(&trigger.join),
                    trigger: trigger.clone(),
                    tells_letters: false,
                });
            }
        }
        if !config.queue.dead_letter_hook.is_empty() {
            rules.push(Self {
                group: HOOK_GROUP.to_owned(),
                channels: vec![format!("{DEAD_PREFIX}*").into()],
                condition: None,
                join: None,
                trigger: Trigger::default(),
                tells_letters: true,
            });
        }
        rules
    }

    /// Rules of its group.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            channels: self.channels.clone(),
            ordered: self.tells_letters,
            gathers: self.join.is_some(),
            ..Settings::default()
        }
    }

    /// It does the same with the same publications.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.channels == other.channels && self.trigger == other.trigger
    }

    /// What it joins, if it does.
    pub(super) const fn joining(&self) -> Option<&Joining> {
        self.join.as_ref()
    }

    /// Publications that it works on at a time.
    pub(super) const fn credit(&self) -> usize {
        match self.join {
            Some(_) => JOIN_CREDIT,
            None => TRIGGER_CREDIT,
        }
    }

    /// Is this publication meant at all?
    pub(super) fn fits(&self, record: &Record) -> Result<bool, Fault> {
        match &self.condition {
            Some(Err(error)) => Err(Fault::Failed(format!("condition: {error}"))),
            // Whoever publishes does not get around a rule by a payload that the rule cannot read.
            Some(Ok(condition)) => condition
                .matches(&record.data)
                .map_err(|unreadable| Fault::Hopeless(format!("condition: {unreadable}"))),
            None => Ok(true),
        }
    }

    /// Does what the rule says about one publication.
    pub(super) async fn run<O: Outlet>(
        &self,
        outlet: &O,
        group: &str,
        given: &Given,
    ) -> Result<(), Fault> {
        let record = &given.entry.record;
        if !self.fits(record)? {
            return Ok(());
        }
        if !self.trigger.append.is_empty() {
            check_hops(record)?;
            return self.append(outlet, given).await;
        }
        let mut out = Vec::new();
        encode::delivery(&mut out, group, given);
        outlet
            .hook(&self.trigger.hook, out.into())
            .await
            .map_err(Fault::Failed)
    }

    async fn append<O: Outlet>(&self, outlet: &O, given: &Given) -> Result<(), Fault> {
        let record = &given.entry.record;
        let target = self.target(record.channel.name(), "")?;
        let due_ms = self.due_ms();
        loop {
            let again = Record {
                channel: ChannelName::of(record.channel.tenant(), &target),
                event: follower(record.event, &self.group),
                key: format!("{}/{}", self.group, record.event).into(),
                hops: record.hops + 1,
                origin: None,
                ..record.clone()
            };
            let mut draft = Draft::of(Terms::log(KEY_TTL), again);
            draft.due_ms = due_ms;
            self.end_in_time(&mut draft);
            match outlet.append(vec![draft]).await.pop() {
                Some(Ok(_)) => return Ok(()),
                // That the log is down says nothing about the publication.
                Some(Err(LogError::Unavailable { .. } | LogError::Busy { .. })) | None => {
                    tokio::time::sleep(RETRY).await;
                }
                Some(Err(error)) => return Err(Fault::Failed(error.to_string())),
            }
        }
    }

    /// What is appended of publications that are joined. Whoever does it again appends the same under the same key.
    pub(super) fn draft(&self, joining: &Joining, parts: &[Arc<Entry>]) -> Result<Draft, Fault> {
        let none = || Fault::Hopeless("join: there is no part".to_owned());
        let first = parts.first().ok_or_else(none)?;
        let key = joining.key_of(first).map_err(Fault::Hopeless)?;
        let record = joined(&key, parts).ok_or_else(none)?;
        check_hops(&record)?;
        let (channel, _) = first.shown_at();
        let target = self.target(channel.name(), &String::from_utf8_lossy(&key))?;
        let event = first.record.event;
        let count = parts.len();
        let record = Record {
            channel: ChannelName::of(record.channel.tenant(), &target),
            event: follower(event, &format!("{}/{count}", self.group)),
            key: format!("{}/{event}/{count}", self.group).into(),
            hops: record.hops + 1,
            ..record
        };
        let mut draft = Draft::of(Terms::log(KEY_TTL), record);
        draft.due_ms = self.due_ms();
        self.end_in_time(&mut draft);
        Ok(draft)
    }

    /// What is appended has a time of its own: from now on, or from when it is published.
    fn end_in_time(&self, draft: &mut Draft) {
        let ttl = u64::try_from(self.trigger.ttl.as_millis()).unwrap_or(u64::MAX);
        if ttl == 0 {
            return;
        }
        // It bears the time of its source.
        let age = match draft.due_ms {
            0 => unix_ms().saturating_sub(draft.record.unix_ms),
            _ => 0,
        };
        draft.record.ttl_ms = ttl.saturating_add(age);
    }

    /// When what is appended now is published, Unix milliseconds; 0 for at once.
    fn due_ms(&self) -> u64 {
        let delay = u64::try_from(self.trigger.delay.as_millis()).unwrap_or(u64::MAX);
        match delay {
            0 => 0,
            delay => unix_ms().saturating_add(delay),
        }
    }

    /// The channel that gets it too.
    fn target(&self, channel: &str, key: &str) -> Result<String, Fault> {
        let rest = channel.split_once(':').map_or(channel, |(_, rest)| rest);
        let target = self
            .trigger
            .append
            .replace("{channel}", channel)
            .replace("{rest}", rest)
            .replace("{key}", key);
        match is_own(&target) {
            true => Err(Fault::Hopeless(format!("nobody publishes on `{target}`"))),
            false => Ok(target),
        }
    }
}

/// A chain of triggers has an end.
fn check_hops(record: &Record) -> Result<(), Fault> {
    if record.hops >= TRIGGER_HOPS_MAX {
        return Err(Fault::Hopeless(
            "loop: triggers have led to triggers too often".to_owned(),
        ));
    }
    Ok(())
}

/// The id of what follows from an event: the same whenever it is tried.
pub(super) fn follower(event: EventId, group: &str) -> EventId {
    use std::hash::{BuildHasher, Hasher};
    let mut random = 0u128;
    for seed in [1, 2] {
        let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
        hasher.write_u128(event.0);
        hasher.write(group.as_bytes());
        random = random << 64 | u128::from(hasher.finish());
    }
    let unix_ms = (event.0 >> 80) as u64;
    EventId::new(unix_ms, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_an_event_has_one_id() {
        let event = EventId::new(1_700_000_000_000, 99);
        assert_eq!(follower(event, "a"), follower(event, "a"));
        assert_ne!(follower(event, "a"), follower(event, "b"));
        assert_ne!(follower(event, "a"), event);
        assert_eq!(follower(event, "a").0 >> 80, event.0 >> 80);
    }

    #[test]
    fn what_is_appended_ends_its_time_after_the_trigger_whenever_its_source_was() {
        let rule = |ttl: u64, delay: u64| Rule {
            group: "$trigger:orders:t".to_owned(),
            channels: Vec::new(),
            condition: None,
            join: None,
            tells_letters: false,
            trigger: Trigger {
                ttl: Duration::from_secs(ttl),
                delay: Duration::from_secs(delay),
                ..Trigger::default()
            },
        };
        let ends = |rule: &Rule| {
            let record = Record {
                unix_ms: unix_ms() - 60_000,
                ttl_ms: 90_000,
                ..crate::upstream::memory::record("orders:1", EventId(1), "1")
            };
            let mut draft = Draft::of(Terms::log(KEY_TTL), record);
            draft.due_ms = rule.due_ms();
            rule.end_in_time(&mut draft);
            draft.record.ttl_ms
        };
        assert_eq!(ends(&rule(0, 0)), 90_000, "with its source");
        let from_now = ends(&rule(10, 0));
        assert!((70_000..75_000).contains(&from_now), "{from_now}");
        assert_eq!(ends(&rule(10, 5)), 10_000, "from when it is published");
    }

    #[test]
    fn target_names_the_channel_or_its_rest() {
        let mut rule = Rule {
            group: "$trigger:orders:t".to_owned(),
            channels: Vec::new(),
            condition: None,
            join: None,
            tells_letters: false,
            trigger: Trigger {
                append: "billing:{rest}".to_owned(),
                ..Trigger::default()
            },
        };
        let target = |rule: &Rule| rule.target("orders:7", "k");
        assert_eq!(target(&rule).as_deref(), Ok("billing:7"));
        rule.trigger.append = "audit:{channel}".to_owned();
        assert_eq!(target(&rule).as_deref(), Ok("audit:orders:7"));
        rule.trigger.append = "runs:{key}".to_owned();
        assert_eq!(target(&rule).as_deref(), Ok("runs:k"));
        rule.trigger.append = "{key}:x".to_owned();
        assert!(rule.target("orders:7", "$queue").is_err());
    }
}

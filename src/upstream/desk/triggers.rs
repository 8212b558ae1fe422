//! Triggers: a durable publication leads to one thing more, at least once. Each is a queue group that the desk works off.

use std::time::Duration;

use super::encode::Given;
use super::settings::{Settings, is_own};
use super::{Outlet, encode, unix_ms};
use crate::config::Config;
use crate::config::durable::Trigger;
use crate::config::namespace::DEAD_PREFIX;
use crate::limits::TRIGGER_HOPS_MAX;
use crate::mesh::durable::LogError;
use crate::model::{ChannelName, Draft, EventId, Record, Terms};
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
            ..Settings::default()
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
        match &self.condition {
            Some(Err(error)) => return Err(Fault::Failed(format!("condition: {error}"))),
            Some(Ok(condition)) => match condition.matches(&record.data) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Whoever publishes does not get around a rule by a payload that the rule cannot read.
                Err(unreadable) => {
                    return Err(Fault::Hopeless(format!("condition: {unreadable}")));
                }
            },
            None => {}
        }
        if !self.trigger.append.is_empty() {
            if record.hops >= TRIGGER_HOPS_MAX {
                return Err(Fault::Hopeless(
                    "loop: triggers have led to triggers too often".to_owned(),
                ));
            }
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
        let target = self.target(record.channel.as_str());
        if is_own(&target) {
            return Err(Fault::Hopeless(format!("nobody publishes on `{target}`")));
        }
        let delay = u64::try_from(self.trigger.delay.as_millis()).unwrap_or(u64::MAX);
        let due_ms = match delay {
            0 => 0,
            delay => unix_ms().saturating_add(delay),
        };
        loop {
            let again = Record {
                channel: ChannelName::new(&target),
                event: follower(record.event, &self.group),
                key: format!("{}/{}", self.group, record.event).into(),
                hops: record.hops + 1,
                origin: None,
                ..record.clone()
            };
            let mut draft = Draft::of(Terms::log(KEY_TTL), again);
            draft.due_ms = due_ms;
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

    /// The channel that gets it too.
    fn target(&self, channel: &str) -> String {
        let rest = channel.split_once(':').map_or(channel, |(_, rest)| rest);
        self.trigger
            .append
            .replace("{channel}", channel)
            .replace("{rest}", rest)
    }
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
    fn target_names_the_channel_or_its_rest() {
        let mut rule = Rule {
            group: "$trigger:orders:t".to_owned(),
            channels: Vec::new(),
            condition: None,
            tells_letters: false,
            trigger: Trigger {
                append: "billing:{rest}".to_owned(),
                ..Trigger::default()
            },
        };
        assert_eq!(rule.target("orders:7"), "billing:7");
        rule.trigger.append = "audit:{channel}".to_owned();
        assert_eq!(rule.target("orders:7"), "audit:orders:7");
    }
}

//! What namespaces keep less of than the whole stream: one of the processes purges it, from time to time.
//!
//! By age and by number, each a run of a namespace's oldest messages, so that what is left of a channel has no holes. Before they go
//! it is looked which groups were not given them: that is their loss.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::groups::Consumers;
use super::link::{Link, Opened};
use super::reader::Reader;
use crate::config::Config;
use crate::mesh::durable::LogError;
use crate::model::{ChannelName, Entry};
use crate::upstream::desk::unix_ms;
use crate::upstream::log::{Expiries, Forgotten};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Messages that go in one step, and bytes that are read of them.
const GONE_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 4 << 20;
/// Key of the state bucket that says which process purges, and until when nobody else does.
const KEEPER: &str = "keeper";
const LEAD_MS: u64 = 15_000;
/// The lead is taken again when so much of it is left.
const RENEWED_MS: u64 = 10_000;

/// What one namespace keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    name: Box<str>,
    /// What covers its channels.
    filters: Vec<String>,
    /// Milliseconds; 0 for as long as the stream.
    age_ms: u64,
    /// Messages of each channel; 0 for all.
    count: u64,
}

/// The rules of a configuration.
pub(super) fn rules(link: &Link, config: &Config) -> Vec<Rule> {
    let channels = &config.channels;
    let less = channels
        .namespaces
        .iter()
        .filter(|namespace| namespace.is_durable() && namespace.kept.is_less());
    less.map(|namespace| {
        let plain = format!("{}:*", namespace.name);
        let private = format!("{}{plain}", channels.private_prefix);
        Rule {
            name: namespace.name.as_str().into(),
            filters: link.subjects.filters([&*plain, &*private].into_iter()),
            age_ms: u64::try_from(namespace.kept.age.as_millis()).unwrap_or(u64::MAX),
            count: namespace.kept.count,
        }
    })
    .collect()
}

/// What was purged, for whoever has it in memory.
#[derive(Default)]
pub(super) struct Purged {
    begins: RefCell<BTreeMap<ChannelName, u64>>,
    pub(super) news: Notify,
}

impl Purged {
    pub(super) fn take(&self) -> Vec<(ChannelName, Forgotten)> {
        let begins = std::mem::take(&mut *self.begins.borrow_mut()).into_iter();
        begins
            .map(|(channel, first)| (channel, Forgotten::Before(first)))
            .collect()
    }
}

/// Who purges.
#[derive(Serialize, Deserialize)]
struct Lead {
    id: Box<str>,
    until_ms: u64,
}

/// See the module.
pub(super) struct Keeper {
    link: Arc<Link>,
    reader: Reader,
    groups: Consumers,
    purged: Rc<Purged>,
    id: Box<str>,
}

impl Keeper {
    pub(super) fn new(link: Arc<Link>, groups: Consumers, purged: Rc<Purged>) -> Self {
        Self {
            reader: Reader::new(link.clone()),
            groups,
            id: link.client().new_inbox().into(),
            link,
            purged,
        }
    }

    /// Purges what is not kept, for ever.
    pub(super) async fn run(self, rules: watch::Receiver<Vec<Rule>>) {
        loop {
            let current = rules.borrow().clone();
            let mut is_behind = false;
            if !current.is_empty() {
                match self.step(&current).await {
                    Ok(behind) => is_behind = behind,
                    Err(error) => tracing::debug!(%error, "what namespaces do not keep stays yet"),
                }
            }
            if !is_behind {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// One step of each rule. `true`: there is more.
    async fn step(&self, rules: &[Rule]) -> Result<bool, LogError> {
        let opened = self.link.opened()?;
        if !self.leads(&opened).await? {
            return Ok(false);
        }
        let mut is_behind = false;
        for rule in rules {
            for filter in &rule.filters {
                if rule.age_ms > 0 {
                    is_behind |= self.purge_old(&opened, rule, filter).await?;
                }
                if rule.count > 0 {
                    is_behind |= self.purge_many(&opened, rule, filter).await?;
                }
            }
        }
        Ok(is_behind)
    }

    /// Is it this process that purges?
    async fn leads(&self, opened: &Opened) -> Result<bool, LogError> {
        let failed = |error: &dyn std::fmt::Display| self.link.failed(error);
        let entry = opened.state.entry(KEEPER).await;
        let entry = entry.map_err(|error| failed(&error))?;
        let now_ms = unix_ms();
        let lead = Lead {
            id: self.id.clone(),
            until_ms: now_ms + LEAD_MS,
        };
        let value = serde_json::to_vec(&lead).map_err(|error| failed(&error))?;
        let entry = entry.filter(|entry| entry.operation == kv::Operation::Put);
        let Some(entry) = entry else {
            return Ok(opened.state.create(KEEPER, value.into()).await.is_ok());
        };
        let known: Option<Lead> = serde_json::from_slice(&entry.value).ok();
        match known {
            Some(known) if known.id == self.id && known.until_ms > now_ms + RENEWED_MS => Ok(true),
            Some(known) if known.id != self.id && known.until_ms > now_ms => Ok(false),
            Some(_) | None => {
                let updated = opened.state.update(KEEPER, value.into(), entry.revision);
                Ok(updated.await.is_ok())
            }
        }
    }

    async fn purge_old(
        &self,
        opened: &Opened,
        rule: &Rule,
        filter: &str,
    ) -> Result<bool, LogError> {
        let now_ms = unix_ms();
        let oldest = self
            .reader
            .first(opened, filter, GONE_AT_ONCE, BYTES_AT_ONCE);
        let oldest = oldest.await?;
        let is_old =
            |entry: &&Arc<Entry>| entry.record.unix_ms.saturating_add(rule.age_ms) <= now_ms;
        let gone: Vec<_> = oldest.iter().take_while(is_old).cloned().collect();
        let is_behind = !gone.is_empty() && gone.len() == oldest.len();
        self.purge(opened, rule, filter, gone).await?;
        Ok(is_behind)
    }

    async fn purge_many(
        &self,
        opened: &Opened,
        rule: &Rule,
        filter: &str,
    ) -> Result<bool, LogError> {
        let found = opened.stream.info_builder().subjects(filter).fetch().await;
        let mut found = found.map_err(|error| self.link.failed(&error))?;
        let mut full = Vec::new();
        while let Some(subject) = found.next().await {
            let (subject, count) = subject.map_err(|error| self.link.failed(&error))?;
            let over = (count as u64).saturating_sub(rule.count);
            if over > 0 {
                full.push((subject, usize::try_from(over).unwrap_or(usize::MAX)));
            }
        }
        let mut is_behind = false;
        for (subject, over) in full {
            let most = over.min(GONE_AT_ONCE);
            let gone = self
                .reader
                .first(opened, &subject, most, BYTES_AT_ONCE)
                .await?;
            is_behind |= gone.len() < over && !gone.is_empty();
            self.purge(opened, rule, &subject, gone).await?;
        }
        Ok(is_behind)
    }

    /// The oldest messages that a filter matches go.
    async fn purge(
        &self,
        opened: &Opened,
        rule: &Rule,
        filter: &str,
        gone: Vec<Arc<Entry>>,
    ) -> Result<(), LogError> {
        let Some(last) = gone.last().map(|entry| entry.cursor) else {
            return Ok(());
        };
        let losses = self.groups.unread_among(&gone).await?;
        let purge = opened.stream.purge().filter(filter).sequence(last + 1);
        purge.await.map_err(|error| self.link.failed(&error))?;
        {
            let mut begins = self.purged.begins.borrow_mut();
            for entry in &gone {
                let first = begins.entry(entry.record.channel.clone()).or_default();
                *first = (*first).max(entry.position.offset.0 + 1);
            }
        }
        self.purged.news.notify_one();
        self.link.status.send_modify(|status| {
            let at = status
                .expiries
                .iter()
                .position(|one| one.namespace == rule.name);
            let at = at.unwrap_or_else(|| {
                status.expiries.push(Expiries {
                    namespace: rule.name.clone(),
                    ..Expiries::default()
                });
                status.expiries.len() - 1
            });
            status.expiries[at].entries += gone.len() as u64;
            let bytes: usize = gone.iter().map(|entry| entry.record.bytes()).sum();
            status.expiries[at].bytes += bytes as u64;
        });
        self.groups.lose(losses).await
    }
}

//! Tenants that the admin listener adds: kept in the durable log, so that a restart loses none, and checked together with
//! what stands in files. What control does with them is here, who keeps them is in `keep`.

mod keep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::Control;
use crate::config::{AddedTenant, Config, ConfigError, ConfigErrors, ValueOrigin, Written};
use crate::mesh::control::{ShardLink, ToShard};
use crate::model::ShardId;
use crate::upstream::bridge::ValueAsk;

pub(super) use keep::{Change, Done, Keeper, Refused};

/// What the keys of these values begin with; the id follows.
const PREFIX: &str = "tenant/";
/// The start waits so long for a log that is not there yet; then it serves without the tenants that are kept there.
const PATIENCE: Duration = Duration::from_secs(3);

/// A tenant as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The keys of one of `[[tenants]]`, JSON.
    pub text: String,
    /// Name of the key that it was changed with last.
    pub by: String,
    /// When, Unix seconds.
    pub at: u64,
    /// What that request was called.
    pub request_id: String,
}

/// Those that are kept, by id.
pub type KeptTenants = BTreeMap<String, Kept>;

/// Why one that is kept does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// For people. It holds no secret.
    pub text: String,
    /// It stands in a file, too.
    pub is_elsewhere: bool,
}

/// What is known of those that are kept.
#[derive(Clone, Debug, Default)]
pub struct Tenancy {
    /// The log was asked. Before that nothing is added to them.
    pub is_known: bool,
    /// All of them.
    pub kept: Arc<KeptTenants>,
    /// Those that do not fit what stands in the files, and therefore do not work.
    pub left_out: Arc<BTreeMap<String, Misfit>>,
}

/// The configuration with all tenants that fit into it, and those that do not.
///
/// # Errors
/// What is written is wrong by itself.
fn fitting(
    written: &Written,
    kept: &KeptTenants,
) -> Result<(Config, BTreeMap<String, Misfit>), ConfigErrors> {
    let mut left_out = BTreeMap::new();
    loop {
        let fit = kept.iter().filter(|(id, _)| !left_out.contains_key(*id));
        let added = fit.map(|(id, kept)| AddedTenant {
            id,
            text: &kept.text,
        });
        let errors = match written.load(&added.collect::<Vec<_>>()) {
            Ok(config) => return Ok((config, left_out)),
            Err(errors) => errors,
        };
        let before = left_out.len();
        for error in &errors.0 {
            if let ValueOrigin::Added(id) = error.origin() {
                left_out.entry(id.clone()).or_insert_with(|| Misfit {
                    text: error.to_string(),
                    is_elsewhere: is_elsewhere(error),
                });
            }
        }
        if left_out.len() == before {
            return Err(errors);
        }
    }
}

/// Is it the whole tenant that stands twice, once in a file?
fn is_elsewhere(error: &ConfigError) -> bool {
    matches!(error, ConfigError::Repeated { key, first, .. }
        if key.starts_with("tenants[") && key.ends_with("].id") && !matches!(first, ValueOrigin::Added(_)))
}

/// What the log says, read.
fn read(found: Vec<(String, Vec<u8>)>) -> KeptTenants {
    let one = |(key, value): (String, Vec<u8>)| {
        let id = key.strip_prefix(PREFIX)?.to_owned();
        match serde_json::from_slice(&value) {
            Ok(kept) => Some((id, kept)),
            Err(error) => {
                error!(tenant = %id, %error, "what the durable log keeps of a tenant cannot be read: it is left out");
                None
            }
        }
    };
    found.into_iter().filter_map(one).collect()
}

/// The configuration that the process begins with, before anybody is accepted: with the tenants that the log keeps. The shards
/// are given it where it differs from the one that they have.
#[must_use]
pub fn at_start(
    written: &Written,
    config: Arc<Config>,
    values: Option<&mpsc::Sender<ValueAsk>>,
    links: &[ShardLink],
) -> (Arc<Config>, Tenancy) {
    let nothing = Tenancy::default();
    let Some(values) = values else {
        return (config, nothing);
    };
    let (answer, found) = oneshot::channel();
    let ask = ValueAsk::All {
        prefix: PREFIX.to_owned(),
        patience: PATIENCE,
        answer,
    };
    if values.blocking_send(ask).is_err() {
        return (config, nothing);
    }
    let kept = match found.blocking_recv() {
        Ok(Ok(found)) => read(found),
        Ok(Err(error)) => {
            warn!(%error, "tenants that were added at /admin/tenants are not known yet: their clients are refused until the durable log is there");
            return (config, nothing);
        }
        Err(_) => return (config, nothing),
    };
    let mut tenancy = Tenancy {
        is_known: true,
        ..Tenancy::default()
    };
    if kept.is_empty() {
        return (config, tenancy);
    }
    let kept = Arc::new(kept);
    // What is written was read before.
    let Ok((mut next, left_out)) = fitting(written, &kept) else {
        return (config, nothing);
    };
    tell_left_out(&left_out, &BTreeMap::new());
    (tenancy.kept, tenancy.left_out) = (kept, Arc::new(left_out));
    next.channels.inherit_quotas(&config.channels);
    let next = Arc::new(next);
    for link in links {
        let sent = link.queue.push(ToShard::Reload(Arc::clone(&next)));
        assert!(sent.is_ok(), "nothing was sent before");
    }
    (next, tenancy)
}

fn tell_left_out(left_out: &BTreeMap<String, Misfit>, before: &BTreeMap<String, Misfit>) {
    for (id, misfit) in left_out {
        if !before.contains_key(id) {
            error!(tenant = %id, reason = %misfit.text, "a tenant that was added at /admin/tenants is left out");
        }
    }
}

/// Which tenants there should be, beside those of the files.
pub(super) struct Wanted {
    pub(super) kept: Arc<KeptTenants>,
    /// The one that changes: it must fit, and so must all that do now. `None` where another process has changed some already.
    pub(super) about: Option<String>,
    /// Nothing changes yet.
    pub(super) is_question: bool,
    /// Told when all shards work with it.
    pub(super) answer: oneshot::Sender<Result<(), Misfit>>,
}

/// A configuration that was found to be right and is not in force.
pub(super) struct Checked {
    /// In place of which.
    before: Arc<Config>,
    kept: Arc<KeptTenants>,
    next: Arc<Config>,
    left_out: BTreeMap<String, Misfit>,
}

/// Who waits until all shards work with a configuration.
pub(super) struct Awaited {
    config: Arc<Config>,
    /// One bit for each shard that does not.
    shards: u64,
    answer: oneshot::Sender<Result<(), Misfit>>,
}

impl Control {
    pub(super) fn tenants_wanted(&mut self, wanted: Wanted) {
        let checked = match self.checked_tenants(&wanted) {
            Ok(checked) => checked,
            Err(misfit) => return drop(wanted.answer.send(Err(misfit))),
        };
        if wanted.is_question {
            self.checked = Some(checked);
            return drop(wanted.answer.send(Ok(())));
        }
        let Checked { next, left_out, .. } = checked;
        if let Err(text) = self.take(Arc::clone(&next)) {
            return drop(wanted.answer.send(Err(refused(text))));
        }
        tell_left_out(&left_out, &self.tenancy.borrow().left_out);
        self.tenancy.send_replace(Tenancy {
            is_known: true,
            kept: wanted.kept,
            left_out: Arc::new(left_out),
        });
        let all = self.parts.links.iter().map(|link| link.shard);
        let working = all.filter(|shard| !self.roster.has_ended(*shard));
        self.awaited.push(Awaited {
            config: next,
            shards: working.map(|shard| 1 << shard.0).sum(),
            answer: wanted.answer,
        });
    }

    fn checked_tenants(&mut self, wanted: &Wanted) -> Result<Checked, Misfit> {
        if self.is_ending() {
            return Err(refused(
                "this process drains: nothing changes any more".to_owned(),
            ));
        }
        let before = &self.parts.config;
        if let Some(checked) = self.checked.take()
            && Arc::ptr_eq(&checked.before, before)
            && Arc::ptr_eq(&checked.kept, &wanted.kept)
        {
            return Ok(checked);
        }
        let fitting = fitting(&self.parts.written, &wanted.kept);
        let (next, left_out) = fitting.map_err(|errors| refused(errors.to_string()))?;
        if let Some(id) = &wanted.about {
            let now = &self.tenancy.borrow().left_out;
            let own = left_out.get(id);
            let new = || left_out.iter().find(|(id, _)| !now.contains_key(*id));
            if let Some(misfit) = own.or_else(|| Some(new()?.1)) {
                return Err(misfit.clone());
            }
        }
        before
            .reload_from(&next)
            .map_err(|error| refused(error.to_string()))?;
        Ok(Checked {
            before: Arc::clone(before),
            kept: Arc::clone(&wanted.kept),
            next: Arc::new(self.going_on(next)),
            left_out,
        })
    }

    /// What is written has changed: everything that is kept and works must go on to.
    pub(super) fn with_kept(&mut self, written: &Written) -> Result<Arc<Config>, String> {
        let Tenancy { kept, left_out, .. } = self.tenancy.borrow().clone();
        let (next, misfits) = fitting(written, &kept).map_err(|errors| errors.to_string())?;
        if let Some((_, new)) = misfits.iter().find(|(id, _)| !left_out.contains_key(*id)) {
            return Err(new.text.clone());
        }
        self.parts
            .config
            .reload_from(&next)
            .map_err(|refused| refused.to_string())?;
        let next = Arc::new(self.going_on(next));
        self.take(Arc::clone(&next))?;
        self.tenancy
            .send_modify(|tenancy| tenancy.left_out = Arc::new(misfits));
        Ok(next)
    }

    /// A shard works with this configuration, or with none any more.
    pub(super) fn taken_by(&mut self, shard: ShardId, config: Option<&Arc<Config>>) {
        let is_it = |of: &Arc<Config>| config.is_none_or(|config| Arc::ptr_eq(config, of));
        for awaited in &mut self.awaited {
            if is_it(&awaited.config) {
                awaited.shards &= !(1 << shard.0);
            }
        }
        for over in self.awaited.extract_if(.., |awaited| awaited.shards == 0) {
            // Whoever asked may have gone.
            drop(over.answer.send(Ok(())));
        }
    }
}

fn refused(text: String) -> Misfit {
    Misfit {
        text,
        is_elsewhere: false,
    }
}

//! Who keeps the tenants of the admin listener: one change after the other goes through the log, and what other processes with the
//! same log change is followed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Kept, KeptTenants, Misfit, PREFIX, Tenancy, Wanted, read};
use crate::control::clock;
use crate::mesh::durable::LogError;
use crate::upstream::bridge::ValueAsk;

/// Its value is another one after each change: whoever shares the log looks at this one alone.
const REVISION: &str = "tenants";
/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A log or a shard that takes longer to do its part is reported.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// What an operator asks for.
pub(in crate::control) struct Change {
    /// Which tenant.
    pub(in crate::control) id: String,
    /// The keys of one of `[[tenants]]`, JSON; `None` removes it.
    pub(in crate::control) text: Option<String>,
    /// Name of the key that it is asked for with.
    pub(in crate::control) by: String,
    /// What the request is called.
    pub(in crate::control) request_id: String,
    /// Gets the outcome.
    pub(in crate::control) answer: oneshot::Sender<Result<Done, Refused>>,
}

/// What was done.
#[derive(Debug)]
pub(in crate::control) struct Done {
    /// `added`, `changed` or `removed`.
    pub(in crate::control) change: &'static str,
    /// Keys that differ.
    pub(in crate::control) keys: Vec<String>,
}

/// Why nothing was done.
#[derive(Debug)]
pub(in crate::control) enum Refused {
    /// There is no such tenant.
    Unknown,
    /// It stands in a file, and changes there.
    Elsewhere(String),
    /// It does not fit.
    Misfit(String),
    /// The log is not there, or did not answer: the same may be asked again.
    Unavailable(String),
}

impl From<Misfit> for Refused {
    fn from(misfit: Misfit) -> Self {
        match misfit.is_elsewhere {
            true => Self::Elsewhere(misfit.text),
            false => Self::Misfit(misfit.text),
        }
    }
}

/// See the module.
pub(in crate::control) struct Keeper {
    /// The way to the log.
    pub(in crate::control) values: mpsc::Sender<ValueAsk>,
    /// The way to control.
    pub(in crate::control) wanted: mpsc::Sender<Wanted>,
    /// What there is.
    pub(in crate::control) tenancy: watch::Receiver<Tenancy>,
    /// Other processes may have the same log.
    pub(in crate::control) is_shared: bool,
}

impl Keeper {
    /// Until nobody asks any more.
    pub(in crate::control) async fn run(self, mut changes: mpsc::Receiver<Change>) {
        let mut seen = None;
        // Nobody knows what is kept after a write without an answer.
        let mut is_sure = true;
        loop {
            let looks = self.is_shared || !is_sure || !self.tenancy.borrow().is_known;
            tokio::select! {
                biased;
                change = changes.recv() => {
                    let Some(change) = change else { return };
                    if looks {
                        is_sure = self.look(&mut seen, is_sure).await.is_ok();
                    }
                    let outcome = match is_sure {
                        true => self.change(&change, &mut seen, &mut is_sure).await,
                        false => Err(away("the tenants that it keeps cannot be read")),
                    };
                    tell(&change, &outcome);
                    // Whoever asked may have gone.
                    drop(change.answer.send(outcome));
                }
                () = sleep(LOOK_INTERVAL), if looks => {
                    is_sure = self.look(&mut seen, is_sure).await.is_ok();
                }
            }
        }
    }

    /// Takes over what is kept where that may have changed.
    async fn look(&self, seen: &mut Option<Vec<u8>>, is_sure: bool) -> Result<(), Refused> {
        let mut revision = self.all(REVISION).await?;
        let revision = revision.pop().map(|(_, value)| value).unwrap_or_default();
        let Tenancy { is_known, kept, .. } = self.tenancy.borrow().clone();
        if is_sure && is_known && seen.as_ref() == Some(&revision) {
            return Ok(());
        }
        let found = read(self.all(PREFIX).await?);
        if !is_known || found != *kept {
            self.want(Arc::new(found), None, false).await?;
            info!("tenants of the durable log are taken over");
        }
        *seen = Some(revision);
        Ok(())
    }

    async fn change(
        &self,
        change: &Change,
        seen: &mut Option<Vec<u8>>,
        is_sure: &mut bool,
    ) -> Result<Done, Refused> {
        let before = Arc::clone(&self.tenancy.borrow().kept);
        let mut kept = KeptTenants::clone(&before);
        let old = kept.remove(&change.id);
        match (&change.text, &old) {
            (Some(text), _) => {
                let one = Kept {
                    text: text.clone(),
                    by: change.by.clone(),
                    at: clock::unix_s(),
                    request_id: change.request_id.clone(),
                };
                kept.insert(change.id.clone(), one);
            }
            (None, Some(_)) => {}
            (None, None) => return Err(self.not_kept(change, kept).await),
        }
        let new = kept.get(&change.id).cloned();
        let kept = Arc::new(kept);
        self.want(Arc::clone(&kept), Some(&change.id), true).await?;
        let stored = self.put(&change.id, new.as_ref()).await;
        *is_sure = stored.is_ok();
        stored?;
        if let Err(refused) = self.want(kept, Some(&change.id), false).await {
            // What is written has changed meanwhile, or a shard does not listen.
            *is_sure = self.put(&change.id, old.as_ref()).await.is_ok();
            return Err(refused);
        }
        if self.is_shared {
            let revision = change.request_id.clone().into_bytes();
            if self.store(REVISION, Some(revision.clone())).await.is_err() {
                warn!(
                    "other processes with this log learn of this tenant with the next change, or at their start"
                );
            }
            *seen = Some(revision);
        }
        let text = |kept: &Option<Kept>| {
            kept.as_ref()
                .map_or("{}", |kept| kept.text.as_str())
                .to_owned()
        };
        Ok(Done {
            change: match (old.is_some(), new.is_some()) {
                (true, true) => "changed",
                (_, true) => "added",
                (_, false) => "removed",
            },
            keys: keys_that_differ(&text(&old), &text(&new)),
        })
    }

    /// Why a tenant is not removed that is not kept: it stands in a file, or nowhere.
    async fn not_kept(&self, change: &Change, mut kept: KeptTenants) -> Refused {
        let id = serde_json::json!({ "id": change.id });
        let one = Kept {
            text: id.to_string(),
            by: String::new(),
            at: 0,
            request_id: String::new(),
        };
        kept.insert(change.id.clone(), one);
        match self.want(Arc::new(kept), Some(&change.id), true).await {
            Err(Refused::Elsewhere(text)) => Refused::Elsewhere(text),
            _ => Refused::Unknown,
        }
    }

    async fn want(
        &self,
        kept: Arc<KeptTenants>,
        about: Option<&str>,
        is_question: bool,
    ) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        let wanted = Wanted {
            kept,
            about: about.map(str::to_owned),
            is_question,
            answer,
        };
        if self.wanted.send(wanted).await.is_err() {
            return Err(away("this process ends"));
        }
        match timeout(STEP_TIMEOUT, answered).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            Ok(Err(_)) => Err(away("this process ends")),
            Err(_) => Err(away("a shard does not take it in time")),
        }
    }

    async fn put(&self, id: &str, kept: Option<&Kept>) -> Result<(), Refused> {
        let value = kept.map(serde_json::to_vec).transpose();
        let value = value.map_err(|error| Refused::Misfit(error.to_string()))?;
        self.store(&format!("{PREFIX}{id}"), value).await
    }

    async fn store(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), Refused> {
        let (done, stored) = oneshot::channel();
        let key = key.to_owned();
        self.ask(ValueAsk::Put { key, value, done }, stored).await
    }

    async fn all(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Refused> {
        let (answer, found) = oneshot::channel();
        let ask = ValueAsk::All {
            prefix: prefix.to_owned(),
            patience: Duration::ZERO,
            answer,
        };
        self.ask(ask, found).await
    }

    async fn ask<T>(
        &self,
        ask: ValueAsk,
        answered: oneshot::Receiver<Result<T, LogError>>,
    ) -> Result<T, Refused> {
        if self.values.send(ask).await.is_err() {
            return Err(away("it is closed"));
        }
        match timeout(STEP_TIMEOUT, answered).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(Refused::Unavailable(error.to_string())),
            Ok(Err(_)) => Err(away("it is closed")),
            Err(_) => Err(away("it does not answer in time")),
        }
    }
}

fn away(reason: &str) -> Refused {
    Refused::Unavailable(format!("the durable log is not available: {reason}"))
}

/// A line for each change and each refusal.
fn tell(change: &Change, outcome: &Result<Done, Refused>) {
    let Change {
        id, by, request_id, ..
    } = change;
    match outcome {
        Ok(done) => {
            let keys = done.keys.join(", ");
            info!(tenant = %id, %by, %request_id, %keys, "tenant {}", done.change);
        }
        Err(Refused::Unknown) => {
            info!(tenant = %id, %by, %request_id, "tenant not removed: there is none");
        }
        Err(
            Refused::Elsewhere(reason) | Refused::Misfit(reason) | Refused::Unavailable(reason),
        ) => warn!(tenant = %id, %by, %request_id, %reason, "tenant not changed"),
    }
}

/// Paths of the keys whose values differ. Values are never told.
fn keys_that_differ(old: &str, new: &str) -> Vec<String> {
    fn leaves(path: &str, value: &Value, found: &mut BTreeSet<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    leaves(&format!("{path}{dot}{name}"), value, found);
                }
            }
            value => drop(found.insert((path.to_owned(), value.to_string()))),
        }
    }
    let of = |text: &str| {
        let mut found = BTreeSet::new();
        let value = serde_json::from_str(text).unwrap_or_default();
        leaves("", &value, &mut found);
        found
    };
    let (old, new) = (of(old), of(new));
    let differ = old.symmetric_difference(&new);
    let keys: BTreeSet<&str> = differ.map(|(path, _)| path.as_str()).collect();
    keys.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::keys_that_differ;

    #[test]
    fn a_change_is_told_by_its_keys() {
        let old = r#"{"id":"a","hosts":["x"],"token":{"hmac_secret_key":"1","issuer":"i"}}"#;
        let new = r#"{"id":"a","token":{"issuer":"i","hmac_secret_key":"2"},"channel_set":"s"}"#;
        assert_eq!(
            keys_that_differ(old, new),
            ["channel_set", "hosts", "token.hmac_secret_key"]
        );
        assert!(keys_that_differ(old, old).is_empty());
    }
}

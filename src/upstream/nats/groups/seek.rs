//! A group begins anew elsewhere: another consumer takes the place of the one that it has.
//!
//! What is to be done stands in the bucket before anything is done, under a name that the new consumer bears. So whoever reads it
//! later knows whether the seek has come to its end, and may finish it where its process was killed.

use std::time::Duration;

use async_nats::jetstream::consumer::Config;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Consumers, group_key, is_absent, start_of, stored};
use crate::mesh::durable::LogError;
use crate::upstream::log::Group;
use crate::upstream::nats::link::{Link, Opened};
use crate::upstream::nats::subject::name;

/// What of a consumer says which seek has made it.
const MADE_BY: &str = "ringmain.seek";
/// How often it is looked whether somebody else's seek has come half way.
const LOOK: Duration = Duration::from_secs(30);

/// A group as it stands in the bucket.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    #[serde(flatten)]
    pub group: Group,
    /// A seek that has begun and may not be finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seek: Option<Box<str>>,
}

impl Stored {
    /// It stands there from now on.
    pub(super) async fn put(&self, link: &Link, opened: &Opened) -> Result<(), LogError> {
        let value = serde_json::to_vec(self).map_err(|error| link.failed(&error))?;
        let put = opened.state.put(group_key(&self.group.name), value.into());
        put.await.map_err(|error| link.failed(&error))?;
        Ok(())
    }
}

/// The seek has made this consumer.
pub(super) fn is_finished(consumer: &Config, seek: Option<&str>) -> bool {
    consumer.metadata.get(MADE_BY).map(String::as_str) == seek
}

impl Consumers {
    /// See `Groups::seek_group`.
    pub(super) async fn seek(&self, group: &str, after: u64) -> Result<(), LogError> {
        let opened = self.link.opened()?;
        let Some(mut stored) = stored(&self.link, &opened, group).await? else {
            return Err(LogError::NotFound(format!("no group {group}").into()));
        };
        self.looked.borrow_mut().remove(group);
        let number = getrandom::u64().map_err(|error| self.link.failed(&error))?;
        stored.group.start_after = Some(after);
        stored.seek = Some(format!("{number:x}").into());
        // First: whoever comes after this one, should it come no further, finishes it.
        stored.put(&self.link, &opened).await?;
        self.begin_anew(&opened, stored).await
    }

    /// Does what stands in the bucket.
    pub(super) async fn begin_anew(
        &self,
        opened: &Opened,
        mut stored: Stored,
    ) -> Result<(), LogError> {
        let failed = |error: &dyn std::fmt::Display| self.link.failed(error);
        let consumer = name(&stored.group.name);
        match opened.stream.delete_consumer(&consumer).await {
            Ok(_) => {}
            Err(error) => {
                let gone = opened.stream.consumer_info(&consumer).await;
                if !gone.is_err_and(|gone| is_absent(gone.kind())) {
                    return Err(failed(&error));
                }
            }
        }
        let histories = format!("{}{consumer}.>", opened.failures.prefix);
        let purged = opened.failures.stream.purge().filter(histories).await;
        purged.map_err(|error| failed(&error))?;
        let mut config = self.consumer(&stored.group, consumer, start_of(&stored.group));
        if let Some(seek) = stored.seek.take() {
            config.metadata.insert(MADE_BY.to_owned(), seek.into());
        }
        let made = opened.stream.create_consumer(config).await;
        made.map_err(|error| failed(&error))?;
        stored.put(&self.link, opened).await?;
        // Until here its leases are known: what is said of them fails, as nobody hears it.
        self.pulls.borrow_mut().remove(&stored.group.name);
        Ok(())
    }

    /// Where the group is to begin by a seek that has begun and is not finished, with the consumer that it has.
    pub(super) async fn sought(
        &self,
        opened: &Opened,
        group: &str,
        consumer: Option<&Config>,
    ) -> Result<Option<u64>, LogError> {
        let looked = self.looked.borrow().get(group).copied();
        if consumer.is_some() && looked.is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(None);
        }
        let stored = stored(&self.link, opened, group).await?;
        let Some(mut stored) = stored.filter(|stored| stored.seek.is_some()) else {
            self.looked
                .borrow_mut()
                .insert(group.into(), Instant::now());
            return Ok(None);
        };
        if consumer.is_some_and(|consumer| is_finished(consumer, stored.seek.as_deref())) {
            // Only that was left to say.
            stored.seek = None;
            stored.put(&self.link, opened).await?;
            return Ok(None);
        }
        Ok(stored.group.start_after)
    }
}

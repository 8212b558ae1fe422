//! Which letters are meant.

use crate::config::glob_match;
use crate::mesh::durable::LogError;
use crate::model::TenantId;
use crate::upstream::desk::bad_request;
use crate::upstream::log::{Cause, DeadLetter};

/// What a letter must be to be meant. Whatever is absent every letter is.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Whose letters; empty for `default`.
    pub tenant: Box<str>,
    /// Text in the reason of the last attempt.
    pub reason: Option<Box<str>>,
    /// Class of that reason.
    pub class: Option<Cause>,
    /// Name or pattern of its channel.
    pub channel: Option<Box<str>>,
    /// Its idempotency key.
    pub key: Option<Box<str>>,
    /// It died then or later, Unix milliseconds.
    pub from: Option<u64>,
    /// It died before.
    pub to: Option<u64>,
}

impl Filter {
    /// Does it leave nothing of a tenant's out?
    pub(super) fn is_empty(&self) -> bool {
        self.reason.is_none()
            && self.class.is_none()
            && self.channel.is_none()
            && self.key.is_none()
            && self.from.is_none()
            && self.to.is_none()
    }

    /// Is this one meant?
    pub(super) fn fits(&self, letter: &DeadLetter) -> bool {
        let record = &letter.entry.record;
        let reason = self.reason.as_deref();
        let channel = self.channel.as_deref();
        TenantId::of(&letter.group).as_str() == &*self.tenant
            && reason.is_none_or(|text| letter.reason().contains(text))
            && self.class.is_none_or(|class| letter.cause() == class)
            && channel.is_none_or(|glob| glob_match(glob, letter.entry.shown_at().0.whole()))
            && self.key.as_deref().is_none_or(|key| *record.key == *key)
            && self.from.is_none_or(|from| letter.unix_ms >= from)
            && self.to.is_none_or(|to| letter.unix_ms < to)
    }
}

/// The class that is called so.
pub(super) fn class(name: &str) -> Result<Cause, LogError> {
    Cause::parse(name).ok_or_else(|| {
        let names: Vec<&str> = Cause::names().collect();
        bad_request(&format!("`class` is one of {}", names.join(", ")))
    })
}

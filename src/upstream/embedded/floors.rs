//! What namespaces keep less of than the whole log: their rules, and where what they keep begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::durable::Expired;
use crate::config::namespace::is_queue;
use crate::config::{ChannelRules, Config, Namespace};
use crate::model::TenantId;
use crate::upstream::desk::turns::Key;

/// Kind of the rows of floors, before the name of a namespace.
pub const FLOORS: &[u8] = b"n/";
/// Kind of the rows of what was removed of segments, before their numbers: bytes and entries.
pub const FREED: &[u8] = b"x/";

/// What one namespace keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Milliseconds of log time; `None` for as long as the whole log.
    pub age_ms: Option<u64>,
    /// Bytes of its blocks; `None` for as many as the whole log.
    pub bytes: Option<u64>,
    /// Entries of each channel; `None` for all.
    pub count: Option<u64>,
    /// What a group has not done becomes a dead letter.
    pub makes_letters: bool,
    /// By what a later entry replaces an earlier one, and after how many milliseconds.
    pub compacts: Option<(Key, u64)>,
}

impl Rule {
    /// It keeps less than the whole log.
    #[must_use]
    pub const fn is_less(&self) -> bool {
        self.age_ms.is_some() || self.bytes.is_some() || self.count.is_some()
    }

    fn of(namespace: &Namespace) -> Option<Self> {
        let kept = namespace.kept;
        let some = |number: u64| (number > 0).then_some(number);
        let makes_letters = kept.expired == Expired::DeadLetter;
        let after = u64::try_from(namespace.compact_after.as_millis()).unwrap_or(u64::MAX);
        let key = Key::parse(&namespace.compact_by).ok();
        let has_some = kept.is_less() || makes_letters || key.is_some();
        (namespace.is_durable() && has_some).then(|| Self {
            compacts: key.map(|key| (key, after)),
            age_ms: some(u64::try_from(kept.age.as_millis()).unwrap_or(u64::MAX)),
            bytes: some(kept.bytes),
            count: some(kept.count),
            makes_letters,
        })
    }
}

/// The rules of all namespaces that have some.
#[derive(Debug, Default)]
pub struct Rules {
    names: Names,
    of: BTreeMap<Box<str>, Rule>,
}

/// How channels are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Arc<ChannelRules>);

impl Names {
    /// The namespace that a channel's name says; `None` for the queue of a group, which is in none.
    #[must_use]
    pub fn namespace<'a>(&self, channel: &'a str) -> Option<&'a str> {
        // What tenants have is kept as long as the whole log.
        let is_meant = TenantId::of(channel).is_default() && !is_queue(channel);
        is_meant.then(|| self.0.named(channel))
    }
}

impl Rules {
    /// Those of the configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let channels = &config.channels;
        let named = channels.namespaces.iter().map(|one| (&*one.name, one));
        let all = std::iter::once(("", &channels.without_namespace)).chain(named);
        let rule = |(name, one): (&str, &Arc<Namespace>)| Some((name.into(), Rule::of(one)?));
        let names = ChannelRules {
            namespaces: Vec::new(),
            ..channels.clone()
        };
        Self {
            of: all.filter_map(rule).collect(),
            names: Names(Arc::new(names)),
        }
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// All, by namespace.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.of.iter().map(|(name, rule)| (&**name, rule))
    }

    /// Those of a channel.
    #[must_use]
    pub fn find(&self, channel: &str) -> Option<&Rule> {
        if self.of.is_empty() {
            return None;
        }
        self.of.get(self.names.namespace(channel)?)
    }

    /// How channels are named.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }
}

/// Where what a namespace keeps begins, and what is known of its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Its entries up to this cursor are forgotten.
    pub cursor: u64,
    /// Its bytes are counted up to this cursor.
    pub counted: u64,
    /// Bytes of its blocks between the two.
    pub bytes: u64,
}

impl Floor {
    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> [u8; 24] {
        let mut out = [0; 24];
        for (part, number) in out
            .chunks_mut(8)
            .zip([self.cursor, self.counted, self.bytes])
        {
            part.copy_from_slice(&number.to_be_bytes());
        }
        out
    }

    /// From what is stored.
    #[must_use]
    pub fn decode(value: &[u8]) -> Self {
        let number = |at: usize| {
            let bytes = value.get(at..at + 8).and_then(|part| part.try_into().ok());
            bytes.map_or(0, u64::from_be_bytes)
        };
        Self {
            cursor: number(0),
            counted: number(8),
            bytes: number(16),
        }
    }
}

/// The floors of all namespaces that ever had rules: what was forgotten once stays so, whatever the rules are now.
#[derive(Clone, Debug, Default)]
pub struct Floors {
    names: Names,
    of: BTreeMap<Box<str>, Floor>,
}

impl Floors {
    /// Nothing was ever forgotten.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// That of a namespace.
    #[must_use]
    pub fn get(&self, namespace: &str) -> Floor {
        self.of.get(namespace).copied().unwrap_or_default()
    }

    /// It is there now.
    pub fn set(&mut self, namespace: &str, floor: Floor) {
        self.of.insert(namespace.into(), floor);
    }

    /// Channels are named so now.
    pub fn rename(&mut self, names: &Names) {
        self.names = names.clone();
    }

    /// Entries of a channel up to this cursor are forgotten. A block is forgotten as a whole.
    #[must_use]
    pub fn of(&self, channel: &str) -> u64 {
        if self.of.is_empty() {
            return 0;
        }
        let namespace = self.names.namespace(channel);
        namespace.map_or(0, |namespace| self.get(namespace).cursor)
    }
}

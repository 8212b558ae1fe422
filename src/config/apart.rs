//! What tells publications of one channel apart: the grammar of `compact_by`, `conflate_key` and of the turns in a queue group.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::wire::condition::{self, Step};
use crate::wire::json::lookup::Document;

/// What of a publication tells it apart from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Key {
    /// Its channel.
    Channel,
    /// Who published it; nothing for a service.
    User,
    /// The value of a tag.
    Tag(Box<str>),
    /// The value at a path of its payload, as it is written and read.
    Data(Box<str>, Vec<Step>),
}

/// A text that is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of `channel`, `user`, `tag:NAME` and `data:PATH`")]
pub struct KeyError(Box<str>);

/// What of a publication is looked at for its key.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its channel.
    pub channel: &'a str,
    /// Who published it; empty for a service.
    pub user: &'a str,
    /// Its tags.
    pub tags: &'a [(Box<str>, Box<str>)],
    /// Its payload.
    pub data: &'a [u8],
}

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let wrong = || KeyError(text.chars().take(64).collect::<String>().into());
        match text.split_once(':') {
            None if text == "channel" => Ok(Self::Channel),
            None if text == "user" => Ok(Self::User),
            Some(("tag", name)) if !name.is_empty() => Ok(Self::Tag(name.into())),
            Some(("data", path)) => {
                let steps = condition::path(path).map_err(|_| wrong())?;
                Ok(Self::Data(path.into(), steps))
            }
            _ => Err(wrong()),
        }
    }

    /// The key of a publication; empty where it has none.
    #[must_use]
    pub fn of<'a>(&self, seen: Seen<'a>) -> Cow<'a, [u8]> {
        match self {
            Self::Channel => seen.channel.as_bytes().into(),
            Self::User => seen.user.as_bytes().into(),
            Self::Tag(wanted) => {
                let found = seen.tags.iter().find(|(name, _)| name == wanted);
                found.map_or("", |(_, value)| &**value).as_bytes().into()
            }
            Self::Data(_, path) => {
                // What nobody can read has no key.
                let document = Document::new(seen.data).ok();
                let found = document.and_then(|document| document.at(path).ok().flatten());
                found.map_or(Cow::Borrowed(b""), |value| {
                    value
                        .string()
                        .unwrap_or_else(|| value.text().as_bytes().into())
                })
            }
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Channel => f.write_str("channel"),
            Self::User => f.write_str("user"),
            Self::Tag(name) => write!(f, "tag:{name}"),
            Self::Data(path, _) => write!(f, "data:{path}"),
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::parse(&text)
    }
}

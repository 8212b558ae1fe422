//! Keys of services and of operators: several at a time, each with a name, so that one can be changed for another.
//!
//! A key is compared by its hash alone, in the same time whatever was sent. The configuration may hold that hash in place of the key.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Secret, glob_match};
use crate::image::image;

/// Methods of the server API that a key can be limited to, as in `/api/<method>`. `batch` is none: the commands in it are.
pub const API_METHODS: [&str; 40] = [
    "publish",
    "broadcast",
    "unsubscribe",
    "disconnect",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "info",
    "rpc",
    "subscribe",
    "refresh",
    "revoke_token",
    "invalidate_user_tokens",
    "block_user",
    "unblock_user",
    "queue/fetch",
    "queue/ack",
    "queue/nak",
    "queue/extend",
    "queue/request",
    "queue/reply",
    "queue/groups",
    "queue/delete",
    "queue/pause",
    "queue/resume",
    "queue/seek",
    "queue/purge",
    "queue/peek",
    "queue/copy",
    "queue/workers",
    "dlq/list",
    "dlq/show",
    "dlq/retry",
    "dlq/drop",
    "replay",
    "scheduled/list",
    "scheduled/cancel",
    "scheduled/change",
];

/// Those of them that act on channels that the request names, and on nothing else.
pub const CHANNEL_METHODS: [&str; 8] = [
    "publish",
    "broadcast",
    "unsubscribe",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "subscribe",
];

/// What stands in front of a hash, and names how it is made.
pub const HASH_PREFIX: &str = "sha256:";

/// What a hash is shown as. No key has this one.
pub(super) const HIDDEN: &str = "***";

/// SHA-256 of a key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// Of a key as it is sent.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Reads a hash as the configuration has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASH_PREFIX)?.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
        }
        Some(Self(digest))
    }

    /// As the configuration has it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{HASH_PREFIX}{digits}")
    }

    /// Are they the same? Takes the same time whatever they are.
    fn is(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        std::hint::black_box(pairs.fold(0, |differ, (a, b)| differ | (a ^ b))) == 0
    }
}

impl std::fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// What a key opens of the server API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Name of the key.
    pub name: Box<str>,
    /// One bit for each of `API_METHODS`; `None` is all.
    methods: Option<u64>,
    /// Namespaces of the channels that may be named, the empty name for channels without one; empty is all.
    namespaces: Vec<Box<str>>,
    /// It is a tenant's, and its name is one of that tenant's keys.
    is_tenants: bool,
}

image!(struct Grant { name, methods, namespaces, is_tenants });
const _: () = assert!(API_METHODS.len() <= 64, "each has its bit");

impl Grant {
    /// For a key of this name, with patterns of methods and names of namespaces; empty lists are everything.
    #[must_use]
    pub fn new(name: &str, methods: &[String], namespaces: &[String]) -> Self {
        let bit = |(at, method): (usize, &&str)| {
            let is_meant = methods.iter().any(|pattern| glob_match(pattern, method));
            u64::from(is_meant) << at
        };
        let bits = API_METHODS.iter().enumerate().map(bit).sum();
        Self {
            name: name.into(),
            methods: (!methods.is_empty()).then_some(bits),
            namespaces: namespaces.iter().map(|name| name.as_str().into()).collect(),
            is_tenants: false,
        }
    }

    /// Is it that of an operator's key? Those are counted by name, as they are few.
    #[must_use]
    pub const fn is_operators(&self) -> bool {
        !self.is_tenants
    }

    /// Does it open this method, one of `API_METHODS`?
    #[must_use]
    pub fn has_method(&self, method: &str) -> bool {
        let Some(bits) = self.methods else {
            return true;
        };
        let at = API_METHODS.iter().position(|known| *known == method);
        at.is_some_and(|at| bits >> at & 1 == 1)
    }

    /// Does it open channels of this namespace?
    #[must_use]
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|own| **own == *name)
    }

    /// Does it open channels of some namespaces only? Then it opens nothing that is in none.
    #[must_use]
    pub fn is_for_channels_only(&self) -> bool {
        !self.namespaces.is_empty()
    }

    /// Does it open everything?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.methods.is_none() && self.namespaces.is_empty()
    }
}

/// One of `http_api.keys` or `admin.keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessKey {
    /// Unique within its list.
    pub name: String,
    /// The key; empty where its hash is given.
    pub key: Secret,
    /// `sha256:` and the digits; empty where the key is given.
    pub hash: Secret,
    /// Patterns over `API_METHODS`; empty is all.
    pub methods: Vec<String>,
    /// Namespaces of the channels that may be named; empty is all.
    pub namespaces: Vec<String>,
    /// Unix seconds from which on it is refused; 0 is never.
    pub expires: u64,
    digest: Option<KeyDigest>,
    grant: Arc<Grant>,
}

impl AccessKey {
    /// Makes what is looked at with each request of what is written.
    pub(super) fn seal(&mut self) {
        self.digest = match (self.key.0.as_str(), self.hash.0.as_str()) {
            ("", hash) => KeyDigest::parse(hash),
            // This is what hides a key, not one.
            (HIDDEN, _) => None,
            (key, _) => Some(KeyDigest::of(key.as_bytes())),
        };
        self.grant = Arc::new(Grant::new(&self.name, &self.methods, &self.namespaces));
    }

    /// The same for a key of a tenant.
    pub(super) fn seal_for_tenant(&mut self) {
        self.seal();
        Arc::make_mut(&mut self.grant).is_tenants = true;
    }

    /// What it is known by; `None` where what is written is none.
    pub(super) const fn digest(&self) -> Option<&KeyDigest> {
        self.digest.as_ref()
    }

    /// What it opens.
    #[must_use]
    pub const fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// Is it over?
    #[must_use]
    pub const fn has_expired(&self, now_unix_s: u64) -> bool {
        self.expires > 0 && self.expires <= now_unix_s
    }

    /// Would what opens one of them open the other?
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.digest, &other.digest) {
            (Some(one), Some(other)) => one.is(other),
            _ => false,
        }
    }

    /// Is it this key?
    pub(super) fn is_key(&self, key: &Secret) -> bool {
        let digest = KeyDigest::of(key.0.as_bytes());
        !key.0.is_empty() && self.digest.as_ref().is_some_and(|own| own.is(&digest))
    }
}

/// What becomes of whoever shows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyVerdict<'k> {
    /// The one key without a name, which opens everything.
    Unnamed,
    /// One of the list.
    Named(&'k AccessKey),
    /// One of the list, whose time is over.
    Expired,
    /// None of them.
    Unknown,
}

/// Which key was shown? All are compared, whichever it is.
pub(super) fn judge<'k>(
    unnamed: &Secret,
    keys: &'k [AccessKey],
    given: &[u8],
    now_unix_s: u64,
) -> KeyVerdict<'k> {
    let is_unnamed = unnamed.is(given);
    if keys.is_empty() || given.is_empty() {
        return match is_unnamed {
            true => KeyVerdict::Unnamed,
            false => KeyVerdict::Unknown,
        };
    }
    let digest = KeyDigest::of(given);
    let mut found = None;
    for key in keys {
        if key.digest.as_ref().is_some_and(|own| own.is(&digest)) {
            found = Some(key);
        }
    }
    match found {
        _ if is_unnamed => KeyVerdict::Unnamed,
        Some(key) if key.has_expired(now_unix_s) => KeyVerdict::Expired,
        Some(key) => KeyVerdict::Named(key),
        None => KeyVerdict::Unknown,
    }
}

/// The first key that counts now, opens everything, and is not hashed.
pub(super) fn own<'k>(
    unnamed: &'k Secret,
    keys: &'k [AccessKey],
    now_unix_s: u64,
) -> Option<&'k Secret> {
    let counts = |key: &&AccessKey| key.grant.is_whole() && !key.has_expired(now_unix_s);
    let named = keys.iter().filter(counts).map(|key| &key.key);
    std::iter::once(unnamed)
        .chain(named)
        .find(|key| !key.0.is_empty())
}

/// Is it a name for a key?
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

/// Reads the name of a method, or a pattern over them. What stands for no method is refused with the nearest one.
pub(super) fn method(pattern: &str) -> Result<String, String> {
    if API_METHODS.iter().any(|name| glob_match(pattern, name)) {
        return Ok(pattern.to_owned());
    }
    if pattern == "batch" {
        return Err(
            "a batch needs no permission of its own: name the methods that may be in it".to_owned(),
        );
    }
    let distance = |name: &str| strsim::osa_distance(name, pattern);
    let nearest = API_METHODS.iter().min_by_key(|name| distance(name));
    let nearest = nearest.filter(|name| distance(name) <= (name.len() / 3).max(1));
    Err(match nearest {
        Some(name) => {
            format!("the server API has no method {pattern:?}; did you mean {name:?}?")
        }
        None => format!(
            "the server API has no method {pattern:?}; it has {}",
            API_METHODS.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, key: &str, hash: &str) -> AccessKey {
        let mut made = AccessKey {
            name: name.to_owned(),
            key: Secret(key.to_owned()),
            hash: Secret(hash.to_owned()),
            ..AccessKey::default()
        };
        made.seal();
        made
    }

    #[test]
    fn a_key_is_known_by_itself_and_by_its_hash() {
        let hash = KeyDigest::of(b"second").to_text();
        assert_eq!(
            KeyDigest::of(b"").to_text(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let keys = [key("one", "first", ""), key("two", "", &hash)];
        let unnamed = Secret("plain".to_owned());
        let judge = |given: &str| judge(&unnamed, &keys, given.as_bytes(), 0);
        assert_eq!(judge("first"), KeyVerdict::Named(&keys[0]));
        assert_eq!(judge("second"), KeyVerdict::Named(&keys[1]));
        assert_eq!(judge("plain"), KeyVerdict::Unnamed);
        for wrong in ["", "third", &hash, "***", "firs", "first "] {
            assert_eq!(judge(wrong), KeyVerdict::Unknown, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_over_from_its_second_on() {
        let mut keys = [key("one", "first", "")];
        keys[0].expires = 100;
        let judge = |now| judge(&Secret::default(), &keys, b"first", now);
        assert_eq!(judge(99), KeyVerdict::Named(&keys[0]));
        assert_eq!(judge(100), KeyVerdict::Expired);
    }

    #[test]
    fn what_hides_a_key_opens_nothing() {
        let keys = [
            key("one", "***", ""),
            key("two", "", "***"),
            key("three", "", ""),
        ];
        for given in ["***", "", "sha256:"] {
            let verdict = judge(&Secret::default(), &keys, given.as_bytes(), 0);
            assert_eq!(verdict, KeyVerdict::Unknown, "{given}");
        }
        assert!(!keys[0].is_same(&keys[1]) && !keys[0].is_same(&keys[0]));
    }

    #[test]
    fn hashes_are_read_in_one_form_only_and_never_shown() {
        let text = KeyDigest::of(b"k").to_text();
        assert!(KeyDigest::parse(&text).is_some_and(|digest| digest.to_text() == text));
        assert_eq!(
            KeyDigest::parse(&text.to_uppercase().replace("SHA", "sha")),
            KeyDigest::parse(&text)
        );
        for wrong in [
            &text[7..],
            &text[..70],
            "sha256:",
            "",
            &format!("{text}0"),
            &text.replace("sha256", "sha512"),
        ] {
            assert_eq!(KeyDigest::parse(wrong), None, "{wrong}");
        }
        let shown = format!("{:?}", key("one", "", &text));
        assert!(!shown.contains(&text[7..]), "{shown}");
    }

    #[test]
    fn a_grant_has_what_its_patterns_mean() {
        let texts = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        let whole = Grant::new("a", &[], &[]);
        assert!(whole.is_whole() && !whole.is_for_channels_only());
        assert!(API_METHODS.iter().all(|method| whole.has_method(method)));
        let queue = Grant::new("a", &texts(&["queue/*", "info"]), &[]);
        assert!(queue.has_method("queue/ack") && queue.has_method("info"));
        assert!(!queue.has_method("publish") && !queue.has_method("never"));
        let scoped = Grant::new("a", &[], &texts(&["orders", ""]));
        assert!(scoped.has_namespace("orders") && scoped.has_namespace(""));
        assert!(!scoped.has_namespace("chat") && scoped.is_for_channels_only());
    }

    #[test]
    fn a_method_that_is_none_is_refused_with_the_nearest() {
        assert!(method("publish").is_ok() && method("queue/*").is_ok() && method("*").is_ok());
        let nearest = method("pubish").expect_err("no method");
        assert!(nearest.contains("\"publish\""), "{nearest}");
        assert!(method("batch").expect_err("no method").contains("in it"));
        assert!(method("").is_err() && method("grpc*").is_err());
    }
}

//! Keys that a service publishes, as one shard knows them: the last set, and the key ids that are not in it.
//!
//! The set comes from control, which fetches it (`control/jwks`). A key id that is not known makes the shard ask; until
//! the answer, the command with the token waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;

use super::TokenError;
use crate::config::keys::{FoundKey, KeySet, PublicKey};
use crate::limits::{KEY_ID_BYTES_MAX, KEY_IDS_REFUSED_MAX};
use crate::time::{Instant, Now};

/// A set counts this long after it was fetched.
pub const KEY_SET_TTL: Duration = Duration::from_secs(3600);
/// A key id that was not in a fresh set is invalid this long without another look.
const REFUSED_TTL: Duration = Duration::from_secs(10);
/// After a failed fetch, tokens with unknown key ids get a temporary error this long, without another fetch.
const FAILED_TTL: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Remote {
    set: Option<(Arc<KeySet>, Instant)>,
    /// Clients name the ids: a tree has no place that they could crowd.
    refused: BTreeMap<Box<str>, Instant>,
    /// Keys of `refused`, the oldest first.
    order: VecDeque<Box<str>>,
    failed_until: Option<Instant>,
}

impl Remote {
    /// The key for a token.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Now,
    ) -> Result<&PublicKey, TokenError> {
        let id = id
            .filter(|id| id.len() <= KEY_ID_BYTES_MAX)
            .ok_or(TokenError::Invalid)?;
        if let Some((set, until)) = &self.set
            && now.at < *until
        {
            match set.find(id, algorithm) {
                FoundKey::Key(key) => return Ok(key),
                FoundKey::Other => return Err(TokenError::Invalid),
                FoundKey::Unknown => {}
            }
        }
        if self.refused.get(id).is_some_and(|until| now.at < *until) {
            return Err(TokenError::Invalid);
        }
        if self.failed_until.is_some_and(|until| now.at < until) {
            return Err(TokenError::KeysUnavailable);
        }
        Err(TokenError::KeyWanted)
    }

    /// A set was fetched.
    pub(super) fn fetched(&mut self, set: &Arc<KeySet>, now: Now) {
        self.set = Some((Arc::clone(set), now.at + KEY_SET_TTL));
        self.failed_until = None;
    }

    /// No set could be fetched. The last one counts on.
    pub(super) fn failed(&mut self, now: Now) {
        self.failed_until = Some(now.at + FAILED_TTL);
    }

    /// After a fetch: a key id that was asked for and is not in the set. The oldest one makes room.
    pub(super) fn refuse_if_unknown(&mut self, id: &str, now: Now) {
        let is_known = self.set.as_ref().is_some_and(|(set, _)| set.has(id));
        if is_known {
            return;
        }
        if self
            .refused
            .insert(id.into(), now.at + REFUSED_TTL)
            .is_some()
        {
            return;
        }
        self.order.push_back(id.into());
        if self.order.len() > KEY_IDS_REFUSED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.refused.remove(&oldest);
        }
    }

    /// Keys in the set.
    pub(super) fn len(&self) -> usize {
        self.set.as_ref().map_or(0, |(set, _)| set.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now {
            at: Instant(seconds * 1_000_000_000),
            unix_ms: 1_700_000_000_000,
        }
    }

    fn set() -> Arc<KeySet> {
        let text = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        Arc::new(KeySet::parse(text.as_bytes()).unwrap())
    }

    fn find(remote: &Remote, id: &str, now: Now) -> Result<(), TokenError> {
        remote.find(Some(id), Algorithm::EdDSA, now).map(|_| ())
    }

    #[test]
    fn unknown_id_is_asked_for_once_and_then_invalid_for_a_while() {
        let mut remote = Remote::default();
        assert_eq!(find(&remote, "a", at(0)), Err(TokenError::KeyWanted));
        remote.fetched(&set(), at(0));
        remote.refuse_if_unknown("a", at(0));
        remote.refuse_if_unknown("b", at(0));
        assert_eq!(find(&remote, "a", at(0)), Ok(()));
        assert_eq!(find(&remote, "b", at(9)), Err(TokenError::Invalid));
        assert_eq!(find(&remote, "b", at(10)), Err(TokenError::KeyWanted));
        assert_eq!(
            remote.find(Some("a"), Algorithm::RS256, at(0)).map(|_| ()),
            Err(TokenError::Invalid),
            "a known id for another algorithm is no reason to fetch"
        );
        assert_eq!(
            remote.find(None, Algorithm::EdDSA, at(0)).map(|_| ()),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn failed_fetch_is_temporary_and_leaves_known_keys_alone() {
        let mut remote = Remote::default();
        remote.failed(at(0));
        assert_eq!(find(&remote, "a", at(0)), Err(TokenError::KeysUnavailable));
        assert_eq!(find(&remote, "a", at(1)), Err(TokenError::KeyWanted));
        remote.fetched(&set(), at(1));
        remote.failed(at(2));
        assert_eq!(find(&remote, "a", at(2)), Ok(()));
    }

    #[test]
    fn key_set_ends_after_its_time() {
        let mut remote = Remote::default();
        remote.fetched(&set(), at(0));
        assert_eq!(find(&remote, "a", at(3599)), Ok(()));
        assert_eq!(find(&remote, "a", at(3600)), Err(TokenError::KeyWanted));
    }

    #[test]
    fn refused_ids_are_bounded_and_the_oldest_goes_first() {
        let mut remote = Remote::default();
        remote.fetched(&set(), at(0));
        for id in 0..=KEY_IDS_REFUSED_MAX {
            remote.refuse_if_unknown(&id.to_string(), at(0));
        }
        assert_eq!(remote.refused.len(), KEY_IDS_REFUSED_MAX);
        assert_eq!(remote.order.len(), KEY_IDS_REFUSED_MAX);
        assert_eq!(find(&remote, "0", at(0)), Err(TokenError::KeyWanted));
        assert_eq!(find(&remote, "1", at(0)), Err(TokenError::Invalid));
    }
}

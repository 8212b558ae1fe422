//! Tokens and users that a service has shut out before their time: bounded, each entry until its end.

use std::hash::Hash;

use hashbrown::{Equivalent, HashMap};

use crate::image::{ImageError, ImageReader, ImageWriter};
use crate::limits::REVOCATIONS_MAX;
use crate::mem::{Key, SecretHash};
use crate::mesh::message::Revocation;
use crate::model::UserId;
use crate::time::{Instant, Now};

/// There are `limits::REVOCATIONS_MAX` of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many revocations")]
pub struct TooManyRevocations;

/// When it is forgotten; the greatest is never. A wall clock that is set does not move it.
type Until = Instant;
type RevokedTable<K, V> = HashMap<K, V, SecretHash>;

/// See the module.
pub struct Revocations {
    tokens: RevokedTable<Box<str>, Until>,
    /// By user and channel: the moment, and when it is forgotten.
    user_tokens: RevokedTable<(Box<str>, Box<str>), (u64, Until)>,
    blocked: RevokedTable<Box<str>, Until>,
}

impl Revocations {
    /// Nothing is shut out.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        let hash = SecretHash::new(key);
        Self {
            tokens: HashMap::with_hasher(hash.clone()),
            user_tokens: HashMap::with_hasher(hash.clone()),
            blocked: HashMap::with_hasher(hash),
        }
    }

    /// Takes one in, in place of an older one about the same.
    ///
    /// # Errors
    /// `TooManyRevocations`, when nothing of the kind has ended either.
    pub fn add(&mut self, revocation: &Revocation, now: Now) -> Result<(), TooManyRevocations> {
        let end = |until: &Option<u64>| until.map_or(Instant(u64::MAX), |at| now.instant_of(at));
        match revocation {
            Revocation::Token { id, until } => {
                let table = &mut self.tokens;
                make_room(table, id, |until| *until > now.at)?;
                table.insert(id.clone(), end(until));
            }
            Revocation::UserTokens {
                user,
                issued_before,
                channel,
                until,
            } => {
                let key = (user.clone(), channel.clone());
                let table = &mut self.user_tokens;
                make_room(table, &key, |(_, until)| *until > now.at)?;
                table.insert(key, (issued_before.unwrap_or(now.unix_s()), end(until)));
            }
            Revocation::Block { user, until } => {
                let table = &mut self.blocked;
                make_room(table, user, |until| *until > now.at)?;
                table.insert(user.clone(), end(until));
            }
            Revocation::Unblock { user } => {
                self.blocked.remove(user);
            }
        }
        Ok(())
    }

    /// May this user not connect?
    #[must_use]
    pub fn is_blocked(&self, user: &UserId, now: Instant) -> bool {
        let until = || self.blocked.get(user.whole());
        !self.blocked.is_empty() && until().is_some_and(|until| *until > now)
    }

    /// Is a token of this user's with this `jti` and `iat` shut out? `channel` is that of a subscription token, empty for a connection
    /// token.
    #[must_use]
    pub fn is_revoked(
        &self,
        user: &UserId,
        (id, issued_at): (&str, u64),
        channel: &str,
        now: Instant,
    ) -> bool {
        let until = || self.tokens.get(&*user.tenant().whole(id));
        let has_id = !id.is_empty() && !self.tokens.is_empty();
        let user = user.whole();
        has_id && until().is_some_and(|until| *until > now)
            || self.is_too_old(user, issued_at, "", now)
            || !channel.is_empty() && self.is_too_old(user, issued_at, channel, now)
    }

    fn is_too_old(&self, user: &str, issued_at: u64, channel: &str, now: Instant) -> bool {
        if self.user_tokens.is_empty() {
            return false;
        }
        self.user_tokens
            .get(&UserChannel(user, channel))
            .is_some_and(|(before, until)| *until > now && issued_at < *before)
    }

    /// Entries, ended ones that were not needed yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len() + self.user_tokens.len() + self.blocked.len()
    }

    /// Entries of the kind that has most.
    #[must_use]
    pub fn fullest(&self) -> usize {
        let users = self.user_tokens.len();
        self.tokens.len().max(users).max(self.blocked.len())
    }

    /// Nothing is shut out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Revocations {
    /// Writes all of them.
    pub fn write(&self, out: &mut ImageWriter) {
        let Self {
            tokens,
            user_tokens,
            blocked,
        } = self;
        out.map(tokens.iter());
        out.map(user_tokens.iter());
        out.map(blocked.iter());
    }

    /// Reads what `write` has written, with the same key.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read(key: &Key, from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let mut all = Self::new(key);
        from.map(|id, until| all.tokens.insert(id, until))?;
        from.map(|user, until| all.user_tokens.insert(user, until))?;
        from.map(|user, until| all.blocked.insert(user, until))?;
        Ok(all)
    }
}

/// The borrowed form of a key of `user_tokens`; it hashes as the pair does.
#[derive(Hash)]
struct UserChannel<'a>(&'a str, &'a str);

impl Equivalent<(Box<str>, Box<str>)> for UserChannel<'_> {
    fn equivalent(&self, key: &(Box<str>, Box<str>)) -> bool {
        *self.0 == *key.0 && *self.1 == *key.1
    }
}

/// Forgets what has ended, if there is no room otherwise.
fn make_room<K: Eq + Hash, V>(
    table: &mut RevokedTable<K, V>,
    key: &K,
    counts: impl Fn(&V) -> bool,
) -> Result<(), TooManyRevocations> {
    if table.len() < REVOCATIONS_MAX || table.contains_key(key) {
        return Ok(());
    }
    table.retain(|_, value| counts(value));
    if table.len() < REVOCATIONS_MAX {
        Ok(())
    } else {
        Err(TooManyRevocations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that shows `unix_s` at `at`.
    const fn at(at: u64, unix_s: u64) -> Now {
        Now {
            at: second(at),
            unix_ms: unix_s * 1000,
        }
    }

    fn user(name: &str) -> UserId {
        UserId::new(crate::model::TenantId::NONE, name)
    }

    const fn second(at: u64) -> Instant {
        Instant(at * 1_000_000_000)
    }

    #[test]
    fn end_of_a_revocation_does_not_move_with_the_wall_clock() {
        let mut all = Revocations::new(&Key::new([1; 32]));
        let block = Revocation::Block {
            user: "42".into(),
            until: Some(1_700_000_060),
        };
        all.add(&block, at(10, 1_700_000_000)).unwrap();
        assert!(
            all.is_blocked(&user("42"), second(69)) && !all.is_blocked(&user("42"), second(70))
        );
    }

    fn user_tokens(channel: &str) -> Revocation {
        Revocation::UserTokens {
            user: "42".into(),
            issued_before: Some(100),
            channel: channel.into(),
            until: Some(1000),
        }
    }

    #[test]
    fn token_is_revoked_by_its_id_until_the_end() {
        let mut all = Revocations::new(&Key::new([1; 32]));
        let token = Revocation::Token {
            id: "a".into(),
            until: Some(10),
        };
        all.add(&token, at(0, 0)).unwrap();
        assert!(all.is_revoked(&user("42"), ("a", 5), "", second(9)));
        assert!(!all.is_revoked(&user("42"), ("a", 5), "", second(10)));
        assert!(!all.is_revoked(&user("42"), ("b", 5), "", second(9)));
        assert!(!all.is_revoked(&user("42"), ("", 5), "", second(9)));
    }

    #[test]
    fn older_tokens_of_a_user_are_revoked_and_those_without_a_time_are_old() {
        let mut all = Revocations::new(&Key::new([1; 32]));
        all.add(&user_tokens(""), at(0, 0)).unwrap();
        assert!(all.is_revoked(&user("42"), ("", 99), "", second(9)));
        assert!(all.is_revoked(&user("42"), ("", 0), "chat", second(9)));
        assert!(!all.is_revoked(&user("42"), ("", 100), "", second(9)));
        assert!(!all.is_revoked(&user("43"), ("", 99), "", second(9)));
        assert!(!all.is_revoked(&user("42"), ("", 99), "", second(1000)));
    }

    #[test]
    fn channel_narrows_revocation_to_its_subscription_tokens() {
        let mut all = Revocations::new(&Key::new([1; 32]));
        all.add(&user_tokens("chat"), at(0, 0)).unwrap();
        assert!(all.is_revoked(&user("42"), ("", 99), "chat", second(9)));
        assert!(!all.is_revoked(&user("42"), ("", 99), "news", second(9)));
        assert!(!all.is_revoked(&user("42"), ("", 99), "", second(9)));
    }

    #[test]
    fn blocked_user_is_out_until_the_end_or_until_unblocked() {
        let mut all = Revocations::new(&Key::new([1; 32]));
        let block = |until| Revocation::Block {
            user: "42".into(),
            until,
        };
        all.add(&block(Some(10)), at(0, 0)).unwrap();
        assert!(
            all.is_blocked(&user("42"), second(9))
                && !all.is_blocked(&user("42"), second(10))
                && !all.is_blocked(&user("43"), second(9))
        );
        all.add(&block(None), at(0, 0)).unwrap();
        assert!(all.is_blocked(&user("42"), Instant(u64::MAX - 1)));
        all.add(&Revocation::Unblock { user: "42".into() }, at(0, 0))
            .unwrap();
        assert!(!all.is_blocked(&user("42"), second(9)) && all.is_empty());
    }

    #[test]
    fn full_table_refuses_until_something_ends_and_still_replaces() {
        let mut all = Revocations::new(&Key::new([1; 32]));
        let token = |id: usize, until| Revocation::Token {
            id: id.to_string().into(),
            until: Some(until),
        };
        for id in 0..REVOCATIONS_MAX {
            all.add(&token(id, 10 + u64::from(id > 0)), at(0, 0))
                .unwrap();
        }
        assert_eq!(
            all.add(&token(REVOCATIONS_MAX, 20), at(9, 9)),
            Err(TooManyRevocations)
        );
        assert_eq!(all.add(&token(1, 20), at(9, 9)), Ok(()));
        assert_eq!(all.add(&token(REVOCATIONS_MAX, 20), at(10, 10)), Ok(()));
        assert_eq!(all.len(), REVOCATIONS_MAX);
    }
}

//! What a client may do without a token (`spec/centrifuge.md` §4.3, §4.5 – §4.7). Pure functions of the namespace
//! and of what the session knows; the name itself has been checked and its namespace found.

use crate::config::{ChannelRules, Namespace};

/// What a permission depends on beside the namespace.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Empty for the anonymous user.
    pub user: &'a str,
    /// Subscribed to the channel in question.
    pub subscribed: bool,
    /// `client.insecure`: everything is allowed.
    pub insecure: bool,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Error 103.
    #[error("permission denied")]
    Forbidden,
    /// Error 108: the namespace does not have the thing at all.
    #[error("not available")]
    NotAvailable,
}

/// The three options that open one action.
struct Doors {
    client: bool,
    subscriber: bool,
    anonymous: bool,
}

impl Doors {
    /// `*_for_anonymous` extends the other two to anonymous users; alone it opens nothing.
    const fn open_to(&self, asker: &Asker<'_>) -> Result<(), Denied> {
        let known = !asker.user.is_empty() || self.anonymous;
        let open = known && (self.client || self.subscriber && asker.subscribed);
        if open || asker.insecure {
            Ok(())
        } else {
            Err(Denied::Forbidden)
        }
    }
}

/// May the client subscribe without a token (§4.3, checks 9 and 11 to 16)? `name` is the whole channel name.
///
/// # Errors
/// `Forbidden`: a private channel, a channel of other users, or no option that allows it.
pub fn may_subscribe(
    rules: &ChannelRules,
    namespace: &Namespace,
    name: &str,
    asker: &Asker<'_>,
) -> Result<(), Denied> {
    if rules.is_private(name) {
        return Err(Denied::Forbidden);
    }
    if namespace.allow_user_limited_channels && rules.user_limited(name).is_some() {
        let allowed = asker.insecure || rules.allows_user(name, asker.user);
        return if allowed {
            Ok(())
        } else {
            Err(Denied::Forbidden)
        };
    }
    let client = namespace.allow_subscribe_for_client;
    Doors {
        client,
        subscriber: false,
        anonymous: namespace.allow_subscribe_for_anonymous,
    }
    .open_to(asker)
}

/// May the client publish (§4.7)?
///
/// # Errors
/// `Forbidden`.
pub const fn may_publish(namespace: &Namespace, asker: &Asker<'_>) -> Result<(), Denied> {
    let doors = Doors {
        client: namespace.allow_publish_for_client,
        subscriber: namespace.allow_publish_for_subscriber,
        anonymous: namespace.allow_publish_for_anonymous,
    };
    doors.open_to(asker)
}

/// May the client read history (§4.5)?
///
/// # Errors
/// `NotAvailable` in a namespace without history, else `Forbidden`.
pub const fn may_history(namespace: &Namespace, asker: &Asker<'_>) -> Result<(), Denied> {
    if !namespace.keeps_history() {
        return Err(Denied::NotAvailable);
    }
    let doors = Doors {
        client: namespace.allow_history_for_client,
        subscriber: namespace.allow_history_for_subscriber,
        anonymous: namespace.allow_history_for_anonymous,
    };
    doors.open_to(asker)
}

/// May the client read presence and its statistics (§4.6)?
///
/// # Errors
/// `NotAvailable` in a namespace without presence, else `Forbidden`.
pub const fn may_presence(namespace: &Namespace, asker: &Asker<'_>) -> Result<(), Denied> {
    if !namespace.presence {
        return Err(Denied::NotAvailable);
    }
    let doors = Doors {
        client: namespace.allow_presence_for_client,
        subscriber: namespace.allow_presence_for_subscriber,
        anonymous: namespace.allow_presence_for_anonymous,
    };
    doors.open_to(asker)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ANONYMOUS: Asker<'_> = Asker {
        user: "",
        subscribed: false,
        insecure: false,
    };
    const USER: Asker<'_> = Asker {
        user: "42",
        ..ANONYMOUS
    };
    const SUBSCRIBER: Asker<'_> = Asker {
        subscribed: true,
        ..USER
    };
    const ANONYMOUS_SUBSCRIBER: Asker<'_> = Asker {
        subscribed: true,
        ..ANONYMOUS
    };
    const INSECURE: Asker<'_> = Asker {
        insecure: true,
        ..ANONYMOUS
    };

    const YES: Result<(), Denied> = Ok(());
    const NO: Result<(), Denied> = Err(Denied::Forbidden);

    fn with_history() -> Namespace {
        Namespace {
            history_size: 1,
            history_ttl: Duration::from_secs(1),
            presence: true,
            ..Namespace::default()
        }
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let (rules, ns) = (ChannelRules::default(), with_history());
        for asker in [ANONYMOUS, USER, SUBSCRIBER, ANONYMOUS_SUBSCRIBER] {
            assert_eq!(may_subscribe(&rules, &ns, "news", &asker), NO);
            assert_eq!(may_publish(&ns, &asker), NO);
            assert_eq!(may_history(&ns, &asker), NO);
            assert_eq!(may_presence(&ns, &asker), NO);
        }
    }

    #[test]
    fn doors_open_as_in_the_table() {
        // (client, subscriber, anonymous) and who gets in: anonymous, user, subscriber, anonymous subscriber.
        let table = [
            ((false, false, false), [NO, NO, NO, NO]),
            ((false, false, true), [NO, NO, NO, NO]),
            ((false, true, false), [NO, NO, YES, NO]),
            ((false, true, true), [NO, NO, YES, YES]),
            ((true, false, false), [NO, YES, YES, NO]),
            ((true, false, true), [YES, YES, YES, YES]),
            ((true, true, false), [NO, YES, YES, NO]),
            ((true, true, true), [YES, YES, YES, YES]),
        ];
        for ((client, subscriber, anonymous), wanted) in table {
            let ns = Namespace {
                allow_publish_for_client: client,
                allow_publish_for_subscriber: subscriber,
                allow_publish_for_anonymous: anonymous,
                allow_history_for_client: client,
                allow_history_for_subscriber: subscriber,
                allow_history_for_anonymous: anonymous,
                allow_presence_for_client: client,
                allow_presence_for_subscriber: subscriber,
                allow_presence_for_anonymous: anonymous,
                ..with_history()
            };
            for (asker, wanted) in [ANONYMOUS, USER, SUBSCRIBER, ANONYMOUS_SUBSCRIBER]
                .iter()
                .zip(wanted)
            {
                assert_eq!(
                    may_publish(&ns, asker),
                    wanted,
                    "publish {client} {subscriber} {anonymous} {asker:?}"
                );
                assert_eq!(
                    may_history(&ns, asker),
                    wanted,
                    "history {client} {subscriber} {anonymous} {asker:?}"
                );
                assert_eq!(
                    may_presence(&ns, asker),
                    wanted,
                    "presence {client} {subscriber} {anonymous} {asker:?}"
                );
            }
        }
    }

    #[test]
    fn each_action_has_its_own_options() {
        let ns = Namespace {
            allow_publish_for_client: true,
            ..with_history()
        };
        assert_eq!(
            (
                may_publish(&ns, &USER),
                may_history(&ns, &USER),
                may_presence(&ns, &USER)
            ),
            (YES, NO, NO)
        );
        let ns = Namespace {
            allow_history_for_client: true,
            ..with_history()
        };
        assert_eq!(
            (
                may_publish(&ns, &USER),
                may_history(&ns, &USER),
                may_presence(&ns, &USER)
            ),
            (NO, YES, NO)
        );
        let ns = Namespace {
            allow_presence_for_client: true,
            ..with_history()
        };
        assert_eq!(
            (
                may_publish(&ns, &USER),
                may_history(&ns, &USER),
                may_presence(&ns, &USER)
            ),
            (NO, NO, YES)
        );
    }

    #[test]
    fn insecure_allows_everything_that_exists() {
        let rules = ChannelRules::default();
        let ns = Namespace {
            allow_user_limited_channels: true,
            ..with_history()
        };
        assert_eq!(may_subscribe(&rules, &ns, "news", &INSECURE), YES);
        assert_eq!(may_subscribe(&rules, &ns, "dialog#7", &INSECURE), YES);
        assert_eq!(may_publish(&ns, &INSECURE), YES);
        assert_eq!(may_history(&ns, &INSECURE), YES);
        assert_eq!(may_presence(&ns, &INSECURE), YES);
        assert_eq!(
            may_history(&Namespace::default(), &INSECURE),
            Err(Denied::NotAvailable)
        );
        assert_eq!(
            may_presence(&Namespace::default(), &INSECURE),
            Err(Denied::NotAvailable)
        );
    }

    #[test]
    fn subscribing_without_token_needs_the_option() {
        let rules = ChannelRules::default();
        let mut ns = Namespace {
            allow_subscribe_for_client: true,
            ..Namespace::default()
        };
        assert_eq!(may_subscribe(&rules, &ns, "news", &USER), YES);
        assert_eq!(may_subscribe(&rules, &ns, "news", &ANONYMOUS), NO);
        ns.allow_subscribe_for_anonymous = true;
        assert_eq!(may_subscribe(&rules, &ns, "news", &ANONYMOUS), YES);
        ns.allow_subscribe_for_client = false;
        assert_eq!(may_subscribe(&rules, &ns, "news", &ANONYMOUS), NO);
    }

    #[test]
    fn private_channel_needs_a_token_also_when_insecure() {
        let rules = ChannelRules::default();
        let ns = Namespace {
            allow_subscribe_for_client: true,
            ..Namespace::default()
        };
        assert_eq!(may_subscribe(&rules, &ns, "$news", &USER), NO);
        assert_eq!(may_subscribe(&rules, &ns, "$news", &INSECURE), NO);
    }

    #[test]
    fn user_limited_channel_admits_its_users_only() {
        let rules = ChannelRules::default();
        let mut ns = Namespace {
            allow_user_limited_channels: true,
            allow_subscribe_for_client: true,
            allow_subscribe_for_anonymous: true,
            ..Namespace::default()
        };
        assert_eq!(may_subscribe(&rules, &ns, "dialog#41,42", &USER), YES);
        assert_eq!(may_subscribe(&rules, &ns, "dialog#41,43", &USER), NO);
        assert_eq!(may_subscribe(&rules, &ns, "dialog#", &ANONYMOUS), NO);
        // Without the option the boundary means nothing.
        ns.allow_user_limited_channels = false;
        assert_eq!(may_subscribe(&rules, &ns, "dialog#41,43", &USER), YES);
    }
}

//! Whose a name is. Channels, users, queue groups and whatever else peers name belong to a **tenant**, and what two tenants name
//! alike are two things: everything that is filed, hashed, stored or compared is its **whole** name, in which the tenant stands first.
//! A name becomes whole at the door it came in by, and only its own part goes out again.
//!
//! The whole name of what belongs to the tenant `default` is the name itself, and any other begins with `MARK`. Whatever a peer calls a
//! thing, its whole name is its tenant's: one that begins with `MARK` by itself gets the empty id in front, so no name is another
//! tenant's, and no door has to look.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Stands before and behind the tenant in a whole name (U+001F, the unit separator of ASCII).
pub const MARK: char = '\u{1f}';
/// What the tenant without an id is called where people read or write it.
pub const DEFAULT: &str = "default";

/// Id of a tenant; empty for `default`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TenantId<'a>(&'a str);

impl<'a> TenantId<'a> {
    /// Everybody where no tenants are configured.
    pub const NONE: TenantId<'static> = TenantId("");

    /// The tenant with this id, as the configuration has it.
    #[must_use]
    pub fn new(id: &'a str) -> Self {
        Self(if id == DEFAULT { "" } else { id })
    }

    /// The tenant of a whole name, and the name that it has there.
    #[must_use]
    pub fn split(whole: &'a str) -> (Self, &'a str) {
        let scoped = whole.strip_prefix(MARK);
        match scoped.and_then(|rest| rest.split_once(MARK)) {
            Some((id, name)) => (Self(id), name),
            None => (Self::NONE, whole),
        }
    }

    /// The tenant of a whole name.
    #[must_use]
    pub fn of(whole: &'a str) -> Self {
        Self::split(whole).0
    }

    /// The whole of a name of this tenant's.
    #[must_use]
    pub fn whole<'n>(self, name: &'n str) -> Cow<'n, str> {
        match self.0 {
            "" if !name.starts_with(MARK) => Cow::Borrowed(name),
            id => Cow::Owned(format!("{MARK}{id}{MARK}{name}")),
        }
    }

    /// Is it `default`?
    #[must_use]
    pub const fn is_default(self) -> bool {
        self.0.is_empty()
    }

    /// Empty for `default`.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for TenantId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_default() { DEFAULT } else { self.0 })
    }
}

impl fmt::Debug for TenantId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What tenants have of that which they share: of two that want more than there is, one with a weight of 2 gets twice as much as one
/// with a weight of 1. Only those stand here that have another one than 1; `default` has 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(BTreeMap<Box<str>, u32>);

impl FromIterator<(Box<str>, u32)> for Weights {
    fn from_iter<I: IntoIterator<Item = (Box<str>, u32)>>(weights: I) -> Self {
        let others = weights.into_iter().filter(|&(_, weight)| weight > 1);
        Self(others.collect())
    }
}

impl Weights {
    /// That of a tenant: 1 up to `limits::TENANT_WEIGHT_MAX`.
    #[must_use]
    pub fn of(&self, tenant: TenantId<'_>) -> u32 {
        self.0.get(tenant.as_str()).copied().unwrap_or(1)
    }
}

/// A user: whose, and which of theirs. Cheap where there are no tenants: it is the id alone.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Box<str>);

impl UserId {
    /// A tenant's user of this name; the empty name is the anonymous user.
    #[must_use]
    pub fn new(tenant: TenantId<'_>, name: &str) -> Self {
        Self(tenant.whole(name).into())
    }

    /// The one with this whole name.
    #[must_use]
    pub fn from_whole(whole: Box<str>) -> Self {
        Self(whole)
    }

    /// What it is filed under.
    #[must_use]
    pub fn whole(&self) -> &str {
        &self.0
    }

    /// Its name within the tenant: what clients and backends see.
    #[must_use]
    pub fn name(&self) -> &str {
        TenantId::split(&self.0).1
    }

    /// Whose user it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId<'_> {
        TenantId::of(&self.0)
    }

    /// Nobody in particular.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.name().is_empty()
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A whole name for people who may see every tenant's: `acme/chat`.
#[must_use]
pub fn shown(whole: &str) -> Cow<'_, str> {
    let (tenant, name) = TenantId::split(whole);
    match tenant.is_default() {
        true => Cow::Borrowed(name),
        false => Cow::Owned(format!("{tenant}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_default_are_whole_as_they_are() {
        assert_eq!(TenantId::NONE.whole("chat:1"), "chat:1");
        assert_eq!(TenantId::new("default").whole("chat:1"), "chat:1");
        assert_eq!(TenantId::split("chat:1"), (TenantId::NONE, "chat:1"));
        assert_eq!(TenantId::new("acme").to_string(), "acme");
        assert_eq!(TenantId::NONE.to_string(), "default");
    }

    #[test]
    fn anonymous_user_of_a_tenant_is_nobody_and_not_that_of_another() {
        let (one, two) = (TenantId::new("one"), TenantId::new("two"));
        let of = |tenant| UserId::new(tenant, "");
        assert!(of(one).is_anonymous() && of(TenantId::NONE).is_anonymous());
        assert_ne!(of(one), of(two));
        assert_ne!(of(one), of(TenantId::NONE));
    }

    proptest! {
        #[test]
        fn a_name_comes_back_from_its_whole_and_no_two_tenants_have_one_in_common(
            a in "[a-z0-9-]{0,8}", b in "[a-z0-9-]{0,8}", x in "[a-c\u{1f}]{0,12}", y in "[a-c\u{1f}]{0,12}",
        ) {
            let (a, b) = (TenantId::new(&a), TenantId::new(&b));
            let whole = a.whole(&x);
            prop_assert_eq!(TenantId::split(&whole), (a, &*x));
            prop_assert_eq!(whole == b.whole(&y), a == b && x == y);
        }
    }
}

//! Channels as NATS subjects: `orders:eu:7` of the tenant `default` is `<prefix>.default.orders.eu.7`.
//!
//! Each part between colons is a token, and the way back is unambiguous: what NATS gives a meaning (`.`, `*`, `>`, white
//! space), what is not printable ASCII, and `%` itself stand as `%XX`, an empty part as a lone `%`. A worker that knows only
//! NATS subscribes to `<prefix>.default.orders.>` and gets what the glob `orders:*` matches.

use crate::config::glob_match;
use crate::config::namespace::leaves_out;
use crate::model::{ChannelName, TenantId, tenant};

/// Start of the reserved channels: a glob that does not name them does not match them.
const RESERVED: char = '$';

/// Subjects of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subjects {
    prefix: Box<str>,
}

impl Subjects {
    /// Subjects that begin with this; it was checked by `is_prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// What the stream takes in: publications and idempotency keys.
    pub(super) fn all(&self) -> Vec<String> {
        vec![self.publications(), format!("{}-keys.>", self.prefix)]
    }

    /// All publications.
    pub(super) fn publications(&self) -> String {
        format!("{}.>", self.prefix)
    }

    /// The subject of a channel, by its whole name.
    pub(super) fn channel(&self, whole: &str) -> String {
        let (tenant, channel) = TenantId::split(whole);
        let tenant = match tenant.as_str() {
            "" => tenant::DEFAULT,
            id => id,
        };
        let mut out = String::with_capacity(self.prefix.len() + channel.len() + 16);
        out.push_str(&self.prefix);
        out.push('.');
        push_token(&mut out, tenant);
        for part in channel.split(':') {
            out.push('.');
            push_token(&mut out, part);
        }
        out
    }

    /// Where the mark of an idempotency key stands: `hash` is that of channel and key.
    pub(super) fn key(&self, hash: &str) -> String {
        format!("{}-keys.{hash}", self.prefix)
    }

    /// What the stream of waiting publications takes in: those that wait, and those whose time has come.
    pub(super) fn scheduled(&self) -> Vec<String> {
        let [old, due] = self.due();
        vec![self.waiting("*", "*", "*", "*"), old, due]
    }

    /// Where a publication waits: `channel` and `key` are hashes. A `*` stands for any.
    pub(super) fn waiting(&self, channel: &str, key: &str, due: &str, event: &str) -> String {
        format!("{}-later.{channel}.{key}.{due}.{event}", self.prefix)
    }

    /// Where it goes when its time has come, and is still known by its key.
    pub(super) fn given_out(&self, channel: &str, key: &str, due: &str, event: &str) -> String {
        format!("{}-due.{channel}.{key}.{due}.{event}", self.prefix)
    }

    /// All that were given out, of earlier processes as well: those knew no keys there.
    pub(super) fn due(&self) -> [String; 2] {
        let old = format!("{}-due", self.prefix);
        [old, self.given_out("*", "*", "*", "*")]
    }

    /// What waits with this key, and what was given out with it: nothing else in its stream.
    pub(super) fn keyed(&self, channel: &str, key: &str) -> String {
        let above = self.prefix.rsplit_once('.');
        let above = above.map_or(String::new(), |(above, _)| format!("{above}."));
        format!("{above}*.{channel}.{key}.*.*")
    }

    /// The channel that a subject is; `None` if it is not one that this program made.
    pub(super) fn parse(&self, subject: &str) -> Option<ChannelName> {
        let rest = subject.strip_prefix(&*self.prefix)?.strip_prefix('.')?;
        let (tenant, rest) = rest.split_once('.')?;
        let tenant = token(tenant)?;
        let mut channel = String::with_capacity(rest.len());
        for (index, part) in rest.split('.').enumerate() {
            if index > 0 {
                channel.push(':');
            }
            channel.push_str(&token(part)?);
        }
        Some(ChannelName::of(TenantId::new(&tenant), &channel))
    }

    /// The narrowest filter that covers a glob.
    pub(super) fn filter(&self, glob: &str) -> String {
        let Some((fixed, _)) = glob.split_once('*') else {
            return self.channel(glob);
        };
        let (tenant, fixed) = TenantId::split(fixed);
        let mut out = format!("{}.", self.prefix);
        push_token(&mut out, &tenant.to_string());
        if let Some((whole, _)) = fixed.rsplit_once(':') {
            for part in whole.split(':') {
                out.push('.');
                push_token(&mut out, part);
            }
        }
        out.push_str(".>");
        out
    }

    /// Filters that cover these globs and of which no two match the same subject, as a consumer needs them.
    pub(super) fn filters<'a>(&self, globs: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut filters: Vec<String> = globs.map(|glob| self.filter(glob)).collect();
        filters.sort_unstable();
        filters.dedup();
        // A filter is a subject, or a subject's start with `.>`: two overlap only where one covers the other.
        let all = filters.clone();
        filters.retain(|filter| {
            !all.iter()
                .any(|wide| wide != filter && covers(wide, filter))
        });
        filters
    }
}

/// Does the filter `wide` match all that `narrow` matches?
fn covers(wide: &str, narrow: &str) -> bool {
    match wide.strip_suffix('>') {
        Some(start) => narrow.starts_with(start),
        None => wide == narrow,
    }
}

/// Does a channel belong to what one of these globs names?
pub(super) fn matches(globs: &[Box<str>], channel: &str) -> bool {
    globs.iter().any(|glob| {
        let is_reserved = |whole: &str| TenantId::split(whole).1.starts_with(RESERVED);
        let names_it = !is_reserved(channel) || is_reserved(glob);
        names_it && glob_match(glob, channel) && !leaves_out(glob, channel)
    })
}

/// Can it be the start of all subjects: tokens that NATS takes, and none of its own?
pub(super) fn is_prefix(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && token
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'>'))
    };
    text.split('.').all(is_token) && !text.starts_with(['$', '_'])
}

/// Can it be a stream's name, and a part of those of its buckets?
pub(super) fn is_stream_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A name for a consumer or a bucket's key out of any text: letters, digits, `-` and `_` stand for themselves, all else as `=XX`.
pub(super) fn name(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            out.push(char::from(byte));
        } else {
            push_hex(&mut out, '=', byte);
        }
    }
    out
}

/// The text that `name` made this of.
pub(super) fn unname(name: &str) -> Option<String> {
    unescape(name, b'=')
}

fn push_token(out: &mut String, part: &str) {
    if part.is_empty() {
        out.push('%');
    }
    for byte in part.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'.' | b'*' | b'>' | b'%') {
            out.push(char::from(byte));
        } else {
            push_hex(out, '%', byte);
        }
    }
}

fn token(token: &str) -> Option<String> {
    match token {
        "" => None,
        "%" => Some(String::new()),
        _ => unescape(token, b'%'),
    }
}

pub(super) fn push_hex(out: &mut String, mark: char, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push(mark);
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 0xf)]));
}

/// Text in which a mark and two hexadecimal digits stand for a byte.
pub(super) fn unescape(text: &str, mark: u8) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == mark {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colons_become_dots_and_globs_become_filters() {
        let subjects = Subjects::new("ringmain");
        assert_eq!(
            subjects.channel("orders:eu:7"),
            "ringmain.default.orders.eu.7"
        );
        assert_eq!(
            subjects.channel(&TenantId::new("acme").whole("a.b c:")),
            "ringmain.acme.a%2Eb%20c.%"
        );
        assert_eq!(subjects.filter("orders:*"), "ringmain.default.orders.>");
        assert_eq!(subjects.filter("orders:e*"), "ringmain.default.orders.>");
        assert_eq!(subjects.filter("ord*"), "ringmain.default.>");
        assert_eq!(subjects.filter("orders"), "ringmain.default.orders");
        let of_acme = |glob: &str| subjects.filter(&TenantId::new("acme").whole(glob));
        assert_eq!(of_acme("orders:*"), "ringmain.acme.orders.>");
        assert_eq!(of_acme("*"), "ringmain.acme.>");
    }

    #[test]
    fn filters_of_one_consumer_never_overlap() {
        let subjects = Subjects::new("ringmain");
        let globs = ["orders:*", "orders:eu:1", "orders:eu:*", "jobs", "jobs"];
        assert_eq!(
            subjects.filters(globs.into_iter()),
            ["ringmain.default.jobs", "ringmain.default.orders.>"]
        );
        assert_eq!(
            subjects.filters(["*", "jobs"].into_iter()),
            ["ringmain.default.>"]
        );
    }

    #[test]
    fn globs_do_not_reach_reserved_channels_by_chance() {
        let all: [Box<str>; 1] = ["*".into()];
        assert!(matches(&all, "orders:1"));
        assert!(!matches(&all, "$queue:mail"));
        assert!(matches(&["$queue:mail".into()], "$queue:mail"));
    }

    proptest! {
        #[test]
        fn every_channel_comes_back_from_its_subject(tenant in "[a-z0-9-]{0,8}", channel in "[^\u{1f}]{1,40}") {
            let subjects = Subjects::new("a.b");
            let name = ChannelName::of(TenantId::new(&tenant), &channel);
            let subject = subjects.channel(name.whole());
            prop_assert!(subject.split('.').all(|token| !token.is_empty()));
            prop_assert!(subject.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*' && byte != b'>'));
            prop_assert_eq!(subjects.parse(&subject), Some(name));
        }

        #[test]
        fn filter_covers_what_its_glob_matches(channel in "[a-c:*.]{1,8}", glob in "[a-c:*.]{1,8}") {
            let subjects = Subjects::new("p");
            if glob_match(&glob, &channel) {
                prop_assert!(covers(&subjects.filter(&glob), &subjects.channel(&channel)));
            }
        }

        #[test]
        fn every_text_comes_back_from_its_name(text in ".{0,40}") {
            prop_assert_eq!(unname(&name(&text)), Some(text));
        }
    }
}

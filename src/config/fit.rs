//! Does a publication fit its namespace? The same at every door.

use super::Config;
use super::namespace::{DataFormat, Namespace};
use crate::limits::{
    IDEMPOTENCY_KEY_BYTES_MAX, PUBLISH_DELAY_MAX, PUBLISH_TTL_MAX, TRACE_BYTES_MAX,
};
use crate::model::{Draft, Terms, Way};
use crate::wire::json::is_deeper;

/// Why a publication is not taken in. The text does not say which member is meant: `member` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no payload.
    #[error("expected a payload that is not empty")]
    Empty,
    /// The namespace takes JSON.
    #[error("expected JSON")]
    NotJson,
    /// The namespace takes objects.
    #[error("expected a JSON object")]
    NotAnObject,
    /// Some client would not read the payload.
    #[error("expected JSON of at most {0} levels, as client.json_depth_max says")]
    TooDeep(u32),
    /// The payload is over `size_max`.
    #[error("expected at most {0} bytes")]
    TooLarge(u32),
    /// It goes to the log, which would have to keep the key.
    #[error("expected at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes")]
    LongKey,
    /// Likewise.
    #[error("expected at most {TRACE_BYTES_MAX} bytes")]
    LongTrace,
    /// It names a schema version and does not go to the log.
    #[error("only channels of durable namespaces have one")]
    SchemaOfEphemeral,
    /// It names a schema version, and the namespace has no schema.
    #[error("the namespace of the channel has none, leave it out")]
    NoSchema,
    /// It carries a trace and does not go to the log.
    #[error("only publications of durable namespaces carry one")]
    TraceOfEphemeral,
    /// It is wanted later and does not go to the log.
    #[error("only publications of durable namespaces can be delayed")]
    DueOfEphemeral,
    /// Both a time and a delay.
    #[error("leave it out where `deliver_at` is set, they exclude each other")]
    TwoTimes,
    /// A time in 1970.
    #[error("expected Unix milliseconds, this looks like seconds")]
    Seconds,
    /// A time too far away.
    #[error("expected a time within {} days", PUBLISH_DELAY_MAX.as_secs() / 86_400)]
    TooFar,
    /// It ends by itself and does not go to the log.
    #[error("only publications of durable namespaces can have a time to live")]
    TtlOfEphemeral,
    /// It would live too long.
    #[error("expected at most {}, which is {} days", PUBLISH_TTL_MAX.as_millis(), PUBLISH_TTL_MAX.as_secs() / 86_400)]
    LongTtl,
    /// A delay too long.
    #[error("expected at most {}, which is {} days", PUBLISH_DELAY_MAX.as_millis(), PUBLISH_DELAY_MAX.as_secs() / 86_400)]
    TooLong,
}

impl Unfit {
    /// The member of the server API's publish that is meant.
    #[must_use]
    pub const fn member(self) -> &'static str {
        match self {
            Self::Empty
            | Self::NotJson
            | Self::NotAnObject
            | Self::TooDeep(_)
            | Self::TooLarge(_) => "data",
            Self::LongKey => "idempotency_key",
            Self::LongTrace | Self::TraceOfEphemeral => "trace",
            Self::SchemaOfEphemeral | Self::NoSchema => "schema",
            Self::DueOfEphemeral | Self::Seconds | Self::TooFar => "deliver_at",
            Self::TwoTimes | Self::TooLong => "delay_ms",
            Self::TtlOfEphemeral | Self::LongTtl => "ttl_ms",
        }
    }
}

/// Times before this one, 1973 in milliseconds, are meant as seconds.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// When a publication is published that is wanted at a time, or after a delay, both in milliseconds and 0 for none. 0 means at
/// once: so is what lies in the past.
///
/// # Errors
/// Both are there, or it is too far away.
pub fn due_ms(now_ms: u64, deliver_at: u64, delay_ms: u64) -> Result<u64, Unfit> {
    let longest = u64::try_from(PUBLISH_DELAY_MAX.as_millis()).unwrap_or(u64::MAX);
    match (deliver_at, delay_ms) {
        (0, 0) => Ok(0),
        (0, delay) if delay > longest => Err(Unfit::TooLong),
        (0, delay) => Ok(now_ms.saturating_add(delay)),
        (at, 0) if at < MILLISECONDS_FROM => Err(Unfit::Seconds),
        (at, 0) if at > now_ms.saturating_add(longest) => Err(Unfit::TooFar),
        (at, 0) if at <= now_ms => Ok(0),
        (at, 0) => Ok(at),
        _ => Err(Unfit::TwoTimes),
    }
}

/// Is it a longer life than a publication may have, in milliseconds?
fn is_long(ttl_ms: u64) -> bool {
    u128::from(ttl_ms) > PUBLISH_TTL_MAX.as_millis()
}

impl Namespace {
    /// What goes along with a publication in one of its channels.
    #[must_use]
    pub const fn terms(&self) -> Terms {
        Terms {
            way: if self.is_durable() {
                Way::Log
            } else {
                Way::Owner
            },
            keeps: self.history_size > 0,
            key_ttl: self.idempotency_ttl,
        }
    }
}

impl Config {
    /// Is the publication what its namespace takes, and what every client can read?
    ///
    /// # Errors
    /// The first thing that is wrong; the payload is looked at first.
    pub fn check_draft(&self, namespace: &Namespace, draft: &Draft) -> Result<(), Unfit> {
        let record = &draft.record;
        self.check_payload(namespace, &record.data, record.json)?;
        let (names_schema, has_trace) = (record.schema > 0, !record.trace.is_empty());
        let has_schema = namespace.schema.required || !namespace.schema.accepted.is_empty();
        match draft.way() {
            Way::Owner if names_schema => Err(Unfit::SchemaOfEphemeral),
            Way::Owner if has_trace => Err(Unfit::TraceOfEphemeral),
            Way::Owner if draft.due_ms > 0 => Err(Unfit::DueOfEphemeral),
            Way::Owner if record.ttl_ms > 0 => Err(Unfit::TtlOfEphemeral),
            Way::Log if is_long(record.ttl_ms) => Err(Unfit::LongTtl),
            Way::Log if names_schema && !has_schema => Err(Unfit::NoSchema),
            Way::Log if record.key.len() > IDEMPOTENCY_KEY_BYTES_MAX => Err(Unfit::LongKey),
            Way::Log if record.trace.len() > TRACE_BYTES_MAX => Err(Unfit::LongTrace),
            Way::Owner | Way::Log => Ok(()),
        }
    }

    /// Is a payload what the namespace takes, and what every client can read? `json`: it is one JSON value.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_payload(
        &self,
        namespace: &Namespace,
        data: &[u8],
        json: bool,
    ) -> Result<(), Unfit> {
        let is_object = || data.trim_ascii_start().first() == Some(&b'{');
        match namespace.publication_data_format {
            DataFormat::NotEmpty if data.is_empty() => return Err(Unfit::Empty),
            DataFormat::Json | DataFormat::JsonObject if !json => return Err(Unfit::NotJson),
            DataFormat::JsonObject if !is_object() => return Err(Unfit::NotAnObject),
            DataFormat::NotEmpty
            | DataFormat::Json
            | DataFormat::JsonObject
            | DataFormat::Binary => {}
        }
        if namespace.size_max > 0 && data.len() > namespace.size_max as usize {
            return Err(Unfit::TooLarge(namespace.size_max));
        }
        let levels = self.client.json_depth_max;
        if json && is_deeper(data, levels as usize) {
            return Err(Unfit::TooDeep(levels));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::config::durable::SchemaVersion;
    use crate::config::namespace::Delivery;
    use crate::model::ChannelName;

    fn config() -> Config {
        let mut config = Config::default();
        config.client.json_depth_max = 3;
        config
    }

    fn namespace(format: DataFormat, size_max: u32) -> Namespace {
        Namespace {
            publication_data_format: format,
            size_max,
            ..Namespace::default()
        }
    }

    #[test]
    fn payload_is_what_the_namespace_takes() {
        let (any, json, object, binary) = (
            namespace(DataFormat::NotEmpty, 0),
            namespace(DataFormat::Json, 0),
            namespace(DataFormat::JsonObject, 0),
            namespace(DataFormat::Binary, 0),
        );
        let small = namespace(DataFormat::Binary, 4);
        let (yes, no) = (true, false);
        type Case<'a> = (&'a Namespace, &'a [u8], bool, Result<(), Unfit>);
        let cases: &[Case<'_>] = &[
            (&any, b"1", yes, Ok(())),
            (&any, b"\xff", no, Ok(())),
            (&any, b"", no, Err(Unfit::Empty)),
            (&json, b"1", yes, Ok(())),
            (&json, b"\xff", no, Err(Unfit::NotJson)),
            (&json, b"", no, Err(Unfit::NotJson)),
            (&object, b" {}", yes, Ok(())),
            (&object, b"[]", yes, Err(Unfit::NotAnObject)),
            (&object, b"{", no, Err(Unfit::NotJson)),
            (&binary, b"", no, Ok(())),
            (&small, b"1234", yes, Ok(())),
            (&small, b"12345", yes, Err(Unfit::TooLarge(4))),
            // The first thing that is wrong is told.
            (&small, b"[[[[1]]]]", yes, Err(Unfit::TooLarge(4))),
            (&any, b"[[[1]]]", yes, Ok(())),
            (&any, b"[[[[1]]]]", yes, Err(Unfit::TooDeep(3))),
            (&any, b"[[[[1]]]]", no, Ok(())),
            (&any, b"\"[[[[\"", yes, Ok(())),
        ];
        for (namespace, data, json, expected) in cases {
            let found = config().check_payload(namespace, data, *json);
            let format = namespace.publication_data_format;
            assert_eq!(found, *expected, "{format:?} {data:?} {json}");
        }
    }

    #[test]
    fn options_are_what_the_way_of_the_publication_allows() {
        let ephemeral = Namespace::default();
        let durable = Namespace {
            delivery: Delivery::Durable,
            ..Namespace::default()
        };
        let mut with_schema = durable.clone();
        with_schema.schema.accepted = vec![SchemaVersion::default()];
        let mut required = durable.clone();
        required.schema.required = true;
        let long = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX);
        let longer = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1);
        let trace = "t".repeat(TRACE_BYTES_MAX);
        let longer_trace = "t".repeat(TRACE_BYTES_MAX + 1);
        // Namespace, key, schema version, trace.
        type Case<'a> = (&'a Namespace, &'a str, u32, &'a str, Result<(), Unfit>);
        let cases: &[Case<'_>] = &[
            (&ephemeral, "", 0, "", Ok(())),
            (&ephemeral, &longer, 0, "", Ok(())),
            (&ephemeral, "", 1, "", Err(Unfit::SchemaOfEphemeral)),
            (&ephemeral, "", 0, "t", Err(Unfit::TraceOfEphemeral)),
            (&ephemeral, "", 1, "t", Err(Unfit::SchemaOfEphemeral)),
            (&durable, &long, 0, &trace, Ok(())),
            (&durable, &longer, 0, "", Err(Unfit::LongKey)),
            (&durable, "", 0, &longer_trace, Err(Unfit::LongTrace)),
            (&durable, "", 1, "", Err(Unfit::NoSchema)),
            (&with_schema, "", 1, "", Ok(())),
            (&with_schema, &longer, 1, "", Err(Unfit::LongKey)),
            (&required, "", 1, "t", Ok(())),
        ];
        for (namespace, key, schema, trace, expected) in cases {
            let mut draft = draft(namespace, b"1", true);
            draft.record.key = (*key).into();
            draft.record.schema = *schema;
            draft.record.trace = (*trace).into();
            let found = config().check_draft(namespace, &draft);
            let (way, key, trace) = (draft.way(), key.len(), trace.len());
            assert_eq!(found, *expected, "{way:?} {key} {schema} {trace}");
            draft.record.data = Bytes::new();
            let found = config().check_draft(namespace, &draft);
            assert_eq!(found, Err(Unfit::Empty), "the payload first");
        }
    }

    #[test]
    fn a_time_or_a_delay_says_when_and_what_lies_in_the_past_is_now() {
        const NOW: u64 = 1_800_000_000_000;
        const YEAR: u64 = 365 * 86_400_000;
        let cases = [
            ((0, 0), Ok(0)),
            ((0, 1), Ok(NOW + 1)),
            ((0, YEAR), Ok(NOW + YEAR)),
            ((0, YEAR + 1), Err(Unfit::TooLong)),
            ((NOW - 1, 0), Ok(0)),
            ((NOW, 0), Ok(0)),
            ((NOW + 1, 0), Ok(NOW + 1)),
            ((NOW + YEAR, 0), Ok(NOW + YEAR)),
            ((NOW + YEAR + 1, 0), Err(Unfit::TooFar)),
            ((NOW / 1000, 0), Err(Unfit::Seconds)),
            ((NOW + 1, 1), Err(Unfit::TwoTimes)),
        ];
        for ((at, delay), expected) in cases {
            assert_eq!(due_ms(NOW, at, delay), expected, "{at} {delay}");
        }
        let mut draft = draft(&Namespace::default(), b"1", true);
        draft.due_ms = NOW;
        let refused = config().check_draft(&Namespace::default(), &draft);
        assert_eq!(refused, Err(Unfit::DueOfEphemeral));
    }

    #[test]
    fn time_to_live_is_of_durable_publications_and_has_a_bound() {
        let durable = Namespace {
            delivery: Delivery::Durable,
            ..Namespace::default()
        };
        let longest = u64::try_from(PUBLISH_TTL_MAX.as_millis()).expect("a year");
        for (namespace, ttl, expected) in [
            (Namespace::default(), 0, Ok(())),
            (Namespace::default(), 1, Err(Unfit::TtlOfEphemeral)),
            (durable.clone(), longest, Ok(())),
            (durable, longest + 1, Err(Unfit::LongTtl)),
        ] {
            let mut draft = draft(&namespace, b"1", true);
            draft.record.ttl_ms = ttl;
            assert_eq!(config().check_draft(&namespace, &draft), expected, "{ttl}");
        }
    }

    fn draft(namespace: &Namespace, data: &'static [u8], json: bool) -> Draft {
        let channel = ChannelName::from_whole("c");
        Draft::new(namespace.terms(), channel, Bytes::from_static(data), json)
    }

    #[test]
    fn terms_say_where_it_goes_and_what_is_kept() {
        let mut namespace = Namespace::default();
        let terms = namespace.terms();
        assert_eq!((terms.way, terms.keeps), (Way::Owner, false));
        namespace.history_size = 1;
        assert!(namespace.terms().keeps);
        namespace.delivery = Delivery::Durable;
        namespace.idempotency_ttl = std::time::Duration::from_secs(7);
        let terms = namespace.terms();
        assert_eq!((terms.way, terms.key_ttl.as_secs()), (Way::Log, 7));
    }
}

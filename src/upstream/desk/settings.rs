//! What a group's workers say about it, and what the group makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::de::{Error as _, MapAccess};
use serde::{Deserialize, Serialize};

use crate::config::namespace::{QUEUE_PREFIX, is_of_letters, is_queue};
use crate::limits::{
    ACK_WAIT_MAX, ACK_WAIT_MIN, GROUP_ATTEMPTS_MAX, GROUP_CHANNEL_BYTES_MAX, GROUP_CHANNELS_MAX,
    GROUP_NAME_BYTES_MAX,
};
use crate::mem::Rng;
use crate::wire::json::{Value, fields};

use super::picks::Picks;
use super::start::Start;
use super::turns::{Key, LANE_WEIGHTS, LANES, Lanes, Turns};
use super::{Scoped, scope};
use crate::model::TenantId;

/// Is this a channel that only the log's side publishes on?
#[must_use]
pub fn is_own(channel: &str) -> bool {
    is_queue(channel) || is_of_letters(channel)
}

/// Rules of a group. Survives restarts beside the group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Channels it takes from, without its own; names or globs.
    pub channels: Vec<Box<str>>,
    /// A delivery that is not settled within this time has failed.
    pub ack_wait: Duration,
    /// At most one unsettled publication of each channel at a time.
    pub ordered: bool,
    /// Failed attempts that make a dead letter.
    pub max_attempts: u32,
    /// When a failed publication is tried again.
    pub backoff: Backoff,
    /// Whose turn it is.
    #[serde(default)]
    pub turns: Turns,
    /// What it takes from its channels; the rest is done as soon as it is seen.
    #[serde(default, skip_serializing_if = "Picks::are_all")]
    pub picks: Picks,
    /// One process has all that is not done, and what an earlier one had comes to it before anything new: a join has its parts together.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gathers: bool,
    /// Publications that are not done, from which on none is taken in for it; 0 for no bound.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lag_max: u64,
    /// Nothing is given until it goes on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Time between attempts: `base * factor ^ (attempt - 1)`, at most `cap`, more or less by up to `jitter` of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// After the first attempt.
    pub base: Duration,
    /// At least 1.
    pub factor: f64,
    /// Upper bound before the jitter.
    pub cap: Duration,
    /// 0 to 1.
    pub jitter: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            channels: Vec::new(),
            ack_wait: Duration::from_secs(30),
            ordered: false,
            max_attempts: 5,
            backoff: Backoff::default(),
            turns: Turns::default(),
            picks: Picks::default(),
            gathers: false,
            lag_max: 0,
            paused: false,
        }
    }
}

impl Settings {
    /// Names of the rules that are not the same.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let channels = |settings: &Self| settings.channels.iter().cloned().collect::<BTreeSet<_>>();
        [
            ("channels", channels(self) == channels(other)),
            ("ack_wait_ms", self.ack_wait == other.ack_wait),
            ("ordered", self.ordered == other.ordered),
            ("max_attempts", self.max_attempts == other.max_attempts),
            ("backoff", self.backoff == other.backoff),
            ("key", self.turns.key == other.turns.key),
            (
                "key_concurrency",
                self.turns.concurrency == other.turns.concurrency,
            ),
            ("key_rate", self.turns.rate == other.turns.rate),
            ("key_weights", self.turns.weights == other.turns.weights),
            ("lanes", self.turns.lanes == other.turns.lanes),
            ("tags", self.picks.tags == other.picks.tags),
            ("where", self.picks.condition == other.picks.condition),
            ("lag_max", self.lag_max == other.lag_max),
            ("paused", self.paused == other.paused),
        ]
        .into_iter()
        .filter_map(|(name, is_same)| (!is_same).then_some(name))
        .collect()
    }

    /// The log gives it to one process, in order.
    #[must_use]
    pub const fn is_of_one(&self) -> bool {
        self.ordered || self.gathers
    }

    /// A lease counts for this long after it was last spoken of. Where what a dead process had comes before anything else, the
    /// group stands still until its leases have run out.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        if self.is_of_one() {
            Duration::from_secs(10)
        } else {
            Duration::from_mins(1)
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            factor: 2.0,
            cap: Duration::from_mins(5),
            jitter: 0.2,
        }
    }
}

impl Backoff {
    /// Time to wait after this many failed attempts, without jitter.
    #[must_use]
    pub fn nominal(&self, failed: u32) -> Duration {
        let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.powi(exponent);
        Duration::try_from_secs_f64(seconds.min(self.cap.as_secs_f64())).unwrap_or(self.cap)
    }

    /// Time to wait after this many failed attempts.
    #[must_use]
    pub fn delay(&self, failed: u32, rng: &mut Rng) -> Duration {
        let share = rng.below(1 << 32) as f64 / (1u64 << 32) as f64;
        self.nominal(failed)
            .mul_f64(1.0 + self.jitter * (2.0 * share - 1.0))
    }
}

/// Rules of a group as a worker writes them. What is left out stays as it is, or is the default in a new group.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Group.
    pub group: Box<str>,
    /// See `Settings`.
    pub channels: Option<Vec<Box<str>>>,
    /// Publications under way at this worker (`consume`), default 16.
    pub credit: Option<u32>,
    /// Deliveries in the answer (`fetch`).
    pub limit: Option<u32>,
    /// How long the answer may take if there is nothing (`fetch`).
    pub wait_ms: Option<u64>,
    /// See `Settings`.
    pub ack_wait_ms: Option<u64>,
    /// See `Settings`.
    pub ordered: Option<bool>,
    /// See `Settings`.
    pub max_attempts: Option<u32>,
    /// See `Settings`.
    pub backoff: Option<BackoffWish>,
    /// See `Turns::key`; an empty text is none.
    pub key: Option<Box<str>>,
    /// See `Turns::concurrency`.
    pub key_concurrency: Option<u32>,
    /// See `Turns::rate`.
    pub key_rate: Option<f64>,
    /// See `Turns::weights`.
    pub key_weights: Option<BTreeMap<Box<str>, u32>>,
    /// See `Turns::lanes`.
    pub lanes: Option<LanesWish>,
    /// See `Picks::tags`.
    pub tags: Option<BTreeMap<Box<str>, Box<str>>>,
    /// See `Picks::condition`; an empty text is none.
    pub condition: Option<Box<str>>,
    /// See `Settings`.
    pub lag_max: Option<u64>,
    /// Where a new group starts; the beginning if nothing is said.
    pub from: Option<Start>,
    /// Rules that differ from those of the group change it; else they are refused.
    pub update: bool,
}
impl Scoped for Wish {
    fn scope(&mut self, tenant: TenantId<'_>) {
        scope(tenant, [&mut self.group]);
        scope(tenant, self.channels.iter_mut().flatten());
        scope(tenant, self.from.iter_mut().filter_map(Start::channel));
    }
}
fields!(@Own Wish {
    "group" => group,
    "channels" => channels,
    "credit" => credit,
    "limit" => limit,
    "wait_ms" => wait_ms,
    "ack_wait_ms" => ack_wait_ms,
    "ordered" => ordered,
    "max_attempts" => max_attempts,
    "backoff" => backoff,
    "key" => key,
    "key_concurrency" => key_concurrency,
    "key_rate" => key_rate,
    "key_weights" => key_weights,
    "lanes" => lanes,
    "tags" => tags,
    "where" => condition,
    "lag_max" => lag_max,
    "from" => from,
    "update" => update,
});

/// See `Lanes`.
#[derive(Clone, Debug, Default)]
pub struct LanesWish {
    by: Option<Box<str>>,
    weights: Vec<u64>,
}
fields!(@Own LanesWish { "by" => by, "weights" => weights });

/// A map; a name with `null` is absent.
fn map_of<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    map: &mut A,
    what: &'static str,
) -> Result<Option<BTreeMap<Box<str>, T>>, A::Error> {
    let found = map.next_value::<Option<BTreeMap<Box<str>, Option<T>>>>();
    let found = found.map_err(|_| A::Error::custom(format_args!(": expected {what}")))?;
    let some = |(name, value): (Box<str>, Option<T>)| Some((name, value?));
    Ok(found.map(|found| found.into_iter().filter_map(some).collect()))
}

impl<'de> Value<'de> for Option<BTreeMap<Box<str>, u32>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        map_of(map, "an object with a whole number for each name")
    }
}

impl<'de> Value<'de> for Option<BTreeMap<Box<str>, Box<str>>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        map_of(map, "an object with a text for each name")
    }
}

/// See `Backoff`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackoffWish {
    base_ms: Option<u64>,
    factor: Option<f64>,
    cap_ms: Option<u64>,
    jitter: Option<f64>,
}
fields!(@Own BackoffWish { "base_ms" => base_ms, "factor" => factor, "cap_ms" => cap_ms, "jitter" => jitter });

/// A parameter that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// Name of a group.
    #[error("`group` is 1 to {GROUP_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
    Group,
    /// None, too many, or one that is empty or too long.
    #[error(
        "`channels` is 1 to {GROUP_CHANNELS_MAX} names or patterns of 1 to {GROUP_CHANNEL_BYTES_MAX} bytes"
    )]
    Channels,
    /// One that belongs to the queue groups themselves.
    #[error("channels that start with `{QUEUE_PREFIX}` are reserved")]
    Reserved,
    /// Rules about turns or about what is taken that cannot be.
    #[error("{0}")]
    Rule(Box<str>),
    /// A number outside its range.
    #[error("`{name}` is {range}")]
    Range {
        /// Parameter.
        name: &'static str,
        /// What it may be.
        range: &'static str,
    },
}

/// Is this a name that workers may give a group?
#[must_use]
pub fn is_group_name(name: &str) -> bool {
    let (_, name) = TenantId::split(name);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= GROUP_NAME_BYTES_MAX && name.bytes().all(allowed)
}

/// A number within its range, or why not.
///
/// # Errors
/// It is outside.
pub fn within<T: PartialOrd>(
    value: T,
    low: T,
    high: T,
    name: &'static str,
    range: &'static str,
) -> Result<T, WishError> {
    if value < low || value > high {
        return Err(WishError::Range { name, range });
    }
    Ok(value)
}

impl Wish {
    /// Whether any group could have what is wished.
    ///
    /// # Errors
    /// What no group can have.
    pub fn check(&self) -> Result<(), WishError> {
        let any = Settings {
            channels: vec!["*".into()],
            ..Settings::default()
        };
        self.settings(Some(&any)).map(drop)
    }

    /// The rules that these parameters make of those that count so far.
    ///
    /// # Errors
    /// A parameter is not as it must be, or a new group has no channels.
    pub fn settings(&self, before: Option<&Settings>) -> Result<Settings, WishError> {
        let mut settings = before.cloned().unwrap_or_default();
        if let Some(channels) = &self.channels {
            settings.channels.clone_from(channels);
        }
        check_channels(&settings.channels)?;
        if let Some(ms) = self.ack_wait_ms {
            settings.ack_wait = within(
                Duration::from_millis(ms),
                ACK_WAIT_MIN,
                ACK_WAIT_MAX,
                "ack_wait_ms",
                "1000 to 43200000",
            )?;
        }
        settings.ordered = self.ordered.unwrap_or(settings.ordered);
        if let Some(attempts) = self.max_attempts {
            settings.max_attempts =
                within(attempts, 1, GROUP_ATTEMPTS_MAX, "max_attempts", "1 to 100")?;
        }
        if let Some(wish) = &self.backoff {
            wish.apply(&mut settings.backoff)?;
        }
        self.apply_turns(&mut settings.turns)?;
        if let Some(tags) = &self.tags {
            settings.picks.tags.clone_from(tags);
        }
        if let Some(condition) = &self.condition {
            settings.picks.condition.clone_from(condition);
        }
        settings.picks.check().map_err(WishError::Rule)?;
        settings.lag_max = self.lag_max.unwrap_or(settings.lag_max);
        Ok(settings)
    }

    fn apply_turns(&self, turns: &mut Turns) -> Result<(), WishError> {
        let rule = |error: &dyn std::fmt::Display| WishError::Rule(error.to_string().into());
        if let Some(key) = &self.key {
            turns.key = match key.is_empty() {
                true => None,
                false => Some(Key::parse(key).map_err(|error| rule(&format!("`key`: {error}")))?),
            };
        }
        turns.concurrency = self.key_concurrency.unwrap_or(turns.concurrency);
        turns.rate = self.key_rate.unwrap_or(turns.rate);
        if let Some(weights) = &self.key_weights {
            turns.weights.clone_from(weights);
        }
        if let Some(lanes) = &self.lanes {
            turns.lanes = match lanes.by.as_deref() {
                None | Some("") => None,
                Some(by) => Some(Lanes {
                    by: Key::parse(by).map_err(|error| rule(&format!("`lanes.by`: {error}")))?,
                    weights: lane_weights(&lanes.weights)?,
                }),
            };
        }
        turns.check().map_err(|error| rule(&error))
    }
}

fn lane_weights(weights: &[u64]) -> Result<[u32; LANES], WishError> {
    if weights.is_empty() {
        return Ok(LANE_WEIGHTS);
    }
    let weights: Vec<u32> = weights
        .iter()
        .map(|weight| u32::try_from(*weight).unwrap_or(0))
        .collect();
    <[u32; LANES]>::try_from(weights).map_err(|_| {
        WishError::Rule(
            "`lanes.weights` is four weights of 1 to 100, the least urgent lane first".into(),
        )
    })
}

impl BackoffWish {
    fn apply(&self, backoff: &mut Backoff) -> Result<(), WishError> {
        if let Some(ms) = self.base_ms {
            let base = Duration::from_millis(ms);
            let zero = Duration::ZERO;
            backoff.base = within(base, zero, ACK_WAIT_MAX, "backoff.base_ms", "0 to 43200000")?;
        }
        if let Some(factor) = self.factor {
            backoff.factor = within(factor, 1.0, 100.0, "backoff.factor", "1 to 100")?;
        }
        if let Some(ms) = self.cap_ms {
            let cap = Duration::from_millis(ms);
            let zero = Duration::ZERO;
            backoff.cap = within(cap, zero, ACK_WAIT_MAX, "backoff.cap_ms", "0 to 43200000")?;
        }
        if let Some(jitter) = self.jitter {
            backoff.jitter = within(jitter, 0.0, 1.0, "backoff.jitter", "0 to 1")?;
        }
        Ok(())
    }
}

fn check_channels(channels: &[Box<str>]) -> Result<(), WishError> {
    let fits = |channel: &str| !channel.is_empty() && channel.len() <= GROUP_CHANNEL_BYTES_MAX;
    if channels.is_empty()
        || channels.len() > GROUP_CHANNELS_MAX
        || !channels.iter().all(|channel| fits(channel))
    {
        return Err(WishError::Channels);
    }
    if channels.iter().any(|channel| is_queue(channel)) {
        return Err(WishError::Reserved);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(json: &str) -> Wish {
        crate::wire::json::object(json.as_bytes()).unwrap()
    }

    #[test]
    fn new_group_has_the_defaults_and_later_wishes_change_what_they_name() {
        let first = wish(r#"{"group":"g","channels":["a:*"]}"#)
            .settings(None)
            .unwrap();
        assert_eq!(first.ack_wait, Duration::from_secs(30));
        assert_eq!((first.ordered, first.max_attempts), (false, 5));
        let second = wish(r#"{"group":"g","ordered":true,"backoff":{"base_ms":5}}"#)
            .settings(Some(&first))
            .unwrap();
        assert_eq!(second.channels, first.channels);
        assert!(second.ordered);
        assert_eq!(second.backoff.base, Duration::from_millis(5));
        assert_eq!(second.backoff.cap, Duration::from_mins(5));
    }

    #[test]
    fn parameters_outside_their_range_are_refused() {
        for (json, error) in [
            (r#"{"group":"g"}"#, WishError::Channels),
            (r#"{"group":"g","channels":[""]}"#, WishError::Channels),
            (
                r#"{"group":"g","channels":["$queue:x"]}"#,
                WishError::Reserved,
            ),
        ] {
            assert_eq!(wish(json).settings(None), Err(error), "{json}");
        }
        for part in [
            r#""ack_wait_ms":999"#,
            r#""ack_wait_ms":43200001"#,
            r#""max_attempts":0"#,
            r#""max_attempts":101"#,
            r#""backoff":{"factor":0.5}"#,
            r#""backoff":{"jitter":1.5}"#,
            r#""backoff":{"base_ms":43200001}"#,
            r#""backoff":{"cap_ms":43200001}"#,
        ] {
            let json = format!(r#"{{"group":"g","channels":["a"],{part}}}"#);
            let refused = wish(&json).settings(None);
            assert!(matches!(refused, Err(WishError::Range { .. })), "{json}");
        }
    }

    #[test]
    fn null_parameters_are_absent_ones_and_unknown_ones_are_named() {
        use crate::wire::json::{null, object};
        let sample = serde_json::json!({
            "group": "g", "channels": ["a"], "credit": 1, "limit": 2, "wait_ms": 3, "ack_wait_ms": 4000, "ordered": true,
            "max_attempts": 5, "backoff": { "base_ms": 1, "factor": 2.0, "cap_ms": 3, "jitter": 0.5 }, "from": "new", "update": true,
            "key": "channel", "key_concurrency": 1, "key_rate": 2.0, "key_weights": { "a": 2 },
            "lanes": { "by": "tag:p", "weights": [1] }, "tags": { "a": "b" }, "where": "a = 1", "lag_max": 6,
        });
        null::covers(&sample, &null::names::<Wish>());
        null::covers(&sample["backoff"], &null::names::<BackoffWish>());
        null::same(&sample, &[], |text| {
            format!("{:?}", object::<Wish>(text.as_bytes()))
        });
        for (text, wanted) in [
            (
                r#"{"acks_wait_ms":1}"#,
                "acks_wait_ms: unknown, did you mean `ack_wait_ms`?",
            ),
            (r#"{"Group":"g"}"#, "Group: unknown, did you mean `group`?"),
            (
                r#"{"backoff":{"caps_ms":1}}"#,
                "backoff.caps_ms: unknown, did you mean `cap_ms`?",
            ),
            (
                r#"{"backoff":{"x":1}}"#,
                "backoff.x: unknown, known are base_ms, factor, cap_ms, jitter",
            ),
            (r#"{"group":"g","group":"h"}"#, "group: stands here twice"),
            (
                r#"{"from":"middle"}"#,
                "from: expected \"beginning\", \"new\" or an object",
            ),
            (
                r#"{"credit":-1}"#,
                "credit: expected a whole number from 0 to 4294967295",
            ),
            (
                r#"{"channels":"a"}"#,
                "channels: expected a list of strings",
            ),
            (r#"{"ordered":"yes"}"#, "ordered: expected true or false"),
            ("[]", "expected an object"),
        ] {
            let error = object::<Wish>(text.as_bytes()).expect_err(text);
            assert_eq!(error.to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn group_names_are_plain() {
        assert!(is_group_name("billing.v2_a-b"));
        for name in ["", "a b", "$trigger", "a:b", "a*", &"a".repeat(129)] {
            assert!(!is_group_name(name), "{name}");
        }
    }

    #[test]
    fn backoff_grows_to_its_cap_and_jitter_stays_within_its_share() {
        let backoff = Backoff::default();
        assert_eq!(backoff.nominal(1), Duration::from_secs(1));
        assert_eq!(backoff.nominal(4), Duration::from_secs(8));
        assert_eq!(backoff.nominal(60), Duration::from_mins(5));
        let mut rng = Rng::new(7);
        for _ in 0..1000 {
            let delay = backoff.delay(2, &mut rng).as_secs_f64();
            assert!((1.6..=2.4).contains(&delay), "{delay}");
        }
    }
}

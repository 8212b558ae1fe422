//! JSON Web Tokens: who a connection is, and which channel it may have (`spec/centrifuge.md` §6).
//!
//! Signatures are `jsonwebtoken`'s (HMAC compares in constant time). Header, times and claims are checked here,
//! because the clock is an argument and the claims are the protocol's own.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::config::{Secret, Token};
use crate::model::Overrides;

/// Bytes of one token.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a token does not count. What follows from it is §4.1 for connections and §4.3 for subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `exp` is past or `nbf` is ahead: the client may come back with a fresh one.
    #[error("token expired")]
    Expired,
    /// Anything else that is wrong with it.
    #[error("invalid token")]
    Invalid,
    /// The signature counts, but a claim that should be base64 is not.
    #[error("undecodable base64 in a claim")]
    BadBase64,
}

/// What a connection token says. Payloads are one JSON value without raw line breaks; empty when absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionClaims {
    /// Empty for the anonymous user.
    pub user: String,
    /// Unix seconds at which the connection expires; `None` is never. May be past: `expire_at` is the issuer's.
    pub expire_at: Option<u64>,
    /// Connection info.
    pub info: Bytes,
    /// Server-side subscriptions, sorted by channel, without repeats.
    pub subs: Vec<(String, SubOptions)>,
    /// Stays on the server.
    pub meta: Bytes,
}

/// Options of one server-side subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubOptions {
    /// Subscription info.
    pub info: Bytes,
    /// Goes into the subscribe result.
    pub data: Bytes,
    /// Over the namespace's options.
    pub overrides: Overrides,
}

/// What a subscription token says. Payloads as in `ConnectionClaims`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionClaims {
    /// Must be the connection's user; empty for the anonymous user.
    pub user: String,
    /// Must be the channel that is asked for.
    pub channel: String,
    /// If set, must be the connection's client id.
    pub client: Option<String>,
    /// Subscription info.
    pub info: Bytes,
    /// Goes into the subscribe result.
    pub data: Bytes,
    /// Unix seconds at which the subscription expires; `None` is never. May be past.
    pub expire_at: Option<u64>,
    /// Over the namespace's options.
    pub overrides: Overrides,
}

/// Keys and expectations for one kind of token, ready for use.
#[derive(Clone)]
pub struct Verifier {
    keys: Vec<Key>,
    audience: Option<String>,
    issuer: Option<String>,
    user_id_claim: Option<String>,
}

/// One key and what it is for.
#[derive(Clone)]
struct Key {
    /// A key verifies the algorithms that it is configured for and no other, whatever a token's header says.
    algorithms: &'static [Algorithm],
    key: DecodingKey,
    /// Unix seconds at which it stops to count.
    valid_until: Option<u64>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

impl Verifier {
    /// Prepares the keys. Without a key every token is invalid.
    #[must_use]
    pub fn new(config: &Token) -> Self {
        let hmac = |secret: &Secret, valid_until| {
            let key = || DecodingKey::from_secret(secret.0.as_bytes());
            (!secret.0.is_empty()).then(|| Key {
                algorithms: HMAC,
                key: key(),
                valid_until,
            })
        };
        let until = config.hmac_previous_secret_key_valid_until;
        let previous = hmac(
            &config.hmac_previous_secret_key,
            (until > 0).then_some(until),
        );
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        Self {
            keys: hmac(&config.hmac_secret_key, None)
                .into_iter()
                .chain(previous)
                .collect(),
            audience: some(&config.audience),
            issuer: some(&config.issuer),
            user_id_claim: some(&config.user_id_claim),
        }
    }

    /// Verifies a token for connecting or refreshing.
    ///
    /// # Errors
    /// See `TokenError`. A subscription token (one with `channel`) is invalid here.
    pub fn connection(&self, token: &str, now_unix_s: u64) -> Result<ConnectionClaims, TokenError> {
        let payload = self.payload(token, now_unix_s)?;
        let claims: RawClaims<'_> = parse(&payload)?;
        let exp = self.expect(&claims, now_unix_s)?;
        if claims.channel.is_some() {
            return Err(TokenError::Invalid);
        }
        let subs = match claims.subs {
            Some(subs) if !subs.is_empty() => {
                let subs = subs
                    .into_iter()
                    .map(|(channel, options)| Ok((channel, options.lower()?)));
                subs.collect::<Result<_, TokenError>>()?
            }
            _ => {
                let mut channels = claims.channels.unwrap_or_default();
                channels.sort_unstable();
                channels.dedup();
                channels
                    .into_iter()
                    .map(|channel| (channel, SubOptions::default()))
                    .collect()
            }
        };
        Ok(ConnectionClaims {
            user: self.user(claims.sub, &payload)?,
            expire_at: expiry(claims.expire_at, exp),
            info: payload_of(claims.info, claims.b64info)?,
            subs,
            meta: claims.meta.map(one_line).unwrap_or_default(),
        })
    }

    /// Verifies a token for subscribing or refreshing a subscription. Whose and for which channel it is, the caller
    /// compares.
    ///
    /// # Errors
    /// See `TokenError`. A connection token (one without `channel`) is invalid here.
    pub fn subscription(
        &self,
        token: &str,
        now_unix_s: u64,
    ) -> Result<SubscriptionClaims, TokenError> {
        let payload = self.payload(token, now_unix_s)?;
        let claims: RawClaims<'_> = parse(&payload)?;
        let exp = self.expect(&claims, now_unix_s)?;
        let channel = claims.channel.ok_or(TokenError::Invalid)?;
        let channel: String = parse(channel.get().as_bytes())?;
        if channel.is_empty() {
            return Err(TokenError::Invalid);
        }
        Ok(SubscriptionClaims {
            user: self.user(claims.sub, &payload)?,
            channel,
            client: claims.client.filter(|client| !client.is_empty()),
            info: payload_of(claims.info, claims.b64info)?,
            data: payload_of(claims.data, claims.b64data)?,
            expire_at: expiry(claims.expire_at, exp),
            overrides: claims.override_.unwrap_or_default().lower(),
        })
    }

    /// The payload of a token whose signature counts.
    fn payload(&self, token: &str, now_unix_s: u64) -> Result<Vec<u8>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Invalid)?;
        let header = URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|_| TokenError::Invalid)?;
        let header: Header = parse(&header)?;
        if header.crit.is_some() {
            return Err(TokenError::Invalid);
        }
        let verifies = |key: &Key| {
            key.algorithms.contains(&header.alg)
                && key.valid_until.is_none_or(|until| now_unix_s < until)
                && crypto::verify(signature, signed.as_bytes(), &key.key, header.alg)
                    .unwrap_or(false)
        };
        if !self.keys.iter().any(verifies) {
            return Err(TokenError::Invalid);
        }
        URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| TokenError::Invalid)
    }

    /// Checks issuer and audience, then times: a token of somebody else is invalid, not expired. Returns `exp`.
    fn expect(&self, claims: &RawClaims<'_>, now_unix_s: u64) -> Result<Option<u64>, TokenError> {
        if self.issuer.is_some() && self.issuer != claims.iss {
            return Err(TokenError::Invalid);
        }
        if let Some(wanted) = &self.audience {
            let found = match &claims.aud {
                Some(Audience::One(one)) => one == wanted,
                Some(Audience::Many(many)) => many.contains(wanted),
                None => false,
            };
            if !found {
                return Err(TokenError::Invalid);
            }
        }
        let exp = claims.exp.map(Seconds::unix);
        let ahead = claims.nbf.is_some_and(|nbf| nbf.unix() > now_unix_s);
        if ahead || exp.is_some_and(|exp| exp <= now_unix_s) {
            return Err(TokenError::Expired);
        }
        Ok(exp)
    }

    /// The user id: `sub`, or the configured claim.
    fn user(&self, sub: Option<String>, payload: &[u8]) -> Result<String, TokenError> {
        let Some(claim) = &self.user_id_claim else {
            return Ok(sub.unwrap_or_default());
        };
        let mut claims: BTreeMap<String, &RawValue> = parse(payload)?;
        let Some(user) = claims.remove(claim) else {
            return Ok(String::new());
        };
        parse(user.get().as_bytes())
    }
}

/// The header of a token. An algorithm that is not known by name, `none` among them, does not parse.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    /// Extensions that must be understood (RFC 7515 §4.1.11). None is.
    crit: Option<IgnoredAny>,
}

/// The claims as they stand in the token. A claim that stands twice does not parse.
#[derive(Deserialize)]
struct RawClaims<'a> {
    sub: Option<String>,
    exp: Option<Seconds>,
    nbf: Option<Seconds>,
    expire_at: Option<Seconds>,
    aud: Option<Audience>,
    iss: Option<String>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    client: Option<String>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    channels: Option<Vec<String>>,
    #[serde(borrow)]
    subs: Option<BTreeMap<String, RawSub<'a>>>,
    #[serde(rename = "override")]
    override_: Option<RawOverride>,
}

/// One member of the `subs` claim.
#[derive(Deserialize)]
struct RawSub<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    override_: Option<RawOverride>,
}

impl RawSub<'_> {
    fn lower(self) -> Result<SubOptions, TokenError> {
        Ok(SubOptions {
            info: payload_of(self.info, self.b64info)?,
            data: payload_of(self.data, self.b64data)?,
            overrides: self.override_.unwrap_or_default().lower(),
        })
    }
}

#[derive(Default, Deserialize)]
struct RawOverride {
    presence: Option<Flag>,
    join_leave: Option<Flag>,
    force_push_join_leave: Option<Flag>,
    force_recovery: Option<Flag>,
    force_positioning: Option<Flag>,
}

#[derive(Deserialize)]
struct Flag {
    #[serde(default)]
    value: bool,
}

impl RawOverride {
    fn lower(self) -> Overrides {
        let value = |flag: Option<Flag>| flag.map(|flag| flag.value);
        Overrides {
            presence: value(self.presence),
            join_leave: value(self.join_leave),
            force_push_join_leave: value(self.force_push_join_leave),
            force_recovery: value(self.force_recovery),
            force_positioning: value(self.force_positioning),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// A NumericDate (RFC 7519 §2): seconds, maybe with a fraction.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Whole(u64),
    Any(f64),
}

impl Seconds {
    /// Whole Unix seconds; what lies before 1970 is 0. The cast saturates.
    const fn unix(self) -> u64 {
        match self {
            Self::Whole(seconds) => seconds,
            Self::Any(seconds) => seconds as u64,
        }
    }
}

/// When the session ends: `expire_at` over `exp`, and an `expire_at` of 0 is never.
fn expiry(expire_at: Option<Seconds>, exp: Option<u64>) -> Option<u64> {
    match expire_at {
        Some(Seconds::Whole(0)) => None,
        Some(at) => Some(at.unix()),
        None => exp,
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, TokenError> {
    serde_json::from_slice(json).map_err(|_| TokenError::Invalid)
}

/// A payload from its JSON claim or its base64 claim; the latter wins and may hold any bytes, for Protobuf clients.
fn payload_of(json: Option<&RawValue>, base64: Option<String>) -> Result<Bytes, TokenError> {
    let Some(base64) = base64.filter(|text| !text.is_empty()) else {
        return Ok(json.map(one_line).unwrap_or_default());
    };
    let bytes = STANDARD.decode(base64).map_err(|_| TokenError::BadBase64)?;
    Ok(match parse::<&RawValue>(&bytes) {
        Ok(json) => one_line(json),
        Err(_) => bytes.into(),
    })
}

/// A JSON value without raw line breaks: they separate messages on the wire. Outside of strings they are white space,
/// and inside of strings JSON has none.
fn one_line(json: &RawValue) -> Bytes {
    let mut bytes = json.get().as_bytes().to_vec();
    for byte in &mut bytes {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    Bytes::from(bytes)
}

/// Why no token was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// There is no key to sign with.
    #[error("no hmac_secret_key is configured")]
    NoKey,
    /// The claims are not a JSON object.
    #[error("the claims are not a JSON object")]
    NotAnObject,
    /// No verifier would take it.
    #[error("the token is too long")]
    TooLong,
}

/// Signs claims, a JSON object, with HS256.
///
/// # Errors
/// See `MintError`.
pub fn mint(secret: &Secret, claims: &str) -> Result<String, MintError> {
    if secret.0.is_empty() {
        return Err(MintError::NoKey);
    }
    let claims: BTreeMap<String, &RawValue> =
        serde_json::from_str(claims).map_err(|_| MintError::NotAnObject)?;
    let key = EncodingKey::from_secret(secret.0.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|_| MintError::NotAnObject)?;
    if token.len() > TOKEN_BYTES_MAX {
        Err(MintError::TooLong)
    } else {
        Ok(token)
    }
}

#[cfg(test)]
mod tests;

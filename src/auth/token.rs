//! JSON Web Tokens: who a connection is, and which channel it may have (`spec/centrifuge.md` §6).
//!
//! Signatures are `jsonwebtoken`'s (HMAC compares in constant time). Header, times and claims are checked here,
//! because the clock is an argument and the claims are the protocol's own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use serde::de::{Deserialize, Error as _, IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use remote::Remote;

use super::overrides::RawOverride;
use crate::config::{KeySet, Pattern, PublicKey, Secret, Token};
use crate::limits::TOKEN_BYTES_MAX;
use crate::model::{ConsumeGrant, Overrides};
use crate::time::Now;
use crate::wire::json::{Object, Value, expected, fields, is_json_deeper, object, value};

pub use remote::KEY_SET_TTL;

mod remote;

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
    /// The service that publishes the keys has to be asked: verify again when it has answered.
    #[error("unknown key")]
    KeyWanted,
    /// That service does not answer: the client may come back.
    #[error("keys unavailable")]
    KeysUnavailable,
}

/// What a connection token says. Payloads are one JSON value without raw line breaks, or, from a base64 claim, any bytes;
/// empty when absent.
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
    /// How the token can be revoked.
    pub mark: Mark,
    /// What it lets its client consume.
    pub consume: Vec<ConsumeGrant>,
}

/// What a token can be revoked by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// `jti`; empty when absent.
    pub id: String,
    /// `iat` in Unix seconds; 0 when absent.
    pub issued_at: u64,
}

impl Mark {
    /// Both of them.
    #[must_use]
    pub fn parts(&self) -> (&str, u64) {
        (&self.id, self.issued_at)
    }
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
    /// How the token can be revoked.
    pub mark: Mark,
}

/// Keys and expectations for one kind of token, ready for use.
#[derive(Clone)]
pub struct Verifier {
    keys: TokenKeys,
    audience: Expected,
    issuer: Expected,
    user_id_claim: Option<String>,
    /// Levels of nesting of what goes to clients.
    levels: usize,
}

/// Where keys come from.
#[derive(Clone)]
enum TokenKeys {
    /// The configuration.
    Own {
        secrets: Vec<Timed<DecodingKey>>,
        public: Vec<Timed<PublicKey>>,
    },
    /// A service that publishes them.
    Remote(Box<Remote>),
    /// Any signature counts.
    Ignored,
}

/// A key that may have an end. A secret verifies HMAC and a public key its own algorithms, whatever a token's header says.
#[derive(Clone)]
struct Timed<K> {
    key: K,
    /// Unix seconds at which it stops to count.
    valid_until: Option<u64>,
}

impl<K> Timed<K> {
    /// The key that is in use, and the one before it, which counts until then; 0 is always.
    fn pair(current: Option<K>, previous: Option<K>, until: u64) -> Vec<Self> {
        let current = current.map(|key| Self {
            key,
            valid_until: None,
        });
        let previous = previous.map(|key| Self {
            key,
            valid_until: (until > 0).then_some(until),
        });
        current.into_iter().chain(previous).collect()
    }

    fn counts(&self, now: Now) -> bool {
        self.valid_until.is_none_or(|until| now.unix_s() < until)
    }
}

/// What a claim must be.
#[derive(Clone)]
enum Expected {
    Anything,
    Exactly(String),
    Like(Pattern),
}

impl Expected {
    fn new(exact: &str, pattern: Option<&Pattern>) -> Self {
        match pattern {
            Some(pattern) => Self::Like(pattern.clone()),
            None if exact.is_empty() => Self::Anything,
            None => Self::Exactly(exact.to_owned()),
        }
    }

    fn fits(&self, found: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Exactly(wanted) => wanted == found,
            Self::Like(pattern) => pattern.matches(found),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = match &self.keys {
            TokenKeys::Own { secrets, public } => secrets.len() + public.len(),
            TokenKeys::Remote(remote) => remote.len(),
            TokenKeys::Ignored => 0,
        };
        f.debug_struct("Verifier")
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

impl Verifier {
    /// Prepares the keys. Without a key every token is invalid. With `skip_signature` every signature counts: for
    /// development.
    #[must_use]
    pub fn new(config: &Token, skip_signature: bool) -> Self {
        let keys = if skip_signature {
            TokenKeys::Ignored
        } else if config.jwks_public_endpoint.is_empty() {
            own_keys(config)
        } else {
            TokenKeys::Remote(Box::default())
        };
        Self {
            keys,
            audience: Expected::new(&config.audience, config.audience_regex.as_ref()),
            issuer: Expected::new(&config.issuer, config.issuer_regex.as_ref()),
            user_id_claim: (!config.user_id_claim.is_empty()).then(|| config.user_id_claim.clone()),
            levels: usize::MAX,
        }
    }

    /// Payloads of claims that go to clients may be nested so deep: every client must be able to read them.
    #[must_use]
    pub fn with_depth(mut self, levels: u32) -> Self {
        self.levels = levels as usize;
        self
    }

    fn check_depth<'a>(
        &self,
        payloads: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<(), TokenError> {
        let mut payloads = payloads.into_iter();
        if payloads.any(|payload| is_json_deeper(payload, self.levels)) {
            return Err(TokenError::Invalid);
        }
        Ok(())
    }

    /// The service with the keys has answered.
    pub fn fetched(&mut self, set: &Arc<KeySet>, now: Now) {
        if let TokenKeys::Remote(remote) = &mut self.keys {
            remote.fetched(set, now);
        }
    }

    /// The service with the keys does not answer.
    pub fn fetch_failed(&mut self, now: Now) {
        if let TokenKeys::Remote(remote) = &mut self.keys {
            remote.failed(now);
        }
    }

    /// A key id was asked for, and the answer came: unless it is there now, it is invalid for a while.
    pub fn refuse_if_unknown(&mut self, id: &str, now: Now) {
        if let TokenKeys::Remote(remote) = &mut self.keys {
            remote.refuse_if_unknown(id, now);
        }
    }

    /// Takes over what is known of fetched keys from a verifier of the same service.
    pub fn inherit(&mut self, other: Self) {
        if let (TokenKeys::Remote(mine), TokenKeys::Remote(theirs)) = (&mut self.keys, other.keys) {
            *mine = theirs;
        }
    }

    /// Fetched keys that are in use.
    #[must_use]
    pub fn fetched_keys(&self) -> usize {
        match &self.keys {
            TokenKeys::Remote(remote) => remote.len(),
            TokenKeys::Own { .. } | TokenKeys::Ignored => 0,
        }
    }

    /// Verifies a token for connecting or refreshing.
    ///
    /// # Errors
    /// See `TokenError`. A subscription token (one with `channel`) is invalid here.
    pub fn connection(&self, token: &str, now: Now) -> Result<ConnectionClaims, TokenError> {
        let payload = self.payload(token, now)?;
        let claims: RawClaims<'_> = read(&payload)?;
        let exp = self.expect(&claims, now.unix_s())?;
        if claims.channel.is_some() {
            return Err(TokenError::Invalid);
        }
        let mut subs = BTreeMap::new();
        for (channel, options) in claims.subs {
            subs.insert(channel, options.unwrap_or_default().lower()?);
        }
        self.check_depth(subs.values().flat_map(|sub| [&sub.info, &sub.data]))?;
        if subs.is_empty() {
            let channels = claims.channels.into_iter().flatten();
            subs.extend(channels.map(|channel| (channel, SubOptions::default())));
        }
        let info = payload_of(claims.info, claims.b64info)?;
        self.check_depth([&info])?;
        Ok(ConnectionClaims {
            mark: Mark {
                id: claims.jti.unwrap_or_default().into_owned(),
                issued_at: claims.iat.map_or(0, Seconds::unix),
            },
            user: self.user(claims.sub, &payload)?,
            expire_at: expiry(claims.expire_at, exp),
            info,
            subs: subs
                .into_iter()
                .map(|(channel, options)| (channel.into_owned(), options))
                .collect(),
            meta: claims.meta.map(one_line).unwrap_or_default(),
            consume: grants(claims.consume),
        })
    }

    /// Verifies a token for subscribing or refreshing a subscription. Whose and for which channel it is, the caller
    /// compares.
    ///
    /// # Errors
    /// See `TokenError`. A connection token (one without `channel`) is invalid here.
    pub fn subscription(&self, token: &str, now: Now) -> Result<SubscriptionClaims, TokenError> {
        let payload = self.payload(token, now)?;
        let claims: RawClaims<'_> = read(&payload)?;
        let exp = self.expect(&claims, now.unix_s())?;
        let channel = claims.channel.ok_or(TokenError::Invalid)?;
        let channel: String = parse(channel.get().as_bytes())?;
        if channel.is_empty() {
            return Err(TokenError::Invalid);
        }
        let info = payload_of(claims.info, claims.b64info)?;
        let data = payload_of(claims.data, claims.b64data)?;
        self.check_depth([&info, &data])?;
        Ok(SubscriptionClaims {
            mark: Mark {
                id: claims.jti.unwrap_or_default().into_owned(),
                issued_at: claims.iat.map_or(0, Seconds::unix),
            },
            user: self.user(claims.sub, &payload)?,
            channel,
            client: claims
                .client
                .filter(|client| !client.is_empty())
                .map(Cow::into_owned),
            info,
            data,
            expire_at: expiry(claims.expire_at, exp),
            overrides: claims.override_.unwrap_or_default().lower(),
        })
    }

    /// The payload of a token whose signature counts.
    fn payload(&self, token: &str, now: Now) -> Result<Vec<u8>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Invalid)?;
        let header = URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|_| TokenError::Invalid)?;
        let header: TokenHeader<'_> = read(&header)?;
        if header.crit.0 || header.alg.eq_ignore_ascii_case("none") {
            return Err(TokenError::Invalid);
        }
        if !self.is_signed(&header, signed.as_bytes(), signature, now)? {
            return Err(TokenError::Invalid);
        }
        URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| TokenError::Invalid)
    }

    /// Is there a key for what the header names, and was it used?
    fn is_signed(
        &self,
        header: &TokenHeader<'_>,
        signed: &[u8],
        signature: &str,
        now: Now,
    ) -> Result<bool, TokenError> {
        if matches!(self.keys, TokenKeys::Ignored) {
            return Ok(true);
        }
        let algorithm: Algorithm = header.alg.parse().map_err(|_| TokenError::Invalid)?;
        Ok(match &self.keys {
            TokenKeys::Own { secrets, .. } if HMAC.contains(&algorithm) => {
                secrets.iter().any(|secret| {
                    secret.counts(now)
                        && crypto::verify(signature, signed, &secret.key, algorithm)
                            .unwrap_or(false)
                })
            }
            TokenKeys::Own { public, .. } => public
                .iter()
                .any(|key| key.counts(now) && key.key.verifies(algorithm, signed, signature)),
            TokenKeys::Remote(remote) => remote
                .find(header.kid.as_deref(), algorithm, now)?
                .verifies(algorithm, signed, signature),
            TokenKeys::Ignored => true,
        })
    }

    /// Checks issuer and audience, then times: a token of somebody else is invalid, not expired. Returns `exp`.
    fn expect(&self, claims: &RawClaims<'_>, now_unix_s: u64) -> Result<Option<u64>, TokenError> {
        let issuer_fits = match (&self.issuer, &claims.iss) {
            (Expected::Anything, _) => true,
            (issuer, Some(found)) => issuer.fits(found),
            (_, None) => false,
        };
        let audience_fits = match (&self.audience, &claims.aud) {
            (Expected::Anything, _) => true,
            (audience, Some(Audience(many))) => many.iter().any(|one| audience.fits(one)),
            (_, None) => false,
        };
        if !issuer_fits || !audience_fits {
            return Err(TokenError::Invalid);
        }
        let exp = claims.exp.map(Seconds::unix);
        let ahead = claims.nbf.is_some_and(|nbf| nbf.unix() > now_unix_s);
        if ahead || exp.is_some_and(|exp| exp <= now_unix_s) {
            return Err(TokenError::Expired);
        }
        Ok(exp)
    }

    /// The user id: `sub`, or the configured claim.
    fn user(&self, sub: Option<Cow<'_, str>>, payload: &[u8]) -> Result<String, TokenError> {
        let Some(claim) = &self.user_id_claim else {
            return Ok(sub.unwrap_or_default().into_owned());
        };
        let mut claims: BTreeMap<String, &RawValue> = parse(payload)?;
        let Some(user) = claims.remove(claim) else {
            return Ok(String::new());
        };
        Ok(parse::<Option<String>>(user.get().as_bytes())?.unwrap_or_default())
    }
}

/// The key id that a token names, as it stands: nothing has been verified.
#[must_use]
pub fn key_id(token: &str) -> Option<Box<str>> {
    let header = token.split('.').next()?;
    let header = URL_SAFE_NO_PAD.decode(header).ok()?;
    let header: TokenHeader<'_> = read(&header).ok()?;
    header.kid.map(Into::into)
}

/// Whom a token says it is from (`iss`), before anything of it is verified.
#[must_use]
pub fn issuer(token: &str) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: RawClaims<'_> = read(&payload).ok()?;
    claims.iss.map(Cow::into_owned)
}

/// The secrets and public keys of a configuration.
fn own_keys(config: &Token) -> TokenKeys {
    let hmac = |secret: &Secret| {
        (!secret.0.is_empty()).then(|| DecodingKey::from_secret(secret.0.as_bytes()))
    };
    let mut public = Timed::pair(
        config.rsa_public_key.clone(),
        config.rsa_previous_public_key.clone(),
        config.rsa_previous_public_key_valid_until,
    );
    public.extend(Timed::pair(
        config.ecdsa_public_key.clone(),
        config.ecdsa_previous_public_key.clone(),
        config.ecdsa_previous_public_key_valid_until,
    ));
    TokenKeys::Own {
        secrets: Timed::pair(
            hmac(&config.hmac_secret_key),
            hmac(&config.hmac_previous_secret_key),
            config.hmac_previous_secret_key_valid_until,
        ),
        public,
    }
}

/// The header of a token.
#[derive(Default)]
struct TokenHeader<'a> {
    alg: Cow<'a, str>,
    /// Which key of a set.
    kid: Option<Cow<'a, str>>,
    /// Extensions that must be understood (RFC 7515 §4.1.11). None is, and whatever stands there, `null` too, asks for one.
    crit: Present,
}
fields!(@Signed TokenHeader<'de> { "alg" => alg, "kid" => kid, "crit" => crit });

/// Whether a member is there, with any value.
#[derive(Default)]
struct Present(bool);

impl<'de> Value<'de> for Present {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        map.next_value::<IgnoredAny>()?;
        Ok(Self(true))
    }
}

/// The claims as they stand in the token. A claim that stands twice does not parse, and a name counts as it is written: what one
/// reader takes for a claim is one for every reader. A claim that is `null` is absent, `exp` and `channel` as well: who can write that
/// could have left it out.
#[derive(Default)]
struct RawClaims<'a> {
    sub: Option<Cow<'a, str>>,
    exp: Option<Seconds>,
    nbf: Option<Seconds>,
    iat: Option<Seconds>,
    jti: Option<Cow<'a, str>>,
    expire_at: Option<Seconds>,
    aud: Option<Audience<'a>>,
    iss: Option<Cow<'a, str>>,
    channel: Option<&'a RawValue>,
    client: Option<Cow<'a, str>>,
    info: Option<&'a RawValue>,
    b64info: Option<Cow<'a, str>>,
    data: Option<&'a RawValue>,
    b64data: Option<Cow<'a, str>>,
    meta: Option<&'a RawValue>,
    channels: Vec<Option<Cow<'a, str>>>,
    consume: Consume<'a>,
    subs: Vec<(Cow<'a, str>, Option<RawSub<'a>>)>,
    override_: Option<RawOverride>,
}
fields!(@Signed RawClaims<'de> {
    "sub" => sub,
    "exp" => exp,
    "nbf" => nbf,
    "iat" => iat,
    "jti" => jti,
    "expire_at" => expire_at,
    "aud" => aud,
    "iss" => iss,
    "channel" => channel,
    "client" => client,
    "info" => info,
    "b64info" => b64info,
    "data" => data,
    "b64data" => b64data,
    "meta" => meta,
    "channels" => channels,
    "consume" => consume,
    "subs" => subs,
    "override" => override_,
});

/// Groups, each with its channels.
type Consume<'a> = Vec<(Cow<'a, str>, Vec<Option<Cow<'a, str>>>)>;

/// The `consume` claim: groups and the channels that they may take from, by group. Of a group that stands twice the last counts.
fn grants(claim: Consume<'_>) -> Vec<ConsumeGrant> {
    let by_group: BTreeMap<_, _> = claim.into_iter().collect();
    by_group
        .into_iter()
        .map(|(groups, channels)| ConsumeGrant {
            groups: groups.into(),
            channels: channels.into_iter().flatten().map(Into::into).collect(),
        })
        .collect()
}

/// One member of the `subs` claim.
#[derive(Default)]
struct RawSub<'a> {
    info: Option<&'a RawValue>,
    b64info: Option<Cow<'a, str>>,
    data: Option<&'a RawValue>,
    b64data: Option<Cow<'a, str>>,
    override_: Option<RawOverride>,
}
fields!(@Signed RawSub<'de> {
    "info" => info, "b64info" => b64info, "data" => data, "b64data" => b64data, "override" => override_
});

impl RawSub<'_> {
    fn lower(self) -> Result<SubOptions, TokenError> {
        Ok(SubOptions {
            info: payload_of(self.info, self.b64info)?,
            data: payload_of(self.data, self.b64data)?,
            overrides: self.override_.unwrap_or_default().lower(),
        })
    }
}

/// Whom a token is for: one or many.
struct Audience<'a>(Vec<Cow<'a, str>>);

impl<'de> Value<'de> for Option<Audience<'de>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let Some(raw) = value::<Option<&'de RawValue>, A>(map)? else {
            return Ok(None);
        };
        let audience = if raw.get().starts_with('[') {
            serde_json::from_str::<Vec<Option<Cow<'de, str>>>>(raw.get())
                .map(|many| many.into_iter().flatten().collect())
        } else {
            serde_json::from_str::<Cow<'de, str>>(raw.get()).map(|one| vec![one])
        };
        match audience {
            Ok(audience) => Ok(Some(Audience(audience))),
            Err(_) => Err(A::Error::custom(": expected a string or a list of strings")),
        }
    }
}

/// A NumericDate (RFC 7519 §2): seconds, maybe with a fraction.
#[derive(Clone, Copy)]
enum Seconds {
    Whole(u64),
    Any(f64),
}

impl<'de> Value<'de> for Option<Seconds> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let number: Result<Option<serde_json::Number>, _> = map.next_value();
        let number = number.map_err(|error| expected("a number of seconds", error))?;
        let seconds = |number: serde_json::Number| match number.as_u64() {
            Some(whole) => Some(Seconds::Whole(whole)),
            None => number.as_f64().map(Seconds::Any),
        };
        Ok(number.and_then(seconds))
    }
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

fn read<'a, T: Object<'a>>(json: &'a [u8]) -> Result<T, TokenError> {
    // Nothing is not a set of claims.
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(TokenError::Invalid);
    }
    object(json).map_err(|_malformed| TokenError::Invalid)
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, TokenError> {
    serde_json::from_slice(json).map_err(|_| TokenError::Invalid)
}

/// A payload from its JSON claim or its base64 claim; the latter wins and may hold any bytes, for Protobuf clients.
fn payload_of(json: Option<&RawValue>, base64: Option<Cow<'_, str>>) -> Result<Bytes, TokenError> {
    let Some(base64) = base64.filter(|text| !text.is_empty()) else {
        return Ok(json.map(one_line).unwrap_or_default());
    };
    let bytes = STANDARD
        .decode(base64.as_bytes())
        .map_err(|_| TokenError::BadBase64)?;
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

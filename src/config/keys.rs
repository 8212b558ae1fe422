//! Public keys that verify tokens: one as an operator writes it (PEM), and sets as a service publishes them (JWK).
//!
//! A key that is accepted here verifies without a panic, and costs a bounded time.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{self, rust_crypto};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, KEY_ID_BYTES_MAX, RSA_EXPONENT_BYTES_MAX};

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// Which tokens a key set is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeySource {
    /// Connection tokens, and subscription tokens that share their service.
    Connection,
    /// Subscription tokens with a service of their own.
    Subscription,
    /// All tokens of the tenant with this id.
    Tenant(Box<str>),
}

/// Shorter RSA keys are broken (RFC 7518 §3.3 forbids them), longer ones cost too much for each token.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// One public key and what it is for.
#[derive(Clone)]
pub struct PublicKey {
    key: DecodingKey,
    /// What a key of its kind can verify.
    family: &'static [Algorithm],
    /// The one that its publisher means.
    only: Option<Algorithm>,
    /// As it was written; empty when it was not in PEM.
    pem: Box<str>,
}

impl PublicKey {
    /// An RSA public key in PEM, PKCS#1 or SPKI: RS256 to RS512 and PS256 to PS512. `None` if it is anything else or
    /// has a size outside of 2048 to 4096 bits.
    #[must_use]
    pub fn rsa_from_pem(pem: &str) -> Option<Self> {
        let key = DecodingKey::from_rsa_pem(pem.as_bytes()).ok()?;
        let der = key.try_get_as_bytes().ok()?;
        let parts = rust_crypto::DEFAULT_PROVIDER
            .key_utils
            .rsa_pub_components_from_public_key;
        let (modulus, exponent) = parts(der).ok()?;
        is_sound_rsa(&modulus, &exponent).then(|| Self {
            key,
            family: RSA,
            only: None,
            pem: pem.into(),
        })
    }

    /// An ECDSA public key in PEM (SPKI) on P-256 (ES256) or P-384 (ES384). `None` if it is anything else.
    #[must_use]
    pub fn ecdsa_from_pem(pem: &str) -> Option<Self> {
        let key = DecodingKey::from_ec_pem(pem.as_bytes()).ok()?;
        let family = curve(&key)?;
        Some(Self {
            key,
            family,
            only: None,
            pem: pem.into(),
        })
    }

    /// As it was written.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A key verifies the algorithms of its own kind and no other, whatever a token's header says.
    #[must_use]
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.family.contains(&algorithm) && self.only.is_none_or(|only| only == algorithm)
    }

    /// Did the holder of the private key sign this? `signature` is base64.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &str) -> bool {
        self.allows(algorithm)
            && crypto::verify(signature, signed, &self.key, algorithm).unwrap_or(false)
    }

    /// A key of a set. `None` for what verifies no signature here: other kinds, secrets, keys for encryption.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        if jwk
            .key_ops
            .as_ref()
            .is_some_and(|all| !all.iter().any(|operation| operation == "verify"))
        {
            return None;
        }
        let (key, family) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", None) => {
                let (modulus, exponent) =
                    (bytes_of(jwk.n.as_deref()?)?, bytes_of(jwk.e.as_deref()?)?);
                if !is_sound_rsa(&modulus, &exponent) {
                    return None;
                }
                (
                    DecodingKey::from_rsa_raw_components(&modulus, &exponent),
                    RSA,
                )
            }
            ("EC", Some(name @ ("P-256" | "P-384"))) => {
                let key =
                    DecodingKey::from_ec_components(jwk.x.as_deref()?, jwk.y.as_deref()?).ok()?;
                let family = curve(&key)?;
                if (family == P256) != (name == "P-256") {
                    return None;
                }
                (key, family)
            }
            ("OKP", Some("Ed25519")) => {
                let point = bytes_of(jwk.x.as_deref()?)?;
                if point.len() != 32 {
                    return None;
                }
                let key = DecodingKey::from_ed_der(&point);
                crypto::verify("", b"", &key, Algorithm::EdDSA).ok()?;
                (key, ED25519)
            }
            _ => return None,
        };
        let only = match &jwk.alg {
            None => None,
            Some(name) => Some(*family.iter().find(|known| name_of(**known) == name)?),
        };
        Some(Self {
            key,
            family,
            only,
            pem: Box::default(),
        })
    }
}

impl PartialEq for PublicKey {
    /// Keys are compared where configurations are: as they were written.
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

/// The keys that a service publishes (RFC 7517 §5).
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<(Box<str>, PublicKey)>,
}

/// Why there is no key set in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// No JSON object with a list `keys`.
    #[error("not a JSON Web Key Set")]
    Malformed,
    /// More than `limits::JWKS_BYTES_MAX` or `limits::JWKS_KEYS_MAX`.
    #[error("too large")]
    TooLarge,
    /// Nothing in it verifies a signature.
    #[error("no key that can verify a token")]
    NoKeys,
}

/// What a set says about a key id.
#[derive(Clone, Copy, Debug)]
pub enum FoundKey<'a> {
    /// A key for this algorithm.
    Key(&'a PublicKey),
    /// Keys, but for other algorithms.
    Other,
    /// Nothing.
    Unknown,
}

impl KeySet {
    /// Reads a set. Keys without an id and keys that this program cannot use are left out.
    ///
    /// # Errors
    /// See `KeySetError`.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(KeySetError::TooLarge);
        }
        let set: Jwks<'_> = serde_json::from_slice(text).map_err(|_| KeySetError::Malformed)?;
        let mut keys = Vec::new();
        for raw in set.keys {
            let Ok(jwk) = serde_json::from_str::<Jwk>(raw.get()) else {
                continue;
            };
            let Some(key) = PublicKey::from_jwk(&jwk) else {
                continue;
            };
            let Some(id) = jwk.kid.filter(|id| id.len() <= KEY_ID_BYTES_MAX) else {
                continue;
            };
            if keys.len() == JWKS_KEYS_MAX {
                return Err(KeySetError::TooLarge);
            }
            keys.push((id.into_boxed_str(), key));
        }
        if keys.is_empty() {
            return Err(KeySetError::NoKeys);
        }
        Ok(Self { keys })
    }

    /// The key with this id for this algorithm.
    #[must_use]
    pub fn find(&self, id: &str, algorithm: Algorithm) -> FoundKey<'_> {
        let mut found = FoundKey::Unknown;
        for (_, key) in self.keys.iter().filter(|(own, _)| **own == *id) {
            if key.allows(algorithm) {
                return FoundKey::Key(key);
            }
            found = FoundKey::Other;
        }
        found
    }

    /// Is there any key with this id?
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|(own, _)| **own == *id)
    }

    /// Keys in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[derive(Deserialize)]
struct Jwks<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The members of a key that matter here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

fn bytes_of(base64: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(base64.trim_end_matches('=')).ok()
}

fn is_sound_rsa(modulus: &[u8], exponent: &[u8]) -> bool {
    let modulus = without_zeros(modulus);
    let exponent = without_zeros(exponent);
    let top = modulus.first().map_or(0, |first| first.leading_zeros());
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    RSA_BITS.contains(&(modulus.len() * 8 - top as usize))
        && is_odd(modulus)
        && is_odd(exponent)
        && exponent != [1]
        && exponent.len() <= RSA_EXPONENT_BYTES_MAX
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let start = number
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(number.len());
    &number[start..]
}

/// The curve of a key whose point is on it.
fn curve(key: &DecodingKey) -> Option<&'static [Algorithm]> {
    let family = match key.try_get_as_bytes().ok()? {
        [4, point @ ..] if point.len() == 64 => P256,
        [4, point @ ..] if point.len() == 96 => P384,
        _ => return None,
    };
    // The library looks at the point before it looks at a signature, and this one is too short for any.
    crypto::verify("", b"", key, family[0]).ok()?;
    Some(family)
}

const fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
        // Symmetric, or not known here: no public key is for it.
        _ => "",
    }
}

#[cfg(test)]
mod tests;

//! Tokens made by an independent library.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::process::SECRET;
use super::wait::unix_seconds;

/// HS256 over these claims with the key of the tests.
pub(crate) fn sign(claims: &Value) -> String {
    sign_with(claims, Algorithm::HS256, SECRET)
}

/// Another HMAC algorithm or key.
pub(crate) fn sign_with(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
    sign_by(
        claims,
        algorithm,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
}

/// Any algorithm, with a key of its kind.
pub(crate) fn sign_by(claims: &Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).expect("claims can be signed")
}

/// A connection token that does not expire.
pub(crate) fn user(user: &str) -> String {
    sign(&json!({ "sub": user }))
}

/// A subscription token that does not expire.
pub(crate) fn subscription(user: &str, channel: &str) -> String {
    sign(&json!({ "sub": user, "channel": channel }))
}

/// Seconds from now, as claims have it.
pub(crate) fn after(seconds: i64) -> i64 {
    unix_seconds() + seconds
}

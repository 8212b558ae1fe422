//! Tokens and signatures that the swarm shows to servers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto, encode};
use serde::Serialize;

use super::BenchError;

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    channels: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    consume: Option<&'a serde_json::Value>,
}

/// Signs for one secret.
pub(crate) struct Signer {
    key: EncodingKey,
    /// Unix seconds.
    expiry: u64,
}

impl Signer {
    /// Tokens of this signer expire at `expiry` (Unix seconds).
    #[must_use]
    pub(crate) fn new(secret: &str, expiry: u64) -> Self {
        Self {
            key: EncodingKey::from_secret(secret.as_bytes()),
            expiry,
        }
    }

    /// An HS256 connection token of the user, with subscriptions that the server makes.
    pub(crate) fn token(&self, user: &str, channels: &[String]) -> Result<String, BenchError> {
        self.sign(user, channels, None)
    }

    /// The same for a worker: `grants` says which groups it may consume from which channels.
    pub(crate) fn worker_token(
        &self,
        user: &str,
        grants: &serde_json::Value,
    ) -> Result<String, BenchError> {
        self.sign(user, &[], Some(grants))
    }

    fn sign(
        &self,
        user: &str,
        channels: &[String],
        consume: Option<&serde_json::Value>,
    ) -> Result<String, BenchError> {
        let claims = Claims {
            sub: user,
            exp: self.expiry,
            channels,
            consume,
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.key).map_err(|_| BenchError::Sign)
    }

    /// HMAC-SHA256 in lower-case hex, as Pusher's channel authorisation wants it.
    pub(crate) fn hmac_hex(&self, message: &str) -> Result<String, BenchError> {
        let signature = crypto::sign(message.as_bytes(), &self.key, Algorithm::HS256)
            .map_err(|_| BenchError::Sign)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| BenchError::Sign)?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation, decode};

    #[test]
    fn token_names_the_user_and_verifies() {
        let token = Signer::new("secret", 4_000_000_000)
            .token("u7", &[])
            .unwrap();
        let key = DecodingKey::from_secret(b"secret");
        let claims = decode::<serde_json::Value>(&token, &key, &Validation::new(Algorithm::HS256))
            .unwrap()
            .claims;
        assert_eq!(claims["sub"], "u7");
    }

    #[test]
    fn hmac_is_the_published_example_of_pusher() {
        let signer = Signer::new("7ad3773142a6692b25b8", 0);
        let hex = signer.hmac_hex("1234.1234:private-foobar").unwrap();
        assert_eq!(
            hex,
            "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
        );
    }
}

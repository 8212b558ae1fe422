//! Mints tokens as the proxy verifies them: for development, tests and scripts. A production backend signs its own.

mod check;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use crate::config::Token;
pub use check::{Checked, check};

/// What a token says.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// User id; empty is the anonymous user.
    pub user: String,
    /// Makes it a subscription token for this channel.
    pub channel: Option<String>,
    /// When it ends, Unix seconds; `None` never.
    pub expires: Option<u64>,
    /// Connection or subscription info.
    pub info: Option<Value>,
    /// Queue groups that its client may consume, and the channels that they may take from: globs.
    pub consume: Vec<(String, Vec<String>)>,
}

/// Why no token was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// There is nothing to sign with.
    #[error("no hmac_secret_key is configured")]
    NoSecret,
    /// The signature could not be made.
    #[error("the token could not be signed")]
    Unsigned,
}

/// An HS256 token that `rules` accept, `aud` and `iss` included.
///
/// # Errors
/// When `rules` hold no HMAC secret.
pub fn mint(rules: &Token, claims: &Claims) -> Result<String, MintError> {
    if rules.hmac_secret_key.0.is_empty() {
        return Err(MintError::NoSecret);
    }
    let user_claim = if rules.user_id_claim.is_empty() {
        "sub"
    } else {
        &rules.user_id_claim
    };
    let mut body = Map::new();
    body.insert(user_claim.to_owned(), Value::from(claims.user.as_str()));
    if let Some(channel) = &claims.channel {
        body.insert("channel".to_owned(), Value::from(channel.as_str()));
    }
    if let Some(expires) = claims.expires {
        body.insert("exp".to_owned(), Value::from(expires));
    }
    if let Some(info) = &claims.info {
        body.insert("info".to_owned(), info.clone());
    }
    if !claims.consume.is_empty() {
        let mut consume = Map::new();
        for (group, channels) in &claims.consume {
            let list = consume
                .entry(group.as_str())
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.extend(channels.iter().map(|channel| Value::from(channel.as_str())));
            }
        }
        body.insert("consume".to_owned(), Value::Object(consume));
    }
    for (claim, expected) in [("aud", &rules.audience), ("iss", &rules.issuer)] {
        if !expected.is_empty() {
            body.insert(claim.to_owned(), Value::from(expected.as_str()));
        }
    }
    let key = EncodingKey::from_secret(rules.hmac_secret_key.0.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &body, &key)
        .map_err(|_| MintError::Unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn rules() -> Token {
        Token {
            hmac_secret_key: Secret("secret".to_owned()),
            audience: "edge".to_owned(),
            ..Token::default()
        }
    }

    #[test]
    fn a_token_carries_its_claims_and_what_the_rules_expect() {
        let claims = Claims {
            user: "42".to_owned(),
            channel: Some("lobby".to_owned()),
            expires: Some(4_000_000_000),
            info: Some(serde_json::json!({ "name": "Ada" })),
            consume: vec![("g*".to_owned(), vec!["a:*".to_owned()])],
        };
        let token = mint(&rules(), &claims).expect("a token");
        let mut validation = jsonwebtoken::Validation::new(Algorithm::HS256);
        validation.set_audience(&["edge"]);
        let key = jsonwebtoken::DecodingKey::from_secret(b"secret");
        let read = jsonwebtoken::decode::<Value>(&token, &key, &validation)
            .expect("a valid token")
            .claims;
        assert_eq!(read["sub"], "42");
        assert_eq!(read["channel"], "lobby");
        assert_eq!(read["exp"], 4_000_000_000_u64);
        assert_eq!(read["info"]["name"], "Ada");
        assert_eq!(read["consume"]["g*"][0], "a:*");
    }

    #[test]
    fn without_a_secret_nothing_is_signed() {
        assert_eq!(
            mint(&Token::default(), &Claims::default()),
            Err(MintError::NoSecret)
        );
    }
}

//! Says why a token counts or does not, for whoever makes tokens. It asks the verifier that clients meet, and where that
//! refuses, again with one expectation less each time: the first that makes a difference is the reason.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::auth::token::{TokenError, Verifier};
use crate::config::{Config, Token};
use crate::limits::TOKEN_BYTES_MAX;
use crate::time::Now;

/// What came of looking at a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// Clients get in with it. What it says, a line each.
    Counts(Vec<String>),
    /// They do not, and why.
    Refused(String),
    /// Its keys come from a service, which is not asked here: all but the signature was looked at.
    Unsigned(String),
}

/// Looks at a token as the proxy with this configuration would.
#[must_use]
pub fn check(config: &Config, token: &str, now: Now) -> Checked {
    let (header, payload) = match parts(token) {
        Ok(parts) => parts,
        Err(reason) => return Checked::Refused(reason),
    };
    if header.get("crit").is_some() {
        let reason = "its header asks for extensions (`crit`), and none is known";
        return Checked::Refused(reason.to_owned());
    }
    let is_none = |name: &str| name.eq_ignore_ascii_case("none");
    if header["alg"].as_str().is_some_and(is_none) {
        return Checked::Refused("it is not signed: its algorithm is \"none\"".to_owned());
    }
    let channel = payload.get("channel").filter(|channel| !channel.is_null());
    let (rules, table) = match channel {
        None => (&config.client.token, "client.token"),
        Some(_) => (
            &config.client.subscription_token,
            "client.subscription_token",
        ),
    };
    let skip = config.client.insecure_skip_token_signature_verify;
    let depth = config.client.json_depth_max;
    let try_with = |rules: &Token, skip: bool| {
        let verifier = Verifier::new(rules, skip).with_depth(depth);
        match channel {
            None => verifier.connection(token, now).map(|_| ()),
            Some(_) => verifier.subscription(token, now).map(|_| ()),
        }
    };
    match try_with(rules, skip) {
        Ok(()) => return Checked::Counts(said(&payload, rules, skip, now)),
        Err(TokenError::KeyWanted | TokenError::KeysUnavailable) => {
            return match try_with(rules, true) {
                Ok(()) => Checked::Unsigned(format!(
                    "the rest is as it should be; its key {} is looked up at {table}.jwks_public_endpoint, which is not asked here",
                    text(&header["kid"])
                )),
                Err(error) => {
                    Checked::Refused(claim_fault(&payload, rules, table, error, &try_with, now))
                }
            };
        }
        Err(_) => {}
    }
    Checked::Refused(match try_with(rules, true) {
        Ok(()) => signature_fault(&header, rules, table, now),
        Err(error) => claim_fault(&payload, rules, table, error, &try_with, now),
    })
}

/// Header and claims.
fn parts(token: &str) -> Result<(Value, Value), String> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(format!(
            "it has {} bytes, and {TOKEN_BYTES_MAX} are the most",
            token.len()
        ));
    }
    if token.trim() != token {
        return Err("white space stands before or after it".to_owned());
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, _] = parts[..] else {
        return Err(format!(
            "it has {} parts between dots, and a JSON Web Token has 3",
            parts.len()
        ));
    };
    let read = |name: &str, part: &str| {
        let bytes = URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| format!("its {name} is not base64 in the alphabet of URLs without `=`"))?;
        let value = serde_json::from_slice::<Value>(&bytes).ok();
        value
            .filter(Value::is_object)
            .ok_or_else(|| format!("its {name} is no JSON object"))
    };
    Ok((read("header", header)?, read("payload", payload)?))
}

/// Everything fits but the signature.
fn signature_fault(header: &Value, rules: &Token, table: &str, now: Now) -> String {
    let algorithm = header["alg"].as_str().unwrap_or_default();
    let family = algorithm.get(..2).unwrap_or_default();
    let (key, is_there) = match family {
        "HS" => ("hmac_secret_key", !rules.hmac_secret_key.0.is_empty()),
        "RS" | "PS" => ("rsa_public_key", rules.rsa_public_key.is_some()),
        "ES" => ("ecdsa_public_key", rules.ecdsa_public_key.is_some()),
        _ => {
            return format!(
                "its algorithm is {}, and HS, RS, PS with 256 to 512 and ES with 256 and 384 bits are verified by keys of the configuration",
                text(&header["alg"])
            );
        }
    };
    if !is_there {
        return format!("it is signed with {algorithm}, and {table}.{key} is not set");
    }
    let until = rules.hmac_previous_secret_key_valid_until;
    let ended = family == "HS"
        && !rules.hmac_previous_secret_key.0.is_empty()
        && until > 0
        && until <= now.unix_s();
    let previous = if ended {
        format!("; {table}.hmac_previous_secret_key counts no more since {until}")
    } else {
        String::new()
    };
    format!(
        "its signature is not by {table}.{key}: whoever signs has another key, or the token was changed{previous}"
    )
}

/// Something is wrong with what it says.
fn claim_fault(
    payload: &Value,
    rules: &Token,
    table: &str,
    error: TokenError,
    try_with: &impl Fn(&Token, bool) -> Result<(), TokenError>,
    now: Now,
) -> String {
    let now = now.unix_s();
    match error {
        TokenError::Expired => {
            let claim = |name: &str| payload[name].as_f64().map(|seconds| seconds as u64);
            return match (claim("exp"), claim("nbf")) {
                (_, Some(nbf)) if nbf > now => format!(
                    "it counts only {} from now (`nbf` {nbf}): compare the clocks",
                    span(nbf - now)
                ),
                (Some(exp), _) => format!(
                    "it has expired {} ago (`exp` {exp})",
                    span(now.saturating_sub(exp))
                ),
                _ => "it has expired".to_owned(),
            };
        }
        TokenError::BadBase64 => {
            return "`b64info` or `b64data` is not base64".to_owned();
        }
        _ => {}
    }
    let without = |change: fn(&mut Token)| {
        let mut rules = rules.clone();
        change(&mut rules);
        try_with(&rules, true) != Err(error)
    };
    let no_audience = |rules: &mut Token| {
        rules.audience.clear();
        rules.audience_regex = None;
    };
    let no_issuer = |rules: &mut Token| {
        rules.issuer.clear();
        rules.issuer_regex = None;
    };
    let neither = |rules: &mut Token| {
        rules.audience.clear();
        rules.audience_regex = None;
        rules.issuer.clear();
        rules.issuer_regex = None;
    };
    if without(no_audience) {
        let expected = wanted(&rules.audience, rules.audience_regex.is_some());
        return format!(
            "`aud` is {}, and {table} wants {expected}",
            text(&payload["aud"])
        );
    }
    if without(no_issuer) {
        let expected = wanted(&rules.issuer, rules.issuer_regex.is_some());
        return format!(
            "`iss` is {}, and {table} wants {expected}",
            text(&payload["iss"])
        );
    }
    if without(neither) {
        return format!(
            "`aud` {} and `iss` {} are both not what {table} wants",
            text(&payload["aud"]),
            text(&payload["iss"])
        );
    }
    "a claim has a form that it may not have: a number or a text of the wrong kind, a claim that stands twice, an empty `channel`, \
     or `info` that is nested deeper than client.json_depth_max"
        .to_owned()
}

fn wanted(text: &str, is_pattern: bool) -> String {
    if is_pattern {
        "what its pattern says".to_owned()
    } else {
        format!("{text:?}")
    }
}

/// What a token that counts says.
fn said(payload: &Value, rules: &Token, is_skipped: bool, now: Now) -> Vec<String> {
    let mut lines = Vec::new();
    let claim = match rules.user_id_claim.as_str() {
        "" => "sub",
        claim => claim,
    };
    lines.push(match payload[claim].as_str() {
        None | Some("") => "for the anonymous user".to_owned(),
        Some(user) => format!("for user {user:?}"),
    });
    if let Some(channel) = payload["channel"].as_str() {
        lines.push(format!("to subscribe to {channel:?}"));
    }
    let now = now.unix_s();
    lines.push(match payload["exp"].as_f64().map(|exp| exp as u64) {
        None => "without an end".to_owned(),
        Some(exp) => format!(
            "until `exp` {exp}, {} from now",
            span(exp.saturating_sub(now))
        ),
    });
    for name in ["channels", "subs", "consume", "info", "meta", "jti"] {
        if !payload[name].is_null() {
            lines.push(format!("with `{name}`"));
        }
    }
    if is_skipped {
        lines.push(
            "though nobody looked at its signature: client.insecure_skip_token_signature_verify is set"
                .to_owned(),
        );
    }
    lines
}

/// A value as it stands, or that it is absent.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "absent".to_owned(),
        value => value.to_string(),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::token::mint;
    use crate::config::Setting;
    use crate::time::Instant;

    const NOW: u64 = 1_800_000_000;

    fn config(more: &[(&str, &str)]) -> Config {
        let settings = [("client.token.hmac_secret_key", "secret")]
            .iter()
            .chain(more)
            .map(|(key, text)| Setting {
                origin: "test".to_owned(),
                key: (*key).to_owned(),
                text: (*text).to_owned(),
            });
        Config::load(&[], &settings.collect::<Vec<_>>()).expect("a configuration")
    }

    fn checked(config: &Config, token: &str) -> Checked {
        let now = Now {
            at: Instant::START,
            unix_ms: NOW * 1000,
        };
        check(config, token, now)
    }

    fn signed(secret: &str, claims: &str) -> String {
        mint(&crate::config::Secret(secret.to_owned()), claims).expect("a token")
    }

    fn refused(config: &Config, token: &str) -> String {
        match checked(config, token) {
            Checked::Refused(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_that_counts_is_told_with_what_it_says() {
        let token = signed("secret", &format!(r#"{{"sub":"42","exp":{}}}"#, NOW + 600));
        let Checked::Counts(lines) = checked(&config(&[]), &token) else {
            panic!("it counts");
        };
        assert_eq!(lines[0], "for user \"42\"");
        assert!(lines[1].contains("10 min from now"), "{lines:?}");
    }

    #[test]
    fn each_reason_against_a_token_is_named() {
        let plain = config(&[]);
        let strict = config(&[
            ("client.token.audience", "edge"),
            ("client.token.issuer", "backend"),
        ]);
        let fits = r#"{"sub":"1","aud":"edge","iss":"backend"}"#;
        for (config, token, reason) in [
            (&plain, "abc".to_owned(), "1 parts"),
            (&plain, "a.b.c".to_owned(), "its header"),
            (&plain, " x.y.z".to_owned(), "white space"),
            (
                &plain,
                signed("other", r#"{"sub":"1"}"#),
                "client.token.hmac_secret_key",
            ),
            (
                &plain,
                signed("secret", r#"{"sub":"1","exp":1799999940}"#),
                "expired 60 s ago",
            ),
            (
                &plain,
                signed("secret", r#"{"sub":"1","nbf":1800007200}"#),
                "2 h from now",
            ),
            (&plain, signed("secret", r#"{"sub":1}"#), "form"),
            (
                &plain,
                signed("secret", r#"{"sub":"1","b64info":"%"}"#),
                "base64",
            ),
            (
                &strict,
                signed("secret", &fits.replace("edge", "x")),
                "`aud` is \"x\"",
            ),
            (
                &strict,
                signed("secret", r#"{"sub":"1","aud":"edge"}"#),
                "`iss` is absent",
            ),
            (
                &strict,
                signed("secret", r#"{"sub":"1"}"#),
                "`aud` absent and `iss` absent",
            ),
        ] {
            let told = refused(config, &token);
            assert!(told.contains(reason), "{reason}: {told}");
        }
        assert!(matches!(
            checked(&strict, &signed("secret", fits)),
            Checked::Counts(_)
        ));
    }

    #[test]
    fn an_algorithm_without_a_key_names_the_key() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"1"}"#);
        let told = refused(&config(&[]), &format!("{header}.{payload}.AAAA"));
        assert!(told.contains("rsa_public_key is not set"), "{told}");
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let told = refused(&config(&[]), &format!("{header}.{payload}."));
        assert!(told.contains("\"none\""), "{told}");
    }

    #[test]
    fn keys_of_a_service_are_not_asked_and_the_rest_is_looked_at() {
        let remote = config(&[(
            "client.token.jwks_public_endpoint",
            "https://keys.example.com/set",
        )]);
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"k1"}"#);
        let token = |claims: &str| format!("{header}.{}.AAAA", URL_SAFE_NO_PAD.encode(claims));
        let Checked::Unsigned(told) = checked(&remote, &token(r#"{"sub":"1"}"#)) else {
            panic!("it may count");
        };
        assert!(told.contains("\"k1\""), "{told}");
        let told = refused(&remote, &token(r#"{"sub":"1","exp":1}"#));
        assert!(told.contains("expired"), "{told}");
    }
}

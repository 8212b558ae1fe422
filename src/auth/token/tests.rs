use proptest::prelude::*;

use super::*;

const NOW_S: u64 = 1_700_000_000;
const NOW: Now = at(NOW_S);

const fn at(unix_s: u64) -> Now {
    Now {
        at: crate::time::Instant(0),
        unix_ms: unix_s * 1000,
    }
}

fn config() -> Token {
    Token {
        hmac_secret_key: Secret("secret".to_owned()),
        ..Token::default()
    }
}

fn verifier() -> Verifier {
    Verifier::new(&config(), false)
}

fn signed(algorithm: Algorithm, secret: &str, claims: &str) -> String {
    let claims: serde_json::Value = serde_json::from_str(claims).unwrap();
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::new(algorithm), &claims, &key).unwrap()
}

fn token(claims: &str) -> String {
    mint(&Secret("secret".to_owned()), claims).unwrap()
}

/// A token with this very header and payload, rightly signed.
fn raw(header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = EncodingKey::from_secret(b"secret");
    let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

fn connection(claims: &str) -> Result<ConnectionClaims, TokenError> {
    verifier().connection(&token(claims), NOW)
}

fn subscription(claims: &str) -> Result<SubscriptionClaims, TokenError> {
    verifier().subscription(&token(claims), NOW)
}

#[test]
fn every_hmac_algorithm_sets_the_user() {
    for &algorithm in HMAC {
        let token = signed(algorithm, "secret", r#"{"sub":"42"}"#);
        assert_eq!(verifier().connection(&token, NOW).unwrap().user, "42");
    }
}

/// Private key, public key and what they are for. `tests/vectors/keys/make` makes them.
fn asymmetric() -> Vec<(Algorithm, EncodingKey, Token)> {
    const RSA: &[u8] = include_bytes!("../../../tests/vectors/keys/rsa.pem");
    const P256: &[u8] = include_bytes!("../../../tests/vectors/keys/p256.pem");
    const P384: &[u8] = include_bytes!("../../../tests/vectors/keys/p384.pem");
    let rsa = || Token {
        rsa_public_key: PublicKey::rsa_from_pem(include_str!(
            "../../../tests/vectors/keys/rsa.pub.pem"
        )),
        ..Token::default()
    };
    let ecdsa = |pem| Token {
        ecdsa_public_key: PublicKey::ecdsa_from_pem(pem),
        ..Token::default()
    };
    let p256 = include_str!("../../../tests/vectors/keys/p256.pub.pem");
    let p384 = include_str!("../../../tests/vectors/keys/p384.pub.pem");
    let mut all: Vec<_> = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ]
    .into_iter()
    .map(|algorithm| (algorithm, EncodingKey::from_rsa_pem(RSA).unwrap(), rsa()))
    .collect();
    let key = EncodingKey::from_ec_pem(P256).unwrap();
    all.push((Algorithm::ES256, key, ecdsa(p256)));
    let key = EncodingKey::from_ec_pem(P384).unwrap();
    all.push((Algorithm::ES384, key, ecdsa(p384)));
    all
}

fn minted(algorithm: Algorithm, key: &EncodingKey, id: Option<&str>) -> String {
    let header = jsonwebtoken::Header {
        kid: id.map(str::to_owned),
        ..jsonwebtoken::Header::new(algorithm)
    };
    jsonwebtoken::encode(&header, &serde_json::json!({ "sub": "42" }), key).unwrap()
}

#[test]
fn every_asymmetric_algorithm_sets_the_user_and_takes_no_forgery() {
    let other = Verifier::new(
        &Token {
            rsa_public_key: PublicKey::rsa_from_pem(include_str!(
                "../../../tests/vectors/keys/rsa-other.pub.pem"
            )),
            ecdsa_public_key: PublicKey::ecdsa_from_pem(include_str!(
                "../../../tests/vectors/keys/p256-other.pub.pem"
            )),
            ..Token::default()
        },
        false,
    );
    for (algorithm, key, config) in asymmetric() {
        let verifier = Verifier::new(&config, false);
        let token = minted(algorithm, &key, None);
        assert_eq!(verifier.connection(&token, NOW).unwrap().user, "42");
        assert_eq!(
            other.connection(&token, NOW),
            Err(TokenError::Invalid),
            "{algorithm:?}: another key"
        );
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let header = signed.split_once('.').unwrap().0;
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"1"}"#);
        for forged in [
            format!("{header}.{payload}.{signature}"),
            format!("{signed}."),
            format!("{signed}.AAAA"),
            format!("{signed}.{}", &signature[..signature.len() - 4]),
        ] {
            assert_eq!(verifier.connection(&forged, NOW), Err(TokenError::Invalid));
        }
    }
}

#[test]
fn header_cannot_choose_the_kind_of_a_key() {
    let all = asymmetric();
    for (algorithm, _, config) in &all {
        let verifier = Verifier::new(config, false);
        for (other, key, _) in &all {
            let token = minted(*other, key, None);
            let same_key = other.family() == algorithm.family()
                && (other.family() == jsonwebtoken::AlgorithmFamily::Rsa || other == algorithm);
            assert_eq!(
                verifier.connection(&token, NOW).is_ok(),
                same_key,
                "{other:?} with a key for {algorithm:?}"
            );
        }
        // The public key is no secret: who knows it signs nothing with it.
        let pem = config
            .rsa_public_key
            .as_ref()
            .or(config.ecdsa_public_key.as_ref())
            .unwrap()
            .pem();
        for secret in [pem, pem.trim_end(), ""] {
            for &hmac in HMAC {
                let token = signed(hmac, secret, r#"{"sub":"42"}"#);
                assert_eq!(verifier.connection(&token, NOW), Err(TokenError::Invalid));
            }
        }
    }
    // Nor does a secret verify what a private key signed.
    for (algorithm, key, _) in &all {
        let token = minted(*algorithm, key, None);
        assert_eq!(verifier().connection(&token, NOW), Err(TokenError::Invalid));
    }
}

#[test]
fn keys_of_all_kinds_count_side_by_side() {
    let mut both = config();
    for (_, _, one) in asymmetric() {
        both.rsa_public_key = both.rsa_public_key.or(one.rsa_public_key);
        both.ecdsa_public_key = both.ecdsa_public_key.or(one.ecdsa_public_key);
    }
    let verifier = Verifier::new(&both, false);
    assert!(verifier.connection(&token(r#"{"sub":"42"}"#), NOW).is_ok());
    for (algorithm, key, _) in asymmetric() {
        let is_ok = verifier
            .connection(&minted(algorithm, &key, None), NOW)
            .is_ok();
        assert_eq!(is_ok, algorithm != Algorithm::ES384, "{algorithm:?}");
    }
}

#[test]
fn fetched_keys_replace_those_of_the_configuration() {
    let mut verifier = Verifier::new(
        &Token {
            jwks_public_endpoint: "http://localhost/keys".to_owned(),
            ..config()
        },
        false,
    );
    assert_eq!(
        verifier.connection(&token("{}"), NOW),
        Err(TokenError::Invalid),
        "a secret of the configuration, and a token without a key id"
    );
    let key = EncodingKey::from_ed_pem(include_bytes!("../../../tests/vectors/keys/ed25519.pem"));
    let key = key.unwrap();
    let known = minted(Algorithm::EdDSA, &key, Some("ed"));
    assert_eq!(verifier.connection(&known, NOW), Err(TokenError::KeyWanted));
    assert_eq!(key_id(&known).as_deref(), Some("ed"));
    let jwk = serde_json::to_string(
        &jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::EdDSA).unwrap(),
    )
    .unwrap();
    let set = format!(
        r#"{{"keys":[{}]}}"#,
        jwk.replacen('{', r#"{"kid":"ed","#, 1)
    );
    verifier.fetched(&Arc::new(KeySet::parse(set.as_bytes()).unwrap()), NOW);
    assert_eq!(verifier.connection(&known, NOW).unwrap().user, "42");
    let secret = EncodingKey::from_secret(b"secret");
    assert_eq!(
        verifier.connection(&minted(Algorithm::HS256, &secret, Some("ed")), NOW),
        Err(TokenError::Invalid)
    );
    let unknown = minted(Algorithm::EdDSA, &key, Some("other"));
    assert_eq!(
        verifier.connection(&unknown, NOW),
        Err(TokenError::KeyWanted)
    );
    let long = minted(Algorithm::EdDSA, &key, Some(&"x".repeat(257)));
    assert_eq!(verifier.connection(&long, NOW), Err(TokenError::Invalid));
}

#[test]
fn skipped_signatures_still_have_claims_and_an_algorithm() {
    let verifier = Verifier::new(&config(), true);
    let any = signed(Algorithm::HS256, "anything", r#"{"sub":"42"}"#);
    assert_eq!(verifier.connection(&any, NOW).unwrap().user, "42");
    let unsigned = format!("{}.", any.rsplit_once('.').unwrap().0);
    assert!(verifier.connection(&unsigned, NOW).is_ok());
    let expired = signed(Algorithm::HS256, "anything", r#"{"exp":1}"#);
    assert_eq!(verifier.connection(&expired, NOW), Err(TokenError::Expired));
    let none = raw(r#"{"alg":"none"}"#, r#"{"sub":"42"}"#);
    assert_eq!(verifier.connection(&none, NOW), Err(TokenError::Invalid));
}

#[test]
fn audience_and_issuer_may_be_patterns() {
    let verifier = Verifier::new(
        &Token {
            audience_regex: Pattern::parse("^edge-[0-9]+$"),
            issuer_regex: Pattern::parse("house"),
            ..config()
        },
        false,
    );
    let check = |claims: &str| verifier.connection(&token(claims), NOW).map(|_| ());
    assert_eq!(check(r#"{"aud":"edge-1","iss":"the-house"}"#), Ok(()));
    assert_eq!(check(r#"{"aud":["x","edge-1"],"iss":"house"}"#), Ok(()));
    for claims in [
        "{}",
        r#"{"aud":"edge-1"}"#,
        r#"{"iss":"house"}"#,
        r#"{"aud":"edge-1x","iss":"house"}"#,
        r#"{"aud":"edge-1","iss":"barn"}"#,
        r#"{"aud":[],"iss":"house"}"#,
    ] {
        assert_eq!(check(claims), Err(TokenError::Invalid), "{claims}");
    }
}

#[test]
fn the_token_of_the_specification_of_jwt_verifies() {
    // RFC 7515, appendix A.1: header and payload with line breaks, HS256, a key of 64 bytes.
    let key =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let mut verifier = verifier();
    verifier.keys = TokenKeys::Own {
        secrets: vec![Timed {
            key: DecodingKey::from_secret(&URL_SAFE_NO_PAD.decode(key).unwrap()),
            valid_until: None,
        }],
        public: Vec::new(),
    };
    assert_eq!(
        verifier
            .connection(token, at(1_300_819_379))
            .unwrap()
            .expire_at,
        Some(1_300_819_380)
    );
    assert_eq!(
        verifier.connection(token, at(1_300_819_380)),
        Err(TokenError::Expired)
    );
}

#[test]
fn forged_tokens_are_invalid() {
    let good = token(r#"{"sub":"42"}"#);
    let (signed_part, signature) = good.rsplit_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"1"}"#);
    let header = signed_part.split_once('.').unwrap().0;
    for forged in [
        String::new(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{signature}"),
        format!("{header}.{payload}.{signature}"),
        format!("{signed_part}."),
        signed_part.to_owned(),
        format!("{good}."),
        format!("{good}.x"),
        good[..good.len() - 1].to_owned(),
        signed(Algorithm::HS256, "other", r#"{"sub":"42"}"#),
        raw(r#"{"alg":"HS256","crit":["exp"]}"#, r#"{"sub":"42"}"#),
        raw(r#"{"alg":"RS256"}"#, r#"{"sub":"42"}"#),
        raw(r#"{"alg":"HS256"}"#, r#"{"sub":"42","sub":"43"}"#),
        raw(r#"{"alg":"HS256"}"#, r#"{"sub":42}"#),
        raw(r#"{"alg":"HS256"}"#, "[]"),
        raw(r#"{"alg":"HS256"}"#, "not json"),
    ] {
        assert_eq!(
            verifier().connection(&forged, NOW),
            Err(TokenError::Invalid),
            "{forged}"
        );
    }
    assert!(
        verifier()
            .connection(&raw(r#"{"alg":"HS256"}"#, r#"{"sub":"42"}"#), NOW)
            .is_ok()
    );
}

#[test]
fn without_a_key_every_token_is_invalid() {
    let verifier = Verifier::new(&Token::default(), false);
    for secret in ["", "secret"] {
        let token = signed(Algorithm::HS256, secret, r#"{"sub":"42"}"#);
        assert_eq!(verifier.connection(&token, NOW), Err(TokenError::Invalid));
    }
}

#[test]
fn token_over_the_limit_is_invalid() {
    let claims = format!(r#"{{"info":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX));
    assert_eq!(
        mint(&Secret("secret".to_owned()), &claims),
        Err(MintError::TooLong)
    );
    let long = signed(Algorithm::HS256, "secret", &claims);
    assert_eq!(verifier().connection(&long, NOW), Err(TokenError::Invalid));
}

#[test]
fn times_are_checked_without_leeway() {
    let at = |claims: &str| {
        connection(&claims.replace("NOW", &NOW_S.to_string())).map(|claims| claims.expire_at)
    };
    assert_eq!(at(r#"{"exp":NOW}"#), Err(TokenError::Expired));
    assert_eq!(at(r#"{"exp":0}"#), Err(TokenError::Expired));
    assert_eq!(at(r#"{"exp":-5}"#), Err(TokenError::Expired));
    assert_eq!(at(r#"{"exp":1700000001}"#), Ok(Some(NOW_S + 1)));
    assert_eq!(at(r#"{"exp":1700000001.9}"#), Ok(Some(NOW_S + 1)));
    assert_eq!(at(r#"{"exp":null}"#), Ok(None));
    assert_eq!(at(r#"{"nbf":1700000001}"#), Err(TokenError::Expired));
    assert_eq!(at(r#"{"nbf":NOW}"#), Ok(None));
    assert_eq!(at(r#"{"exp":"soon"}"#), Err(TokenError::Invalid));
}

#[test]
fn forged_and_expired_is_invalid() {
    let token = signed(Algorithm::HS256, "other", r#"{"exp":1}"#);
    assert_eq!(verifier().connection(&token, NOW), Err(TokenError::Invalid));
}

#[test]
fn expire_at_wins_over_exp() {
    let at = |claims: &str| connection(claims).unwrap().expire_at;
    assert_eq!(
        at(r#"{"exp":1700000060,"expire_at":1800000000}"#),
        Some(1_800_000_000)
    );
    assert_eq!(at(r#"{"exp":1700000060,"expire_at":0}"#), None);
    assert_eq!(
        at(r#"{"exp":1700000060,"expire_at":1600000000}"#),
        Some(1_600_000_000)
    );
    assert_eq!(at(r#"{"exp":1700000060,"expire_at":-1}"#), Some(0));
    assert_eq!(at(r#"{"exp":1700000060}"#), Some(1_700_000_060));
    assert_eq!(at("{}"), None);
}

#[test]
fn audience_may_be_text_or_list() {
    let verifier = Verifier::new(
        &Token {
            audience: "edge".to_owned(),
            ..config()
        },
        false,
    );
    let check = |claims: &str| verifier.connection(&token(claims), NOW).map(|_| ());
    assert_eq!(check(r#"{"aud":"edge"}"#), Ok(()));
    assert_eq!(check(r#"{"aud":["x","edge"]}"#), Ok(()));
    for claims in ["{}", r#"{"aud":"x"}"#, r#"{"aud":[]}"#, r#"{"aud":7}"#] {
        assert_eq!(check(claims), Err(TokenError::Invalid), "{claims}");
    }
}

#[test]
fn issuer_must_match_when_configured() {
    let verifier = Verifier::new(
        &Token {
            issuer: "me".to_owned(),
            ..config()
        },
        false,
    );
    assert!(verifier.connection(&token(r#"{"iss":"me"}"#), NOW).is_ok());
    for claims in ["{}", r#"{"iss":"you"}"#, r#"{"iss":"you","exp":1}"#] {
        assert_eq!(
            verifier.connection(&token(claims), NOW),
            Err(TokenError::Invalid),
            "{claims}"
        );
    }
}

#[test]
fn user_comes_from_the_configured_claim() {
    let verifier = Verifier::new(
        &Token {
            user_id_claim: "uid".to_owned(),
            ..config()
        },
        false,
    );
    let user = |claims: &str| {
        verifier
            .connection(&token(claims), NOW)
            .map(|claims| claims.user)
    };
    assert_eq!(user(r#"{"sub":"1","uid":"2"}"#), Ok("2".to_owned()));
    assert_eq!(user(r#"{"sub":"1"}"#), Ok(String::new()));
    assert_eq!(user(r#"{"uid":2}"#), Err(TokenError::Invalid));
}

#[test]
fn previous_key_counts_until_its_time() {
    let previous = |until| {
        Verifier::new(
            &Token {
                hmac_previous_secret_key: Secret("old".to_owned()),
                hmac_previous_secret_key_valid_until: until,
                ..config()
            },
            false,
        )
    };
    let old = signed(Algorithm::HS256, "old", r#"{"sub":"42"}"#);
    assert!(previous(0).connection(&old, NOW).is_ok());
    assert!(previous(NOW_S + 1).connection(&old, NOW).is_ok());
    assert_eq!(
        previous(NOW_S).connection(&old, NOW),
        Err(TokenError::Invalid)
    );
    assert!(previous(NOW_S).connection(&token("{}"), NOW).is_ok());
}

#[test]
fn previous_public_keys_count_until_their_time_also_on_another_curve() {
    macro_rules! pem {
        ($name:literal) => {
            include_str!(concat!("../../../tests/vectors/keys/", $name))
        };
    }
    let by = |algorithm, pem: &str| {
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let claims = serde_json::json!({ "sub": "42" });
        let header = jsonwebtoken::Header::new(algorithm);
        jsonwebtoken::encode(&header, &claims, &key.expect("a private key")).expect("a token")
    };
    let verifier = |until| {
        let rules = Token {
            rsa_public_key: PublicKey::rsa_from_pem(pem!("rsa.pub.pem")),
            rsa_previous_public_key: PublicKey::rsa_from_pem(pem!("rsa-other.pub.pem")),
            rsa_previous_public_key_valid_until: until,
            ecdsa_public_key: PublicKey::ecdsa_from_pem(pem!("p384.pub.pem")),
            ecdsa_previous_public_key: PublicKey::ecdsa_from_pem(pem!("p256.pub.pem")),
            ecdsa_previous_public_key_valid_until: until,
            ..Token::default()
        };
        Verifier::new(&rules, false)
    };
    let new = [
        by(Algorithm::RS256, pem!("rsa.pem")),
        by(Algorithm::ES384, pem!("p384.pem")),
    ];
    let old = [
        by(Algorithm::RS256, pem!("rsa-other.pem")),
        by(Algorithm::ES256, pem!("p256.pem")),
    ];
    for until in [0, NOW_S, NOW_S + 1] {
        let verifier = verifier(until);
        for token in &new {
            assert!(verifier.connection(token, NOW).is_ok(), "{until}");
        }
        for token in &old {
            let is_over = until == NOW_S;
            assert_eq!(verifier.connection(token, NOW).is_err(), is_over, "{until}");
        }
    }
    let stranger = by(Algorithm::ES256, pem!("p256-other.pem"));
    assert!(verifier(0).connection(&stranger, NOW).is_err());
}

#[test]
fn subscription_token_opens_no_connection() {
    assert_eq!(
        connection(r#"{"sub":"42","channel":"chat:1"}"#),
        Err(TokenError::Invalid)
    );
    assert_eq!(
        connection(r#"{"sub":"42","channel":""}"#),
        Err(TokenError::Invalid)
    );
}

#[test]
fn connection_token_subscribes_to_nothing() {
    assert_eq!(subscription(r#"{"sub":"42"}"#), Err(TokenError::Invalid));
    assert_eq!(
        subscription(r#"{"sub":"42","channel":""}"#),
        Err(TokenError::Invalid)
    );
    assert_eq!(
        subscription(r#"{"sub":"42","channel":7}"#),
        Err(TokenError::Invalid)
    );
}

#[test]
fn payloads_keep_their_text_but_no_line_breaks() {
    let pretty = raw(
        r#"{"alg":"HS256"}"#,
        "{\"info\":{\r\n \"name\": \"a\\nb\", \"n\":1.50\n}}",
    );
    let info = verifier().connection(&pretty, NOW).unwrap().info;
    assert_eq!(info, "{   \"name\": \"a\\nb\", \"n\":1.50 }");
    assert_eq!(connection(r#"{"info":null}"#).unwrap().info, "");
    assert_eq!(
        connection(r#"{"meta":{"a":1}}"#).unwrap().meta,
        r#"{"a":1}"#
    );
}

#[test]
fn base64_claims_win_and_may_hold_any_bytes() {
    // {"b":1}
    assert_eq!(
        connection(r#"{"info":1,"b64info":"eyJiIjoxfQ=="}"#)
            .unwrap()
            .info,
        r#"{"b":1}"#
    );
    assert_eq!(connection(r#"{"b64info":"?"}"#), Err(TokenError::BadBase64));
    assert_eq!(
        &connection(r#"{"b64info":"AAEC"}"#).unwrap().info[..],
        [0, 1, 2]
    );
    assert_eq!(
        &subscription(r#"{"channel":"a","b64data":"AAEC"}"#)
            .unwrap()
            .data[..],
        [0, 1, 2]
    );
    assert_eq!(
        subscription(r#"{"channel":"a","b64data":"?"}"#),
        Err(TokenError::BadBase64)
    );
    assert_eq!(
        connection(r#"{"subs":{"a":{"b64info":"?"}}}"#),
        Err(TokenError::BadBase64)
    );
}

#[test]
fn subscriptions_come_from_subs_else_from_channels() {
    let claims = r#"{"channels":["c"],"subs":{"b":{},"a":{"info":1,"data":{},"override":{"presence":{"value":true}}}}}"#;
    let subs = connection(claims).unwrap().subs;
    assert_eq!(
        subs.iter()
            .map(|(channel, _)| channel.as_str())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(subs[0].1.info, "1");
    assert_eq!(subs[0].1.data, "{}");
    assert_eq!(
        subs[0].1.overrides,
        Overrides {
            presence: Some(true),
            ..Overrides::default()
        }
    );
    let subs = connection(r#"{"channels":["d","c","d"],"subs":{}}"#)
        .unwrap()
        .subs;
    assert_eq!(
        subs.iter()
            .map(|(channel, _)| channel.as_str())
            .collect::<Vec<_>>(),
        ["c", "d"]
    );
}

#[test]
fn subscription_claims_are_read_whole() {
    let claims = subscription(
        r#"{"sub":"42","channel":"$a","client":"c","jti":"j","iat":7.5,"info":{"x":1},"data":[2],"exp":1700000060,
            "override":{"join_leave":{"value":false},"force_push_join_leave":{"value":true},
                        "force_recovery":{"value":true},"force_positioning":{}}}"#,
    );
    let overrides = Overrides {
        presence: None,
        join_leave: Some(false),
        force_push_join_leave: Some(true),
        force_recovery: Some(true),
        force_positioning: Some(false),
    };
    let wanted = SubscriptionClaims {
        user: "42".to_owned(),
        channel: "$a".to_owned(),
        client: Some("c".to_owned()),
        info: Bytes::from_static(br#"{"x":1}"#),
        data: Bytes::from_static(b"[2]"),
        expire_at: Some(NOW_S + 60),
        overrides,
        mark: Mark {
            id: "j".to_owned(),
            issued_at: 7,
        },
    };
    assert_eq!(claims, Ok(wanted));
}

#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?} {:?}", verifier(), config());
    assert!(
        !shown.contains("secret\"") && !shown.contains("115, 101"),
        "{shown}"
    );
}

#[test]
fn minting_needs_a_key_and_an_object() {
    let secret = Secret("secret".to_owned());
    assert_eq!(mint(&Secret::default(), "{}"), Err(MintError::NoKey));
    assert_eq!(mint(&secret, "[]"), Err(MintError::NotAnObject));
    assert_eq!(mint(&secret, "{"), Err(MintError::NotAnObject));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        prop_assert!(verifier().connection(&text, NOW).is_err());
        prop_assert!(verifier().subscription(&text, NOW).is_err());
    }

    #[test]
    fn arbitrary_signed_payload_never_panics(payload in r#"[{}\[\]",:a-z0-9.eE+-]{0,80}"#) {
        let token = raw(r#"{"alg":"HS256"}"#, &payload);
        let _ = verifier().connection(&token, NOW);
        let _ = verifier().subscription(&token, NOW);
    }

    #[test]
    fn one_changed_byte_makes_a_token_invalid(at in 0usize..100, byte in 1u8..127) {
        let good = token(r#"{"sub":"42","exp":1800000000}"#);
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assume!(changed != good);
        prop_assert_eq!(verifier().connection(&changed, NOW), Err(TokenError::Invalid));
    }
}

#[test]
fn claims_that_are_null_are_absent_ones() {
    use crate::wire::json::null;
    let sub = serde_json::json!({
        "info": 1, "b64info": "Mg==", "data": 2, "b64data": "Mg==",
        "override": {
            "presence": { "value": true }, "join_leave": { "value": true }, "force_push_join_leave": { "value": true },
            "force_recovery": { "value": true }, "force_positioning": { "value": true },
        },
    });
    let mut sample = serde_json::json!({
        "sub": "42", "exp": NOW_S + 60, "nbf": NOW_S - 60, "iat": NOW_S, "jti": "t", "expire_at": NOW_S + 50,
        "aud": ["us"], "iss": "me", "client": "c", "channel": "chat:1", "channels": ["a"],
        "subs": { "b": sub }, "consume": { "g": ["x:*"] }, "meta": { "m": 1 },
    });
    for (name, value) in sub.as_object().unwrap() {
        sample[name] = value.clone();
    }
    null::covers(&sample, &null::names::<RawClaims<'_>>());
    null::covers(&sample["subs"]["b"], &null::names::<RawSub<'_>>());
    let config = Token {
        audience: "us".to_owned(),
        issuer: "me".to_owned(),
        ..config()
    };
    let verifier = Verifier::new(&config, false);
    // Names of channels and groups, and all of `meta`, are data.
    let data = ["subs", "consume", "meta"];
    null::same(&sample, &data, |claims| {
        format!("{:?}", verifier.subscription(&token(claims), NOW))
    });
    sample.as_object_mut().unwrap().remove("channel");
    null::same(&sample, &data, |claims| {
        format!("{:?}", verifier.connection(&token(claims), NOW))
    });
    let by_claim = Token {
        user_id_claim: "uid".to_owned(),
        ..config
    };
    let by_claim = Verifier::new(&by_claim, false);
    sample["uid"] = "7".into();
    null::same(&sample, &data, |claims| {
        format!("{:?}", by_claim.connection(&token(claims), NOW))
    });
}

#[test]
fn names_in_subs_and_consume_count_without_options() {
    let claims =
        connection(r#"{"subs":{"chat:1":null},"consume":{"g":null,"h":["a",null]}}"#).unwrap();
    assert_eq!(claims.subs, [("chat:1".to_owned(), SubOptions::default())]);
    assert_eq!(claims.consume.len(), 2);
    assert!(claims.consume[0].channels.is_empty(), "nothing is granted");
    assert_eq!(*claims.consume[1].channels, ["a".into()]);
    let claims = connection(r#"{"channels":["a",null]}"#).unwrap();
    assert_eq!(claims.subs, [("a".to_owned(), SubOptions::default())]);
}

#[test]
fn what_is_signed_is_read_strictly() {
    let header = r#"{"alg":"HS256"}"#;
    let of = |header: &str, payload: &str| verifier().connection(&raw(header, payload), NOW);
    for payload in [
        r#"{"sub":"a","sub":"b"}"#,
        r#"{"sub":"a","\u0073ub":"b"}"#,
        r#"{"x":1,"x":1}"#,
        "null",
        "[]",
        r#""a""#,
        "",
    ] {
        assert_eq!(of(header, payload), Err(TokenError::Invalid), "{payload}");
    }
    assert_eq!(of(header, r#"{"SUB":"a","Exp":1}"#).unwrap().user, "");
    assert_eq!(
        of(header, r#"{"sub":"a","later":{"x":1}}"#).unwrap().user,
        "a"
    );
    for header in [
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":null}"#,
        "null",
    ] {
        assert_eq!(of(header, "{}"), Err(TokenError::Invalid), "{header}");
    }
    assert!(of(r#"{"alg":"HS256","kid":null,"typ":null}"#, "{}").is_ok());
}

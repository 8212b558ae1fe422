use super::*;

const RSA_PEM: &str = include_str!("../../../tests/vectors/keys/rsa.pub.pem");
const RSA_PKCS1: &str = include_str!("../../../tests/vectors/keys/rsa.pub.pkcs1.pem");
const RSA_PRIVATE: &str = include_str!("../../../tests/vectors/keys/rsa.pem");
const RSA_WEAK: &str = include_str!("../../../tests/vectors/keys/rsa-weak.pub.pem");
const P256_PEM: &str = include_str!("../../../tests/vectors/keys/p256.pub.pem");
const P384_PEM: &str = include_str!("../../../tests/vectors/keys/p384.pub.pem");
const P521_PEM: &str = include_str!("../../../tests/vectors/keys/p521.pub.pem");
const ED25519_PEM: &str = include_str!("../../../tests/vectors/keys/ed25519.pub.pem");

/// The public key of RFC 8037, appendix A.
const ED: &str =
    r#"{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
/// The public key of RFC 7517, appendix A.1.
const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"ec","use":"sig","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

fn set(keys: &[&str]) -> Result<KeySet, KeySetError> {
    KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
}

#[test]
fn key_is_for_the_algorithms_of_its_kind_only() {
    let rsa = PublicKey::rsa_from_pem(RSA_PEM).unwrap();
    let p256 = PublicKey::ecdsa_from_pem(P256_PEM).unwrap();
    let p384 = PublicKey::ecdsa_from_pem(P384_PEM).unwrap();
    for algorithm in RSA {
        assert!(rsa.allows(*algorithm) && !p256.allows(*algorithm) && !p384.allows(*algorithm));
    }
    assert!(p256.allows(Algorithm::ES256) && !p256.allows(Algorithm::ES384));
    assert!(p384.allows(Algorithm::ES384) && !p384.allows(Algorithm::ES256));
    for key in [&rsa, &p256, &p384] {
        assert!(!key.allows(Algorithm::HS256) && !key.allows(Algorithm::EdDSA));
    }
    assert!(PublicKey::rsa_from_pem(RSA_PKCS1).is_some());
    assert_eq!(rsa.pem(), RSA_PEM);
}

#[test]
fn what_is_no_sound_public_key_of_its_kind_is_refused() {
    for pem in [
        "",
        "x",
        RSA_PRIVATE,
        RSA_WEAK,
        P256_PEM,
        ED25519_PEM,
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ] {
        assert!(PublicKey::rsa_from_pem(pem).is_none(), "{pem}");
    }
    for pem in [
        "",
        "x",
        RSA_PEM,
        P521_PEM,
        ED25519_PEM,
        include_str!("../../../tests/vectors/keys/p256.pem"),
    ] {
        assert!(PublicKey::ecdsa_from_pem(pem).is_none(), "{pem}");
    }
}

#[test]
fn key_set_holds_what_can_verify_and_leaves_out_the_rest() {
    let found = set(&[
        ED,
        EC,
        r#"{"kty":"oct","kid":"secret","k":"c2VjcmV0"}"#,
        r#"{"kty":"OKP","crv":"X25519","kid":"x","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","kid":"short","x":"11qY"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        r#"{"kty":"EC","crv":"P-256","kid":"off","x":"AAAA","y":"AAAA"}"#,
        r#"{"kty":"EC","crv":"P-521","kid":"p521","x":"AAAA","y":"AAAA"}"#,
        r#"{"kty":"RSA","kid":"one","n":"AQ","e":"AQAB"}"#,
        r#"{"kty":7,"kid":"seven"}"#,
        "7",
        &EC.replace("\"sig\"", "\"enc\"").replace("\"ec\"", "\"enc\""),
        &EC.replace("P-256", "P-384").replace("\"ec\"", "\"p384\""),
        &ED.replace("\"kid\":\"ed\"", "\"kid\":\"alg\",\"alg\":\"RS256\""),
        &ED.replace("\"kid\":\"ed\"", "\"kid\":\"ops\",\"key_ops\":[\"sign\"]"),
    ])
    .unwrap();
    assert_eq!(found.len(), 2);
    assert!(matches!(
        found.find("ed", Algorithm::EdDSA),
        FoundKey::Key(_)
    ));
    assert!(matches!(
        found.find("ec", Algorithm::ES256),
        FoundKey::Key(_)
    ));
    assert!(matches!(
        found.find("ec", Algorithm::EdDSA),
        FoundKey::Other
    ));
    assert!(matches!(
        found.find("secret", Algorithm::HS256),
        FoundKey::Unknown
    ));
}

#[test]
fn algorithm_that_a_published_key_names_is_its_only_one() {
    let text = ED.replace(
        "\"kid\":\"ed\"",
        "\"kid\":\"ed\",\"alg\":\"EdDSA\",\"key_ops\":[\"verify\"]",
    );
    assert!(matches!(
        set(&[&text]).unwrap().find("ed", Algorithm::EdDSA),
        FoundKey::Key(_)
    ));
    let modulus = URL_SAFE_NO_PAD.encode([0xff; 256]);
    let rsa = format!(r#"{{"kty":"RSA","kid":"r","alg":"PS256","n":"{modulus}","e":"AQAB"}}"#);
    let found = set(&[&rsa]).unwrap();
    assert!(matches!(
        found.find("r", Algorithm::PS256),
        FoundKey::Key(_)
    ));
    assert!(matches!(found.find("r", Algorithm::RS256), FoundKey::Other));
}

#[test]
fn members_of_a_key_that_are_null_are_absent_ones() {
    let modulus = URL_SAFE_NO_PAD.encode([0xff; 256]);
    let rsa = serde_json::json!({
        "kty": "RSA", "kid": "r", "alg": "PS256", "use": "sig", "key_ops": ["verify"], "n": modulus, "e": "AQAB",
        "crv": "P-256", "x": "AQ", "y": "AQ", "x5c": ["later"],
    });
    let mut plain = rsa.clone();
    plain.as_object_mut().unwrap().remove("crv");
    let read = |key: &serde_json::Value| format!("{:?}", set(&[&key.to_string()]));
    assert!(set(&[&plain.to_string()]).is_ok());
    for sample in [&rsa, &plain] {
        for name in [
            "kty", "kid", "alg", "use", "key_ops", "crv", "n", "e", "x", "y", "x5c",
        ] {
            let (mut null, mut without) = (sample.clone(), sample.clone());
            null[name] = serde_json::Value::Null;
            without.as_object_mut().unwrap().remove(name);
            assert_eq!(read(&null), read(&without), "{name}");
        }
    }
    let with_null = format!(r#"{{"keys":[null,{plain}],"later":null}}"#);
    assert!(KeySet::parse(with_null.as_bytes()).is_ok());
    for text in [r#"{"keys":null}"#, "{}", "null"] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn rsa_keys_that_are_weak_or_dear_are_left_out() {
    let rsa = |modulus: &[u8], exponent: &str| {
        let modulus = URL_SAFE_NO_PAD.encode(modulus);
        set(&[&format!(
            r#"{{"kty":"RSA","kid":"r","n":"{modulus}","e":"{exponent}"}}"#
        )])
        .map(|set| set.len())
    };
    assert_eq!(rsa(&[0xff; 256], "AQAB"), Ok(1));
    assert_eq!(rsa(&[0xff; 512], "Aw"), Ok(1));
    let long_zero = [&[0; 3][..], &[0xff; 256]].concat();
    assert_eq!(rsa(&long_zero, "AQAB"), Ok(1));
    let even = [&[0xff; 255][..], &[0xfe]].concat();
    let short = [&[0x7f][..], &[0xff; 255]].concat();
    for (modulus, exponent) in [
        (&[0xff; 128][..], "AQAB"),
        (&[0xff; 513], "AQAB"),
        (&short, "AQAB"),
        (&even, "AQAB"),
        (&[], "AQAB"),
        (&[0xff; 256], "AQ"),
        (&[0xff; 256], ""),
        (&[0xff; 256], "Ag"),
        (&[0xff; 256], "_______"),
    ] {
        assert_eq!(
            rsa(modulus, exponent),
            Err(KeySetError::NoKeys),
            "{exponent}"
        );
    }
}

#[test]
fn text_that_is_no_key_set_is_refused() {
    assert_eq!(KeySet::parse(b"").err(), Some(KeySetError::Malformed));
    assert_eq!(KeySet::parse(b"<html>").err(), Some(KeySetError::Malformed));
    assert_eq!(KeySet::parse(b"[]").err(), Some(KeySetError::Malformed));
    assert_eq!(
        KeySet::parse(br#"{"keys":7}"#).err(),
        Some(KeySetError::Malformed)
    );
    assert_eq!(set(&[]).err(), Some(KeySetError::NoKeys));
    assert_eq!(
        KeySet::parse(&vec![b' '; JWKS_BYTES_MAX + 1]).err(),
        Some(KeySetError::TooLarge)
    );
    let many: Vec<String> = (0..=JWKS_KEYS_MAX)
        .map(|id| ED.replace("\"ed\"", &format!("\"{id}\"")))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(set(&many).err(), Some(KeySetError::TooLarge));
    assert_eq!(set(&many[1..]).map(|set| set.len()), Ok(JWKS_KEYS_MAX));
}

proptest::proptest! {
    #[test]
    fn arbitrary_keys_never_panic(
        kty in "(RSA|EC|OKP|oct)", crv in "(P-256|P-384|Ed25519|X)",
        x in "[A-Za-z0-9_-]{0,140}", y in "[A-Za-z0-9_-]{0,140}", e in "[A-Za-z0-9_-]{0,10}",
    ) {
        let text = format!(r#"{{"kty":"{kty}","kid":"k","n":"{x}","e":"{e}","x":"{x}","y":"{y}","crv":"{crv}"}}"#);
        if let Ok(set) = set(&[&text]) {
            for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA] {
                if let FoundKey::Key(key) = set.find("k", algorithm) {
                    proptest::prop_assert!(!key.verifies(algorithm, b"a", "AAAA"));
                }
            }
        }
    }
}

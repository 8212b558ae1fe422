//! How a backend knows that a call is from here, of now, and whole: an HMAC of the time and the body.

use hmac::{Hmac, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use crate::config::hooks::Signing;

/// The header.
pub(super) const NAME: HeaderName = HeaderName::from_static("x-ringmain-signature");

/// Signs a call with each secret. What a client or the configuration has put in this place is gone in any case.
pub(in crate::control) fn sign(
    headers: &mut HeaderMap,
    signing: &Signing,
    body: &[u8],
    unix_s: u64,
) {
    headers.remove(NAME);
    let mut text = format!("t={unix_s}");
    for secret in signing.secrets() {
        text.push_str(",v1=");
        text.push_str(&mac(secret.0.as_bytes(), unix_s, body));
    }
    if let (Some(_), Ok(mut value)) = (signing.secrets().next(), HeaderValue::from_str(&text)) {
        value.set_sensitive(true);
        headers.insert(NAME, value);
    }
}

/// Hexadecimal digits of HMAC-SHA256 of `<t>.<body>`.
fn mac(secret: &[u8], unix_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(format!("{unix_s}.").as_bytes());
    mac.update(body);
    let tag = mac.finalize().into_bytes();
    tag.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn signed(secret: &str, previous: &str) -> Option<String> {
        let signing = Signing {
            secret: Secret(secret.to_owned()),
            previous: Secret(previous.to_owned()),
        };
        let mut headers = HeaderMap::new();
        headers.insert(NAME, HeaderValue::from_static("t=1,v1=forged"));
        sign(&mut headers, &signing, b"{}", 1_700_000_000);
        let value = headers.get(NAME)?;
        Some(value.to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn a_call_has_a_signature_with_each_secret_the_new_one_first() {
        let new = signed("new", "").expect("a signature");
        let old = signed("old", "").expect("a signature");
        let both = signed("new", "old").expect("a signature");
        let (time, of_new) = new.split_once(',').expect("two parts");
        let (_, of_old) = old.split_once(',').expect("two parts");
        assert_eq!(both, format!("{time},{of_new},{of_old}"));
        assert_eq!(time, "t=1700000000");
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac new
        assert_eq!(
            of_new,
            "v1=29810abc729e7b7322b3ce2c7456a99bca762870c031aa43455fd67b43aab3c0"
        );
    }

    #[test]
    fn without_a_secret_there_is_no_signature_nor_one_of_a_client() {
        assert_eq!(signed("", ""), None);
    }
}

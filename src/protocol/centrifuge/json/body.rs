//! What stands in a request's body or query by itself, not in a frame (`spec/centrifuge.md` §1.8).

use crate::protocol::command::Connect;
use crate::protocol::disconnect::Disconnect;
use crate::wire::json::{Object, Part};

/// A connect request by itself; `null` counts as `{}`.
pub fn decode_connect(text: &[u8]) -> Result<Connect<'_>, Disconnect> {
    whole(text).map(Option::unwrap_or_default)
}

/// The one object that `bytes` are, `None` for `null`.
fn whole<'a, T: Object<'a>>(bytes: &'a [u8]) -> Result<Option<T>, Disconnect> {
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| Disconnect::BadRequest)?;
    match serde_json::from_str::<Part<T>>(text) {
        Ok(Part(object)) => Ok(object),
        Err(_) => Err(Disconnect::BadRequest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_request_stands_by_itself() {
        let connect = decode_connect(
            br#"{"token":"t","subs":{"a":{"recover":true,"offset":3}},"name":"js"}"#,
        )
        .unwrap();
        assert_eq!((&*connect.token, &*connect.name), ("t", "js"));
        assert_eq!(
            (&*connect.subs[0].channel, connect.subs[0].offset),
            ("a", 3)
        );
        for empty in [&b"{}"[..], b"null", b" null\n"] {
            assert_eq!(decode_connect(empty), Ok(Connect::default()));
        }
        for text in [&b""[..], b"1", b"{}{}", b"{}\n{}", br#"{"token":1}"#] {
            assert_eq!(
                decode_connect(text),
                Err(Disconnect::BadRequest),
                "{text:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_connect(&bytes);
        }
    }
}

//! Makes keys of services and operators, and what the configuration has of them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::access::KeyDigest;

/// What a new key begins with, so that people and scanners of secrets know what they see.
const START: &str = "rmk_";
/// Randomness of a new key.
const RANDOM: usize = 32;
/// A shorter key could be found from its hash by trying.
const SHORTEST: usize = 16;
/// A longer one fits into no header.
pub const LONGEST: usize = 4096;

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The kernel has none.
    #[error("the kernel gives no randomness")]
    NoRandomness,
    /// Nothing was given.
    #[error("standard input is empty: pipe the key in, as in `ringmain key hash < FILE`")]
    Empty,
    /// It can be guessed.
    #[error(
        "a key of fewer than {SHORTEST} bytes can be found from its hash by trying; `ringmain key new` makes a long one"
    )]
    Short,
    /// It cannot be sent.
    #[error(
        "a key is one line of printable ASCII, of at most {LONGEST} bytes and without blanks: no header carries this one"
    )]
    Unsendable,
}

/// A key that nobody can guess.
///
/// # Errors
/// When there is no randomness.
pub fn fresh() -> Result<String, KeyError> {
    let mut bytes = [0; RANDOM];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
    Ok(format!("{START}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// The key in what was given: one line, with or without its end.
///
/// # Errors
/// When no service could send it, or anybody could guess it.
pub fn given(bytes: &[u8]) -> Result<&str, KeyError> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(KeyError::Empty);
    }
    let is_sendable = line.len() <= LONGEST && line.iter().all(u8::is_ascii_graphic);
    match str::from_utf8(line) {
        Ok(_) if !is_sendable => Err(KeyError::Unsendable),
        Ok(key) if key.len() < SHORTEST => Err(KeyError::Short),
        Ok(key) => Ok(key),
        Err(_) => Err(KeyError::Unsendable),
    }
}

/// The lines of the configuration that make a key count: they do not tell it.
#[must_use]
pub fn lines(name: Option<&str>, key: &str) -> String {
    let name = name.map(|name| format!("name = \"{name}\"\n"));
    let hash = KeyDigest::of(key.as_bytes()).to_text();
    format!("{}hash = \"{hash}\"\n", name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_differ_and_can_be_sent() {
        let (one, other) = (fresh().expect("a key"), fresh().expect("a key"));
        assert_ne!(one, other);
        assert_eq!(given(one.as_bytes()), Ok(one.as_str()));
        assert_eq!(one.len(), START.len() + 43);
    }

    #[test]
    fn a_key_that_cannot_be_sent_or_can_be_guessed_is_refused() {
        assert_eq!(given(b"0123456789abcdef\r\n"), Ok("0123456789abcdef"));
        for (bytes, error) in [
            (&b""[..], KeyError::Empty),
            (b"\n", KeyError::Empty),
            (b"short\n", KeyError::Short),
            (b"0123456789abcdef\n\n", KeyError::Unsendable),
            (b"0123456789 abcdef", KeyError::Unsendable),
            (b"0123456789abcdef\xff", KeyError::Unsendable),
            (&[b'a'; LONGEST + 1], KeyError::Unsendable),
        ] {
            assert_eq!(given(bytes), Err(error));
        }
    }
}

//! What a client offers in `Sec-WebSocket-Extensions`, and what is agreed on (RFC 6455 §9.1, RFC 7692 §5 and §7.1).

use std::borrow::Cow;
use std::fmt;

use super::WINDOW_BITS_MAX;

const NAME: &[u8] = b"permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The extension as both sides will use it; displays as the value of the answer's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Each message of the server inflates by itself.
    pub server_no_context_takeover: bool,
    /// Each message of the client inflates by itself.
    pub client_no_context_takeover: bool,
    /// The server looks back at most `1 << bits` bytes. 8 <= bits <= 15; `None` is 15.
    pub server_max_window_bits: Option<u8>,
    /// The client looks back at most `1 << bits` bytes. 8 <= bits <= 15; `None` is 15.
    pub client_max_window_bits: Option<u8>,
}

/// What a server is ready to agree to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeflateTerms {
    /// What the client asks for: state for each connection.
    AsOffered,
    /// No context is taken over in either direction and the server's window is the largest: one state serves all connections.
    /// An offer that asks for a smaller window of the server is declined.
    Stateless,
}

/// The header is no list of extensions: the handshake fails (RFC 6455 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed Sec-WebSocket-Extensions")]
pub struct MalformedExtensions;

/// Takes the first acceptable offer of `permessage-deflate`. `headers` are the values of all `Sec-WebSocket-Extensions` headers, in order.
///
/// An offer with a parameter that is unknown, repeated or has no legal value is declined and the next one counts.
pub fn negotiate<'a>(
    headers: impl IntoIterator<Item = &'a [u8]>,
    terms: DeflateTerms,
) -> Result<Option<Agreement>, MalformedExtensions> {
    let mut agreed = None;
    for header in headers {
        let mut rest = Rest(header);
        loop {
            // Elements of a list may be empty (RFC 9110 §5.6.1).
            while rest.eat(b',') {}
            if rest.is_at_end() {
                break;
            }
            let offer = rest.extension()?;
            agreed = agreed.or(offer.and_then(|offer| offer.answer(terms)));
            if !rest.is_at_end() && !rest.eat(b',') {
                return Err(MalformedExtensions);
            }
        }
    }
    Ok(agreed)
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("permessage-deflate")?;
        for (set, name) in [
            (self.server_no_context_takeover, SERVER_NO_CONTEXT_TAKEOVER),
            (self.client_no_context_takeover, CLIENT_NO_CONTEXT_TAKEOVER),
        ] {
            if set {
                write!(f, "; {name}")?;
            }
        }
        for (bits, name) in [
            (self.server_max_window_bits, SERVER_MAX_WINDOW_BITS),
            (self.client_max_window_bits, CLIENT_MAX_WINDOW_BITS),
        ] {
            if let Some(bits) = bits {
                write!(f, "; {name}={bits}")?;
            }
        }
        Ok(())
    }
}

/// One well-formed offer of `permessage-deflate` with known parameters, each once.
#[derive(Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// `Some(None)`: the client would heed a limit but names none.
    client_max_window_bits: Option<Option<u8>>,
}

impl Offer {
    /// Takes one parameter in; `None` declines the offer.
    fn add(&mut self, name: &[u8], value: Option<&[u8]>) -> Option<()> {
        let once = |flag: &mut bool| !std::mem::replace(flag, true) && value.is_none();
        let is = |known: &str| name == known.as_bytes();
        let accepted = if is(SERVER_NO_CONTEXT_TAKEOVER) {
            once(&mut self.server_no_context_takeover)
        } else if is(CLIENT_NO_CONTEXT_TAKEOVER) {
            once(&mut self.client_no_context_takeover)
        } else if is(SERVER_MAX_WINDOW_BITS) {
            let bits = window_bits(value?)?;
            self.server_max_window_bits.replace(bits).is_none()
        } else if is(CLIENT_MAX_WINDOW_BITS) {
            let bits = match value {
                Some(value) => Some(window_bits(value)?),
                None => None,
            };
            self.client_max_window_bits.replace(bits).is_none()
        } else {
            false
        };
        accepted.then_some(())
    }

    fn answer(self, terms: DeflateTerms) -> Option<Agreement> {
        match terms {
            DeflateTerms::AsOffered => Some(Agreement {
                server_no_context_takeover: self.server_no_context_takeover,
                client_no_context_takeover: self.client_no_context_takeover,
                server_max_window_bits: self.server_max_window_bits,
                client_max_window_bits: self.client_max_window_bits.flatten(),
            }),
            DeflateTerms::Stateless => {
                let is_largest = self
                    .server_max_window_bits
                    .is_none_or(|bits| bits == WINDOW_BITS_MAX);
                is_largest.then_some(Agreement {
                    server_no_context_takeover: true,
                    client_no_context_takeover: true,
                    server_max_window_bits: self.server_max_window_bits,
                    client_max_window_bits: None,
                })
            }
        }
    }
}

/// 8 to 15, in decimal and without leading zeros (RFC 7692 §7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// What is left of a header's value.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip_space(&mut self) {
        let space = self
            .0
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'));
        self.0 = &self.0[space.count()..];
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.0.is_empty()
    }

    fn eat(&mut self, wanted: u8) -> bool {
        self.skip_space();
        match self.0.split_first() {
            Some((&byte, rest)) if byte == wanted => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn token(&mut self) -> Result<&'a [u8], MalformedExtensions> {
        self.skip_space();
        let len = self.0.iter().take_while(|&&byte| is_token(byte)).count();
        let (token, rest) = self.0.split_at(len);
        self.0 = rest;
        if token.is_empty() {
            return Err(MalformedExtensions);
        }
        Ok(token)
    }

    /// A token, or a quoted string that is one once its quotes and backslashes are gone.
    fn value(&mut self) -> Result<Cow<'a, [u8]>, MalformedExtensions> {
        if !self.eat(b'"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut value = Vec::new();
        let mut bytes = self.0.iter().copied().enumerate();
        while let Some((at, byte)) = bytes.next() {
            let plain = match byte {
                b'"' if value.is_empty() => return Err(MalformedExtensions),
                b'"' => {
                    self.0 = &self.0[at + 1..];
                    return Ok(Cow::Owned(value));
                }
                b'\\' => bytes.next().map(|(_, byte)| byte),
                _ => Some(byte),
            };
            match plain {
                Some(byte) if is_token(byte) => value.push(byte),
                _ => return Err(MalformedExtensions),
            }
        }
        Err(MalformedExtensions)
    }

    /// One element of the list. `None`: another extension, or an offer to decline.
    fn extension(&mut self) -> Result<Option<Offer>, MalformedExtensions> {
        let mut offer = (self.token()? == NAME).then(Offer::default);
        while self.eat(b';') {
            let name = self.token()?;
            let value = if self.eat(b'=') {
                Some(self.value()?)
            } else {
                None
            };
            if let Some(known) = &mut offer
                && known.add(name, value.as_deref()).is_none()
            {
                offer = None;
            }
        }
        Ok(offer)
    }
}

/// A character of a token (RFC 9110 §5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn negotiated(
        headers: &[&str],
        terms: DeflateTerms,
    ) -> Result<Option<String>, MalformedExtensions> {
        let headers = headers.iter().map(|header| header.as_bytes());
        Ok(negotiate(headers, terms)?.map(|agreement| agreement.to_string()))
    }

    fn as_offered(header: &str) -> Option<String> {
        negotiated(&[header], DeflateTerms::AsOffered).unwrap()
    }

    fn stateless(header: &str) -> Option<String> {
        negotiated(&[header], DeflateTerms::Stateless).unwrap()
    }

    #[test]
    fn every_parameter_that_a_client_may_ask_for_is_agreed_to() {
        for server_takeover in ["", "; server_no_context_takeover"] {
            for client_takeover in ["", "; client_no_context_takeover"] {
                for server_bits in 7..=15 {
                    for client_bits in 7..=15 {
                        let bits = |name: &str, bits: u8| match bits {
                            7 => String::new(),
                            _ => format!("; {name}={bits}"),
                        };
                        let offer = format!(
                            "permessage-deflate{server_takeover}{client_takeover}{}{}",
                            bits("server_max_window_bits", server_bits),
                            bits("client_max_window_bits", client_bits)
                        );
                        assert_eq!(as_offered(&offer), Some(offer));
                    }
                }
            }
        }
        assert_eq!(
            as_offered("permessage-deflate; client_max_window_bits").unwrap(),
            "permessage-deflate",
            "a client that names no limit is given none"
        );
    }

    #[test]
    fn first_acceptable_offer_counts() {
        let list = "x-other; a=1; b=\"c\", permessage-deflate; unheard_of, permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert_eq!(
            as_offered(list).unwrap(),
            "permessage-deflate; server_max_window_bits=10"
        );
        let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(stateless(list).unwrap(), both);
        let headers = ["x-other", "permessage-deflate; server_max_window_bits=9"];
        assert!(
            negotiated(&headers, DeflateTerms::AsOffered)
                .unwrap()
                .is_some()
        );
        assert_eq!(negotiated(&[], DeflateTerms::AsOffered), Ok(None));
    }

    #[test]
    fn state_that_cannot_be_shared_is_declined() {
        let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for accepted in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=8",
            both,
        ] {
            assert_eq!(stateless(accepted).unwrap(), both);
        }
        assert_eq!(
            stateless("permessage-deflate; server_max_window_bits=15").unwrap(),
            format!("{both}; server_max_window_bits=15")
        );
        for bits in 8..15 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            assert_eq!(stateless(&offer), None);
        }
    }

    #[test]
    fn offers_with_unknown_repeated_or_illegal_parameters_are_declined() {
        for parameters in [
            "unknown",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover; client_no_context_takeover",
            "server_max_window_bits=9; server_max_window_bits=9",
            "client_max_window_bits; client_max_window_bits=9",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=115",
            "client_max_window_bits=1",
            "client_max_window_bits=a",
            "client_max_window_bits=+9",
            "Server_No_Context_Takeover",
        ] {
            let offer = format!("permessage-deflate; {parameters}");
            assert_eq!(as_offered(&offer), None, "{offer}");
            let again = format!("{offer}, permessage-deflate");
            assert_eq!(as_offered(&again).unwrap(), "permessage-deflate");
        }
        assert_eq!(as_offered("x-webkit-deflate-frame"), None);
    }

    #[test]
    fn values_may_be_quoted_and_spaced() {
        for value in ["10", "\"10\"", "\"1\\0\"", " 10\t", "\t\"10\" "] {
            let offer = format!(" , permessage-deflate ;server_max_window_bits={value},,");
            assert_eq!(
                as_offered(&offer).unwrap(),
                "permessage-deflate; server_max_window_bits=10"
            );
        }
    }

    #[test]
    fn what_is_no_list_of_extensions_fails_the_handshake() {
        for header in [
            "permessage-deflate;",
            "permessage-deflate; =9",
            "permessage-deflate; a=",
            "permessage-deflate; a=\"\"",
            "permessage-deflate; a=\"9",
            "permessage-deflate; a=\"9\\",
            "permessage-deflate; a=\"9 \"",
            "permessage-deflate a",
            "a/b",
            "=",
            "\u{e9}",
        ] {
            for terms in [DeflateTerms::AsOffered, DeflateTerms::Stateless] {
                assert_eq!(
                    negotiated(&[header], terms),
                    Err(MalformedExtensions),
                    "{header}"
                );
                let behind = format!("permessage-deflate, {header}");
                assert_eq!(negotiated(&[&behind], terms), Err(MalformedExtensions));
            }
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_an_offer_that_gets_itself(header in "(permessage-deflate|; ?|, ?|=|\"|1[0-5]|[89]|server_max_window_bits|client_no_context_takeover|.){0,12}") {
            for terms in [DeflateTerms::AsOffered, DeflateTerms::Stateless] {
                if let Ok(Some(agreement)) = negotiate([header.as_bytes()], terms) {
                    let answer = agreement.to_string();
                    prop_assert_eq!(negotiate([answer.as_bytes()], terms), Ok(Some(agreement)));
                }
            }
        }
    }
}

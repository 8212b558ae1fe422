//! JSON that goes out, appended to a buffer: the one writer and the one escaper of everything that is written per message, per answer
//! or per call. No value is ever built in between.

use super::text::{compact, is_json};

/// The members of one object, separated as they come. Dropping it closes the object, so none is left open.
pub struct Members<'o> {
    out: &'o mut Vec<u8>,
    separate: bool,
}

impl<'o> Members<'o> {
    /// Opens an object.
    pub fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self {
            out,
            separate: false,
        }
    }

    /// Closes it before the end of the scope.
    pub fn close(self) {}

    /// Makes room for so many more bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    /// Starts a member whose name needs no escapes; the caller appends its value.
    pub fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if self.separate {
            self.out.push(b',');
        }
        self.separate = true;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Starts a member with any name.
    pub fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if self.separate {
            self.out.push(b',');
        }
        self.separate = true;
        string(self.out, key);
        self.out.push(b':');
        self.out
    }

    /// An object as value.
    pub fn object(&mut self, name: &str) -> Members<'_> {
        Members::open(self.name(name))
    }

    /// An array as value.
    pub fn items(&mut self, name: &str) -> Items<'_> {
        Items::open(self.name(name))
    }

    /// An array as value: every item is appended by `item`.
    pub fn array<T>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Vec<u8>, T),
    ) {
        let mut items = self.items(name);
        for value in values {
            item(items.item(), value);
        }
    }

    /// Text, also when empty.
    pub fn text(&mut self, name: &str, text: &str) {
        string(self.name(name), text);
    }

    /// Text, left out when empty.
    pub fn text_some(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    /// Text that has nothing to escape, such as an id.
    pub fn plain(&mut self, name: &str, text: &[u8]) {
        let out = self.name(name);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    }

    /// A number, also when zero.
    pub fn number(&mut self, name: &str, value: impl itoa::Integer) {
        number(self.name(name), value);
    }

    /// A number, left out when zero.
    pub fn number_some(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.number(name, value);
        }
    }

    /// A flag, left out when false.
    pub fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.name(name).extend_from_slice(b"true");
        }
    }

    /// A flag, also when false.
    pub fn boolean(&mut self, name: &str, value: bool) {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.name(name).extend_from_slice(text);
    }

    /// One JSON value as it stands, on one line; left out when empty.
    pub fn raw(&mut self, name: &str, json: &[u8]) {
        if !json.is_empty() {
            self.name(name).extend_from_slice(&compact(json));
        }
    }

    /// A payload that may be any bytes, such as the `b64info` of a token. JSON clients get what is JSON; the rest is left out,
    /// because it would break the whole message.
    pub fn raw_if_json(&mut self, name: &str, bytes: &[u8]) {
        if is_json(bytes) {
            self.raw(name, bytes);
        }
    }
}

impl Drop for Members<'_> {
    fn drop(&mut self) {
        self.out.push(b'}');
    }
}

/// The items of one array, separated as they come. Dropping it closes the array.
pub struct Items<'o> {
    out: &'o mut Vec<u8>,
    separate: bool,
}

impl<'o> Items<'o> {
    fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'[');
        Self {
            out,
            separate: false,
        }
    }

    /// Starts an item; the caller appends its value.
    pub fn item(&mut self) -> &mut Vec<u8> {
        if self.separate {
            self.out.push(b',');
        }
        self.separate = true;
        self.out
    }
}

impl Drop for Items<'_> {
    fn drop(&mut self) {
        self.out.push(b']');
    }
}

/// Appends a number.
pub fn number(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a JSON string (RFC 8259 §7): only what must be escaped is.
pub fn string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        escape(out, byte);
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

#[cold]
fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_escaped_where_json_asks_for_it_and_nowhere_else() {
        let mut out = Vec::new();
        string(
            &mut out,
            "a\"\\\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}/<é\u{2028}😀",
        );
        assert_eq!(
            str::from_utf8(&out),
            Ok("\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}/<é\u{2028}😀\"")
        );
    }

    proptest! {
        #[test]
        fn written_strings_read_back_and_stand_on_one_line(text: String) {
            let mut out = Vec::new();
            string(&mut out, &text);
            prop_assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}

//! Options of Centrifugo's command line as keys.

use std::collections::BTreeMap;

use super::convert::boolean;
use super::document::Value;
use super::known::{Known, Shape};
use super::legacy;

/// An option that sets a key.
pub(super) struct Flag {
    /// As it was written, without its value: `--port`, `-p`.
    pub(super) word: String,
    /// The key: `http_server.port`, or `port` before version 6.
    pub(super) key: String,
    pub(super) value: String,
}

/// Short options of all versions.
const SHORT: [(&str, &str); 5] = [
    ("-a", "address"),
    ("-p", "port"),
    ("-e", "engine"),
    ("-n", "name"),
    ("-c", "config"),
];

/// Reads a command line, with or without the program's name.
///
/// # Errors
/// It has an open quote, or a word that is neither an option nor a value of one.
pub(super) fn read(line: &str, known: &BTreeMap<String, Known>) -> Result<Vec<Flag>, String> {
    let mut words = split(line)?.into_iter().peekable();
    let is_program = |word: &String| !word.starts_with('-');
    while words.next_if(is_program).is_some() {}
    let mut flags = Vec::new();
    while let Some(word) = words.next() {
        let (word, given) = match word.split_once('=') {
            Some((word, value)) => (word.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let short = SHORT.iter().find(|(short, _)| *short == word);
        let key = match (short, word.strip_prefix("--")) {
            (Some((_, key)), _) => (*key).to_owned(),
            (None, Some(key)) if !key.is_empty() => key.to_lowercase(),
            _ => return Err(format!("`{}` is no option", shown(&word))),
        };
        let path = if known.contains_key(&key) {
            Some(key.clone())
        } else {
            legacy::today(&key, known)
        };
        let is_switch = path
            .and_then(|path| known.get(&path))
            .is_some_and(|known| known.shape == Shape::Boolean);
        let value = match given {
            Some(value) => value,
            None if is_switch => {
                // A value may stand behind it, although no version asks for one.
                let said = |word: &String| boolean(&Value::Text(word.clone())).is_some();
                words.next_if(said).unwrap_or_else(|| "true".to_owned())
            }
            None => words
                .next_if(|word| !word.starts_with("--"))
                .unwrap_or_else(|| "true".to_owned()),
        };
        flags.push(Flag { word, key, value });
    }
    Ok(flags)
}

/// The start of a word that may hold a secret.
fn shown(word: &str) -> String {
    word.chars().take(2).chain("…".chars()).collect()
}

/// Words as a shell has them: blanks between them, quotes around blanks.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => {
                let next = rest.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("it has a quote that does not end".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;

    fn flags(line: &str) -> Vec<(String, String)> {
        let flags = read(line, &known::all()).expect(line);
        flags
            .into_iter()
            .map(|flag| (flag.key, flag.value))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn options_take_their_values_in_every_form() {
        for line in [
            "centrifugo --port 9000 --health --token_hmac_secret_key 'a b'",
            "--port=9000 --health=true --token_hmac_secret_key=\"a b\"",
            "/usr/bin/centrifugo serve -p 9000 --health --token_hmac_secret_key a\\ b",
        ] {
            let expected = pairs(&[
                ("port", "9000"),
                ("health", "true"),
                ("token_hmac_secret_key", "a b"),
            ]);
            assert_eq!(flags(line), expected, "{line}");
        }
        assert_eq!(
            flags("--client.insecure --http_server.port 1 --nonsense"),
            pairs(&[
                ("client.insecure", "true"),
                ("http_server.port", "1"),
                ("nonsense", "true")
            ])
        );
        assert_eq!(flags(""), pairs(&[]));
        for line in ["--port 9000 x", "'open", "--port 1 -q", "a\\"] {
            assert!(read(line, &known::all()).is_err(), "{line}");
        }
    }
}

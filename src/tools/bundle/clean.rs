//! Takes secrets out of texts: those of the configuration wherever they stand, and what looks like one.

use super::BundleArgs;
use crate::config::Config;

/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// A shorter one would be found in any text. Its key is hidden all the same.
const LENGTH_MIN: usize = 4;
/// How a JSON Web Token begins: `{"` in base64.
const TOKEN: &str = "eyJ";
/// Tokens are longer.
const TOKEN_LENGTH_MIN: usize = 20;

/// Knows all secrets.
pub(super) struct Cleaner(Vec<String>);

impl Cleaner {
    pub(super) fn new(config: &Config, args: &BundleArgs) -> Self {
        let mut all = config.secret_texts();
        all.extend(args.target.key.clone());
        all.extend(args.target.api_key.clone());
        let escaped = |text: &String| {
            let json = serde_json::Value::from(text.as_str()).to_string();
            json[1..json.len() - 1].to_owned()
        };
        let more: Vec<String> = all.iter().map(escaped).collect();
        all.extend(more);
        all.retain(|text| text.len() >= LENGTH_MIN);
        // One may be a part of another.
        all.sort_by_key(|text| std::cmp::Reverse(text.len()));
        all.dedup();
        Self(all)
    }

    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), HIDDEN);
            }
        }
        without_tokens(&without_users(&text))
    }
}

/// `scheme://user:password@host` without the user.
fn without_users(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?' | '#' | ',');
        let authority = &behind[..behind.find(ends).unwrap_or(behind.len())];
        match authority.rfind('@') {
            Some(user) => {
                out.push_str(HIDDEN);
                rest = &behind[user..];
            }
            None => rest = behind,
        }
    }
    out.push_str(rest);
    out
}

/// Nothing that looks like a token of somebody.
fn without_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(TOKEN) {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        let is_inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let end = behind.find(|c| !is_inside(c)).unwrap_or(behind.len());
        let word = &behind[..end];
        let starts_word = !before.ends_with(is_inside);
        if starts_word && word.len() >= TOKEN_LENGTH_MIN && word.contains('.') {
            out.push_str(HIDDEN);
        } else {
            out.push_str(word);
        }
        rest = &behind[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_urls_and_tokens_are_taken_out_and_nothing_else() {
        for (text, clean) in [
            ("a nats://me:pw@host:4222/x b", "a nats://***@host:4222/x b"),
            ("\"http://h/a@b\"", "\"http://h/a@b\""),
            ("https://u:p@w@h?q", "https://***@h?q"),
            ("no url: //x@y", "no url: //x@y"),
            ("t=eyJhbGciOiJIUzI1NiJ9.eyJz.x-_y&z", "t=***&z"),
            ("eyJshort", "eyJshort"),
            (
                "xeyJhbGciOiJIUzI1NiJ9.eyJz.x",
                "xeyJhbGciOiJIUzI1NiJ9.eyJz.x",
            ),
        ] {
            assert_eq!(without_tokens(&without_users(text)), clean, "{text}");
        }
    }

    #[test]
    fn a_secret_is_taken_out_also_where_it_is_escaped_or_holds_another() {
        let cleaner = Cleaner(vec![
            "long-secret-one".into(),
            "a\\\"b1".into(),
            "long".into(),
        ]);
        assert_eq!(cleaner.clean("x long-secret-one long y"), "x *** *** y");
        assert_eq!(cleaner.clean(r#"{"k":"a\"b1"}"#), r#"{"k":"***"}"#);
    }
}

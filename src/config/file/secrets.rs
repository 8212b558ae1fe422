//! All secrets of a configuration, for whoever has to take them out of a text.

use super::super::Config;
use super::writer::{SecretsWritten, lines};

/// Values that are hidden wherever the configuration is shown: secrets, headers of hooks, users, passwords and queries of URLs.
pub(super) fn texts(config: &Config) -> Vec<String> {
    let plain = lines(config, SecretsWritten::Plain);
    let hidden = lines(config, SecretsWritten::Hidden);
    let mut found = Vec::new();
    for (plain, hidden) in plain.iter().zip(&hidden) {
        if plain.text != hidden.text
            && let Ok(value) = format!("v = {}", plain.text).parse::<toml::Table>()
        {
            leaves(&value["v"], &mut found);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn leaves(value: &toml::Value, found: &mut Vec<String>) {
    match value {
        toml::Value::String(text) => of_text(text, found),
        toml::Value::Array(values) => values.iter().for_each(|one| leaves(one, found)),
        toml::Value::Table(table) => table.values().for_each(|one| leaves(one, found)),
        _ => {}
    }
}

fn of_text(text: &str, found: &mut Vec<String>) {
    let Some((_, behind)) = text.split_once("://") else {
        found.push(text.to_owned());
        // `Bearer …`: the scheme is no secret, and what follows it may stand alone.
        found.extend(text.rsplit_once(' ').map(|(_, word)| word.to_owned()));
        return;
    };
    let (rest, query) = behind.split_once('?').unwrap_or((behind, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@') {
        found.push(user.to_owned());
        found.extend(
            user.split_once(':')
                .map(|(_, password)| password.to_owned()),
        );
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (_, value) = pair.split_once('=').unwrap_or(("", pair));
        found.push(value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn every_kind_of_secret_is_found_and_nothing_else() {
        let text = r#"
            [client.token]
            hmac_secret_key = "token-secret"
            issuer = "plain"
            [durable.nats]
            user = "plain"
            password = "nats-pass"
            [[proxies]]
            name = "auth"
            endpoint = "http://h/p?key=query-secret"
            [proxies.http.static_headers]
            Authorization = "Bearer header-secret"
        "#;
        let source = Source { name: "t", text };
        let config = Config::load(&[source], &[]).expect("a configuration");
        let found = texts(&config);
        for wanted in [
            "token-secret",
            "nats-pass",
            "query-secret",
            "Bearer header-secret",
            "header-secret",
        ] {
            assert!(found.iter().any(|one| one == wanted), "{wanted}: {found:?}");
        }
        assert!(!found.iter().any(|one| one.contains("plain")), "{found:?}");
        let mut of_url = Vec::new();
        of_text("nats://me:pass@h:1/x?a=one&b", &mut of_url);
        assert_eq!(of_url, ["me:pass", "pass", "one", "b"]);
    }
}

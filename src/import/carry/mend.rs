//! What our loader refuses is left out, so that one key does not keep the others from coming along.

use super::super::Fate;
use super::Carry;
use crate::config::{Config, ConfigError, ConfigErrors, Source};

/// Each round leaves out at least one key.
const ROUNDS_MAX: usize = 100;
const OPENS: &str = "it would open what a key that is left out decided about";

impl Carry<'_> {
    /// The file as our loader accepts it.
    ///
    /// # Errors
    /// What is left when leaving out helps no more.
    pub(in crate::import) fn accepted(&mut self, head: &str) -> Result<String, ConfigErrors> {
        let mut rounds = 0;
        loop {
            let toml = format!("{head}{}", self.output.render());
            let source = Source {
                name: "output",
                text: &toml,
            };
            let Err(errors) = Config::load(&[source], &[]) else {
                return Ok(toml);
            };
            // All of them speak of the file as it was written.
            let refused: Vec<(Vec<String>, String)> = errors
                .0
                .iter()
                .map(|error| {
                    let keys = keys_of(error);
                    let keys = keys.iter().map(|key| self.output.written_at(key));
                    (keys.collect(), why(error))
                })
                .collect();
            let mut is_less = false;
            for (keys, why) in refused {
                is_less |= keys.iter().any(|key| self.leave_out(key, &why));
            }
            rounds += 1;
            if !is_less || rounds > ROUNDS_MAX {
                return Err(errors);
            }
        }
    }

    /// Leaves out a key, or the member of a list that is nothing without it.
    fn leave_out(&mut self, path: &str, why: &str) -> bool {
        let mut at = Some(path);
        while let Some(path) = at {
            if self.output.leave_out(path, why) {
                self.refused(path, why);
                for path in opened_by(path) {
                    if self.output.leave_out(&path, OPENS) {
                        self.refused(&path, OPENS);
                    }
                }
                return true;
            }
            at = above(path);
        }
        false
    }

    /// Tells every key of the input that is behind a key of ours, or below it.
    fn refused(&mut self, path: &str, why: &str) {
        let is_within = |ours: &str| {
            ours.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        for (ours, from) in &self.origins {
            if !is_within(ours) {
                continue;
            }
            let behind = self.entries.iter_mut().filter(|entry| entry.path == *from);
            for entry in behind {
                entry.fate = Fate::Refused(why.to_owned());
            }
        }
    }
}

/// What an error is about: one of these keys is the one to leave out.
fn keys_of(error: &ConfigError) -> Vec<String> {
    let mut keys: Vec<String> = error.key().map(str::to_owned).into_iter().collect();
    match error {
        ConfigError::PongNotBelowPing { .. } => keys.push("client.ping_interval".to_owned()),
        ConfigError::SameMark { other, .. } => keys.push(other.clone()),
        _ => {}
    }
    keys
}

/// What is wrong, without the place in a file that nobody sees.
fn why(error: &ConfigError) -> String {
    let text = error.to_string();
    let place = format!("{}: ", error.origin());
    text.strip_prefix(&place).unwrap_or(&text).to_owned()
}

/// What a key is a part of: a value with members, or a member of a list of tables.
fn above(path: &str) -> Option<&str> {
    if path.ends_with(']') {
        return path.rfind('[').map(|at| &path[..at]);
    }
    if let Some(at) = path.rfind(".static_headers.") {
        return Some(&path[..at + ".static_headers".len()]);
    }
    path.rfind("].").map(|at| &path[..=at])
}

/// Keys that let in what a key kept out.
fn opened_by(path: &str) -> Vec<String> {
    const SUBSCRIBE: [&str; 2] = [
        "allow_subscribe_for_client",
        "allow_subscribe_for_anonymous",
    ];
    const PUBLISH: [&str; 3] = [
        "allow_publish_for_client",
        "allow_publish_for_subscriber",
        "allow_publish_for_anonymous",
    ];
    const KEYS: [&str; 5] = [
        "hmac_secret_key",
        "hmac_previous_secret_key",
        "rsa_public_key",
        "ecdsa_public_key",
        "jwks_public_endpoint",
    ];
    let (table, leaf) = path.rsplit_once('.').unwrap_or(("", path));
    let names: Vec<&str> = match (table, leaf) {
        ("client.proxy.connect", "enabled" | "endpoint") => {
            return vec!["client.allow_anonymous_connect_without_token".to_owned()];
        }
        (_, "subscribe_proxy_enabled" | "subscribe_proxy_name") => SUBSCRIBE.to_vec(),
        (_, "publish_proxy_enabled" | "publish_proxy_name") => PUBLISH.to_vec(),
        (_, "channel_regex") => [&SUBSCRIBE[..], &PUBLISH[..]].concat(),
        (_, "audience" | "audience_regex" | "issuer" | "issuer_regex") => KEYS.to_vec(),
        _ => Vec::new(),
    };
    names.iter().map(|name| format!("{table}.{name}")).collect()
}

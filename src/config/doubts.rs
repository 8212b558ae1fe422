//! What can work and is probably not meant.

use super::Config;
use super::durable::{Engine, Expired};
use crate::model::TenantId;

/// What is told of a key that ends within this time: a week.
const SOON_S: u64 = 7 * 86_400;

impl Config {
    /// One sentence each, without any value.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let (token, subscription) = (&self.client.token, &self.client.subscription_token);
        let separate =
            (subscription != token).then_some(("client.subscription_token", subscription));
        let tokens = std::iter::once(("client.token", token)).chain(separate);
        let secrets = tokens.flat_map(|(path, token)| {
            [
                (path, "hmac_secret_key", &token.hmac_secret_key),
                (
                    path,
                    "hmac_previous_secret_key",
                    &token.hmac_previous_secret_key,
                ),
            ]
        });
        let mut doubts: Vec<String> = secrets
            .filter(|(_, _, secret)| secret.0.ends_with(['\n', '\r']))
            .map(|(path, key, _)| {
                format!("{path}.{key} ends with a line break, which counts: tokens must be signed with it too")
            })
            .collect();
        let stale = self.client.stale_close_delay;
        if self
            .connect_hook(TenantId::NONE)
            .is_some_and(|connect| connect.timeout >= stale)
        {
            doubts.push(
                "client.proxy.connect.timeout is not below client.stale_close_delay: a connection whose backend takes so long is closed (3502) before it has answered".to_owned(),
            );
        }
        let channels = &self.channels;
        let all = std::iter::once(&channels.without_namespace).chain(&channels.namespaces);
        let is_nats = self.durable.engine == Engine::Nats;
        let wants = all.filter(|one| one.is_durable() && one.kept.expired == Expired::DeadLetter);
        doubts.extend(wants.filter(|_| is_nats).map(|one| {
            format!(
                "channel namespace `{}`: on JetStream expired = \"dead_letter\" keeps what ends by its own ttl_ms only: what durable.retention_age, durable.retention_bytes or history_remove take is gone before it could become a letter, and is counted as lost",
                one.name
            )
        }));
        doubts
    }

    /// Keys that end soon or have ended, one sentence each, without the key.
    #[must_use]
    pub fn ending_keys(&self, now_unix_s: u64) -> Vec<String> {
        let lists = [
            ("http_api.keys", &self.http_api.keys),
            ("admin.keys", &self.admin.keys),
        ];
        let all = lists
            .into_iter()
            .flat_map(|(list, keys)| keys.iter().map(move |key| (list, key)));
        all.filter(|(_, key)| key.has_expired(now_unix_s + SOON_S))
            .map(|(list, key)| {
                let name = &key.name;
                if key.has_expired(now_unix_s) {
                    return format!("{list}: the key `{name}` has expired and is refused: take it out");
                }
                let hours = (key.expires - now_unix_s) / 3600;
                format!("{list}: the key `{name}` expires in {hours} hours: give its service another one before")
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Secret, Source};
    use super::*;

    #[test]
    fn a_backend_that_may_take_longer_than_its_client_is_waited_for_is_doubted() {
        let mut config = Config::built_in();
        let connect = std::sync::Arc::make_mut(&mut config.hooks.connect);
        connect.endpoint = "http://127.0.0.1:3000/connect".to_owned();
        connect.timeout = config.client.stale_close_delay;
        assert_eq!(config.doubts(), Vec::<String>::new(), "it is not asked");
        config.hooks.connect_enabled = true;
        let doubts = config.doubts();
        assert_eq!(doubts.len(), 1, "{doubts:?}");
        assert!(doubts[0].starts_with("client.proxy.connect.timeout"));
    }

    #[test]
    fn letters_that_jetstream_cannot_keep_are_told_of() {
        let load = |engine: &str| {
            let text = format!(
                "[durable]\nengine = \"{engine}\"\n[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\nexpired = \"dead_letter\"\n"
            );
            let name = "ringmain.toml";
            Config::load(&[Source { name, text: &text }], &[]).expect("a configuration")
        };
        assert_eq!(load("embedded").doubts(), Vec::<String>::new());
        let doubts = load("nats").doubts();
        assert_eq!(doubts.len(), 1, "{doubts:?}");
        assert!(doubts[0].contains("`orders`") && doubts[0].contains("history_remove"));
    }

    #[test]
    fn a_key_is_told_of_a_week_before_its_end_by_its_name_alone() {
        let text = "[[http_api.keys]]\nname = \"orders\"\nkey = \"hunter2\"\nexpires = \"1970-01-12T13:46:40Z\"\n";
        let name = "ringmain.toml";
        let config = Config::load(&[Source { name, text }], &[]).expect("a configuration");
        assert_eq!(
            config.ending_keys(1_000_000 - SOON_S - 1),
            Vec::<String>::new()
        );
        for (now, words) in [(1_000_000 - 7200, "in 2 hours"), (1_000_000, "has expired")] {
            let told = config.ending_keys(now);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(
                told[0].contains("`orders`") && told[0].contains(words),
                "{told:?}"
            );
            assert!(!told[0].contains("hunter2"));
        }
    }

    #[test]
    fn secret_that_ends_with_a_line_break_is_doubted_and_not_shown() {
        let mut config = Config::built_in();
        assert_eq!(config.doubts(), Vec::<String>::new());
        config.client.token.hmac_secret_key = Secret("hunter2\n".to_owned());
        config.client.subscription_token = config.client.token.clone();
        let doubts = config.doubts();
        assert_eq!(doubts.len(), 1, "{doubts:?}");
        assert!(doubts[0].starts_with("client.token.hmac_secret_key ends with a line break"));
        assert!(!doubts[0].contains("hunter2"));
    }
}

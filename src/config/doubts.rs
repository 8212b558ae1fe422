//! What can work and is probably not meant.

use super::Config;

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
            .hooks
            .of_connect()
            .is_some_and(|connect| connect.timeout >= stale)
        {
            doubts.push(
                "client.proxy.connect.timeout is not below client.stale_close_delay: a connection whose backend takes so long is closed (3502) before it has answered".to_owned(),
            );
        }
        doubts
    }
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
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

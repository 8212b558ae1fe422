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
        secrets
            .filter(|(_, _, secret)| secret.0.ends_with(['\n', '\r']))
            .map(|(path, key, _)| {
                format!("{path}.{key} ends with a line break, which counts: tokens must be signed with it too")
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::*;

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

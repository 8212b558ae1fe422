//! Options of channels that depend on one another, and patterns of their names.

use ringmain::config::{Config, ConfigError, Source};

fn load(text: &str) -> Result<Config, Vec<ConfigError>> {
    let source = Source {
        name: "ringmain.toml",
        text,
    };
    Config::load(&[source], &[]).map_err(|errors| errors.0)
}

/// The one error of a text.
fn error(text: &str) -> ConfigError {
    let mut errors = load(text).expect_err(text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn latest_publication_for_everybody_needs_recovery_in_that_mode() {
    let with = |lines: &str| {
        format!(
            "[[channel.namespaces]]\nname = \"chat\"\nhistory_size = 1\nhistory_ttl = \"60s\"\n{lines}"
        )
    };
    let all = "auto_cache_recover = true\nforce_recovery = true\nforce_recovery_mode = \"cache\"";
    assert!(load(&with(all)).is_ok());
    for missing in ["force_recovery = true\n", "force_recovery_mode = \"cache\""] {
        let text = with(&all.replace(missing, ""));
        let error = error(&text);
        assert!(
            matches!(error, ConfigError::CacheWithoutRecovery { .. }),
            "{error}"
        );
        assert_eq!(
            error.key(),
            Some("channel.namespaces[0].auto_cache_recover")
        );
    }
}

#[test]
fn pattern_of_names_must_compile() {
    let with = |pattern: &str| {
        format!("[[channel.namespaces]]\nname = \"chat\"\nchannel_regex = '{pattern}'")
    };
    let config = load(&with("^[a-z]+$")).expect("a pattern");
    assert!(
        config
            .channels
            .fits(&config.channels.namespaces[0], "chat:a")
    );
    assert!(
        !config
            .channels
            .fits(&config.channels.namespaces[0], "chat:A")
    );
    for pattern in ["(", "a{100000}{100000}"] {
        let error = error(&with(pattern));
        assert_eq!(error.key(), Some("channel.namespaces[0].channel_regex"));
    }
}

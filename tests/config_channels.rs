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
#[test]
fn publications_wait_for_each_other_only_with_a_delay() {
    for option in ["batch_max_size = 10", "batch_flush_latest = true"] {
        let text = format!("[channel.without_namespace]\n{option}");
        let wrong = error(&text);
        assert!(
            matches!(wrong, ConfigError::BatchWithoutDelay { .. }),
            "{wrong}"
        );
        let delay = format!("{text}\nbatch_max_delay = \"10ms\"");
        let config = load(&delay).expect("it waits");
        let delay = config.channels.without_namespace.batch_max_delay;
        assert_eq!(delay, std::time::Duration::from_millis(10));
    }
    let long = error("[channel.without_namespace]\nbatch_max_delay = \"11s\"");
    assert!(long.to_string().contains("batch_max_delay"), "{long}");
}

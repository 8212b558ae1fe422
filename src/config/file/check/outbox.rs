//! What a namespace says about slow subscribers, where one key alone cannot tell.

use super::super::super::Config;
use super::super::super::namespace::{Namespace, SlowConsumer};
use super::super::ConfigError;
use super::super::reader::Keys;
use super::{all_namespaces, refused};

/// Adds everything that does not fit together.
pub(super) fn check(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    for (path, one) in all_namespaces(config) {
        namespace(&path, one, config.poll.enabled, keys, errors);
    }
}

fn namespace(
    path: &str,
    one: &Namespace,
    has_poll: bool,
    keys: &Keys,
    errors: &mut Vec<ConfigError>,
) {
    let mut wrong = |name: &str, needs| {
        let key = format!("{path}.{name}");
        if !refused(errors, &[&key]) {
            errors.push(ConfigError::SlowConsumer {
                origin: keys.origin(&key),
                key,
                needs,
            });
        }
    };
    let conflates = one.slow_consumer == SlowConsumer::Conflate;
    if conflates && one.conflate_key.is_none() {
        wrong("conflate_key", "a key, as `slow_consumer = \"conflate\"`");
    } else if !conflates && one.conflate_key.is_some() {
        wrong("conflate_key", "`slow_consumer = \"conflate\"`");
    }
    if one.slow_consumer == SlowConsumer::Degrade {
        if !has_poll {
            let needs = "`poll.enabled = true`, so that slow clients can poll";
            wrong("slow_consumer", needs);
        } else if !one.keeps_history() {
            let needs = "`history_size` and `history_ttl` under `degrade`: polls read from history";
            wrong("slow_consumer", needs);
        } else if !(one.is_durable() || one.allow_recovery || one.force_recovery) {
            let needs = "`allow_recovery = true` under `degrade`: polls go on from a position";
            wrong("slow_consumer", needs);
        }
    }
}

//! What a namespace says about durable publications, where one key alone cannot tell.

use std::time::Duration;

use super::super::super::durable::{Durable, Engine, Expired, Join, Kept, Push, Trigger};
use super::super::super::namespace::Namespace;
use super::super::super::{ChannelRules, Config};
use super::super::reader::Keys;
use super::super::{ConfigError, ValueOrigin};
use super::all_namespaces;
use crate::limits::{
    GROUP_CHANNEL_BYTES_MAX, GROUP_CHANNELS_MAX, NAMESPACE_BYTES_MIN, PICKED_TAGS_MAX, PUSHES_MAX,
};
use crate::wire::condition::Condition;

/// Adds everything that does not fit together.
pub(super) fn check(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let hook = &config.queue.dead_letter_hook;
    if !hook.is_empty() && !has_hook(config, hook) {
        unknown_hook("queue.dead_letter_hook".to_owned(), hook, keys, errors);
    }
    pushes(config, keys, errors);
    for (path, one) in all_namespaces(config) {
        namespace(&path, one, config, keys, errors);
    }
}

fn pushes(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let mut rules = config.channels.clone();
    rules.namespaces.sort_by(|a, b| a.name.cmp(&b.name));
    let pushes = &config.queue.push;
    let mut wrong = |key: String, needs: &'static str| {
        errors.push(ConfigError::Durable {
            origin: keys.origin(&key),
            key,
            needs,
        });
    };
    if pushes.len() > PUSHES_MAX {
        wrong("queue.push".to_owned(), "at most 256 rules");
    }
    for (index, push) in pushes.iter().enumerate() {
        let key = |name: &str| format!("queue.push[{index}].{name}");
        if push.group.is_empty() {
            wrong(key("group"), "the name of a group");
        } else if pushes[..index].iter().any(|one| one.group == push.group) {
            wrong(key("group"), "a group that has no other rule");
        }
        let channels = &push.channels;
        let fits = |one: &String| (1..=GROUP_CHANNEL_BYTES_MAX).contains(&one.len());
        if channels.is_empty() || channels.len() > GROUP_CHANNELS_MAX {
            wrong(key("channels"), "1 to 64 names or patterns of channels");
        } else if !channels.iter().all(fits) {
            wrong(key("channels"), "names or patterns of 1 to 255 bytes");
        } else if !channels.iter().all(|one| rules.reaches_durable(one)) {
            wrong(
                key("channels"),
                "channels of a namespace with `delivery = \"durable\"`, each of them",
            );
        }
        if push.tags.len() > PICKED_TAGS_MAX {
            wrong(key("tags"), "at most 16 tags");
        }
        if push.lanes_weights.len() != 4 {
            let needs = "four weights of 1 to 100, the least urgent lane first";
            wrong(key("lanes.weights"), needs);
        } else if push.lanes_by.is_empty() && push.lanes_weights != Push::default().lanes_weights {
            wrong(
                key("lanes.by"),
                "where a number from 0 to 3 stands, as `lanes.weights` is set",
            );
        }
        if push.key.is_empty() && (push.key_concurrency > 0 || push.key_rate > 0) {
            wrong(
                key("key"),
                "a key, as `key_concurrency` or `key_rate` is set",
            );
        }
    }
    for (index, push) in pushes.iter().enumerate() {
        if !push.condition.is_empty()
            && let Err(fault) = Condition::parse(&push.condition)
        {
            let key = format!("queue.push[{index}].condition");
            errors.push(ConfigError::Condition {
                origin: keys.origin(&key),
                key,
                fault,
            });
        }
        if !has_hook(config, &push.target) {
            let key = format!("queue.push[{index}].target");
            unknown_hook(key, &push.target, keys, errors);
        }
    }
}

fn namespace(
    path: &str,
    namespace: &Namespace,
    config: &Config,
    keys: &Keys,
    errors: &mut Vec<ConfigError>,
) {
    let mut unreadable = Vec::new();
    let mut wrong = |key: String, needs: &'static str| {
        if errors.iter().any(|error| error.key() == Some(&*key)) {
            // What was written there was refused.
            return;
        }
        errors.push(ConfigError::Durable {
            origin: keys.origin(&key),
            key,
            needs,
        });
    };
    if namespace.is_durable() {
        if namespace.history_size == 0 {
            wrong(
                format!("{path}.history_size"),
                "more than 0 in a durable namespace: it says how much of it stays in memory",
            );
        }
    } else if namespace.kept != Kept::default() {
        let key = match namespace.kept {
            Kept { age, .. } if !age.is_zero() => "retention_age",
            Kept { bytes, .. } if bytes > 0 => "retention_bytes",
            Kept { count, .. } if count > 0 => "retention_count",
            Kept { .. } => "expired",
        };
        wrong(format!("{path}.{key}"), "`delivery = \"durable\"`");
    } else if !namespace.compact_by.is_empty() {
        wrong(format!("{path}.compact_by"), "`delivery = \"durable\"`");
    } else if !namespace.schema.accepted.is_empty() || namespace.schema.required {
        wrong(format!("{path}.schema"), "`delivery = \"durable\"`");
    } else if !namespace.triggers.is_empty() {
        wrong(format!("{path}.triggers"), "`delivery = \"durable\"`");
    }
    if namespace.is_durable() {
        let has_subjects = !namespace.name.is_empty() && config.channels.namespace_boundary == ":";
        if !namespace.compact_by.is_empty() && config.durable.engine != Engine::Embedded {
            wrong(
                format!("{path}.compact_by"),
                "`durable.engine = \"embedded\"`: JetStream keeps the latest of a subject only, which is a whole channel",
            );
        }
        kept(
            path,
            namespace.kept,
            (&config.durable, has_subjects),
            &mut wrong,
        );
    }
    for (index, version) in namespace.schema.accepted.iter().enumerate() {
        let versions = &namespace.schema.accepted[..index];
        let is_again = versions.iter().any(|one| one.version == version.version);
        let key = format!("{path}.schema.versions[{index}].version");
        if version.version == 0 {
            wrong(key, "a number from 1");
        } else if is_again {
            wrong(key, "a version that stands here once");
        }
    }
    for (index, trigger) in namespace.triggers.iter().enumerate() {
        let path = format!("{path}.triggers[{index}]");
        let before = &namespace.triggers[..index];
        if trigger.name.is_empty() {
            wrong(format!("{path}.name"), "a name");
        } else if before.iter().any(|one| one.name == trigger.name) {
            wrong(format!("{path}.name"), "a name of its own in its namespace");
        }
        if !trigger.condition.is_empty()
            && let Err(fault) = Condition::parse(&trigger.condition)
        {
            unreadable.push((format!("{path}.condition"), fault));
        }
        if !trigger.delay.is_zero() && trigger.append.is_empty() {
            wrong(
                format!("{path}.delay"),
                "`append`: what is appended can wait, a hook is called at once",
            );
        }
        if !trigger.ttl.is_zero() && trigger.append.is_empty() {
            wrong(
                format!("{path}.ttl"),
                "`append`: what is appended can end, a hook is called once",
            );
        }
        if trigger.join != Join::default() {
            let kept = match namespace.kept.age {
                age if age.is_zero() => config.durable.retention_age,
                age => age.min(config.durable.retention_age),
            };
            join(&path, trigger, kept, &mut wrong);
        }
        if trigger.append.is_empty() == trigger.hook.is_empty() {
            wrong(
                format!("{path}.append"),
                "exactly one of `append` and `hook`",
            );
        } else if !trigger.append.is_empty() && !is_durable(&config.channels, &trigger.append) {
            wrong(
                format!("{path}.append"),
                "a channel of a namespace with `delivery = \"durable\"`",
            );
        }
    }
    for (key, fault) in unreadable {
        errors.push(ConfigError::Condition {
            origin: keys.origin(&key),
            key,
            fault,
        });
    }
    for (index, trigger) in namespace.triggers.iter().enumerate() {
        if !trigger.hook.is_empty() && !has_hook(config, &trigger.hook) {
            let key = format!("{path}.triggers[{index}].hook");
            unknown_hook(key, &trigger.hook, keys, errors);
        }
    }
}

/// What a trigger joins can come to an end.
fn join(
    path: &str,
    trigger: &Trigger,
    kept: Duration,
    wrong: &mut impl FnMut(String, &'static str),
) {
    let key = |name: &str| format!("{path}.join.{name}");
    let Join {
        by,
        count,
        expected,
        within,
    } = &trigger.join;
    if by.is_empty() {
        wrong(
            key("by"),
            "what the parts have in common: the name of a tag, `data:PATH`, `channel` or `user`",
        );
    }
    match (count, expected.as_str()) {
        (0, "") => wrong(
            key("count"),
            "how many parts belong together, or `expected`, where one of them says it",
        ),
        (1, "") => wrong(key("count"), "2 or more: one publication is not joined"),
        (0, "channel" | "user") => wrong(
            key("expected"),
            "the name of a tag, or `data:PATH`, where a number stands",
        ),
        (0, _) | (_, "") => {}
        _ => wrong(key("expected"), "only one of `count` and `expected`"),
    }
    if within.is_zero() {
        wrong(
            key("within"),
            "a time from 1s on, after which a join that is not complete becomes dead letters",
        );
    } else if *within > kept {
        wrong(
            key("within"),
            "a time that is not longer than publications are kept (`retention_age`)",
        );
    }
    if trigger.append.is_empty() {
        wrong(
            format!("{path}.append"),
            "a channel for what is joined: a hook is called by a trigger of that channel",
        );
    }
}

/// What a namespace keeps is a part of what the log keeps.
fn kept(
    path: &str,
    kept: Kept,
    (log, has_subjects): (&Durable, bool),
    wrong: &mut impl FnMut(String, &'static str),
) {
    let key = |option: &str| format!("{path}.{option}");
    if kept.age > log.retention_age {
        wrong(
            key("retention_age"),
            "a time that is not longer than `durable.retention_age`, after which the whole log forgets",
        );
    }
    if log.retention_bytes > 0 && kept.bytes > log.retention_bytes {
        wrong(
            key("retention_bytes"),
            "a number that is not greater than `durable.retention_bytes`, of the whole log",
        );
    } else if kept.bytes > 0 && kept.bytes < NAMESPACE_BYTES_MIN {
        wrong(
            key("retention_bytes"),
            "1048576 (1 MiB) or more, or 0 for what the whole log keeps",
        );
    }
    if kept.is_less() && log.engine != Engine::Embedded {
        if kept.bytes > 0 {
            wrong(
                key("retention_bytes"),
                "`durable.engine = \"embedded\"`: JetStream does not say how many bytes a namespace takes",
            );
        }
        if kept.expired == Expired::DeadLetter {
            wrong(
                key("expired"),
                "`drop`, or `durable.engine = \"embedded\"`: what JetStream purges is not there any more to be made a letter",
            );
        }
        if !has_subjects {
            let option = if kept.count > 0 {
                "retention_count"
            } else {
                "retention_age"
            };
            wrong(
                key(option),
                "a namespace with a name and `channel.namespace_boundary = \":\"`, or `durable.engine = \"embedded\"`: JetStream purges by subjects",
            );
        }
    }
}

/// The namespaces are still in the order of the file.
pub(super) fn is_durable(rules: &ChannelRules, channel: &str) -> bool {
    let Some((name, _)) = channel.split_once(rules.namespace_boundary.as_str()) else {
        return rules.without_namespace.is_durable();
    };
    let mut namespaces = rules.namespaces.iter();
    namespaces.any(|namespace| namespace.name == name && namespace.is_durable())
}

fn has_hook(config: &Config, name: &str) -> bool {
    let mut targets = config.hooks.targets();
    targets.any(|target| target.name == name && target.is_set())
}

fn unknown_hook(key: String, name: &str, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let origin: ValueOrigin = keys.origin(&key);
    errors.push(ConfigError::UnknownTarget {
        origin,
        key,
        missing: format!("endpoint of `{name}` under [[proxies]]"),
    });
}

//! From text to a checked configuration, and back.
//!
//! `tree` reads TOML into values that remember where they stand; `schema` names every key once and is walked by two
//! visitors, `form` says how values are written: `reader` lowers a tree into a `Config`, `writer` lists a `Config` as keys and text, `outline` lists which keys there are; `check` looks at
//! what one key alone cannot tell.

mod check;
mod duration;
mod error;
mod form;
mod hooks;
mod outline;
mod reader;
mod schema;
mod secrets;
mod tree;
mod visit;
mod web_origin;
mod writer;
mod written;

pub use error::{ConfigError, ConfigErrors, ReloadRefused, ValueOrigin};
pub use outline::{FileKey, KeyKind, keys, parse_duration, show_duration};
pub use web_origin::unmatched_origin;
pub use writer::{shown_tenants, shown_url};
pub use written::{AddedTenant, TextFile, Written};

use super::{ChannelRules, Config};
use tree::TreeTable;

/// Start of the environment variables that set a key.
const ENVIRONMENT_PREFIX: &str = "RINGMAIN__";
/// What separates the parts of a key in an environment variable.
const ENVIRONMENT_SEPARATOR: &str = "__";
/// Keys, or starts of keys, that are read once, at start.
const FIXED_AT_START: &[&str] = &[
    "server.",
    "admin.listen",
    "admin.unix_",
    "log.format",
    "durable.",
];

/// Keys among them that a reload changes all the same.
const FOLLOWED: &[&str] = &[
    "server.accept_rate",
    "server.handshakes_max",
    "server.tenants_directory",
    "durable.nats.user",
    "durable.nats.password",
    "durable.nats.token",
    "durable.nats.credentials",
];

/// Is the key, a whole one or the path of a table, read at the start only? A reload that changes it is refused.
#[must_use]
pub fn is_fixed_at_start(key: &str) -> bool {
    FIXED_AT_START.iter().any(|start| key.starts_with(start)) && !FOLLOWED.contains(&key)
}

/// One configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name, for errors.
    pub name: &'a str,
    /// Its text: TOML.
    pub text: &'a str,
}

/// One key set from outside the files: an environment variable or a command-line option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What the operator wrote the value into, for errors: `RINGMAIN__SERVER__SHARDS`, `--shards`.
    pub origin: String,
    /// The key, with dots: `server.shards`.
    pub key: String,
    /// The value. Booleans, numbers and strings are written bare; a list as `a,b`, `a b` or as TOML or JSON; a table, or a
    /// list of tables, as TOML or JSON.
    pub text: String,
}

impl Setting {
    /// The settings among environment variables, in the order of their names. `RINGMAIN__CLIENT__TOKEN__ISSUER` sets
    /// `client.token.issuer`; variables without the prefix are none of ours.
    #[must_use]
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Vec<Self> {
        let mut settings: Vec<Self> = variables
            .into_iter()
            .filter_map(|(name, text)| {
                let key = name.strip_prefix(ENVIRONMENT_PREFIX)?;
                let key = key.replace(ENVIRONMENT_SEPARATOR, ".").to_ascii_lowercase();
                Some(Self {
                    origin: name,
                    key,
                    text,
                })
            })
            .collect();
        settings.sort_by(|a, b| a.origin.cmp(&b.origin));
        settings
    }
}

impl Config {
    /// Reads files, the later over the earlier, then settings over the files. Lists are replaced as a whole.
    ///
    /// # Errors
    /// Everything that is wrong with the text, in the order of the lines.
    pub fn load(sources: &[Source<'_>], settings: &[Setting]) -> Result<Self, ConfigErrors> {
        Self::of_tree(written::tree_of(sources, settings)?)
    }

    fn of_tree(tree: TreeTable) -> Result<Self, ConfigErrors> {
        let (mut config, keys, mut errors) = reader::read(tree);
        check::check(&config, &keys, &mut errors);
        if errors.is_empty() {
            config
                .channels
                .namespaces
                .sort_by(|a, b| a.name.cmp(&b.name));
            let Self {
                channels,
                channel_sets,
                tenants,
                ..
            } = &mut config;
            tenants.seal(channels, channel_sets);
            Ok(config)
        } else {
            errors.sort_by(|a, b| a.origin().cmp(b.origin()));
            Err(ConfigErrors(errors))
        }
    }

    /// The whole configuration as TOML that `load` accepts, with every secret that is set shown as `***`.
    #[must_use]
    pub fn effective(&self) -> String {
        writer::toml(self)
    }

    /// Every text that `effective` hides, for whoever has to take them out of other texts.
    #[must_use]
    pub fn secret_texts(&self) -> Vec<String> {
        secrets::texts(self)
    }

    /// May a running process take over `new`?
    ///
    /// # Errors
    /// Names every key that differs and is read only at start; then nothing of `new` may be applied.
    pub fn reload_from(&self, new_config: &Self) -> Result<(), ReloadRefused> {
        let fixed = |config: &Self| {
            let mut lines = writer::lines(config, writer::SecretsWritten::Plain);
            lines.retain(|line| is_fixed_at_start(&line.key));
            lines
        };
        let (old, new) = (fixed(self), fixed(new_config));
        assert_eq!(
            old.len(),
            new.len(),
            "no key that is read only at start is optional"
        );
        let differs = old
            .iter()
            .zip(&new)
            .filter(|(old, new)| old.text != new.text);
        let mut keys: Vec<String> = differs.map(|(old, _)| old.key.clone()).collect();
        let has_log = self.is_durable();
        let changed = |before: &ChannelRules, after| before.deliveries_changed(after, has_log);
        let of_all = changed(&self.channels, &new_config.channels);
        keys.extend(of_all.into_iter().map(|key| format!("channel.{key}")));
        let none = ChannelRules::default();
        for set in &new_config.channel_sets {
            let before = self.channel_sets.iter().find(|one| one.name == set.name);
            let before = before.map_or(&none, |set| &set.rules);
            let of_set = changed(before, &set.rules).into_iter();
            keys.extend(of_set.map(|key| format!("channel_sets ({}).{key}", set.name)));
        }
        if keys.is_empty() {
            Ok(())
        } else {
            Err(ReloadRefused { keys })
        }
    }
}

//! Where the configuration comes from: a file, the environment, the command line, or nothing at all.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ringmain::config::{Config, Setting, Source};
use ringmain::control::first_run::{self, Secrets, SecretsError};

/// Looked for when nobody names a file.
const CONFIG_FILE: &str = "ringmain.toml";

/// Keys set by the environment. A variable that is not Unicode cannot be one of ours.
pub(crate) fn environment() -> Vec<Setting> {
    Setting::from_environment(variables())
}

pub(crate) fn variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Where the configuration comes from; read at the start and again on SIGHUP.
pub(crate) struct Sources {
    file: Option<PathBuf>,
    /// Options of the command line.
    options: Vec<Setting>,
}

impl Sources {
    pub(crate) fn new(path: Option<PathBuf>, options: Vec<Setting>) -> Self {
        let file = path.or_else(|| {
            Path::new(CONFIG_FILE)
                .exists()
                .then(|| PathBuf::from(CONFIG_FILE))
        });
        Self { file, options }
    }

    /// The configuration for a command that asks a running server.
    pub(crate) fn configuration(&self, address: &Option<String>) -> anyhow::Result<Config> {
        if address.is_none() {
            return Ok(self.read()?.0);
        }
        // Only its key may be wanted, and the server that is asked need not be the one that this directory configures.
        match self.read_if_there() {
            Some(config) => Ok(config),
            None => Ok(Config::load(&[], &[])?),
        }
    }

    /// The configuration, if there is one that can be read. Makes nothing.
    pub(crate) fn read_if_there(&self) -> Option<Config> {
        let is_there =
            self.file.is_some() || first_run::is_there(Path::new(first_run::DATA_DIRECTORY));
        is_there
            .then(|| self.read().ok())?
            .map(|(config, _)| config)
    }

    /// What was read, for people.
    pub(crate) fn name(&self) -> String {
        let file = self.file.as_ref().map(|path| path.display().to_string());
        let variables = match environment().len() {
            0 => None,
            1 => Some("1 variable of the environment".to_owned()),
            count => Some(format!("{count} variables of the environment")),
        };
        match (file, variables) {
            (Some(file), None) => file,
            (Some(file), Some(variables)) => format!("{file} and {variables}"),
            (None, Some(variables)) => variables,
            (None, None) => "the development set-up".to_owned(),
        }
    }

    /// The configuration, and the generated secrets where neither a file nor the environment says anything: who sets a
    /// key has a configuration, and gets nothing but what it says.
    pub(crate) fn read(&self) -> anyhow::Result<(Config, Option<Secrets>)> {
        let mut settings = environment();
        let is_configured = !settings.is_empty();
        settings.extend(self.options.iter().cloned());
        if let Some(path) = &self.file {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
            return Ok((
                Config::load(
                    &[Source {
                        name: &name,
                        text: &text,
                    }],
                    &settings,
                )?,
                None,
            ));
        }
        if is_configured {
            return Ok((Config::load(&[], &settings)?, None));
        }
        let bare = Config::load(&[], &settings)?;
        if let Some(address) = first_run::exposed(&bare) {
            return Err(SecretsError::Exposed(address.clone()).into());
        }
        let secrets = Secrets::open(Path::new(first_run::DATA_DIRECTORY))?;
        // The page's own origins follow from where it will be served.
        let listen: Vec<String> = bare.server.listen.iter().map(ToString::to_string).collect();
        let text = first_run::configuration(&secrets, &listen);
        let config = Config::load(
            &[Source {
                name: "development set-up",
                text: &text,
            }],
            &settings,
        )?;
        Ok((config, Some(secrets)))
    }
}

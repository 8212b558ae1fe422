//! Where the configuration comes from: a file, the environment, the command line, or nothing at all.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ringmain::config::{Config, Setting, TextFile, Written};
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
        let (written, secrets) = self.written()?;
        Ok((written.load(&[])?, secrets))
    }

    /// The same as text.
    pub(crate) fn written(&self) -> anyhow::Result<(Written, Option<Secrets>)> {
        let (mut written, secrets) = self.without_tenants()?;
        if let Some(directory) = written.tenants_directory()? {
            let name = || format!("server.tenants_directory: {}", directory.display());
            written.tenants = tenant_files(&directory).with_context(name)?;
        }
        Ok((written, secrets))
    }

    fn without_tenants(&self) -> anyhow::Result<(Written, Option<Secrets>)> {
        let mut settings = environment();
        let is_configured = !settings.is_empty();
        settings.extend(self.options.iter().cloned());
        if let Some(path) = &self.file {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
            let files = vec![TextFile { name, text }];
            return Ok((of(files, settings), None));
        }
        if is_configured {
            return Ok((of(Vec::new(), settings), None));
        }
        let bare = Config::load(&[], &settings)?;
        if let Some(address) = first_run::exposed(&bare) {
            return Err(SecretsError::Exposed(address.clone()).into());
        }
        let secrets = Secrets::open(Path::new(first_run::DATA_DIRECTORY))?;
        // The page's own origins follow from where it will be served.
        let listen: Vec<String> = bare.server.listen.iter().map(ToString::to_string).collect();
        let text = first_run::configuration(&secrets, &listen);
        let name = "development set-up".to_owned();
        let files = vec![TextFile { name, text }];
        Ok((of(files, settings), Some(secrets)))
    }
}

fn of(files: Vec<TextFile>, settings: Vec<Setting>) -> Written {
    Written {
        files,
        settings,
        tenants: Vec::new(),
    }
}

/// The files of tenants of a directory, by name. Hidden ones are not meant: editors keep what is half written in those.
fn tenant_files(directory: &Path) -> anyhow::Result<Vec<TextFile>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|ending| ending == "toml") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    let read = |path: PathBuf| {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(|| name.clone())?;
        Ok(TextFile { name, text })
    };
    paths.into_iter().map(read).collect()
}

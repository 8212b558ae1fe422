//! A configuration as text: everything that it is made of, before any of it is looked at.

use std::path::PathBuf;

use super::tree::{self, TreeEntry, TreeTable, TreeValue};
use super::{ConfigError, ConfigErrors, Setting, Source, ValueOrigin, reader};
use crate::config::Config;

/// The list that tenants of their own files, and those of the API, are added to.
const TENANTS: &str = "tenants";

/// One file that was read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TextFile {
    /// Its name, for errors.
    pub name: String,
    /// Its text: TOML.
    pub text: String,
}

/// What a configuration is made of. Who runs keeps it, so that tenants of the API come and go and no file is read again for it.
/// It has no `Debug`: secrets stand in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Files, the later over the earlier.
    pub files: Vec<TextFile>,
    /// What goes over them.
    pub settings: Vec<Setting>,
    /// Files of `server.tenants_directory`: each has the keys of one of `[[tenants]]`.
    pub tenants: Vec<TextFile>,
}

/// A tenant that the API has added.
#[derive(Clone, Copy)]
pub struct AddedTenant<'a> {
    /// Its id, for errors.
    pub id: &'a str,
    /// The keys of one of `[[tenants]]`, JSON.
    pub text: &'a str,
}

impl Written {
    /// Where files of tenants are, if anywhere.
    ///
    /// # Errors
    /// The files are not TOML.
    pub fn tenants_directory(&self) -> Result<Option<PathBuf>, ConfigErrors> {
        let tree = tree_of(&sources(&self.files), &self.settings)?;
        // What is wrong with the values, `load` says.
        let (config, _, _) = reader::read(tree);
        let directory = config.server.tenants_directory;
        Ok((!directory.as_os_str().is_empty()).then_some(directory))
    }

    /// The checked configuration, with tenants that stand in none of the texts.
    ///
    /// # Errors
    /// As `Config::load`.
    pub fn load(&self, added: &[AddedTenant<'_>]) -> Result<Config, ConfigErrors> {
        let mut tree = tree_of(&sources(&self.files), &self.settings)?;
        let mut errors = Vec::new();
        for file in sources(&self.tenants) {
            match tree::parse(&file) {
                Ok(table) => {
                    let origin = ValueOrigin::File {
                        name: file.name.to_owned(),
                        line: 1,
                    };
                    let value = TreeValue::Table(table);
                    tree::push(&mut tree, TENANTS, TreeEntry { origin, value });
                }
                Err(error) => errors.push(error),
            }
        }
        for one in added {
            let origin = ValueOrigin::Added(one.id.to_owned());
            match tree::parse_json(one.text, &origin) {
                Ok(value) => tree::push(&mut tree, TENANTS, TreeEntry { origin, value }),
                Err(message) => errors.push(ConfigError::Json { origin, message }),
            }
        }
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        Config::of_tree(tree)
    }
}

fn sources(files: &[TextFile]) -> Vec<Source<'_>> {
    files
        .iter()
        .map(|file| Source {
            name: &file.name,
            text: &file.text,
        })
        .collect()
}

/// Files and settings as one.
pub(super) fn tree_of(
    sources: &[Source<'_>],
    settings: &[Setting],
) -> Result<TreeTable, ConfigErrors> {
    let mut errors = Vec::new();
    let mut merged = TreeTable::default();
    for source in sources {
        match tree::parse(source) {
            Ok(table) => tree::merge(&mut merged, table),
            Err(error) => errors.push(error),
        }
    }
    for setting in settings {
        if let Err(error) = tree::set(&mut merged, setting) {
            errors.push(error);
        }
    }
    // A file that is not TOML would make every key of it look absent.
    match errors.is_empty() {
        true => Ok(merged),
        false => Err(ConfigErrors(errors)),
    }
}

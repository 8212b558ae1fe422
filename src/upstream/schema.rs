//! Schemas of namespaces: what a payload must be before it is appended.
//!
//! A version's text may change as long as everything it accepted is still accepted (`compatible`): what is kept in the
//! log was checked by the earlier text, and whoever reads it relies on the version it names. The last text of each
//! version is remembered in the log under `schema/<namespace>/<version>`.
//!
//! References are followed within a text only, patterns are matched in linear time (no look-around), and `format`
//! is a rule in every dialect.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;
use tracing::warn;

use self::compatible::Narrowed;
use super::log::Values;
use crate::config::durable::{Schema, SchemaVersion};
use crate::config::{ChannelRules, Config, Namespace};
use crate::limits::{
    REFUSAL_BYTES_MAX, REFUSAL_PART_BYTES_MAX, REFUSAL_VALUE_BYTES_MAX, SCHEMA_BYTES_MAX,
    SCHEMA_PATTERN_BYTES_MAX,
};
use crate::mesh::durable::LogError;
use crate::model::Record;
use crate::wire::json::tree;

mod compatible;

/// Why the schemas of a configuration are not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("namespace `{namespace}`, schema version {version}: {fault}")]
pub struct SchemaError {
    /// Empty for `channel.without_namespace`.
    pub namespace: Box<str>,
    /// Of the schema.
    pub version: u32,
    /// What is wrong with it.
    pub fault: SchemaFault,
}

/// What is wrong with a version of a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaFault {
    /// The namespace has the version twice.
    #[error("the version is listed twice")]
    Repeated,
    /// Over 256 KiB.
    #[error("the text has {0} bytes, {SCHEMA_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// The text is no JSON.
    #[error("the text is not JSON: {0}")]
    NotJson(Box<str>),
    /// The text is no JSON Schema, or one that cannot be used here.
    #[error("the text is no usable JSON Schema: {reason} at `{pointer}`")]
    NotASchema {
        /// Where in the text, a JSON pointer.
        pointer: Box<str>,
        /// What the validator says.
        reason: Box<str>,
    },
    /// A reference leads out of the text, or nowhere.
    #[error(
        "a reference cannot be followed ({0}); only references within the text are followed, nothing is fetched"
    )]
    Reference(Box<str>),
    /// Not everything that was accepted is accepted still.
    #[error("{0}; keep the text of this version and add a new version")]
    Incompatible(#[from] Narrowed),
}

/// The schemas in force.
pub struct Schemas {
    /// `None` if no namespace has a schema.
    rules: Option<Box<ChannelRules>>,
    /// By namespace.
    checks: BTreeMap<String, Check>,
}

/// What is done with publications of a namespace.
enum Check {
    /// By version.
    Against {
        required: bool,
        /// Empty accepts every version. `None` accepts every payload.
        accepted: BTreeMap<u32, Option<Box<Validator>>>,
    },
    /// Nothing is let in: the reason.
    Refuse(Box<str>),
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.checks.keys()).finish()
    }
}

impl Schemas {
    /// Compiles the schemas of a configuration, and compares each text with the one that the log remembers. A namespace
    /// with a text that cannot be used, or that accepts less than it did, refuses every publication; the others are not
    /// concerned. A log that does not answer within `durable.append_timeout` changes nothing but that texts are not
    /// compared, which is told.
    pub async fn load(log: &impl Values, config: &Config) -> (Self, Vec<SchemaError>) {
        let mut memory = Memory {
            log,
            patience: config.durable.append_timeout,
            answers: true,
        };
        let mut checks = BTreeMap::new();
        let mut errors = Vec::new();
        let rules = &config.channels;
        let namespaces = std::iter::once(&rules.without_namespace)
            .chain(&rules.namespaces)
            .filter(|namespace| namespace.is_durable() && has_schema(&namespace.schema));
        for namespace in namespaces {
            let check = memory.check_of(namespace).await.unwrap_or_else(|error| {
                let reason = error.to_string().into();
                errors.push(error);
                Check::Refuse(reason)
            });
            checks.insert(namespace.name.clone(), check);
        }
        let schemas = Self {
            rules: (!checks.is_empty()).then(|| Box::new(rules.clone())),
            checks,
        };
        (schemas, errors)
    }

    /// May this publication be appended?
    ///
    /// # Errors
    /// `Refused` with the rule that it breaks, in at most 512 bytes.
    pub fn check(&self, record: &Record) -> Result<(), LogError> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        let Ok(namespace) = rules.resolve_of(&record.channel) else {
            return Ok(());
        };
        if !has_schema(&namespace.schema) {
            return Ok(());
        }
        let Some(check) = self.checks.get(&namespace.name) else {
            return Ok(());
        };
        check.run(record).map_err(|reason| {
            let name = shortened(&namespace.name, REFUSAL_PART_BYTES_MAX);
            let text = match check {
                Check::Refuse(_) => reason,
                Check::Against { .. } => format!("namespace `{name}`: {reason}"),
            };
            LogError::Refused(shortened(&text, REFUSAL_BYTES_MAX).into())
        })
    }
}

impl Check {
    fn run(&self, record: &Record) -> Result<(), String> {
        let (required, accepted) = match self {
            Self::Refuse(reason) => return Err(reason.to_string()),
            Self::Against { required, accepted } => (*required, accepted),
        };
        let version = record.schema;
        if version == 0 {
            return if required {
                let which = listed(accepted);
                Err(format!(
                    "the publication must name its schema version{which}"
                ))
            } else {
                Ok(())
            };
        }
        if accepted.is_empty() {
            return Ok(());
        }
        let Some(validator) = accepted.get(&version) else {
            let which = listed(accepted);
            return Err(format!("schema version {version} is not accepted{which}"));
        };
        let Some(validator) = validator else {
            return Ok(());
        };
        let payload = tree(&record.data).map_err(|error| {
            format!("schema version {version}: the payload cannot be checked: {error}")
        })?;
        if validator.is_valid(&payload) {
            return Ok(());
        }
        match validator.validate(&payload) {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("schema version {version}: {}", broken(&error))),
        }
    }
}

/// What the log remembers of schemas.
struct Memory<'a, L> {
    log: &'a L,
    patience: Duration,
    /// It has answered so far: a log that is down is waited for once.
    answers: bool,
}

impl<L: Values> Memory<'_, L> {
    /// Texts are remembered once all of the namespace are in order.
    async fn check_of(&mut self, namespace: &Namespace) -> Result<Check, SchemaError> {
        let mut accepted = BTreeMap::new();
        let mut changed = Vec::new();
        for version in &namespace.schema.accepted {
            let failed = |fault| SchemaError {
                namespace: namespace.name.as_str().into(),
                version: version.version,
                fault,
            };
            let text = text_of(version);
            let (parsed, validator) = compile(text).map_err(failed)?;
            if accepted.insert(version.version, validator).is_some() {
                return Err(failed(SchemaFault::Repeated));
            }
            let key = format!("schema/{}/{}", namespace.name, version.version);
            let Some(before) = self.recall(&key).await else {
                continue;
            };
            if before.as_deref() == Some(text.as_bytes()) {
                continue;
            }
            if let Some(before) = before {
                let narrowed = compare(&before, &parsed);
                narrowed.map_err(|narrowed| failed(narrowed.into()))?;
            }
            changed.push((key, text));
        }
        for (key, text) in changed {
            self.remember(&key, text).await;
        }
        Ok(Check::Against {
            required: namespace.schema.required,
            accepted,
        })
    }

    /// `None` if the log does not answer.
    async fn recall(&mut self, key: &str) -> Option<Option<Vec<u8>>> {
        if !self.answers {
            return None;
        }
        let answer = tokio::time::timeout(self.patience, self.log.get(key)).await;
        self.told(answer, "schemas are not compared with earlier texts")
    }

    async fn remember(&mut self, key: &str, text: &str) {
        if !self.answers {
            return;
        }
        let answer = self.log.put(key, Some(text.as_bytes()));
        let answer = tokio::time::timeout(self.patience, answer).await;
        self.told(answer, "the texts of schemas are not remembered");
    }

    fn told<T, E>(&mut self, answer: Result<Result<T, LogError>, E>, what: &str) -> Option<T> {
        match answer {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => warn!(%error, "{what}"),
            Err(_) => warn!("the durable log does not answer: {what}"),
        }
        self.answers = false;
        None
    }
}

fn has_schema(schema: &Schema) -> bool {
    schema.required || !schema.accepted.is_empty()
}

/// No text accepts everything, and is remembered as such: setting one later narrows.
fn text_of(version: &SchemaVersion) -> &str {
    if version.json_schema.trim().is_empty() {
        "true"
    } else {
        &version.json_schema
    }
}

/// Why the texts of a configuration's schemas cannot be used, by key: what can be said without a log.
#[must_use]
pub fn unusable(config: &Config) -> Vec<(String, SchemaFault)> {
    let rules = &config.channels;
    let named = rules.namespaces.iter().map(|namespace| {
        let key = format!("channel.namespaces ({})", namespace.name);
        (key, namespace)
    });
    let without = (
        "channel.without_namespace".to_owned(),
        &rules.without_namespace,
    );
    let mut found = Vec::new();
    for (key, namespace) in std::iter::once(without).chain(named) {
        for version in &namespace.schema.accepted {
            if let Err(fault) = compile(text_of(version)) {
                let key = format!("{key}.schema.versions ({}).json_schema", version.version);
                found.push((key, fault));
            }
        }
    }
    found
}

fn compile(text: &str) -> Result<(Value, Option<Box<Validator>>), SchemaFault> {
    if text.len() > SCHEMA_BYTES_MAX {
        return Err(SchemaFault::TooLarge(text.len()));
    }
    let parsed: Value = serde_json::from_str(text)
        .map_err(|error| SchemaFault::NotJson(error.to_string().into()))?;
    if parsed == Value::Bool(true) {
        return Ok((parsed, None));
    }
    let patterns = PatternOptions::regex()
        .size_limit(SCHEMA_PATTERN_BYTES_MAX)
        .dfa_size_limit(SCHEMA_PATTERN_BYTES_MAX);
    let validator = jsonschema::options()
        .offline()
        .should_validate_formats(true)
        .with_pattern_options(patterns)
        .build(&parsed)
        .map_err(|error| match error.kind() {
            ValidationErrorKind::Referencing(reason) => {
                SchemaFault::Reference(said(&reason).into())
            }
            _ => SchemaFault::NotASchema {
                pointer: shortened(error.instance_path().as_str(), REFUSAL_PART_BYTES_MAX).into(),
                reason: said(&error).into(),
            },
        })?;
    Ok((parsed, Some(Box::new(validator))))
}

fn compare(before: &[u8], now: &Value) -> Result<(), Narrowed> {
    match serde_json::from_slice(before) {
        Ok(before) => compatible::compare(&before, now),
        Err(_) => Err(Narrowed::unreadable()),
    }
}

/// The versions, for people.
fn listed<T>(accepted: &BTreeMap<u32, T>) -> String {
    const SHOWN: usize = 16;
    if accepted.is_empty() {
        return String::new();
    }
    let mut text = String::from(", accepted are ");
    for (index, version) in accepted.keys().take(SHOWN).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // A String takes what it is given.
        let _ = write!(text, "{comma}{version}");
    }
    if accepted.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

/// The rule that a payload breaks: where in the payload, which keyword, where in the schema, and what was found.
fn broken(error: &ValidationError<'_>) -> String {
    let place = match error.instance_path().as_str() {
        "" => "the payload",
        path => path,
    };
    let mut value = Short::new(REFUSAL_VALUE_BYTES_MAX);
    // The end of the room ends the writing.
    let _ = serde_json::to_writer(&mut value, error.instance().as_ref());
    format!(
        "`{}` breaks `{}` (schema `{}`): {}, it is {}",
        shortened(place, REFUSAL_PART_BYTES_MAX),
        error.kind().keyword(),
        shortened(error.schema_path().as_str(), REFUSAL_PART_BYTES_MAX),
        said(&error.masked_with("the value")),
        value.into_text(),
    )
}

/// What somebody else's error says, up to a bound.
fn said(what: &impl fmt::Display) -> String {
    let mut text = Short::new(REFUSAL_PART_BYTES_MAX);
    // The end of the room ends the writing.
    let _ = write!(&mut text as &mut dyn fmt::Write, "{what}");
    text.into_text()
}

fn shortened(text: &str, bytes: usize) -> String {
    let mut short = Short::new(bytes);
    // The end of the room ends the writing.
    let _ = fmt::Write::write_str(&mut short, text);
    short.into_text()
}

/// The start of a text: who writes beyond it is stopped.
struct Short {
    bytes: Vec<u8>,
    room: usize,
    cut: bool,
}

impl Short {
    const END: &'static str = "…";

    fn new(room: usize) -> Self {
        Self {
            bytes: Vec::new(),
            room,
            cut: false,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        let left = self.room - self.bytes.len();
        self.cut |= bytes.len() > left;
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(left)]);
        !self.cut
    }

    fn into_text(mut self) -> String {
        if self.cut {
            self.bytes.truncate(self.room - Self::END.len());
        }
        let whole = match str::from_utf8(&self.bytes) {
            Ok(_) => self.bytes.len(),
            Err(error) => error.valid_up_to(),
        };
        self.bytes.truncate(whole);
        let mut text = String::from_utf8(self.bytes).unwrap_or_default();
        if self.cut {
            text.push_str(Self::END);
        }
        text
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.take(text.as_bytes()).then_some(()).ok_or(fmt::Error)
    }
}

impl std::io::Write for Short {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.take(bytes) {
            true => Ok(bytes.len()),
            false => Err(std::io::ErrorKind::WriteZero.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

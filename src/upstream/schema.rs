//! JSON Schema of durable namespaces: what publications must be like, and what a changed schema may not do.

mod compatibility;

use std::sync::Arc;

use hashbrown::HashMap;
use jsonschema::Validator;
use serde_json::Value;

use super::log::Log;
use crate::config::{Config, Namespace};
use crate::mesh::durable::LogError;
use crate::model::Record;

/// Bytes of a refusal.
const REFUSAL_BYTES_MAX: usize = 512;

/// The schemas in force.
pub struct Schemas {
    config: Arc<Config>,
    /// By namespace; those without a schema are not here.
    rules: HashMap<String, Rules, foldhash::fast::FixedState>,
}

struct Rules {
    versions: Vec<(u32, Option<Validator>)>,
    required: bool,
    /// Everything is refused, for this reason.
    refusal: Option<String>,
}

/// Why schemas do not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// It is no JSON Schema.
    #[error("namespace `{namespace}`, schema version {version}: {reason}")]
    Invalid {
        /// Namespace.
        namespace: String,
        /// Version.
        version: u32,
        /// What is wrong.
        reason: String,
    },
    /// What was valid before would not be any more.
    #[error(
        "namespace `{namespace}`, schema version {version}: {rule}; a schema that is changed must accept what it accepted before: add a new version instead"
    )]
    Incompatible {
        /// Namespace.
        namespace: String,
        /// Version.
        version: u32,
        /// What the change would break.
        rule: String,
    },
}

impl SchemaError {
    fn namespace(&self) -> &str {
        match self {
            Self::Invalid { namespace, .. } | Self::Incompatible { namespace, .. } => namespace,
        }
    }
}

impl Schemas {
    /// Compiles the schemas of a configuration, and compares each with the text that counted before. A namespace whose schema does
    /// not count refuses every publication; the others are not concerned.
    pub async fn load<L: Log>(log: &L, config: &Config) -> (Self, Vec<SchemaError>) {
        let mut rules = HashMap::default();
        let mut errors = Vec::new();
        let namespaces = std::iter::once(&config.channels.without_namespace)
            .chain(&config.channels.namespaces)
            .filter(|one| one.is_durable())
            .filter(|one| one.schema.required || !one.schema.accepted.is_empty());
        for namespace in namespaces {
            let loaded = match Self::rules_of(log, namespace).await {
                Ok(loaded) => loaded,
                Err(error) => {
                    let refusal = Some(error.to_string());
                    debug_assert_eq!(error.namespace(), namespace.name);
                    errors.push(error);
                    Rules {
                        versions: Vec::new(),
                        required: true,
                        refusal,
                    }
                }
            };
            rules.insert(namespace.name.clone(), loaded);
        }
        let schemas = Self {
            config: Arc::new(config.clone()),
            rules,
        };
        (schemas, errors)
    }

    async fn rules_of<L: Log>(log: &L, namespace: &Namespace) -> Result<Rules, SchemaError> {
        let mut versions = Vec::new();
        for version in &namespace.schema.accepted {
            if version.json_schema.is_empty() {
                versions.push((version.version, None));
                continue;
            }
            let invalid = |reason: String| SchemaError::Invalid {
                namespace: namespace.name.clone(),
                version: version.version,
                reason,
            };
            let schema: Value = serde_json::from_str(&version.json_schema)
                .map_err(|error| invalid(format!("not JSON: {error}")))?;
            let validator = jsonschema::validator_for(&schema)
                .map_err(|error| invalid(bounded(error.to_string())))?;
            let key = format!("schema/{}/{}", namespace.name, version.version);
            remember(log, &key, &schema)
                .await
                .map_err(|rule| SchemaError::Incompatible {
                    namespace: namespace.name.clone(),
                    version: version.version,
                    rule,
                })?;
            versions.push((version.version, Some(validator)));
        }
        Ok(Rules {
            versions,
            required: namespace.schema.required,
            refusal: None,
        })
    }

    /// May this publication be stored?
    ///
    /// # Errors
    /// `LogError::Refused`, which says by which rule.
    pub fn check(&self, record: &Record) -> Result<(), LogError> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let Ok(namespace) = self.config.channels.resolve(record.channel.as_str()) else {
            return Ok(());
        };
        let Some(rules) = self.rules.get(&namespace.name) else {
            return Ok(());
        };
        rules
            .check(record)
            .map_err(|reason| LogError::Refused(bounded(reason).into()))
    }
}

impl Rules {
    fn check(&self, record: &Record) -> Result<(), String> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        if record.schema == 0 {
            return if self.required {
                Err(
                    "`schema`: a publication of this namespace names the version of its schema"
                        .to_owned(),
                )
            } else {
                Ok(())
            };
        }
        if self.versions.is_empty() {
            return Ok(());
        }
        let Some((_, validator)) = self
            .versions
            .iter()
            .find(|(version, _)| *version == record.schema)
        else {
            let accepted: Vec<String> = self
                .versions
                .iter()
                .map(|(version, _)| version.to_string())
                .collect();
            return Err(format!(
                "`schema`: version {} is not accepted, only {}",
                record.schema,
                accepted.join(", ")
            ));
        };
        let Some(validator) = validator else {
            return Ok(());
        };
        let payload: Value = serde_json::from_slice(&record.data)
            .map_err(|_malformed| "the payload is not JSON".to_owned())?;
        match validator.iter_errors(&payload).next() {
            None => Ok(()),
            Some(error) => Err(format!(
                "schema version {}, rule `{}`, at `{}`: {}",
                record.schema,
                error.schema_path(),
                error.instance_path(),
                error.masked()
            )),
        }
    }
}

/// Compares a schema with what counted before and keeps it. A log that does not answer says nothing against it.
async fn remember<L: Log>(log: &L, key: &str, schema: &Value) -> Result<(), String> {
    let before = match log.get(key).await {
        Ok(before) => before,
        Err(error) => {
            tracing::warn!(%error, key, "a schema is not compared with the one before");
            return Ok(());
        }
    };
    let before = before.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    if before.as_ref() == Some(schema) {
        return Ok(());
    }
    if let Some(before) = before {
        compatibility::accepts_all(&before, schema)?;
    }
    if let Err(error) = log.put(key, Some(schema.to_string().as_bytes())).await {
        tracing::warn!(%error, key, "a schema is not kept for comparison");
    }
    Ok(())
}

fn bounded(mut text: String) -> String {
    let mut end = text.len().min(REFUSAL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::durable::SchemaVersion;
    use crate::config::namespace::Delivery;
    use crate::model::EventId;
    use crate::upstream::memory::{self, MemoryLog};

    fn config(schema: &str, required: bool) -> Config {
        let mut config = Config::built_in();
        let mut namespace = Namespace {
            name: "orders".to_owned(),
            delivery: Delivery::Durable,
            history_size: 1,
            history_ttl: Duration::from_secs(1),
            ..Namespace::default()
        };
        namespace.schema.required = required;
        namespace.schema.accepted = vec![SchemaVersion {
            version: 1,
            json_schema: schema.to_owned(),
        }];
        config.channels.namespaces = vec![Arc::new(namespace)];
        config
    }

    fn refusal(schemas: &Schemas, version: u32, data: &str) -> Option<String> {
        let record = Record {
            schema: version,
            ..memory::record("orders:1", EventId(1), data)
        };
        schemas.check(&record).err().map(|error| error.to_string())
    }

    const SCHEMA: &str =
        r#"{"type":"object","required":["n"],"properties":{"n":{"type":"integer","minimum":1}}}"#;

    #[tokio::test]
    async fn refusal_names_the_rule() {
        let log = MemoryLog::default();
        let (schemas, errors) = Schemas::load(&log, &config(SCHEMA, true)).await;
        assert_eq!(errors, []);
        assert_eq!(refusal(&schemas, 1, r#"{"n":1}"#), None);
        let says = |version, data, part: &str| {
            let text = refusal(&schemas, version, data).unwrap_or_default();
            assert!(text.contains(part), "{text}");
        };
        says(1, r#"{"n":0}"#, "/properties/n/minimum");
        says(1, "{}", "/required");
        says(2, r#"{"n":1}"#, "only 1");
        says(0, r#"{"n":1}"#, "names the version");
        says(1, "nonsense", "not JSON");
        let other = memory::record("elsewhere", EventId(1), "1");
        assert_eq!(schemas.check(&other), Ok(()));
    }

    #[tokio::test]
    async fn changed_schema_must_accept_what_it_accepted() {
        let log = MemoryLog::default();
        Schemas::load(&log, &config(SCHEMA, false)).await;
        let wider = SCHEMA.replace("\"minimum\":1", "\"minimum\":0");
        let (_, errors) = Schemas::load(&log, &config(&wider, false)).await;
        assert_eq!(errors, []);
        let (schemas, errors) = Schemas::load(&log, &config(SCHEMA, false)).await;
        assert!(
            matches!(&errors[..], [SchemaError::Incompatible { .. }]),
            "{errors:?}"
        );
        let text = refusal(&schemas, 1, r#"{"n":5}"#).unwrap_or_default();
        assert!(text.contains("add a new version"), "{text}");
        let (_, errors) = Schemas::load(&log, &config("{", false)).await;
        assert!(matches!(&errors[..], [SchemaError::Invalid { .. }]));
    }
}

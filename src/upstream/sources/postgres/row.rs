//! One row, as the table gives it.

use std::fmt;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::config::sources::OutboxSource;
use crate::model::Record;
use crate::upstream::sources::offer::{self, Offer};

/// Which row.
#[derive(Clone, Debug)]
pub(super) struct RowName {
    pub(super) id: i64,
    /// Its transaction: a number may come again in a table that was emptied, both together do not.
    pub(super) mark: Box<str>,
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.id)
    }
}

/// A row, read.
pub(super) struct TableRow {
    pub(super) name: RowName,
    record: Result<Record, String>,
    bytes: usize,
}

impl TableRow {
    /// Reads the columns in the order in which `Table` asks for them.
    pub(super) fn read(row: &Row, source: &OutboxSource) -> Result<Self, tokio_postgres::Error> {
        let name = RowName {
            id: row.try_get(0)?,
            mark: row.try_get::<_, &str>(1)?.into(),
        };
        let text = |at: usize| row.try_get::<_, Option<&str>>(at);
        let payload = match *row.columns()[3].type_() {
            Type::BYTEA => row.try_get::<_, Option<&[u8]>>(3)?,
            _ => text(3)?.map(str::as_bytes),
        };
        let channel = match source.channel.as_str() {
            "" => text(2)?,
            fixed => Some(fixed),
        };
        let (key, tags, trace) = (text(4)?, text(5)?, text(6)?);
        let (schema, ttl): (Option<i64>, Option<i64>) = (row.try_get(7)?, row.try_get(8)?);
        let bytes = payload.map_or(0, <[u8]>::len) + tags.map_or(0, str::len);
        let columns = Columns {
            channel,
            payload,
            key,
            tags,
            trace,
            schema,
            ttl,
        };
        let record = columns.record(source, &name);
        Ok(Self {
            name,
            record,
            bytes,
        })
    }

    /// Bytes that it has in memory, about.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_offer(self) -> Offer<RowName> {
        Offer {
            name: self.name,
            record: self.record,
        }
    }
}

/// What stands in a row.
struct Columns<'a> {
    channel: Option<&'a str>,
    payload: Option<&'a [u8]>,
    key: Option<&'a str>,
    tags: Option<&'a str>,
    trace: Option<&'a str>,
    schema: Option<i64>,
    ttl: Option<i64>,
}

impl Columns<'_> {
    fn record(&self, source: &OutboxSource, name: &RowName) -> Result<Record, String> {
        let postgres = &source.postgres;
        let is_null = |column: &str| format!("its {column} is NULL");
        let channel = self
            .channel
            .ok_or_else(|| is_null(&postgres.channel_column))?;
        let payload = self.payload.ok_or_else(|| is_null(&postgres.data_column))?;
        let mut record = offer::record(channel, payload);
        record.key = match self.key {
            Some(key) if !key.is_empty() => key.into(),
            _ => format!("source/{}/{}/{}", source.name, name.id, name.mark).into(),
        };
        if let Some(tags) = self.tags {
            let read = offer::tags(tags.as_bytes());
            record.tags = read.map_err(|why| format!("{}: {why}", postgres.tags_column))?;
        }
        record.trace = self.trace.unwrap_or_default().into();
        if let Some(version) = self.schema {
            record.schema = u32::try_from(version).map_err(|_large| {
                format!(
                    "{}: expected a version up to 4294967295",
                    postgres.schema_column
                )
            })?;
        }
        if let Some(ttl) = self.ttl {
            record.ttl_ms = u64::try_from(ttl).map_err(|_negative| {
                format!("{}: expected milliseconds from 0", postgres.ttl_column)
            })?;
        }
        Ok(record)
    }
}

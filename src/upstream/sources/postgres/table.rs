//! Is the table what the configuration says, and what is asked of it.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::{Fault, away};
use crate::config::sources::OutboxSource;

/// One process reads a table at a time: the lock goes with the connection.
pub(super) const LOCK: &str = "select pg_try_advisory_lock(hashtextextended($1, 0))";
/// The number of the next transaction.
pub(super) const NEXT_XACT: &str = "select pg_snapshot_xmax(pg_current_snapshot())::text";

const FIND: &str =
    "select c.oid::text, c.relkind::text from pg_class c where c.oid = to_regclass($1)";
const COLUMNS: &str = "\
select a.attname::text, \
  coalesce((select b.typname from pg_type b where b.oid = nullif(t.typbasetype, 0)), t.typname)::text, \
  a.attnotnull, \
  exists (select from pg_index i where i.indrelid = a.attrelid and i.indisunique and i.indisvalid \
    and i.indpred is null and i.indnkeyatts = 1 and i.indkey[0] = a.attnum) \
from pg_attribute a join pg_type t on t.oid = a.atttypid \
where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped";

const NUMBERS: &[&str] = &["int2", "int4", "int8"];
const TEXTS: &[&str] = &["text", "varchar", "bpchar", "name"];
const PAYLOADS: &[&str] = &["jsonb", "json", "text", "varchar", "bytea"];
const OBJECTS: &[&str] = &["jsonb", "json"];

/// What is asked of a table.
#[derive(Debug)]
pub(super) struct Table {
    /// What is locked while it is read.
    pub(super) lock: String,
    /// First of all.
    pub(super) begin: String,
    /// The next rows: `$1` of them at most; without those in `$2`, or behind transaction `$2` and number `$3`.
    pub(super) read: String,
    /// Deletes rows.
    pub(super) done: String,
    /// Counts what `read` would give, `$1` at most.
    pub(super) count: String,
}

/// A column as it is.
struct Column {
    kind: String,
    never_null: bool,
    is_unique: bool,
}

impl Table {
    pub(super) async fn find(client: &Client, source: &OutboxSource) -> Result<Self, Fault> {
        let table = quoted_table(&source.postgres.table);
        let found = client.query_opt(FIND, &[&table]).await;
        let Some(found) = found.map_err(|error| away(&error))? else {
            return Err(Fault::Unfit(format!(
                "there is no table {} in database {} that role {} may see",
                source.postgres.table, source.postgres.database, source.postgres.user
            )));
        };
        let (oid, kind): (String, String) = (found.get(0), found.get(1));
        let is_partitioned = match kind.as_str() {
            "r" => false,
            "p" => true,
            _ => {
                let shown = &source.postgres.table;
                return Err(Fault::Unfit(format!("{shown} is not a table")));
            }
        };
        let columns = client.query(COLUMNS, &[&table]).await;
        let columns: BTreeMap<String, Column> = columns
            .map_err(|error| away(&error))?
            .iter()
            .map(|row| {
                let column = Column {
                    kind: row.get(1),
                    never_null: row.get(2),
                    is_unique: row.get(3),
                };
                (row.get(0), column)
            })
            .collect();
        check(&columns, source, is_partitioned)?;
        let is_bytes = columns[&source.postgres.data_column].kind == "bytea";
        Ok(Self::of(source, &table, &oid, is_bytes))
    }

    fn of(source: &OutboxSource, table: &str, oid: &str, is_bytes: bool) -> Self {
        let postgres = &source.postgres;
        let id = quoted(&postgres.id_column);
        let data = quoted(&postgres.data_column);
        let text = |column: &str| match column {
            "" => "null::text".to_owned(),
            column => format!("{}::text", quoted(column)),
        };
        let number = |column: &str| match column {
            "" => "null::bigint".to_owned(),
            column => format!("{}::bigint", quoted(column)),
        };
        let channel = match source.channel.as_str() {
            "" => text(&postgres.channel_column),
            _ => text(""),
        };
        let xact = quoted(&postgres.xact_column);
        let mark = if postgres.delete { "xmin" } else { &xact };
        let columns = format!(
            "{id}::bigint, {mark}::text, {channel}, {}, {}, {}, {}, {}, {}",
            if is_bytes {
                data
            } else {
                format!("{data}::text")
            },
            text(&postgres.key_column),
            text(&postgres.tags_column),
            text(&postgres.trace_column),
            number(&postgres.schema_column),
            number(&postgres.ttl_column),
        );
        let (lock, which, order) = if postgres.delete {
            let which = format!("{id} <> all($2::bigint[])");
            (format!("ringmain/{oid}"), which, format!("t.{id}"))
        } else {
            let which = format!(
                "{xact} < pg_snapshot_xmin(pg_current_snapshot()) and ({xact}, {id}) > ($2::text::xid8, $3::bigint)"
            );
            let lock = format!("ringmain/{oid}/{}", source.name);
            (lock, which, format!("t.{xact}, t.{id}"))
        };
        let listen = match postgres.listen.as_str() {
            "" => String::new(),
            channel => format!("listen {};", quoted(channel)),
        };
        Self {
            lock,
            // Rows whose deletion a crash takes back come again, and are known: nobody has to wait for the disk.
            begin: format!("set synchronous_commit = off; {listen}"),
            // A bare name would be that of a column as it is given, which is a text.
            read: format!(
                "select {columns} from {table} t where {which} order by {order} limit $1"
            ),
            done: format!(
                "delete from {table} t using unnest($1::bigint[], $2::text[]) as d(id, mark) where t.{id} = d.id and t.xmin::text = d.mark"
            ),
            count: format!(
                "select count(*) from (select from {table} where {which} limit $1) counted"
            ),
        }
    }
}

/// Are the columns there, and of the right kind?
fn check(
    columns: &BTreeMap<String, Column>,
    source: &OutboxSource,
    is_partitioned: bool,
) -> Result<(), Fault> {
    let postgres = &source.postgres;
    let mut wanted = vec![
        ("id_column", &postgres.id_column, Some(NUMBERS)),
        ("data_column", &postgres.data_column, Some(PAYLOADS)),
        ("key_column", &postgres.key_column, None),
        ("tags_column", &postgres.tags_column, Some(OBJECTS)),
        ("trace_column", &postgres.trace_column, None),
        ("schema_column", &postgres.schema_column, Some(NUMBERS)),
        ("ttl_column", &postgres.ttl_column, Some(NUMBERS)),
    ];
    if source.channel.is_empty() {
        wanted.push(("channel_column", &postgres.channel_column, Some(TEXTS)));
    }
    if !postgres.delete {
        wanted.push(("xact_column", &postgres.xact_column, Some(&["xid8"])));
    }
    let shown = &postgres.table;
    for (key, name, kinds) in wanted {
        if name.is_empty() {
            continue;
        }
        let Some(column) = columns.get(name) else {
            return Err(Fault::Unfit(format!(
                "{shown} has no column {name}, which `{key}` names"
            )));
        };
        if let Some(kinds) = kinds
            && !kinds.contains(&column.kind.as_str())
        {
            return Err(Fault::Unfit(format!(
                "column {name} of {shown} is of type {}, and `{key}` takes {}",
                column.kind,
                kinds.join(", ")
            )));
        }
        // A row without its place would never be read.
        let is_place = matches!(key, "id_column" | "xact_column");
        if is_place && !column.never_null {
            return Err(Fault::Unfit(format!(
                "column {name} of {shown} may be NULL, and `{key}` takes one that is NOT NULL"
            )));
        }
        if key == "id_column" && !column.is_unique && !is_partitioned {
            return Err(Fault::Unfit(format!(
                "column {name} of {shown} has no unique index of its own, which `{key}` needs"
            )));
        }
    }
    Ok(())
}

/// A name as it is, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quoted_table(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(quoted).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: &str) -> Column {
        Column {
            kind: kind.to_owned(),
            never_null: true,
            is_unique: true,
        }
    }

    fn columns(of: &[(&str, &str)]) -> BTreeMap<String, Column> {
        let of = of.iter();
        of.map(|(name, kind)| ((*name).to_owned(), column(kind)))
            .collect()
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted_table("shop.out\"box"), "\"shop\".\"out\"\"box\"");
        let mut source = OutboxSource::default();
        source.postgres.id_column = "a;b\"".to_owned();
        source.postgres.listen = "x\"y".to_owned();
        let table = Table::of(&source, "\"t\"", "5", false);
        assert!(table.read.contains("order by t.\"a;b\"\"\""), "{table:?}");
        assert!(table.begin.contains("listen \"x\"\"y\""), "{table:?}");
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_key() {
        let mut source = OutboxSource::default();
        let told = |columns: &BTreeMap<String, Column>, source: &OutboxSource| {
            let checked = check(columns, source, false);
            checked.err().map(|fault| fault.to_string())
        };
        let mut all = columns(&[("id", "int8"), ("channel", "text"), ("data", "jsonb")]);
        assert_eq!(told(&all, &source), None);
        source.postgres.tags_column = "tags".to_owned();
        let error = told(&all, &source).expect("refused");
        assert_eq!(
            error,
            "outbox has no column tags, which `tags_column` names"
        );
        all.insert("tags".to_owned(), column("text"));
        let error = told(&all, &source).expect("refused");
        assert!(
            error.contains("is of type text") && error.contains("jsonb, json"),
            "{error}"
        );
        source.postgres.tags_column.clear();
        source.postgres.delete = false;
        let error = told(&all, &source).expect("refused");
        assert!(error.contains("no column xact"), "{error}");
        all.insert("xact".to_owned(), column("xid8"));
        assert_eq!(told(&all, &source), None);
        let mut twice = column("int8");
        twice.is_unique = false;
        all.insert("id".to_owned(), twice);
        let error = told(&all, &source).expect("refused");
        assert!(error.contains("unique index"), "{error}");
        assert!(check(&all, &source, true).is_ok(), "of a partitioned table");
    }
}

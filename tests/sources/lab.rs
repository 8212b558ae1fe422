//! What the tests of sources share: a proxy with a durable namespace, and what is in it.

use std::path::Path;

use serde_json::{Value, json};

use crate::postgres_server::{PASSWORD, PostgresServer, ROLE};
use crate::support::http::Http;
use crate::support::process::{Server, config};
use crate::support::wait::until;

/// A table whose rows are deleted.
pub(crate) const TABLE: &str =
    "create table outbox (id bigserial primary key, channel text, data jsonb)";
/// A table whose rows stay.
pub(crate) const KEPT_TABLE: &str = "create table outbox (id bigserial primary key, channel text, \
    data jsonb, xact xid8 not null default pg_current_xact_id()); \
    create index on outbox (xact, id)";

/// A configuration with these sources.
pub(crate) fn rules(directory: &Path, sources: &str) -> String {
    config(&format!(
        r#"
[durable.embedded]
directory = "{}"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
size_max = 1000
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "chat"
{sources}
"#,
        directory.display()
    ))
}

/// A source of the table `outbox`, with more for itself and for the table.
pub(crate) fn source(server: &PostgresServer, own: &str, more: &str) -> String {
    format!(
        r#"
[[sources]]
name = "shop"
kind = "postgres"
{own}
[sources.postgres]
port = {}
database = "postgres"
user = "{ROLE}"
password = "{PASSWORD}"
{more}
"#,
        server.port()
    )
}

/// The numbers that a channel has got, in its order.
pub(crate) fn numbers(server: &Server, channel: &str) -> Vec<i64> {
    let read = |one: &Value| one["data"]["n"].as_i64().expect("a number");
    publications(server, channel).iter().map(read).collect()
}

/// Everything that a channel has got.
pub(crate) fn publications(server: &Server, channel: &str) -> Vec<Value> {
    const PAGE: u64 = 200;
    let mut found = Vec::new();
    let epoch = server.api_result("history", &json!({ "channel": channel }))["epoch"].clone();
    loop {
        let since = json!({ "offset": found.len(), "epoch": epoch });
        let ask = json!({ "channel": channel, "limit": PAGE, "since": since });
        let mut page = server.api_result("history", &ask);
        let page = page["publications"].as_array_mut().map(std::mem::take);
        let page = page.unwrap_or_default();
        if page.is_empty() {
            return found;
        }
        found.extend(page);
    }
}

/// Waits until a channel has got so many.
pub(crate) fn until_count(server: &Server, channel: &str, count: u64) {
    until(&format!("{count} publications in {channel}"), || {
        // A channel that a reload brings is unknown before.
        let end = server.api("history", &json!({ "channel": channel }));
        (end["result"]["offset"].as_u64() >= Some(count)).then_some(())
    });
}

/// Waits until a number of the sources is this; it is told some time after it is so.
pub(crate) fn until_metric(server: &Server, name: &str, value: f64) {
    let name = format!("ringmain_source_{name}");
    until(&format!("{name} to be {value}"), || {
        (server.metric(&name) == value).then_some(())
    });
}

/// What `/ready` warns of in the log and what feeds it.
pub(crate) fn warnings(server: &Server) -> String {
    let page = Http::open(server.admin).get("/ready", &[]).text();
    let page: Value = serde_json::from_str(&page).expect("JSON");
    page.to_string()
}

/// Waits until `/ready` warns of this.
pub(crate) fn until_warned(server: &Server, text: &str) {
    until(&format!("a warning of {text:?}"), || {
        warnings(server).contains(text).then_some(())
    });
}

//! `[[sources]]`.

use super::super::super::sources::{Kafka, OnError, OutboxSource, Postgres, SourceKind, StartAt};
use super::super::form::{
    BROKER, FILE_OR_NONE, HOUR_MS, IDENTIFIER, IDENTIFIER_OR_NONE, KAFKA_NAME, SERVER_HOST, TABLE,
    TEXT, TRIGGER_NAME, millis,
};
use super::Visit;
use crate::limits::SOURCE_BATCH_MAX;

pub(super) fn sources<V: Visit>(v: &mut V, sources: &mut Vec<OutboxSource>) {
    const KINDS: &[(&str, SourceKind)] = &[
        ("postgres", SourceKind::Postgres),
        ("kafka", SourceKind::Kafka),
    ];
    const ON_ERROR: &[(&str, OnError)] = &[("stop", OnError::Stop), ("skip", OnError::Skip)];
    let fresh = OutboxSource::default();
    v.sections("sources", &fresh, sources, |v, one| {
        v.text("name", &TRIGGER_NAME, &mut one.name);
        v.choice("kind", KINDS, &mut one.kind);
        v.text("channel", &TEXT, &mut one.channel);
        v.choice("on_error", ON_ERROR, &mut one.on_error);
        v.integer("batch", 1, SOURCE_BATCH_MAX as u64, &mut one.batch);
        v.duration("poll_interval", millis(10, HOUR_MS), &mut one.poll_interval);
        v.section("postgres", |v| postgres(v, &mut one.postgres));
        v.section("kafka", |v| kafka(v, &mut one.kafka));
    });
}

fn postgres<V: Visit>(v: &mut V, postgres: &mut Postgres) {
    v.text("host", &SERVER_HOST, &mut postgres.host);
    v.integer("port", 1, 65_535, &mut postgres.port);
    v.text("database", &TEXT, &mut postgres.database);
    v.text("user", &TEXT, &mut postgres.user);
    v.secret("password", &mut postgres.password);
    v.text("password_file", &FILE_OR_NONE, &mut postgres.password_file);
    v.text("table", &TABLE, &mut postgres.table);
    v.text("id_column", &IDENTIFIER, &mut postgres.id_column);
    v.text("channel_column", &IDENTIFIER, &mut postgres.channel_column);
    v.text("data_column", &IDENTIFIER, &mut postgres.data_column);
    v.text("key_column", &IDENTIFIER_OR_NONE, &mut postgres.key_column);
    v.text(
        "tags_column",
        &IDENTIFIER_OR_NONE,
        &mut postgres.tags_column,
    );
    v.text(
        "trace_column",
        &IDENTIFIER_OR_NONE,
        &mut postgres.trace_column,
    );
    v.text(
        "schema_column",
        &IDENTIFIER_OR_NONE,
        &mut postgres.schema_column,
    );
    v.text("ttl_column", &IDENTIFIER_OR_NONE, &mut postgres.ttl_column);
    v.boolean("delete", &mut postgres.delete);
    v.text("xact_column", &IDENTIFIER, &mut postgres.xact_column);
    v.text("listen", &IDENTIFIER_OR_NONE, &mut postgres.listen);
}

fn kafka<V: Visit>(v: &mut V, kafka: &mut Kafka) {
    const STARTS: &[(&str, StartAt)] = &[("beginning", StartAt::Beginning), ("end", StartAt::End)];
    v.list("brokers", &BROKER, &mut kafka.brokers);
    v.list("topics", &KAFKA_NAME, &mut kafka.topics);
    v.choice("start", STARTS, &mut kafka.start);
    v.text("user", &TEXT, &mut kafka.user);
    v.secret("password", &mut kafka.password);
    v.text("password_file", &FILE_OR_NONE, &mut kafka.password_file);
}

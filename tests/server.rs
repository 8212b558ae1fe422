//! The real binary under hostile, slow and leaving peers, one file for each promise.

#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[path = "support/support.rs"]
mod support;

#[cfg(feature = "nats")]
#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[path = "support/nats_server.rs"]
mod nats_server;

#[path = "server/admin.rs"]
mod admin;
#[path = "server/admission.rs"]
mod admission;
#[path = "server/bad_input.rs"]
mod bad_input;
#[path = "server/batching.rs"]
mod batching;
#[path = "server/bodies.rs"]
mod bodies;
#[path = "server/bystander.rs"]
mod bystander;
#[path = "server/channels.rs"]
mod channels;
#[path = "server/command_line.rs"]
mod command_line;
#[path = "server/cut.rs"]
mod cut;
#[path = "server/drain.rs"]
mod drain;
#[path = "server/durable.rs"]
mod durable;
#[path = "server/echo.rs"]
mod echo;
#[path = "server/echo_deflate.rs"]
mod echo_deflate;
#[path = "server/encodings.rs"]
mod encodings;
#[path = "server/ends.rs"]
mod ends;
#[path = "server/example_workers.rs"]
mod example_workers;
#[path = "server/fallback.rs"]
mod fallback;
#[path = "server/first_run.rs"]
mod first_run;
#[path = "server/gone.rs"]
mod gone;
#[path = "server/hooks.rs"]
mod hooks;
#[path = "server/http.rs"]
mod http;
#[path = "server/http_musts.rs"]
mod http_musts;
#[path = "server/in_and_out.rs"]
mod in_and_out;
#[path = "server/invalid_tokens.rs"]
mod invalid_tokens;
#[path = "server/joins.rs"]
mod joins;
#[path = "server/json.rs"]
mod json;
#[path = "server/jwks.rs"]
mod jwks;
#[path = "server/kept_log.rs"]
mod kept_log;
#[path = "server/keys.rs"]
mod keys;
#[path = "server/letters.rs"]
mod letters;
#[path = "server/limits.rs"]
mod limits;
#[path = "server/listeners.rs"]
mod listeners;
#[path = "server/operator.rs"]
mod operator;
#[path = "server/order.rs"]
mod order;
#[path = "server/paging.rs"]
mod paging;
#[path = "server/presence.rs"]
mod presence;
#[path = "server/pushed.rs"]
mod pushed;
#[path = "server/queues.rs"]
mod queues;
#[path = "server/rates.rs"]
mod rates;
#[path = "server/reading.rs"]
mod reading;
#[path = "server/reload.rs"]
mod reload;
#[path = "server/repeats.rs"]
mod repeats;
#[path = "server/requests.rs"]
mod requests;
#[path = "server/revocation.rs"]
mod revocation;
#[path = "server/rfc6455.rs"]
mod rfc6455;
#[path = "server/rotation.rs"]
mod rotation;
#[cfg(feature = "nats")]
#[path = "server/rotation_of_nats.rs"]
mod rotation_of_nats;
#[path = "server/scheduled.rs"]
mod scheduled;
#[path = "server/service.rs"]
mod service;
#[path = "server/shards.rs"]
mod shards;
#[path = "server/slow_consumer.rs"]
mod slow_consumer;
#[path = "server/start.rs"]
mod start;
#[path = "server/stopped.rs"]
mod stopped;
#[path = "server/storm.rs"]
mod storm;
#[path = "server/streams.rs"]
mod streams;
#[path = "server/tenant_limits.rs"]
mod tenant_limits;
#[path = "server/tenants.rs"]
mod tenants;
#[path = "server/tenants_hooks.rs"]
mod tenants_hooks;
#[path = "server/tenants_managed.rs"]
mod tenants_managed;
#[path = "server/vanished_log.rs"]
mod vanished_log;
#[path = "server/violations.rs"]
mod violations;
#[path = "server/workers.rs"]
mod workers;

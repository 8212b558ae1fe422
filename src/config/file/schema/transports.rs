//! Keys of the transports beside the WebSocket.

use super::super::super::{
    Config, DisconnectCode, Downstream, Emulation, HttpAnswer, Init, Poll, Transforms, UniStream,
    UniWebSocket,
};
use super::super::form::{HOUR_MS, PATH, REASON_OF_OURS, TEXT, millis};
use super::Visit;
use crate::limits::{ECHO_MESSAGE_BYTES_MAX, HTTP_BODY_BYTES_MAX};

pub(super) fn transports<V: Visit>(v: &mut V, config: &mut Config) {
    v.section("http_stream", |v| downstream(v, &mut config.http_stream));
    v.section("sse", |v| downstream(v, &mut config.sse));
    v.section("emulation", |v| emulation(v, &mut config.emulation));
    v.section("uni_websocket", |v| {
        uni_websocket(v, &mut config.uni_websocket);
    });
    v.section("uni_sse", |v| uni_stream(v, &mut config.uni_sse));
    v.section("uni_http_stream", |v| {
        uni_stream(v, &mut config.uni_http_stream);
    });
    v.section("init", |v| init(v, &mut config.init));
    v.section("poll", |v| poll(v, &mut config.poll));
}

fn body<V: Visit>(v: &mut V, bytes_max: &mut usize) {
    let most = HTTP_BODY_BYTES_MAX as u64;
    v.integer("max_request_body_size", 64, most, bytes_max);
}

fn downstream<V: Visit>(v: &mut V, endpoint: &mut Downstream) {
    v.boolean("enabled", &mut endpoint.enabled);
    v.text("handler_prefix", &PATH, &mut endpoint.handler_prefix);
    body(v, &mut endpoint.max_request_body_size);
}

fn emulation<V: Visit>(v: &mut V, endpoint: &mut Emulation) {
    v.text("handler_prefix", &PATH, &mut endpoint.handler_prefix);
    body(v, &mut endpoint.max_request_body_size);
}

fn uni_websocket<V: Visit>(v: &mut V, endpoint: &mut UniWebSocket) {
    v.boolean("enabled", &mut endpoint.enabled);
    v.text("handler_prefix", &PATH, &mut endpoint.handler_prefix);
    let most = ECHO_MESSAGE_BYTES_MAX as u64;
    v.integer(
        "message_size_limit",
        64,
        most,
        &mut endpoint.message_size_limit,
    );
    v.boolean("join_push_messages", &mut endpoint.join_push_messages);
    v.boolean(
        "disable_disconnect_push",
        &mut endpoint.disable_disconnect_push,
    );
    v.boolean(
        "disable_closing_handshake",
        &mut endpoint.disable_closing_handshake,
    );
}

fn uni_stream<V: Visit>(v: &mut V, endpoint: &mut UniStream) {
    v.boolean("enabled", &mut endpoint.enabled);
    v.text("handler_prefix", &PATH, &mut endpoint.handler_prefix);
    body(v, &mut endpoint.max_request_body_size);
    let answers = &mut endpoint.connect_code_to_http_response;
    v.section("connect_code_to_http_response", |v| {
        transforms(v, answers, |v, answer: &mut HttpAnswer| {
            v.integer("status_code", 200, 599, &mut answer.status_code);
            v.text("body", &TEXT, &mut answer.body);
        });
    });
}

pub(super) fn disconnects<V: Visit>(v: &mut V, of: &mut Transforms<DisconnectCode>) {
    transforms(v, of, |v, to: &mut DisconnectCode| {
        v.integer("code", 3000, 4999, &mut to.code);
        v.text("reason", &REASON_OF_OURS, &mut to.reason);
    });
}

fn transforms<V: Visit, T: Clone + Default>(
    v: &mut V,
    of: &mut Transforms<T>,
    inside: impl Fn(&mut V, &mut T),
) {
    v.boolean("enabled", &mut of.enabled);
    let fresh = (0, T::default());
    v.sections("transforms", &fresh, &mut of.transforms, |v, (code, to)| {
        v.integer("code", 1, 4999, code);
        v.section("to", |v| inside(v, to));
    });
}

fn init<V: Visit>(v: &mut V, endpoint: &mut Init) {
    v.boolean("enabled", &mut endpoint.enabled);
    v.text("handler_prefix", &PATH, &mut endpoint.handler_prefix);
}

fn poll<V: Visit>(v: &mut V, endpoint: &mut Poll) {
    v.boolean("enabled", &mut endpoint.enabled);
    v.text("handler_prefix", &PATH, &mut endpoint.handler_prefix);
    v.duration("timeout", millis(10, HOUR_MS), &mut endpoint.timeout);
    v.duration(
        "max_timeout",
        millis(10, HOUR_MS),
        &mut endpoint.max_timeout,
    );
}

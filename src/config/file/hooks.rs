//! Keys of hooks: the definition of a target, which stands at several places, and who refers to one.

use std::sync::Arc;

use super::super::hooks::{Breaker, Hooks, MethodNamespace, Methods, Signing, Target, Transform};
use super::super::namespace::Namespace;
use super::form::{
    DAY_S, ENDPOINT, HEADER, HEADER_VALUE, HOUR_MS, MARK, MESSAGE, METHOD, NAMESPACE_NAME, REASON,
    STATIC_HEADER, millis, or_off,
};
use super::visit::Visit;

/// `client.proxy`
pub(super) fn of_client<V: Visit>(v: &mut V, hooks: &mut Hooks) {
    v.section("proxy", |v| {
        v.section("connect", |v| {
            v.boolean("enabled", &mut hooks.connect_enabled);
            target(v, Arc::make_mut(&mut hooks.connect));
        });
        v.section("refresh", |v| {
            v.boolean("enabled", &mut hooks.refresh_enabled);
            target(v, Arc::make_mut(&mut hooks.refresh));
        });
    });
}

/// `channel.proxy`
pub(super) fn of_channel<V: Visit>(v: &mut V, hooks: &mut Hooks) {
    v.section("proxy", |v| {
        v.section("subscribe", |v| {
            target(v, Arc::make_mut(&mut hooks.subscribe));
        });
        v.section("publish", |v| target(v, Arc::make_mut(&mut hooks.publish)));
        v.section("sub_refresh", |v| {
            target(v, Arc::make_mut(&mut hooks.sub_refresh));
        });
    });
}

/// `rpc`
pub(super) fn rpc<V: Visit>(v: &mut V, hooks: &mut Hooks) {
    let Methods {
        namespace_boundary,
        ping,
        without_namespace,
        namespaces,
    } = &mut hooks.methods;
    v.text("namespace_boundary", &MARK, namespace_boundary);
    let mut enabled = ping.is_some();
    let mut method = ping.take().unwrap_or_else(|| "ping".to_owned());
    v.section("ping", |v| {
        v.boolean("enabled", &mut enabled);
        v.text("method", &METHOD, &mut method);
    });
    *ping = enabled.then_some(method);
    v.section("without_namespace", |v| {
        method_namespace(v, without_namespace);
    });
    v.section("proxy", |v| target(v, Arc::make_mut(&mut hooks.rpc)));
    v.sections(
        "namespaces",
        &MethodNamespace::default(),
        namespaces,
        |v, one| {
            v.text("name", &NAMESPACE_NAME, &mut one.name);
            method_namespace(v, one);
        },
    );
}

fn method_namespace<V: Visit>(v: &mut V, namespace: &mut MethodNamespace) {
    v.boolean("proxy_enabled", &mut namespace.proxy_enabled);
    v.text("proxy_name", &NAMESPACE_NAME, &mut namespace.proxy_name);
}

/// `proxies`, of everybody or of a tenant.
pub(super) fn proxies<V: Visit>(v: &mut V, proxies: &mut Vec<Arc<Target>>) {
    let mut named: Vec<Target> = proxies.iter().map(|one| (**one).clone()).collect();
    v.sections("proxies", &Target::named(""), &mut named, |v, one| {
        v.text("name", &NAMESPACE_NAME, &mut one.name);
        target(v, one);
    });
    *proxies = named.into_iter().map(Arc::new).collect();
}

/// Options of a namespace.
pub(super) fn of_namespace<V: Visit>(v: &mut V, ns: &mut Namespace) {
    v.boolean("subscribe_proxy_enabled", &mut ns.subscribe_proxy_enabled);
    v.text(
        "subscribe_proxy_name",
        &NAMESPACE_NAME,
        &mut ns.subscribe_proxy_name,
    );
    v.boolean("publish_proxy_enabled", &mut ns.publish_proxy_enabled);
    v.text(
        "publish_proxy_name",
        &NAMESPACE_NAME,
        &mut ns.publish_proxy_name,
    );
    v.boolean(
        "sub_refresh_proxy_enabled",
        &mut ns.sub_refresh_proxy_enabled,
    );
    v.text(
        "sub_refresh_proxy_name",
        &NAMESPACE_NAME,
        &mut ns.sub_refresh_proxy_name,
    );
}

fn target<V: Visit>(v: &mut V, target: &mut Target) {
    v.text("endpoint", &ENDPOINT, &mut target.endpoint);
    v.duration("timeout", millis(1, HOUR_MS), &mut target.timeout);
    v.list("http_headers", &HEADER, &mut target.http_headers);
    v.list("emulated_headers", &HEADER, &mut target.emulated_headers);
    v.boolean("binary_encoding", &mut target.binary_encoding);
    v.boolean(
        "include_connection_meta",
        &mut target.include_connection_meta,
    );
    v.integer("concurrency_max", 1, 65_536, &mut target.concurrency_max);
    v.integer("queue_max", 0, 1_000_000, &mut target.queue_max);
    v.integer("rate", 0, 1_000_000, &mut target.rate);
    v.section("breaker", |v| breaker(v, &mut target.breaker));
    v.section("http", |v| {
        v.secrets(
            "static_headers",
            &STATIC_HEADER,
            &HEADER_VALUE,
            &mut target.static_headers,
        );
        signing(v, &mut target.signing);
        v.sections(
            "status_to_code_transforms",
            &Transform::default(),
            &mut target.transforms,
            transform,
        );
    });
}

/// `hooks`, and `http` of a target.
pub(super) fn signing<V: Visit>(v: &mut V, signing: &mut Signing) {
    v.secret("signature_secret", &mut signing.secret);
    v.secret("signature_previous_secret", &mut signing.previous);
}

fn breaker<V: Visit>(v: &mut V, breaker: &mut Breaker) {
    v.integer("error_rate", 0, 100, &mut breaker.error_rate);
    v.duration("latency", or_off(millis(1, HOUR_MS)), &mut breaker.latency);
    v.integer("calls_min", 1, 1_000_000, &mut breaker.calls_min);
    v.duration("window", millis(100, DAY_S * 1000), &mut breaker.window);
    v.duration("open_for", millis(10, DAY_S * 1000), &mut breaker.open_for);
}

fn transform<V: Visit>(v: &mut V, transform: &mut Transform) {
    v.integer("status_code", 100, 599, &mut transform.status_code);
    v.section("to_error", |v| {
        v.integer("code", 0, u64::from(u32::MAX), &mut transform.error_code);
        v.text("message", &MESSAGE, &mut transform.error_message);
        v.boolean("temporary", &mut transform.error_temporary);
    });
    v.section("to_disconnect", |v| {
        v.integer("code", 0, 4999, &mut transform.disconnect_code);
        v.text("reason", &REASON, &mut transform.disconnect_reason);
    });
}

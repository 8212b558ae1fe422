//! References to hook targets, and what a target's own keys cannot tell alone.

use super::super::super::hooks::{DEFAULT_NAME, FIXED_NAMES, Hooks, MethodNamespace, Target};
use super::super::super::namespace::Namespace;
use super::super::super::{Config, Tenant};
use super::super::reader::Keys;
use super::super::{ConfigError, ValueOrigin};
use super::reach::unworkable;

/// Adds everything that does not fit together.
pub(super) fn check(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let hooks = &config.hooks;
    for (enabled, target) in [
        (hooks.connect_enabled, &hooks.connect),
        (hooks.refresh_enabled, &hooks.refresh),
    ] {
        if enabled && !target.is_set() {
            let key = format!("{}.enabled", target.name);
            unknown(key, format!("{}.endpoint", target.name), keys, errors);
        }
    }
    for target in [
        &hooks.connect,
        &hooks.refresh,
        &hooks.subscribe,
        &hooks.publish,
        &hooks.sub_refresh,
        &hooks.rpc,
    ] {
        transforms(&target.name, target, keys, errors);
    }
    named(hooks, keys, errors);
    for (at, tenant) in config.tenants.list.iter().enumerate() {
        of_tenant(
            &format!("tenants[{at}].proxies"),
            tenant,
            hooks,
            keys,
            errors,
        );
    }
    for (path, one) in super::all_namespaces(config) {
        namespace(&path, one, hooks, keys, errors);
    }
    methods(hooks, keys, errors);
}

fn unknown(key: String, missing: String, keys: &Keys, errors: &mut Vec<ConfigError>) {
    // An endpoint that was refused is not missing.
    if errors
        .iter()
        .filter_map(ConfigError::key)
        .any(|refused| refused == missing)
    {
        return;
    }
    errors.push(ConfigError::UnknownTarget {
        origin: keys.origin(&key),
        key,
        missing,
    });
}

/// A reference of `path`: `<event>_enabled` with `<event>_name`.
fn reference(
    path: &str,
    (enabled, name): (&str, &str),
    (referred, fixed): (&str, &Target),
    hooks: &Hooks,
    keys: &Keys,
    errors: &mut Vec<ConfigError>,
) {
    if referred == DEFAULT_NAME {
        if !fixed.is_set() {
            let key = format!("{path}.{enabled}");
            unknown(key, format!("{}.endpoint", fixed.name), keys, errors);
        }
        return;
    }
    match hooks
        .named
        .iter()
        .position(|target| target.name == referred)
    {
        Some(index) if hooks.named[index].is_set() => {}
        Some(index) => {
            let key = format!("{path}.{name}");
            unknown(key, format!("proxies[{index}].endpoint"), keys, errors);
        }
        None => {
            let key = format!("{path}.{name}");
            unknown(
                key,
                format!("proxies[].name = \"{referred}\""),
                keys,
                errors,
            );
        }
    }
}

fn namespace(
    path: &str,
    namespace: &Namespace,
    hooks: &Hooks,
    keys: &Keys,
    errors: &mut Vec<ConfigError>,
) {
    let references = [
        (
            namespace.subscribe_proxy_enabled,
            ("subscribe_proxy_enabled", "subscribe_proxy_name"),
            (&namespace.subscribe_proxy_name, &hooks.subscribe),
        ),
        (
            namespace.publish_proxy_enabled,
            ("publish_proxy_enabled", "publish_proxy_name"),
            (&namespace.publish_proxy_name, &hooks.publish),
        ),
        (
            namespace.sub_refresh_proxy_enabled,
            ("sub_refresh_proxy_enabled", "sub_refresh_proxy_name"),
            (&namespace.sub_refresh_proxy_name, &hooks.sub_refresh),
        ),
    ];
    for (enabled, options, (name, fixed)) in references {
        if enabled {
            reference(path, options, (name, fixed), hooks, keys, errors);
        }
    }
}

fn methods(hooks: &Hooks, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let mut one = |path: &str, namespace: &MethodNamespace| {
        if namespace.proxy_enabled {
            let options = ("proxy_enabled", "proxy_name");
            let referred = (namespace.proxy_name.as_str(), &*hooks.rpc);
            reference(path, options, referred, hooks, keys, errors);
        }
    };
    one("rpc.without_namespace", &hooks.methods.without_namespace);
    for (index, namespace) in hooks.methods.namespaces.iter().enumerate() {
        one(&format!("rpc.namespaces[{index}]"), namespace);
    }
    let names: Vec<&str> = hooks
        .methods
        .namespaces
        .iter()
        .map(|namespace| namespace.name.as_str())
        .collect();
    distinct("rpc.namespaces", &names, keys, errors);
}

fn named(hooks: &Hooks, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let names: Vec<&str> = hooks.named.iter().map(|one| one.name.as_str()).collect();
    distinct("proxies", &names, keys, errors);
    for (index, target) in hooks.named.iter().enumerate() {
        let path = format!("proxies[{index}]");
        if target.name == DEFAULT_NAME || FIXED_NAMES.contains(&target.name.as_str()) {
            let key = format!("{path}.name");
            errors.push(ConfigError::ReservedName {
                origin: keys.origin(&key),
                key,
            });
        }
        has_endpoint(&path, target, keys, errors);
        transforms(&path, target, keys, errors);
    }
}

/// A tenant's target stands for one of everybody.
fn of_tenant(
    list: &str,
    tenant: &Tenant,
    hooks: &Hooks,
    keys: &Keys,
    errors: &mut Vec<ConfigError>,
) {
    let names: Vec<&str> = tenant.proxies.iter().map(|one| &*one.name).collect();
    distinct(list, &names, keys, errors);
    for (index, target) in tenant.proxies.iter().enumerate() {
        let path = format!("{list}[{index}]");
        let name = target.name.as_str();
        let is_known =
            FIXED_NAMES.contains(&name) || hooks.named.iter().any(|one| one.name == name);
        if !is_known && !name.is_empty() {
            let why = format!(
                "it stands for a target of everybody: one of [[proxies]], or {}",
                FIXED_NAMES.join(", ")
            );
            unworkable(&format!("{path}.name"), why, keys, errors);
        }
        has_endpoint(&path, target, keys, errors);
        transforms(&path, target, keys, errors);
    }
}

fn has_endpoint(path: &str, target: &Target, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let key = format!("{path}.endpoint");
    if !target.is_set() && keys.origin(&key) == ValueOrigin::BuiltIn {
        errors.push(ConfigError::Missing {
            origin: keys.origin(path),
            key,
        });
    }
}

/// Every member of a list has a name, and no two the same.
fn distinct(list: &str, names: &[&str], keys: &Keys, errors: &mut Vec<ConfigError>) {
    for (index, name) in names.iter().enumerate() {
        let key = format!("{list}[{index}].name");
        if name.is_empty() {
            if keys.origin(&key) == ValueOrigin::BuiltIn {
                errors.push(ConfigError::Missing {
                    origin: keys.origin(&format!("{list}[{index}]")),
                    key,
                });
            }
        } else if let Some(first) = names[..index].iter().position(|other| other == name) {
            let first = keys.origin(&format!("{list}[{first}].name"));
            errors.push(ConfigError::Repeated {
                origin: keys.origin(&key),
                key,
                first,
            });
        }
    }
}

fn transforms(path: &str, target: &Target, keys: &Keys, errors: &mut Vec<ConfigError>) {
    for (index, transform) in target.transforms.iter().enumerate() {
        let key = format!("{path}.http.status_to_code_transforms[{index}]");
        let status = format!("{key}.status_code");
        if transform.status_code == 200 {
            errors.push(ConfigError::StatusOk {
                origin: keys.origin(&status),
                key: status,
            });
        } else if transform.status_code == 0 && keys.origin(&status) == ValueOrigin::BuiltIn {
            errors.push(ConfigError::Missing {
                origin: keys.origin(&key),
                key: status,
            });
        }
        let (error, disconnect) = (transform.error_code, transform.disconnect_code);
        let is_disconnect = (3000..=4999).contains(&disconnect);
        if !(error > 0 && disconnect == 0 || error == 0 && is_disconnect) {
            errors.push(ConfigError::OneOfTwo {
                origin: keys.origin(&key),
                key,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Config, Source};

    fn load(text: &str) -> Result<Config, String> {
        let source = Source { name: "file", text };
        Config::load(&[source], &[]).map_err(|errors| errors.to_string())
    }

    const EVERYTHING: &str = r#"
[client]
user_id_http_header = "X-User"
[client.proxy.connect]
enabled = true
endpoint = "https://backend.example:8443/connect?a=b"
timeout = "300ms"
http_headers = ["Cookie", "X-Real-IP"]
emulated_headers = ["Authorization"]
binary_encoding = true
include_connection_meta = true
concurrency_max = 8
queue_max = 9
breaker = { error_rate = 20, latency = "200ms", calls_min = 5, window = "1s", open_for = "2s" }
[client.proxy.connect.http]
static_headers = { X-Secret = "s", "X-Plain" = "p" }
[[client.proxy.connect.http.status_to_code_transforms]]
status_code = 404
to_error = { code = 404, message = "not found", temporary = true }
[[client.proxy.connect.http.status_to_code_transforms]]
status_code = 403
to_disconnect = { code = 4500, reason = "go away" }
[channel.proxy.publish]
endpoint = "http://127.0.0.1:3000"
[[proxies]]
name = "other"
endpoint = "http://[::1]:3000/other"
[channel.without_namespace]
publish_proxy_enabled = true
subscribe_proxy_enabled = true
subscribe_proxy_name = "other"
sub_refresh_proxy_enabled = true
sub_refresh_proxy_name = "other"
[rpc]
namespace_boundary = "/"
[rpc.ping]
enabled = true
[rpc.without_namespace]
proxy_enabled = true
proxy_name = "other"
[[rpc.namespaces]]
name = "off"
"#;

    #[test]
    fn every_key_of_a_target_is_read_and_its_secrets_do_not_show() {
        let config = load(EVERYTHING).expect("a valid configuration");
        let connect = config
            .connect_hook(crate::model::TenantId::NONE)
            .expect("it is on");
        assert_eq!(connect.http_headers, ["cookie", "x-real-ip"]);
        assert_eq!(connect.emulated_headers, ["authorization"]);
        assert_eq!(connect.static_headers.len(), 2);
        assert_eq!(connect.transforms[0].error_code, 404);
        assert_eq!(connect.transforms[1].disconnect_code, 4500);
        assert_eq!((connect.concurrency_max, connect.queue_max), (8, 9));
        assert_eq!(
            (connect.breaker.error_rate, connect.breaker.calls_min),
            (20, 5)
        );
        assert_eq!(config.client.user_id_http_header, "x-user");
        assert_eq!(config.hooks.methods.ping.as_deref(), Some("ping"));
        assert!(
            config.forwarded_headers().any(|name| name == "cookie")
                && connect.include_connection_meta
        );
        let effective = config.effective();
        assert!(effective.contains("\"x-secret\" = \"***\""), "{effective}");
        let again = load(&effective).unwrap_or_else(|errors| panic!("{errors}\n{effective}"));
        assert_eq!(again.effective(), effective);
    }

    #[test]
    fn a_reference_without_a_target_is_refused_with_what_to_set() {
        for (text, wanted) in [
            (
                "[channel.without_namespace]\nsubscribe_proxy_enabled = true",
                "file:2: `channel.without_namespace.subscribe_proxy_enabled` needs an endpoint that is not configured; set `channel.proxy.subscribe.endpoint`",
            ),
            (
                "[channel.without_namespace]\npublish_proxy_enabled = true\npublish_proxy_name = \"no\"",
                "file:3: `channel.without_namespace.publish_proxy_name` needs an endpoint that is not configured; set `proxies[].name = \"no\"`",
            ),
            (
                "[client.proxy.refresh]\nenabled = true",
                "file:2: `client.proxy.refresh.enabled` needs an endpoint that is not configured; set `client.proxy.refresh.endpoint`",
            ),
            (
                "[rpc.without_namespace]\nproxy_enabled = true",
                "file:2: `rpc.without_namespace.proxy_enabled` needs an endpoint that is not configured; set `rpc.proxy.endpoint`",
            ),
            (
                "[[proxies]]\nname = \"one\"",
                "file:1: `proxies[0].endpoint` is missing; add it",
            ),
            (
                "[[proxies]]\nname = \"default\"\nendpoint = \"http://x\"",
                "file:2: `proxies[0].name` is a name that has a meaning already; choose another",
            ),
        ] {
            assert_eq!(load(text).map(drop), Err(wanted.to_owned()), "{text}");
        }
        // A name that nobody uses refers to nothing.
        assert!(load("[channel.without_namespace]\nsubscribe_proxy_name = \"no\"").is_ok());
    }

    #[test]
    fn an_endpoint_is_an_http_url() {
        for endpoint in [
            "grpc://backend:9000",
            "backend:9000",
            "ftp://backend",
            "http://",
            "https://user:secret@backend/",
            "http://back end/",
            "unix:/x",
        ] {
            let text = format!("[rpc.proxy]\nendpoint = \"{endpoint}\"");
            let error = load(&text).expect_err(endpoint);
            assert!(error.contains("gRPC endpoints are not spoken"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_transform_has_a_status_and_one_code() {
        let transform = |text: &str| {
            load(&format!(
                "[[rpc.proxy.http.status_to_code_transforms]]\n{text}"
            ))
            .map(drop)
        };
        assert_eq!(
            transform("status_code = 404\nto_error = { code = 1 }"),
            Ok(())
        );
        for text in [
            "status_code = 404",
            "status_code = 404\nto_error = { code = 1 }\nto_disconnect = { code = 4000 }",
            "status_code = 404\nto_disconnect = { code = 2999 }",
            "status_code = 404\nto_disconnect = { code = 4000, reason = \"{}\" }",
            "status_code = 200\nto_error = { code = 1 }",
            "to_error = { code = 1 }",
        ] {
            assert!(transform(text).is_err(), "{text}");
        }
    }
}

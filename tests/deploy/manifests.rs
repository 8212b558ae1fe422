//! Kubernetes, Compose and the image: who reads the manifests accepts them, and what they say fits what the program does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringmain::config::{Config, Setting, Source};
use serde_json::Value;

use crate::tools::{program, run, schema, shipped, text};

/// Seconds between the end of a drain and the moment in which the process is killed.
const SPARE: u64 = 10;
/// The same in a pod, where the command that drains has to start.
const SPARE_OF_POD: u64 = 15;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The resources of an installation, as `kubectl apply -k` makes them, validated.
fn resources(kind: &str) -> Vec<Value> {
    let directory = shipped(&format!("kubernetes/{kind}"));
    let manifests = run(
        "kustomize",
        &["build", directory.to_str().expect("a path")],
        "",
    );
    let crd = schema("monitoring.coreos.com_servicemonitors.yaml");
    let printed = run(
        "python3",
        &["tests/deploy/validate.py", "kubernetes", &crd],
        &manifests,
    );
    serde_json::from_str(&printed).expect("JSON")
}

fn of_kind<'a>(resources: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let found: Vec<&Value> = resources.iter().filter(|one| one["kind"] == kind).collect();
    assert!(!found.is_empty(), "no {kind}");
    found
}

fn compose() -> Value {
    let schema = schema("compose-spec.json");
    let arguments = ["tests/deploy/validate.py", "compose", &schema];
    serde_json::from_str(&run("python3", &arguments, &text("compose.yaml"))).expect("JSON")
}

/// The configuration in force with this file and these variables, which must be accepted.
fn configuration(file: &str, variables: &[(String, String)]) -> Config {
    let settings = Setting::from_environment(variables.to_vec());
    let source = Source {
        name: "ringmain.toml",
        text: file,
    };
    Config::load(&[source], &settings).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Whole seconds that a drain of this configuration takes at most.
fn drain_seconds(config: &Config) -> u64 {
    let drain = &config.drain;
    (drain.notice + drain.window + drain.grace).as_secs()
}

/// The pod's template of an installation.
fn template(kind: &str, resources: &[Value]) -> Value {
    let kind = if kind == "embedded" {
        "StatefulSet"
    } else {
        "Deployment"
    };
    of_kind(resources, kind)[0]["spec"]["template"].clone()
}

const KINDS: [&str; 2] = ["embedded", "jetstream"];

#[test]
fn manifests_are_accepted_and_their_configuration_is_too() {
    for kind in KINDS {
        let resources = resources(kind);
        let pod = template(kind, &resources);
        let container = &pod["spec"]["containers"][0];
        let variables: Vec<(String, String)> = container["env"]
            .as_array()
            .expect("variables")
            .iter()
            .map(|one| {
                let text = |key: &str| one[key].as_str().expect("text").to_owned();
                (text("name"), text("value"))
            })
            .collect();
        let file = of_kind(&resources, "ConfigMap")[0]["data"]["ringmain.toml"]
            .as_str()
            .expect("the file");
        let config = configuration(file, &variables);
        let stop = pod["spec"]["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("seconds");
        assert_eq!(stop, drain_seconds(&config) + SPARE_OF_POD, "{kind}");
        // Who asks for the drain inside of the pod finds a listener of this host, and a key in the environment.
        let command = &container["lifecycle"]["preStop"]["exec"]["command"];
        assert_eq!(command, &serde_json::json!(["ringmain", "drain"]), "{kind}");
        let admin = config.admin.listen.as_ref().map(ToString::to_string);
        assert!(admin.is_some_and(|listen| listen.starts_with("127.0.0.1:")));
        let secrets = [("RINGMAIN__HTTP_API__KEY".to_owned(), "k".repeat(32))];
        let with_key = configuration(file, &[&variables[..], &secrets[..]].concat());
        assert!(with_key.own_admin_key(0).is_some(), "{kind}");
        // Probes ask pages that exist, at the listener that has them.
        for (probe, page) in [
            ("startupProbe", "/health"),
            ("livenessProbe", "/health"),
            ("readinessProbe", "/ready"),
        ] {
            let asked = &container[probe]["httpGet"];
            assert_eq!(
                (asked["path"].as_str(), asked["port"].as_str()),
                (Some(page), Some("internal")),
                "{kind} {probe}"
            );
        }
        let notice = config.drain.notice.as_secs();
        let ready = &container["readinessProbe"];
        let number = |key: &str| ready[key].as_u64().expect("a number");
        let noticed = number("periodSeconds") * number("failureThreshold");
        assert!(noticed < notice, "{kind}: noticed after {noticed} s");
        let mut ports: Vec<(String, u64)> = Vec::new();
        for port in container["ports"].as_array().expect("ports") {
            let name = port["name"].as_str().expect("a name").to_owned();
            ports.push((name, port["containerPort"].as_u64().expect("a port")));
        }
        for (name, number) in &ports {
            let listeners = if name == "clients" {
                &config.server.listen
            } else {
                &config.server.internal_listen
            };
            let address = format!("0.0.0.0:{number}");
            assert!(
                listeners.iter().any(|one| one.to_string() == address),
                "{kind}: nobody listens at {address}"
            );
        }
    }
}

#[test]
fn pods_have_no_rights_and_write_into_their_volume_only() {
    for kind in KINDS {
        let pod = template(kind, &resources(kind))["spec"].clone();
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        let rights = &pod["containers"][0]["securityContext"];
        assert_eq!(rights["readOnlyRootFilesystem"], true);
        assert_eq!(rights["allowPrivilegeEscalation"], false);
        assert_eq!(rights["capabilities"]["drop"][0], "ALL");
    }
}

#[test]
fn selectors_of_all_resources_mean_the_pods() {
    for kind in KINDS {
        let resources = resources(kind);
        let labels = template(kind, &resources)["metadata"]["labels"].clone();
        let fits = |selector: &Value| {
            let selector = selector.as_object().expect("labels");
            selector.iter().all(|(key, value)| labels[key] == *value)
        };
        for service in of_kind(&resources, "Service") {
            assert!(fits(&service["spec"]["selector"]), "{service}");
        }
        for (resource, path) in [
            ("PodDisruptionBudget", "selector"),
            ("NetworkPolicy", "podSelector"),
        ] {
            let found = of_kind(&resources, resource)[0];
            assert!(fits(&found["spec"][path]["matchLabels"]), "{found}");
        }
        let monitor = &of_kind(&resources, "ServiceMonitor")[0]["spec"];
        let wanted = monitor["selector"]["matchLabels"]
            .as_object()
            .expect("labels");
        let port = monitor["endpoints"][0]["port"].as_str().expect("a port");
        let services = of_kind(&resources, "Service");
        let monitored = services.iter().find(|service| {
            let own = &service["metadata"]["labels"];
            wanted.iter().all(|(key, value)| own[key] == *value)
        });
        let ports = monitored.expect("a service that is monitored")["spec"]["ports"].clone();
        assert_eq!(ports[0]["name"], port);
    }
}

#[test]
fn component_for_io_uring_names_the_profile() {
    let directory = tempfile::tempdir_in(shipped("kubernetes")).expect("a directory");
    for kind in KINDS {
        let text = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../{kind}]\ncomponents: [../io-uring]\n"
        );
        std::fs::write(directory.path().join("kustomization.yaml"), text).expect("the file");
        let path = directory.path().to_str().expect("a path");
        let built = run("kustomize", &["build", path], "");
        assert!(
            built.contains("localhostProfile: profiles/ringmain.json"),
            "{built}"
        );
    }
}

#[test]
fn compose_file_is_accepted_and_its_configuration_is_too() {
    let compose = compose();
    let service = &compose["services"]["ringmain"];
    let variables: Vec<(String, String)> = service["environment"]
        .as_object()
        .expect("variables")
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
        .collect();
    let config = configuration(&text("ringmain.toml"), &variables);
    let wanted = format!("{}s", drain_seconds(&config) + SPARE);
    assert_eq!(service["stop_grace_period"], wanted.as_str());
    for option in service["security_opt"].as_array().expect("options") {
        if let Some(profile) = option
            .as_str()
            .and_then(|text| text.strip_prefix("seccomp:"))
        {
            assert!(shipped(profile).exists(), "{profile}");
        }
    }
    assert_eq!(service["read_only"], true);
}

#[test]
fn configuration_of_the_image_lets_nobody_in_by_itself() {
    let config = configuration(&text("ringmain.toml"), &[]);
    assert!(config.http_api.key.0.is_empty());
    assert!(!config.client.insecure);
    assert!(config.client.token.hmac_secret_key.0.is_empty());
}

#[test]
fn dockerfile_has_no_fault_and_ends_in_an_image_without_rights_and_shell() {
    let path = shipped("Dockerfile");
    run("hadolint", &[path.to_str().expect("a path")], "");
    let file = text("Dockerfile");
    let last = file.rsplit("\nFROM ").next().expect("a stage");
    assert!(last.starts_with("scratch"), "{last}");
    assert!(last.contains("\nUSER 65532:65532\n"));
    assert!(last.contains("CMD [\"ringmain\", \"health\"]"));
}

/// What `.dockerignore` lets into a build.
fn context() -> Vec<PathBuf> {
    let ignored = std::fs::read_to_string(root().join(".dockerignore")).expect("the file");
    let taken = ignored.lines().filter_map(|line| line.strip_prefix('!'));
    taken
        .flat_map(|pattern| match pattern.split_once('*') {
            None => vec![PathBuf::from(pattern)],
            Some((directory, ending)) => {
                let entries = std::fs::read_dir(root().join(directory)).expect("a directory");
                entries
                    .map(|entry| Path::new(directory).join(entry.expect("an entry").file_name()))
                    .filter(|path| path.to_string_lossy().ends_with(ending))
                    .collect()
            }
        })
        .collect()
}

/// Files that the sources take in while they are compiled.
fn included(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            included(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (at, _) in text.match_indices("include_") {
            let rest = &text[at..];
            let is_call = rest.starts_with("include_str!(") || rest.starts_with("include_bytes!(");
            let name = rest.split('"').nth(1).unwrap_or_default();
            if is_call && name.contains('.') && !name.contains("env!") {
                found.insert(path.parent().expect("a directory").join(name));
            }
        }
    }
}

#[test]
fn what_the_image_is_built_from_is_enough_for_the_build() {
    let context = context();
    let directory = tempfile::tempdir().expect("a directory");
    for path in &context {
        let link = directory.path().join(path);
        std::fs::create_dir_all(link.parent().expect("a directory")).expect("a directory");
        assert!(root().join(path).exists(), "{}", path.display());
        std::os::unix::fs::symlink(root().join(path), link).expect("a link");
    }
    let status = Command::new(program("cargo"))
        .args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--offline",
            "--quiet",
        ])
        .current_dir(directory.path())
        .stdout(std::process::Stdio::null())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo misses a file");
    let mut files = BTreeSet::new();
    included(&root().join("src"), &mut files);
    for file in files {
        let file = file.canonicalize().expect("a file");
        let own = file.strip_prefix(root()).expect("below the root");
        // Keys and vectors of unit tests.
        if own.starts_with("tests") {
            continue;
        }
        assert!(
            context.iter().any(|path| own.starts_with(path)),
            "{} is not among what the image is built from",
            own.display()
        );
    }
}

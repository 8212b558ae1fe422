//! Dashboard and alerts: every metric that they name exists, and Prometheus reads them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::http::Http;
use crate::support::process::{Server, Start, config};
use crate::support::token::{after, sign};
use crate::support::wait;
use crate::tools::{run, shipped, text};

/// Names of metrics in a text: our own and those of the process.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("ringmain_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// A histogram's name, whichever of its series is meant.
fn family(name: &str, is_known: impl Fn(&str) -> bool) -> Option<String> {
    let endings = ["", "_bucket", "_sum", "_count"];
    endings
        .iter()
        .filter_map(|ending| name.strip_suffix(ending))
        .find(|name| is_known(name))
        .map(str::to_owned)
}

fn documented() -> BTreeSet<String> {
    let page = format!("{}/docs/reference/metrics.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(page).expect("the reference");
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// A process with everything on that brings metrics of its own: a hook, a durable log, a queue group that is behind, a dead letter.
fn busy(directory: &std::path::Path) -> (Server, Client) {
    let server = Start::with_config(&config(&format!(
        r#"
[rpc.proxy]
endpoint = "http://127.0.0.1:9/rpc"
[rpc.without_namespace]
proxy_enabled = true
[durable.embedded]
directory = "{}"
[[channel.namespaces]]
name = "orders"
delivery = "durable"
"#,
        directory.join("log").display()
    )))
    .run();
    let consume = json!({ "sub": "w", "exp": after(600), "consume": { "*": ["orders:*"] } });
    let mut worker = Client::with_token(&server, &sign(&consume));
    let group = json!({ "group": "g", "channels": ["orders:*"], "credit": 1 });
    worker.ok(
        "rpc",
        &json!({ "method": "ringmain.consume", "data": group }),
    );
    server.api_result("publish", &json!({ "channel": "orders:1", "data": {} }));
    let fetch =
        json!({ "group": "h", "channels": ["orders:*"], "max_attempts": 1, "wait_ms": 5000 });
    let got = server.api_result("queue/fetch", &fetch);
    let nak = json!({ "delivery": got["deliveries"][0]["delivery"] });
    server.api_result("queue/nak", &nak);
    (server, worker)
}

fn scrape(server: &Server) -> String {
    Http::open(server.admin).get("/metrics", &[]).text()
}

fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .chain(dashboard["annotations"]["list"].as_array().expect("a list"))
        .map(|target| target["expr"].as_str().expect("an expression").to_owned())
        .collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&text("grafana.json")).expect("JSON")
}

#[test]
fn every_metric_of_dashboard_and_alerts_is_documented_and_scraped() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, _worker) = busy(directory.path());
    let rules = text("prometheus-rules.yaml");
    let named = metrics_in(&(expressions(&dashboard()).join("\n") + &rules));
    assert!(named.len() > 50, "{named:?}");
    let documented = documented();
    let unknown: Vec<_> = named
        .iter()
        .filter(|name| family(name, |name| documented.contains(name)).is_none())
        .collect();
    assert!(unknown.is_empty(), "not in the reference: {unknown:?}");
    // The age of a group's oldest comes a few seconds after the publication, a letter after its last attempt.
    let missing = wait::until("every metric to be scraped", || {
        let page = scrape(&server);
        let scraped: BTreeSet<&str> = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        let missing: Vec<_> = named
            .iter()
            .filter(|name| !scraped.contains(name.as_str()))
            .cloned()
            .collect();
        let is_only_late = missing
            .iter()
            .any(|name| name.starts_with("ringmain_group_") || name == "ringmain_dead_letters");
        (!is_only_late).then_some(missing)
    });
    assert!(missing.is_empty(), "not in /metrics: {missing:?}");
}

#[test]
fn a_real_scrape_has_no_fault_that_promtool_knows() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, _worker) = busy(directory.path());
    run("promtool", &["check", "metrics"], &scrape(&server));
}

#[test]
fn alerts_are_read_by_prometheus_and_fire_when_they_should() {
    let rules = shipped("prometheus-rules.yaml");
    let rules = rules.to_str().expect("a path");
    run("promtool", &["check", "rules", rules], "");
    let cases = "tests/deploy/prometheus-rules.test.yaml";
    run("promtool", &["test", "rules", cases], "");
}

/// The alerts by name, with the lines of each.
fn alerts() -> Vec<(String, String)> {
    let rules = text("prometheus-rules.yaml");
    let mut parts = rules.split("- alert: ").skip(1);
    let named = |part: &str| {
        let (name, lines) = part.split_once('\n').expect("a name and its lines");
        (name.to_owned(), lines.to_owned())
    };
    parts.by_ref().map(named).collect()
}

#[test]
fn every_alert_has_a_summary_a_test_and_a_part_of_the_documentation_that_exists() {
    let cases = format!(
        "{}/tests/deploy/prometheus-rules.test.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    let cases = std::fs::read_to_string(cases).expect("the cases");
    let page = format!("{}/docs/troubleshooting.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(page).expect("the page");
    let anchors: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    for (name, lines) in alerts() {
        assert!(lines.contains("summary: "), "{name} has no summary");
        assert!(lines.contains("severity: "), "{name} has no severity");
        assert!(
            cases.contains(&format!("alertname: {name}\n")),
            "{name} has no test"
        );
        let runbook = lines.lines().find_map(|line| {
            line.trim()
                .strip_prefix("runbook: docs/troubleshooting.md#")
        });
        let anchor = runbook.unwrap_or_else(|| panic!("{name} has no runbook"));
        assert!(anchors.contains(anchor), "{name}: no heading `{anchor}`");
    }
}

#[test]
fn every_expression_of_the_dashboard_is_one_for_prometheus() {
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    let expressions = expressions(&dashboard());
    for (at, expression) in expressions.iter().enumerate() {
        let expression = expression
            .replace("$__rate_interval", "1m")
            .replace("$instance", ".*");
        assert!(!expression.contains('$'), "{expression}");
        rules.push_str(&format!(
            "  - record: e{at}\n    expr: {}\n",
            json!(expression)
        ));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dashboard.yaml");
    std::fs::write(&path, rules).expect("the file");
    let told = run(
        "promtool",
        &["check", "rules", path.to_str().expect("a path")],
        "",
    );
    let expected = format!("{} rules found", expressions.len());
    assert!(told.contains(&expected), "{told}");
}

#[test]
fn panels_of_the_dashboard_lie_beside_each_other() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].to_string()), "{}", panel["id"]);
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} covers another", panel["title"]);
            }
        }
    }
}

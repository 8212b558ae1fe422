//! Files that are made to hurt: the real binary says what is wrong with each, soon, with status 2 and no value.

use std::fmt::Write as _;
use std::time::Duration;

use crate::command::{Ran, run_with};
use crate::support::wait::now;

/// Reads a file of this name with these bytes; the importer must refuse it.
fn refused(name: &str, bytes: &[u8]) -> Ran {
    let before = now();
    let ran = run_with(name, bytes, &["--env"], &[]);
    assert_eq!(ran.status, Some(2), "{name}: {}", ran.errors);
    assert!(ran.output.is_empty(), "{name}");
    assert!(
        ran.errors.contains(name) && ran.errors.len() < 1000,
        "{name}: {}",
        ran.errors
    );
    assert!(now() - before < Duration::from_secs(20), "{name} is slow");
    ran
}

#[test]
fn ten_megabytes_are_refused_unread() {
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(10 << 20));
    for name in ["large.json", "large.yaml", "large.toml", "large.conf"] {
        let ran = refused(name, large.as_bytes());
        assert!(ran.errors.contains("larger than"), "{}", ran.errors);
    }
}

#[test]
fn deep_nesting_is_refused() {
    for depth in [100, 100_000] {
        let json = format!("{{\"a\": {}1{}}}", "[".repeat(depth), "]".repeat(depth));
        refused("deep.json", json.as_bytes());
        refused("deep.yaml", json.as_bytes());
        let toml = format!("a = {}1{}", "[".repeat(depth), "]".repeat(depth));
        refused("deep.toml", toml.as_bytes());
        refused("deep", json.as_bytes());
        refused("unclosed.yaml", "{a: ".repeat(depth).as_bytes());
        refused(
            "dots.json",
            format!("{{\"{}a\": 1}}", "a.".repeat(depth)).as_bytes(),
        );
    }
    let mut block = String::new();
    for level in 0..1000 {
        writeln!(block, "{}a:", " ".repeat(level)).expect("text");
    }
    refused("block.yaml", block.as_bytes());
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut nodes = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let alias = format!("*a{}", level - 1);
        writeln!(
            nodes,
            "a{level}: &a{level} [{}]",
            vec![alias; 10].join(", ")
        )
        .expect("text");
    }
    let ran = refused("nodes.yaml", nodes.as_bytes());
    assert!(ran.errors.contains("more than"), "{}", ran.errors);
    let text = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1 << 20),
        vec!["*a"; 10_000].join(", ")
    );
    refused("text.yaml", text.as_bytes());
    let merged = "a: &a {x: 1}\nb: {<<: *a, y: 2}\n";
    let ran = run_with("merged.yaml", merged.as_bytes(), &[], &[]);
    assert_eq!(ran.status, Some(3), "a few are fine: {}", ran.errors);
}

#[test]
fn bytes_that_are_not_utf8_are_refused() {
    for name in ["bytes.json", "bytes.yaml", "bytes.toml", "bytes"] {
        let ran = refused(name, b"{\"a\": \"\xff\xfe\"}");
        assert!(ran.errors.contains("UTF-8"), "{}", ran.errors);
    }
}

#[test]
fn key_that_is_given_twice_is_refused_rather_than_lost() {
    let json = br#"{"http_api": {"key": "s3cret", "key": "0ther"}}"#;
    let yaml = b"http_api:\n  key: s3cret\n  key: 0ther\n";
    let toml = b"[http_api]\nkey = \"s3cret\"\nkey = \"0ther\"\n";
    for (name, bytes) in [
        ("twice.json", &json[..]),
        ("twice.yaml", yaml),
        ("twice.toml", toml),
    ] {
        let ran = refused(name, bytes);
        assert!(!ran.errors.contains("s3cret") && !ran.errors.contains("0ther"));
    }
}

#[test]
fn many_unknown_keys_are_all_reported_soon() {
    let mut text = String::from("{");
    for index in 0..20_000 {
        write!(text, "\"nonsense_{index}\": {index},").expect("text");
    }
    text.push_str("\"log\": {}}");
    let before = now();
    let ran = run_with("many.json", text.as_bytes(), &[], &[]);
    assert_eq!(ran.status, Some(3));
    assert!(ran.errors.contains("nonsense_0:") && ran.errors.contains("nonsense_19999:"));
    assert!(now() - before < Duration::from_secs(30), "slow");
}

#[test]
fn text_that_is_no_file_of_any_format_says_so_for_each() {
    let ran = refused("noise", b"\x00\x01{]");
    assert!(
        ran.errors.contains("JSON") && ran.errors.contains("YAML") && ran.errors.contains("TOML"),
        "{}",
        ran.errors
    );
}

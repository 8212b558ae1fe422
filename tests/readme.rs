//! What the README says about configuration is what the program reads.

use ringmain::config::namespace::OPTIONS;
use ringmain::config::{Config, Source};

const README: &str = include_str!("../README.md");

#[test]
fn the_table_of_options_is_the_set_the_program_reads() {
    let table = README
        .split_once("<!-- options")
        .and_then(|(_, rest)| rest.split_once("<!-- /options -->"))
        .expect("the table")
        .0;
    let written: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let expected: Vec<String> = OPTIONS
        .iter()
        .map(|(key, kind, default, meaning)| {
            format!("| `{key}` | {kind} | `{default}` | {meaning} |")
        })
        .collect();
    assert_eq!(
        written,
        expected,
        "replace the rows by:\n{}\n",
        expected.join("\n")
    );
}

#[test]
fn the_example_configuration_is_valid() {
    let text = README
        .split_once("```toml\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .expect("an example")
        .0;
    let config = Config::load(
        &[Source {
            name: "README.md",
            text,
        }],
        &[],
    )
    .expect("a valid configuration");
    let chat = config
        .channels
        .resolve("chat:1")
        .expect("the namespace of the example");
    assert!(chat.force_recovery && chat.keeps_history());
}

//! The README is short, and what it says about configuration is what the program reads.

use ringmain::config::{Config, Source};

const README: &str = include_str!("../README.md");

#[test]
fn the_first_page_is_short() {
    assert!(README.len() <= 8 * 1024, "{} bytes", README.len());
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

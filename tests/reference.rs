//! The reference pages are what the program says of itself.

use std::process::Command;

#[test]
fn every_page_of_the_reference_is_what_the_program_prints() {
    let mut differ = Vec::new();
    let pages = ringmain::reference::PAGES.iter().map(|page| page.name);
    for name in pages.chain(["commands"]) {
        let printed = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args(["help", name])
            .env_remove("RINGMAIN_CONFIG")
            .output()
            .expect("the program runs");
        assert!(printed.status.success(), "help {name}");
        let path = format!("{}/docs/reference/{name}.md", env!("CARGO_MANIFEST_DIR"));
        let written = std::fs::read(path).unwrap_or_default();
        if written != printed.stdout {
            differ.push(name);
        }
    }
    assert!(
        differ.is_empty(),
        "make these anew: for page in {}; do ringmain help $page > docs/reference/$page.md; done",
        differ.join(" ")
    );
}

#[test]
fn help_knows_commands_and_pages_and_says_when_it_knows_nothing() {
    let help = |topic: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .arg("help")
            .args(topic)
            .output()
            .expect("the program runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    };
    let (status, text) = help(&[]);
    assert_eq!(status, Some(0));
    for name in ["serve", "configuration", "commands"] {
        assert!(text.contains(name), "{name} is not listed:\n{text}");
    }
    let (status, text) = help(&["token"]);
    assert!(status == Some(0) && text.contains("--user"), "{text}");
    let (status, text) = help(&["nonsense"]);
    assert!(status == Some(2) && text.contains("`nonsense`"), "{text}");
}

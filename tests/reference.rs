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

/// Literals behind a marker in a text, up to the next quote.
fn literals<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(before)
        .filter_map(move |(at, _)| text[at + before.len()..].split('"').next())
}

#[test]
fn every_member_of_what_hooks_send_and_take_is_in_the_page_of_hooks() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).expect("a file");
    let page = read("docs/hooks.md");
    let code = |path: &str| {
        let text = read(path);
        let end = text.find("#[cfg(test)]").unwrap_or(text.len());
        text[..end].to_owned()
    };
    let request = code("src/control/hooks/request.rs");
    let answer = code("src/control/hooks/answer.rs");
    let mut names: Vec<String> = Vec::new();
    for write in [
        "text",
        "text_some",
        "plain",
        "array",
        "raw",
        "raw_if_json",
        "number",
        "flag",
    ] {
        let before = format!("body.{write}(\"");
        names.extend(literals(&request, &before).map(str::to_owned));
    }
    for table in answer.split("fields!(").skip(1) {
        let table = &table[..table.find("});").expect("its end")];
        let parts = table
            .split(" =>")
            .filter_map(|part| part.rsplit('"').nth(1));
        names.extend(parts.map(str::to_owned));
    }
    assert!(
        names.len() > 40,
        "the code reads differently now: {names:?}"
    );
    let is_named = |name: &String| {
        page.split('`')
            .skip(1)
            .step_by(2)
            .any(|code| code == *name || code.contains(&format!("\"{name}\"")))
            || page.contains(&format!("\"{name}\""))
    };
    names.retain(|name| !is_named(name));
    names.sort_unstable();
    names.dedup();
    assert!(names.is_empty(), "not in docs/hooks.md: {names:?}");
}

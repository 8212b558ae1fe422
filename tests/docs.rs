//! What the documentation promises to its readers: links lead somewhere, examples are accepted, sentences are short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ringmain::config::{Config, Source};

/// Words of a sentence.
const WORDS_MAX: usize = 25;
/// Characters of a line that is no row of a table.
const LINE_MAX: usize = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Pages that are written by hand, with the README.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).expect("docs");
    let mut paths: Vec<PathBuf> = docs
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    paths.sort();
    paths.push(root().join("README.md"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a page");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// A block of code: its language, its text, the line it begins at.
type Block = (String, String, usize);

/// The lines outside of blocks, with their numbers, and the blocks.
fn split(text: &str) -> (Vec<(usize, &str)>, Vec<Block>) {
    let (mut prose, mut blocks) = (Vec::new(), Vec::new());
    let mut open: Option<Block> = None;
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new(), at + 1)),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, block, _)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => prose.push((at + 1, line)),
        }
    }
    assert!(open.is_none(), "a block that does not end");
    (prose, blocks)
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let (prose, _) = split(text);
    let headings = prose.iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line)).collect()
}

fn named(path: &Path) -> String {
    path.strip_prefix(root())
        .expect("below the root")
        .display()
        .to_string()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut dead = Vec::new();
    for (path, text) in pages() {
        for (line, prose) in split(&text).0 {
            for (at, _) in prose.match_indices("](") {
                let rest = &prose[at + 2..];
                let target = &rest[..rest.find(')').unwrap_or(rest.len())];
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (file, heading) = target.split_once('#').unwrap_or((target, ""));
                let there = if file.is_empty() {
                    path.clone()
                } else {
                    path.parent().expect("a directory").join(file)
                };
                let is_there = there.exists()
                    && (heading.is_empty()
                        || anchors(&fs::read_to_string(&there).unwrap_or_default())
                            .contains(heading));
                if !is_there {
                    dead.push(format!("{}:{line}: {target}", named(&path)));
                }
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// Sentences of a paragraph, code as one word.
fn sentences(paragraph: &str) -> Vec<String> {
    let mut plain = String::new();
    for (at, part) in paragraph.split('`').enumerate() {
        plain.push_str(if at % 2 == 0 { part } else { "code" });
    }
    let marked = plain
        .replace(". ", ".\n")
        .replace("? ", "?\n")
        .replace(": ", ":\n");
    marked.lines().map(str::to_owned).collect()
}

#[test]
fn sentences_are_short_and_lines_fit() {
    let mut long = Vec::new();
    for (path, text) in pages() {
        let mut paragraph = String::new();
        let (mut prose, _) = split(&text);
        prose.push((0, ""));
        for (line, text) in prose {
            let is_row = text.starts_with('|');
            if text.chars().count() > LINE_MAX && !is_row && !text.contains("](") {
                long.push(format!(
                    "{}:{line}: a line of over {LINE_MAX}",
                    named(&path)
                ));
            }
            let ends = text.trim().is_empty() || is_row || text.starts_with(['#', '-', '<']);
            if ends {
                for sentence in sentences(&paragraph) {
                    let words = sentence.split_whitespace().count();
                    if words > WORDS_MAX {
                        long.push(format!(
                            "{}:{line}: {words} words: {sentence}",
                            named(&path)
                        ));
                    }
                    if sentence.contains(';') {
                        long.push(format!("{}:{line}: a semicolon: {sentence}", named(&path)));
                    }
                }
                paragraph.clear();
            }
            if !is_row && !text.starts_with(['#', '<']) {
                paragraph.push_str(text.trim_start_matches(['-', ' ']));
                paragraph.push(' ');
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_configuration_and_every_json_of_a_page_can_be_read() {
    let mut wrong = Vec::new();
    for (path, text) in pages() {
        for (language, block, line) in split(&text).1 {
            let at = format!("{}:{line}", named(&path));
            let found = match language.as_str() {
                "toml" => {
                    let source = Source {
                        name: &at,
                        text: &block,
                    };
                    Config::load(&[source], &[])
                        .err()
                        .map(|errors| errors.to_string())
                }
                "json" => block
                    .trim()
                    .lines()
                    .map(serde_json::from_str::<serde_json::Value>)
                    .find_map(Result::err)
                    .and_then(|_| {
                        serde_json::from_str::<serde_json::Value>(&block)
                            .err()
                            .map(|error| error.to_string())
                    }),
                "sh" | "js" | "python" | "go" | "text" | "nginx" | "mermaid" | "ini"
                | "haproxy" | "yaml" => None,
                other => Some(format!("a block in `{other}`")),
            };
            wrong.extend(found.map(|error| format!("{at}: {error}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_linked_from_another_one() {
    let pages = pages();
    let lonely: Vec<String> = pages
        .iter()
        .filter(|(path, _)| !path.ends_with("README.md"))
        .filter(|(path, _)| {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            !pages.iter().any(|(other, text)| {
                other != path
                    && (text.contains(&format!("]({name}")) || text.contains(&format!("/{name}")))
            })
        })
        .map(|(path, _)| named(path))
        .collect();
    assert!(lonely.is_empty(), "nothing leads to {lonely:?}");
}

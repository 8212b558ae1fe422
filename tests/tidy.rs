//! The house's rules that no compiler and no lint checks: who may import whom, where `unsafe` may stand, how large
//! a file may grow. `src/ARCHITECTURE.md` says why.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 800;

/// Modules by layer. A module imports lower layers only.
const LAYERS: &[&[&str]] = &[
    &["image", "limits", "model", "time"],
    &["config", "mem", "mesh", "metrics", "wire"],
    &["auth", "broker", "protocol"],
    &["speaker"],
    &["session"],
    &["shard"],
    &["bench", "doctor", "import", "tools", "upstream", "uring"],
    &["control", "reactor"],
    &["reference"],
];

/// What state as bytes is made of, what the mesh and the configuration carry besides layer 0, and what the tools of layer 6 look at.
const SAME_LAYER: &[(&str, &str)] = &[
    ("image", "limits"),
    ("image", "model"),
    ("image", "time"),
    ("mesh", "config"),
    ("mesh", "metrics"),
    ("config", "wire"),
    ("config", "mem"),
    ("bench", "uring"),
    ("doctor", "uring"),
    ("tools", "upstream"),
    ("tools", "doctor"),
];

/// Modules with a shorter list than their layer gives them.
const RESTRICTED: &[(&str, &[&str])] = &[
    ("bench", &["limits", "model", "time", "wire", "uring"]),
    (
        "doctor",
        &[
            "limits", "model", "time", "config", "mem", "mesh", "metrics", "wire", "uring",
        ],
    ),
    ("import", &["limits", "config"]),
    (
        "tools",
        &[
            "limits", "model", "time", "config", "mesh", "wire", "doctor",
        ],
    ),
    (
        "upstream",
        &[
            "limits", "model", "time", "config", "mem", "mesh", "metrics", "wire",
        ],
    ),
    (
        "uring",
        &[
            "limits", "model", "time", "config", "mem", "mesh", "metrics", "wire",
        ],
    ),
];

/// Where the runtime of the shard threads may be named: files, and directories of the files' children.
const MONOIO: &[&str] = &["src/reactor/portable.rs", "src/reactor/portable/"];

/// What a core that is told everything never says.
const OUTSIDE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::",
    "thread_local",
    "std::fs",
    "std::env",
    "env::",
    "std::process",
    "std::os",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "tokio",
    "monoio",
    "mio",
    "io_uring",
    "libc",
    "socket2",
    "getrandom",
    "Mutex",
    "RwLock",
    "Condvar",
    "OnceLock",
    "LazyLock",
    "static mut",
    "async fn",
    ".await",
];

/// Facts of formats, protocols and kernels: bounds that stand where they are obeyed, because nobody chose them.
const GIVEN: &[(&str, &str)] = &[
    ("src/config/file/form.rs", "UNIX_PATH_BYTES_MAX"),
    ("src/config/file/web_origin.rs", "T_MIN"),
    ("src/config/file/web_origin.rs", "T_MAX"),
    ("src/main.rs", "CORES_MAX"),
    ("src/protocol/disconnect.rs", "CLOSE_REASON_BYTES_MAX"),
    ("src/wire/fossil.rs", "DIGITS_MAX"),
    ("src/wire/websocket/deflate.rs", "WINDOW_BITS_MAX"),
    ("src/wire/websocket/deflate.rs", "WINDOW_BITS_MIN"),
    ("src/wire/websocket/header.rs", "CLIENT_HEADER_BYTES_MAX"),
    ("src/wire/websocket/header.rs", "SERVER_HEADER_BYTES_MAX"),
    ("src/wire/websocket/header.rs", "CONTROL_PAYLOAD_BYTES_MAX"),
];

/// Commands of an operator, which serve no peer.
const SERVES_NOBODY: &[&str] = &["bench", "doctor", "import", "reference", "tools"];

/// Words that name no role.
const VAGUE: &[&str] = &[
    "Manager", "Helper", "Util", "Utils", "Handler", "Worker", "Topic", "Room", "Bus",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `directory` with this ending, as paths from the root.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(
                    path.strip_prefix(root())
                        .expect("below the root")
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Blanks comments, strings and characters, so that words in them do not count. Line breaks stay.
fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = comment(rest).or_else(|| literal(text, at));
        if let Some(length) = skipped {
            out.extend(
                rest[..length]
                    .chars()
                    .map(|c| if c == '\n' { '\n' } else { ' ' }),
            );
            at += length;
        } else {
            let c = rest.chars().next().expect("not at the end");
            out.push(c);
            at += c.len_utf8();
        }
    }
    out
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let inside = rest.strip_prefix("/*")?;
    Some(inside.find("*/").map_or(rest.len(), |end| end + 4))
}

/// Length of the string or character literal that starts at `at`.
fn literal(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let follows_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let raw = rest.trim_start_matches(['b', 'c']);
    if !follows_word && raw.starts_with('r') && raw[1..].trim_start_matches('#').starts_with('"') {
        let hashes = raw[1..].len() - raw[1..].trim_start_matches('#').len();
        let open = rest.len() - raw.len() + 2 + hashes;
        let close = format!("\"{}", "#".repeat(hashes));
        return Some(
            rest[open..]
                .find(&close)
                .map_or(rest.len(), |end| open + end + close.len()),
        );
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        // A character, unless it is a lifetime: 'a' and '\n' have a quote behind, 'a has none.
        let mut inside = inside.chars();
        let is_character = match inside.next() {
            Some('\\') => true,
            Some(_) => inside.next() == Some('\''),
            None => false,
        };
        return is_character.then(|| quoted(rest, '\''));
    }
    None
}

/// Length of the literal up to its closing quote.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// The file without its unit tests, which stand at its end.
fn without_tests(code: &str) -> &str {
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]") {
        let start = from + at;
        let after = code[start + 12..].trim_start();
        if after.starts_with("mod ") {
            return &code[..start];
        }
        from = start + 12;
    }
    code
}

/// Lines in which the word stands, not as a part of a longer one.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    let is_whole = |start: usize| {
        let before = word.starts_with(joins) && code[..start].ends_with(joins);
        let after = word.ends_with(joins) && code[start + word.len()..].starts_with(joins);
        !before && !after
    };
    let hits = code
        .match_indices(word)
        .filter(|(start, _)| is_whole(*start));
    hits.map(|(start, _)| code[..start].matches('\n').count() + 1)
        .collect()
}

/// The first part of the module path: `session` for `src/session/fanout.rs`.
fn module(path: &Path) -> String {
    let part = path
        .components()
        .nth(1)
        .expect("below src")
        .as_os_str()
        .to_string_lossy();
    part.trim_end_matches(".rs").to_owned()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn may_import(module: &str, imported: &str) -> bool {
    if module == imported || SAME_LAYER.contains(&(module, imported)) {
        return true;
    }
    if let Some((_, allowed)) = RESTRICTED.iter().find(|(name, _)| *name == module) {
        return allowed.contains(&imported);
    }
    layer(imported) < layer(module)
}

/// Modules of this crate that the code names, with the line.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, prefix) in code.match_indices("crate::") {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..start].matches('\n').count() + 1;
        let rest = &code[start + prefix.len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group[..group.find(';').unwrap_or(group.len())]
                .split(',')
                .collect(),
            None => vec![rest],
        };
        for name in names {
            let name = name.trim_start();
            let end = name
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(name.len());
            found.push((line, name[..end].to_owned()));
        }
    }
    found
}

/// Sources of the library with their code; the binary's own files are above all layers.
fn library() -> Vec<(PathBuf, String)> {
    let sources = files("src", ".rs").into_iter();
    let above = ["main", "cli", "lib"];
    sources
        .filter(|path| !above.contains(&module(path).as_str()))
        .map(|path| (path.clone(), code(&read(&path))))
        .collect()
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_module_has_a_layer() {
    let unknown: BTreeSet<String> = library()
        .iter()
        .map(|(path, _)| module(path))
        .filter(|name| layer(name).is_none())
        .collect();
    assert!(
        unknown.is_empty(),
        "put them into LAYERS and into src/ARCHITECTURE.md: {unknown:?}"
    );
}

#[test]
fn modules_import_lower_layers_only() {
    let mut found = Vec::new();
    for (path, code) in library() {
        let module = module(&path);
        for (line, imported) in imports(without_tests(&code)) {
            if layer(&imported).is_some() && !may_import(&module, &imported) {
                found.push(format!(
                    "{}:{line}: {module} may not import {imported}",
                    path.display()
                ));
            }
        }
    }
    none("imports against the layers", &found);
}

/// The module that a file is, from the root: `[session, fanout]` for `src/session/fanout.rs`.
fn module_path(path: &Path) -> Vec<String> {
    let file = path.with_extension("");
    let parts = file.components().skip(1);
    parts
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect()
}

/// What the code of a module names by `crate::` or `super::`, from the root; all words of a group in braces, however deep.
fn named(module: &[String], code: &str) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !is_word(c));
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|c: char| is_word(c) || c == ':' || c == '$') {
                continue;
            }
            let rest = &code[at..];
            let end = rest.find(|c: char| !is_word(c) && c != ':');
            let (path, behind) = rest.split_at(end.unwrap_or(rest.len()));
            let path = words(path);
            let ups = path.iter().take_while(|word| *word == "super").count();
            let mut base = if ups == 0 {
                Vec::new()
            } else {
                module[..module.len().saturating_sub(ups)].to_vec()
            };
            base.extend(path[ups.max(1)..].iter().cloned());
            if let Some(group) = behind.strip_prefix('{') {
                let group = &group[..group.find(';').unwrap_or(group.len())];
                found.extend(words(group).into_iter().map(|word| {
                    let mut one = base.clone();
                    one.push(word);
                    one
                }));
            }
            found.push(base);
        }
    }
    found
}

#[test]
fn no_two_files_of_a_directory_import_each_other() {
    let files: Vec<(Vec<String>, String)> = library()
        .into_iter()
        .map(|(path, code)| (module_path(&path), without_tests(&code).to_owned()))
        .filter(|(module, _)| !module.iter().any(|part| part == "tests"))
        .collect();
    let modules: BTreeSet<&[String]> = files.iter().map(|(module, _)| &module[..]).collect();
    // Where two modules part: the children of one parent that they are, or are below.
    let mut edges: BTreeSet<(Vec<String>, Vec<String>)> = BTreeSet::new();
    for (module, code) in &files {
        for name in named(module, code) {
            let longest = (1..=name.len()).rev();
            let whole = longest
                .map(|len| &name[..len])
                .find(|it| modules.contains(it));
            let Some(imported) = whole else {
                continue;
            };
            let shared = module
                .iter()
                .zip(imported)
                .take_while(|(a, b)| a == b)
                .count();
            if shared < module.len() && shared < imported.len() {
                edges.insert((module[..=shared].to_vec(), imported[..=shared].to_vec()));
            }
        }
    }
    // Whoever imports nobody, or is imported by nobody, is in no circle.
    loop {
        let before = edges.len();
        let imported: BTreeSet<Vec<String>> = edges.iter().map(|(_, to)| to.clone()).collect();
        let importing: BTreeSet<Vec<String>> = edges.iter().map(|(from, _)| from.clone()).collect();
        edges.retain(|(from, to)| imported.contains(from) && importing.contains(to));
        if edges.len() == before {
            break;
        }
    }
    let found: Vec<String> = edges
        .iter()
        .map(|(from, to)| format!("{} imports {}", from.join("::"), to.join("::")))
        .collect();
    none("import circles", &found);
}

#[test]
fn nothing_reaches_the_crate_root_by_super() {
    let mut found = Vec::new();
    for (path, code) in library() {
        let depth = path.components().count() - 1;
        let chain = "super::".repeat(depth);
        for line in lines_with(without_tests(&code), &chain) {
            found.push(format!("{}:{line}", path.display()));
        }
    }
    none(
        "siblings of the top named by super, where layers cannot be seen",
        &found,
    );
}

#[test]
fn unsafe_stands_in_uring_only() {
    let mut found = Vec::new();
    for path in files("src", ".rs")
        .into_iter()
        .chain(files("benches", ".rs"))
    {
        if path.starts_with("src/uring") || path == Path::new("src/uring.rs") {
            continue;
        }
        for line in lines_with(&code(&read(&path)), "unsafe") {
            found.push(format!("{}:{line}", path.display()));
        }
    }
    none("unsafe outside src/uring", &found);
}

#[test]
fn monoio_is_named_where_the_threads_are_made_only() {
    let mut found = Vec::new();
    for path in files("src", ".rs") {
        if MONOIO.iter().any(|allowed| path.starts_with(allowed)) {
            continue;
        }
        for line in lines_with(&code(&read(&path)), "monoio") {
            found.push(format!("{}:{line}", path.display()));
        }
    }
    none("monoio named elsewhere", &found);
}

#[test]
fn core_names_nothing_of_the_outside() {
    let mut found = Vec::new();
    for (path, code) in library() {
        if layer(&module(&path)).is_none_or(|layer| layer > 5) {
            continue;
        }
        for word in OUTSIDE {
            for line in lines_with(without_tests(&code), word) {
                found.push(format!("{}:{line}: {word}", path.display()));
            }
        }
    }
    none("the outside in the sans-io core", &found);
}

#[test]
fn files_stay_small_and_are_not_called_mod() {
    let mut found = Vec::new();
    for path in files("src", ".rs")
        .into_iter()
        .chain(files("tests", ".rs"))
        .chain(files("benches", ".rs"))
    {
        let text = read(&path);
        let lines = without_tests(&text).lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{}: {lines} lines", path.display()));
        }
        if path.ends_with("mod.rs") {
            found.push(format!(
                "{}: the house uses foo.rs and foo/",
                path.display()
            ));
        }
    }
    none("files to split or rename", &found);
}

/// Files that the `mod` declarations of `path` name, and whether by `#[path]`. Children of `foo.rs` stand in `foo/`;
/// those of a root, and of a file that was named by its path, stand beside it.
fn declared(path: &Path, is_root: bool) -> Vec<(PathBuf, bool)> {
    let text = read(path);
    let code = code(&text);
    let home = path.parent().expect("a directory").to_owned();
    let own = if is_root {
        home.clone()
    } else {
        path.with_extension("")
    };
    let mut inside: Vec<(i32, PathBuf)> = Vec::new();
    let mut depth = 0;
    let mut named = None;
    let mut found = Vec::new();
    for (line, original) in code.lines().zip(text.lines()) {
        if let Some(start) = original.trim_start().strip_prefix("#[path = \"") {
            named = start.split('"').next().map(str::to_owned);
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(at) = words.iter().position(|word| *word == "mod")
            && let Some(name) = words.get(at + 1)
        {
            let directory = inside.last().map_or(&own, |(_, directory)| directory);
            if let Some(name) = name.strip_suffix(';') {
                found.push(match named.take() {
                    Some(path) => (home.join(path), true),
                    None => (directory.join(format!("{name}.rs")), false),
                });
            } else if line.contains('{') {
                let directory = directory.join(name.trim_end_matches('{'));
                inside.push((depth, directory));
            }
        }
        depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
        while inside.last().is_some_and(|(outer, _)| depth <= *outer) {
            inside.pop();
        }
    }
    found
}

#[test]
fn every_file_belongs_to_a_module_tree() {
    let is_root = |path: &Path| {
        let top = path.components().count() == 2;
        top && (path.starts_with("tests")
            || path.starts_with("benches")
            || path.ends_with("lib.rs")
            || path.ends_with("main.rs"))
    };
    let all: Vec<PathBuf> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|directory| files(directory, ".rs"))
        .collect();
    let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
    let mut open: Vec<(PathBuf, bool)> = all
        .iter()
        .filter(|path| is_root(path))
        .map(|path| (path.clone(), true))
        .collect();
    while let Some((path, is_root)) = open.pop() {
        if reached.insert(path.clone()) && root().join(&path).exists() {
            open.extend(declared(&path, is_root));
        }
    }
    let orphans: Vec<String> = all
        .iter()
        .filter(|path| !reached.contains(*path))
        .map(|path| path.display().to_string())
        .collect();
    none("files that nothing declares", &orphans);
}

#[test]
fn every_limit_is_enforced_somewhere() {
    let limits = code(&read(Path::new("src/limits.rs")));
    let others: String = files("src", ".rs")
        .into_iter()
        .filter(|path| module(path) != "limits")
        .map(|path| without_tests(&code(&read(&path))).to_owned())
        .collect();
    let mut found = Vec::new();
    for line in limits.lines() {
        let Some(rest) = line.trim().strip_prefix("pub const ") else {
            continue;
        };
        let name = rest.split(':').next().expect("a name");
        if lines_with(&others, name).is_empty() {
            found.push(name.to_owned());
        }
    }
    none("limits that nobody reads", &found);
}

/// Names of constants with the line, but for those that are text.
fn constants(code: &str) -> Vec<(usize, &str)> {
    let lines = code.lines().enumerate();
    lines
        .filter_map(|(number, line)| {
            let (_, declared) = line.split_once("const ")?;
            let (name, kind) = declared.split_once(": ")?;
            let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            (name.chars().all(is_name) && !kind.starts_with('&')).then_some((number + 1, name))
        })
        .collect()
}

#[test]
fn bounds_stand_in_limits() {
    let mut found = Vec::new();
    let mut given = GIVEN.to_vec();
    for path in files("src", ".rs") {
        if path.ends_with("tests.rs") {
            continue;
        }
        let module = module(&path);
        if module == "limits" || SERVES_NOBODY.contains(&module.as_str()) {
            continue;
        }
        let code = code(&read(&path));
        for (line, name) in constants(without_tests(&code)) {
            let is_bound = |word| matches!(word, "MAX" | "MIN" | "LIMIT");
            if !name.split('_').any(is_bound) {
                continue;
            }
            let is_this = |&(file, known): &(&str, &str)| path == Path::new(file) && name == known;
            match given.iter().position(is_this) {
                Some(at) => drop(given.remove(at)),
                None => found.push(format!("{}:{line}: {name}", path.display())),
            }
        }
    }
    none(
        "bounds for src/limits.rs (a step's size has another name: PER_TURN, AT_ONCE, KEPT)",
        &found,
    );
    assert!(given.is_empty(), "not there any more: {given:?}");
}

#[test]
fn names_say_what_a_thing_is() {
    let mut found = Vec::new();
    for path in files("src", ".rs") {
        let code = code(&read(&path));
        for (number, line) in code.lines().enumerate() {
            let words: Vec<&str> = line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty())
                .collect();
            for pair in words.windows(2) {
                let is_type = matches!(pair[0], "struct" | "enum" | "trait" | "type")
                    && VAGUE.iter().any(|vague| pair[1].ends_with(vague));
                if is_type || pair[0] == "fn" && pair[1].starts_with("get_") {
                    found.push(format!("{}:{}: {}", path.display(), number + 1, pair[1]));
                }
            }
        }
    }
    none("names without a meaning", &found);
}

#[test]
fn tests_wait_for_events_and_are_never_ignored() {
    let mut found = Vec::new();
    for path in files("tests", ".rs").into_iter().chain(files("src", ".rs")) {
        let text = read(&path);
        let code = code(&text);
        let tests = if path.starts_with("tests") {
            &code[..]
        } else {
            &code[without_tests(&code).len()..]
        };
        let before = code.len() - tests.len();
        for word in ["sleep", "#[ignore"] {
            for line in lines_with(tests, word) {
                found.push(format!(
                    "{}:{}: {word}",
                    path.display(),
                    line + code[..before].matches('\n').count()
                ));
            }
        }
    }
    none("tests that sleep or are skipped", &found);
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    // Put together here, so that this file does not name them either.
    let places: Vec<String> = ["work", "root", "farm", "home"]
        .iter()
        .map(|top| format!("/{top}/"))
        .collect();
    let kept = [
        "src", "tests", "benches", "scripts", ".ci", "tuning", "docs",
    ];
    let top = ["Cargo.toml", "README.md", ".clippy.toml", ".gitignore"]
        .into_iter()
        .map(PathBuf::from);
    let mut found = Vec::new();
    for path in kept
        .iter()
        .flat_map(|directory| files(directory, ""))
        .chain(top)
    {
        if path.components().any(|part| {
            matches!(
                part.as_os_str().to_str(),
                Some("node_modules" | "__pycache__")
            )
        }) {
            continue;
        }
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let is_path = |place: &String| {
                line.match_indices(place.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| {
                        c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '}' | ')')
                    })
                })
            };
            if places.iter().any(is_path) {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    none("absolute paths of a machine", &found);
}

#[test]
fn places_that_the_map_names_exist() {
    let map = read(Path::new("src/ARCHITECTURE.md"));
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_' || c == '/';
    let named = map.split(|c: char| !is_part(c));
    let is_there = |place: &str| {
        Path::new(&format!("src/{place}.rs")).is_file()
            || Path::new(&format!("src/{place}")).is_dir()
    };
    let missing: BTreeSet<&str> = named
        .map(|place| place.trim_matches('/'))
        .filter(|place| {
            let first = place.split('/').next().unwrap_or_default();
            place.contains('/') && layer(first).is_some() && !is_there(place)
        })
        .collect();
    assert!(
        missing.is_empty(),
        "named in src/ARCHITECTURE.md and not there: {missing:?}"
    );
}

//! The programs of others that the tests run. One that is missing fails its test: `scripts/test` installs them all.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file of `deploy/`.
pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

/// The text of a file of `deploy/`.
pub(crate) fn text(name: &str) -> String {
    let path = shipped(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where `scripts/test` puts what only these tests use: Python packages and published schemas.
fn own() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_ringmain"));
    let target = binary.ancestors().nth(2).expect("target/debug/ringmain");
    target.join("deploy")
}

/// A published schema.
pub(crate) fn schema(name: &str) -> String {
    let path = own().join("schemas").join(name);
    assert!(
        path.exists(),
        "{name} is not there: `scripts/test deploy` brings it"
    );
    path.display().to_string()
}

/// A program on the PATH, where Debian puts those of administrators, where Go puts those it builds, or of the Python packages.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let go = std::env::var_os("GOPATH")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join("go")));
    std::iter::once(own().join("python/bin"))
        .chain(std::env::split_paths(&path))
        .chain([PathBuf::from("/usr/sbin")])
        .chain(go.map(|directory| directory.join("bin")))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: `scripts/test deploy` brings it"))
}

/// Runs a program that must succeed, and gives what it printed.
pub(crate) fn run(name: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new(program(name))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    // Whoever reads nothing of it may have ended.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).is_ok());
    let output = child.wait_with_output().expect("it ends");
    let _ = writer.join();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{name} {}: {}\n{text}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

//! The development set-up for a start without configuration: generated secrets, loopback only, a page that works.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Config, ListenAddr};

/// Where generated secrets are kept, relative to the working directory.
pub const DATA_DIRECTORY: &str = "ringmain-data";
/// How long the printed token counts.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Who the printed token says its bearer is.
pub const USER: &str = "developer";
/// Whom a second token is for, to see two people at once.
pub const OTHER_USER: &str = "guest";
/// The channel of the page.
pub const CHANNEL: &str = "lobby";

/// Bytes of randomness in a secret; in its file they are twice as many hexadecimal digits.
const SECRET_BYTES: usize = 32;

/// Secrets that are generated once and kept across runs.
pub struct Secrets {
    /// Signs tokens.
    pub hmac_secret: String,
    /// Opens the server API.
    pub api_key: String,
    /// Opens what the admin listener does not show to everybody.
    pub admin_key: String,
}

/// Why there are no secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file or the directory cannot be used.
    #[error("{path}: {error}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file holds something else.
    #[error("{0} does not hold a generated secret: delete it and a new one is made")]
    NotASecret(PathBuf),
    /// Others than this host could reach it.
    #[error(
        "the development set-up, which is used where there is no configuration, serves this host only, not {0}; write a ringmain.toml (tuning/ringmain.example.toml explains every key), or set keys in the environment, such as RINGMAIN__CLIENT__TOKEN__HMAC_SECRET_KEY, and listen there"
    )]
    Exposed(ListenAddr),
    /// The kernel gives no randomness.
    #[error("no randomness for a secret")]
    NoRandomness,
}

impl Secrets {
    /// Reads the secrets in `directory`, and makes the directory (0700) and the files (0600) that are missing.
    ///
    /// # Errors
    /// When the directory or a file cannot be used.
    pub fn open(directory: &Path) -> Result<Self, SecretsError> {
        let failed = |error| SecretsError::File {
            path: directory.to_owned(),
            error,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
        Ok(Self {
            hmac_secret: secret(&directory.join("hmac_secret"))?,
            api_key: secret(&directory.join("api_key"))?,
            admin_key: secret(&directory.join("admin_key"))?,
        })
    }
}

/// Were secrets made in this directory?
#[must_use]
pub fn is_there(directory: &Path) -> bool {
    directory.join("hmac_secret").exists()
}

/// Where the development set-up would be reached by others than this host; `None` if nowhere. Its page, its open channels
/// and a token in its address are for whoever sits here.
#[must_use]
pub fn exposed(config: &Config) -> Option<&ListenAddr> {
    let server = &config.server;
    let all = server
        .listen
        .iter()
        .chain(&server.internal_listen)
        .chain(&config.admin.listen);
    all.into_iter()
        .find(|listen| matches!(listen, ListenAddr::Tcp(at) if !at.ip().is_loopback()))
}

fn secret(path: &Path) -> Result<String, SecretsError> {
    let failed = |error| SecretsError::File {
        path: path.to_owned(),
        error,
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = generate()?;
            write_private(path, &text).map_err(failed)?;
            return Ok(text);
        }
        Err(error) => return Err(failed(error)),
    };
    let text = text.trim();
    if text.len() != 2 * SECRET_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(SecretsError::NotASecret(path.to_owned()));
    }
    // A copied directory may have lost its modes.
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(text.to_owned())
}

fn generate() -> Result<String, SecretsError> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| SecretsError::NoRandomness)?;
    let mut text = String::with_capacity(2 * SECRET_BYTES);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes every write");
    }
    Ok(text)
}

/// Whole or not at all, and never readable by others.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// The development configuration as TOML, read by the same code as every other configuration. `listen` holds the addresses of the
/// page: nothing else may open a WebSocket from a browser.
#[must_use]
pub fn configuration(secrets: &Secrets, listen: &[String]) -> String {
    let origins: Vec<String> = listen
        .iter()
        .flat_map(|address| origins(address))
        .map(|origin| format!("{origin:?}"))
        .collect();
    format!(
        r#"[admin]
key = "{admin_key}"

[client]
allowed_origins = [{origins}]

[client.token]
hmac_secret_key = "{hmac_secret}"

[http_api]
key = "{api_key}"

[drain]
notice = "0s"

[channel.without_namespace]
presence = true
join_leave = true
force_push_join_leave = true
history_size = 100
history_ttl = "5m"
force_recovery = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_presence_for_client = true
allow_history_for_client = true

[durable.embedded]
directory = "{DATA_DIRECTORY}/log"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true
"#,
        origins = origins.join(", "),
        hmac_secret = secrets.hmac_secret,
        api_key = secrets.api_key,
        admin_key = secrets.admin_key,
    )
}

/// Origins of the page at `address`. The port is part of an origin; port 0 is not known yet, so that any port of this host counts.
fn origins(address: &str) -> Vec<String> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Vec::new();
    };
    if host == "unix" || port.parse::<u16>().is_err() {
        return Vec::new();
    }
    let port = if port == "0" { "*" } else { port };
    let mut origins = vec![format!("http://{host}:{port}")];
    if matches!(host, "127.0.0.1" | "[::1]") {
        origins.push(format!("http://localhost:{port}"));
    }
    origins
}

/// Where a client of this machine reaches an address.
fn reachable(address: &str) -> String {
    let address = address
        .replacen("0.0.0.0", "127.0.0.1", 1)
        .replacen("[::]", "[::1]", 1);
    format!("http://{address}")
}

/// What is printed once the shards are ready. `listen` are the addresses with the ports the kernel gave.
#[must_use]
pub fn welcome(listen: &[String], [token, other]: [&str; 2], api_key: &str) -> String {
    let tcp = listen.iter().find(|address| !address.starts_with("unix:"));
    let (base, socket) = match (tcp, listen.first()) {
        (Some(address), _) => (reachable(address), String::new()),
        (None, Some(unix)) => {
            let path = unix.trim_start_matches("unix:");
            (
                "http://localhost".to_owned(),
                format!("--unix-socket '{path}' "),
            )
        }
        (None, None) => (String::new(), String::new()),
    };
    format!(
        r#"
  ringmain runs in its development set-up: no configuration was found, so it made one.
  Secrets are kept in ./{DATA_DIRECTORY}; only pages from this address may connect.

  Open this page, it shows the live channel `{CHANNEL}`, and work that is not lost:

    {base}/#token={token}&other={other}

  Publish to it from a shell:

    curl {socket}-H 'X-API-Key: {api_key}' -d '{{"channel":"{CHANNEL}","data":{{"text":"hello from curl"}}}}' {base}/api/publish

  Token of user `{USER}` for an SDK, valid for {hours} hours:

    {token}

"#,
        hours = TOKEN_LIFE.as_secs() / 3600,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_private_and_kept_across_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        let first = Secrets::open(&data).expect("secrets");
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("hmac_secret")), 0o600);
        assert_eq!(mode(&data.join("api_key")), 0o600);
        assert_eq!(fs::read_dir(&data).expect("a directory").count(), 3);
        assert_ne!(first.hmac_secret, first.api_key);
        fs::set_permissions(data.join("api_key"), Permissions::from_mode(0o644)).expect("a mode");
        let second = Secrets::open(&data).expect("secrets");
        assert_eq!(
            (first.hmac_secret, first.api_key),
            (second.hmac_secret, second.api_key)
        );
        assert_eq!(mode(&data.join("api_key")), 0o600);
    }

    #[test]
    fn a_file_that_holds_something_else_is_named_and_not_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("api_key"), "mine").expect("written");
        let error = Secrets::open(directory.path()).err().expect("an error");
        assert!(
            matches!(&error, SecretsError::NotASecret(path) if path.ends_with("api_key")),
            "{error}"
        );
        assert_eq!(
            fs::read_to_string(directory.path().join("api_key")).expect("a file"),
            "mine"
        );
    }

    #[test]
    fn only_the_page_itself_may_connect_from_a_browser() {
        assert_eq!(
            origins("127.0.0.1:8000"),
            ["http://127.0.0.1:8000", "http://localhost:8000"]
        );
        assert_eq!(origins("[::1]:0"), ["http://[::1]:*", "http://localhost:*"]);
        assert_eq!(origins("unix:/run/x.sock"), Vec::<String>::new());
    }

    #[test]
    fn the_welcome_can_be_pasted() {
        let text = welcome(
            &["unix:/x".to_owned(), "127.0.0.1:8123".to_owned()],
            ["TOKEN", "OTHER"],
            "KEY",
        );
        assert!(
            text.contains("http://127.0.0.1:8123/#token=TOKEN&other=OTHER\n"),
            "{text}"
        );
        assert!(text.contains("curl -H 'X-API-Key: KEY'"), "{text}");
        let text = welcome(&["unix:/x y".to_owned()], ["TOKEN", "OTHER"], "KEY");
        assert!(
            text.contains("curl --unix-socket '/x y' -H 'X-API-Key: KEY'"),
            "{text}"
        );
        assert!(text.contains(" http://localhost/api/publish\n"), "{text}");
    }
}

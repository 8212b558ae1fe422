//! A real PostgreSQL server of a test, with a directory and a port of its own. It never runs as root.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, Row};

/// Role and password of every server.
pub(crate) const ROLE: &str = "ringmain";
pub(crate) const PASSWORD: &str = "secret-of-the-database";
/// Whom Debian's package makes.
const OWNER: &str = "postgres";

/// One server, killed when it is dropped.
pub(crate) struct PostgresServer {
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
    guard: Option<Child>,
}

impl PostgresServer {
    /// A new server that does not wait for its disk: only processes are killed here.
    pub(crate) fn start() -> Self {
        Self::start_with(&["fsync=off"])
    }

    /// A new server with these settings.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Self {
            port: free_port(),
            settings: settings.iter().map(|one| (*one).to_owned()).collect(),
            process: None,
            guard: None,
            directory,
        };
        server.initialise();
        server.restart();
        server
    }

    fn initialise(&self) {
        let secret = self.directory.path().join("secret");
        std::fs::write(&secret, PASSWORD).expect("a password");
        if is_root() {
            let mut command = Command::new("chown");
            command.args(["-R", OWNER]).arg(self.directory.path());
            assert!(command.status().expect("chown").success());
        }
        let output = command("initdb")
            .arg("--pgdata")
            .arg(self.data())
            .args(["--username", ROLE, "--encoding=UTF8", "--locale=C"])
            .args(["--auth=scram-sha-256", "--no-sync"])
            .arg("--pwfile")
            .arg(&secret)
            .output()
            .expect("initdb");
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where clients connect.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// A file with the password, as mounted secrets are: with a line break.
    pub(crate) fn password_file(&self) -> PathBuf {
        let path = self.directory.path().join("mounted");
        std::fs::write(&path, format!("{PASSWORD}\n")).expect("a password");
        path
    }

    /// Starts it with what it has stored, and waits until it lets clients in.
    pub(crate) fn restart(&mut self) {
        for _ in 0..600 {
            // What a killed one has left may still be there.
            let is_over = |child: &mut Child| child.try_wait().expect("a process").is_some();
            if self.process.as_mut().is_none_or(is_over) {
                self.kill();
                self.spawn();
            }
            if Database::try_open(self.port).is_some() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        panic!("postgres lets nobody in:\n{log}");
    }

    fn spawn(&mut self) {
        let log = File::create(self.directory.path().join("log")).expect("a log");
        let mut command = command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-k"])
            .arg(self.directory.path());
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres");
        self.guard = Some(guard(child.id()));
        self.process = Some(child);
    }

    /// `kill -9` of the server; its children end when they notice.
    pub(crate) fn kill(&mut self) {
        for mut process in self.guard.take().into_iter().chain(self.process.take()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// A connection.
    pub(crate) fn open(&self) -> Database {
        Database::try_open(self.port).expect("a server that lets us in")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection that waits for every answer.
pub(crate) struct Database {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Database {
    /// A connection, if the server lets us in now.
    pub(crate) fn try_open(port: u16) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(port)
            .user(ROLE)
            .password(PASSWORD)
            .dbname("postgres")
            .connect_timeout(Duration::from_secs(5));
        let client = runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await.ok()?;
            tokio::spawn(connection);
            Some(client)
        })?;
        Some(Self { runtime, client })
    }

    /// Statements that must succeed.
    pub(crate) fn run(&self, statements: &str) {
        if let Err(error) = self.try_run(statements) {
            panic!("{statements}: {error:?}");
        }
    }

    pub(crate) fn try_run(&self, statements: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(statements))
    }

    /// The one row of a question.
    pub(crate) fn row(&self, question: &str) -> Row {
        let row = self.runtime.block_on(self.client.query_one(question, &[]));
        row.unwrap_or_else(|error| panic!("{question}: {error:?}"))
    }

    /// A number.
    pub(crate) fn number(&self, question: &str) -> i64 {
        self.row(question).get(0)
    }
}

/// A program of the server, for whoever may run it.
fn command(program: &str) -> Command {
    let program = directory().join(program);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", OWNER, "--regid", OWNER, "--clear-groups"])
        .arg(program);
    command
}

/// Where the programs are: `POSTGRES_BIN`, or where Debian puts the newest.
fn directory() -> PathBuf {
    if let Some(path) = std::env::var_os("POSTGRES_BIN") {
        return path.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let versions = versions.filter_map(|entry| entry.ok());
    let version = |path: &Path| -> u32 {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    let newest = versions
        .map(|entry| entry.path())
        .max_by_key(|path| version(path));
    newest.expect("Debian's package postgresql").join("bin")
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id");
    output.stdout.trim_ascii() == b"0"
}

/// Kills the server when this test process is gone, however it ends: the guard's standard input closes with it.
fn guard(pid: u32) -> Child {
    Command::new("sh")
        .args(["-c", &format!("read _; kill -9 {pid} 2>/dev/null")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

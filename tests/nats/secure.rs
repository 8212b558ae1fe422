//! Servers that ask who is there, and prove who they are.

use std::path::Path;

use async_nats::jetstream;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use ringmain::config::durable::Durable;
use ringmain::upstream::log::Entries as _;
use ringmain::upstream::nats::Jetstream;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{all, append_one, config, open, publication, run, until};
use crate::nats_server::NatsServer;

/// A JWT as NATS wants it.
fn signed(by: &KeyPair, about: &KeyPair, name: &str, nats: &Value) -> String {
    let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({
        "jti": name, "iat": 1_700_000_000, "iss": by.public_key(), "name": name, "sub": about.public_key(), "nats": nats,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&head), part(&claims));
    let signature = by.sign(text.as_bytes()).expect("a signature");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A server of an operator with one account, and the credentials of one of its users in `directory`.
fn with_credentials(directory: &Path) -> NatsServer {
    let (operator, account, user) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    );
    let system = KeyPair::new_account();
    let of_operator = json!({"type": "operator", "version": 2});
    let without_streams = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let mut limits = without_streams.clone();
    for unlimited in ["mem_storage", "disk_storage", "streams", "consumer"] {
        limits[unlimited] = json!(-1);
    }
    let of_account = json!({"type": "account", "version": 2, "limits": limits});
    let of_user = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let of_system = json!({"type": "account", "version": 2, "limits": without_streams});
    let settings = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
        signed(&operator, &operator, "operator", &of_operator),
        system.public_key(),
        account.public_key(),
        signed(&operator, &account, "account", &of_account),
        system.public_key(),
        signed(&operator, &system, "system", &of_system),
    );
    let path = directory.join("nats.conf");
    std::fs::write(&path, settings).expect("written");
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        signed(&account, &user, "user", &of_user),
        user.seed().expect("a seed"),
    );
    std::fs::write(directory.join("user.creds"), credentials).expect("written");
    let mut server = NatsServer::stopped(vec![format!("--config={}", path.display())]);
    server.restart();
    server
}

/// What is said of a log that does not get in, without what must not be said.
async fn refusal(config: &Durable, secret: &str) -> String {
    let log = Jetstream::connect(config).await.expect("settings");
    let is_of_connection = |reason: &str| reason != "not connected yet";
    let reason = until("a refusal", async || {
        let down = log.status().down.map(|reason| reason.to_string());
        down.filter(|reason| is_of_connection(reason))
    });
    let reason = reason.await;
    assert!(!reason.contains(secret), "{reason}");
    reason
}

async fn works(config: &Durable) {
    let log = open(config).await;
    let stored = append_one(&log, publication("orders:1", "x")).await;
    stored.expect("stored");
    assert_eq!(all(&log, "orders:1").await.1.len(), 1);
}

#[test]
fn server_with_a_certificate_and_a_token_is_used_by_whoever_has_both() {
    let directory = TempDir::new().expect("a directory");
    let names = vec!["127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (certificate, key) = (
        directory.path().join("c.pem"),
        directory.path().join("k.pem"),
    );
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let mut server = NatsServer::stopped(vec![
        "--tls".to_owned(),
        format!("--tlscert={}", certificate.display()),
        format!("--tlskey={}", key.display()),
        "--auth=sesame".to_owned(),
    ]);
    server.restart();
    run(async {
        let mut config = config(&server);
        config.nats.tls_ca = certificate;
        config.nats.token.0 = "sesame".to_owned();
        works(&config).await;
        config.nats.token.0 = "wrong-token".to_owned();
        let reason = refusal(&config, "wrong-token").await;
        assert!(reason.to_lowercase().contains("authorization"), "{reason}");
        // A certificate that nobody vouches for.
        config.nats.token.0 = "sesame".to_owned();
        let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
        let path = directory.path().join("other.pem");
        std::fs::write(&path, other.expect("a certificate").cert.pem()).expect("written");
        config.nats.tls_ca = path;
        let log = Jetstream::connect(&config).await.expect("settings");
        let refused = append_one(&log, publication("orders:1", "x")).await;
        refused.expect_err("another server's certificate");
    });
}

#[test]
fn credentials_of_an_account_open_its_streams() {
    let directory = TempDir::new().expect("a directory");
    let server = with_credentials(directory.path());
    run(async {
        let mut config = config(&server);
        let refused = Jetstream::connect(&config).await.expect("settings");
        append_one(&refused, publication("orders:1", "x"))
            .await
            .expect_err("nobody without credentials");
        config.nats.credentials = directory.path().join("user.creds");
        works(&config).await;
    });
}

#[test]
fn stream_keeps_as_many_bytes_as_it_may() {
    let server = NatsServer::start();
    run(async {
        let mut config = config(&server);
        config.retention_bytes = 64 << 10;
        let log = open(&config).await;
        for _ in 0..100 {
            let stored = append_one(&log, publication("orders:1", &"x".repeat(2048))).await;
            stored.expect("stored");
        }
        let (position, entries) = all(&log, "orders:1").await;
        assert_eq!(position.offset.0, 100);
        let bytes = entries.len() * 2048;
        assert!(
            bytes <= 64 << 10 && entries.len() > 10,
            "{} entries",
            entries.len()
        );
        assert_eq!(
            entries.last().map(|entry| entry.position.offset.0),
            Some(100)
        );
        let client = async_nats::connect(server.url()).await.expect("connected");
        let mut stream = jetstream::new(client)
            .get_stream("RINGMAIN")
            .await
            .expect("the stream");
        let state = stream.info().await.expect("its state").state.clone();
        assert!(state.bytes <= 64 << 10, "{} bytes", state.bytes);
    });
}

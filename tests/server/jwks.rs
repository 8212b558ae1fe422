//! Keys of tokens by URL: whatever the service with the keys does, clients get the defined answers, and the service is
//! asked no more than it must be.

#![expect(
    clippy::disallowed_types,
    reason = "the service of the tests is told by another thread how to behave"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::client::{Client, Encoding, PATH, upgrade};
use crate::support::process::{API_KEY, Server, Start};
use crate::support::token::after;
use crate::support::wait;

/// What the service answers.
#[derive(Clone)]
enum Behaviour {
    /// A response with this status and body.
    Respond(u16, Vec<u8>),
    /// Reads the request and says nothing.
    Hang,
    /// Bytes that are no HTTP.
    Garbage,
}

/// A small real HTTP server.
struct Service {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Service {
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::over(listener, behaviour)
    }

    fn over(listener: TcpListener, behaviour: Behaviour) -> Self {
        let service = Self {
            address: listener.local_addr().expect("an address"),
            behaviour: Arc::new(Mutex::new(behaviour)),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let behaviour = Arc::clone(&service.behaviour);
        let (requests, connections) = (
            Arc::clone(&service.requests),
            Arc::clone(&service.connections),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::SeqCst);
                let (behaviour, requests) = (Arc::clone(&behaviour), Arc::clone(&requests));
                std::thread::spawn(move || serve(stream, &behaviour, &requests));
            }
        });
        service
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("no panic before") = behaviour;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, behaviour: &Mutex<Behaviour>, requests: &AtomicUsize) {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        while !received.ends_with(b"\r\n\r\n") {
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(length) => received.extend_from_slice(&chunk[..length]),
            }
        }
        received.clear();
        requests.fetch_add(1, Ordering::SeqCst);
        let behaviour = behaviour.lock().expect("no panic before").clone();
        let bytes = match behaviour {
            Behaviour::Respond(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                [head.as_bytes(), &body].concat()
            }
            Behaviour::Hang => continue,
            Behaviour::Garbage => b"\x00\x01\x02 no HTTP at all\r\n\r\n".to_vec(),
        };
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

const RSA: &[u8] = include_bytes!("../vectors/keys/rsa.pem");
const RSA_OTHER: &[u8] = include_bytes!("../vectors/keys/rsa-other.pem");
const P256: &[u8] = include_bytes!("../vectors/keys/p256.pem");
const P384: &[u8] = include_bytes!("../vectors/keys/p384.pem");
const ED25519: &[u8] = include_bytes!("../vectors/keys/ed25519.pem");

fn key(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(P256),
        Algorithm::ES384 => EncodingKey::from_ec_pem(P384),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED25519),
        _ => EncodingKey::from_rsa_pem(RSA),
    }
    .expect("a key")
}

/// A key as a service publishes it. No `alg`, as many services do.
fn published(id: &str, key: &EncodingKey, algorithm: Algorithm) -> Value {
    let jwk = Jwk::from_encoding_key(key, algorithm).expect("a public key");
    let mut jwk = serde_json::to_value(jwk).expect("JSON");
    jwk["kid"] = json!(id);
    jwk["use"] = json!("sig");
    jwk.as_object_mut().expect("an object").remove("alg");
    jwk
}

fn set(keys: &[Value]) -> Behaviour {
    Behaviour::Respond(200, json!({ "keys": keys }).to_string().into_bytes())
}

fn set_of(ids: &[&str]) -> Behaviour {
    let key = key(Algorithm::ES256);
    let keys: Vec<Value> = ids
        .iter()
        .map(|id| published(id, &key, Algorithm::ES256))
        .collect();
    set(&keys)
}

fn token(id: &str, algorithm: Algorithm, claims: &Value) -> String {
    let header = Header {
        kid: Some(id.to_owned()),
        ..Header::new(algorithm)
    };
    jsonwebtoken::encode(&header, claims, &key(algorithm)).expect("a token")
}

fn user(id: &str) -> String {
    token(id, Algorithm::ES256, &json!({ "sub": "42" }))
}

fn config(address: SocketAddr) -> String {
    format!(
        r#"
[http_api]
key = "{API_KEY}"

[client]
allow_anonymous_connect_without_token = true

[client.token]
hmac_secret_key = "a secret that counts for nothing here"
jwks_public_endpoint = "http://{address}/keys.json"

[channel.without_namespace]
presence = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_presence_for_subscriber = true
allow_presence_for_anonymous = true
"#
    )
}

fn start(service: &Service) -> Server {
    Start::with_config(&config(service.address)).shards(2).run()
}

fn close_code(server: &Server, token: &str) -> u16 {
    let mut client = Client::open(server);
    client.send("connect", &json!({ "token": token }));
    client.ended().code
}

fn connect(server: &Server, token: &str) -> Value {
    Client::open(server).call("connect", &json!({ "token": token }))
}

#[test]
fn c22_tokens_of_published_keys_set_the_user() {
    let algorithms = [
        Algorithm::RS256,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];
    let keys: Vec<Value> = algorithms
        .iter()
        .map(|algorithm| published(&format!("{algorithm:?}"), &key(*algorithm), *algorithm))
        .collect();
    let service = Service::start(set(&keys));
    let server = start(&service);
    for algorithm in algorithms {
        let token = token(
            &format!("{algorithm:?}"),
            algorithm,
            &json!({ "sub": "42", "exp": after(60) }),
        );
        let mut client = Client::with_token(&server, &token);
        client.subscribe("c22");
        let presence = client.ok("presence", &json!({ "channel": "c22" }));
        assert_eq!(presence["presence"][&client.id]["user"], "42");
        let refreshed = client.ok("refresh", &json!({ "token": token }));
        assert_eq!(refreshed["expires"], true, "{algorithm:?}");
    }
    assert_eq!(service.requests(), 1, "one fetch serves all");
    let wrong = jsonwebtoken::encode(
        &Header {
            kid: Some("RS256".to_owned()),
            ..Header::new(Algorithm::RS256)
        },
        &json!({ "sub": "42" }),
        &EncodingKey::from_rsa_pem(RSA_OTHER).expect("a key"),
    );
    assert_eq!(close_code(&server, &wrong.expect("a token")), 3500);
    let secret = crate::support::token::sign(&json!({ "sub": "42" }));
    assert_eq!(close_code(&server, &secret), 3500, "own keys are replaced");
    assert_eq!(service.requests(), 1);
}

#[test]
fn key_that_is_published_later_counts_and_one_that_is_withdrawn_does_not() {
    let service = Service::start(set_of(&["first"]));
    let server = start(&service);
    assert!(!Client::with_token(&server, &user("first")).id.is_empty());
    service.behave(set_of(&["second"]));
    assert!(!Client::with_token(&server, &user("second")).id.is_empty());
    assert_eq!(service.requests(), 2);
    assert_eq!(close_code(&server, &user("first")), 3500);
}

#[test]
fn command_that_waits_for_a_key_keeps_its_place_before_those_behind_it() {
    let service = Service::start(Behaviour::Hang);
    let server = start(&service);
    let mut client = Client::open(&server);
    let token = user("late");
    client.send_text(&format!(
        "{}\n{}\n{}",
        json!({ "id": 1, "connect": { "token": token } }),
        json!({ "id": 2, "subscribe": { "channel": "a" } }),
        json!({ "id": 3, "presence": { "channel": "a" } }),
    ));
    wait::until("the connection that waits", || {
        (server.metric("ringmain_key_waiting") > 0.0).then_some(())
    });
    service.behave(set_of(&["late"]));
    // The first attempt hangs for its second; the retry finds the key.
    let replies: Vec<Value> = (0..3).map(|_| client.next()).collect();
    let ids: Vec<u64> = replies
        .iter()
        .map(|reply| reply["id"].as_u64().unwrap_or(0))
        .collect();
    assert_eq!(ids, [1, 2, 3], "{replies:?}");
    assert!(
        replies.iter().all(|reply| reply.get("error").is_none()),
        "{replies:?}"
    );
}

#[test]
fn service_that_is_down_is_a_temporary_error_and_no_reason_not_to_start() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let server = Start::with_config(&config(address)).run();
    let reply = connect(&server, &user("a"));
    assert_eq!(reply["error"]["code"], 100, "{reply}");
    assert_eq!(reply["error"]["temporary"], true);
    let mut anonymous = Client::anonymous(&server);
    anonymous.subscribe("bystander");
    let reply = anonymous.call("refresh", &json!({ "token": user("a") }));
    assert_eq!(reply["error"]["code"], 100, "{reply}");
    assert!(server.metric("ringmain_key_set_failures_total") > 0.0);
    let listener = TcpListener::bind(address).expect("the same port");
    let _service = Service::over(listener, set_of(&["a"]));
    wait::until("the keys", || {
        connect(&server, &user("a"))
            .get("error")
            .is_none()
            .then_some(())
    });
}

#[test]
fn answers_that_are_no_key_set_are_a_temporary_error_and_old_keys_stay() {
    let service = Service::start(set_of(&["old"]));
    let server = start(&service);
    assert!(!Client::with_token(&server, &user("old")).id.is_empty());
    for (at, behaviour) in [
        Behaviour::Respond(500, b"{}".to_vec()),
        Behaviour::Respond(302, b"{}".to_vec()),
        Behaviour::Respond(200, b"<html>".to_vec()),
        Behaviour::Respond(200, br#"{"keys":[]}"#.to_vec()),
        Behaviour::Respond(200, vec![b' '; 10 << 20]),
        Behaviour::Garbage,
        Behaviour::Hang,
    ]
    .into_iter()
    .enumerate()
    {
        service.behave(behaviour);
        // A failure counts for a second, so the answer may be that of the behaviour before: it is the same.
        let reply = connect(&server, &user(&format!("new-{at}")));
        assert_eq!(reply["error"]["code"], 100, "{at}: {reply}");
        assert!(!Client::with_token(&server, &user("old")).id.is_empty());
    }
}

#[test]
fn random_key_ids_are_invalid_and_do_not_multiply_fetches() {
    let service = Service::start(set_of(&["known"]));
    let server = start(&service);
    let began = wait::now();
    let mut clients: Vec<Client> = (0..60)
        .map(|at| {
            let mut client = Client::open(&server);
            client.send(
                "connect",
                &json!({ "token": user(&format!("random-{at}")) }),
            );
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.ended().code, 3500);
    }
    // Ids that were refused are not asked for again.
    for at in 0..30 {
        assert_eq!(
            close_code(&server, &user(&format!("random-{}", at % 10))),
            3500
        );
    }
    let seconds = began.elapsed().as_secs() as usize;
    assert!(
        service.requests() <= seconds + 3,
        "{} fetches in {seconds} s",
        service.requests()
    );
    assert!(service.connections.load(Ordering::SeqCst) <= 2);
    assert!(!Client::with_token(&server, &user("known")).id.is_empty());
}

#[test]
fn subscription_tokens_may_have_a_service_of_their_own() {
    let connection = Service::start(set_of(&["connection"]));
    let subscription = Service::start(set_of(&["subscription"]));
    let own = format!(
        "{}\n[client.subscription_token]\nenabled = true\njwks_public_endpoint = \"http://{}/\"\n",
        config(connection.address),
        subscription.address
    );
    let server = Start::with_config(&own).run();
    let mut client = Client::with_token(&server, &user("connection"));
    let claims = json!({ "sub": "42", "channel": "$a", "exp": after(60) });
    let good = token("subscription", Algorithm::ES256, &claims);
    let result = client.ok("subscribe", &json!({ "channel": "$a", "token": good }));
    assert_eq!(result["expires"], true);
    let result = client.ok("sub_refresh", &json!({ "channel": "$a", "token": good }));
    assert_eq!(result["expires"], true);
    let claims = json!({ "sub": "42", "channel": "$b" });
    let bad = token("connection", Algorithm::ES256, &claims);
    assert_eq!(
        client.error("subscribe", &json!({ "channel": "$b", "token": bad })),
        103
    );
    client.send("sub_refresh", &json!({ "channel": "$a", "token": bad }));
    client.ends_with(3500);
}

/// The key of a rotation: two pairs take turns, each time under a new id.
fn rotated(number: usize) -> (String, Algorithm) {
    let algorithm = [Algorithm::ES256, Algorithm::RS256][number % 2];
    (format!("key-{number}"), algorithm)
}

fn set_of_rotated(numbers: &[usize]) -> Behaviour {
    let one = |number: &usize| {
        let (id, algorithm) = rotated(*number);
        published(&id, &key(algorithm), algorithm)
    };
    set(&numbers.iter().map(one).collect::<Vec<_>>())
}

fn signed(number: usize, claims: &Value) -> String {
    let (id, algorithm) = rotated(number);
    token(&id, algorithm, claims)
}

/// Clients that connect and one that subscribes, each with a token of the key that is signed with now, until this is told to end.
struct Clients {
    signs: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    rounds: Arc<[AtomicU64; 3]>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(server: &Server) -> Self {
        let signs = Arc::new(AtomicUsize::new(0));
        let number = {
            let signs = Arc::clone(&signs);
            move || signs.load(Ordering::SeqCst)
        };
        let listen = server.listen;
        let connecting = |number: Box<dyn Fn() -> usize + Send>| -> Box<dyn FnMut() + Send> {
            Box::new(move || {
                let token = signed(number(), &json!({ "sub": "42", "exp": after(60) }));
                let opened = upgrade(listen, PATH, &[]);
                let mut client = Client::speaking(Encoding::Json, opened);
                let reply = client.call("connect", &json!({ "token": token }));
                assert!(reply.get("error").is_none(), "refused: {reply}");
            })
        };
        let mut subscriber = Client::with_token(server, &signed(0, &json!({ "sub": "42" })));
        let mut at = 0;
        let of_subscriber = number.clone();
        let subscribing = move || {
            at += 1;
            let channel = format!("$private{}", at % 64);
            let claims = json!({ "sub": "42", "channel": channel });
            let wanted = json!({ "channel": channel, "token": signed(of_subscriber(), &claims) });
            let reply = subscriber.call("subscribe", &wanted);
            assert!(reply.get("error").is_none(), "refused: {reply}");
            subscriber.ok("unsubscribe", &json!({ "channel": channel }));
        };
        let all: [Box<dyn FnMut() + Send>; 3] = [
            connecting(Box::new(number.clone())),
            connecting(Box::new(number)),
            Box::new(subscribing),
        ];
        let ends = Arc::new(AtomicBool::new(false));
        let rounds: Arc<[AtomicU64; 3]> = Arc::default();
        let threads = all.into_iter().enumerate().map(|(at, mut round)| {
            let (ends, rounds) = (Arc::clone(&ends), Arc::clone(&rounds));
            std::thread::spawn(move || {
                while !ends.load(Ordering::SeqCst) {
                    round();
                    rounds[at].fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        Self {
            threads: threads.collect(),
            signs,
            ends,
            rounds,
        }
    }

    /// Waits until each has begun and ended some rounds from now on.
    fn go_round(&self) {
        let counts = || -> Vec<u64> {
            let rounds = self.rounds.iter();
            rounds.map(|count| count.load(Ordering::SeqCst)).collect()
        };
        let before = counts();
        wait::until("a round of everybody", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "refused");
            let now = counts();
            let mut pairs = now.iter().zip(&before);
            pairs.all(|(now, before)| *now >= before + 5).then_some(())
        });
    }

    fn end(self) {
        self.ends.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("nobody was refused");
        }
    }
}

#[test]
fn key_sets_change_over_while_clients_connect_and_nobody_is_refused() {
    let services = [
        Service::start(set_of_rotated(&[0])),
        Service::start(set_of_rotated(&[])),
    ];
    let text = |at: usize| {
        let address = services[at].address;
        format!(
            "{}\n[client.subscription_token]\nenabled = true\njwks_public_endpoint = \"http://{address}/keys.json\"\n",
            config(address)
        )
    };
    let server = Start::with_config(&text(0)).shards(2).run();
    let clients = Clients::start(&server);
    clients.go_round();
    for number in 1..=4 {
        // Old and new together, then whoever signs goes over, then the old one is withdrawn.
        services[0].behave(set_of_rotated(&[number - 1, number]));
        clients.go_round();
        clients.signs.store(number, Ordering::SeqCst);
        clients.go_round();
        services[0].behave(set_of_rotated(&[number]));
        clients.go_round();
    }
    // Another service takes over with the same keys, by a reload.
    services[1].behave(set_of_rotated(&[4, 5]));
    let before = server.metric("ringmain_reloads_total");
    server.write_config(&text(1));
    server.signal("HUP");
    wait::until("the reload", || {
        (server.metric("ringmain_reloads_total") >= before + 2.0).then_some(())
    });
    clients.go_round();
    clients.signs.store(5, Ordering::SeqCst);
    clients.go_round();
    clients.end();
    assert!(services[1].requests() > 0, "the other one was asked");
    let withdrawn = signed(3, &json!({ "sub": "42" }));
    assert_eq!(close_code(&server, &withdrawn), 3500);
}

/// Both publish a key by the same name, and each is another one.
#[test]
fn a_key_of_one_tenants_service_is_never_one_of_another_tenant() {
    let of = |algorithm| Service::start(set(&[published("k", &key(algorithm), algorithm)]));
    let (a, b) = (of(Algorithm::ES256), of(Algorithm::ES384));
    let tenant = |id: &str, service: &Service| {
        format!(
            "[[tenants]]\nid = \"{id}\"\ntoken = {{ issuer = \"id.{id}\", jwks_public_endpoint = \"http://{}/keys.json\" }}\n",
            service.address
        )
    };
    let common = Service::start(set(&[published(
        "k",
        &key(Algorithm::EdDSA),
        Algorithm::EdDSA,
    )]));
    let text = format!(
        "{}{}{}",
        config(common.address),
        tenant("a", &a),
        tenant("b", &b)
    );
    let server = Start::with_config(&text).shards(2).run();
    let claims = |issuer: &str| json!({ "sub": "42", "iss": format!("id.{issuer}") });
    let tokens = [
        ("", token("k", Algorithm::EdDSA, &json!({ "sub": "42" }))),
        ("a", token("k", Algorithm::ES256, &claims("a"))),
        ("b", token("k", Algorithm::ES384, &claims("b"))),
    ];
    wait::until("the keys of everybody", || {
        (common.requests() > 0).then_some(())
    });
    assert_eq!((a.requests(), b.requests()), (0, 0), "nobody came to them");
    let open = |tenant: &str| match tenant {
        "" => Client::open(&server),
        id => Client::open_with(&server, &format!("/t/{id}{PATH}"), &[]),
    };
    for (whose, _) in &tokens {
        for (signed, token) in &tokens {
            let mut client = open(whose);
            if whose == signed {
                let reply = client.call("connect", &json!({ "token": token }));
                assert!(reply.get("connect").is_some(), "{whose}: {reply}");
                let channel = format!("of-{whose}");
                let claims =
                    json!({ "sub": "42", "channel": channel, "iss": format!("id.{whose}") });
                let algorithm = match *whose {
                    "a" => Algorithm::ES256,
                    "b" => Algorithm::ES384,
                    _ => Algorithm::EdDSA,
                };
                let token = self::token("k", algorithm, &claims);
                client.ok("subscribe", &json!({ "channel": channel, "token": token }));
            } else if !whose.is_empty() {
                client.send("connect", &json!({ "token": token }));
                assert_eq!(client.ended().code, 3500, "{signed} at {whose}");
            }
        }
    }
    // By its issuer alone a token leads to its tenant, and to the keys of that one.
    let mut by_issuer = Client::open(&server).connect(&json!({ "token": tokens[1].1 }));
    by_issuer.subscribe("chat");
    // What is known of them outlasts a reload.
    let before = (a.requests(), b.requests());
    server.write_config(&text.replace("presence = true", "presence = false"));
    server.signal("HUP");
    wait::until("the reload", || {
        server
            .log()
            .contains("configuration reloaded")
            .then_some(())
    });
    b.behave(Behaviour::Hang);
    for (whose, token) in &tokens[1..] {
        open(whose).ok("connect", &json!({ "token": token }));
    }
    assert_eq!((a.requests(), b.requests()), before);
}

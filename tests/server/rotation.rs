//! Every kind of secret is changed over reloads while everybody uses it, and nobody is refused for a moment.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use hmac::{Hmac, Mac as _};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::backend::{Asked, Backend, Reply};
use crate::support::client::{Client, Encoding, PATH, upgrade};
use crate::support::http::Http;
use crate::support::process::{Server, Start, config};
use crate::support::token::{sign_by, sign_with};
use crate::support::wait::{self, unix_seconds};

/// What the configuration has of each kind: what is in use, and what was before.
#[derive(Clone, Default)]
struct Known {
    token: (usize, Option<usize>),
    rsa: (usize, Option<usize>),
    ecdsa: (usize, Option<usize>),
    subscription: (usize, Option<usize>),
    hook: (usize, Option<usize>),
    api: Vec<usize>,
    admin: Vec<usize>,
}

fn secret(kind: &str, number: usize) -> String {
    format!("{kind}-secret-number-{number}-0123456789abcdef")
}

fn hash(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

const RSA: [(&str, &str); 2] = [
    (
        include_str!("../vectors/keys/rsa.pem"),
        include_str!("../vectors/keys/rsa.pub.pem"),
    ),
    (
        include_str!("../vectors/keys/rsa-other.pem"),
        include_str!("../vectors/keys/rsa-other.pub.pem"),
    ),
];
const ECDSA: [(&str, &str, Algorithm); 2] = [
    (
        include_str!("../vectors/keys/p256.pem"),
        include_str!("../vectors/keys/p256.pub.pem"),
        Algorithm::ES256,
    ),
    (
        include_str!("../vectors/keys/p384.pem"),
        include_str!("../vectors/keys/p384.pub.pem"),
        Algorithm::ES384,
    ),
];

impl Known {
    fn text(&self, backend: SocketAddr) -> String {
        let pair =
            |kind: &str, key: &str, previous: &str, (now, before): (usize, Option<usize>)| {
                let before =
                    before.map(|before| format!("{previous} = \"{}\"\n", secret(kind, before)));
                format!(
                    "{key} = \"{}\"\n{}",
                    secret(kind, now),
                    before.unwrap_or_default()
                )
            };
        let hmac =
            |kind, numbers| pair(kind, "hmac_secret_key", "hmac_previous_secret_key", numbers);
        let public = |kind: &str, pems: [&str; 2], (now, before): (usize, Option<usize>)| {
            let until = unix_seconds() + 3600;
            let before = before.map(|before| {
                format!(
                    "{kind}_previous_public_key = '''{}'''\n{kind}_previous_public_key_valid_until = {until}\n",
                    pems[before]
                )
            });
            let now = format!("{kind}_public_key = '''{}'''\n", pems[now]);
            now + &before.unwrap_or_default()
        };
        // One by one in either form.
        let keys = |table: &str, numbers: &[usize]| {
            let one = |number: &usize| {
                let key = secret(table, *number);
                let line = match number % 2 {
                    0 => format!("key = \"{key}\""),
                    _ => format!("hash = \"{}\"", hash(&key)),
                };
                format!("[[{table}.keys]]\nname = \"number-{number}\"\n{line}\n")
            };
            numbers.iter().map(one).collect::<String>()
        };
        format!(
            "[client.token]\n{}{}{}[client.subscription_token]\nenabled = true\n{}\
             [hooks]\n{}[rpc.proxy]\nendpoint = \"http://{backend}/rpc\"\n[rpc.without_namespace]\nproxy_enabled = true\n{}{}",
            hmac("token", self.token),
            public("rsa", RSA.map(|pair| pair.1), self.rsa),
            public("ecdsa", ECDSA.map(|pair| pair.1), self.ecdsa),
            hmac("subscription", self.subscription),
            pair(
                "hook",
                "signature_secret",
                "signature_previous_secret",
                self.hook
            ),
            keys("http_api", &self.api),
            keys("admin", &self.admin),
        )
    }
}

/// Which number of each kind its users use now.
#[derive(Default)]
struct Used {
    token: AtomicUsize,
    rsa: AtomicUsize,
    ecdsa: AtomicUsize,
    subscription: AtomicUsize,
    hook: AtomicUsize,
    api: AtomicUsize,
    admin: AtomicUsize,
}

/// Everybody at once, for as long as this lives.
struct Traffic {
    ends: Arc<AtomicBool>,
    /// Rounds of each that were over without a refusal.
    rounds: Arc<[AtomicU64; 7]>,
    refusals: mpsc::Receiver<String>,
    threads: Vec<JoinHandle<()>>,
}

fn connects(listen: SocketAddr, token: &str) -> Result<Client, String> {
    let mut client = Client::speaking(Encoding::Json, upgrade(listen, PATH, &[]));
    let id = client.send("connect", &json!({ "token": token }));
    loop {
        if let Err(ended) = client.receive() {
            return Err(format!("connect: {ended:?}"));
        }
        if let Some(reply) = client.unread_first() {
            assert_eq!(reply["id"], id);
            return match reply.get("error") {
                Some(error) => Err(format!("connect: {error}")),
                None => Ok(client),
            };
        }
    }
}

fn answers(address: SocketAddr, method: &str, key: &str, body: &Value) -> Result<(), String> {
    let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
    let path = format!("/api/{method}");
    let answer = Http::open(address).post(&path, &headers, body.to_string().as_bytes());
    match answer.status {
        200 => Ok(()),
        status => Err(format!("{method}: {status} {}", answer.text())),
    }
}

impl Traffic {
    fn start(server: &Server, used: &Arc<Used>) -> Self {
        let (listen, admin) = (server.listen, server.admin);
        let number = |of: fn(&Used) -> &AtomicUsize| {
            let used = Arc::clone(used);
            move || of(&used).load(Ordering::SeqCst)
        };
        let claims = || json!({ "sub": "42", "exp": unix_seconds() + 60 });
        let (token, rsa, ecdsa) = (
            number(|used| &used.token),
            number(|used| &used.rsa),
            number(|used| &used.ecdsa),
        );
        let (subscription, api, operator) = (
            number(|used| &used.subscription),
            number(|used| &used.api),
            number(|used| &used.admin),
        );
        let of_start = sign_with(
            &json!({ "sub": "42" }),
            Algorithm::HS256,
            &secret("token", 0),
        );
        let mut subscriber = connects(listen, &of_start).expect("a connection");
        let mut caller = connects(listen, &of_start).expect("a connection");
        let mut at = 0;
        type Round = Box<dyn FnMut() -> Result<(), String> + Send>;
        let all: [Round; 7] = [
            Box::new(move || {
                let secret = secret("token", token());
                connects(listen, &sign_with(&claims(), Algorithm::HS256, &secret)).map(drop)
            }),
            Box::new(move || {
                let key = EncodingKey::from_rsa_pem(RSA[rsa()].0.as_bytes()).expect("a key");
                connects(listen, &sign_by(&claims(), Algorithm::RS256, &key)).map(drop)
            }),
            Box::new(move || {
                let (pem, _, algorithm) = ECDSA[ecdsa()];
                let key = EncodingKey::from_ec_pem(pem.as_bytes()).expect("a key");
                connects(listen, &sign_by(&claims(), algorithm, &key)).map(drop)
            }),
            Box::new(move || {
                at += 1;
                let channel = format!("$private{}", at % 64);
                let claims = json!({ "sub": "42", "channel": channel });
                let secret = secret("subscription", subscription());
                let token = sign_with(&claims, Algorithm::HS256, &secret);
                let wanted = json!({ "channel": channel, "token": token });
                let reply = subscriber.call("subscribe", &wanted);
                if reply.get("error").is_some() {
                    return Err(format!("subscribe: {reply}"));
                }
                subscriber.ok("unsubscribe", &json!({ "channel": channel }));
                Ok(())
            }),
            Box::new(move || {
                let reply = caller.call("rpc", &json!({ "method": "x" }));
                match reply.get("error") {
                    Some(error) => Err(format!("rpc: {error}")),
                    None => Ok(()),
                }
            }),
            Box::new(move || {
                let body = json!({ "channel": "news", "data": 1 });
                answers(listen, "publish", &secret("http_api", api()), &body)
            }),
            Box::new(move || {
                let key = secret("admin", operator());
                answers(admin, "queue/groups", &key, &json!({}))
            }),
        ];
        let (refused, refusals) = mpsc::channel();
        let ends = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let threads = all.into_iter().enumerate().map(|(at, mut round)| {
            let (refused, ends) = (refused.clone(), Arc::clone(&ends));
            let rounds: Arc<[AtomicU64; 7]> = Arc::clone(&rounds);
            std::thread::spawn(move || {
                while !ends.load(Ordering::SeqCst) {
                    match round() {
                        Ok(()) => {
                            rounds[at].fetch_add(1, Ordering::SeqCst);
                        }
                        // The test ends with the first one.
                        Err(refusal) => return drop(refused.send(refusal)),
                    }
                }
            })
        });
        Self {
            threads: threads.collect(),
            ends,
            rounds,
            refusals,
        }
    }

    /// Fails with the first refusal.
    fn look(&self) {
        if let Ok(refusal) = self.refusals.try_recv() {
            panic!("refused: {refusal}");
        }
    }

    /// Waits until everybody has begun and ended a round from now on.
    fn go_round(&self) {
        let before: Vec<u64> = self.counts();
        wait::until("a round of everybody", || {
            self.look();
            let now = self.counts();
            let mut pairs = now.iter().zip(&before);
            pairs.all(|(now, before)| *now >= before + 2).then_some(())
        });
    }

    fn counts(&self) -> Vec<u64> {
        let rounds = self.rounds.iter();
        rounds.map(|count| count.load(Ordering::SeqCst)).collect()
    }

    fn end(mut self) -> Vec<u64> {
        self.ends.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("nobody panics");
        }
        self.look();
        self.counts()
    }
}

/// Waits until every shard has taken over a reload.
fn reload(server: &Server, text: &str) {
    let reloads = || server.metric("ringmain_reloads_total");
    let shards = server.metric("ringmain_shard_up");
    let before = reloads();
    server.write_config(text);
    server.signal("HUP");
    wait::until("the reload", || {
        (reloads() >= before + shards).then_some(())
    });
}

/// Is one of its signatures by this secret, and its time now?
fn is_signed(asked: &Asked, secret: &str) -> bool {
    let Some(header) = asked.header("X-Ringmain-Signature") else {
        return false;
    };
    let mut parts = header.split(',');
    let time = parts.next().and_then(|part| part.strip_prefix("t="));
    let time = time.expect("a time first");
    let age = unix_seconds() - time.parse::<i64>().expect("seconds");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(format!("{time}.").as_bytes());
    mac.update(&asked.raw);
    let tag = mac.finalize().into_bytes();
    let digits: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
    let is_ours = |part: &str| part.strip_prefix("v1=") == Some(&digits);
    age.abs() < 60 && parts.any(is_ours)
}

/// Takes a call if it is signed by the secret that the backend has now.
fn backend(used: &Arc<Used>) -> Backend {
    let used = Arc::clone(used);
    Backend::start(move |asked: &Asked| {
        let secret = secret("hook", used.hook.load(Ordering::SeqCst));
        match is_signed(asked, &secret) {
            true => Reply::result(json!({ "data": 1 })),
            false => Reply::Status(401),
        }
    })
}

#[test]
fn every_secret_is_changed_over_reloads_and_nobody_is_refused() {
    let used = Arc::new(Used::default());
    let backend = backend(&used);
    let mut known = Known {
        api: vec![0],
        admin: vec![0],
        ..Known::default()
    };
    let server = Start::with_config(&known.text(backend.address))
        .shards(2)
        .run();
    let traffic = Traffic::start(&server, &used);
    traffic.go_round();
    for number in [1, 0] {
        let old = 1 - number;
        // Old and new together.
        let both = (number, Some(old));
        (known.token, known.rsa, known.ecdsa) = (both, both, both);
        (known.subscription, known.hook) = (both, both);
        known.api.push(number);
        known.admin.push(number);
        reload(&server, &known.text(backend.address));
        traffic.go_round();
        // Whoever uses them goes over.
        for one in [
            &used.token,
            &used.rsa,
            &used.ecdsa,
            &used.subscription,
            &used.hook,
            &used.api,
            &used.admin,
        ] {
            one.store(number, Ordering::SeqCst);
        }
        traffic.go_round();
        // The old ones go.
        let alone = (number, None);
        (known.token, known.rsa, known.ecdsa) = (alone, alone, alone);
        (known.subscription, known.hook) = (alone, alone);
        known.api = vec![number];
        known.admin = vec![number];
        reload(&server, &known.text(backend.address));
        traffic.go_round();
        // They are refused now.
        let token = |secret: &str| sign_with(&json!({ "sub": "42" }), Algorithm::HS256, secret);
        let refused = connects(server.listen, &token(&secret("token", old)));
        assert!(refused.is_err_and(|refusal| refusal.contains("3500")));
        let publish = json!({ "channel": "news", "data": 1 });
        let api = answers(server.listen, "publish", &secret("http_api", old), &publish);
        assert!(api.is_err_and(|refusal| refusal.contains("401")));
        let admin = answers(
            server.admin,
            "queue/groups",
            &secret("admin", old),
            &json!({}),
        );
        assert!(admin.is_err_and(|refusal| refusal.contains("401")));
    }
    let counts = traffic.end();
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    let log = server.log();
    for kind in ["token", "subscription", "hook", "http_api", "admin"] {
        for number in [0, 1] {
            let secret = secret(kind, number);
            assert!(
                !log.contains(&secret) && !log.contains(&hash(&secret)[7..]),
                "{log}"
            );
        }
    }
}

/// The block of a language in the page about hooks that has these words.
fn block(language: &str, words: &str) -> &'static str {
    let page = include_str!("../../docs/hooks.md");
    let start = format!("```{language}\n");
    let mut blocks = page.split(start.as_str()).skip(1);
    let block = blocks.find_map(|rest| {
        rest.split("```")
            .next()
            .filter(|block| block.contains(words))
    });
    block.expect("a block of the page")
}

#[test]
fn backends_of_the_documentation_know_a_call_and_its_age() {
    let used = Arc::new(Used::default());
    let backend = backend(&used);
    let text = format!(
        "[client]\nallow_anonymous_connect_without_token = true\n[hooks]\nsignature_secret = \"{}\"\n\
         signature_previous_secret = \"{}\"\n[rpc.proxy]\nendpoint = \"http://{}/rpc\"\n\
         [rpc.without_namespace]\nproxy_enabled = true\n",
        secret("hook", 1),
        secret("hook", 0),
        backend.address
    );
    let server = Server::start(&text);
    let called = Client::anonymous(&server).call("rpc", &json!({ "method": "x", "data": "ä\n" }));
    assert!(called.get("error").is_none(), "{called}");
    let asked = backend.asked();
    let header = asked.header("X-Ringmain-Signature").expect("a signature");
    let body = String::from_utf8(asked.raw.clone()).expect("JSON");
    let python = format!(
        "import json, sys\n{}\nfor secret, header, body, later in json.load(sys.stdin):\n    \
         print(is_ringmain(secret.encode(), header, body.encode(), lambda: time.time() + later))\n",
        block("python", "is_ringmain")
    );
    let js = format!(
        "{}\nlet all = '';\nfor await (const part of process.stdin) all += part;\n\
         for (const [secret, header, body, later] of JSON.parse(all))\n  \
         console.log(isRingmain(secret, header, Buffer.from(body), Date.now() + later * 1000) ? 'True' : 'False');\n",
        block("js", "isRingmain")
    );
    let (new, old) = (secret("hook", 1), secret("hook", 0));
    let cases = json!([
        [new, header, body, 0],
        [old, header, body, 0],
        [old, header, body, 200],
        [secret("hook", 2), header, body, 0],
        [new, header, format!("{body} "), 0],
        [new, header, body, 400],
        [new, header, body, -400],
        [new, header.replace("t=", "t=1"), body, 0],
        [new, "", body, 0],
        [new, "t=,v1=", body, 0],
    ]);
    let expected = "True\nTrue\nTrue\nFalse\nFalse\nFalse\nFalse\nFalse\nFalse\nFalse\n";
    assert_eq!(run("python3", &["-c", &python], &cases), expected);
    let module = ["--input-type=module", "-e", &js];
    assert_eq!(run("node", &module, &cases), expected);
}

/// What a program prints that reads this.
fn run(program: &str, arguments: &[&str], input: &Value) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("its standard input");
    stdin
        .write_all(input.to_string().as_bytes())
        .expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn target_with_secrets_of_its_own_is_called_with_them_and_none_is_forged() {
    let used = Arc::new(Used::default());
    used.hook.store(7, Ordering::SeqCst);
    let backend = backend(&used);
    let text = |global: &str, own: &str| {
        format!(
            "[client]\nallow_anonymous_connect_without_token = true\n{global}\n\
             [rpc.proxy]\nendpoint = \"http://{}/rpc\"\nhttp_headers = [\"X-Ringmain-Signature\"]\n{own}\n\
             [rpc.without_namespace]\nproxy_enabled = true\n",
            backend.address
        )
    };
    let server = Server::start(&text("", ""));
    let forged = [("X-Ringmain-Signature", "t=1,v1=00")];
    let mut client = Client::open_with(&server, PATH, &forged).connect(&json!({}));
    let mut call = || client.call("rpc", &json!({ "method": "x" }));
    assert!(call().get("error").is_some());
    let asked = backend.asked();
    assert_eq!(
        asked.header("X-Ringmain-Signature"),
        None,
        "no secret, no signature"
    );
    let global = format!("[hooks]\nsignature_secret = \"{}\"", secret("hook", 7));
    let own = format!(
        "[rpc.proxy.http]\nsignature_secret = \"{}\"",
        secret("hook", 8)
    );
    reload(&server, &text(&global, ""));
    assert!(call().get("error").is_none());
    reload(&server, &text(&global, &own));
    assert!(call().get("error").is_some());
    used.hook.store(8, Ordering::SeqCst);
    assert!(call().get("error").is_none());
}

#[test]
fn triggers_and_dead_letters_are_signed_too() {
    let used = Arc::new(Used::default());
    let backend = backend(&used);
    let text = config(&format!(
        "[hooks]\nsignature_secret = \"{}\"\nsignature_previous_secret = \"{}\"\n\
         [durable.embedded]\ndirectory = \"events\"\n\
         [[proxies]]\nname = \"tell\"\nendpoint = \"http://{}/tell\"\n\
         [[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n\
         [[channel.namespaces.triggers]]\nname = \"tell\"\nhook = \"tell\"\n",
        secret("hook", 1),
        secret("hook", 0),
        backend.address
    ));
    let server = Server::start(&text);
    server.api_result("publish", &json!({ "channel": "orders:1", "data": 1 }));
    let asked = backend.asked();
    for number in [0, 1] {
        assert!(is_signed(&asked, &secret("hook", number)), "{asked:?}");
    }
}

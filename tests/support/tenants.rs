//! Three tenants of one proxy that call everything alike.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::client::{Client, PATH};
use super::http::{Http, Response};
use super::process::{API_KEY, SECRET, Server};
use super::token::sign_with;
use super::wait::until;

pub(crate) const ACME_SECRET: &str = "the secret of acme, thirty-two bytes";
pub(crate) const BOLT_SECRET: &str = "the secret of bolt, thirty-two bytes";
pub(crate) const ACME_KEY: &str = "acme-services";
pub(crate) const BOLT_KEY: &str = "bolt-services";

/// Both of them, as they are configured beside the tenant `default`.
pub(crate) fn tables() -> String {
    format!(
        r#"
[[tenants]]
id = "acme"
hosts = ["acme.test", "*.acme.test"]
[tenants.token]
hmac_secret_key = "{ACME_SECRET}"
[[tenants.keys]]
name = "services"
key = "{ACME_KEY}"

[[tenants]]
id = "bolt"
[tenants.token]
hmac_secret_key = "{BOLT_SECRET}"
issuer = "https://bolt.test"
[[tenants.keys]]
name = "services"
key = "{BOLT_KEY}"
"#
    )
}

/// How one of the three comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Default,
    Acme,
    Bolt,
}

impl Who {
    pub(crate) const ALL: [Self; 3] = [Self::Default, Self::Acme, Self::Bolt];

    pub(crate) fn token(self, claims: Value) -> String {
        let mut claims = claims;
        if self == Self::Bolt {
            claims["iss"] = "https://bolt.test".into();
        }
        let secret = match self {
            Self::Default => SECRET,
            Self::Acme => ACME_SECRET,
            Self::Bolt => BOLT_SECRET,
        };
        sign_with(&claims, Algorithm::HS256, secret)
    }

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Default => API_KEY,
            Self::Acme => ACME_KEY,
            Self::Bolt => BOLT_KEY,
        }
    }

    /// Acme's clients come to its host, bolt's say whose they are in their tokens.
    pub(crate) fn open(self, server: &Server) -> Client {
        let headers: &[_] = match self {
            Self::Acme => &[("Host", "eu.acme.test:80")],
            Self::Default | Self::Bolt => &[],
        };
        Client::open_with(server, PATH, headers)
    }

    pub(crate) fn user(self, server: &Server, user: &str) -> Client {
        let token = self.token(json!({ "sub": user }));
        self.open(server).connect(&json!({ "token": token }))
    }

    pub(crate) fn api(self, server: &Server, method: &str, body: &Value) -> Value {
        asked(server, "/api", self.key(), method, body).json()
    }

    pub(crate) fn result(self, server: &Server, method: &str, body: &Value) -> Value {
        let mut answer = self.api(server, method, body);
        assert!(answer.get("error").is_none(), "{method} {body}: {answer}");
        answer["result"].take()
    }
}

pub(crate) fn asked(
    server: &Server,
    path: &str,
    key: &str,
    method: &str,
    body: &Value,
) -> Response {
    let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
    let path = format!("{path}/{method}");
    Http::open(server.listen).post(&path, &headers, body.to_string().as_bytes())
}

/// Queue groups, dead letters and replays of one are nobody else's, over a kill.
pub(crate) fn groups_letters_and_replays(start: &dyn Fn() -> Server) {
    let mut server = start();
    for (at, who) in Who::ALL.into_iter().enumerate() {
        for n in 0..3 {
            let body = json!({ "channel": "orders:1", "data": { "of": at, "n": n } });
            who.result(&server, "publish", &body);
        }
    }
    let fetch = json!({ "group": "g", "channels": ["*"], "limit": 10, "wait_ms": 5000, "max_attempts": 1, "ack_wait_ms": 60_000 });
    let mut held = Vec::new();
    for (at, who) in Who::ALL.into_iter().enumerate() {
        let mut all: Vec<Value> = Vec::new();
        until("all are given", || {
            let mut given = who.result(&server, "queue/fetch", &fetch);
            let given = given["deliveries"].as_array_mut();
            all.append(given.expect("a list"));
            (all.len() == 3).then_some(())
        });
        for one in &all {
            assert_eq!(one["data"]["of"], at);
            assert_eq!(
                (&one["channel"], &one["group"]),
                (&json!("orders:1"), &json!("g"))
            );
        }
        held.push(all);
    }
    // Numbers of others are nobody's.
    for who in Who::ALL {
        for (at, other) in Who::ALL
            .into_iter()
            .enumerate()
            .filter(|(_, other)| *other != who)
        {
            let _ = other;
            let numbers: Vec<&Value> = held[at].iter().map(|one| &one["delivery"]).collect();
            let settled = who.result(&server, "queue/ack", &json!({ "deliveries": numbers }));
            assert_eq!(settled["acked"], 0);
            let failed = who.result(&server, "queue/nak", &json!({ "deliveries": numbers }));
            assert_eq!(failed["naked"], 0);
            let reply = json!({ "delivery": numbers[0], "data": 1 });
            assert_eq!(
                who.api(&server, "queue/reply", &reply)["error"]["code"],
                104
            );
        }
    }
    for (at, who) in Who::ALL.into_iter().enumerate() {
        let [first, second, third] = &held[at][..] else {
            panic!("three")
        };
        who.result(
            &server,
            "queue/ack",
            &json!({ "delivery": first["delivery"] }),
        );
        who.result(
            &server,
            "queue/nak",
            &json!({ "delivery": second["delivery"], "reason": format!("of {at}") }),
        );
        who.result(
            &server,
            "queue/ack",
            &json!({ "delivery": third["delivery"], "sync": true }),
        );
    }
    let check = |server: &Server| {
        for (at, who) in Who::ALL.into_iter().enumerate() {
            let letters = || who.result(server, "dlq/list", &json!({}));
            until("its letter is there", || {
                let letters = letters();
                let count = |list: &str| letters[list].as_array().map_or(0, Vec::len);
                // JetStream is asked for the counts behind a start.
                (count("letters") == 1 && count("counts") == 1).then_some(())
            });
            let letters = letters();
            let letter = &letters["letters"][0];
            assert_eq!(letter["reason"], format!("of {at}"));
            assert_eq!(
                (&letter["group"], &letter["channel"]),
                (&json!("g"), &json!("orders:1"))
            );
            let groups = who.result(server, "queue/groups", &json!({}));
            let groups = groups["groups"].as_array().expect("groups");
            assert_eq!(groups.len(), 1);
            assert_eq!(
                (&groups[0]["group"], &groups[0]["channels"]),
                (&json!("g"), &json!(["*"]))
            );
            let replay = json!({ "channels": ["*"], "from": "beginning", "limit": 100 });
            let replayed = who.result(server, "replay", &replay);
            let events = replayed["events"].as_array().expect("events");
            assert_eq!(events.len(), 3);
            assert!(
                events
                    .iter()
                    .all(|one| one["data"]["of"] == at && one["channel"] == "orders:1")
            );
            let told = who.result(
                server,
                "history",
                &json!({ "channel": "$dead:g", "limit": 10 }),
            );
            assert_eq!(told["publications"].as_array().expect("a list").len(), 1);
        }
    };
    check(&server);
    server.signal("KILL");
    server.exit_status();
    let server = start();
    check(&server);
    // What one does to its group is nothing to the others.
    Who::Acme.result(&server, "dlq/drop", &json!({ "all": true }));
    Who::Acme.result(&server, "queue/delete", &json!({ "group": "g" }));
    for who in [Who::Default, Who::Bolt] {
        let letters = who.result(&server, "dlq/list", &json!({}));
        assert_eq!(letters["letters"].as_array().expect("letters").len(), 1);
        who.result(&server, "dlq/retry", &json!({ "all": true }));
        let fetch = json!({ "group": "g", "limit": 10, "wait_ms": 5000 });
        let again = until("its letter comes again", || {
            let again = who.result(&server, "queue/fetch", &fetch);
            let again = again["deliveries"].as_array().expect("a list").clone();
            (!again.is_empty()).then_some(again)
        });
        assert_eq!(again.len(), 1);
    }
    assert_eq!(
        Who::Acme.api(&server, "queue/fetch", &json!({ "group": "g" }))["error"]["code"],
        104
    );
}

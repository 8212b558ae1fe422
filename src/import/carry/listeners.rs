//! Where the program listens, and what is answered where.

use std::net::IpAddr;

use super::super::Fate;
use super::super::convert::{self, is_zero};
use super::super::document::Value;
use super::super::output::toml;
use super::super::reasons::HEALTH;
use super::{Carry, Leaf};

const LISTEN: &str = "server.listen";
const INTERNAL: &str = "server.internal_listen";
const ADMIN: &str = "admin.listen";
/// Ports of health and metrics: our default, and the one beside it.
const ADMIN_PORTS: [&str; 3] = ["8001", "8002", "8003"];
const METRICS: &str = "metrics are at /metrics of admin.listen, which is on this host only unless you change it, and not on the clients' port; a name under which they are asked for goes into admin.hosts; their names begin with ringmain_";

impl<'a> Carry<'a> {
    /// Keys that say where something is.
    pub(super) fn of_listeners(&mut self, leaf: &Leaf<'a>) -> Option<Fate> {
        let value = leaf.value;
        let is_on = convert::boolean(value) != Some(false);
        match leaf.pattern.as_str() {
            "http_server.address" | "http_server.port" => Some(self.to(LISTEN, leaf)),
            "http_server.internal_address" | "http_server.internal_port" => {
                Some(if is_zero(value) {
                    Fate::Default
                } else if self.internal().is_some() {
                    self.to(INTERNAL, leaf)
                } else {
                    Fate::Needless("it is the clients' listener: there is no second one".to_owned())
                })
            }
            "health.enabled" if self.internal().is_some() => Some(if is_on {
                self.to(INTERNAL, leaf)
            } else {
                Fate::Default
            }),
            "health.handler_prefix" if self.internal().is_some() => {
                let is_ours = *value == Value::Text("/health".to_owned());
                Some(if is_ours || is_zero(value) {
                    Fate::Default
                } else {
                    Fate::Lost(&HEALTH)
                })
            }
            "prometheus.enabled" => Some(if !is_on {
                Fate::Default
            } else if self.internal().is_some() {
                self.to(INTERNAL, leaf)
            } else {
                self.origin(ADMIN, leaf);
                Fate::Moved(METRICS)
            }),
            _ => None,
        }
    }

    fn text_at(&self, path: &str) -> Option<String> {
        match self.root.at(path)? {
            value if is_zero(value) => None,
            Value::Text(text) => Some(text.clone()),
            Value::Integer(integer) => Some(integer.to_string()),
            _ => None,
        }
    }

    fn port(&self) -> String {
        self.text_at("http_server.port")
            .unwrap_or_else(|| "8000".to_owned())
    }

    /// Address and port of the second listener; `None` where it is the first.
    fn internal(&self) -> Option<(Option<String>, String)> {
        let (address, port) = (
            self.text_at("http_server.internal_address"),
            self.text_at("http_server.internal_port"),
        );
        if address.is_none() && port.is_none() {
            return None;
        }
        let main = (self.text_at("http_server.address"), self.port());
        let second = (
            address.or_else(|| main.0.clone()),
            port.unwrap_or_else(|| main.1.clone()),
        );
        (second != main).then_some(second)
    }

    pub(super) fn listen(&mut self) {
        let port = self.port();
        let (at, note) = listeners(self.text_at("http_server.address").as_deref(), &port);
        self.put(LISTEN, toml(&at), note.map(str::to_owned));
        if let Some((address, port)) = self.internal() {
            let (at, _) = listeners(address.as_deref(), &port);
            let note = "the server API, /health, /ready and /metrics (names begin with ringmain_; a name under which they are asked for goes into admin.hosts)";
            self.put(INTERNAL, toml(&at), Some(note.to_owned()));
        }
    }

    pub(super) fn admin(&mut self) {
        let metrics = self
            .root
            .at("prometheus.enabled")
            .and_then(convert::boolean)
            == Some(true);
        let internal = self.internal().map(|(_, port)| port);
        let main = self.port();
        let is_free = |port: &str| port != main && internal.as_deref() != Some(port);
        let port = ADMIN_PORTS.iter().copied().find(|port| is_free(port));
        let port = port.unwrap_or(ADMIN_PORTS[0]);
        let note = if metrics && internal.is_none() {
            METRICS
        } else if port == ADMIN_PORTS[0] {
            return;
        } else {
            "/ready and /metrics, on a port that nothing else has"
        };
        let at = Value::Text(format!("127.0.0.1:{port}"));
        self.put(ADMIN, toml(&at), Some(note.to_owned()));
    }
}

/// Addresses of one listener, and what a reader of the file should know.
fn listeners(address: Option<&str>, port: &str) -> (Value, Option<&'static str>) {
    let (at, note): (Vec<String>, _) = match address {
        None => (
            vec![format!("0.0.0.0:{port}"), format!("[::]:{port}")],
            Some("every address, as Centrifugo does; take [::] out on a host without IPv6"),
        ),
        Some("localhost") => (vec![format!("127.0.0.1:{port}")], None),
        Some(address) => (vec![socket(address, port)], None),
    };
    (Value::List(at.into_iter().map(Value::Text).collect()), note)
}

fn socket(address: &str, port: &str) -> String {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V6(_)) => format!("[{bare}]:{port}"),
        _ => format!("{address}:{port}"),
    }
}

//! A tiny Centrifuge server for tests, written on an independent WebSocket library: a thread for each connection
//! reads, one hub thread answers in order. Without commands it is a plain server. It can be told to misbehave, so that the checker has something to find.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::{Value, json};
use tungstenite::protocol::{Message, Role, WebSocket};

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Skips every tenth publication for the first subscriber.
    Loses,
    /// Delivers every tenth publication twice to the first subscriber.
    Repeats,
}

enum Event {
    Opened(u64, Box<WebSocket<TcpStream>>),
    Said(u64, String),
    Gone(u64),
}

/// Starts the server; it lives as long as the test process.
pub(crate) fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (events, inbox) = channel();
    thread::spawn(move || hub(&inbox, fault));
    thread::spawn(move || {
        for (id, stream) in (0..).zip(listener.incoming().flatten()) {
            let events = events.clone();
            thread::spawn(move || connection(id, stream, &events));
        }
    });
    address
}

fn connection(id: u64, stream: TcpStream, events: &Sender<Event>) {
    let writer = stream.try_clone().unwrap();
    let Ok(mut socket) = tungstenite::accept(stream) else {
        return;
    };
    let opened = Event::Opened(
        id,
        Box::new(WebSocket::from_raw_socket(writer, Role::Server, None)),
    );
    events.send(opened).unwrap();
    while let Ok(message) = socket.read() {
        let Message::Text(text) = message else {
            continue;
        };
        for line in text.lines() {
            events.send(Event::Said(id, line.to_owned())).unwrap();
        }
    }
    events.send(Event::Gone(id)).unwrap();
}

#[derive(Default)]
struct Channel {
    history: Vec<Value>,
    subscribers: Vec<u64>,
}

fn hub(inbox: &Receiver<Event>, fault: Fault) {
    let mut sockets: BTreeMap<u64, Box<WebSocket<TcpStream>>> = BTreeMap::new();
    let mut channels: BTreeMap<String, Channel> = BTreeMap::new();
    while let Ok(event) = inbox.recv() {
        match event {
            Event::Opened(id, socket) => drop(sockets.insert(id, socket)),
            Event::Gone(id) => {
                sockets.remove(&id);
                channels
                    .values_mut()
                    .for_each(|channel| channel.subscribers.retain(|other| *other != id));
            }
            // A payload of the bench by itself: a plain server that passes everything to everybody.
            Event::Said(_, line) if line.starts_with("{\"b\":") => {
                for socket in sockets.values_mut() {
                    let _ = socket.send(Message::text(line.clone()));
                }
            }
            Event::Said(id, line) => {
                for (to, text) in said(id, &line, &mut channels, fault) {
                    if let Some(socket) = sockets.get_mut(&to) {
                        // A peer that has gone is removed when its reader says so.
                        let _ = socket.send(Message::text(text));
                    }
                }
            }
        }
    }
}

fn said(
    from: u64,
    line: &str,
    channels: &mut BTreeMap<String, Channel>,
    fault: Fault,
) -> Vec<(u64, String)> {
    let command: Value = serde_json::from_str(line).unwrap();
    let id = &command["id"];
    let named = |part: &Value| part["channel"].as_str().unwrap_or_default().to_owned();
    let reply = |value: Value| vec![(from, value.to_string())];
    if command.get("connect").is_some() {
        return reply(
            json!({ "id": id, "connect": { "client": from.to_string(), "version": "test" } }),
        );
    }
    if let Some(subscribe) = command.get("subscribe") {
        let channel = channels.entry(named(subscribe)).or_default();
        channel.subscribers.push(from);
        let since = subscribe["offset"].as_u64().unwrap_or(0) as usize;
        let recover = subscribe["recover"] == true;
        let missed = if recover {
            &channel.history[since..]
        } else {
            &[]
        };
        let offset = if recover {
            since
        } else {
            channel.history.len()
        };
        return reply(json!({ "id": id, "subscribe": {
            "recoverable": true, "epoch": "test", "offset": offset, "recovered": recover, "publications": missed,
        }}));
    }
    let Some(publish) = command.get("publish") else {
        return Vec::new();
    };
    let name = named(publish);
    let channel = channels.entry(name.clone()).or_default();
    let offset = channel.history.len() + 1;
    let publication = json!({ "data": publish["data"], "offset": offset });
    channel.history.push(publication.clone());
    let mut out = reply(json!({ "id": id, "publish": {} }));
    let push = json!({ "push": { "channel": name, "pub": publication } }).to_string();
    for (place, to) in channel.subscribers.iter().enumerate() {
        let is_hit = place == 0 && offset.is_multiple_of(10);
        let copies = match fault {
            Fault::Loses if is_hit => 0,
            Fault::Repeats if is_hit => 2,
            Fault::None | Fault::Loses | Fault::Repeats => 1,
        };
        out.extend(std::iter::repeat_n((*to, push.clone()), copies));
    }
    out
}

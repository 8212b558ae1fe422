//! Whoever gets what was published: subscribers, and workers of a queue group that acknowledge.

use std::time::Duration;

use memchr::memmem;

use super::super::BenchError;
use super::super::payload;
use super::line::{Heard, Line, Peer, Refusal, refused};
use super::publishers::Shared;

/// A worker that gets nothing for so long has nothing to wait for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Subscribed to these channels: books every publication, until the caller drops it.
pub(super) async fn subscriber(
    mut line: Line,
    reader: u32,
    shared: Shared,
) -> Result<(), BenchError> {
    loop {
        line.receive(|heard| {
            if let Heard::Push(bytes) = heard
                && let Some(stamp) = payload::find(bytes)
            {
                shared.books.borrow_mut().received(reader, stamp);
            }
        })
        .await?;
    }
}

/// Opens a subscriber.
pub(super) async fn subscribe(peer: &Peer, channels: &[String]) -> Result<Line, BenchError> {
    let mut line = Line::open(peer).await?;
    for (id, channel) in (2..).zip(channels) {
        line.subscribe(id, channel).await?;
    }
    Ok(line)
}

/// What workers of a group ask for.
pub(super) struct Consume<'a> {
    pub(super) group: &'a str,
    pub(super) channels: &'a str,
    pub(super) credit: u32,
    pub(super) ordered: bool,
    /// Acknowledgements are answered when they are stored.
    pub(super) sync: bool,
}

impl Consume<'_> {
    fn json(&self) -> String {
        let Self {
            group,
            channels,
            credit,
            ordered,
            sync: _,
        } = self;
        format!(
            "{{\"group\":\"{group}\",\"channels\":[\"{channels}\"],\"credit\":{credit},\"ordered\":{ordered},\"ack_wait_ms\":60000,\"from\":\"beginning\"}}"
        )
    }
}

/// Takes deliveries and acknowledges those of one read at once, until `wanted` are acknowledged by all workers together.
pub(super) async fn worker(
    mut line: Line,
    reader: u32,
    consume: Consume<'_>,
    wanted: u64,
    shared: Shared,
) -> Result<(), BenchError> {
    let sync = if consume.sync { ",\"sync\":true" } else { "" };
    let mut id = 2;
    line.rpc(id, "ringmain.consume", &consume.json());
    line.flush().await?;
    // Deliveries and when they came, of acknowledgements under way: answers come in order.
    let mut under_way: std::collections::VecDeque<(u32, Vec<u64>)> =
        std::collections::VecDeque::new();
    let mut deliveries = String::new();
    let mut arrived: Vec<u64> = Vec::new();
    let mut answers: Vec<(u32, Option<Refusal>)> = Vec::new();
    while shared.books.borrow().acknowledged_deliveries() < wanted {
        let now = std::cell::Cell::new(0);
        let receive = line.receive(|heard| match heard {
            Heard::Reply { id, error } => answers.push((id, error)),
            Heard::Push(bytes) => {
                let Some(delivery) = delivery(bytes) else {
                    return;
                };
                if let Some(stamp) = payload::find(bytes) {
                    shared.books.borrow_mut().received(reader, stamp);
                }
                if !deliveries.is_empty() {
                    deliveries.push(',');
                }
                deliveries.push_str(delivery);
                if now.get() == 0 {
                    now.set(shared.clock());
                }
                arrived.push(now.get());
            }
        });
        match tokio::time::timeout(PATIENCE, receive).await {
            Ok(received) => received?,
            Err(_) => return Ok(()),
        }
        for (id, error) in answers.drain(..) {
            if let Some(refusal) = error {
                return Err(refused("ringmain.consume or ringmain.ack", &refusal));
            }
            if under_way.front().is_some_and(|(first, _)| *first == id)
                && let Some((_, arrived)) = under_way.pop_front()
            {
                let (now, mut books) = (shared.clock(), shared.books.borrow_mut());
                for at in arrived {
                    books.acknowledged_delivery(now, now - at);
                }
            }
        }
        if !arrived.is_empty() {
            id += 1;
            line.rpc(
                id,
                "ringmain.ack",
                &format!("{{\"deliveries\":[{deliveries}]{sync}}}"),
            );
            line.flush().await?;
            under_way.push_back((id, std::mem::take(&mut arrived)));
            deliveries.clear();
        }
    }
    Ok(())
}

/// The JSON value behind `"delivery":`, as it is: a number, or a string without escapes.
fn delivery(push: &[u8]) -> Option<&str> {
    const KEY: &[u8] = b"\"delivery\":";
    let rest = &push[memmem::find(push, KEY)? + KEY.len()..];
    let len = match rest.first()? {
        b'"' => 2 + rest[1..].iter().position(|byte| *byte == b'"')?,
        _ => rest.iter().position(|byte| !byte.is_ascii_digit())?,
    };
    std::str::from_utf8(&rest[..len])
        .ok()
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_named_as_it_came() {
        assert_eq!(
            delivery(br#"{"push":{"message":{"data":{"delivery":17,"x":1}}}}"#),
            Some("17")
        );
        assert_eq!(delivery(br#"{"delivery":"a-1","x":1}"#), Some("\"a-1\""));
        assert_eq!(delivery(br#"{"delivery":}"#), None);
        assert_eq!(delivery(br#"{"delivery":"a"#), None);
        assert_eq!(delivery(br#"{"push":{}}"#), None);
    }

    #[test]
    fn what_workers_ask_for_is_json() {
        let consume = Consume {
            group: "bench",
            channels: "durable:*",
            credit: 256,
            ordered: true,
            sync: false,
        };
        let json: serde_json::Value = serde_json::from_str(&consume.json()).unwrap();
        assert_eq!(
            (&json["credit"], &json["ordered"]),
            (&256.into(), &true.into())
        );
    }
}

//! Long polling: a request is a session with one subscription, made and checked like every other, whose first publications are
//! the response. What the session's client would be told goes to `polled` instead.

use std::sync::Arc;
use std::time::Duration;

use super::Shard;
use super::answers::JSON;
use super::connection::{Connection, State};
use super::route::PollRoute;
use crate::mem::TimerWheel;
use crate::model::{Format, HubId, Publication, Speaker};
use crate::protocol::centrifuge::json::{encode_error, encode_polled};
use crate::protocol::command::{Body, Command, Connect, Subscribe};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;
use crate::session::poll::PollState;
use crate::session::{Phase, Session, flag};
use crate::speaker::Polled;
use crate::wire::http::Cors;

/// Owners always answer; this bounds what a bug in that costs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Ids of the two commands that a poll stands for; no answer carries them.
const CONNECT_ID: u32 = 1;
const SUBSCRIBE_ID: u32 = 2;

impl Shard {
    /// Begins a poll; the connection waits for its end.
    pub(super) fn poll_request(&mut self, slot: u32, asked: PollRoute, cors: Option<Box<Cors>>) {
        if asked.channel.is_empty() {
            let error = ClientError::BadRequest;
            let mut body = Vec::new();
            encode_error(&mut body, error.code(), error.message());
            return self.respond_uncached(slot, 400, cors.as_deref(), &body);
        }
        let format = Format {
            speaker: Speaker::Poll,
            ..Format::default()
        };
        self.begin(slot, format, false);
        let connection = self.connections.of_mut(slot);
        connection.state = State::Waiting;
        asked.kept.hand_to(&mut connection.session);
        let rare = connection.session.rare.get_or_insert_default();
        rare.cors = cors;
        let (offset, epoch) = asked.since.clone().unwrap_or_default();
        rare.poll = Some(Box::new(PollState {
            asked: Some(Subscribe {
                channel: asked.channel.into(),
                token: asked.subscription_token.into(),
                recover: asked.since.is_some(),
                epoch: epoch.into(),
                offset,
                positioned: true,
                recoverable: true,
                ..Subscribe::default()
            }),
            timeout: asked.timeout,
            found: None,
        }));
        self.connections
            .set_deadline(slot, TimerWheel::tick_after(self.now.at, ANSWER_TIMEOUT));
        let connect = Connect {
            token: asked.token.into(),
            ..Connect::default()
        };
        let command = Command {
            id: CONNECT_ID,
            body: Body::Connect(connect),
        };
        self.command(slot, Ok(command));
    }

    /// The session of a poll has something to say.
    pub(super) fn polled(&mut self, slot: u32, polled: Polled) {
        // It may have been answered by the time that it is heard.
        let Some(poll) = self.poll_of(slot) else {
            return;
        };
        match polled {
            Polled::Connected => {
                if let Some(asked) = poll.asked.take() {
                    let command = Command {
                        id: SUBSCRIBE_ID,
                        body: Body::Subscribe(asked),
                    };
                    self.command(slot, Ok(command));
                }
            }
            Polled::Subscribed(found) => {
                let is_over =
                    !found.publications.is_empty() || found.was_recovering && !found.recovered;
                let timeout = poll.timeout;
                poll.found = Some(found);
                if is_over {
                    self.answer_poll(slot, &[]);
                } else {
                    self.connections
                        .set_deadline(slot, TimerWheel::tick_after(self.now.at, timeout));
                }
            }
            Polled::Ended => self.answer_poll(slot, &[]),
        }
    }

    /// The poll that waits on a connection; `None` once it is answered.
    fn poll_of(&mut self, slot: u32) -> Option<&mut PollState> {
        let connection = self.connections.of_mut(slot);
        if !connection.is_poll() || connection.state != State::Waiting {
            return None;
        }
        let rare = connection.session.rare.as_mut();
        let poll = rare.and_then(|rare| rare.poll.as_deref_mut());
        debug_assert!(poll.is_some(), "a session that polls has a poll");
        poll
    }

    /// A run of a channel goes to the polls that wait for it, not to those that a service has subscribed to it.
    pub(super) fn answer_polls(&mut self, id: HubId, run: &[Arc<Publication>]) {
        let Some(channel) = self.local.hub().channel(id) else {
            return;
        };
        let polls = channel.subscribers.iter().filter(|subscriber| {
            let class = &channel.classes[usize::from(subscriber.class)];
            class.format.speaker == Speaker::Poll
        });
        let asked = |&slot: &u32| {
            let session = &self.connections.of(slot).session;
            let at = session.subscription_at(id.slot);
            at.is_some_and(|at| !session.subscriptions[at].has(flag::SERVER_SIDE))
        };
        let slots: Vec<u32> = polls
            .map(|subscriber| subscriber.conn)
            .filter(asked)
            .collect();
        self.counters.deliveries += (slots.len() * run.len()) as u64;
        for slot in slots {
            self.answer_poll(slot, run);
        }
    }

    /// The time of a poll is over.
    pub(super) fn poll_overdue(&mut self, slot: u32) {
        let waits = self.poll_of(slot).is_some_and(|poll| poll.found.is_some());
        if waits {
            self.answer_poll(slot, &[]);
        } else {
            self.abort(slot);
        }
    }

    /// Answers a poll that waits with what was found when it began, and what has come since.
    fn answer_poll(&mut self, slot: u32, run: &[Arc<Publication>]) {
        let Some(poll) = self.poll_of(slot) else {
            return;
        };
        let mut found = poll.found.take().unwrap_or_default();
        found.add(run);
        if found.publications.iter().any(|one| !one.json) {
            return self.end_poll(slot, &Disconnect::InappropriateProtocol);
        }
        let mut body = Vec::new();
        encode_polled(
            &mut body,
            found.position,
            &found.publications,
            found.recovered,
        );
        self.respond_to_poll(slot, 200, &body);
    }

    /// Ends a poll for a reason of the protocol.
    pub(super) fn end_poll(&mut self, slot: u32, disconnect: &Disconnect) {
        if *disconnect == Disconnect::Shutdown {
            // The client comes back with the position that it has.
            let connection = self.connections.of_mut(slot);
            connection.keep_alive = false;
            return self.answer_poll(slot, &[]);
        }
        self.refuse_poll(slot, u32::from(disconnect.code()), disconnect.reason());
    }

    /// Answers a poll with an error.
    pub(super) fn refuse_poll(&mut self, slot: u32, code: u32, text: &str) {
        let mut body = Vec::new();
        encode_error(&mut body, code, text);
        self.respond_to_poll(slot, status(code), &body);
    }

    /// The session ends with its answer, unless it has one; the connection goes on as one that speaks HTTP.
    fn respond_to_poll(&mut self, slot: u32, status: u16, body: &[u8]) {
        let connection = self.connections.of_mut(slot);
        if !connection.is_poll() || connection.state != State::Waiting {
            return;
        }
        if owes(connection) {
            // An answer that is still on its way would be taken for one to the next poll.
            connection.keep_alive = false;
        }
        let cors = connection
            .session
            .rare
            .as_mut()
            .and_then(|rare| rare.cors.take());
        self.end_session(slot);
        let generation = self.connections.generation(slot);
        self.said
            .retain(|(conn, _)| (conn.slot, conn.generation) != (slot, generation));
        let connection = self.connections.of_mut(slot);
        connection.is_session = false;
        connection.session = Session::default();
        self.respond_uncached(slot, status, cors.as_deref(), body);
    }

    fn respond_uncached(&mut self, slot: u32, status: u16, cors: Option<&Cors>, body: &[u8]) {
        let mut headers = cors.map(Cors::headers).unwrap_or_default();
        headers.push(("Cache-Control", "no-store"));
        self.respond_with(slot, status, JSON, &headers, body);
    }
}

/// Somebody has not answered the session yet.
fn owes(connection: &Connection) -> bool {
    let session = &connection.session;
    let pending = |subscription: &crate::session::Subscription| subscription.is_pending();
    session.phase == Phase::Connecting || session.subscriptions.iter().any(pending)
}

/// Status of the answer that carries a code of §5.1, §5.2, or of a backend.
const fn status(code: u32) -> u16 {
    match code {
        101 | 109 | 110 | 3005 | 3006 | 3500 | 3501 => 401,
        103 | 3503 | 3507 => 403,
        102 | 104 | 108 | 3508 => 404,
        3506 => 406,
        105 | 112 => 409,
        106 | 111 | 3013 | 3504 | 3505 => 429,
        100 | 3000..=3499 | 4000..=4499 => 503,
        107 => 400,
        _ => 403,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_status_that_says_whose_fault_it_is() {
        for (code, wanted) in [
            (100, 503),
            (102, 404),
            (103, 403),
            (107, 400),
            (109, 401),
            (111, 429),
            (112, 409),
            (1000, 403),
            (3001, 503),
            (3500, 401),
            (3504, 429),
            (4100, 503),
            (4600, 403),
        ] {
            assert_eq!(status(code), wanted, "{code}");
        }
    }
}

//! From a socket to a member: openings, upgrades, acknowledgements; and the end of a connection.

use super::super::driver::{Driver, Member, Position, subscribe_reply, subscribe_reply_protobuf};
use super::super::wire::Kind;
use super::super::{frame, payload};
use super::client::Phase;
use super::state::State;

impl State {
    /// The TCP handshake is over: what the client says first.
    pub(super) fn connected(&mut self, index: u32) {
        let is_publisher = index == self.publisher();
        if is_publisher && self.plan.api_key.is_some() {
            self.set_ready(index, Phase::Http);
            return;
        }
        if let Some(step) = self.plan.driver.steps().first().copied() {
            let client = &mut self.clients[index as usize];
            client.phase = Phase::Scripted {
                step: 0,
                owed: step.read,
            };
            // The limit knows its clients by the number that they say first.
            client.out.extend_from_slice(&payload::letters(index));
            client.out.resize(step.write as usize, b'.');
            self.scripted(index, 0);
        } else {
            let member = self.member(index);
            let request = self
                .plan
                .driver
                .request(&self.plan.host, &member, is_publisher);
            let request = match request {
                Ok(request) => request,
                Err(error) => {
                    self.failure = Some(error);
                    return;
                }
            };
            self.stats.upgrade_sent += request.len() as u64;
            let client = &mut self.clients[index as usize];
            client.phase = Phase::Upgrading;
            client.out.extend_from_slice(&request);
        }
        self.mark(index);
    }

    /// Bytes of a scripted opening; what remains of them.
    pub(super) fn scripted(&mut self, index: u32, mut received: usize) -> usize {
        while let Phase::Scripted { step, owed } = self.clients[index as usize].phase {
            let taken = received.min(owed as usize);
            received -= taken;
            let owed = owed - taken as u32;
            let next = self.plan.driver.steps().get(usize::from(step) + 1).copied();
            let client = &mut self.clients[index as usize];
            client.phase = Phase::Scripted { step, owed };
            if owed > 0 {
                break;
            }
            match next {
                Some(next) => {
                    client
                        .out
                        .resize(client.out.len() + next.write as usize, b'.');
                    client.phase = Phase::Scripted {
                        step: step + 1,
                        owed: next.read,
                    };
                    self.mark(index);
                }
                None => self.set_ready(index, Phase::Ready),
            }
        }
        received
    }

    fn set_ready(&mut self, index: u32, phase: Phase) {
        let client = &mut self.clients[index as usize];
        client.phase = phase;
        self.joining -= 1;
        self.stats
            .joins
            .saturating_record(self.now.saturating_sub(self.connect_started));
        if index != self.plan.connections {
            self.joined += 1;
        }
    }

    /// The server or the network has ended the connection.
    pub(super) fn ended(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        let before = client.phase;
        client.phase = Phase::Closing;
        if matches!(before, Phase::Idle | Phase::Closing) {
            return;
        }
        let was_ready = matches!(before, Phase::Ready | Phase::Http);
        if !client.leaving {
            self.disconnected += 1;
        }
        if !was_ready {
            self.joining -= 1;
        } else if index != self.plan.connections {
            self.joined -= 1;
        }
    }

    pub(super) fn member(&self, index: u32) -> Member {
        let is_publisher = index == self.publisher();
        let known = |channel: u32, place: usize| {
            let known = &self.channels[channel as usize];
            let next = self
                .ledger
                .next(index * self.plan.subscriptions + place as u32);
            let offset = known.offset_base + u64::from(next);
            (!known.epoch.is_empty()).then(|| Position {
                epoch: known.epoch.clone(),
                offset,
            })
        };
        let channels = if is_publisher {
            // A Pusher client may publish only to channels that it is a member of.
            let needed = matches!(self.plan.driver, Driver::Pusher { .. });
            (0..self.plan.channels)
                .filter(|_| needed)
                .map(|channel| (channel, None))
                .collect()
        } else {
            self.plan
                .channels_of(index)
                .enumerate()
                .map(|(i, channel)| (channel, known(channel, i)))
                .collect()
        };
        Member { index, channels }
    }

    pub(super) fn upgrade(&mut self, index: u32, bytes: &[u8]) -> usize {
        let is_publisher = index == self.publisher();
        let answer = if self.plan.driver.wire(index, is_publisher).is_stream() {
            frame::stream_answer(bytes)
        } else {
            frame::upgrade_answer(bytes)
        };
        match answer {
            frame::Upgrade::Incomplete => 0,
            frame::Upgrade::Refused => {
                self.refuse(index);
                bytes.len()
            }
            frame::Upgrade::Accepted(head) => {
                self.stats.upgrade_bytes += head as u64;
                let member = self.member(index);
                match self.plan.driver.join(&member, is_publisher) {
                    Ok((texts, acknowledgements)) => {
                        self.clients[index as usize].phase = Phase::Joining(acknowledgements);
                        for text in texts {
                            self.queue_text(index, &text);
                        }
                        if acknowledgements == 0 {
                            self.set_ready(index, Phase::Ready);
                        }
                    }
                    Err(error) => self.failure = Some(error),
                }
                head + self.frames(index, &bytes[head..])
            }
        }
    }

    pub(super) fn acknowledge(&mut self, index: u32, more: u16) {
        if let Phase::Joining(left) = self.clients[index as usize].phase {
            let left = (left + more).saturating_sub(1);
            self.clients[index as usize].phase = Phase::Joining(left);
            if left == 0 {
                self.set_ready(index, Phase::Ready);
            }
        }
    }

    /// Keeps a channel's epoch from the first subscribe reply that shows it, when recovery is wanted.
    pub(super) fn note_position(&mut self, index: u32, line: &[u8]) {
        if !matches!(self.plan.driver, Driver::Centrifuge { recover: true, .. })
            || index == self.publisher()
        {
            return;
        }
        let position = match self.plan.driver.wire(index, false).encoding {
            Kind::Json => subscribe_reply(line),
            Kind::Protobuf => subscribe_reply_protobuf(line),
        };
        let Some((id, position)) = position else {
            return;
        };
        let channel = id
            .checked_sub(2)
            .and_then(|place| self.plan.channels_of(index).nth(place as usize));
        let Some(channel) = channel.map(|channel| &mut self.channels[channel as usize]) else {
            return;
        };
        if channel.epoch.is_empty() {
            channel.offset_base = position.offset.saturating_sub(u64::from(channel.published));
            channel.epoch = position.epoch;
        }
    }
}

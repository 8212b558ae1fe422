//! The swarm without its rings: what arrives, what it means, and what is to be sent.

use super::super::driver::{Answer, Driver, Member, Position, subscribe_reply};
use super::super::ledger::{Arrival, Counts, Ledger};
use super::super::payload::{self, Seen, Stamp, Stamps};
use super::super::{BenchError, frame};
use super::client::{Client, Phase};
use super::load::{Channel, Load, Schedule};
use super::stats::Stats;
use super::{Plan, api};

/// Bytes that the publisher may have unsent before it waits for its socket.
const UNSENT_MAX: usize = 1 << 20;
/// Publications in one turn, so that receives are served in between.
const PUBLICATIONS_PER_TURN: u32 = 1024;

pub(super) struct State {
    pub(super) plan: Plan,
    /// Subscribers first, then the publisher.
    pub(super) clients: Vec<Client>,
    pub(super) channels: Vec<Channel>,
    pub(super) stats: Stats,
    /// Nanoseconds since the start of the swarm; set before every call.
    pub(super) now: u64,
    /// Clients with something to send and no send out.
    pub(super) dirty: Vec<u32>,
    /// Clients whose socket must go.
    pub(super) doomed: Vec<u32>,
    /// Subscribers that are joined.
    pub(super) joined: u32,
    /// Clients between connect and join.
    pub(super) joining: u32,
    /// Commands and upgrades that were refused.
    pub(super) refused: u64,
    /// Connections that ended although nobody asked.
    pub(super) disconnected: u64,
    /// Publications in flight in a closed loop.
    pub(super) outstanding: u32,
    /// When everybody was told to connect.
    pub(super) connect_started: u64,
    ledger: Ledger,
    load: Load,
    schedule: Schedule,
    next_channel: u32,
    scratch: Vec<u8>,
    text: Vec<u8>,
    mask: u32,
    failure: Option<BenchError>,
}

impl State {
    pub(super) fn new(plan: Plan) -> Result<Self, BenchError> {
        let mut channels: Vec<Channel> = (0..plan.channels).map(|_| Channel::default()).collect();
        for client in 0..plan.connections {
            for channel in plan.channels_of(client) {
                channels[channel as usize].subscribers += 1;
            }
        }
        Ok(Self {
            clients: (0..=plan.connections).map(|_| Client::new()).collect(),
            channels,
            stats: Stats::new()?,
            now: 0,
            dirty: Vec::new(),
            doomed: Vec::new(),
            joined: 0,
            joining: 0,
            refused: 0,
            disconnected: 0,
            outstanding: 0,
            connect_started: 0,
            ledger: Ledger::new((plan.connections * plan.subscriptions) as usize),
            load: Load::None,
            schedule: Schedule::new(0, 1.0),
            next_channel: 0,
            scratch: Vec::new(),
            text: Vec::new(),
            mask: 0x9E37_79B9,
            failure: None,
            plan,
        })
    }

    pub(super) fn measure(&mut self) -> Result<Stats, BenchError> {
        Ok(std::mem::replace(&mut self.stats, Stats::new()?))
    }

    pub(super) fn take_failure(&mut self) -> Result<(), BenchError> {
        self.failure.take().map_or(Ok(()), Err)
    }

    pub(super) const fn publisher(&self) -> u32 {
        self.plan.connections
    }

    // --- connections ---

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
            let request = self.plan.driver.request(&self.plan.host, is_publisher);
            self.stats.upgrade_sent += request.len() as u64;
            let client = &mut self.clients[index as usize];
            client.phase = Phase::Upgrading;
            client.out.extend_from_slice(&request);
        }
        self.mark(index);
    }

    /// Bytes of a scripted opening; what remains of them.
    fn scripted(&mut self, index: u32, mut received: usize) -> usize {
        let steps = self.plan.driver.steps();
        let client = &mut self.clients[index as usize];
        while let Phase::Scripted { step, owed } = client.phase {
            let taken = received.min(owed as usize);
            received -= taken;
            let owed = owed - taken as u32;
            client.phase = Phase::Scripted { step, owed };
            if owed > 0 {
                break;
            }
            match steps.get(usize::from(step) + 1) {
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
            return if received > 0 {
                self.scripted(index, received)
            } else {
                0
            };
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

    fn member(&self, index: u32) -> Member {
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

    // --- receiving ---

    /// Bytes have come for a client.
    pub(super) fn receive(&mut self, index: u32, bytes: &[u8]) {
        self.stats.receives += 1;
        self.stats.bytes += bytes.len() as u64;
        let client = &mut self.clients[index as usize];
        if client.carry.is_empty() {
            let used = self.take(index, bytes);
            self.clients[index as usize]
                .carry
                .extend_from_slice(&bytes[used..]);
        } else {
            let mut whole = std::mem::take(&mut client.carry);
            whole.extend_from_slice(bytes);
            let used = self.take(index, &whole);
            whole.drain(..used);
            self.clients[index as usize].carry = whole;
        }
    }

    /// Handles what is whole; the bytes used.
    fn take(&mut self, index: u32, bytes: &[u8]) -> usize {
        match self.clients[index as usize].phase {
            Phase::Ready | Phase::Joining(_) => self.frames(index, bytes),
            Phase::Scripted { .. } => {
                let rest = self.scripted(index, bytes.len());
                let used = bytes.len() - rest;
                used + if rest > 0 {
                    self.frames(index, &bytes[used..])
                } else {
                    0
                }
            }
            Phase::Upgrading => self.upgrade(index, bytes),
            Phase::Http => {
                let (used, refused) = api::answers(bytes);
                self.refused += refused;
                used
            }
            Phase::Idle | Phase::Connecting | Phase::Closing => bytes.len(),
        }
    }

    fn upgrade(&mut self, index: u32, bytes: &[u8]) -> usize {
        match frame::upgrade_answer(bytes) {
            frame::Upgrade::Incomplete => 0,
            frame::Upgrade::Refused => {
                self.refuse(index);
                bytes.len()
            }
            frame::Upgrade::Accepted(head) => {
                self.stats.upgrade_bytes += head as u64;
                let member = self.member(index);
                match self.plan.driver.join(&member) {
                    Ok((texts, acknowledgements)) => {
                        self.clients[index as usize].phase = Phase::Joining(acknowledgements);
                        for text in texts {
                            self.queue_text(index, text.as_bytes());
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

    fn refuse(&mut self, index: u32) {
        self.refused += 1;
        self.doomed.push(index);
    }

    fn frames(&mut self, index: u32, bytes: &[u8]) -> usize {
        let mut used_all = 0;
        loop {
            match frame::scan(&bytes[used_all..]) {
                frame::Scan::Incomplete => return used_all,
                frame::Scan::Invalid => {
                    self.refuse(index);
                    return bytes.len();
                }
                frame::Scan::Frame {
                    opcode,
                    payload,
                    used,
                } => {
                    used_all += used;
                    self.stats.frames += 1;
                    match opcode {
                        frame::TEXT | frame::BINARY | frame::CONTINUATION => {
                            self.text(index, payload)
                        }
                        frame::PING => self.queue_frame(index, frame::PONG, payload),
                        frame::CLOSE => {
                            self.doomed.push(index);
                            self.ended(index);
                            return bytes.len();
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn text(&mut self, index: u32, text: &[u8]) {
        let mut is_plain = true;
        for seen in Stamps::new(text) {
            match seen {
                Seen::Stamp(stamp) => self.deliver(index, stamp),
                Seen::Ping => self.queue_text(index, b"{}"),
            }
            is_plain = false;
        }
        let talks = index == self.publisher() || self.load == Load::Echo;
        if is_plain || talks || self.clients[index as usize].phase != Phase::Ready {
            self.control(index, text);
        }
    }

    #[inline]
    fn deliver(&mut self, index: u32, stamp: Stamp) {
        // The publisher of some protocols hears itself.
        if index == self.publisher() {
            return;
        }
        let Some(subscription) = self.plan.subscription(index, stamp.channel) else {
            self.refused += 1;
            return;
        };
        if self.ledger.arrived(subscription, stamp.sequence) == Arrival::Repeated {
            return;
        }
        self.stats
            .delivered(self.now.saturating_sub(stamp.intended));
        match self.load {
            Load::Window(_) => {
                self.outstanding -= self.channels[stamp.channel as usize]
                    .settle(stamp.sequence)
                    .min(self.outstanding);
            }
            Load::Echo => self.publish(index, stamp.channel, self.now),
            Load::None | Load::Rate(_) => {}
        }
    }

    /// Lines that are not deliveries: answers, errors, protocol pings.
    fn control(&mut self, index: u32, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n') {
            let joining = matches!(self.clients[index as usize].phase, Phase::Joining(_));
            if joining {
                self.note_position(index, line);
            }
            let member = self.member(index);
            match self.plan.driver.answer(line, &member) {
                Ok(Answer::Nothing) => {}
                Ok(Answer::Reply(text)) => self.queue_text(index, text.as_bytes()),
                Ok(Answer::Refused) => {
                    self.refused += 1;
                    if joining {
                        self.doomed.push(index);
                    }
                }
                Ok(Answer::Acknowledged) => self.acknowledge(index, 0),
                Ok(Answer::Continue(texts)) => {
                    for text in &texts {
                        self.queue_text(index, text.as_bytes());
                    }
                    self.acknowledge(index, texts.len() as u16);
                }
                Err(error) => self.failure = Some(error),
            }
        }
    }

    fn acknowledge(&mut self, index: u32, more: u16) {
        if let Phase::Joining(left) = self.clients[index as usize].phase {
            let left = (left + more).saturating_sub(1);
            self.clients[index as usize].phase = Phase::Joining(left);
            if left == 0 {
                self.set_ready(index, Phase::Ready);
            }
        }
    }

    /// Keeps a channel's epoch from the first subscribe reply that shows it, when recovery is wanted.
    fn note_position(&mut self, index: u32, line: &[u8]) {
        if !matches!(self.plan.driver, Driver::Centrifuge { recover: true, .. })
            || index == self.publisher()
        {
            return;
        }
        let Some((id, position)) = subscribe_reply(line) else {
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

    // --- sending ---

    fn mark(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        if !client.dirty && !client.sending {
            client.dirty = true;
            self.dirty.push(index);
        }
    }

    fn queue_text(&mut self, index: u32, text: &[u8]) {
        self.queue_frame(index, frame::TEXT, text);
    }

    fn queue_frame(&mut self, index: u32, opcode: u8, payload: &[u8]) {
        self.mask = self
            .mask
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        frame::write_masked(
            opcode,
            payload,
            self.mask,
            &mut self.clients[index as usize].out,
        );
        self.mark(index);
    }

    /// An owned send has completed.
    pub(super) fn sent(&mut self, index: u32, batch: &[u8], result: i32) {
        let taken = usize::try_from(result).unwrap_or(0);
        self.stats.sent += taken as u64;
        let client = &mut self.clients[index as usize];
        client.sending = false;
        if client.phase == Phase::Closing {
            return;
        }
        if result < 0 {
            self.doomed.push(index);
            self.ended(index);
            return;
        }
        if taken < batch.len() {
            client.out.splice(..0, batch[taken..].iter().copied());
        }
        if !client.out.is_empty() {
            self.mark(index);
        }
    }

    // --- publishing ---

    pub(super) fn set_load(&mut self, load: Load) {
        self.load = load;
        self.outstanding = 0;
        for channel in &mut self.channels {
            channel.forgive();
        }
        match load {
            Load::Rate(per_second) => self.schedule = Schedule::new(self.now, per_second),
            Load::Echo => {
                for index in 0..self.plan.connections {
                    self.publish(index, index % self.plan.channels, self.now);
                }
            }
            Load::None | Load::Window(_) => {}
        }
    }

    /// Queues what is due; nanoseconds at which the next is, if that is known.
    pub(super) fn publish_due(&mut self) -> Option<u64> {
        let publisher = self.publisher();
        for _ in 0..PUBLICATIONS_PER_TURN {
            if self.clients[publisher as usize].out.len() > UNSENT_MAX {
                return None;
            }
            let intended = match self.load {
                Load::None | Load::Echo => return None,
                Load::Rate(_) if self.schedule.due() > self.now => {
                    return Some(self.schedule.due());
                }
                Load::Rate(_) => self.schedule.due(),
                Load::Window(size) if self.outstanding >= size => return None,
                Load::Window(_) => self.now,
            };
            let channel = self.next_channel;
            self.next_channel = (channel + 1) % self.plan.channels;
            if let Load::Window(_) = self.load {
                self.channels[channel as usize].owe();
                self.outstanding += 1;
            }
            self.schedule.advance();
            self.publish(publisher, channel, intended);
        }
        Some(self.now)
    }

    /// Publishes `count` to every channel at once, outside any load.
    pub(super) fn publish_now(&mut self, count: u32) {
        for channel in 0..self.plan.channels {
            for _ in 0..count {
                self.publish(self.publisher(), channel, self.now);
            }
        }
    }

    fn publish(&mut self, index: u32, channel: u32, intended: u64) {
        let known = &mut self.channels[channel as usize];
        let stamp = Stamp {
            channel,
            sequence: known.published,
            intended,
        };
        known.published += 1;
        self.stats.publications += 1;
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        payload::write(stamp, self.plan.size, &mut payload);
        if index == self.publisher()
            && let Some(key) = &self.plan.api_key
        {
            let name = self.plan.driver.channel_name(channel);
            api::publish(
                &self.plan.host,
                key,
                &name,
                &payload,
                &mut self.clients[index as usize].out,
            );
            self.mark(index);
        } else {
            let mut text = std::mem::take(&mut self.text);
            text.clear();
            let client = &mut self.clients[index as usize];
            client.command = client.command.wrapping_add(1).max(1000);
            self.plan
                .driver
                .publish(channel, client.command, &payload, &mut text);
            text.resize(text.len().max(self.plan.publish_bytes_min), b' ');
            self.queue_text(index, &text);
            self.text = text;
        }
        self.scratch = payload;
    }

    // --- the books ---

    /// Every publication has reached every subscriber that is still there.
    pub(super) fn is_settled(&self) -> bool {
        self.stats_missing() == 0
    }

    fn stats_missing(&self) -> u64 {
        let per_client = self.plan.subscriptions;
        let ready =
            (0..self.plan.connections).filter(|index| self.clients[*index as usize].is_ready());
        ready
            .flat_map(|index| index * per_client..(index + 1) * per_client)
            .map(|s| self.missing(s))
            .sum()
    }

    fn missing(&self, subscription: u32) -> u64 {
        self.ledger
            .missing(subscription, self.published(subscription))
    }

    fn published(&self, subscription: u32) -> u32 {
        self.channels[(subscription % self.plan.channels) as usize].published
    }

    /// The ledger as it stands, over the subscribers that are still there.
    pub(super) fn books(&self) -> Counts {
        let per_client = self.plan.subscriptions;
        let ready =
            (0..self.plan.connections).filter(|index| self.clients[*index as usize].is_ready());
        let subscriptions = ready.flat_map(|index| index * per_client..(index + 1) * per_client);
        self.ledger
            .close(subscriptions, |subscription| self.published(subscription))
    }
}

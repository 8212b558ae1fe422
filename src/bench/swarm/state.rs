//! The swarm without its rings: what arrives, what it means, and what is to be sent.

use super::super::driver::{Answer, protobuf_answer};
use super::super::ledger::{Arrival, Counts, Ledger};
use super::super::payload::{Seen, Stamp, Stamps, Usual, reported};
use super::super::wire::{self, Kind};
use super::super::{BenchError, frame};
use super::client::{Client, Phase};
use super::inflated::{Inflater, Patched};
use super::load::{Channel, Load, Schedule};
use super::stats::Stats;
use super::{Plan, api};

/// A server that drains says this in its close frame (`spec/centrifuge.md` §5.2).
const SHUTDOWN: u16 = 3001;
/// Bytes of the protocol's ping: `{}`, or one length of zero.
const PING_BYTES_MAX: usize = 2;

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
    pub(super) ledger: Ledger,
    /// How many publications each subscriber was told that it did not get.
    reported: Vec<u64>,
    pub(super) load: Load,
    pub(super) schedule: Schedule,
    pub(super) next_channel: u32,
    pub(super) scratch: Vec<u8>,
    pub(super) text: Vec<u8>,
    mask: u32,
    usual: Usual,
    inflater: Inflater,
    inflated: Vec<u8>,
    patched: Patched,
    pub(super) failure: Option<BenchError>,
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
            reported: vec![0; plan.connections as usize],
            ledger: Ledger::new((plan.connections * plan.subscriptions) as usize),
            load: Load::None,
            schedule: Schedule::new(0, 1.0),
            next_channel: 0,
            scratch: Vec::new(),
            text: Vec::new(),
            mask: 0x9E37_79B9,
            usual: Usual::default(),
            inflater: Inflater::default(),
            inflated: Vec::new(),
            patched: Patched::new(plan.size),
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

    // --- receiving ---

    /// Bytes have come for a client.
    pub(super) fn receive(&mut self, index: u32, bytes: &[u8]) {
        if index != self.publisher() {
            self.stats.receives += 1;
            self.stats.bytes += bytes.len() as u64;
        }
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

    pub(super) fn refuse(&mut self, index: u32) {
        self.refused += 1;
        self.doomed.push(index);
    }

    pub(super) fn frames(&mut self, index: u32, bytes: &[u8]) -> usize {
        let wire = self.plan.driver.wire(index, index == self.publisher());
        let mut used_all = 0;
        loop {
            let scan = if wire.is_stream() {
                wire::scan_chunk(&bytes[used_all..])
            } else {
                frame::scan(&bytes[used_all..])
            };
            match scan {
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
                    self.stats.frames += u64::from(index != self.publisher());
                    match opcode {
                        frame::TEXT | frame::BINARY | frame::CONTINUATION => {
                            self.text(index, payload)
                        }
                        compressed if compressed & frame::COMPRESSED != 0 => {
                            self.compressed(index, payload);
                        }
                        frame::PING => self.queue_frame(index, frame::PONG, payload),
                        frame::CLOSE => {
                            if payload.starts_with(&SHUTDOWN.to_be_bytes()) {
                                self.stats.told.push(self.now);
                                self.clients[index as usize].leaving = true;
                            }
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

    /// A compressed message; each is compressed by itself.
    fn compressed(&mut self, index: u32, payload: &[u8]) {
        let mut text = std::mem::take(&mut self.inflated);
        match self.inflater.inflate(payload, &mut text) {
            Some(()) => self.text(index, &text),
            None => self.refuse(index),
        }
        self.inflated = text;
    }

    fn text(&mut self, index: u32, text: &[u8]) {
        if self
            .plan
            .driver
            .wire(index, index == self.publisher())
            .delta
            && self.clients[index as usize].phase == Phase::Ready
            && text.len() > PING_BYTES_MAX
        {
            match self.patched.stamp(text) {
                Some(stamp) => self.deliver(index, stamp),
                None => self.refuse(index),
            }
            return;
        }
        if self.clients[index as usize].phase == Phase::Ready
            && self.load != Load::Echo
            && let Some(stamp) = self.usual.only_stamp(text)
        {
            self.deliver(index, stamp);
            return;
        }
        let wire = self.plan.driver.wire(index, index == self.publisher());
        if wire.encoding == Kind::Protobuf && text == [0] {
            self.queue_text(index, &[0]);
            return;
        }
        if let Some(told) = self.reported.get_mut(index as usize) {
            *told += reported(text);
        }
        let (mut is_plain, mut stamps, mut pings) = (true, 0, 0);
        for seen in Stamps::new(text) {
            match seen {
                Seen::Stamp(stamp) => {
                    self.deliver(index, stamp);
                    stamps += 1;
                }
                Seen::Ping => {
                    self.queue_text(index, b"{}");
                    pings += 1;
                }
            }
            is_plain = false;
        }
        if (stamps, pings) == (1, 0) {
            self.usual.learn(text);
        }
        let talks = index == self.publisher() || !self.plan.has_publisher;
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
        let wire = self.plan.driver.wire(index, index == self.publisher());
        let lines: Vec<&[u8]> = match wire.encoding {
            Kind::Json => text.split(|byte| *byte == b'\n').collect(),
            Kind::Protobuf => wire::messages(text).collect(),
        };
        for line in lines {
            let joining = matches!(self.clients[index as usize].phase, Phase::Joining(_));
            if joining {
                self.note_position(index, line);
            }
            let member = self.member(index);
            let answer = match wire.encoding {
                Kind::Json => self.plan.driver.answer(line, &member),
                Kind::Protobuf => Ok(protobuf_answer(line)),
            };
            match answer {
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

    // --- sending ---

    pub(super) fn mark(&mut self, index: u32) {
        let client = &mut self.clients[index as usize];
        if !client.dirty && !client.sending {
            client.dirty = true;
            self.dirty.push(index);
        }
    }

    pub(super) fn queue_text(&mut self, index: u32, text: &[u8]) {
        let wire = self.plan.driver.wire(index, index == self.publisher());
        self.queue_frame(index, wire.opcode(), text);
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

    // --- the books ---

    /// Every publication has reached every subscriber that is still there, or was said not to.
    pub(super) fn is_settled(&self) -> bool {
        self.unexplained() == 0
    }

    /// Subscribers that are still there.
    fn ready(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.plan.connections).filter(|index| self.clients[*index as usize].is_ready())
    }

    /// Publications that subscribers miss and were not told of, and those that they have although they were told that they do not.
    fn unexplained(&self) -> u64 {
        let per_client = self.plan.subscriptions;
        let of = |index: u32| {
            let own = index * per_client..(index + 1) * per_client;
            let missing: u64 = own.map(|s| self.missing(s)).sum();
            missing.abs_diff(self.reported[index as usize])
        };
        self.ready().map(of).sum()
    }

    /// How many publications subscribers that are still there were told that they did not get.
    pub(super) fn reported(&self) -> u64 {
        self.ready()
            .map(|index| self.reported[index as usize])
            .sum()
    }

    /// Publications so far, each as often as it has subscribers that are still there.
    pub(super) fn published_to_all(&self) -> u64 {
        let per_client = self.plan.subscriptions;
        let subscriptions = self
            .ready()
            .flat_map(|index| index * per_client..(index + 1) * per_client);
        subscriptions
            .map(|one| u64::from(self.published(one)))
            .sum()
    }

    fn missing(&self, subscription: u32) -> u64 {
        self.ledger
            .missing(subscription, self.published(subscription))
    }

    fn published(&self, subscription: u32) -> u32 {
        self.channels[(subscription % self.plan.channels) as usize].published
    }

    /// The ledger as it stands, over the subscribers that are still there: lost is what nobody was told of.
    pub(super) fn books(&self) -> Counts {
        Counts {
            lost: self.unexplained(),
            ..self.ledger.counts()
        }
    }
}

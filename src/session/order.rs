//! The order of a client's commands: each is carried out with the rights of its place, and replies leave in the order of their commands,
//! wherever what they wait for is. What does not depend on the commands before it may be under way beside them; what does, waits,
//! and everything behind it.

use std::collections::VecDeque;

use super::{Context, Session};
use crate::config::{ChannelRules, Namespace};
use crate::image::image;
use crate::limits::{
    COMMANDS_UNDER_PRESSURE_MAX, COMMANDS_UNDER_WAY_BYTES_MAX, COMMANDS_UNDER_WAY_MAX,
    DECISIONS_UNDER_WAY_MAX, WAITING_BYTES_MAX,
};
use crate::mem::Tick;
use crate::mesh::hook::HookAnswer;
use crate::model::ShardId;
use crate::protocol::command::{Body, Command, Subscribe};

/// What waits of one session, there only while something does.
#[derive(Debug, Default)]
pub struct Order {
    /// Commands that were carried out, oldest first, up to the first one without reply and beyond.
    entries: VecDeque<ExpectedReply>,
    /// Bytes of these commands.
    under_way_bytes: usize,
    /// What all of them are.
    group: Together,
    /// So many calls may be unanswered; see `Together::Calls`.
    calls_max: usize,
    /// Frames with commands that wait, oldest first.
    frames: VecDeque<Frame>,
    /// Of these frames.
    bytes: usize,
}

#[derive(Debug)]
struct ExpectedReply {
    id: u32,
    /// When it is given up; 0 where its reply comes in any case.
    by: Tick,
    state: ReplyState,
    /// Of the command.
    bytes: usize,
}

#[derive(Debug)]
enum ReplyState {
    /// Its reply is not there.
    Awaited,
    /// Its reply waits for those before it.
    Said(Box<[u8]>),
    /// Its backend has answered; what follows from that is done in its turn.
    Decided(Box<HookAnswer>),
}

/// Commands that may be under way at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Together {
    /// It goes alone.
    #[default]
    Alone,
    /// Publications and questions to the log: nothing of the session changes with them.
    Apart,
    /// Subscribes to channels of one owner, which answers them in order.
    Subscribes(ShardId),
    /// Commands that a backend decides about first. The decisions are asked for together, and carried out in order.
    Decisions,
    /// Calls to backends, `client.concurrency` at a time.
    Calls,
}

/// A frame of which the first `at` bytes are done.
#[derive(Debug)]
pub struct Frame {
    /// As it came, without what its transport has around it.
    pub bytes: Vec<u8>,
    /// Where the next command begins.
    pub at: usize,
}

image!(struct Order { entries, under_way_bytes, group, calls_max, frames, bytes });
image!(struct ExpectedReply { id, by, state, bytes });
image!(enum ReplyState { 0 => Awaited, 1 => Said(reply), 2 => Decided(answer) });
image!(enum Together { 0 => Alone, 1 => Apart, 2 => Subscribes(owner), 3 => Decisions, 4 => Calls });
image!(struct Frame { bytes, at });

/// Memory of a frame beside its bytes, about.
const AROUND_FRAME: usize = 64;

impl Frame {
    const fn weight(&self) -> usize {
        self.bytes.len() + AROUND_FRAME
    }
}

/// Where the reply to a command stands among what a session says: id, begin and end.
pub type ReplyMark = (u32, usize, usize);

/// Idle ones, for the next session that needs one.
#[allow(
    clippy::vec_box,
    reason = "they move from session to session as they are"
)]
pub type Spares = Vec<Box<Order>>;

/// Idle `Order`s that one shard keeps for the next session that needs one.
const SPARES_KEPT: usize = 64;
/// Places for entries that a spare one may hold on to.
const SPARE_ENTRIES_KEPT: usize = COMMANDS_UNDER_WAY_MAX;
/// Places for frames likewise.
const SPARE_FRAMES_KEPT: usize = 16;

impl Order {
    fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.frames.is_empty()
    }

    /// Something can go on: no reply is awaited and commands wait, the oldest one is decided, or there is room for one more call.
    fn goes_on(&self) -> bool {
        let may_be_next = !self.frames.is_empty();
        match self.entries.front() {
            None => may_be_next,
            Some(first) => {
                matches!(first.state, ReplyState::Decided(_)) || may_be_next && self.takes_call()
            }
        }
    }

    /// One more call may be under way. Answers that are kept for those before them have a bound, too.
    fn takes_call(&self) -> bool {
        let is_awaited = |entry: &&ExpectedReply| matches!(entry.state, ReplyState::Awaited);
        self.group == Together::Calls
            && self.entries.len() < self.calls_max.max(COMMANDS_UNDER_WAY_MAX)
            && self.entries.iter().filter(is_awaited).count() < self.calls_max
    }

    fn pop_entry(&mut self) {
        if let Some(first) = self.entries.pop_front() {
            self.under_way_bytes -= first.bytes;
        }
    }

    /// Nearly always: the replies are those to the oldest commands, and the next has none.
    fn is_in_order(&self, marks: &[ReplyMark]) -> bool {
        let awaits = |(entry, mark): (&ExpectedReply, &ReplyMark)| {
            entry.id == mark.0 && matches!(entry.state, ReplyState::Awaited)
        };
        let next = self.entries.get(marks.len());
        self.entries.len() >= marks.len()
            && self.entries.iter().zip(marks).all(awaits)
            && next.is_none_or(|entry| !matches!(entry.state, ReplyState::Said(_)))
    }

    fn position(&self, id: u32) -> Option<usize> {
        let awaits =
            |entry: &ExpectedReply| entry.id == id && matches!(entry.state, ReplyState::Awaited);
        self.entries.iter().position(awaits)
    }
}

/// The kind of an RPC.
enum RpcKind {
    /// Waits for deliveries, as long as its caller says: nothing waits for it.
    Fetch,
    Log,
    Call,
}

fn kind_of_rpc(method: &str) -> RpcKind {
    match method {
        "ringmain.fetch" => RpcKind::Fetch,
        _ if method.starts_with("ringmain.") => RpcKind::Log,
        _ => RpcKind::Call,
    }
}

/// A backend decides about the subscribe: nothing else does.
pub(super) fn is_hooked(
    rules: &ChannelRules,
    namespace: &Namespace,
    asked: &Subscribe<'_>,
) -> bool {
    namespace.subscribe_proxy_enabled
        && asked.token.is_empty()
        && !rules.is_private(&asked.channel)
        && !(namespace.allow_user_limited_channels && rules.user_limited(&asked.channel).is_some())
}

impl Session {
    /// What may be under way beside this command. `None`: it has no place in the order.
    fn group_of(&self, context: &Context<'_>, body: &Body<'_>) -> Option<Together> {
        let channels = context.rules;
        Some(match body {
            Body::Publish { channel, .. } => match channels.resolve(channel) {
                Ok(namespace) if namespace.publish_proxy_enabled => Together::Decisions,
                _ => Together::Apart,
            },
            Body::Rpc { method, .. } => match kind_of_rpc(method) {
                RpcKind::Fetch => return None,
                RpcKind::Log => Together::Apart,
                RpcKind::Call => Together::Calls,
            },
            Body::Subscribe(asked) => match channels.resolve(&asked.channel) {
                Ok(namespace) if is_hooked(channels, namespace, asked) => Together::Decisions,
                // What waits for the log is not answered in order.
                Ok(namespace) if !namespace.is_durable() => {
                    let channel = self.channel(&asked.channel);
                    Together::Subscribes(context.owner(&channel))
                }
                _ => Together::Alone,
            },
            Body::Pong | Body::Connect(_) | Body::Send { .. } => return None,
            Body::Unsubscribe { .. }
            | Body::Presence { .. }
            | Body::PresenceStats { .. }
            | Body::History(_)
            | Body::Refresh { .. }
            | Body::SubRefresh { .. } => Together::Alone,
        })
    }

    /// Does a command wait for the replies to those before it?
    pub fn must_wait(&mut self, context: &Context<'_>, command: &Command<'_>) -> bool {
        let Some(order) = &self.order else {
            return false;
        };
        if order.entries.is_empty() || matches!(command.body, Body::Pong) {
            return false;
        }
        let (under_way, now) = (order.entries.len(), order.group);
        let most = if context.mesh.is_pressed() {
            COMMANDS_UNDER_PRESSURE_MAX
        } else {
            COMMANDS_UNDER_WAY_MAX
        };
        if under_way >= most && now != Together::Calls {
            return true;
        }
        if order.under_way_bytes + self.weight(command) > COMMANDS_UNDER_WAY_BYTES_MAX {
            return true;
        }
        let Some(group) = self.group_of(context, &command.body) else {
            return now != Together::Apart;
        };
        if group != now {
            return true;
        }
        match (group, &command.body) {
            (Together::Alone, _) => true,
            (Together::Apart, _) => false,
            (Together::Calls, _) => !order.takes_call(),
            (Together::Subscribes(_), Body::Subscribe(asked)) => self.may_fail(context, asked),
            (Together::Decisions, Body::Subscribe(asked)) => {
                under_way >= DECISIONS_UNDER_WAY_MAX || self.may_fail(context, asked)
            }
            (Together::Subscribes(_) | Together::Decisions, _) => {
                under_way >= DECISIONS_UNDER_WAY_MAX
            }
        }
    }

    /// Bytes that a command takes while it is under way, with what is said of its client.
    fn weight(&self, command: &Command<'_>) -> usize {
        command.weight() + self.info.len() + self.user.whole().len()
    }

    /// Whether a subscribe is allowed depends on what becomes of those before it.
    fn may_fail(&mut self, context: &Context<'_>, asked: &Subscribe<'_>) -> bool {
        let here = self.subscriptions.len() + self.awaiting_count();
        here >= self.subscriptions_max(context)
            || self.find(context, &asked.channel).is_some()
            || self.awaiting(&asked.channel).is_some()
    }

    /// A command was carried out. If its reply comes later, its place is kept.
    pub(super) fn await_reply(&mut self, context: &mut Context<'_>, command: &Command<'_>) {
        let Some(group) = context.awaits.take() else {
            return;
        };
        let bytes = self.weight(command);
        let order = self
            .order
            .get_or_insert_with(|| context.spares.pop().unwrap_or_default());
        order.group = group;
        order.calls_max = context.config.client.concurrency as usize;
        order.under_way_bytes += bytes;
        order.entries.push_back(ExpectedReply {
            id: command.id,
            by: context.answer_by,
            state: ReplyState::Awaited,
            bytes,
        });
    }

    /// Puts the replies among what a session has said in order: those whose turn has not come are kept. `is_command`: it said
    /// them while it carried out a command. True if something can go on.
    pub fn put_in_order(
        &mut self,
        out: &mut Vec<u8>,
        marks: &[ReplyMark],
        is_command: bool,
        spares: &mut Spares,
    ) -> bool {
        let Some(order) = &mut self.order else {
            return false;
        };
        debug_assert!(
            marks.is_sorted_by_key(|mark| mark.1) && marks.iter().all(|mark| mark.2 <= out.len()),
            "replies stand one behind the other in what is said"
        );
        if !is_command && order.is_in_order(marks) {
            for _ in marks {
                order.pop_entry();
            }
        } else {
            order.sort(out, marks, is_command);
        }
        let goes_on = order.goes_on();
        self.drop_idle_order(spares);
        goes_on
    }

    fn drop_idle_order(&mut self, spares: &mut Spares) {
        if let Some(order) = self.order.take_if(|order| order.is_idle())
            && spares.len() < SPARES_KEPT
            && order.entries.capacity() <= SPARE_ENTRIES_KEPT
            && order.frames.capacity() <= SPARE_FRAMES_KEPT
        {
            debug_assert_eq!(
                (order.bytes, order.under_way_bytes),
                (0, 0),
                "what waits for nothing holds nothing"
            );
            spares.push(order);
        }
    }

    /// The backend has answered a command whose turn has not come: the answer is kept until then. It comes back otherwise, also where
    /// nothing but a reply comes of it: that keeps its turn by itself.
    pub(super) fn keep_decision(&mut self, answer: HookAnswer) -> Option<HookAnswer> {
        let place = self.order.as_mut().and_then(|order| {
            let waits = |&at: &usize| at > 0 && order.group != Together::Calls;
            let at = order.position(answer.call.id).filter(waits)?;
            order.entries.get_mut(at)
        });
        match place {
            Some(entry) => {
                entry.state = ReplyState::Decided(Box::new(answer));
                None
            }
            None => Some(answer),
        }
    }

    /// The decision about the oldest command, if it is there: it is carried out now.
    pub fn take_decision(&mut self) -> Option<HookAnswer> {
        let first = self.order.as_mut()?.entries.front_mut()?;
        match std::mem::replace(&mut first.state, ReplyState::Awaited) {
            ReplyState::Decided(answer) => Some(*answer),
            other => {
                first.state = other;
                None
            }
        }
    }

    /// Another shard is asked for the reply to a command that was carried out before: its time runs from now on.
    pub(super) fn date_reply(&mut self, id: u32, by: Tick) {
        if let Some(order) = &mut self.order
            && let Some(at) = order.position(id)
        {
            order.entries[at].by = by;
        }
    }

    /// Does a command with this id wait for its reply?
    #[must_use]
    pub fn awaits_reply(&self, id: u32) -> bool {
        let order = self.order.as_ref();
        order.is_some_and(|order| order.position(id).is_some())
    }

    /// The oldest subscribe whose owner has not answered though it answers in order, and has answered the command with this id, which
    /// came later: its answer does not come any more.
    #[must_use]
    pub fn overtaken_by(&self, id: u32) -> Option<u32> {
        let order = self.order.as_ref()?;
        let first = order.entries.front()?;
        let is_overtaken = matches!(order.group, Together::Subscribes(_))
            && matches!(first.state, ReplyState::Awaited)
            && first.id != id
            && order.position(id).is_some();
        is_overtaken.then_some(first.id)
    }

    /// When the first reply of another shard is given up; 0 when none is awaited.
    pub(super) fn reply_by(&self) -> Tick {
        let awaited =
            |entry: &&ExpectedReply| entry.by != 0 && matches!(entry.state, ReplyState::Awaited);
        let order = self.order.as_ref();
        let first = order.and_then(|order| order.entries.iter().find(awaited));
        first.map_or(0, |entry| entry.by)
    }

    /// A command whose reply is not there by now: it is answered with an error. Call until `None`.
    pub(super) fn next_overdue(&mut self, now: Tick) -> Option<u32> {
        let entries = &mut self.order.as_mut()?.entries;
        let is_over = |entry: &&mut ExpectedReply| {
            entry.by != 0 && entry.by <= now && matches!(entry.state, ReplyState::Awaited)
        };
        let entry = entries.iter_mut().find(is_over)?;
        entry.by = 0;
        Some(entry.id)
    }

    /// Commands wait to be carried out.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.order
            .as_ref()
            .is_some_and(|order| !order.frames.is_empty())
    }

    /// Commands came that are not under way, or whose backend decides first: nothing comes of them if the session ends now.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.order.as_ref().is_some_and(|order| {
            let is_undecided = order.group == Together::Decisions && !order.entries.is_empty();
            is_undecided || !order.frames.is_empty()
        })
    }

    /// Commands are carried out whose replies are not there.
    #[must_use]
    pub fn awaits_replies(&self) -> bool {
        self.order
            .as_ref()
            .is_some_and(|order| !order.entries.is_empty())
    }

    /// So much waits that no more is read.
    #[must_use]
    pub fn has_enough(&self) -> bool {
        self.order
            .as_ref()
            .is_some_and(|order| order.bytes >= WAITING_BYTES_MAX)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.order.as_ref().map_or(0, |order| order.bytes)
    }

    /// Commands that were carried out and whose replies are not sent.
    #[must_use]
    pub fn commands_under_way(&self) -> usize {
        self.order.as_ref().map_or(0, |order| order.entries.len())
    }

    /// Keeps a frame behind the others.
    pub fn push_frame(&mut self, spares: &mut Spares, bytes: Vec<u8>) {
        let frame = Frame { bytes, at: 0 };
        let order = self
            .order
            .get_or_insert_with(|| spares.pop().unwrap_or_default());
        order.bytes += frame.weight();
        order.frames.push_back(frame);
    }

    /// The oldest frame that waits.
    pub fn pop_frame(&mut self) -> Option<Frame> {
        let order = self.order.as_mut()?;
        let frame = order.frames.pop_front()?;
        order.bytes -= frame.weight();
        Some(frame)
    }

    /// What is left of the oldest frame waits on.
    pub fn put_back(&mut self, spares: &mut Spares, frame: Frame) {
        let order = self
            .order
            .get_or_insert_with(|| spares.pop().unwrap_or_default());
        order.bytes += frame.weight();
        order.frames.push_front(frame);
    }

    /// Nothing waits any more.
    pub fn forget_order(&mut self, spares: &mut Spares) {
        self.drop_idle_order(spares);
    }
}

impl Order {
    fn sort(&mut self, out: &mut Vec<u8>, marks: &[ReplyMark], is_command: bool) {
        let mut sorted = Vec::with_capacity(out.len());
        let mut at = 0;
        for &(id, from, to) in marks {
            sorted.extend_from_slice(&out[at..from]);
            at = to;
            let reply = &out[from..to];
            let place = if is_command { None } else { self.position(id) };
            match place {
                Some(0) => {
                    self.pop_entry();
                    sorted.extend_from_slice(reply);
                    self.say_next(&mut sorted);
                }
                Some(place) => self.entries[place].state = ReplyState::Said(reply.into()),
                None if is_command && !self.entries.is_empty() => {
                    self.entries.push_back(ExpectedReply {
                        id,
                        by: 0,
                        state: ReplyState::Said(reply.into()),
                        bytes: 0,
                    })
                }
                None => sorted.extend_from_slice(reply),
            }
        }
        sorted.extend_from_slice(&out[at..]);
        *out = sorted;
    }

    /// Replies whose turn has come.
    fn say_next(&mut self, out: &mut Vec<u8>) {
        while let Some(ExpectedReply {
            state: ReplyState::Said(reply),
            ..
        }) = self.entries.front()
        {
            out.extend_from_slice(reply);
            self.pop_entry();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_go_out_in_the_order_of_their_commands_whatever_the_order_they_come_in() {
        // The commands 1, 2, 3; replies that are kept already; the replies that come, in their order; what goes out; commands left.
        type Case = (&'static [u32], &'static [u32], &'static str, &'static [u32]);
        let cases: &[Case] = &[
            (&[], &[1], "1", &[2, 3]),
            (&[], &[1, 2], "12", &[3]),
            (&[], &[1, 2, 3], "123", &[]),
            (&[], &[2], "", &[1, 2, 3]),
            (&[], &[2, 1], "12", &[3]),
            (&[], &[1, 3], "1", &[2, 3]),
            (&[], &[3, 2, 1], "123", &[]),
            (&[2], &[1], "12", &[3]),
            (&[3], &[1, 2], "123", &[]),
            (&[2], &[1, 3], "123", &[]),
            (&[2, 3], &[1], "123", &[]),
        ];
        for (kept, come, said, left) in cases {
            let entries = (1..=3).map(|id| ExpectedReply {
                id,
                by: 0,
                state: if kept.contains(&id) {
                    ReplyState::Said(id.to_string().into_bytes().into())
                } else {
                    ReplyState::Awaited
                },
                bytes: 0,
            });
            let mut session = Session::default();
            session.order.get_or_insert_default().entries = entries.collect();
            let mut out: Vec<u8> = come.iter().map(|&id| b'0' + id as u8).collect();
            let marks: Vec<ReplyMark> =
                (0..).zip(*come).map(|(at, &id)| (id, at, at + 1)).collect();
            session.put_in_order(&mut out, &marks, false, &mut Spares::new());
            assert_eq!(out, said.as_bytes(), "{kept:?} {come:?}");
            let order = session.order.as_deref();
            let ids = order.map_or(Vec::new(), |order| {
                order.entries.iter().map(|entry| entry.id).collect()
            });
            assert_eq!(ids, *left, "{kept:?} {come:?}");
        }
    }
}

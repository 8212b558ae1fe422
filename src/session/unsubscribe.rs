//! How subscriptions end, and sessions with all of theirs (`spec/centrifuge.md` §4.4).

use std::sync::Arc;

use super::order::Together;
use super::{Context, Counted, ForHooks, Phase, Session, flag};
use crate::mesh::Message;
use crate::mesh::message::Leave;
use crate::model::HubId;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::{Push, ReplyBody, Unsubscribe};

impl Session {
    pub(super) fn unsubscribe(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        channel: &str,
    ) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(Disconnect::BadRequest);
        }
        if let Some(index) = self.find(context, channel) {
            let subscription = &mut self.subscriptions[index];
            if subscription.is_pending() {
                // The server's subscribe is told first, or the part of what was missed that is on its way; then it ends.
                subscription.extra.get_or_insert_default().unsubscribe = Some(id);
                context.awaits = Some(Together::Alone);
                return Ok(());
            }
            let hub = subscription.hub;
            self.end_subscription(context, hub, None);
        }
        context.reply(id, ReplyBody::Unsubscribe);
        Ok(())
    }

    /// Ends that waited for the owner's answer: an unsubscribe command, and the server's. The answer may have ended the subscription.
    pub(super) fn run_unsubscribes(&mut self, context: &mut Context<'_>, hub: HubId) {
        let Some(index) = self.subscription_at(hub.slot) else {
            return;
        };
        let unsubscribe = self.take_unsubscribe(index);
        let ends = self.subscriptions[index]
            .extra
            .as_mut()
            .and_then(|extra| extra.ends.take());
        if unsubscribe.is_none() && ends.is_none() {
            return;
        }
        self.end_subscription(context, hub.slot, ends);
        reply_unsubscribed(context, unsubscribe);
    }

    pub(super) fn take_unsubscribe(&mut self, index: usize) -> Option<u32> {
        self.subscriptions[index]
            .extra
            .as_mut()
            .and_then(|extra| extra.unsubscribe.take())
    }

    /// Ends the subscription to a channel, unless it has ended before: presence and leave first, then the push if there is one.
    pub fn end_subscription(
        &mut self,
        context: &mut Context<'_>,
        hub: u32,
        push: Option<Unsubscribe>,
    ) {
        let Some(index) = self.subscription_at(hub) else {
            return;
        };
        if push.is_some() && self.subscriptions[index].is_pending() {
            // The subscribe is answered first, and its answer finds the subscription it belongs to; then it ends.
            self.subscriptions[index].extra.get_or_insert_default().ends = push;
            return;
        }
        let subscription = self.subscriptions.remove(index);
        let id = context.hub.id_at(hub);
        let channel = context.hub.of(hub).name.clone();
        let (moved, last) = context.hub.exit(id, subscription.place);
        if let Some(place) = subscription.place {
            context.ended.push(hub);
            context
                .moved
                .extend(moved.map(|moved| (moved.conn, hub, place)));
        }
        let known = subscription.has(flag::PRESENCE) || subscription.has(flag::ANNOUNCED);
        if known || last {
            let leave = Leave {
                hub: id,
                info: known.then(|| Arc::new(self.client_info(subscription.info()))),
                leave: subscription.has(flag::ANNOUNCED),
                channel: channel.clone(),
                last,
            };
            let owner = context.owner(&channel);
            context.mesh.keep(owner, Message::Leave(Box::new(leave)));
        }
        if let Some(push) = push {
            context.push(channel.name(), &Push::Unsubscribe(push));
        }
    }

    /// Ends every subscription, without a word to the client.
    pub fn end_all(&mut self, context: &mut Context<'_>) {
        while let Some(subscription) = self.subscriptions.last() {
            let hub = subscription.hub;
            self.end_subscription(context, hub, None);
        }
    }

    /// The session is over: nothing of it is left on any shard.
    pub fn end(&mut self, context: &mut Context<'_>) {
        self.end_all(context);
        self.give_place(context);
        if self.counted.take(Counted::BY_USER) {
            let registry =
                crate::broker::owner::user_registry(self.user.whole(), context.mesh.shards());
            context.mesh.keep(
                registry,
                Message::Release(self.user.whole().into(), context.conn),
            );
        }
        self.connecting = None;
        self.order = None;
        if let Some(rare) = &mut self.rare {
            if std::mem::take(&mut rare.is_worker) {
                context.log.gone(context.conn);
            }
            rare.hooks = ForHooks::default();
        }
        self.phase = Phase::Ended;
        self.next = 0;
        self.pong_by = 0;
    }
}

pub(super) fn reply_unsubscribed(context: &mut Context<'_>, id: Option<u32>) {
    if let Some(id) = id {
        context.reply(id, ReplyBody::Unsubscribe);
    }
}

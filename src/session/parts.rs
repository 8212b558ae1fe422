//! What a subscriber missed of a durable channel, part by part: the first with its reply, the others as publications, and then
//! it joins.

use super::asked::SubscribedBy;
use super::{Context, Session, flag};
use crate::mesh::Message;
use crate::mesh::message::{Interest, InterestFor, Interested, Recover};
use crate::model::{HubId, Since};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::{PayloadShape, Push, Unsubscribe};

impl Session {
    /// Joins the channel's subscribers, unless more of what was missed comes first.
    pub(super) fn join(&mut self, context: &mut Context<'_>, index: usize, answer: &Interested) {
        let last = answer.missed.last().map(|last| last.offset.0);
        let is_ending = self.subscriptions[index]
            .extra
            .as_ref()
            .is_some_and(|extra| extra.ends.is_some() || extra.unsubscribe.is_some());
        let Some(offset) = last.filter(|_| answer.more && !is_ending) else {
            self.activate(context, index, answer);
            return;
        };
        let subscription = &mut self.subscriptions[index];
        subscription.flags |= flag::IN_PARTS;
        subscription.extra.get_or_insert_default().next = Some(Recover {
            epoch: Since::Epoch(answer.position.epoch),
            offset,
            limit: context.config.client.recovery_max_publication_limit,
            cache: false,
        });
        (context.parts).push(answer.channel.tenant(), (context.conn, answer.hub));
    }

    /// Asks for the next part of what was missed. `false`: later, the owner could not be asked.
    pub fn ask_part(&mut self, context: &mut Context<'_>, hub: HubId) -> bool {
        let Some(channel) = context.hub.channel(hub).map(|channel| channel.name.clone()) else {
            return true;
        };
        let Some(index) = self.subscription_at(hub.slot) else {
            return true;
        };
        let subscription = &mut self.subscriptions[index];
        let next = subscription.extra.as_mut().and_then(|extra| extra.next);
        let Some(recover) = next.filter(|_| subscription.is_pending()) else {
            return true;
        };
        let owner = context.owner(&channel);
        let interest = Interest {
            channel,
            hub,
            recover: Some(recover),
            presence: None,
            keep: false,
            join: false,
            delta: subscription.has(flag::DELTA) && subscription.has(flag::POSITIONED),
        };
        let Ok(ask) = context.open_interest(self.client, hub, SubscribedBy::Part) else {
            return false;
        };
        let question = Message::Interest(InterestFor(ask), Box::new(interest));
        let asked = context.command(owner, question);
        if asked.is_err() {
            context.asked.interests.close(ask);
        }
        asked.is_ok()
    }

    /// The next part of what was missed follows what went out before.
    pub(super) fn part_came(
        &mut self,
        context: &mut Context<'_>,
        hub: HubId,
        index: usize,
        answer: &Interested,
    ) -> Option<Disconnect> {
        let subscription = &mut self.subscriptions[index];
        if let Some(extra) = &mut subscription.extra {
            extra.next = None;
        }
        let filter = subscription.filter().cloned();
        let has_delta = subscription.has(flag::DELTA);
        let is_lost = answer.refused.is_some() || !answer.recovered;
        if is_lost {
            let is_server_side = subscription.has(flag::SERVER_SIDE);
            self.activate(context, index, answer);
            if is_server_side {
                return Some(Disconnect::InsufficientState);
            }
            let extra = self.subscriptions[index].extra.get_or_insert_default();
            extra.ends = Some(Unsubscribe::Insufficient);
            self.run_unsubscribes(context, hub);
            return None;
        }
        context.counters.recovery_parts += 1;
        for publication in &answer.missed {
            let passes = filter
                .as_ref()
                .is_none_or(|filter| filter.passes(&publication.tags));
            if passes {
                let push = if has_delta {
                    Push::Shaped(publication, PayloadShape::Whole)
                } else {
                    Push::Publication(publication)
                };
                context.push(answer.channel.name(), &push);
            }
        }
        self.join(context, index, answer);
        if !self.subscriptions[index].is_pending() {
            self.subscriptions[index].flags &= !flag::IN_PARTS;
            self.run_unsubscribes(context, hub);
        }
        None
    }
}

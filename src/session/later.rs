//! Subscribe and unsubscribe commands for a channel that is about to be left: the subscribe before them waits for its answer, and an end
//! waits behind it. They are handled again, in order, once that is over.

use super::{Context, Phase, Session};
use crate::protocol::command::{Body, Command, Subscribe};

/// Commands that one session may have put off.
const LATER_MAX: usize = 128;

impl Session {
    /// The subscribe to this channel is not answered, and the subscription will end with its answer.
    pub(super) fn is_ending(&mut self, context: &Context<'_>, channel: &str) -> bool {
        if let Some(awaiting) = self.awaiting(channel) {
            return awaiting.will_end();
        }
        let Some(index) = self.find(context, channel) else {
            return false;
        };
        let subscription = &self.subscriptions[index];
        subscription.is_pending()
            && subscription
                .extra
                .as_ref()
                .is_some_and(|extra| !extra.unsubscribes.is_empty() || extra.ends.is_some())
    }

    /// Keeps a subscribe; false when there are too many.
    pub(super) fn put_off_subscribe(&mut self, id: u32, asked: &Subscribe<'_>) -> bool {
        let body = Body::Subscribe(asked.clone());
        self.put_off(Command { id, body }.into_owned())
    }

    /// Keeps an unsubscribe if it stands behind a subscribe that was put off.
    pub(super) fn put_off_unsubscribe(&mut self, id: u32, channel: &str) -> bool {
        let is_behind = self.rare.as_deref().is_some_and(|rare| {
            rare.later.iter().any(|command| match &command.body {
                Body::Subscribe(asked) => asked.channel == channel,
                _ => false,
            })
        });
        let body = Body::Unsubscribe {
            channel: channel.into(),
        };
        is_behind && self.put_off(Command { id, body }.into_owned())
    }

    fn put_off(&mut self, command: Command<'static>) -> bool {
        let later = &mut self.rare.get_or_insert_default().later;
        if later.len() == LATER_MAX {
            return false;
        }
        later.push(command);
        true
    }

    /// What was put off, to be handled again.
    pub fn take_later(&mut self) -> Vec<Command<'static>> {
        match self.rare.as_deref_mut() {
            Some(rare) if self.phase == Phase::Connected => std::mem::take(&mut rare.later),
            _ => Vec::new(),
        }
    }
}

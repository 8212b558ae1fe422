//! Publish by a client (`spec/centrifuge.md` §4.7).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::order::Together;
use super::{Context, Session, Waiting, refused};
use crate::auth::permission;
use crate::config::{Namespace, Unfit};
use crate::limits::USER_ID_BYTES_MAX;
use crate::mem::Pace;
use crate::mesh::Message;
use crate::mesh::message::PublishFor;
use crate::model::{ChannelName, Draft, Encoding, Way};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;
use crate::wire::json::{compact, is_json};

impl From<Unfit> for ClientError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::TooLarge(_) => Self::LimitExceeded,
            _ => Self::BadRequest,
        }
    }
}

impl Session {
    pub(super) fn publish(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        channel: &str,
        data: &[u8],
    ) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(Disconnect::BadRequest);
        }
        match self.try_publish(context, id, channel, data) {
            Ok(group) => context.awaits = Some(group),
            Err(error) => context.error(id, error),
        }
        Ok(())
    }

    fn try_publish(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        channel: &str,
        data: &[u8],
    ) -> Result<Together, ClientError> {
        let config = context.config;
        let at = self.find(context, channel);
        check_name(context, channel, at.is_some())?;
        let rules = context.rules;
        let namespace = rules
            .resolve(channel)
            .map_err(|_unknown| ClientError::UnknownChannel)?;
        let target = if namespace.publish_proxy_enabled {
            let target = config.hooks.of_publish(&namespace.publish_proxy_name);
            Some(target.ok_or(ClientError::NotAvailable)?)
        } else {
            let asker = self.asker(context, at.is_some());
            permission::may_publish(namespace, &asker).map_err(refused)?;
            None
        };
        let (data, json) = match context.format.encoding {
            Encoding::Json => (compact(data), !data.is_empty()),
            Encoding::Protobuf => (Cow::Borrowed(data), is_json(data)),
        };
        let name = self.name_of(context, channel, at);
        let data = match data {
            Cow::Borrowed(data) => Bytes::copy_from_slice(data),
            Cow::Owned(data) => data.into(),
        };
        let draft = Box::new(Draft::new(namespace.terms(), name, data, json));
        config.check_draft(namespace, &draft)?;
        self.take_publication(context, namespace)?;
        if let Some(target) = target {
            self.ask_publish(context, id, draft, target)?;
            return Ok(Together::Decisions);
        }
        let conn = context.conn;
        let by_rpc = false;
        self.send(context, PublishFor { conn, id, by_rpc }, at, draft)?;
        Ok(Together::Apart)
    }

    /// The channel's name, shared with the hub if the client is subscribed, and where.
    pub(super) fn name_of(
        &self,
        context: &Context<'_>,
        channel: &str,
        at: Option<usize>,
    ) -> ChannelName {
        at.map(|index| context.hub.of(self.subscriptions[index].hub))
            .map_or_else(|| self.channel(channel), |hub| hub.name.clone())
    }

    /// Sends what this client may publish the way it goes. `at`: which of its subscriptions is to the channel, if one is.
    pub(super) fn send(
        &self,
        context: &mut Context<'_>,
        publisher: PublishFor,
        at: Option<usize>,
        mut draft: Box<Draft>,
    ) -> Result<(), ClientError> {
        let chan_info = at.map_or(&[][..], |index| self.subscriptions[index].info());
        debug_assert!(self.user.name().len() <= USER_ID_BYTES_MAX);
        draft.record.publisher = Some(Arc::new(self.client_info(chan_info)));
        draft.prefix = context.prefix;
        let Some(draft) = context.pass(publisher, draft)? else {
            return Ok(());
        };
        match draft.way() {
            Way::Owner => {
                let owner = context.owner(&draft.record.channel);
                context.command(owner, Message::Publish(publisher, draft))?;
                context.await_mesh();
                Ok(())
            }
            Way::Log => {
                let PublishFor { conn, id, by_rpc } = publisher;
                let waiting = if by_rpc {
                    Waiting::RpcPublish { conn, id }
                } else {
                    Waiting::Publish { conn, id }
                };
                let whose = self.whose(conn, context.prefix);
                let timeout = context.config.durable.append_timeout;
                let clock = (context.now, &mut *context.rng);
                context
                    .log
                    .append(clock, timeout, (waiting, Some(whose)), draft)
                    .map_err(|error| ClientError::of_log(&error))
            }
        }
    }

    /// It counts against what this client may publish in a second: of that, each publication takes the part that its namespace says.
    pub(super) fn take_publication(
        &mut self,
        context: &Context<'_>,
        namespace: &Namespace,
    ) -> Result<(), ClientError> {
        if namespace.rate == 0 {
            return Ok(());
        }
        let bucket = &mut self.rare.get_or_insert_default().rate;
        bucket
            .take(context.now.at, 1, Pace::per_second(namespace.rate))
            .map_err(ClientError::too_fast)
    }
}

/// Could the client be subscribed to a channel of this name, or is it? Nothing is kept or asked under any other.
pub(super) fn check_name(
    context: &Context<'_>,
    channel: &str,
    is_subscribed: bool,
) -> Result<(), ClientError> {
    let fits = context.rules.check_client_name(channel).is_ok();
    if fits || is_subscribed {
        return Ok(());
    }
    Err(ClientError::BadRequest)
}

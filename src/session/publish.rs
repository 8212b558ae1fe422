//! Publish by a client (`spec/centrifuge.md` §4.7).

use std::borrow::Cow;

use bytes::Bytes;

use super::durable::DurableOptions;
use super::order::Group;
use super::{Context, Session, refused};
use crate::auth::permission;
use crate::config::namespace::DataFormat;
use crate::config::{Config, Namespace};
use crate::mem::Tick;
use crate::mesh::Message;
use crate::mesh::hook::Published;
use crate::mesh::message::{Publish, PublishFor};
use crate::model::{ChannelName, Encoding};
use crate::protocol::centrifuge::json;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;
use crate::wire::json::is_deeper;

/// Publishes of one session within the current second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    second: Tick,
    count: u32,
}

/// Why a payload is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadRefused {
    /// There is none.
    #[error("expected a payload that is not empty")]
    Empty,
    /// The namespace takes JSON.
    #[error("expected JSON")]
    NotJson,
    /// The namespace takes objects.
    #[error("expected a JSON object")]
    NotAnObject,
    /// Some client would not read it.
    #[error("expected JSON of at most {0} levels, as client.json_depth_max says")]
    TooDeep(u32),
    /// Over `size_max`.
    #[error("expected at most {0} bytes")]
    TooLarge(u32),
}

impl From<PayloadRefused> for ClientError {
    fn from(refused: PayloadRefused) -> Self {
        match refused {
            PayloadRefused::TooLarge(_) => Self::LimitExceeded,
            _ => Self::BadRequest,
        }
    }
}

/// Is the payload what the namespace wants, and what every client can read?
pub fn check_data(
    config: &Config,
    namespace: &Namespace,
    data: &[u8],
    json: bool,
) -> Result<(), PayloadRefused> {
    let is_object = || data.trim_ascii_start().first() == Some(&b'{');
    match namespace.publication_data_format {
        DataFormat::NotEmpty if data.is_empty() => return Err(PayloadRefused::Empty),
        DataFormat::Json | DataFormat::JsonObject if !json => return Err(PayloadRefused::NotJson),
        DataFormat::JsonObject if !is_object() => return Err(PayloadRefused::NotAnObject),
        DataFormat::NotEmpty | DataFormat::Json | DataFormat::JsonObject | DataFormat::Binary => {}
    }
    if namespace.size_max > 0 && data.len() > namespace.size_max as usize {
        return Err(PayloadRefused::TooLarge(namespace.size_max));
    }
    let levels = config.client.json_depth_max;
    if json && is_deeper(data, levels as usize) {
        return Err(PayloadRefused::TooDeep(levels));
    }
    Ok(())
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
    ) -> Result<Group, ClientError> {
        let config = context.config;
        self.check_name(context, channel)?;
        let namespace = config
            .channels
            .resolve(channel)
            .map_err(|_unknown| ClientError::UnknownChannel)?;
        let target = if namespace.publish_proxy_enabled {
            let target = config.hooks.of_publish(&namespace.publish_proxy_name);
            Some(target.ok_or(ClientError::NotAvailable)?)
        } else {
            let subscribed = self.find(context, channel).is_some();
            permission::may_publish(namespace, &self.asker(context, subscribed))
                .map_err(refused)?;
            None
        };
        let (data, json) = match context.format.encoding {
            Encoding::Json => (json::compact(data), !data.is_empty()),
            Encoding::Protobuf => (Cow::Borrowed(data), json::is_json(data)),
        };
        check_data(config, namespace, &data, json)?;
        if namespace.rate > 0 && !self.take_rate(context.now.at.secs(), namespace.rate) {
            return Err(ClientError::TooManyRequests);
        }
        let data = Bytes::copy_from_slice(&data);
        if let Some(target) = target {
            self.ask_publish(context, id, channel, data, target)?;
            return Ok(Group::Decisions);
        }
        let channel = self.name_of(context, channel);
        self.send_publish(context, id, channel, data, json, Published::default(), None)?;
        Ok(Group::Apart)
    }

    /// Could the client be subscribed to a channel of this name, or is it? Nothing is kept or asked under any other.
    pub(super) fn check_name(
        &self,
        context: &Context<'_>,
        channel: &str,
    ) -> Result<(), ClientError> {
        let fits = context.config.channels.check_client_name(channel).is_ok();
        if fits || self.find(context, channel).is_some() {
            return Ok(());
        }
        Err(ClientError::BadRequest)
    }

    /// The channel's name, shared with the hub if the client is subscribed.
    pub(super) fn name_of(&self, context: &Context<'_>, channel: &str) -> ChannelName {
        self.find(context, channel)
            .and_then(|index| context.hub.at(self.subscriptions[index].hub))
            .map_or_else(|| ChannelName::new(channel), |hub| hub.name.clone())
    }

    /// Sends what may be published to the owner, or to the log. `by_rpc`: `ringmain.publish` says it.
    #[allow(clippy::too_many_arguments, reason = "all of a publication")]
    pub(super) fn send_publish(
        &self,
        context: &mut Context<'_>,
        id: u32,
        channel: ChannelName,
        data: Bytes,
        json: bool,
        options: Published,
        by_rpc: Option<DurableOptions>,
    ) -> Result<(), ClientError> {
        let subscribed = self.find(context, channel.as_str());
        let chan_info = subscribed.map_or(&[][..], |index| self.subscriptions[index].info());
        let info = self.client_info(chan_info);
        let is_durable = context
            .config
            .channels
            .resolve(channel.as_str())
            .is_ok_and(|namespace| namespace.is_durable());
        if is_durable {
            return self.append(context, id, channel, data, json, info, options, by_rpc);
        }
        let owner = context.owner(&channel);
        let publisher = PublishFor {
            conn: context.conn,
            id,
            by_rpc: by_rpc.is_some(),
        };
        let publish = Publish {
            channel,
            data,
            json,
            info: Some(Box::new(info)),
            prefix: context.prefix,
            tags: options.tags.into_boxed_slice(),
            skip_history: options.skip_history,
            delta: options.delta,
            idempotency_key: options.idempotency_key,
            version: options.version,
            version_epoch: options.version_epoch,
        };
        context.command(owner, Message::Publish(publisher, Box::new(publish)))
    }

    /// One publish more in this second; `false` when that is too many.
    pub(super) fn take_rate(&mut self, second: u32, per_second: u32) -> bool {
        let rate = &mut self.rare.get_or_insert_default().rate;
        if rate.second != second {
            *rate = Rate { second, count: 0 };
        }
        rate.count += 1;
        rate.count <= per_second
    }
}

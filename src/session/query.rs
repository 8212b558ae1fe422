//! Presence and history asked by a client (`spec/centrifuge.md` §4.5, §4.6).

use super::order::Together;
use super::publish::check_name;
use super::{Context, Session, refused};
use crate::auth::permission;
use crate::mesh::Message;
use crate::mesh::message::{Query, QueryFor, QueryKind};
use crate::model::{ClientId, Since};
use crate::protocol::command::History;
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;

impl Session {
    pub(super) fn presence(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        channel: &str,
        stats: bool,
    ) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(Disconnect::BadRequest);
        }
        let what = if stats {
            QueryKind::PresenceStats
        } else {
            QueryKind::EVERYBODY
        };
        let checked = self.may_presence_in(context, channel);
        self.ask(context, id, channel, checked.map(|()| what));
        Ok(())
    }

    /// May this client ask who is in a channel?
    fn may_presence_in(&self, context: &Context<'_>, channel: &str) -> Result<(), ClientError> {
        let subscribed = self.find(context, channel).is_some();
        check_name(context, channel, subscribed)?;
        let rules = context.rules;
        let namespace = (rules.resolve(channel)).map_err(|_unknown| ClientError::UnknownChannel)?;
        permission::may_presence(namespace, &self.asker(context, subscribed)).map_err(refused)
    }

    /// `ringmain.presence`: who is in a channel, a page of them.
    pub(super) fn presence_page(
        &self,
        context: &mut Context<'_>,
        id: u32,
        channel: &str,
        (limit, after): (u32, Option<ClientId>),
    ) -> Result<(), ClientError> {
        self.may_presence_in(context, channel)?;
        let channel = self.channel(channel);
        let owner = context.owner(&channel);
        let conn = context.conn;
        let what = QueryKind::Presence { limit, after };
        let query = Box::new(Query { channel, what });
        context.command(owner, Message::Query(QueryFor::Rpc { conn, id }, query))?;
        context.await_mesh();
        Ok(())
    }

    pub(super) fn history(
        &mut self,
        context: &mut Context<'_>,
        id: u32,
        history: &History<'_>,
    ) -> Result<(), Disconnect> {
        if history.channel.is_empty() {
            return Err(Disconnect::BadRequest);
        }
        let checked = self.check_history(context, history);
        self.ask(context, id, &history.channel, checked);
        Ok(())
    }

    fn check_history(
        &self,
        context: &Context<'_>,
        history: &History<'_>,
    ) -> Result<QueryKind, ClientError> {
        let config = context.config;
        let subscribed = self.find(context, &history.channel).is_some();
        check_name(context, &history.channel, subscribed)?;
        let rules = context.rules;
        let namespace = rules
            .resolve(&history.channel)
            .map_err(|_unknown| ClientError::UnknownChannel)?;
        permission::may_history(namespace, &self.asker(context, subscribed)).map_err(refused)?;
        if history.reverse
            && history
                .since
                .as_ref()
                .is_some_and(|(offset, _)| *offset == 0)
        {
            return Err(ClientError::BadRequest);
        }
        let most = config.client.history_max_publication_limit;
        let limit = u32::try_from(history.limit).unwrap_or(most).min(most);
        let since = history
            .since
            .as_ref()
            .map(|(offset, epoch)| (*offset, Since::parse(epoch)));
        Ok(QueryKind::History {
            limit,
            since,
            reverse: history.reverse,
        })
    }

    fn ask(
        &self,
        context: &mut Context<'_>,
        id: u32,
        channel: &str,
        checked: Result<QueryKind, ClientError>,
    ) {
        let asked = checked.and_then(|what| {
            let channel = self.channel(channel);
            let owner = context.owner(&channel);
            let conn = context.conn;
            let asker = QueryFor::Client { conn, id };
            let query = Box::new(Query { channel, what });
            context.command(owner, Message::Query(asker, query))
        });
        match asked {
            Ok(()) => {
                context.await_mesh();
                context.awaits = Some(Together::Alone);
            }
            Err(error) => context.error(id, error),
        }
    }
}

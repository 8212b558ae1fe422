//! What the calls of all shards ask of this one: as owner of channels, and as the shard of connections.

use std::sync::Arc;

use crate::broker::followed::Tries;
use crate::broker::owner::user_hash;
use crate::mesh::Message;
use crate::mesh::message::{
    AnswerKind, Answered, Answers, Asked, CommandsFor, Gather, Gathered, UserAction, UserCommand,
    UserCount, UserSubscribe,
};
use crate::model::{AskId, ShardId, TenantId};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::{Push, Unsubscribe};
use crate::session::{Phase, ServerSubscription};
use crate::shard::Shard;
use crate::shard::admission::user_of;
use crate::shard::waits::CallReply;

impl Shard {
    /// Does everything in order; the answers go back together when the last one is there.
    pub(in crate::shard) fn own_commands(
        &mut self,
        from: ShardId,
        for_whom: CommandsFor,
        items: Vec<(u32, Asked)>,
    ) {
        // Without a place to wait, commands are answered before owners have confirmed new subscriptions.
        let wait = self.waits.begin(self.now.at);
        let mut answers = Answers::with_capacity(items.len());
        // Published together.
        let mut deliveries = Vec::new();
        let mut later = Vec::new();
        for (item, asked) in items {
            let answered = match asked {
                Asked::Publish(draft) => {
                    Answered::Published(self.owning().publish_one(draft, &mut deliveries))
                }
                Asked::Query(query) if self.owning().waits_for_log(&query) => {
                    match wait {
                        Some(wait) => {
                            self.waits.add(wait);
                            later.push((item, query));
                        }
                        None => {
                            answers.push((item, Answered::Query(AnswerKind::Overloaded)));
                            continue;
                        }
                    }
                    Answered::Query(AnswerKind::Overloaded)
                }
                Asked::Query(query) => Answered::Query(self.owning().ask_now(&query)),
                Asked::User(command) => {
                    self.owning().hand_out_together(&mut deliveries);
                    self.user_command(&command, wait);
                    Answered::User
                }
                Asked::Revoke(revocation) => {
                    self.owning().hand_out_together(&mut deliveries);
                    Answered::Revoked(self.revoke(&revocation))
                }
                Asked::Gather(gather) => Answered::Gathered(Box::new(self.gather(&gather))),
            };
            answers.push((item, answered));
        }
        self.owning().hand_out_together(&mut deliveries);
        let reply = (from, for_whom, answers);
        let reply = match wait {
            Some(wait) => self.waits.end(wait, reply),
            None => Some(reply),
        };
        self.answer_commands(reply);
        if let Some(wait) = wait {
            for (item, query) in later {
                self.own_history(wait, item, Box::new(query), Tries::FIRST);
            }
        }
    }

    /// What a call waited for is known.
    pub(in crate::shard) fn answer_item(&mut self, wait: AskId, item: u32, answered: Answered) {
        self.waits.put(wait, item, answered);
        self.answer_waited(wait);
    }

    fn answer_commands(&mut self, reply: Option<CallReply>) {
        if let Some((to, for_whom, answers)) = reply {
            self.mesh.answer(to, Message::Answers(for_whom, answers));
        }
    }

    /// Commands that have waited too long for owners are answered as they are.
    pub(super) fn waits_overdue(&mut self) {
        while let Some(reply) = self.waits.next_overdue(self.now.at) {
            self.counters.asks_overdue += 1;
            self.answer_commands(Some(reply));
        }
    }

    /// An owner has confirmed a subscription that commands wait for.
    pub(in crate::shard) fn answer_waited(&mut self, wait: AskId) {
        let answers = self.waits.count_down(wait);
        self.answer_commands(answers);
    }

    fn user_command(&mut self, command: &UserCommand, wait: Option<AskId>) {
        let user_of = user_of(&self.connections);
        for slot in self.people.slots_of(command.user.whole(), user_of) {
            let connection = self.connections.of(slot);
            let session = &connection.session;
            let is_client = command.client.is_none_or(|wanted| session.client == wanted);
            let is_session = command.session.is_empty() || session.is_named(&command.session);
            if is_client && is_session && self.takes_waiting(slot, &command.action) {
                self.user_action(slot, &command.action, wait);
            }
        }
    }

    /// Whoever is sent away gets first what was published before and waits. False if that has ended the session: it was a poll, or slow.
    fn takes_waiting(&mut self, slot: u32, action: &UserAction) -> bool {
        if matches!(
            action,
            UserAction::Unsubscribe(_) | UserAction::Disconnect { .. }
        ) {
            self.give_waiting_to(slot);
        }
        self.connections.of(slot).is_known
    }

    fn user_action(&mut self, slot: u32, action: &UserAction, wait: Option<AskId>) {
        match action {
            UserAction::Subscribe(wanted) => self.user_subscribe(slot, wanted, wait),
            UserAction::Unsubscribe(channel) => {
                self.with_session(slot, |session, context| {
                    match session.find(context, channel.name()) {
                        Some(index) => {
                            let hub = session.subscriptions[index].hub;
                            session.end_subscription(context, hub, Some(Unsubscribe::Server));
                        }
                        None if session.end_awaiting(channel.name()) => {}
                        None => {
                            context.push(channel.name(), &Push::Unsubscribe(Unsubscribe::Server))
                        }
                    }
                });
            }
            UserAction::Disconnect {
                code,
                reason,
                whitelist,
            } => {
                if !whitelist.contains(&self.connections.of(slot).session.client) {
                    self.disconnect(slot, &Disconnect::Custom(*code, reason.clone()));
                }
            }
            UserAction::Refresh {
                expired,
                expire_at,
                info,
            } => {
                let past = expire_at.is_some_and(|at| at <= self.now.unix_s());
                if *expired || past {
                    self.disconnect(slot, &Disconnect::Expired);
                } else {
                    let expire_at = *expire_at;
                    self.with_session(slot, |session, context| {
                        session.refreshed(context, expire_at, info)
                    });
                }
            }
        }
    }

    fn user_subscribe(&mut self, slot: u32, wanted: &UserSubscribe, wait: Option<AskId>) {
        let config = Arc::clone(&self.config);
        // A reload may have taken the namespace away since the call was planned.
        let Ok(namespace) = config.channels.resolve_of(&wanted.channel) else {
            return;
        };
        let wanted = ServerSubscription {
            cache_recover: false,
            channel: wanted.channel.clone(),
            namespace: Arc::clone(namespace),
            info: wanted.info.clone(),
            data: wanted.data.clone(),
            expire_at: match wanted.expire_at {
                0 => 0,
                at => self.now.second_of(at),
            },
            overrides: wanted.overrides,
            recover: wanted.recover,
            flags: 0,
        };
        let added = self.with_session(slot, |session, context| session.add(context, &wanted, wait));
        match added {
            Ok(true) => {
                if let Some(wait) = wait {
                    self.waits.add(wait);
                }
            }
            Err(disconnect) => self.disconnect(slot, &disconnect),
            Ok(false) => {}
        }
    }

    /// A tenant's numbers: nobody else's, and nothing of the node.
    fn gather_of(&self, tenant: TenantId<'_>) -> Gathered {
        let sessions = self.connections.iter().map(|(_, one)| &one.session);
        let own = sessions
            .filter(|session| session.phase == Phase::Connected && session.tenant() == tenant);
        let mut sample: Vec<u64> = own.map(|session| user_hash(session.user.whole())).collect();
        let clients = sample.len() as u32;
        sample.sort_unstable();
        sample.dedup();
        let users = UserCount {
            distinct: sample.len() as u32,
            sample,
            below: u64::MAX,
        };
        let channels = self.local.hub().iter();
        let channels = channels.filter(|channel| channel.name.tenant() == tenant);
        Gathered {
            clients,
            users,
            subscriptions: channels
                .map(|channel| channel.subscribers.len() as u32)
                .sum(),
            channels_active: self.owned.active_of(tenant),
            ..Gathered::default()
        }
    }

    fn gather(&mut self, gather: &Gather) -> Gathered {
        let tenant = TenantId::new(&gather.tenant);
        let Some(pattern) = &gather.channels else {
            if !tenant.is_default() {
                return self.gather_of(tenant);
            }
            return Gathered {
                channels: Vec::new(),
                clients: self.people.sessions() as u32,
                users: self.people.count_users(),
                subscriptions: self
                    .local
                    .hub()
                    .iter()
                    .map(|channel| channel.subscribers.len() as u32)
                    .sum(),
                channels_active: self.owned.active(),
                counters: self.counters(),
            };
        };
        let channels = self
            .local
            .hub()
            .iter()
            .filter(|channel| !channel.subscribers.is_empty())
            .filter(|channel| {
                let (own, name) = TenantId::split(channel.name.whole());
                own == tenant && pattern.matches(name)
            })
            .map(|channel| (channel.name.clone(), channel.subscribers.len() as u32))
            .collect();
        Gathered {
            channels,
            ..Gathered::default()
        }
    }
}

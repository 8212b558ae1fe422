//! Limits of tenants at work in a shard: publications that waited for a rate go, and what is given to subscribers is counted.

use super::Shard;
use crate::broker::owner::owner_of;
use crate::mem::{Pace, Quota, Whose};
use crate::mesh::Message;
use crate::mesh::message::{PublishError, PublishFor};
use crate::model::{Draft, TenantId, UserId, Way};
use crate::session::late::Held;
use crate::session::{Counted, Waiting};

impl Shard {
    /// What has waited for a rate goes as its time has come.
    pub(super) fn late_step(&mut self) {
        while let Some(held) = self.late.pop(self.now.at) {
            match held {
                Held::Publication { publisher, draft } => self.publish_held(publisher, draft),
                Held::Call { call, .. } => self.call_goes(call),
            }
        }
    }

    /// What a client has published goes, whether the client is still there or not.
    fn publish_held(&mut self, publisher: PublishFor, draft: Box<Draft>) {
        match draft.way() {
            Way::Owner => {
                let owner = owner_of(&draft.record.channel, self.mesh.shards());
                let message = Message::Publish(publisher, draft);
                if self.mesh.command(owner, message).is_err() {
                    self.counters.refused_mesh += 1;
                    let refused = Err(PublishError::Overloaded);
                    self.published.push((publisher, refused));
                }
            }
            Way::Log => {
                let PublishFor { conn, id, by_rpc } = publisher;
                let waiting = match by_rpc {
                    true => Waiting::RpcPublish { conn, id },
                    false => Waiting::Publish { conn, id },
                };
                let publisher = draft.record.publisher.as_ref();
                let name = publisher.map_or("", |info| &info.user);
                let user = UserId::new(draft.record.channel.tenant(), name);
                let whose = Whose {
                    conn,
                    user: user.whole(),
                    from: draft.prefix,
                };
                let timeout = self.config.durable.append_timeout;
                let clock = (self.now, &mut self.rng);
                let asked =
                    (self.log).append(clock, timeout, (waiting.clone(), Some(whose)), draft);
                if let Err(error) = asked {
                    self.tell_appended(waiting, Err(error));
                }
            }
        }
    }

    /// So many times subscribers were given a publication of a channel: that counts for its tenant.
    pub(super) fn count_deliveries(&mut self, tenant: TenantId<'_>, count: u64) {
        let Some((limits, quota)) = self.config.channels.limits_of(tenant) else {
            return;
        };
        quota.deliveries.add(count);
        if let Some(pace) = Pace::configured(limits.deliver_rate, limits.deliver_burst) {
            quota.delivers.owe(self.now.at, count, pace);
        }
    }

    /// A call of a tenant's client to a backend is over.
    pub(super) fn call_over(&self, tenant: TenantId<'_>) {
        if let Some((_, quota)) = self.config.channels.limits_of(tenant) {
            quota.calls.give_back();
        }
    }

    /// Clients of tenants, each as often as it counts.
    fn counted(&self) -> impl Iterator<Item = &Quota> {
        let counted = self.connections.iter().filter(|(_, connection)| {
            connection.is_session && connection.session.counted.has(Counted::BY_TENANT)
        });
        let limits_of = |tenant| self.config.channels.limits_of(tenant);
        counted
            .filter_map(move |(_, connection)| limits_of(connection.session.tenant()))
            .map(|(_, quota)| &**quota)
    }

    /// Nobody here is a client of its tenant any more.
    pub(super) fn give_places(&self) {
        self.counted()
            .for_each(|quota| quota.connections.give_back());
    }

    /// Those who are here are their tenants' clients.
    pub(super) fn adopt_places(&self) {
        self.counted().for_each(|quota| quota.connections.adopt());
    }
}

//! What a tenant has taken of its limits, all shards together.

use std::sync::atomic::{AtomicU64, Ordering};

use super::meter::{Meter, Places};

/// A limit that something ran into, by the name of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaLimit {
    /// `connections_max`
    Connections,
    /// `connect_rate`
    ConnectRate,
    /// `publish_rate`
    PublishRate,
    /// `publish_bytes_rate`
    PublishBytesRate,
    /// `append_rate`
    AppendRate,
    /// `deliver_rate`
    DeliverRate,
    /// `subscriptions_max`
    Subscriptions,
    /// `channels_max`
    Channels,
    /// `channel_rate`
    ChannelRate,
    /// `history_bytes_max`
    HistoryBytes,
    /// `calls_max`
    Calls,
    /// `message_size_max`
    MessageSize,
}

impl QuotaLimit {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Connections,
        Self::ConnectRate,
        Self::PublishRate,
        Self::PublishBytesRate,
        Self::AppendRate,
        Self::DeliverRate,
        Self::Subscriptions,
        Self::Channels,
        Self::ChannelRate,
        Self::HistoryBytes,
        Self::Calls,
        Self::MessageSize,
    ];

    /// Its key in `[tenants.limits]`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Connections => "connections_max",
            Self::ConnectRate => "connect_rate",
            Self::PublishRate => "publish_rate",
            Self::PublishBytesRate => "publish_bytes_rate",
            Self::AppendRate => "append_rate",
            Self::DeliverRate => "deliver_rate",
            Self::Subscriptions => "subscriptions_max",
            Self::Channels => "channels_max",
            Self::ChannelRate => "channel_rate",
            Self::HistoryBytes => "history_bytes_max",
            Self::Calls => "calls_max",
            Self::MessageSize => "message_size_max",
        }
    }
}

/// How much there is, or has been, of something on all shards.
#[derive(Debug, Default)]
pub struct Amount(AtomicU64);

impl Amount {
    /// So much more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// So much less.
    pub fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// How much.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one tenant has taken.
#[derive(Debug, Default)]
pub struct Quota {
    /// New clients.
    pub connects: Meter,
    /// Publications.
    pub publishes: Meter,
    /// Bytes of their payloads.
    pub publish_bytes: Meter,
    /// Those into durable channels.
    pub appends: Meter,
    /// Publications given to subscribers.
    pub delivers: Meter,
    /// New channels.
    pub new_channels: Meter,
    /// Clients that are connected.
    pub connections: Places,
    /// Channels with a record.
    pub channels: Places,
    /// Calls to backends under way.
    pub calls: Places,
    /// Payload bytes of histories.
    pub history_bytes: Amount,
    /// Publications taken in so far.
    pub publications: Amount,
    /// Bytes of their payloads.
    pub publication_bytes: Amount,
    /// Publications given to subscribers so far.
    pub deliveries: Amount,
    /// Publications that had to wait for a rate so far.
    pub late: Amount,
    refused: [Amount; QuotaLimit::ALL.len()],
}

impl Quota {
    /// A limit said no.
    pub fn refuse(&self, limit: QuotaLimit) {
        self.refused[limit as usize].add(1);
    }

    /// How often a limit said no.
    #[must_use]
    pub fn refused(&self, limit: QuotaLimit) -> u64 {
        self.refused[limit as usize].get()
    }

    /// Nobody has had anything of it.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        let places = [&self.connections, &self.channels, &self.calls];
        let amounts = [&self.publications, &self.deliveries];
        places.iter().all(|one| one.taken() == 0)
            && amounts
                .iter()
                .chain(&self.refused.each_ref())
                .all(|one| one.get() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_place_and_a_key_of_its_own() {
        for (at, limit) in QuotaLimit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, at);
        }
        let keys: std::collections::BTreeSet<_> = QuotaLimit::ALL.map(QuotaLimit::key).into();
        assert_eq!(keys.len(), QuotaLimit::ALL.len());
    }
}

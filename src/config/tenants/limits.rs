//! What one tenant may have and how fast it may go (`[tenants.limits]`). All of them hold for the node, whatever the number of shards.

use std::time::Duration;

/// `[tenants.limits]`. 0 is none everywhere. Where a burst is 0 it is what the rate gives in a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantLimits {
    /// Clients connected at a time.
    pub connections_max: u32,
    /// New clients per second.
    pub connect_rate: u32,
    /// New clients at once.
    pub connect_burst: u32,
    /// Publications per second.
    pub publish_rate: u32,
    /// Publications at once.
    pub publish_burst: u32,
    /// Bytes of their payloads per second.
    pub publish_bytes_rate: u32,
    /// Bytes of their payloads at once.
    pub publish_bytes_burst: u32,
    /// Publications into durable channels per second.
    pub append_rate: u32,
    /// The same at once.
    pub append_burst: u32,
    /// Publications given to subscribers per second, each counted for each of them. Nothing is left out: whoever publishes waits.
    pub deliver_rate: u32,
    /// The same at once.
    pub deliver_burst: u32,
    /// Subscriptions of one connection. What `client.channel_limit` says holds as well.
    pub subscriptions_max: u32,
    /// Channels that the node keeps something of, or that have subscribers.
    pub channels_max: u32,
    /// New ones per second.
    pub channel_rate: u32,
    /// New ones at once.
    pub channel_burst: u32,
    /// Payload bytes that the histories of its channels keep in memory.
    pub history_bytes_max: u64,
    /// Calls of its clients to backends under way.
    pub calls_max: u32,
    /// Queue groups.
    pub queue_groups_max: u32,
    /// Bytes of the payload of one publication.
    pub message_size_max: u32,
    /// What comes of a publication for which there is no room in a rate.
    pub when_over_rate: WhenOverRate,
    /// How long such a publication waits at most, where it waits.
    pub over_rate_wait_max: Duration,
}

/// `when_over_rate`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenOverRate {
    /// Its publisher gets error 111 with `retry_after_ms`.
    #[default]
    Reject,
    /// It is published as soon as the rate has room for it, if that is within `over_rate_wait_max`.
    Queue,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            connections_max: 0,
            connect_rate: 0,
            connect_burst: 0,
            publish_rate: 0,
            publish_burst: 0,
            publish_bytes_rate: 0,
            publish_bytes_burst: 0,
            append_rate: 0,
            append_burst: 0,
            deliver_rate: 0,
            deliver_burst: 0,
            subscriptions_max: 0,
            channels_max: 0,
            channel_rate: 0,
            channel_burst: 0,
            history_bytes_max: 0,
            calls_max: 0,
            queue_groups_max: 0,
            message_size_max: 0,
            when_over_rate: WhenOverRate::Reject,
            over_rate_wait_max: Duration::from_secs(2),
        }
    }
}

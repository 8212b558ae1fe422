//! What one shard counts. Plain `u64` fields, owned by the shard; control gets copies.

use crate::image::image;

/// Upper bounds of the latency buckets, in microseconds; the last bucket is open.
pub const BUCKETS_US: [u64; 15] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    1_000_000,
];

/// A latency histogram with fixed buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Observations per bucket; one more than `BUCKETS_US` for the open end.
    pub counts: [u64; BUCKETS_US.len() + 1],
    /// Sum of all observations, nanoseconds.
    pub sum_ns: u64,
}

image!(struct Histogram { counts, sum_ns });

impl Histogram {
    /// Counts `n` observations of `ns` nanoseconds each.
    pub fn record_n(&mut self, ns: u64, n: u64) {
        let bucket = BUCKETS_US.partition_point(|&bound| bound * 1_000 < ns);
        self.counts[bucket] += n;
        self.sum_ns = self.sum_ns.saturating_add(ns.saturating_mul(n));
    }

    /// Counts one observation.
    pub fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    /// All observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:ident,)+) => {
        /// Counters and gauges of one shard.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Head of a turn to its last submission.
            pub turn: Histogram,
            /// A publication taken in to its last local subscriber's bytes being with the kernel, the oldest of each burst.
            pub fan_out: Histogram,
            /// Requests of the server API by name of the key; the empty one is that of `http_api.key`.
            pub keys_used: Vec<(Box<str>, u64)>,
        }
        image!(struct Counters { $($name,)+ turn, fan_out, keys_used });
        /// Kind, name and help of every plain counter, in declaration order.
        pub const DESCRIPTIONS: &[(Kind, &str, &str)] = &[$((Kind::$kind, stringify!($name), concat!($($doc),+)),)+];
        impl Counters {
            /// Values in the order of `DESCRIPTIONS`.
            #[must_use]
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name),+]
            }
        }
    };
}

impl Counters {
    /// Counts a request with the key of this name. Only keys of the configuration open anything, so these are few.
    pub fn key_used(&mut self, name: &str) {
        match self.keys_used.iter_mut().find(|(own, _)| **own == *name) {
            Some((_, count)) => *count += 1,
            None => self.keys_used.push((name.into(), 1)),
        }
    }

    /// Forgets keys that are gone.
    pub fn keep_keys(&mut self, is_there: impl Fn(&str) -> bool) {
        self.keys_used.retain(|(name, _)| is_there(name));
    }
}

/// Prometheus type of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

counters! {
    /// Open sockets.
    Gauge connections,
    /// Sessions past their connect command.
    Gauge sessions,
    /// Subscriptions of local sessions.
    Gauge subscriptions,
    /// Channels with a local subscriber.
    Gauge channels_local,
    /// Channels owned by this shard.
    Gauge channels_owned,
    /// Channels that this shard may own: `channel.owned_limit`.
    Gauge channels_owned_limit,
    /// Idempotency keys of channels that are not durable.
    Gauge idempotency_keys,
    /// Address prefixes whose clients are counted, on the shard that counts them.
    Gauge prefixes,
    /// Bytes of commands that wait for the replies to those before them.
    Gauge waiting_bytes,
    /// Unsent bytes held for slow connections.
    Gauge backlog_bytes,
    /// Bytes of unfinished input: half requests and messages, and what was sent behind those that wait.
    Gauge input_bytes,
    /// Messages waiting in the queues to this shard.
    Gauge mesh_queued,
    /// Connections whose command waits for the key of its token.
    Gauge key_waiting,
    /// Public keys of tokens fetched by URL and in use.
    Gauge keys,
    /// Tokens and users that are shut out.
    Gauge revocations,
    /// Publications on their way to the durable log.
    Gauge log_appends,
    /// Reads and questions on their way to the durable log.
    Gauge log_asks,
    /// Publications that the durable log has stored for this shard's publishers.
    Counter log_appended,
    /// Publications that the durable log had stored before, by idempotency key or version.
    Counter log_repeated,
    /// Publications that the durable log did not store.
    Counter log_refused,
    /// Publications whose publishers were told that the durable log takes too long.
    Counter log_overdue,
    /// Questions to other shards, to the log, to backends and to control that were given up because no answer came in time.
    Counter asks_overdue,
    /// Answers that came to questions that had been given up.
    Counter stale_answers,
    /// Reads of the durable log by owners of channels.
    Counter log_reads,
    /// Parts of what subscribers of durable channels had missed, each first one left out.
    Counter recovery_parts,
    /// Deliveries to workers of queue groups.
    Counter worker_deliveries,
    /// Connections that this shard can have: `server.connections_per_shard_max`, or fewer where the limit of descriptors says so.
    Gauge connections_max,
    /// 1 while nobody is accepted: the shard is full, or accepting fails.
    Gauge accepting_paused,
    /// Connections that wait in the accept queues of this shard's TCP listeners.
    Gauge accept_queue,
    /// Places of the fullest of them: `server.backlog`, or fewer where `net.core.somaxconn` says so.
    Gauge accept_queue_max,
    /// Sockets accepted.
    Counter accepted,
    /// Times that accepting paused.
    Counter accept_pauses,
    /// Accepts that failed for want of a descriptor or memory.
    Counter accept_failures,
    /// Connections that the kernel refused because an accept queue was full.
    Counter accept_queue_dropped,
    /// Events and answers for connections that were gone when they came.
    Counter stale,
    /// Sockets refused because a limit was reached.
    Counter refused,
    /// Client connections answered 503: `client.connection_limit` was reached.
    Counter turned_away_limit,
    /// Client connections answered 503: `client.connection_rate_limit` was reached.
    Counter turned_away_rate,
    /// Client connections answered 503: `client.connection_limit_per_prefix` was reached.
    Counter turned_away_prefix_limit,
    /// Client connections answered 503: `client.connection_rate_limit_per_prefix` was reached.
    Counter turned_away_prefix_rate,
    /// Client connections answered 503: the queue to the shard that counts them was full.
    Counter turned_away_busy,
    /// Commands refused (111): `client.command_rate` was reached.
    Counter commands_too_fast,
    /// Times that a connection was not read for a while: `client.input_rate` was reached.
    Counter input_slowed,
    /// Sessions refused (3504) because their user has as many connections as it may.
    Counter users_refused,
    /// Sessions closed (3504) for a newer connection of their user.
    Counter users_displaced,
    /// Client connections whose session is not connected and whose first request is not answered.
    Gauge handshakes,
    /// How often clients were left in the listeners' queues for want of room: `server.accept_rate`, `server.handshakes_max`.
    Counter accept_holds,
    /// Connections that a drain told to come back elsewhere.
    Counter drain_told,
    /// Connections that a drain under way has not told yet.
    Gauge drain_untold,
    /// Sockets closed.
    Counter closed,
    /// Bytes received.
    Counter bytes_received,
    /// Bytes handed to the kernel.
    Counter bytes_sent,
    /// Sends submitted.
    Counter sends,
    /// Sends that the kernel took only in part.
    Counter sends_short,
    /// Connections whose bytes were copied out of the ring because it had no room left for other tenants.
    Counter sends_copied,
    /// Receives that found no buffer.
    Counter receives_starved,
    /// Times that a connection was read no further because too much of its input waits.
    Counter receives_paused,
    /// Client commands handled.
    Counter commands,
    /// Client commands answered with an error.
    Counter command_errors,
    /// Key sets that were fetched by URL.
    Counter key_sets,
    /// Fetches of key sets that failed, the retry included.
    Counter key_set_failures,
    /// Client commands that waited for the key of their token.
    Counter key_waits,
    /// Calls to backends of hooks sent by this shard.
    Counter hooks,
    /// Calls to backends refused because too many were under way.
    Counter refused_hooks,
    /// Configurations that this shard has taken over from reloads.
    Counter reloads,
    /// Server API requests handled.
    Counter api_requests,
    /// Server API requests answered with an error.
    Counter api_errors,
    /// Channels without subscribers that were forgotten before their time to make room for others.
    Counter channels_evicted,
    /// Subscriptions and publications refused because every place of this owner's table was taken by a channel in use.
    Counter channels_refused,
    /// Publications of clients refused because they made channels or idempotency keys faster than `channel.new_rate_limit…`.
    Counter new_channels_refused,
    /// Subscriptions refused because their client's user or address prefix has most channels of a table that is filling.
    Counter subscriptions_crowded,
    /// Idempotency keys that were forgotten before their time to make room for others.
    Counter idempotency_keys_evicted,
    /// Publications accepted by this shard as owner.
    Counter publications,
    /// Publications written in JSON for local subscribers, once however many there are.
    Counter encoded_json,
    /// Publications written in Protobuf for local subscribers, once however many there are.
    Counter encoded_protobuf,
    /// Publications queued to local subscribers.
    Counter deliveries,
    /// Bytes of publications that wait for others of their channel (`batch_max_delay`), as they will be written.
    Gauge batch_bytes,
    /// Publications that local subscribers were not given because a later one that waited with them replaced them (`batch_flush_latest`).
    Counter batch_left_out,
    /// Joins and leaves that local subscribers were not told one by one, but counted (`join_leave_rate`).
    Counter joins_left_out,
    /// Publications dropped from an outbox as `slow_consumer` says.
    Counter dropped_slow,
    /// Publications that waited in an outbox and that a later one with their `conflate_key` replaced.
    Counter conflated,
    /// Outboxes from which something went, or whose session ended, because it had waited longer than `outbox_age_max`.
    Counter aged,
    /// Outboxes from which something went, or whose session ended, because they were the largest when all had used up their memory.
    Counter evicted,
    /// Deliveries between shards dropped because a queue was full (read again from the owner).
    Counter dropped_mesh,
    /// Commands refused because a queue between shards was full.
    Counter refused_mesh,
    /// Sessions closed as slow (3008).
    Counter disconnected_slow,
    /// Sessions closed as too slow to be pushed to, with the position to poll from (4510).
    Counter disconnected_degraded,
    /// Sessions closed for want of a pong (3012).
    Counter disconnected_no_pong,
    /// Sessions closed for a bad request (3501).
    Counter disconnected_bad_request,
    /// Sessions closed for an invalid token (3500).
    Counter disconnected_invalid_token,
    /// Subscribes refused for an invalid token (103).
    Counter invalid_subscription_tokens,
    /// Sessions closed before their token was looked at, as too many from their address prefix were invalid (3013).
    Counter tokens_not_looked_at,
    /// Sessions closed for any other reason.
    Counter disconnected_other,
    /// Recoveries that found every missed publication.
    Counter recovered,
    /// Recoveries that did not.
    Counter recovery_failed,
    /// Connections ended because `server.input_max_size` was reached and they held the most unfinished input.
    Counter input_given_up,
    /// HTTP requests refused as malformed or over a limit.
    Counter http_refused,
    /// WebSocket connections closed for a protocol violation.
    Counter websocket_refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_lands_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        histogram.record(10_000);
        histogram.record(10_001);
        histogram.record(u64::MAX / 2);
        assert_eq!(histogram.counts[0], 1);
        assert_eq!(histogram.counts[1], 1);
        assert_eq!(histogram.counts[BUCKETS_US.len()], 1);
    }
}

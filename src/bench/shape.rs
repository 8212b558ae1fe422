//! What a scenario means in numbers, after the defaults.

use serde::Serialize;
use std::time::Duration;

use super::child::{
    NAMESPACE, NAMESPACE_DELTA, NAMESPACE_DURABLE, NAMESPACE_RECOVER, NAMESPACE_STALLED,
};
use super::swarm::Load;
use super::{Args, BenchError, Encoding, Protocol, Publish, Scenario, Transport, payload};
use crate::limits::BATCH_DELAY_MAX;

/// `bench::durable` has a shape of its own.
pub(super) const ELSEWHERE: BenchError =
    BenchError::Usage("durable, queue, churn and tenants are measured by clients of their own");

/// Numbers of one invocation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shape {
    /// Subscribers.
    pub(crate) connections: u32,
    /// Channels in all.
    pub(crate) channels: u32,
    /// Channels of each subscriber.
    pub(crate) subscriptions: u32,
    /// Payload bytes.
    pub(crate) payload_bytes: usize,
    /// Publications a second, in an open loop.
    pub(crate) rate: Option<f64>,
    /// Publications in flight, in a closed loop.
    pub(crate) window: Option<u32>,
    /// Publications missed while away (`storm`).
    pub(crate) missed: Option<u32>,
    /// The server is started anew in between (`storm`).
    pub(crate) restart: bool,
    /// Shards of the server, if it is started here.
    pub(crate) shards: Option<u16>,
    /// Protocol.
    pub(crate) protocol: String,
    /// Who publishes.
    pub(crate) publisher: String,
    /// Encoding of subscribers.
    pub(crate) encoding: String,
    /// Transport of subscribers.
    pub(crate) transport: String,
    /// Subscribers get compressed messages.
    pub(crate) deflate: bool,
    /// Subscribers get patches.
    pub(crate) delta: bool,
    /// Milliseconds that publications of a channel wait for others.
    pub(crate) batch_delay_ms: Option<u128>,
    /// Measured seconds.
    pub(crate) seconds: f64,
    /// Connections that may be in their handshake at once.
    pub(super) concurrency: u32,
    #[serde(skip)]
    pub(super) warm_up: Duration,
    #[serde(skip)]
    pub(super) duration: Duration,
    #[serde(skip)]
    pub(super) scenario: Scenario,
}

impl Shape {
    /// Applies the defaults of the scenario and checks the ranges.
    pub(crate) fn of(args: &Args) -> Result<Self, BenchError> {
        use Scenario::{Chat, Drain, Echo, Fanout, Idle, Limit, Stalled, Storm};
        let scenario = args.scenario;
        if matches!(
            scenario,
            Scenario::Durable | Scenario::Queue | Scenario::Churn | Scenario::Tenants
        ) {
            return Err(ELSEWHERE);
        }
        let connections = args.connections.unwrap_or(match scenario {
            Limit | Fanout | Chat => 1000,
            Echo | Scenario::Durable | Scenario::Queue | Scenario::Churn | Scenario::Tenants => 1,
            Idle | Drain => 15_000,
            Storm => 5000,
            Stalled => 10_000,
        });
        let channels = args.channels.unwrap_or(match scenario {
            Chat => 1000,
            Echo => connections,
            Limit | Fanout | Idle | Storm | Stalled | Drain => 1,
            Scenario::Durable | Scenario::Queue | Scenario::Churn | Scenario::Tenants => 1,
        });
        let subscriptions =
            args.subscriptions
                .unwrap_or(if scenario == Chat { 5.min(channels) } else { 1 });
        let publishes = matches!(scenario, Limit | Fanout | Chat | Stalled);
        let open = publishes && !args.saturate;
        let rate = open.then(|| {
            args.rate.unwrap_or(match scenario {
                Chat => 1000.0,
                Stalled => 20.0,
                _ => 100.0,
            })
        });
        let shape = Self {
            connections,
            channels,
            subscriptions,
            payload_bytes: args.size,
            rate,
            window: (publishes && args.saturate).then_some(args.window),
            missed: (scenario == Storm).then_some(args.missed),
            restart: args.restart,
            shards: args.address.is_none().then_some(args.shards),
            protocol: format!("{:?}", args.protocol).to_lowercase(),
            publisher: format!("{:?}", args.publish).to_lowercase(),
            encoding: format!("{:?}", args.encoding).to_lowercase(),
            transport: format!("{:?}", args.transport).to_lowercase(),
            deflate: args.deflate,
            delta: args.delta,
            batch_delay_ms: args.batch_delay.map(|delay| delay.as_millis()),
            concurrency: args
                .concurrency
                .unwrap_or(if scenario == Storm { 2048 } else { 512 }),
            seconds: args.duration.as_secs_f64(),
            warm_up: args.warm_up,
            duration: args.duration,
            scenario,
        };
        shape.check(args)?;
        Ok(shape)
    }

    fn check(&self, args: &Args) -> Result<(), BenchError> {
        use Scenario::{Echo, Storm};
        let &Self {
            scenario,
            connections,
            channels,
            subscriptions,
            rate,
            ..
        } = self;
        let usage = |wrong: bool, text| {
            if wrong {
                Err(BenchError::Usage(text))
            } else {
                Ok(())
            }
        };
        usage(
            connections == 0 || channels == 0,
            "at least one connection and one channel are needed",
        )?;
        usage(
            subscriptions == 0 || subscriptions > channels,
            "a connection subscribes to 1 up to all channels",
        )?;
        usage(
            u64::from(connections) * u64::from(subscriptions) > 1 << 28,
            "too many subscriptions",
        )?;
        usage(
            args.size < payload::SIZE_MIN,
            "the payload must have room for its stamp: at least 42 bytes",
        )?;
        usage(
            rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e7)),
            "the rate must be above 0 and at most 1e7",
        )?;
        usage(
            scenario == Echo && channels != connections,
            "echo has one channel for each connection",
        )?;
        let foreign = args.protocol != Protocol::Centrifuge;
        usage(
            foreign
                && args.address.is_none()
                && !(args.protocol == Protocol::Raw && scenario == Echo),
            "only an --address can speak another protocol",
        )?;
        usage(
            foreign && args.publish == Publish::Api,
            "publishing over the API is for Centrifuge only",
        )?;
        usage(args.restart && scenario != Storm, "--restart is for storm")?;
        usage(
            scenario == Scenario::Drain && (args.address.is_some() || args.with_limit),
            "drain ends a server that it has started, and there is no limit of it",
        )?;
        usage(
            foreign && scenario == Storm,
            "storm recovers, which only Centrifuge can",
        )?;
        let plain = args.encoding == Encoding::Json && args.transport == Transport::Websocket;
        usage(
            foreign && !(plain && !args.deflate && !args.delta),
            "encodings, transports, --deflate and --delta are for Centrifuge only",
        )?;
        usage(
            args.transport == Transport::Sse && args.encoding != Encoding::Json,
            "server-sent events carry JSON only",
        )?;
        usage(
            args.transport != Transport::Websocket
                && (args.deflate
                    || args.delta
                    || !matches!(scenario, Scenario::Fanout | Scenario::Chat | Scenario::Idle)),
            "streams are measured with fanout, chat and idle, without --deflate and --delta",
        )?;
        usage(
            args.delta && (args.publish != Publish::Api || scenario != Scenario::Fanout),
            "--delta is measured with fanout and --publish api",
        )?;
        usage(
            scenario == Scenario::Stalled
                && (args.address.is_some() || args.with_limit || args.saturate || connections < 10),
            "stalled starts a server of its own with bounds that it knows, and needs ten connections and a rate",
        )?;
        usage(
            args.batch_delay
                .is_some_and(|delay| delay.as_millis() == 0 || delay > BATCH_DELAY_MAX)
                || args.batch_delay.is_some()
                    && (args.delta || !matches!(scenario, Scenario::Fanout | Scenario::Chat)),
            "--batch-delay is 1 ms up to 10 s, and measured with fanout and chat, without --delta",
        )?;
        usage(
            args.tenants.is_set(),
            "--tenants, --noisy-connections, --noisy-channels and --limit are for tenants",
        )?;
        usage(
            args.durable.is_set(),
            "--publishers, --outstanding, --subscribers, --workers, --credit, --ordered, --sync, --fill, --nats and --directory are for durable and queue",
        )?;
        usage(
            args.window == 0 || args.runs == 0 || args.concurrency == Some(0),
            "0 is no window, runs or concurrency",
        )?;
        Ok(())
    }

    /// The load of the measured time.
    pub(super) fn load(&self) -> Load {
        match (self.scenario, self.rate, self.window) {
            (Scenario::Echo, ..) => Load::Echo,
            (_, Some(rate), _) => Load::Rate(rate),
            (_, None, Some(window)) => Load::Window(window),
            (_, None, None) => Load::None,
        }
    }

    /// One connection only publishes.
    pub(super) const fn has_publisher(&self) -> bool {
        !matches!(
            self.scenario,
            Scenario::Echo | Scenario::Idle | Scenario::Drain
        )
    }

    /// Namespace of the channels.
    pub(super) const fn namespace(&self) -> &'static str {
        if self.delta {
            NAMESPACE_DELTA
        } else if self.restart {
            NAMESPACE_DURABLE
        } else if matches!(self.scenario, Scenario::Storm) {
            NAMESPACE_RECOVER
        } else if matches!(self.scenario, Scenario::Stalled) {
            NAMESPACE_STALLED
        } else {
            NAMESPACE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        use clap::Parser as _;
        Cli::parse_from(std::iter::once("bench").chain(line.split_whitespace())).args
    }

    #[test]
    fn every_scenario_has_defaults_that_hold() {
        for line in [
            "limit", "fanout", "chat", "echo", "idle", "storm", "stalled", "drain",
        ] {
            let shape = Shape::of(&args(line)).unwrap();
            assert!(shape.connections > 0);
            assert_eq!(
                shape.load() == Load::None,
                ["idle", "storm", "drain"].contains(&line)
            );
        }
        assert_eq!(
            Shape::of(&args("fanout --saturate --window 9"))
                .unwrap()
                .load(),
            Load::Window(9)
        );
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in [
            "fanout --connections 0",
            "fanout --size 41",
            "chat --channels 2 --subscriptions 3",
            "fanout --protocol raw",
            "storm --protocol pusher --address 127.0.0.1:1",
            "fanout --rate 0",
            "fanout --window 0",
            "fanout --publishers 2",
            "echo --batch-delay 10ms",
            "fanout --batch-delay 11s",
            "fanout --restart",
            "drain --address 127.0.0.1:1",
            "durable",
            "stalled --address 127.0.0.1:1",
            "stalled --connections 9",
        ] {
            assert!(
                matches!(Shape::of(&args(line)), Err(BenchError::Usage(_))),
                "{line}"
            );
        }
    }
}

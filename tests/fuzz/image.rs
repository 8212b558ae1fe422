//! What shards are as bytes, whole and what owners and hubs read of it, behind a checksum that is right.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use proptest::prelude::*;
use ringmain::broker::followed::Tries;
use ringmain::broker::hub::{Class, Delta, Opener};
use ringmain::broker::{Filter, Hub, Owner};
use ringmain::config::namespace::Delivery;
use ringmain::config::{ChannelRules, Config, Namespace};
use ringmain::image::{ImageError, ImageReader, ImageWriter};
use ringmain::mem::Key;
use ringmain::mesh;
use ringmain::mesh::message::{Interest, InterestFor, Recover};
use ringmain::model::{
    AskId, ChannelName, ClientId, ClientInfo, Draft, FilterNode, Format, HubId, ShardId, Since,
};
use ringmain::shard::{Door, Mode, Output, Peer, SendBatch, Shard, Unmoved};
use ringmain::time::{Instant, Now};

use crate::mutation::{config, near};

fn key() -> Key {
    Key::new([1; 32])
}

fn rules() -> ChannelRules {
    let kept = Namespace {
        name: "kept".to_owned(),
        history_size: 10,
        history_ttl: std::time::Duration::from_secs(60),
        ..Namespace::default()
    };
    let safe = Namespace {
        name: "safe".to_owned(),
        delivery: Delivery::Durable,
        ..kept.clone()
    };
    ChannelRules {
        namespaces: vec![Arc::new(kept), Arc::new(safe)],
        ..ChannelRules::default()
    }
}

fn info() -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: "u1".into(),
        client: ClientId(7),
        conn_info: Bytes::from_static(b"{}"),
        chan_info: Bytes::new(),
    })
}

fn owner() -> Owner {
    let (mut owner, rules) = (Owner::new(&key()), rules());
    let now = Now {
        at: Instant(5_000_000_000),
        unix_ms: 1_700_000_000_000,
    };
    for channel in ["kept:a", "kept:b", "safe:a", "plain"] {
        let asker = AskId {
            slot: 3,
            generation: 1,
        };
        let interest = Interest {
            channel: ChannelName::from_whole(channel),
            hub: HubId {
                slot: 1,
                generation: 0,
            },
            recover: Some(Recover {
                epoch: Since::Any,
                offset: 4,
                limit: 10,
                cache: false,
            }),
            presence: Some(info()),
            keep: true,
            join: false,
            delta: true,
        };
        let from = (ShardId(1), InterestFor(asker));
        if channel != "kept:b" {
            owner.interest(now, from, Box::new(interest), Tries::FIRST, &rules);
        }
        let namespace = rules.resolve(channel).expect("it is known");
        if namespace.is_durable() {
            continue;
        }
        for n in 1..4u64 {
            let name = ChannelName::from_whole(channel);
            let data = Bytes::from(n.to_string());
            let mut draft = Draft::new(namespace.terms(), name, data, true);
            draft.record.key = n.to_string().into();
            draft.record.publisher = Some(info());
            (draft.version, draft.version_epoch, draft.prefix) = (n, "v".into(), 9);
            let taken = owner.publish(now, Box::new(draft), &rules);
            assert!(taken.is_ok());
        }
    }
    owner
}

fn leaf(cmp: &str, val: &str) -> FilterNode {
    FilterNode {
        key: "k".into(),
        cmp: cmp.into(),
        val: val.into(),
        ..FilterNode::default()
    }
}

fn hub() -> Hub {
    let (mut hub, rules) = (Hub::new(&key()), rules());
    let not = FilterNode {
        op: "not".into(),
        nodes: vec![leaf("eq", "b")],
        ..FilterNode::default()
    };
    let both = FilterNode {
        op: "and".into(),
        nodes: vec![leaf("gte", "-12.50"), not],
        ..FilterNode::default()
    };
    for channel in ["kept:a", "plain"] {
        let opener = Opener {
            user: "u1",
            prefix: 9,
        };
        let namespace = rules.resolve(channel).expect("it is known");
        for conn in 0..3 {
            let id = hub.enter(&ChannelName::from_whole(channel), namespace, opener);
            let filter = (conn == 1).then(|| Filter::new(&both).expect("it is right"));
            let class = Class {
                format: Format::default(),
                filter: filter.map(Arc::new),
                delta: Delta::Off,
                count: 0,
            };
            hub.activate(id.expect("there is room"), conn, false, class);
        }
        hub.enter(&ChannelName::from_whole(channel), namespace, opener);
    }
    hub
}

fn shards_config() -> Arc<Config> {
    let mut config = Config::default();
    config.client.allow_anonymous_connect_without_token = true;
    config.channels = rules();
    config.channels.without_namespace = Arc::new(Namespace {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        ..Namespace::default()
    });
    Arc::new(config)
}

fn frame(message: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | message.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(message.as_bytes());
    frame
}

const UPGRADE: &[u8] = b"GET /connection/websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const HALF_OF_A_REQUEST: &[u8] =
    b"POST /emulation HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"session\":";
const HALF_OF_A_CHUNK: &[u8] =
    b"POST /emulation HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"session";

/// With clients and requests in every state that input can leave them in, and one whose socket has taken a part of its bytes only.
fn shard() -> Shard {
    let endpoint = mesh::build(1).remove(0);
    let mut shard = Shard::new(ShardId(0), Mode::Proxy, shards_config(), endpoint, 7);
    let now = Now {
        at: Instant(5_000_000_000),
        unix_ms: 1_700_000_000_000,
    };
    let client = [UPGRADE.to_vec(), frame(r#"{"id":1,"connect":{}}"#)];
    let subscriber = [
        &client[..],
        &[frame(r#"{"id":2,"subscribe":{"channel":"plain"}}"#)],
    ]
    .concat();
    let typing = [&client[..], &[frame(r#"{"id":2,"ping":{}}"#)[..9].to_vec()]].concat();
    let inputs = [
        vec![b"GET / HT".to_vec()],
        vec![HALF_OF_A_REQUEST.to_vec()],
        vec![HALF_OF_A_CHUNK.to_vec()],
        vec![UPGRADE.to_vec()],
        typing,
        subscriber.clone(),
        subscriber,
    ];
    let mut is_cut = false;
    for (slot, input) in inputs.into_iter().enumerate() {
        let peer = Peer {
            ip: None,
            door: Door::Clients,
        };
        let conn = shard.handle_accepted(now, slot as u32, peer);
        let conn = conn.expect("there is room");
        for mut bytes in input {
            shard.handle_received(now, conn, &mut bytes);
            shard.handle_mesh(now);
            while let Some(output) = shard.poll_output() {
                if let Output::Transmit { conn, batch } = output
                    && conn.slot == 6
                    && !std::mem::replace(&mut is_cut, true)
                {
                    assert!(matches!(batch, SendBatch::Ring(_)), "it is the first");
                    shard.handle_sent(now, conn, batch, Ok(3));
                }
            }
            shard.handle_flushed(now);
        }
    }
    assert!(is_cut && shard.under_way().backlog_bytes > 0);
    assert!(shard.under_way().input_bytes > 0);
    shard
}

fn read_shard(body: &[u8]) -> Result<Shard, ImageError> {
    let mut out = ImageWriter::default();
    out.raw(body);
    let config = shards_config();
    let unmoved = Unmoved::new(mesh::build(1).remove(0), &config);
    Shard::from_image(&out.finish(), config, &KEY, unmoved)
}

fn shards_body(shard: &Shard) -> Vec<u8> {
    let head = ImageWriter::default().finish().len();
    shard.to_image().split_off(head)
}

/// What `write` writes, without head.
fn body(write: impl FnOnce(&mut ImageWriter)) -> Vec<u8> {
    let head = ImageWriter::default().finish().len();
    let mut out = ImageWriter::default();
    write(&mut out);
    out.finish().split_off(head)
}

fn read<T>(
    body: &[u8],
    read: impl FnOnce(&mut ImageReader<'_>) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let mut out = ImageWriter::default();
    out.raw(body);
    let image = out.finish();
    let mut from = ImageReader::new(&image)?;
    let value = read(&mut from)?;
    from.end()?;
    Ok(value)
}

fn read_owner(from: &mut ImageReader<'_>) -> Result<Owner, ImageError> {
    Owner::read_image(&key(), &rules(), from)
}

fn read_hub(from: &mut ImageReader<'_>) -> Result<Hub, ImageError> {
    Hub::read(&key(), &rules(), from)
}

static OWNERS: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| vec![body(|out| owner().write_image(&rules(), out))]);
static KEY: LazyLock<[u8; 32]> = LazyLock::new(|| *shard().key());
static SHARDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| vec![shards_body(&shard())]);
static HUBS: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| vec![body(|out| hub().write(&rules(), out))]);

proptest! {
    #![proptest_config(config())]

    #[test]
    fn owners_that_can_be_read_are_what_was_written(bytes in near(&OWNERS)) {
        if let Ok(owner) = read(&bytes, read_owner) {
            let written = body(|out| owner.write_image(&rules(), out));
            let again = read(&written, read_owner).expect("it was written here");
            assert!(body(|out| again.write_image(&rules(), out)) == written);
        }
    }

    #[test]
    fn shards_that_can_be_read_are_what_was_written(bytes in near(&SHARDS)) {
        if let Ok(shard) = read_shard(&bytes) {
            let written = shards_body(&shard);
            let again = read_shard(&written).expect("it was written here");
            assert!(shards_body(&again) == written);
        }
    }

    #[test]
    fn hubs_that_can_be_read_are_what_was_written(bytes in near(&HUBS)) {
        if let Ok(hub) = read(&bytes, read_hub) {
            let written = body(|out| hub.write(&rules(), out));
            let again = read(&written, read_hub).expect("it was written here");
            assert!(body(|out| again.write(&rules(), out)) == written);
        }
    }
}

#[test]
fn valid_input_is_valid() {
    assert!(read(&OWNERS[0], read_owner).is_ok());
    assert!(read(&HUBS[0], read_hub).is_ok());
    assert!(read_shard(&SHARDS[0]).is_ok());
}

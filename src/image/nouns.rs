//! The nouns that every layer shares.

use super::parts::text;
use super::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::limits::FILTER_DEPTH_MAX;
use crate::model::{
    AskId, ChannelName, ChosenError, ClientId, ClientInfo, ConnId, ConsumeGrant, Encoding, Epoch,
    FilterNode, Format, Framing, HubId, Offset, Overrides, Publication, ShardId, Since, Speaker,
    StreamPosition, UserId,
};
use crate::time::Instant;

image!(tuple ShardId(number));
image!(struct ConnId { slot, generation });
image!(struct HubId { slot, generation });
image!(struct AskId { slot, generation });
image!(tuple Offset(number));
image!(struct StreamPosition { epoch, offset });
image!(enum Since { 0 => Any, 1 => Nothing, 2 => Epoch(epoch) });
image!(struct ClientInfo { user, client, conn_info, chan_info });
image!(struct Publication { offset, epoch, data, json, info, tags, unix_ms, tells_time, patch, delta });

image!(struct Format { speaker, encoding, framing });
image!(enum Speaker { 0 => Centrifuge, 1 => Unidirectional, 2 => Poll });
image!(enum Encoding { 0 => Json, 1 => Protobuf });
image!(enum Framing {
    0 => WebSocket,
    1 => Joined,
    2 => Deflate,
    3 => Stream,
    4 => EventStream,
    5 => PlainStream,
    6 => PlainEventStream,
});

image!(struct Overrides {
    presence, join_leave, force_push_join_leave, force_recovery, force_positioning
});
image!(struct ChosenError { code, message, temporary });
image!(struct ConsumeGrant { groups, channels });

/// It has as many levels as a checked one may have.
impl Image for FilterNode {
    fn write(&self, out: &mut ImageWriter) {
        let Self {
            op,
            key,
            cmp,
            val,
            vals,
            nodes,
        } = self;
        op.write(out);
        key.write(out);
        cmp.write(out);
        val.write(out);
        vals.write(out);
        nodes.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        filter_node(from, FILTER_DEPTH_MAX)
    }
}

fn filter_node(from: &mut ImageReader<'_>, levels: usize) -> Result<FilterNode, ImageError> {
    let levels = levels.checked_sub(1);
    let levels = levels.ok_or(ImageError::Wrong { what: "a filter" })?;
    let mut node = FilterNode {
        op: Image::read(from)?,
        key: Image::read(from)?,
        cmp: Image::read(from)?,
        val: Image::read(from)?,
        vals: Image::read(from)?,
        nodes: Vec::new(),
    };
    for _ in 0..from.length()? {
        node.nodes.push(filter_node(from, levels)?);
    }
    Ok(node)
}

/// On the clock of its shard, which goes on where another process takes over.
impl Image for Instant {
    fn write(&self, out: &mut ImageWriter) {
        let Self(nanos) = self;
        nanos.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        u64::read(from).map(Self)
    }
}

impl Image for Epoch {
    fn write(&self, out: &mut ImageWriter) {
        let Self(letters) = self;
        out.raw(letters);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Image::read(from).map(Self)
    }
}

/// Its name was checked when it was made.
impl Image for ChannelName {
    fn write(&self, out: &mut ImageWriter) {
        out.bytes(self.whole().as_bytes());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        text(from).map(Self::from_whole)
    }
}

/// Its name was checked when it came.
impl Image for UserId {
    fn write(&self, out: &mut ImageWriter) {
        out.bytes(self.whole().as_bytes());
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        text(from).map(|whole| Self::from_whole(whole.into()))
    }
}

impl Image for ClientId {
    fn write(&self, out: &mut ImageWriter) {
        let Self(bits) = *self;
        bits.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        u128::read(from).map(Self)
    }
}

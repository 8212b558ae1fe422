//! Connections as bytes: their records with the sessions behind them, what is unsent and what is unfinished, and when their time comes.
//!
//! Taken between two turns: everything that was polled is with the kernel. What a connection has in flight by itself stays there,
//! and comes back to whoever has the connection then.

use std::sync::Arc;

use super::outbox::{ConnOrder, Outbox, TURN_BYTES};
use super::rings::Rings;
use super::{Connections, Due};
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::limits::CONNECTIONS_MAX;
use crate::mem::{HeldBytes, Slab, Turns};
use crate::model::Weights;
use crate::shard::backlog::{Backlog, SharedPieces};
use crate::shard::connection::{Connection, Leaving, State};
use crate::shard::{Close, Door};
use crate::wire::websocket::Inflater;

image!(enum State {
    0 => Head,
    1 => Waiting,
    2 => Open,
    3 => Owing,
    4 => Finishing,
    5 => Refused,
    6 => Lingering,
    7 => Gone,
});
image!(enum Leaving { 0 => Not, 1 => Told, 2 => Cut });
image!(enum Close { 0 => Finish, 1 => Abort });
image!(enum Door { 0 => Clients, 1 => Internal });
image!(enum ConnOrder {
    0 => Close { conn, how },
    1 => Pause(conn),
    2 => Resume(conn),
    3 => Patience(conn, within),
    4 => HalfClose(conn),
});

impl Connections {
    pub(in crate::shard) fn write_image(&self, out: &mut ImageWriter) {
        let Self {
            slab,
            outbox,
            wheel,
            fired,
            // The configuration's.
            inflater: _,
            // Counted anew.
            input_bytes: _,
            input_told,
            owing,
            taken,
            paces,
        } = self;
        let Outbox {
            rings,
            dirty,
            closing,
            orders,
            // Counts itself.
            held: _,
            is_unflushed,
        } = outbox;
        assert!(!is_unflushed, "an image is taken between two turns");
        let all = slab.iter();
        let pieces = SharedPieces::of(all.filter_map(|(_, one)| one.backlog.as_deref()));
        pieces.write(out);
        rings.write(out);
        slab.write(out, |one, out| one.write(&pieces, out));
        dirty.write(out);
        closing.write(out);
        orders.write(out);
        wheel.write(out);
        fired.write(out);
        input_told.write(out);
        owing.write(out);
        taken.write(out);
        paces.write(out);
    }

    /// Reads what `write_image` of connections with rings of so many bytes has written.
    pub(in crate::shard) fn read_image(
        (shared_bytes, own_bytes): (u32, u32),
        inflater: Inflater,
        weights: &Arc<Weights>,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let held = HeldBytes::default();
        let pieces = SharedPieces::read(&held, from)?;
        let rings = Rings::read(shared_bytes, own_bytes, from)?;
        let slab = Slab::read(from, CONNECTIONS_MAX, |from| {
            Connection::read(&rings, &pieces, &held, from)
        })?;
        let input_bytes = slab.iter().map(|(_, one)| one.input_bytes()).sum();
        Ok(Self {
            slab,
            outbox: Outbox {
                rings,
                dirty: Turns::read(TURN_BYTES, weights, from)?,
                closing: Image::read(from)?,
                orders: Image::read(from)?,
                held,
                is_unflushed: false,
            },
            wheel: Image::read(from)?,
            fired: Image::read(from)?,
            inflater,
            input_bytes,
            input_told: Image::read(from)?,
            owing: Image::read(from)?,
            taken: Image::read(from)?,
            paces: Image::read(from)?,
        })
    }
}

impl Connection {
    fn write(&self, pieces: &SharedPieces, out: &mut ImageWriter) {
        let Self {
            pending,
            backlog,
            decoder,
            held,
            by,
            filed,
            since,
            state,
            leaving,
            due,
            door,
            is_session,
            is_known,
            is_arriving,
            is_parked,
            is_dirty,
            is_paused,
            is_sending,
            keep_alive,
            is_service,
            is_head,
            has_ended,
            read_past,
            close,
            session,
        } = self;
        assert_eq!(
            *due,
            Due::NOTHING,
            "what was due is done when a handler is over"
        );
        pending.write(out);
        backlog.is_some().write(out);
        if let Some(backlog) = backlog {
            backlog.write(pieces, out);
        }
        decoder.write(out);
        held.write(out);
        by.write(out);
        filed.write(out);
        since.write(out);
        state.write(out);
        leaving.write(out);
        door.write(out);
        is_session.write(out);
        is_known.write(out);
        is_arriving.write(out);
        is_parked.write(out);
        is_dirty.write(out);
        is_paused.write(out);
        is_sending.write(out);
        keep_alive.write(out);
        is_service.write(out);
        is_head.write(out);
        has_ended.write(out);
        read_past.write(out);
        close.write(out);
        session.write(out);
    }

    fn read(
        rings: &Rings,
        pieces: &SharedPieces,
        held: &HeldBytes,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let pending = rings.read_range(from)?;
        let backlog = match bool::read(from)? {
            true => Some(Box::new(Backlog::read(pieces, held, from)?)),
            false => None,
        };
        Ok(Self {
            pending,
            backlog,
            decoder: Image::read(from)?,
            held: Image::read(from)?,
            by: Image::read(from)?,
            filed: Image::read(from)?,
            since: Image::read(from)?,
            state: Image::read(from)?,
            leaving: Image::read(from)?,
            due: Due::NOTHING,
            door: Image::read(from)?,
            is_session: Image::read(from)?,
            is_known: Image::read(from)?,
            is_arriving: Image::read(from)?,
            is_parked: Image::read(from)?,
            is_dirty: Image::read(from)?,
            is_paused: Image::read(from)?,
            is_sending: Image::read(from)?,
            keep_alive: Image::read(from)?,
            is_service: Image::read(from)?,
            is_head: Image::read(from)?,
            has_ended: Image::read(from)?,
            read_past: Image::read(from)?,
            close: Image::read(from)?,
            session: Image::read(from)?,
        })
    }
}

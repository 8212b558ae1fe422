//! Input that is not handled yet, counted: of each connection and of all.

use super::{Connections, State};
use crate::limits::{HELD_BYTES_MAX, HELD_PAUSE_BYTES};
use crate::shard::held::Held;
use crate::time::Instant;
use crate::wire::websocket::{Decoder, Event, WebSocketError};

/// Somebody is told at most this often that the bound was reached.
const TOLD_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// What is to be done with a connection that holds input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Holds {
    /// Nothing.
    Little,
    /// It is read no further.
    Enough,
    /// It is given up.
    TooMuch,
}

impl Connections {
    /// Takes what a connection holds, to handle it.
    pub(in crate::shard) fn take_held(&mut self, slot: u32) -> Option<Box<Held>> {
        let mut held = self.slab.of_mut(slot).held.take()?;
        self.input_bytes -= held.uncount();
        Some(held)
    }

    /// Gives back what is left of it. Nobody handles the input of a connection that is told to go.
    pub(in crate::shard) fn put_held(&mut self, slot: u32, mut held: Box<Held>) -> Holds {
        let connection = self.slab.of_mut(slot);
        let goes = match connection.state {
            State::Head | State::Waiting | State::Owing | State::Open => false,
            State::Finishing | State::Refused | State::Lingering | State::Gone => true,
        };
        if goes || held.is_empty() {
            return Holds::Little;
        }
        debug_assert!(connection.held.is_none(), "it was taken");
        self.input_bytes += held.count();
        let len = held.len();
        connection.held = Some(held);
        if len > HELD_BYTES_MAX {
            Holds::TooMuch
        } else if len >= HELD_PAUSE_BYTES {
            Holds::Enough
        } else {
            Holds::Little
        }
    }

    /// Takes what a connection has of an unfinished message.
    pub(in crate::shard) fn take_decoder(&mut self, slot: u32) -> Decoder {
        let connection = self.slab.of_mut(slot);
        let decoder = std::mem::take(&mut connection.decoder);
        self.input_bytes -= decoder.held_bytes();
        decoder
    }

    /// Gives it back. True if there is something.
    pub(in crate::shard) fn put_decoder(&mut self, slot: u32, decoder: Decoder) -> bool {
        let connection = self.slab.of_mut(slot);
        debug_assert_eq!(connection.decoder.held_bytes(), 0, "it was taken");
        let bytes = decoder.held_bytes();
        connection.decoder = decoder;
        self.input_bytes += bytes;
        bytes > 0
    }

    /// The next event of a connection that compression was agreed on with.
    #[cold]
    pub(in crate::shard) fn next_inflated<'a>(
        &mut self,
        slot: u32,
        decoder: &mut Decoder,
        input: &mut &'a mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<Event<'a>>, WebSocketError> {
        let rare = self.slab.of_mut(slot).session.rare.as_mut();
        let own = rare.and_then(|rare| rare.deflate.as_mut());
        let inflater = match own {
            Some(own) => &mut own.1,
            None => &mut self.inflater,
        };
        decoder.next_inflated(input, message_bytes_max, inflater)
    }

    /// Bytes of unfinished input that all of them hold.
    pub(in crate::shard) const fn input_bytes(&self) -> usize {
        self.input_bytes
    }

    /// The same, counted anew.
    pub(in crate::shard) fn input_bytes_counted(&self) -> usize {
        let connections = self.slab.iter();
        connections.map(|(_, one)| one.input_bytes()).sum()
    }

    /// Those that hold input, who holds most first.
    pub(in crate::shard) fn holders(&self) -> Vec<u32> {
        let mut holders: Vec<(usize, u32)> = self
            .slab
            .iter()
            .map(|(slot, connection)| (connection.input_bytes(), slot))
            .filter(|&(bytes, _)| bytes > 0)
            .collect();
        holders.sort_unstable_by(|a, b| b.cmp(a));
        holders.into_iter().map(|(_, slot)| slot).collect()
    }

    /// They have reached their bound: is somebody to be told, who was not told of late?
    pub(in crate::shard) fn tells_of_input(&mut self, now: Instant) -> bool {
        let told = self.input_told;
        let tells = told.is_none_or(|told| now.since(told) >= TOLD_INTERVAL);
        if tells {
            self.input_told = Some(now);
        }
        tells
    }
}

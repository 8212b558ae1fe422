//! One TCP connection.

/// Bytes under way in both directions, and how each direction ended.
#[derive(Default)]
pub struct Link {
    /// From the client, not received yet.
    pub up: Vec<u8>,
    pub up_fin: bool,
    pub up_reset: bool,
    /// From the server, not read yet.
    pub down: Vec<u8>,
    pub down_fin: bool,
    pub down_reset: bool,
    /// Bytes that fit into `down`.
    pub window: usize,
}

impl Link {
    pub fn new(window: usize) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// Bytes that the kernel takes now.
    pub fn room(&self) -> usize {
        self.window.saturating_sub(self.down.len())
    }
}

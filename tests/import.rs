//! `ringmain import-centrifugo`: what a team that comes from Centrifugo gets, key by key, and what a hostile file gets.
//!
//! The expected outputs under `tests/vectors/centrifugo-config` are written by
//! `RINGMAIN_WRITE_VECTORS=1 cargo test --test import`; read the difference before committing it.

#[expect(
    dead_code,
    reason = "each test crate uses its own part of what they share"
)]
#[path = "support/support.rs"]
mod support;

#[path = "import/command.rs"]
mod command;
#[path = "import/forms.rs"]
mod forms;
#[path = "import/hostile.rs"]
mod hostile;
#[path = "import/keys.rs"]
mod keys;
#[path = "import/older.rs"]
mod older;

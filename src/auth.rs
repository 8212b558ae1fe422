//! Who somebody is (`token`), whom a service has shut out (`revocation`) and what they may do (`permission`).

pub mod permission;
pub mod revocation;
pub mod token;

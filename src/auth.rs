//! Who somebody is (`token`), whom a service has shut out (`revocation`) and what they may do (`permission`); what they set for one
//! subscription (`overrides`).

pub(crate) mod overrides;
pub mod permission;
pub mod revocation;
pub mod token;

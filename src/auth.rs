//! Who somebody is (`token`) and what they may do (`permission`).

pub mod permission;
pub mod token;

//! What clients and services say, whatever the encoding: commands, replies, pushes, codes.

pub mod api;
pub mod centrifuge;
pub mod command;
pub mod disconnect;
pub mod error;
pub mod push;

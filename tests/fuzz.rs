//! Decoders against input that is nearly right: cut off, flipped, spliced, repeated, or made of nothing but chance.
//!
//! Promise of every target: no panic, output bounded by the input, and the same result when the same bytes come again.
//! `RINGMAIN_FUZZ_CASES` sets the number of cases of each target; `scripts/fuzz` runs them for as long as one likes.

#[path = "fuzz/commands.rs"]
mod commands;
#[path = "fuzz/deflate.rs"]
mod deflate;
#[path = "fuzz/emulation.rs"]
mod emulation;
#[path = "fuzz/fossil.rs"]
mod fossil;
#[path = "fuzz/image.rs"]
mod image;
#[path = "fuzz/import.rs"]
mod import;
#[path = "fuzz/mutation.rs"]
mod mutation;

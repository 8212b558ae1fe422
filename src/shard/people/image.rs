//! People as bytes.

use super::People;
use super::gate::Gate;
use super::places::Places;
use super::prefixes::Prefixes;
use super::users::Users;
use crate::auth::revocation::Revocations;
use crate::config::Config;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::mem::Key;
use crate::session::Tokens;

impl People {
    pub(in crate::shard) fn write_image(&self, out: &mut ImageWriter) {
        let Self {
            users,
            gate,
            places,
            prefixes,
            offenders,
            revocations,
            // Its keys are the configuration's, and those that control fetches.
            tokens: _,
        } = self;
        users.write(out);
        gate.write(out);
        places.write(out);
        prefixes.write(out);
        offenders.write(out);
        revocations.write(out);
    }

    /// Reads what `write_image` has written, with the same keys and configuration. Whose the session in a slot is says `user_of`, if there is one.
    pub(in crate::shard) fn read_image<'u>(
        tables: &Key,
        process: &Key,
        config: &Config,
        user_of: impl Fn(u32) -> Option<&'u str>,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        Ok(Self {
            users: Users::read(tables, user_of, from)?,
            gate: Gate::read(tables, from)?,
            places: Places::read(tables, from)?,
            prefixes: Prefixes::read(process, from)?,
            offenders: Image::read(from)?,
            revocations: Revocations::read(tables, from)?,
            tokens: Tokens::new(config),
        })
    }

    /// What is left of them: keys of tokens that were fetched.
    pub(in crate::shard) fn into_tokens(self) -> Tokens {
        self.tokens
    }

    /// Keys of tokens that were fetched are kept.
    pub(in crate::shard) fn inherit(&mut self, before: Tokens) {
        self.tokens.inherit(before);
    }
}

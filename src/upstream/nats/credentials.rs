//! Whom this process is to the server: read from the configuration and its file, at the start and again with each reload.

use std::io;

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

use crate::config::Secret;
use crate::config::durable::Nats;

/// See the module.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    password: Secret,
    token: Secret,
    /// Of a file as `nsc` makes it.
    signed: Option<Signed>,
}

/// A user's claims, and the seed that signs for them.
#[derive(Clone, PartialEq, Eq)]
struct Signed {
    jwt: String,
    seed: Secret,
}

impl Credentials {
    /// What the configuration and its file say now. A token counts before a user.
    pub(super) fn read(nats: &Nats) -> io::Result<Self> {
        let has_token = !nats.token.0.is_empty();
        let mut read = Self {
            token: nats.token.clone(),
            ..Self::default()
        };
        if !has_token {
            read.user.clone_from(&nats.user);
            read.password.clone_from(&nats.password);
        }
        if !nats.credentials.as_os_str().is_empty() {
            let file = std::fs::read_to_string(&nats.credentials);
            read.signed = Some(Signed::parse(&file?)?);
        }
        Ok(read)
    }

    /// What is said to a server that has sent this nonce.
    pub(super) fn auth(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut auth = Auth::new();
        auth.token = some(&self.token.0);
        auth.username = some(&self.user);
        auth.password = auth.username.as_ref().map(|_| self.password.0.clone());
        if let Some(Signed { jwt, seed }) = &self.signed {
            let pair = KeyPair::from_seed(&seed.0).map_err(AuthError::new)?;
            auth.signature = Some(pair.sign(nonce).map_err(AuthError::new)?);
            auth.jwt = Some(jwt.clone());
        }
        Ok(auth)
    }

    /// What nobody should read.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let seed = self.signed.as_ref().map(|signed| &signed.seed);
        let all = [Some(&self.password), Some(&self.token), seed];
        all.into_iter().flatten().map(|secret| secret.0.as_str())
    }
}

impl Signed {
    fn parse(text: &str) -> io::Result<Self> {
        let jwt = between(text, "USER JWT");
        let seed = between(text, "USER NKEY SEED");
        match (jwt, seed) {
            (Some(jwt), Some(seed)) if KeyPair::from_seed(seed).is_ok() => Ok(Self {
                jwt: jwt.to_owned(),
                seed: Secret(seed.to_owned()),
            }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// What stands between the line that begins a part with this name and the one that ends it.
fn between<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let begins = |rest: &'t str| {
        let (title, inside) = rest.split_once("-----")?;
        title.ends_with(name).then_some(inside)
    };
    let inside = begins(rest).or_else(|| {
        let mut others = rest.split("-----BEGIN ").skip(1);
        others.find_map(begins)
    })?;
    let part = inside.split("---").next()?.trim();
    (!part.is_empty()).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_credentials_has_claims_and_a_seed() {
        let seed = KeyPair::new_user().seed().expect("a seed");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\nclaims.of.ann\n------END NATS USER JWT------\n\n\
             ***** IMPORTANT *****\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let signed = Signed::parse(&text).expect("credentials");
        assert_eq!(
            (signed.jwt.as_str(), &signed.seed.0),
            ("claims.of.ann", &seed)
        );
        let read = Credentials {
            signed: Some(signed),
            ..Credentials::default()
        };
        let auth = read.auth(b"nonce").expect("signed");
        let pair = KeyPair::from_seed(&seed).expect("a pair");
        let signature = auth.signature.expect("a signature");
        assert!(pair.verify(b"nonce", &signature).is_ok());
        assert_eq!(read.secrets().filter(|one| *one == seed).count(), 1);
        for wrong in [
            "",
            "-----BEGIN NATS USER JWT-----\nx\n------END",
            &text.replace(&seed, "SUAX"),
        ] {
            assert!(Signed::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! Keys of tokens: a secret of the configuration, or those that a service publishes, which control fetches for the shards. The service is
//! slow, fails, and makes new keys; some tokens name a key that it never had.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringmain::auth::token::mint;
use ringmain::config::keys::{KeySet, KeySource};
use ringmain::config::{Config, Secret};
use ringmain::mem::Rng;
use ringmain::mesh::control::ToShard;
use ringmain::time::{Instant, Now};
use serde_json::{Value, json};

use super::setup::SECRET;
use super::truth::Truth;

const PRIVATE_KEY: &[u8] = include_bytes!("../vectors/keys/ed25519.pem");
/// Ids of keys, in the order in which the service makes them.
const KEY_IDS: &[&str] = &["first", "second", "third"];
/// Fetches after which it makes the next.
const FETCHES_EACH: usize = 2;

/// What tokens of a run are signed with.
pub struct Keys {
    /// The configuration names a service, for connection tokens, and for those of subscriptions too.
    is_fetched: bool,
    is_fetched_for_subscriptions: bool,
    key: EncodingKey,
}

impl Keys {
    pub fn random(rng: &mut Rng) -> Self {
        let is_fetched = rng.below(3) == 0;
        Self {
            is_fetched,
            is_fetched_for_subscriptions: is_fetched && rng.below(2) == 0,
            key: EncodingKey::from_ed_pem(PRIVATE_KEY).expect("a key"),
        }
    }

    pub fn configure(&self, config: &mut Config) {
        if self.is_fetched {
            config.client.token.jwks_public_endpoint = "http://keys/".to_owned();
        }
        if self.is_fetched_for_subscriptions {
            config.client.subscription_token = config.client.token.clone();
        }
    }

    pub fn connection_token(&self, rng: &mut Rng, claims: &str) -> String {
        self.token(self.is_fetched, rng, claims)
    }

    pub fn subscription_token(&self, rng: &mut Rng, claims: &str) -> String {
        self.token(self.is_fetched_for_subscriptions, rng, claims)
    }

    fn token(&self, is_fetched: bool, rng: &mut Rng, claims: &str) -> String {
        if !is_fetched {
            return mint(&Secret(SECRET.to_owned()), claims).expect("claims of this run");
        }
        let id = match rng.below(12) {
            0 => "never",
            1..=3 => KEY_IDS[rng.below(KEY_IDS.len() as u64) as usize],
            _ => KEY_IDS[0],
        };
        let header = Header {
            kid: Some(id.to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        let claims: Value = serde_json::from_str(claims).expect("claims of this run");
        jsonwebtoken::encode(&header, &claims, &self.key).expect("a token")
    }
}

/// The service, and control that asks it.
pub struct KeyService {
    rng: Rng,
    /// When which shard is answered.
    pending: VecDeque<(Instant, usize, KeySource)>,
    fetches: usize,
    /// How unkind it is: of 100.
    faults: u64,
}

impl KeyService {
    pub fn new(mut rng: Rng) -> Self {
        Self {
            pending: VecDeque::new(),
            fetches: 0,
            faults: [0, 30][rng.below(2) as usize],
            rng,
        }
    }

    /// A shard wants the keys.
    pub fn ask(&mut self, now: Now, shard: usize, source: KeySource, truth: &mut Truth) {
        truth.count("keys wanted");
        let delay = match self.rng.below(100) {
            0..=89 => Duration::from_millis(self.rng.below(300)),
            // Longer than a shard waits.
            _ => Duration::from_millis(self.rng.below(14_000)),
        };
        self.pending.push_back((now.at + delay, shard, source));
    }

    /// What shards are told now.
    pub fn poll(&mut self, now: Now, calm: bool, truth: &mut Truth) -> Option<(usize, ToShard)> {
        let due = |(at, ..): &(Instant, usize, KeySource)| calm || *at <= now.at;
        let at = self.pending.iter().position(due)?;
        let (_, shard, source) = self.pending.remove(at)?;
        if !calm && self.rng.below(100) < self.faults {
            truth.count("keys not fetched");
            return Some((shard, ToShard::Keys(source, None)));
        }
        self.fetches += 1;
        let many = (1 + self.fetches / FETCHES_EACH).min(KEY_IDS.len());
        let set = Some(Arc::new(set(&KEY_IDS[..many])));
        Some((shard, ToShard::Keys(source, set)))
    }
}

fn set(ids: &[&str]) -> KeySet {
    let key = EncodingKey::from_ed_pem(PRIVATE_KEY).expect("a key");
    let published = |id: &&str| {
        let jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = json!(id);
        jwk
    };
    let keys: Vec<Value> = ids.iter().map(published).collect();
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("a set")
}

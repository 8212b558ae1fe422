//! Memory with a bound: slots, places, token buckets, what tenants have of their limits, questions that wait, the fan-out ring, the timer wheel, turns of tenants, bytes that several wait for, random numbers from a seed, secrets from a
//! key.

mod asks;
mod fanout_ring;
mod meter;
mod place;
mod quota;
mod rng;
mod secret;
mod shared;
mod shares;
mod slab;
mod slot_pool;
mod timer_wheel;
mod turns;

pub use asks::{Asks, Full, SharedAsks};
pub use fanout_ring::{FanoutRing, RingRange};
pub use meter::{Bucket, Meter, Pace, Places};
pub use place::Place;
pub use quota::{Amount, Quota, QuotaLimit};
pub use rng::Rng;
pub use secret::{Key, SecretHash, Secrets};
pub use shared::{HeldBytes, Origin, OriginKey, Shared};
pub use shares::{Shares, Whose};
pub use slab::Slab;
pub use slot_pool::SlotPool;
pub use timer_wheel::{Tick, TimerWheel};
pub use turns::{LaneId, Turns};

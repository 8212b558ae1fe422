//! What follows from the name of a publication: where it goes, when, and how workers take it.

use std::time::Duration;

use serde_json::{Value, json};

/// A publication as its publisher names it: publisher and number.
pub(crate) type Id = (u32, u32);

/// Channels of a world.
pub(crate) const CHANNELS: u32 = 4;
/// Groups that are paused now and then.
pub(crate) const PAUSED: [&str; 4] = ["free", "ordered", "fetched", "lanes"];
/// One publication of so many is poisoned: no worker can work it off.
const POISONED_OF: u32 = 40;
/// Of so many healthy ones each worker refuses one for a while.
const HESITANT_OF: u64 = 24;
/// One publication of so many is delayed.
const DELAYED_OF: u64 = 16;
/// Customers.
const CUSTOMERS: u32 = 7;
/// Lanes that a priority names.
const LANES: u32 = 4;

/// What publications are by their names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nature {
    pub(crate) is_poisoned: fn(Id) -> bool,
    /// Refused once by every healthy worker.
    pub(crate) is_hesitant: fn(Id) -> bool,
    pub(crate) customer: fn(Id) -> u32,
    pub(crate) lane: fn(Id) -> u32,
}

/// That of the publications of a world.
pub(crate) const NATURE: Nature = Nature {
    is_poisoned,
    is_hesitant: |id| put_off(id).is_some(),
    customer,
    lane,
};

fn mixed(id: Id) -> u64 {
    (u64::from(id.0) << 32 | u64::from(id.1)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// No worker can work it off.
pub(crate) fn is_poisoned(id: Id) -> bool {
    ((mixed(id) >> 40) as u32).is_multiple_of(POISONED_OF)
}

/// How long its first attempt puts it off.
pub(crate) fn put_off(id: Id) -> Option<Duration> {
    let mixed = mixed(id) >> 24;
    let is_hesitant = !is_poisoned(id) && mixed.is_multiple_of(HESITANT_OF);
    is_hesitant.then(|| Duration::from_millis(100 + mixed % 700))
}

/// After how many milliseconds it is published.
fn delay_ms(id: Id) -> Option<u64> {
    let mixed = mixed(id) >> 28;
    (mixed % DELAYED_OF == 1).then_some(20 + mixed % 900)
}

fn customer(id: Id) -> u32 {
    (mixed(id) >> 33) as u32 % CUSTOMERS
}

fn lane(id: Id) -> u32 {
    (mixed(id) >> 35) as u32 % LANES
}

/// The channel that a publication goes to.
pub(crate) fn channel_of(id: Id) -> String {
    format!("orders:{}", (id.0 + id.1) % CHANNELS)
}

/// Parameters of its publish command.
pub(crate) fn parameters(id: Id) -> Value {
    let text = "x".repeat(id.1 as usize * 7 % 200);
    let tags = json!({ "customer": customer(id).to_string(), "priority": lane(id).to_string() });
    let mut parameters = json!({
        "channel": channel_of(id),
        "key": format!("key-{}-{}", id.0, id.1),
        "data": { "p": id.0, "n": id.1, "text": text },
        "tags": tags,
    });
    if let Some(delay_ms) = delay_ms(id) {
        parameters["delay_ms"] = json!(delay_ms);
    }
    parameters
}

/// The name that stands in its payload.
pub(crate) fn id_of(data: &Value) -> Option<Id> {
    let part = |name: &str| u32::try_from(data[name].as_u64()?).ok();
    Some((part("p")?, part("n")?))
}

/// Numbers that follow from a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    pub(crate) fn between(&mut self, first: u64, end: u64) -> u64 {
        first + self.below(end - first)
    }
}

//! Whoever operates the groups of a world: they are paused, go on, and begin anew elsewhere.

use serde_json::{Value, json};

use super::actors::{Orders, ask};
use super::ledger::{Fact, Sought};
use super::names::{CHANNELS, PAUSED, Random};

/// The group that begins anew now and then.
pub(crate) const SOUGHT: &str = "sought";

/// Asks until there is a result.
fn insist(orders: &Orders, method: &str, request: &Value) -> bool {
    while !orders.is_stopped() {
        let answer = ask(orders.address, method, request).unwrap_or_default();
        if answer.get("result").is_some() {
            return true;
        }
        orders.pause_a_moment();
    }
    false
}

/// Pauses, seeks, and lets go on, while publishers publish.
pub(crate) fn operator(orders: &Orders, seed: u64) {
    let mut random = Random(seed ^ 0x6f70);
    let mut is_idle = false;
    while !orders.is_stopped() && !orders.is_finishing() {
        orders.set_idle(&mut is_idle, !orders.publishes());
        // A pause of the operator, some steps long.
        for _ in 0..random.between(2, 12) {
            orders.pause_a_moment();
        }
        if is_idle || !orders.publishes() {
            continue;
        }
        match random.below(4) {
            0 => seek_somewhere(orders, &mut random),
            _ => {
                let group = PAUSED[random.below(PAUSED.len() as u64) as usize];
                pause(orders, group, random.between(2, 15));
            }
        }
    }
    orders.set_idle(&mut is_idle, true);
}

fn pause(orders: &Orders, group: &'static str, steps: u64) {
    let request = json!({ "group": group });
    if !insist(orders, "queue/pause", &request) {
        return;
    }
    orders.turn(group);
    orders.tell(Fact::Counted("pauses"));
    for _ in 0..steps {
        orders.pause_a_moment();
    }
    orders.turn(group);
    insist(orders, "queue/resume", &request);
}

fn seek_somewhere(orders: &Orders, random: &mut Random) {
    if random.below(3) == 0 {
        seek(orders, &json!("new"), Sought::New);
        return;
    }
    let number = random.below(u64::from(CHANNELS)) as u32;
    let (channel, top) = (format!("orders:{number}"), orders.top(number));
    let offset = top.saturating_sub(random.below(60)).max(1);
    if top > 0 {
        let to = json!({ "channel": channel, "offset": offset });
        seek(orders, &to, Sought::From(channel, offset));
    }
}

/// The group that is sought begins there.
pub(crate) fn seek(orders: &Orders, to: &Value, sought: Sought) {
    orders.tell(Fact::Seeking { group: SOUGHT });
    if insist(orders, "queue/seek", &json!({ "group": SOUGHT, "to": to })) {
        orders.tell(Fact::Sought {
            group: SOUGHT,
            to: sought,
            moment: orders.next_moment(),
        });
    }
}

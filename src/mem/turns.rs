//! Whose turn it is: tenants share what they all wait for by deficit round-robin (Shreedhar and Varghese, 1995). Each has a lane of its
//! own, first in, first out. A turn gives a lane its quantum times its weight, and it goes on until it has used that up; what it takes
//! beyond it, it pays with later turns. A lane in which nothing waits keeps nothing of its turn.
//!
//! Where one lane only has something in it, nothing is counted: it is a plain queue then.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::model::{TenantId, Weights};

/// The lane of the tenant `default`, which is always there.
const OF_DEFAULT: LaneId = LaneId(0);

/// A lane for as long as nothing else is done than to push and to pop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneId(u32);

/// What waits of one tenant.
#[derive(Debug)]
struct Lane<T> {
    /// Id of the tenant; empty for `default`.
    tenant: Box<str>,
    /// What a turn gives it.
    grant: i64,
    /// What it may take still of its turn; what it owes where that is below 0.
    credit: i64,
    /// It stands in `round`.
    is_in_round: bool,
    queue: VecDeque<T>,
}

impl<T> Lane<T> {
    const fn new(tenant: Box<str>, grant: i64) -> Self {
        Self {
            tenant,
            grant,
            credit: 0,
            is_in_round: false,
            queue: VecDeque::new(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Turns<T> {
    /// The first one is that of `default`. Others stay until `shrink` finds them empty.
    lanes: Vec<Lane<T>>,
    by_tenant: HashMap<Box<str>, u32, FixedState>,
    /// Lanes with something in them, or that owe something. The first one has its turn.
    round: VecDeque<u32>,
    /// Lanes with something in them.
    waiting: usize,
    /// What waits in all of them.
    len: usize,
    quantum: u32,
    weights: Arc<Weights>,
}

impl<T> Turns<T> {
    /// Nothing waits. A turn of a lane with weight 1 is worth `quantum`, in the unit in which `charge` is told.
    #[must_use]
    pub fn new(quantum: u32, weights: &Arc<Weights>) -> Self {
        let mut turns = Self {
            lanes: Vec::new(),
            by_tenant: HashMap::with_hasher(FixedState::default()),
            round: VecDeque::new(),
            waiting: 0,
            len: 0,
            quantum,
            weights: Arc::clone(weights),
        };
        let grant = turns.grant("");
        turns.lanes.push(Lane::new("".into(), grant));
        turns
    }

    fn grant(&self, tenant: &str) -> i64 {
        i64::from(self.quantum) * i64::from(self.weights.of(TenantId::new(tenant)))
    }

    /// Other weights: from the next turn of each tenant on.
    pub fn reload(&mut self, weights: &Arc<Weights>) {
        self.weights = Arc::clone(weights);
        for at in 0..self.lanes.len() {
            self.lanes[at].grant = self.grant(&self.lanes[at].tenant);
        }
    }

    /// The lane of a tenant, for `push_to`.
    pub fn lane(&mut self, tenant: TenantId<'_>) -> LaneId {
        if tenant.is_default() {
            return OF_DEFAULT;
        }
        if let Some(&at) = self.by_tenant.get(tenant.as_str()) {
            return LaneId(at);
        }
        let at = self.lanes.len() as u32;
        let lane = Lane::new(tenant.as_str().into(), self.grant(tenant.as_str()));
        self.by_tenant.insert(lane.tenant.clone(), at);
        self.lanes.push(lane);
        LaneId(at)
    }

    /// The last one of its tenant.
    pub fn push(&mut self, tenant: TenantId<'_>, item: T) {
        let lane = self.lane(tenant);
        self.push_to(lane, item);
    }

    /// The last one of this lane.
    pub fn push_to(&mut self, id: LaneId, item: T) {
        let lane = &mut self.lanes[id.0 as usize];
        if !lane.is_in_round {
            lane.is_in_round = true;
            lane.credit = lane.grant;
            self.round.push_back(id.0);
        }
        self.waiting += usize::from(lane.queue.is_empty());
        self.len += 1;
        lane.queue.push_back(item);
    }

    /// The next one, of whoever's turn it is. What it costs is said by `charge` before the next one is taken.
    pub fn pop(&mut self) -> Option<T> {
        let at = self.turn()?;
        let lane = &mut self.lanes[at as usize];
        let item = lane.queue.pop_front();
        self.waiting -= usize::from(lane.queue.is_empty());
        self.len -= 1;
        item
    }

    /// The one that `pop` would take.
    pub fn peek(&mut self) -> Option<&T> {
        let at = self.turn()?;
        self.lanes[at as usize].queue.front()
    }

    /// The lane that has its turn, with something in it.
    fn turn(&mut self) -> Option<u32> {
        if self.len == 0 {
            // Whoever is alone with what it owes owes it to nobody.
            for at in self.round.drain(..) {
                self.lanes[at as usize].is_in_round = false;
            }
            return None;
        }
        loop {
            let Some(&at) = self.round.front() else {
                unreachable!("what waits is in a lane of the round");
            };
            let lane = &mut self.lanes[at as usize];
            let is_empty = lane.queue.is_empty();
            if self.round.len() == 1 || !is_empty && lane.credit > 0 {
                return Some(at);
            }
            self.round.pop_front();
            if is_empty && lane.credit >= 0 {
                lane.is_in_round = false;
            } else {
                lane.credit += lane.grant;
                self.round.push_back(at);
            }
        }
    }

    /// What was popped last cost so much.
    pub fn charge(&mut self, cost: u32) {
        if self.round.len() > 1
            && let Some(&at) = self.round.front()
        {
            self.lanes[at as usize].credit -= i64::from(cost);
        }
    }

    /// What waits in all lanes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many tenants wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// What waits in all lanes.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let lanes = self.round.iter().map(|&at| &self.lanes[at as usize]);
        lanes.flat_map(|lane| lane.queue.iter())
    }

    /// The first one of each tenant that has one, with its lane.
    pub fn fronts(&self) -> impl Iterator<Item = (LaneId, &T)> {
        self.round.iter().filter_map(|&at| {
            let front = self.lanes[at as usize].queue.front();
            front.map(|front| (LaneId(at), front))
        })
    }

    /// What waits in a lane, in order.
    pub fn queue_mut(&mut self, id: LaneId) -> impl Iterator<Item = &mut T> {
        self.lanes[id.0 as usize].queue.iter_mut()
    }

    /// Takes the first one of a lane out of its turn, for nothing.
    pub fn pop_of(&mut self, id: LaneId) -> Option<T> {
        let queue = &mut self.lanes[id.0 as usize].queue;
        let item = queue.pop_front();
        self.taken_out(id, item)
    }

    /// Takes the last one of a lane back.
    pub fn pop_back_of(&mut self, id: LaneId) -> Option<T> {
        let queue = &mut self.lanes[id.0 as usize].queue;
        let item = queue.pop_back();
        self.taken_out(id, item)
    }

    fn taken_out(&mut self, id: LaneId, item: Option<T>) -> Option<T> {
        if item.is_some() {
            self.len -= 1;
            self.waiting -= usize::from(self.lanes[id.0 as usize].queue.is_empty());
        }
        item
    }

    /// The lane with the most in it for its weight.
    #[must_use]
    pub fn longest(&self) -> Option<LaneId> {
        let lanes = self.round.iter().map(|&at| (at, &self.lanes[at as usize]));
        let share = |lane: &Lane<T>| lane.queue.len() as i64 * i64::from(u32::MAX) / lane.grant;
        let longest = lanes.max_by_key(|(at, lane)| (share(lane), std::cmp::Reverse(*at)));
        longest.map(|(at, _)| LaneId(at))
    }

    /// Has this lane, with one more in it, less than that one for its weight?
    #[must_use]
    pub fn is_shorter(&self, id: LaneId, than: LaneId) -> bool {
        let [own, other] = [id, than].map(|id| &self.lanes[id.0 as usize]);
        let [own_len, other_len] = [own, other].map(|lane| lane.queue.len() as i64);
        (own_len + 1) * other.grant < other_len * own.grant
    }

    /// Gives up lanes in which nothing waits, and places of the others beyond so many.
    pub fn shrink_to(&mut self, kept: usize) {
        self.peek();
        self.round.shrink_to(kept);
        for lane in &mut self.lanes {
            lane.queue.shrink_to(kept);
        }
        if self.lanes.iter().skip(1).all(|lane| lane.is_in_round) {
            return;
        }
        let all = std::mem::take(&mut self.lanes);
        let mut moved = vec![0; all.len()];
        self.by_tenant.clear();
        for (at, lane) in all.into_iter().enumerate() {
            if at > 0 && !lane.is_in_round {
                continue;
            }
            let to = self.lanes.len() as u32;
            moved[at] = to;
            if at > 0 {
                self.by_tenant.insert(lane.tenant.clone(), to);
            }
            self.lanes.push(lane);
        }
        self.lanes.shrink_to_fit();
        self.by_tenant.shrink_to_fit();
        for at in &mut self.round {
            *at = moved[*at as usize];
        }
    }
}

impl<T: Image> Turns<T> {
    /// Writes what waits, in the order of the round.
    pub fn write(&self, out: &mut ImageWriter) {
        let Self {
            lanes,
            // Follow from the lanes.
            by_tenant: _,
            round,
            waiting: _,
            len: _,
            // Whoever reads it has them.
            quantum: _,
            weights: _,
        } = self;
        out.length(round.len());
        for &at in round {
            let Lane {
                tenant,
                // Follows from the weight.
                grant: _,
                credit,
                is_in_round: _,
                queue,
            } = &lanes[at as usize];
            tenant.write(out);
            credit.write(out);
            queue.write(out);
        }
    }

    /// Reads what `write` of turns with this quantum has written.
    ///
    /// # Errors
    /// It cannot be.
    pub fn read(
        quantum: u32,
        weights: &Arc<Weights>,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let mut turns = Self::new(quantum, weights);
        for _ in 0..from.length()? {
            let tenant: Box<str> = Image::read(from)?;
            let credit = Image::read(from)?;
            let queue = VecDeque::read(from)?;
            let id = turns.lane(TenantId::new(&tenant));
            let lane = &mut turns.lanes[id.0 as usize];
            if lane.is_in_round {
                return Err(ImageError::Wrong {
                    what: "a tenant's turn twice",
                });
            }
            lane.is_in_round = true;
            lane.credit = credit;
            turns.len += queue.len();
            turns.waiting += usize::from(!queue.is_empty());
            lane.queue = queue;
            turns.round.push_back(id.0);
        }
        Ok(turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(quantum: u32, weights: &[(&str, u32)]) -> Turns<u32> {
        let weights = weights.iter().map(|&(id, weight)| (id.into(), weight));
        Turns::new(quantum, &Arc::new(weights.collect()))
    }

    fn fill(turns: &mut Turns<u32>, tenant: &str, costs: impl IntoIterator<Item = u32>) {
        for cost in costs {
            turns.push(TenantId::new(tenant), cost);
        }
    }

    /// What each of so many turns to pop takes, by the first letter of its tenant, and what they took in all.
    fn take(turns: &mut Turns<u32>, count: usize) -> String {
        let mut order = String::new();
        for _ in 0..count {
            let Some(at) = turns.turn() else { break };
            let tenant = turns.lanes[at as usize].tenant.chars().next();
            order.push(tenant.unwrap_or('-'));
            let cost = turns.pop().unwrap();
            turns.charge(cost);
        }
        order
    }

    #[test]
    fn tenants_take_turns_by_weight_and_cost() {
        type Row = (
            &'static [(&'static str, u32)],
            &'static [(&'static str, u32, usize)],
            &'static str,
        );
        let rows: &[Row] = &[
            // One tenant is a queue.
            (&[], &[("a", 100, 5)], "aaaaa"),
            (&[], &[("", 1000, 3)], "---"),
            // Equal weights, equal costs: in turns of a quantum.
            (&[], &[("a", 10, 6), ("b", 10, 3)], "abababaaa"),
            (&[], &[("a", 5, 6), ("b", 5, 3)], "aabbaabaa"),
            // A weight is so many quanta.
            (&[("b", 3)], &[("a", 10, 3), ("b", 10, 7)], "abbbabbbab"),
            // What costs twice as much comes half as often.
            (&[], &[("a", 20, 3), ("b", 10, 6)], "abbabbabb"),
            // What is dearer than a turn is paid with later ones.
            (&[], &[("a", 35, 2), ("b", 10, 8)], "abbbabbbbb"),
            // Nobody starves beside whoever has most of the weight.
            (&[("b", 1000)], &[("", 1, 3), ("b", 10_000, 3)], "---bbb"),
        ];
        for (row, (weights, lanes, expected)) in rows.iter().enumerate() {
            let mut turns = turns(10, weights);
            for &(tenant, cost, count) in *lanes {
                fill(&mut turns, tenant, std::iter::repeat_n(cost, count));
            }
            assert_eq!(take(&mut turns, 100), *expected, "row {row}");
            assert!(turns.is_empty() && turns.waiting() == 0);
        }
    }

    #[test]
    fn shares_are_the_weights_whatever_the_costs() {
        let mut turns = turns(64, &[("a", 1), ("b", 2), ("c", 5)]);
        let mut seed = 7_u32;
        let mut costs = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            1 + (seed >> 20) % 300
        };
        for tenant in ["a", "b", "c"] {
            let all: Vec<u32> = (0..20_000).map(|_| costs()).collect();
            fill(&mut turns, tenant, all);
        }
        let mut taken = [0_u64; 3];
        for _ in 0..16_000 {
            let at = turns.turn().unwrap();
            let cost = turns.pop().unwrap();
            turns.charge(cost);
            taken[at as usize - 1] += u64::from(cost);
        }
        let of_one = taken.iter().sum::<u64>() / 8;
        for (taken, weight) in taken.into_iter().zip([1, 2, 5]) {
            let wanted = of_one * weight;
            assert!(taken.abs_diff(wanted) < wanted / 20, "{taken} {wanted}");
        }
    }

    #[test]
    fn who_was_idle_has_saved_nothing_and_who_owes_pays() {
        let mut turns = turns(10, &[]);
        fill(&mut turns, "a", [1]);
        fill(&mut turns, "b", [10; 20]);
        assert_eq!(take(&mut turns, 6), "abbbbb");
        // It had nine left of its turn, and was away.
        fill(&mut turns, "a", [10; 3]);
        assert_eq!(take(&mut turns, 6), "bababa");
        // Always one only, and dear: it pays nevertheless.
        let mut order = String::new();
        for _ in 0..9 {
            if turns.waiting() == 1 {
                fill(&mut turns, "c", [40]);
            }
            order += &take(&mut turns, 1);
        }
        assert_eq!(order, "bcbbbbcbb");
    }

    #[test]
    fn whoever_comes_waits_for_one_turn_of_the_others_at_most() {
        let mut turns = turns(10, &[]);
        for tenant in ["a", "b", "c", "d"] {
            fill(&mut turns, tenant, [1; 1000]);
        }
        take(&mut turns, 1234);
        fill(&mut turns, "e", [1]);
        let order = take(&mut turns, 50);
        assert!(order.find('e').unwrap() <= 40, "{order}");
    }

    #[test]
    fn who_was_alone_owes_nothing() {
        let mut turns = turns(10, &[]);
        fill(&mut turns, "a", [10; 500]);
        take(&mut turns, 400);
        fill(&mut turns, "b", [10; 3]);
        assert_eq!(take(&mut turns, 6), "ababab");
    }

    #[test]
    fn weights_change_while_something_waits() {
        let mut turns = turns(10, &[]);
        for tenant in ["a", "b"] {
            fill(&mut turns, tenant, [10; 10]);
        }
        assert_eq!(take(&mut turns, 4), "abab");
        turns.reload(&Arc::new([("b".into(), 2)].into_iter().collect()));
        take(&mut turns, 1);
        assert_eq!(take(&mut turns, 6), "bbabba");
    }

    #[test]
    fn the_longest_lane_is_found_by_its_weight() {
        let mut turns = turns(10, &[("b", 4)]);
        fill(&mut turns, "a", [1; 3]);
        fill(&mut turns, "b", [1; 8]);
        let [a, b, c] = ["a", "b", "c"].map(|tenant| turns.lane(TenantId::new(tenant)));
        assert_eq!(turns.longest(), Some(a));
        assert!(turns.is_shorter(c, a) && turns.is_shorter(b, a));
        assert!(!turns.is_shorter(a, a) && !turns.is_shorter(a, b));
        assert_eq!(turns.pop_back_of(a), Some(1));
        assert_eq!((turns.len(), turns.waiting()), (10, 2));
    }

    #[test]
    fn idle_lanes_are_given_up_and_the_round_goes_on() {
        let mut turns = turns(10, &[]);
        for at in 0..100 {
            fill(&mut turns, &format!("t{at}"), [10; 2]);
        }
        fill(&mut turns, "b", [10; 4]);
        take(&mut turns, 201);
        turns.shrink_to(0);
        assert_eq!(turns.lanes.len(), 2, "that of default, and b's");
        fill(&mut turns, "a", [10; 2]);
        assert_eq!(take(&mut turns, 9), "babab");
        assert_eq!(turns.by_tenant.len(), 2);
    }

    #[test]
    fn an_image_goes_on_as_the_turns_did() {
        let weights = Arc::new([("b".into(), 2)].into_iter().collect());
        let mut turns = Turns::new(10, &weights);
        fill(&mut turns, "", [3; 9]);
        fill(&mut turns, "b", [7; 9]);
        fill(&mut turns, "c", [40]);
        take(&mut turns, 8);
        let mut out = ImageWriter::default();
        out.section(1, 1, |out| turns.write(out));
        let bytes = out.finish();
        let mut from = ImageReader::new(&bytes).unwrap();
        let mut inside = from.section().unwrap().unwrap().of_version(1).unwrap();
        let mut read = Turns::read(10, &weights, &mut inside).unwrap();
        inside.end().unwrap();
        assert_eq!((read.len(), read.waiting()), (turns.len(), turns.waiting()));
        assert_eq!(take(&mut read, 100), take(&mut turns, 100));
    }
}

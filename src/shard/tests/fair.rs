//! Tenants take turns: nobody waits for what another one has much of.

use super::*;
use crate::config::Source;
use crate::image::ImageError;
use crate::mesh::build;
use crate::shard::Unmoved;

/// Sends of one slice.
const SENDS: usize = 64;
/// Connections of the tenant that has much to send.
const MANY: u32 = 1500;
/// The same where each is sent much.
const FEW: u32 = 200;

/// Two tenants, and whatever else is said.
fn tenants(config: &mut Config, more: &str) {
    let text = format!("{more}\n[[tenants]]\nid = \"noisy\"\n[[tenants]]\nid = \"quiet\"\n");
    let source = Source {
        name: "test",
        text: &text,
    };
    *config = Config::load(&[source], &[]).unwrap();
    config.client.insecure = true;
}

impl House {
    fn client_of(&mut self, tenant: &str, slot: u32) -> Who {
        let who = self.accept(0, slot);
        let upgrade = String::from_utf8_lossy(UPGRADE);
        let upgrade = upgrade.replace("GET /", &format!("GET /t/{tenant}/"));
        self.receive(who, upgrade.as_bytes());
        self.go();
        assert!(std::mem::take(&mut self.wire(who).came).starts_with(b"HTTP/1.1 101"));
        self.say(who, &[json!({ "id": 1, "connect": {} })]);
        self.go();
        assert_eq!(ids(&self.heard(who)), [1]);
        who
    }

    /// Clients of a tenant that are subscribed to a channel.
    fn subscribers_of(&mut self, tenant: &str, slots: std::ops::Range<u32>) -> Vec<Who> {
        let all: Vec<Who> = slots.map(|slot| self.client_of(tenant, slot)).collect();
        for &who in &all {
            self.say(who, &[subscribe(2, "a")]);
        }
        self.go();
        for &who in &all {
            assert_eq!(ids(&self.heard(who)), [2]);
        }
        all
    }

    /// What somebody says is taken in; what comes of it waits.
    fn take_in(&mut self, who: Who, commands: &[Value]) {
        self.say(who, commands);
        self.shards[0].handle_mesh(self.now);
    }

    /// How many slices are sent until the client has heard something.
    fn slices_until_heard(&mut self, who: Who) -> usize {
        for slices in 1..1000 {
            self.take_part(0, SENDS);
            if !published(&self.heard(who)).is_empty() {
                return slices;
            }
            self.shards[0].handle_mesh(self.now);
        }
        panic!("it never comes");
    }
}

/// The house with a crowd of one tenant, and one subscriber of another one; a publisher of each.
fn crowded(count: u32) -> (House, Vec<Who>, Who, Who) {
    let mut house = House::with(build(1), |config| tenants(config, ""));
    let crowd = house.subscribers_of("noisy", 0..count);
    let quiet = house.subscribers_of("quiet", count..count + 1)[0];
    let noisy = house.client_of("noisy", count + 1);
    (house, crowd, quiet, noisy)
}

#[test]
fn a_publication_is_out_within_two_slices_whatever_another_tenant_has_waiting() {
    let (mut house, crowd, quiet, noisy) = crowded(MANY);
    house.take_in(noisy, &[publish(5, "a", 1)]);
    house.take_part(0, SENDS);
    house.take_in(quiet, &[publish(5, "a", 7)]);
    assert!(house.slices_until_heard(quiet) <= 2);
    // And again with more of it, while the crowd has not had the first.
    for id in 6..30 {
        house.take_in(noisy, &[publish(id, "a", id)]);
    }
    house.take_part(0, SENDS);
    house.take_in(quiet, &[publish(6, "a", 8)]);
    assert!(house.slices_until_heard(quiet) <= 2);
    house.go();
    let wanted: Vec<Value> = std::iter::once(1).chain(6..30).map(Value::from).collect();
    for who in crowd {
        assert_eq!(published(&house.heard(who)), wanted, "each, in order");
    }
}

#[test]
fn runs_of_many_channels_are_not_all_given_before_another_tenants() {
    let mut house = House::with(build(1), |config| tenants(config, ""));
    let crowd = house.subscribers_of("noisy", 0..MANY);
    for &who in &crowd {
        let all: Vec<Value> = (0..20)
            .map(|n| subscribe(10 + n, &format!("c{n}")))
            .collect();
        house.say(who, &all);
    }
    house.go();
    for &who in &crowd {
        house.heard(who);
    }
    let quiet = house.subscribers_of("quiet", MANY..MANY + 1)[0];
    let noisy = house.client_of("noisy", MANY + 1);
    let all: Vec<Value> = (0..20)
        .map(|n| publish(5 + n, &format!("c{n}"), n))
        .collect();
    house.take_in(noisy, &all);
    house.take_part(0, SENDS);
    let given = house.shards[0].counters().deliveries;
    assert!(given < 3 * u64::from(MANY), "{given} of {}", 20 * MANY);
    assert!(
        published(&house.heard(noisy)).is_empty(),
        "it is not subscribed"
    );
    assert!(
        ids(&house.heard(noisy)).is_empty(),
        "its answers wait for its runs"
    );
    house.take_in(quiet, &[publish(5, "a", 7)]);
    assert!(house.slices_until_heard(quiet) <= 2);
    house.go();
    assert_eq!(ids(&house.heard(noisy)), (5..25).collect::<Vec<u64>>());
    for who in crowd {
        let mut heard: Vec<u64> = published(&house.heard(who))
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        heard.sort_unstable();
        assert_eq!(heard, (0..20).collect::<Vec<u64>>());
    }
}

#[test]
fn a_ring_that_one_tenant_has_filled_is_free_for_others_after_a_slice() {
    let (mut house, crowd, quiet, noisy) = crowded(FEW);
    let fill = "x".repeat(20_000);
    let mut sent = 0_u32;
    while !house.shards[0].is_full() {
        sent += 1;
        house.take_in(noisy, &[publish(10 + sent, "a", format!("{sent}{fill}"))]);
    }
    assert!(sent > 10, "the ring is full of them");
    house.take_part(0, SENDS);
    assert!(
        !house.shards[0].is_full(),
        "whoever filled it takes it along"
    );
    assert!(house.shards[0].counters().sends_copied > u64::from(FEW) / 2);
    house.take_in(quiet, &[publish(5, "a", 7)]);
    assert!(house.slices_until_heard(quiet) <= 2);
    house.go();
    for who in crowd {
        let heard = published(&house.heard(who));
        let numbers = heard.iter().map(|text| {
            let text = text.as_str().unwrap().trim_end_matches('x');
            text.parse::<u32>().unwrap()
        });
        assert!(numbers.eq(1..=sent), "nothing is lost, nothing is twice");
    }
    assert_eq!(house.shards[0].backlog_bytes_counted(), (0, 0));
}

#[test]
fn whose_turn_it_is_moves_with_the_shard() -> Result<(), ImageError> {
    let go_on = |moves: bool| -> Result<Vec<usize>, ImageError> {
        let (mut house, crowd, quiet, noisy) = crowded(MANY);
        house.take_in(noisy, &[publish(5, "a", 1), publish(6, "a", 2)]);
        house.take_part(0, SENDS);
        house.take_in(quiet, &[publish(5, "a", 7)]);
        if moves {
            let shard = house.shards.remove(0);
            let image = shard.to_image();
            let (config, key) = (Arc::clone(shard.config()), *shard.key());
            let unmoved: Unmoved = shard.into_unmoved();
            let shard = Shard::from_image(&image, config, &key, unmoved)?;
            house.shards.push(shard);
        }
        let mut heard = Vec::new();
        while house.take_part(0, 1) {
            let all = crowd.iter().chain([&quiet]).enumerate();
            let told: Vec<usize> = all
                .map(|(at, who)| (at, *who))
                .collect::<Vec<_>>()
                .into_iter()
                .filter(|&(_, who)| !std::mem::take(&mut house.wire(who).came).is_empty())
                .map(|(at, _)| at)
                .collect();
            heard.extend(told);
        }
        Ok(heard)
    };
    assert_eq!(go_on(true)?, go_on(false)?);
    Ok(())
}

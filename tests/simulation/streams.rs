//! Where chance comes from: each concern draws from a stream of its own, so that one more draw in one of them shifts nothing in the
//! others, and a seed goes on showing what it shows.

use ringmain::mem::Rng;

/// What draws by itself. The numbers are part of what a seed means.
#[derive(Clone, Copy, Debug)]
pub enum Concern {
    /// What the run is like: shards, clients, options.
    Shape = 1,
    /// How time passes, and what the wall clock is set to.
    Clock = 2,
    /// What sockets do with bytes, by shard; how links are.
    Network = 3,
    /// Which shard runs when, and which sleeps.
    Machine = 4,
    /// Reloads and the drain.
    Operator = 5,
    /// Who acts and who reads in a step.
    Crowd = 6,
    /// What one client does, by client.
    Client = 7,
    /// What one service does, by service.
    Service = 8,
    /// How the log is.
    Log = 9,
    /// How the backend of hooks is.
    Backend = 10,
    /// How the service with the keys of tokens is.
    Keys = 11,
    /// What one poller does, by poller.
    Poller = 12,
    /// How the mesh is.
    Mesh = 13,
    /// When a shard is replaced by its image.
    Image = 14,
}

/// The random numbers of one concern in the run of a seed; `which` tells several of one kind apart.
pub fn stream(seed: u64, concern: Concern, which: u64) -> Rng {
    let of_seed = Rng::new(seed).bits();
    let of_concern = (concern as u64) << 32 | which;
    Rng::new(Rng::new(of_seed ^ of_concern).bits())
}

#[test]
fn streams_of_one_seed_and_of_neighbours_have_nothing_in_common() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..20 {
        for concern in [Concern::Shape, Concern::Clock, Concern::Network] {
            for which in 0..4 {
                let mut rng = stream(seed, concern, which);
                for _ in 0..50 {
                    assert!(seen.insert(rng.bits()), "{seed} {concern:?} {which}");
                }
            }
        }
    }
}

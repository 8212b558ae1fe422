//! Runs of the world, and what is done to its shards in them.

use ringmain::shard::Unmoved;

use super::*;

/// One run. Returns a hash of everything that was sent, and what was seen.
pub fn run(seed: u64) -> (u64, Seen) {
    World::new(seed, false).run()
}

/// The same; the mesh is faulty, and shards wait for each other in vain.
pub fn run_with_faulty_mesh(seed: u64) -> (u64, Seen) {
    World::new(seed, true).run()
}

/// The same as `run`; no shard is replaced by its image.
pub fn run_unmoved(seed: u64) -> (u64, Seen) {
    let mut world = World::new(seed, false);
    world.moves = false;
    world.run()
}

/// Stands in the place of a shard that is between two forms.
fn nobody(config: &Arc<Config>) -> Shard {
    let endpoint = mesh::build(1).remove(0);
    Shard::new(ShardId(0), Mode::Proxy, Arc::clone(config), endpoint, 0)
}

impl World {
    fn run(mut self) -> (u64, Seen) {
        let rounds = 1 + stream(self.seed, Concern::Shape, ROUNDS).below(3);
        for _ in 0..rounds {
            for _ in 0..self.shape.steps / rounds {
                self.step();
            }
            self.rest();
            self.check_rest();
        }
        self.drain();
        self.count();
        (self.hash.finish(), self.truth.counts)
    }

    /// A shard goes on as what its image says of it, without anything else of it where nothing is under way that has no image.
    pub(super) fn replace(&mut self, at: usize) {
        let place = &mut self.shards[at].shard;
        let (image, key) = (place.to_image(), *place.key());
        let config = Arc::clone(place.config());
        let mut unmoved = std::mem::replace(place, nobody(&config)).into_unmoved();
        // Fetched keys would be fetched again, which others than this shard would see.
        let asks_for_keys = !config.client.token.jwks_public_endpoint.is_empty();
        if unmoved.is_idle() && !asks_for_keys {
            unmoved = Unmoved::new(unmoved.into_endpoint(), &config);
            self.truth.count(situation::MOVED_WHOLE);
        }
        match Shard::from_image(&image, config, &key, unmoved) {
            Ok(shard) => *place = shard,
            Err(error) => panic!("the image of shard {at}: {error}"),
        }
        assert!(place.to_image() == image, "shard {at} has lost something");
        self.truth.count("replaced by an image");
    }
}

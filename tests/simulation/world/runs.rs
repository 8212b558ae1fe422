//! Runs of the world, and what is done to its shards in them.

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

    /// A shard goes on as what its image says of it.
    pub(super) fn replace(&mut self, at: usize) {
        let shard = &mut self.shards[at].shard;
        let image = shard.to_image();
        if let Err(error) = shard.restore(&image) {
            panic!("the image of shard {at}: {error}");
        }
        assert!(shard.to_image() == image, "shard {at} has lost something");
        self.truth.count("replaced by an image");
    }
}

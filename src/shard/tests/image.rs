//! A shard and its image.

use super::*;
use crate::image::ImageError;
use crate::mesh::build;
use crate::shard::image::{Moved, Unmoved};

/// A shard goes on as what its image says of it.
pub(super) fn replace(shard: &mut Shard, image: &[u8]) -> Result<(), ImageError> {
    let (config, key) = (Arc::clone(&shard.config), *shard.key());
    let shards = shard.mesh.shards();
    let unmoved = Unmoved::new(build(shards).swap_remove(usize::from(shard.id.0)), &config);
    let mut next = Shard::from_image(image, Arc::clone(&config), &key, unmoved)?;
    std::mem::swap(&mut next.mesh, &mut shard.mesh);
    *shard = next;
    Ok(())
}

#[test]
fn image_that_is_refused_is_no_shard_and_the_own_one_loses_nothing() {
    let mut house = House::with(build(2), |config| {
        config.channels.namespaces = vec![Arc::new(kept("kept", 10))];
    });
    let channel = owned_by(0, 2, "kept:");
    let (reader, publisher) = (house.client(0, 0), house.client(1, 0));
    house.say(reader, &[subscribe(2, &channel)]);
    house.go();
    house.heard(reader);
    let images: Vec<Vec<u8>> = house.shards.iter().map(Shard::to_image).collect();
    let what = "the state of another shard";
    let other = replace(&mut house.shards[0], &images[1]);
    assert_eq!(other, Err(ImageError::Wrong { what }));
    let (config, key) = (Arc::clone(&house.shards[0].config), *house.shards[0].key());
    for end in 0..images[0].len() {
        let cut = Moved::read(&images[0][..end], &config, &key);
        assert!(cut.is_err(), "cut at {end}");
    }
    for n in 1..=3 {
        house.say(publisher, &[publish(10 + n, &channel, n)]);
        house.go();
        for shard in &mut house.shards {
            let image = shard.to_image();
            assert_eq!(replace(shard, &image), Ok(()));
            assert!(shard.to_image() == image);
        }
    }
    let heard = house.heard(reader);
    assert_eq!(published(&heard), [1, 2, 3].map(Value::from));
    assert_eq!(lost(&heard), 0);
}

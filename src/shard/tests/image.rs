//! A shard and its image.

use super::*;
use crate::mem::ImageError;
use crate::mesh::build;

#[test]
fn image_that_is_refused_changes_nothing_and_the_own_one_loses_nothing() {
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
    let other = house.shards[0].restore(&images[1]);
    assert_eq!(other, Err(ImageError::Wrong { what }));
    for end in 0..images[0].len() {
        let cut = house.shards[0].restore(&images[0][..end]);
        assert!(cut.is_err(), "cut at {end}");
    }
    assert!(house.shards[0].to_image() == images[0]);
    for n in 1..=3 {
        house.say(publisher, &[publish(10 + n, &channel, n)]);
        house.go();
        for shard in &mut house.shards {
            let image = shard.to_image();
            assert_eq!(shard.restore(&image), Ok(()));
        }
    }
    let heard = house.heard(reader);
    assert_eq!(published(&heard), [1, 2, 3].map(Value::from));
    assert_eq!(lost(&heard), 0);
}

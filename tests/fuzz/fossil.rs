//! Fossil patches: those that are nearly right, and pairs of payloads of which one is made.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use ringmain::wire::fossil;
use serde_json::Value;

use crate::mutation::{config, near};

/// Bytes that a patch may make.
const BYTES_MAX: usize = 16 * 1024;

/// A field of every vector.
fn field(name: &str) -> Vec<Vec<u8>> {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../vectors/fossil.json")).expect("the vectors");
    let bytes = |vector: &Value| STANDARD.decode(vector[name].as_str()?).ok();
    vectors.iter().filter_map(bytes).collect()
}

static SOURCES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| field("source"));
static TARGETS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| field("target"));
static PATCHES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| field("patch"));

proptest! {
    #![proptest_config(config())]

    #[test]
    fn hostile_patches_keep_every_promise(source in near(&SOURCES), patch in near(&PATCHES)) {
        let target = fossil::apply(&source, &patch, BYTES_MAX);
        prop_assert_eq!(&target, &fossil::apply(&source, &patch, BYTES_MAX));
        if let Ok(target) = target {
            prop_assert!(target.len() <= BYTES_MAX);
        }
    }

    #[test]
    fn patches_of_any_pair_make_their_target(source in near(&SOURCES), target in near(&TARGETS)) {
        if let Some(patch) = fossil::create(&source, &target) {
            prop_assert!(patch.len() < target.len());
            prop_assert!(str::from_utf8(&target).is_err() || str::from_utf8(&patch).is_ok());
            prop_assert_eq!(fossil::apply(&source, &patch, target.len()), Ok(target));
        }
    }

    #[test]
    fn payload_and_what_became_of_it_make_a_patch(target in near(&SOURCES)) {
        for source in SOURCES.iter().step_by(17) {
            if let Some(patch) = fossil::create(source, &target) {
                let made = fossil::apply(source, &patch, target.len());
                prop_assert_eq!(made.as_ref(), Ok(&target));
            }
        }
    }
}

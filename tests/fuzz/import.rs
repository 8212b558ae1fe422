//! Configurations of Centrifugo near valid ones, in every format.

use std::sync::LazyLock;

use proptest::prelude::*;
use ringmain::import::{Format, ImportError, Input, import};

use crate::mutation::{config, near};

fn vector(name: &str) -> Vec<Vec<u8>> {
    let path = format!(
        "{}/tests/vectors/centrifugo-config/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    vec![std::fs::read(path).expect("a vector")]
}

static JSON: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| vector("small-chat.json"));
static YAML: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| vector("large.yaml"));
static TOML: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| vector("cluster-pro.toml"));

/// A report of the same keys each time; what is written is what our loader has read.
fn check(format: Format, bytes: &[u8]) {
    let read = || {
        let imported = import(&Input {
            name: "centrifugo",
            bytes,
            format: Some(format),
            ..Input::default()
        });
        match imported {
            Ok(imported) => (imported.toml, imported.entries),
            Err(error @ ImportError::Refused { .. }) => panic!("{error}"),
            Err(error) => (error.to_string(), Vec::new()),
        }
    };
    assert_eq!(read(), read());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn json_near_a_configuration(bytes in near(&JSON)) {
        check(Format::Json, &bytes);
    }

    #[test]
    fn yaml_near_a_configuration(bytes in near(&YAML)) {
        check(Format::Yaml, &bytes);
    }

    #[test]
    fn toml_near_a_configuration(bytes in near(&TOML)) {
        check(Format::Toml, &bytes);
    }
}

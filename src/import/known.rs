//! Every key that Centrifugo 6 has, and the nearest one to a key that it has not.

use std::collections::BTreeMap;

const LIST: &str = include_str!("known.txt");
/// Longer names have no nearest one: a comparison costs the product of the lengths.
const NAME_BYTES_MAX: usize = 120;

/// What a key takes in Centrifugo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Boolean,
    Integer,
    Duration,
    Text,
    List,
    /// Names and strings: a table, or a list of `{key, value}`.
    Map,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) shape: Shape,
    /// As text; empty where it is zero, empty or off.
    pub(super) default: &'static str,
}

/// All of them by path, where `[]` stands for each member of a list.
pub(super) fn all() -> BTreeMap<String, Known> {
    let mut all = BTreeMap::new();
    let mut tables: Vec<&str> = Vec::new();
    for line in LIST.lines().filter(|line| !line.starts_with('#')) {
        if let Some(heads) = line.strip_prefix('@') {
            tables = heads.split_whitespace().collect();
            continue;
        }
        let mut words = line.split(' ');
        let (Some(name), Some(shape)) = (words.next(), words.next().and_then(shape)) else {
            continue;
        };
        let known = Known {
            shape,
            default: words.next().unwrap_or_default(),
        };
        if tables.is_empty() {
            all.insert(name.to_owned(), known);
        }
        for table in &tables {
            all.insert(format!("{table}.{name}"), known);
        }
    }
    all
}

fn shape(word: &str) -> Option<Shape> {
    Some(match word {
        "boolean" => Shape::Boolean,
        "integer" => Shape::Integer,
        "duration" => Shape::Duration,
        "text" => Shape::Text,
        "list" => Shape::List,
        "map" => Shape::Map,
        _ => return None,
    })
}

/// The known key that looks most like this one: a slip of the pen, the right name in another table, or a name of
/// version 5, which had no tables.
pub(super) fn nearest<'a>(names: impl Iterator<Item = &'a str>, wanted: &str) -> Option<&'a str> {
    const CLOSE: f64 = 0.85;
    if wanted.len() > NAME_BYTES_MAX {
        return None;
    }
    let leaf = wanted.rsplit('.').next().unwrap_or(wanted);
    let flat = format!("_{}", wanted.replace('.', "_"));
    let score = |name: &str| {
        let likeness = strsim::jaro_winkler(name, wanted);
        let same_leaf = name.rsplit('.').next() == Some(leaf);
        let was_flat = flat.len() > 4 && format!("_{}", name.replace('.', "_")).ends_with(&flat);
        likeness + f64::from(u8::from(same_leaf || was_flat))
    };
    names
        .map(|name| (score(name), name))
        .filter(|(score, _)| *score >= CLOSE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_every_line_is_read() {
        let all = all();
        assert!(all.len() > 1_100, "{}", all.len());
        for line in LIST.lines().filter(|line| !line.starts_with(['#', '@'])) {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(
                (2..=3).contains(&words.len()) && shape(words[1]).is_some(),
                "{line}"
            );
        }
        assert_eq!(all["client.channel_limit"].default, "128");
        assert_eq!(all["proxies[].timeout"].shape, Shape::Duration);
        assert_eq!(all["pid_file"].shape, Shape::Text);
    }

    #[test]
    fn nearest_name_is_found_for_slips_other_tables_and_version_5() {
        let all = all();
        let near = |wanted| nearest(all.keys().map(String::as_str), wanted);
        assert_eq!(near("client.chanel_limit"), Some("client.channel_limit"));
        assert_eq!(near("channel_limit"), Some("client.channel_limit"));
        assert_eq!(
            near("token_hmac_secret_key"),
            Some("client.token.hmac_secret_key")
        );
        assert_eq!(near("zzzzqqqq"), None);
    }
}

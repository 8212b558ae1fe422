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

/// The known key that looks most like this one: a slip of the pen, or the right name in another table if only one
/// table has it. What is further fetched is no help.
pub(super) fn nearest<'a>(names: impl Iterator<Item = &'a str>, wanted: &str) -> Option<&'a str> {
    if wanted.len() > NAME_BYTES_MAX {
        return None;
    }
    let leaf_of = |name: &'a str| name.rsplit('.').next().unwrap_or(name);
    let leaf = wanted.rsplit('.').next().unwrap_or(wanted);
    let far = wanted.len() / 8 + 1;
    let mut best: Option<(usize, &str)> = None;
    let mut same_leaf: Vec<&str> = Vec::new();
    for name in names {
        if leaf_of(name) == leaf && !same_leaf.contains(&name) {
            same_leaf.push(name);
        }
        if name.len().abs_diff(wanted.len()) > far {
            continue;
        }
        let distance = strsim::osa_distance(name, wanted);
        if distance <= far && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    let elsewhere = match same_leaf[..] {
        [one] => Some(one),
        _ => None,
    };
    best.map(|(_, name)| name).or(elsewhere)
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
    fn nearest_name_is_a_slip_or_the_same_name_elsewhere() {
        let all = all();
        let near = |wanted| nearest(all.keys().map(String::as_str), wanted);
        assert_eq!(near("client.chanel_limit"), Some("client.channel_limit"));
        assert_eq!(near("channel_limit"), Some("client.channel_limit"));
        for wanted in ["port", "address", "enabled", "client.enabled", "zzzzqqqq"] {
            assert_eq!(near(wanted), None, "{wanted}");
        }
    }
}

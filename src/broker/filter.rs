//! Tags filter: which publications a subscriber gets (`spec/centrifuge.md` §4.10).

mod image;

use std::cmp::Ordering;

use crate::limits::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_NODES_MAX};
use crate::model::FilterNode;
use crate::wire::decimal::Decimal;

/// A filter that was checked. Two that are written alike are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Predicate);

/// Why a filter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// `op` is none of the known.
    #[error("unknown operation")]
    UnknownOperation,
    /// `cmp` is none of the known.
    #[error("unknown comparison")]
    UnknownComparison,
    /// A leaf without `key` or `cmp`.
    #[error("a leaf names a tag and a comparison")]
    IncompleteLeaf,
    /// Operands that the comparison does not take, or too few of them.
    #[error("the operands do not fit the comparison")]
    Operands,
    /// Children of a leaf, none of `and` or `or`, not exactly one of `not`.
    #[error("the children do not fit the operation")]
    Children,
    /// Over `FILTER_DEPTH_MAX`, `FILTER_NODES_MAX` or `FILTER_BYTES_MAX`.
    #[error("the filter is too large")]
    TooLarge,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Predicate {
    And(Box<[Predicate]>),
    Or(Box<[Predicate]>),
    Not(Box<Predicate>),
    Leaf(Box<str>, Test),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// Is there a tag?
    Present(bool),
    /// Is it equal?
    Equal(bool, Box<str>),
    /// Is it one of these? Sorted.
    OneOf(bool, Box<[Box<str>]>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    /// How the tag may compare with the operand; `None` for an operand that is no number.
    Number([Option<Ordering>; 2], Option<Decimal>),
}

/// What a filter may still have.
struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Filter {
    /// Checks what a client sent.
    ///
    /// # Errors
    /// See `FilterError`; the client gets ERROR 107 for each.
    pub fn new(sent: &FilterNode) -> Result<Self, FilterError> {
        let mut budget = Budget {
            nodes: FILTER_NODES_MAX,
            bytes: FILTER_BYTES_MAX,
        };
        budget.node(sent, FILTER_DEPTH_MAX).map(Self)
    }

    /// Does a publication with these tags pass? Of two tags with one key the later counts.
    #[must_use]
    pub fn passes(&self, tags: &[(Box<str>, Box<str>)]) -> bool {
        self.0.passes(tags)
    }
}

impl Budget {
    fn node(&mut self, sent: &FilterNode, levels: usize) -> Result<Predicate, FilterError> {
        let large = FilterError::TooLarge;
        let levels = levels.checked_sub(1).ok_or(large)?;
        self.nodes = self.nodes.checked_sub(1).ok_or(large)?;
        let operands = sent.vals.iter().map(|val| val.len() + 1).sum::<usize>();
        let bytes = sent.key.len() + sent.val.len() + operands;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(large)?;
        if sent.op.is_empty() {
            return leaf(sent);
        }
        let many = |budget: &mut Self| -> Result<Box<[Predicate]>, FilterError> {
            if sent.nodes.is_empty() {
                return Err(FilterError::Children);
            }
            let nodes = sent.nodes.iter();
            nodes.map(|node| budget.node(node, levels)).collect()
        };
        match (&*sent.op, &sent.nodes[..]) {
            ("and", _) => many(self).map(Predicate::And),
            ("or", _) => many(self).map(Predicate::Or),
            ("not", [one]) => Ok(Predicate::Not(Box::new(self.node(one, levels)?))),
            ("not", _) => Err(FilterError::Children),
            _ => Err(FilterError::UnknownOperation),
        }
    }
}

fn leaf(sent: &FilterNode) -> Result<Predicate, FilterError> {
    if !sent.nodes.is_empty() {
        return Err(FilterError::Children);
    }
    if sent.key.is_empty() || sent.cmp.is_empty() {
        return Err(FilterError::IncompleteLeaf);
    }
    let val = || sent.val.clone();
    let number = |orders| Test::Number(orders, Decimal::plain(&sent.val));
    let (less, equal, greater) = (
        Some(Ordering::Less),
        Some(Ordering::Equal),
        Some(Ordering::Greater),
    );
    let test = match &*sent.cmp {
        "eq" => Test::Equal(true, val()),
        "neq" => Test::Equal(false, val()),
        "in" => Test::OneOf(true, sorted(&sent.vals)),
        "nin" => Test::OneOf(false, sorted(&sent.vals)),
        "ex" => Test::Present(true),
        "nex" => Test::Present(false),
        "sw" => Test::StartsWith(val()),
        "ew" => Test::EndsWith(val()),
        "ct" => Test::Contains(val()),
        "lt" => number([less, less]),
        "lte" => number([less, equal]),
        "gt" => number([greater, greater]),
        "gte" => number([greater, equal]),
        _ => return Err(FilterError::UnknownComparison),
    };
    let fits = match &test {
        Test::Present(_) => sent.val.is_empty() && sent.vals.is_empty(),
        Test::OneOf(..) => sent.val.is_empty() && !sent.vals.is_empty(),
        _ => sent.vals.is_empty(),
    };
    if !fits {
        return Err(FilterError::Operands);
    }
    Ok(Predicate::Leaf(sent.key.clone(), test))
}

fn sorted(vals: &[Box<str>]) -> Box<[Box<str>]> {
    let mut vals = vals.to_vec();
    vals.sort_unstable();
    vals.dedup();
    vals.into_boxed_slice()
}

impl Predicate {
    fn passes(&self, tags: &[(Box<str>, Box<str>)]) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.passes(tags)),
            Self::Or(nodes) => nodes.iter().any(|node| node.passes(tags)),
            Self::Not(node) => !node.passes(tags),
            Self::Leaf(key, test) => {
                let tag = tags.iter().rev().find(|(name, _)| name == key);
                test.passes(tag.map(|(_, value)| &**value))
            }
        }
    }
}

impl Test {
    fn passes(&self, tag: Option<&str>) -> bool {
        match self {
            Self::Present(wanted) => tag.is_some() == *wanted,
            Self::Equal(wanted, value) => (tag == Some(value)) == *wanted,
            // A missing tag is looked up as an empty one for `in`, and is never found for `nin`.
            Self::OneOf(true, values) => has(values, tag.unwrap_or("")),
            Self::OneOf(false, values) => !tag.is_some_and(|tag| has(values, tag)),
            Self::StartsWith(value) => tag.is_some_and(|tag| tag.starts_with(&**value)),
            Self::EndsWith(value) => tag.is_some_and(|tag| tag.ends_with(&**value)),
            Self::Contains(value) => tag.is_some_and(|tag| tag.contains(&**value)),
            Self::Number(orders, operand) => {
                let number = tag.and_then(Decimal::plain);
                let order = number
                    .zip(operand.as_ref())
                    .map(|(number, operand)| number.order(operand));
                order.is_some() && orders.contains(&order)
            }
        }
    }
}

fn has(sorted: &[Box<str>], value: &str) -> bool {
    sorted
        .binary_search_by(|entry| (**entry).cmp(value))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(key: &str, cmp: &str, val: &str, vals: &[&str]) -> FilterNode {
        FilterNode {
            key: key.into(),
            cmp: cmp.into(),
            val: val.into(),
            vals: vals.iter().map(|&val| val.into()).collect(),
            ..FilterNode::default()
        }
    }

    fn branch(op: &str, nodes: &[FilterNode]) -> FilterNode {
        FilterNode {
            op: op.into(),
            nodes: nodes.to_vec(),
            ..FilterNode::default()
        }
    }

    fn tags(tags: &[(&str, &str)]) -> Vec<(Box<str>, Box<str>)> {
        let boxed = |&(key, value): &(&str, &str)| (key.into(), value.into());
        tags.iter().map(boxed).collect()
    }

    /// Tag `a` is `value`, or missing.
    fn passes(sent: &FilterNode, value: Option<&str>) -> bool {
        let list = value.map_or_else(Vec::new, |value| tags(&[("b", "x"), ("a", value)]));
        Filter::new(sent).unwrap().passes(&list)
    }

    #[test]
    fn strings_are_compared_as_the_protocol_says() {
        for (cmp, val, tag, wanted) in [
            ("eq", "x", Some("x"), true),
            ("eq", "x", Some("y"), false),
            ("eq", "", None, false),
            ("neq", "x", Some("x"), false),
            ("neq", "x", Some("y"), true),
            ("neq", "x", None, true),
            ("sw", "ab", Some("abc"), true),
            ("sw", "bc", Some("abc"), false),
            ("sw", "", None, false),
            ("ew", "bc", Some("abc"), true),
            ("ew", "ab", Some("abc"), false),
            ("ct", "b", Some("abc"), true),
            ("ct", "d", Some("abc"), false),
            ("ex", "", Some(""), true),
            ("ex", "", None, false),
            ("nex", "", Some(""), false),
            ("nex", "", None, true),
        ] {
            assert_eq!(
                passes(&leaf("a", cmp, val, &[]), tag),
                wanted,
                "{cmp} {val} {tag:?}"
            );
        }
    }

    #[test]
    fn lists_take_a_missing_tag_as_the_protocol_says() {
        for (cmp, vals, tag, wanted) in [
            ("in", &["x", "y"][..], Some("y"), true),
            ("in", &["y", "x"], Some("z"), false),
            ("in", &["x", ""], None, true),
            ("in", &["x"], None, false),
            ("nin", &["x", "y"], Some("y"), false),
            ("nin", &["x", "y"], Some("z"), true),
            ("nin", &["x", ""], None, true),
        ] {
            assert_eq!(
                passes(&leaf("a", cmp, "", vals), tag),
                wanted,
                "{cmp} {vals:?} {tag:?}"
            );
        }
    }

    #[test]
    fn numbers_are_compared_exactly_at_any_length() {
        let ascending = [
            "-100000000000000000000000000000000.1",
            "-100000000000000000000000000000000",
            "-2",
            "-1.5",
            "0",
            "0.1",
            ".10000000000000000000000000000000000000001",
            "1",
            "9.99",
            "10",
            "9007199254740992",
            "9007199254740993",
        ];
        for (at, low) in ascending.iter().enumerate() {
            for (other, high) in ascending.iter().enumerate() {
                for (cmp, wanted) in [
                    ("lt", at < other),
                    ("lte", at <= other),
                    ("gt", at > other),
                    ("gte", at >= other),
                ] {
                    assert_eq!(
                        passes(&leaf("a", cmp, high, &[]), Some(low)),
                        wanted,
                        "{low} {cmp} {high}"
                    );
                }
            }
        }
        for (one, other) in [("007", "7.0"), ("-0", "+0.00"), (".5", "0.50"), ("3.", "3")] {
            assert!(
                passes(&leaf("a", "gte", one, &[]), Some(other)),
                "{one} {other}"
            );
            assert!(
                !passes(&leaf("a", "gt", one, &[]), Some(other)),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn what_is_no_number_compares_false() {
        for text in [
            "", "-", "+", ".", "1e3", "1_000", " 1", "0x1", "NaN", "--1", "1.2.3", "\u{661}",
        ] {
            for cmp in ["lt", "lte", "gt", "gte"] {
                assert!(!passes(&leaf("a", cmp, text, &[]), Some("1")), "{text}");
                assert!(!passes(&leaf("a", cmp, "1", &[]), Some(text)), "{text}");
            }
        }
        assert!(!passes(&leaf("a", "lt", "1", &[]), None));
    }

    #[test]
    fn branches_combine_their_children() {
        let x = leaf("a", "eq", "x", &[]);
        let has_b = leaf("b", "ex", "", &[]);
        let both = Filter::new(&branch("and", &[x.clone(), has_b.clone()])).unwrap();
        let either = Filter::new(&branch("or", &[x.clone(), has_b])).unwrap();
        let other = Filter::new(&branch("not", &[x])).unwrap();
        for (list, and, or, not) in [
            (tags(&[("a", "x"), ("b", "")]), true, true, false),
            (tags(&[("a", "x")]), false, true, false),
            (tags(&[("b", "")]), false, true, true),
            (tags(&[]), false, false, true),
        ] {
            assert_eq!(
                [
                    both.passes(&list),
                    either.passes(&list),
                    other.passes(&list)
                ],
                [and, or, not]
            );
        }
    }

    #[test]
    fn malformed_filters_are_refused_each_for_its_reason() {
        use FilterError as Why;
        let fine = leaf("a", "eq", "x", &[]);
        for (sent, why) in [
            (
                branch("xor", std::slice::from_ref(&fine)),
                Why::UnknownOperation,
            ),
            (
                branch("AND", std::slice::from_ref(&fine)),
                Why::UnknownOperation,
            ),
            (leaf("a", "like", "x", &[]), Why::UnknownComparison),
            (leaf("", "eq", "x", &[]), Why::IncompleteLeaf),
            (leaf("a", "", "x", &[]), Why::IncompleteLeaf),
            (FilterNode::default(), Why::IncompleteLeaf),
            (leaf("a", "eq", "x", &["y"]), Why::Operands),
            (leaf("a", "eq", "", &["y"]), Why::Operands),
            (leaf("a", "in", "", &[]), Why::Operands),
            (leaf("a", "nin", "x", &["y"]), Why::Operands),
            (leaf("a", "ex", "x", &[]), Why::Operands),
            (leaf("a", "nex", "", &["x"]), Why::Operands),
            (branch("and", &[]), Why::Children),
            (branch("or", &[]), Why::Children),
            (branch("not", &[]), Why::Children),
            (branch("not", &[fine.clone(), fine.clone()]), Why::Children),
            (
                FilterNode {
                    nodes: vec![fine.clone()],
                    ..fine.clone()
                },
                Why::Children,
            ),
            (
                branch("and", &[leaf("a", "", "", &[])]),
                Why::IncompleteLeaf,
            ),
        ] {
            assert_eq!(Filter::new(&sent), Err(why), "{sent:?}");
        }
    }

    #[test]
    fn filters_over_a_bound_are_refused() {
        let fine = leaf("a", "eq", "x", &[]);
        let deep = |levels: usize| (1..levels).fold(fine.clone(), |node, _| branch("not", &[node]));
        assert!(Filter::new(&deep(FILTER_DEPTH_MAX)).is_ok());
        assert_eq!(
            Filter::new(&deep(FILTER_DEPTH_MAX + 1)),
            Err(FilterError::TooLarge)
        );
        let wide = |nodes: usize| branch("or", &vec![fine.clone(); nodes - 1]);
        assert!(Filter::new(&wide(FILTER_NODES_MAX)).is_ok());
        assert_eq!(
            Filter::new(&wide(FILTER_NODES_MAX + 1)),
            Err(FilterError::TooLarge)
        );
        let long = |bytes: usize| leaf("a", "eq", &"x".repeat(bytes - 1), &[]);
        assert!(Filter::new(&long(FILTER_BYTES_MAX)).is_ok());
        assert_eq!(
            Filter::new(&long(FILTER_BYTES_MAX + 1)),
            Err(FilterError::TooLarge)
        );
    }

    #[test]
    fn filters_that_mean_the_same_list_are_one() {
        let one = Filter::new(&leaf("a", "in", "", &["x", "y", "x"]));
        assert_eq!(one, Filter::new(&leaf("a", "in", "", &["y", "x"])));
        assert_ne!(one, Filter::new(&leaf("a", "nin", "", &["y", "x"])));
    }

    proptest! {
        #[test]
        fn whole_numbers_compare_as_numbers_do(a: i64, b: i64, zeros in 0_usize..4) {
            let text = |n: i64| {
                let sign = if n < 0 { "-" } else { "" };
                format!("{sign}{}{}.{}", "0".repeat(zeros), n.unsigned_abs(), "0".repeat(zeros))
            };
            prop_assert_eq!(passes(&leaf("a", "lt", &text(b), &[]), Some(&text(a))), a < b);
            prop_assert_eq!(passes(&leaf("a", "gte", &text(b), &[]), Some(&text(a))), a >= b);
        }
    }
}

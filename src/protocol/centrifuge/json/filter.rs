//! Tags filters (`spec/centrifuge.md` §4.10) as clients write them.

use std::borrow::Cow;

use serde::de::{Error, MapAccess};

use crate::limits::FILTER_DEPTH_MAX;
use crate::model::FilterNode;
use crate::wire::json::{Object, Part, Value, value};

/// `None` for `null`. The JSON reader bounds how deep it may recurse, this the depth of what is kept.
impl<'de> Value<'de> for Option<Box<FilterNode>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        match value::<Option<FilterDraft>, A>(map)? {
            None => Ok(None),
            Some(FilterDraft(node)) if fits(&node, FILTER_DEPTH_MAX) => Ok(Some(Box::new(node))),
            Some(_) => Err(A::Error::custom(": expected a filter of fewer levels")),
        }
    }
}

fn fits(node: &FilterNode, levels: usize) -> bool {
    levels > 0 && node.nodes.iter().all(|node| fits(node, levels - 1))
}

#[derive(Default)]
struct FilterDraft(FilterNode);

impl<'de> Object<'de> for FilterDraft {
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        let node = &mut self.0;
        match name {
            "op" => node.op = text(map)?,
            "key" => node.key = text(map)?,
            "cmp" => node.cmp = text(map)?,
            "val" => node.val = text(map)?,
            "vals" => {
                let vals: Vec<Cow<'de, str>> = value(map)?;
                node.vals = vals.into_iter().map(Into::into).collect();
            }
            "nodes" => {
                let nodes: Option<Vec<Part<Self>>> = map.next_value()?;
                let node_of = |Part(node): Part<Self>| node.unwrap_or_default().0;
                node.nodes = nodes.unwrap_or_default().into_iter().map(node_of).collect();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Box<str>, A::Error> {
    Ok(value::<Cow<'de, str>, A>(map)?.into())
}

//! A filter as bytes.

use super::{Filter, Predicate, Test};
use crate::image::{Image, ImageError, ImageReader, ImageWriter, image};
use crate::limits::FILTER_DEPTH_MAX;
use crate::wire::decimal::Decimal;

image!(enum Test {
    0 => Present(wanted),
    1 => Equal(wanted, value),
    2 => OneOf(wanted, values),
    3 => StartsWith(value),
    4 => EndsWith(value),
    5 => Contains(value),
    6 => Number(orders, operand),
});

impl Image for Filter {
    fn write(&self, out: &mut ImageWriter) {
        let Self(node) = self;
        node.write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Predicate::read(from, FILTER_DEPTH_MAX).map(Self)
    }
}

const AND: u8 = 0;
const OR: u8 = 1;
const NOT: u8 = 2;
const LEAF: u8 = 3;

impl Predicate {
    fn write(&self, out: &mut ImageWriter) {
        let (kind, nodes) = match self {
            Self::And(nodes) => (AND, &**nodes),
            Self::Or(nodes) => (OR, &**nodes),
            Self::Not(node) => (NOT, std::slice::from_ref(&**node)),
            Self::Leaf(key, test) => {
                LEAF.write(out);
                key.write(out);
                test.write(out);
                return;
            }
        };
        kind.write(out);
        out.length(nodes.len());
        for node in nodes {
            node.write(out);
        }
    }

    /// A node with at most so many levels.
    fn read(from: &mut ImageReader<'_>, levels: usize) -> Result<Self, ImageError> {
        const WRONG: ImageError = ImageError::Wrong { what: "a filter" };
        let levels = levels.checked_sub(1).ok_or(WRONG)?;
        let kind = u8::read(from)?;
        if kind == LEAF {
            return Ok(Self::Leaf(Image::read(from)?, Image::read(from)?));
        }
        let mut nodes = Vec::new();
        for _ in 0..from.length()? {
            nodes.push(Self::read(from, levels)?);
        }
        match kind {
            AND => Ok(Self::And(nodes.into())),
            OR => Ok(Self::Or(nodes.into())),
            NOT if nodes.len() == 1 => nodes.pop().map(Box::new).map(Self::Not).ok_or(WRONG),
            _ => Err(WRONG),
        }
    }
}

impl Image for Decimal {
    fn write(&self, out: &mut ImageWriter) {
        self.to_plain().write(out);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        Self::plain(&String::read(from)?).ok_or(ImageError::Wrong { what: "a number" })
    }
}

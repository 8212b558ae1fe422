//! YAML, from the parser's events: nothing is built before its depth, its size and what an alias stands for are paid.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::{Budget, Table, Value, check_depth, insert, plain};

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    /// What each anchor that is complete stands for.
    anchors: BTreeMap<usize, Value>,
    budget: Budget,
}

/// Reads the first document; a second one is refused, as it would be lost.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        budget: Budget::new(),
    };
    let mut document = None;
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(document.unwrap_or(Value::Null)),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if document.is_some() => return Err("more than one document".to_owned()),
            event => document = Some(reader.value(event, 0)?),
        }
    }
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.events.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(message(&error)),
            None => Err("the document ends early".to_owned()),
        }
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, String> {
        check_depth(depth)?;
        let (value, anchor) = match event {
            Event::Alias(anchor) => {
                let value = self
                    .anchors
                    .get(&anchor)
                    .ok_or("an alias stands within what it stands for")?;
                self.budget.spend_copy(value, depth)?;
                return Ok(value.clone());
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.spend(text.len())?;
                let is_text = style != ScalarStyle::Plain || names_text(tag.as_deref());
                let value = if is_text {
                    Value::Text(text.into_owned())
                } else {
                    plain(&text)
                };
                (value, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                self.budget.spend(0)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, _) => {
                self.budget.spend(0)?;
                (self.table(depth)?, anchor)
            }
            _ => return Err("a value is missing".to_owned()),
        };
        if anchor > 0 {
            self.budget.spend_copy(&value, depth)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        let mut values = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::List(values)),
                event => values.push(self.value(event, depth + 1)?),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Value, String> {
        let mut table = Table::new();
        let mut merged = Vec::new();
        loop {
            let (key, merges) = match self.next()? {
                Event::MappingEnd => break,
                Event::Scalar(text, style, _, _) => {
                    let merges = text == "<<" && style == ScalarStyle::Plain;
                    (text.into_owned(), merges)
                }
                _ => return Err("a key that is not a string".to_owned()),
            };
            self.budget.spend(key.len())?;
            let event = self.next()?;
            let value = self.value(event, depth + 1)?;
            match value {
                Value::List(tables) if merges => merged.extend(tables),
                value if merges => merged.push(value),
                value => insert(&mut table, &key, value)?,
            }
        }
        // What is written here goes over what is merged, and the first merged table over the later ones.
        for value in merged {
            let Value::Table(under) = value else {
                return Err("`<<` takes a table or a list of tables".to_owned());
            };
            for (key, value) in under {
                table.entry(key).or_insert(value);
            }
        }
        Ok(Value::Table(table))
    }
}

fn names_text(tag: Option<&Tag>) -> bool {
    tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str" || tag.handle == "!")
}

/// Where and what, without the text, which may be a secret.
fn message(error: &ScanError) -> String {
    format!("line {}: {}", error.marker().line(), error.info())
}

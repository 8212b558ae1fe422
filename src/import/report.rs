//! What a person is told. Keys, kinds and reasons; never a value, as it may be a secret.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Entry, Fate, Reason, variable_of};
use crate::config::ConfigErrors;

/// The first lines of the file.
pub(super) fn head(name: &str) -> String {
    let from = match name.rsplit('/').next() {
        None | Some("") => "environment variables".to_owned(),
        Some(name) => name.replace(|c: char| c.is_control(), " "),
    };
    format!(
        "# Made from {from} by `ringmain import-centrifugo`. `ringmain check` shows all keys with their values.\n"
    )
}

/// Everything that is not carried over, by reason.
pub(super) fn text(entries: &[Entry]) -> String {
    let mut out = String::new();
    let mut reasons: Vec<(&Reason, Vec<&Entry>)> = Vec::new();
    for entry in entries {
        let (Fate::Lost(reason) | Fate::Partly { reason, .. }) = &entry.fate else {
            continue;
        };
        match reasons.iter_mut().find(|(one, _)| one == reason) {
            Some((_, under)) => under.push(entry),
            None => reasons.push((reason, vec![entry])),
        }
    }
    if !reasons.is_empty() {
        line(&mut out, "No equivalent:");
    }
    for (reason, under) in reasons {
        for entry in under {
            keys(&mut out, entry);
        }
        line(&mut out, &format!("    why: {}", reason.why));
        if !reason.instead.is_empty() {
            line(&mut out, &format!("    instead: {}", reason.instead));
        }
    }
    let mut heading = "Unknown to Centrifugo 6 and to ringmain:";
    for entry in entries {
        let Fate::Unknown(nearest) = &entry.fate else {
            continue;
        };
        if !heading.is_empty() {
            line(&mut out, heading);
            heading = "";
        }
        keys(&mut out, entry);
        if let Some(nearest) = nearest {
            line(&mut out, &format!("    did you mean {nearest}?"));
        }
    }
    let mut heading = "Nothing to carry over:";
    for entry in entries {
        let Fate::Needless(why) = &entry.fate else {
            continue;
        };
        if !heading.is_empty() {
            line(&mut out, heading);
            heading = "";
        }
        line(&mut out, &format!("  {}: {why}", name(entry)));
    }
    out
}

/// What our loader refuses, with the key of the input that it comes from.
pub(super) fn refused(
    errors: &ConfigErrors,
    origins: &[(String, String)],
    variables: &BTreeMap<String, String>,
) -> Vec<String> {
    let lines = errors.0.iter().map(|error| {
        let from = error.key().and_then(|key| origin(origins, key));
        let Some(from) = from else {
            return format!("  {error}");
        };
        match variable_of(variables, from) {
            Some(variable) => format!("  {from} ({variable}): {error}"),
            None => format!("  {from}: {error}"),
        }
    });
    lines.collect()
}

/// The key of the input behind a key of ours: of the key itself, else of a table or list that it is in.
fn origin<'a>(origins: &'a [(String, String)], key: &str) -> Option<&'a str> {
    let exact = origins.iter().rev().find(|(ours, _)| ours == key);
    if let Some((_, from)) = exact {
        return Some(from);
    }
    let above = &key[..key.rfind(['.', '['])?];
    origin(origins, above)
}

fn name(entry: &Entry) -> String {
    let path = entry.path.replace(|c: char| c.is_control(), "?");
    match &entry.variable {
        Some(variable) if *variable != entry.path => format!("{path} ({variable})"),
        _ => path,
    }
}

fn keys(out: &mut String, entry: &Entry) {
    line(out, &format!("  {}, {}", name(entry), entry.kind));
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

//! What a person is told. Keys, kinds and reasons; never a value, as it may be a secret.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Entry, Fate, Reason, Version, variable_of};
use crate::config::ConfigErrors;

/// The first lines of the file.
pub(super) fn head(name: &str, version: Version) -> String {
    let from = match name.rsplit('/').next() {
        None | Some("") => "environment variables".to_owned(),
        Some(name) => name.replace(|c: char| c.is_control(), " "),
    };
    let of = match version {
        Version::Six => String::new(),
        older => format!(", of Centrifugo {older}"),
    };
    format!(
        "# Made from {from}{of} by `ringmain import-centrifugo`. `ringmain check` shows all keys with their values.\n"
    )
}

/// Everything that is not carried over as it is, by reason.
pub(super) fn text(entries: &[Entry], version: Version, verbose: bool) -> String {
    let mut out = String::new();
    if version != Version::Six {
        line(
            &mut out,
            &format!(
                "Read as a configuration of Centrifugo {version}; names of the input are those of that version."
            ),
        );
    }
    refusals(&mut out, entries);
    losses(&mut out, entries);
    section(
        &mut out,
        "Unknown to Centrifugo and to ringmain:",
        entries,
        |entry| {
            let Fate::Unknown(nearest) = &entry.fate else {
                return None;
            };
            let nearest = nearest
                .as_ref()
                .map(|near| format!("; did you mean {near}?"));
            Some(format!("{}{}", entry.kind, nearest.unwrap_or_default()))
        },
    );
    section(&mut out, "Somewhere else:", entries, |entry| {
        match &entry.fate {
            Fate::Moved(where_to) => Some((*where_to).to_owned()),
            _ => None,
        }
    });
    section(
        &mut out,
        "Nothing to carry over:",
        entries,
        |entry| match &entry.fate {
            Fate::Needless(why) => Some(why.clone()),
            Fate::Default if verbose => Some("off, empty, or the default".to_owned()),
            _ => None,
        },
    );
    let defaults = entries.iter().filter(|entry| entry.fate == Fate::Default);
    let count = defaults.count();
    if count > 0 && !verbose && !out.is_empty() {
        line(
            &mut out,
            &format!(
                "{count} keys are off, empty, or at a default that both share; --verbose names them."
            ),
        );
    }
    out
}

/// Lines for those entries that have something to say.
fn section(
    out: &mut String,
    heading: &str,
    entries: &[Entry],
    say: impl Fn(&Entry) -> Option<String>,
) {
    let mut is_first = true;
    for entry in entries {
        if let Some(text) = say(entry) {
            if std::mem::take(&mut is_first) {
                line(out, heading);
            }
            line(out, &format!("  {}: {text}", name(entry)));
        }
    }
}

fn refusals(out: &mut String, entries: &[Entry]) {
    section(
        out,
        "Refused by ringmain, and left out:",
        entries,
        |entry| match &entry.fate {
            Fate::Refused(why) => Some(why.clone()),
            _ => None,
        },
    );
}

fn losses(out: &mut String, entries: &[Entry]) {
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
        line(out, "No equivalent:");
    }
    for (reason, under) in reasons {
        for entry in under {
            line(out, &format!("  {}, {}", name(entry), entry.kind));
        }
        line(out, &format!("    why: {}", reason.why));
        if !reason.instead.is_empty() {
            line(out, &format!("    instead: {}", reason.instead));
        }
    }
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
    let label = entry.label.replace(|c: char| c.is_control(), "?");
    match &entry.variable {
        Some(variable) if *variable != entry.path => format!("{label} ({variable})"),
        _ => label,
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

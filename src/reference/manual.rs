//! The keys of the configuration file as a page of section 5 for `man`.

use std::fmt::Write as _;

use super::meanings;
use crate::config::{self, KeyKind};

/// `ringmain.toml(5)`, in the language of `man`.
#[must_use]
pub fn manual(version: &str) -> String {
    let mut out = format!(
        ".TH \"ringmain.toml\" \"5\" \"\" \"{}\" \"ringmain\"\n.ad l\n.nh\n\
         .SH NAME\nringmain.toml \\- configuration of the ringmain realtime edge proxy\n\
         .SH DESCRIPTION\nA file in TOML, named by \\fB\\-\\-config\\fR or \\fBRINGMAIN_CONFIG\\fR. \
         A variable such as \\fBRINGMAIN__SERVER__LISTEN\\fR goes over a key, and an option of the command line over both. \
         \\fBringmain check\\fR prints what is in force. \
         In the names below \\fB[]\\fR stands for each table of a list.\n\
         .SH KEYS\n",
        text(version)
    );
    let meanings = meanings::all();
    for key in config::keys() {
        let default = match key.kind {
            KeyKind::Secret | KeyKind::Secrets => "none".to_owned(),
            _ => key.default.clone(),
        };
        let reload = if config::is_fixed_at_start(&key.path) {
            "needs a restart"
        } else {
            "taken by a reload"
        };
        writeln!(
            out,
            ".TP\n\\fB{}\\fR\n{}; default: {}; {reload}.\n.br\n{}",
            // A long one may end a line behind a dot.
            text(&key.path).replace('.', ".\\:"),
            line(&key.takes),
            line(&default),
            line(meanings.of(&key.path).unwrap_or_default()),
        )
        .expect("a String takes every write");
    }
    out.push_str(".SH SEE ALSO\n\\fBringmain\\fR(1), \\fBringmain\\-check\\fR(1)\n");
    out
}

/// Without what means something to `man`.
fn text(plain: &str) -> String {
    plain
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\n', " ")
}

/// The same where a line begins: a dot or an apostrophe would be a command there.
fn line(plain: &str) -> String {
    let text = text(plain.trim());
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_taken_for_a_command() {
        assert_eq!(line(".hidden"), "\\&.hidden");
        assert_eq!(line("a\\b - c\n.TH"), "a\\eb \\- c .TH");
        let commands = [".TH ", ".SH ", ".TP", ".br", ".ad l", ".nh"];
        for line in manual("x").lines().filter(|line| line.starts_with('.')) {
            assert!(commands.iter().any(|one| line.starts_with(one)), "{line}");
        }
    }
}

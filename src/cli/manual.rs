//! Pages for `man` and completions for shells, made of the same definitions as the command line and the reference.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;
use ringmain::reference;

use super::Cli;

/// A page: the name of its file, and its text.
type Page = (String, Vec<u8>);

/// What is in no command.
const MORE: &str = "SEE ALSO";

/// The page of the configuration file.
const CONFIGURATION: &str = "ringmain.toml.5";

/// All pages: one for each command, and one for the configuration file.
pub(crate) fn pages() -> io::Result<Vec<Page>> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages)?;
    pages.push((
        CONFIGURATION.to_owned(),
        reference::manual(&version_line()).into_bytes(),
    ));
    Ok(pages)
}

/// One page by the name that `man` knows it by; without a name the page of the program.
pub(crate) fn page(name: Option<&str>) -> io::Result<Option<Vec<u8>>> {
    let name = name.unwrap_or("ringmain");
    let found = pages()?.into_iter().find(|(file, _)| {
        file.rsplit_once('.')
            .is_some_and(|(page, _)| page == name || page.strip_prefix("ringmain-") == Some(name))
    });
    Ok(found.map(|(_, page)| page))
}

/// Writes all pages; how many there are.
pub(crate) fn write(directory: &Path) -> io::Result<usize> {
    let pages = pages()?;
    std::fs::create_dir_all(directory)?;
    for (name, page) in &pages {
        std::fs::write(directory.join(name), page)?;
    }
    Ok(pages.len())
}

fn version_line() -> String {
    format!("ringmain {}", super::version())
}

fn collect(command: &clap::Command, pages: &mut Vec<Page>) -> io::Result<()> {
    let man = Man::new(command.clone())
        .manual("ringmain")
        .source(version_line());
    let mut page = Vec::new();
    man.render(&mut page)?;
    let more =
        "\\fBringmain.toml\\fR(5), and \\fBringmain help\\fR for the pages of the reference.";
    page.extend_from_slice(format!(".SH \"{MORE}\"\n{more}\n").as_bytes());
    pages.push((man.get_filename(), page));
    for below in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        collect(below, pages)?;
    }
    Ok(())
}

/// The script with which a shell completes this command line.
pub(crate) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ringmain", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_option_is_on_it() {
        let pages = pages().expect("pages");
        let text = |file: &str| {
            let found = pages.iter().find(|(name, _)| name == file);
            let (_, page) = found.unwrap_or_else(|| panic!("no page {file}"));
            String::from_utf8(page.clone())
                .expect("text")
                .replace("\\-", "-")
        };
        fn check(command: &clap::Command, file: &str, text: &dyn Fn(&str) -> String) {
            let page = text(&format!("{file}.1"));
            let options = command.get_arguments().filter(|one| !one.is_hide_set());
            for option in options {
                let name = match option.get_long() {
                    Some(long) => format!("--{long}"),
                    None => option.get_value_names().unwrap_or_default()[0].to_string(),
                };
                assert!(
                    page.contains(&name),
                    "{file} says nothing of {name}:\n{page}"
                );
            }
            for below in command.get_subcommands() {
                let name = format!("{file}-{}", below.get_name());
                assert!(page.contains(&name), "{file} does not name {name}");
                check(below, &name, text);
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&command, "ringmain", &text);
    }

    #[test]
    fn the_page_of_the_configuration_has_every_key() {
        let (_, page) = pages().expect("pages").pop().expect("the last one");
        let page = String::from_utf8(page).expect("text");
        for key in ringmain::config::keys() {
            let name = key.path.replace('-', "\\-").replace('.', ".\\:");
            assert!(page.contains(&format!("\\fB{name}\\fR")), "{name}");
        }
    }

    #[test]
    fn pages_are_found_as_man_and_as_the_command_line_name_them() {
        for name in ["ringmain-dlq-list", "dlq-list", "ringmain.toml"] {
            assert!(page(Some(name)).expect("pages").is_some(), "{name}");
        }
        assert!(page(Some("nonsense")).expect("pages").is_none());
        let (own, first) = (page(None), pages());
        assert_eq!(
            own.expect("a page"),
            Some(first.expect("pages")[0].1.clone())
        );
    }
}

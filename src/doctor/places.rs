//! Files and directories that a configuration names: are they there, and may this process use them?

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::config::durable::Engine;
use crate::config::{Config, ListenAddr};
use crate::uring::socket::group_id;

/// One sentence for each that a start would stumble over. It may yet be made, or started as another user.
#[must_use]
pub fn places(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let server = &config.server;
    let listeners = [
        ("server.listen", &server.listen[..]),
        ("server.internal_listen", &server.internal_listen[..]),
        ("admin.listen", config.admin.listen.as_slice()),
    ];
    for (key, list) in listeners {
        for listen in list {
            if let ListenAddr::Unix(path) = listen
                && let Some(what) = socket(path)
            {
                found.push(format!("{key}: {what}"));
            }
        }
    }
    for (key, group) in [
        ("server.unix_group", &server.unix_group),
        ("admin.unix_group", &config.admin.unix_group),
    ] {
        if !group.is_empty() && group_id(group).is_none() {
            found.push(format!("{key}: this host has no group {group:?}"));
        }
    }
    if config.is_durable() {
        let durable = &config.durable;
        match durable.engine {
            Engine::Embedded => found.extend(log(&durable.embedded.directory)),
            Engine::Nats => {
                for (key, path) in [
                    ("durable.nats.credentials", &durable.nats.credentials),
                    ("durable.nats.tls_ca", &durable.nats.tls_ca),
                ] {
                    if !path.as_os_str().is_empty() && access(path, Access::READ_OK).is_err() {
                        found.push(format!("{key}: {} cannot be read", path.display()));
                    }
                }
            }
        }
    }
    found
}

fn socket(path: &Path) -> Option<String> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Some(if !parent.is_dir() {
        format!("the directory {} is not there", parent.display())
    } else if access(parent, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        format!("this user may not make a socket in {}", parent.display())
    } else if fs::symlink_metadata(path).is_ok_and(|data| !data.file_type().is_socket()) {
        format!("{} is there and is no socket", path.display())
    } else {
        return None;
    })
}

/// The directory is made when it is missing, in the nearest one that is there.
fn log(directory: &Path) -> Option<String> {
    let above = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".").to_owned()),
        parent => parent.map(Path::to_owned),
    };
    let mut at = directory.to_owned();
    while fs::symlink_metadata(&at).is_err() {
        at = above(&at)?;
    }
    let what = if !at.is_dir() {
        "is no directory"
    } else if access(&at, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        "is not this user's to write"
    } else {
        return None;
    };
    Some(format!(
        "durable.embedded.directory: {} {what}",
        at.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        assert_eq!(socket(&at("edge.sock")), None);
        let missing = socket(&at("run/edge.sock")).expect("a sentence");
        assert!(missing.contains("is not there"), "{missing}");
        fs::write(at("file"), "x").expect("a file");
        let taken = socket(&at("file")).expect("a sentence");
        assert!(taken.contains("no socket"), "{taken}");
        assert_eq!(log(&at("a/b/log")), None, "it can be made");
        let taken = log(&at("file/log")).expect("a sentence");
        assert!(taken.contains("no directory"), "{taken}");
        assert_eq!(socket(Path::new("edge.sock")), None, "here");
    }
}

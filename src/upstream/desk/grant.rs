//! Who may consume what.

use super::own;
use crate::config::glob_match;
use crate::config::namespace::leaves_out;
use crate::mesh::durable::{Caller, LogError};

/// May a caller have these channels in this group?
pub(super) fn permit(caller: &Caller, group: &str, channels: &[Box<str>]) -> Result<(), LogError> {
    let Caller::Client { grants, .. } = caller else {
        return Ok(());
    };
    // A token speaks of names as its tenant has them, and what is asked for is that tenant's.
    let group = own(group);
    let of_group = grants
        .iter()
        .filter(|grant| glob_match(&grant.groups, group));
    let granted: Vec<&str> = of_group
        .flat_map(|grant| grant.channels.iter().map(AsRef::as_ref))
        .collect();
    match channels
        .iter()
        .map(|channel| own(channel))
        .find(|wanted| !granted.iter().any(|granted| covers(granted, wanted)))
    {
        Some(wanted) => Err(LogError::Forbidden(
            format!("the token does not let this group take from `{wanted}`").into(),
        )),
        None if granted.is_empty() => Err(LogError::Forbidden(
            format!("the token does not let its client consume `{group}`").into(),
        )),
        None => Ok(()),
    }
}

/// Is everything that `wanted` matches also matched by `granted`? Says no where that is not plain.
pub(super) fn covers(granted: &str, wanted: &str) -> bool {
    if granted == wanted {
        return true;
    }
    if leaves_out(granted, wanted) {
        return false;
    }
    if !wanted.contains('*') {
        return glob_match(granted, wanted);
    }
    // A pattern lies within one that ends with its only star if it begins with the same text.
    granted.strip_suffix('*').is_some_and(|prefix| {
        !prefix.contains('*')
            && wanted
                .split('*')
                .next()
                .is_some_and(|start| start.starts_with(prefix))
    })
}

//! What an owner is after it was bytes.

use super::*;
use crate::image::{ImageError, ImageReader, ImageWriter};

const SECTION: (u16, u16) = (1, 1);

fn image(owner: &Owner, rules: &ChannelRules) -> Vec<u8> {
    let mut out = ImageWriter::default();
    out.section(SECTION.0, SECTION.1, |out| owner.write_image(rules, out));
    out.finish()
}

fn read(inside: &mut ImageReader<'_>, rules: &ChannelRules) -> Result<Owner, ImageError> {
    let owner = Owner::read_image(&Key::new([1; 32]), rules, inside)?;
    inside.end()?;
    Ok(owner)
}

fn moved(owner: &Owner, rules: &ChannelRules) -> Owner {
    let image = image(owner, rules);
    let section = ImageReader::new(&image).unwrap().section().unwrap();
    read(&mut section.unwrap().inside, rules).unwrap()
}

/// One that has something of everything.
fn busy() -> Owner {
    let mut owner = owner();
    enter(&mut owner, at(1), "kept:a", None);
    enter(&mut owner, at(1), "nothing", None);
    for user in 0..3 {
        let draft = by("kept:a", "u1", user, 7);
        owner.publish(at(2), draft, &rules()).unwrap();
    }
    for channel in ["kept:b", "kept:c", "kept:d"] {
        let mut draft = keyed(by(channel, "u1", 9, 7));
        (draft.version, draft.version_epoch) = (5, "v".into());
        owner.publish(at(3), draft, &rules()).unwrap();
    }
    let parked = owner.interest(
        at(4),
        SUBSCRIBER,
        interest("safe:a", None),
        Tries::FIRST,
        &rules(),
    );
    assert!(parked.is_none(), "the log is asked first");
    owner.mark_behind(&ChannelName::from_whole("kept:a"), SHARD);
    owner
}

#[test]
fn owner_that_was_bytes_knows_what_it_knew() {
    let mut owner = moved(&busy(), &rules());
    assert_eq!(image(&owner, &rules()), image(&busy(), &rules()));
    let (kept, position) = history(&mut owner, at(5), "kept:a");
    assert_eq!((kept, position.offset), (3, Offset(3)));
    let (_, before) = history(&mut busy(), at(5), "kept:a");
    assert_eq!(position, before, "the same life");
    let again = owner.publish(at(5), keyed(publish("kept:b")), &rules());
    assert!(again.unwrap().deliver.is_none(), "the key is known");
    assert_eq!(owner.take_behind(|_| true).len(), 1);
    assert_eq!(owner.take_reads().len(), 1);
    assert_eq!(owner.active(), 2);
    let next = busy().next_sweep();
    assert_eq!(owner.next_sweep(), next);
    let end = at(4000);
    leave(&mut owner, at(6), "kept:a");
    sweep(&mut owner, end);
    let left: Vec<_> = owner.inspect().into_iter().map(|one| one.name).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn oldest_of_a_maker_goes_first_as_before() {
    let rules = ChannelRules {
        kept_limit_per_user: 3,
        ..rules()
    };
    let mut owner = moved(&busy(), &rules);
    owner
        .publish(at(5), by("kept:e", "u1", 9, 7), &rules)
        .unwrap();
    let (kept, _) = history(&mut owner, at(5), "kept:b");
    assert_eq!(kept, 0, "the first that it made");
    let (kept, _) = history(&mut owner, at(5), "kept:c");
    assert_eq!(kept, 1);
}

#[test]
fn channels_of_a_namespace_that_is_gone_keep_its_rules() {
    let gone = ChannelRules::default();
    let mut owner = busy();
    owner.reload(&gone);
    let mut owner = moved(&owner, &gone);
    let query = Query {
        channel: ChannelName::from_whole("kept:a"),
        what: HISTORY,
    };
    let AnswerKind::History(page, ..) = owner.query(at(2), &query, &gone) else {
        panic!("it is there");
    };
    assert_eq!(page.len(), 3);
    let late = at(2 + KEPT.as_secs());
    let AnswerKind::History(page, ..) = owner.query(late, &query, &gone) else {
        panic!("it is there");
    };
    assert!(page.is_empty(), "its publications end when they would have");
    let rules = rules();
    let mut other = super::owner();
    let draft = by("kept:a", "u1", 9, 7);
    other.publish(at(2), draft, &rules).unwrap();
    let other = image(&other, &rules);
    let section = ImageReader::new(&other).unwrap().section().unwrap();
    let refused = read(&mut section.unwrap().inside, &gone);
    let what = "a channel without a namespace";
    assert_eq!(refused.err(), Some(ImageError::Wrong { what }));
}

#[test]
fn whatever_is_cut_off_an_owner_is_missed() {
    let head = ImageWriter::default().finish().len();
    let mut out = ImageWriter::default();
    busy().write_image(&rules(), &mut out);
    let whole = out.finish().split_off(head);
    for end in 0..whole.len() {
        let mut out = ImageWriter::default();
        out.section(SECTION.0, SECTION.1, |out| out.raw(&whole[..end]));
        let cut = out.finish();
        let section = ImageReader::new(&cut).unwrap().section().unwrap();
        let owner = read(&mut section.unwrap().inside, &rules());
        assert!(owner.is_err(), "cut at {end}");
    }
}

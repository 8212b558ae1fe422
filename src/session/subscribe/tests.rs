use std::sync::Arc;

use super::*;
use crate::config::{Config, Namespace};
use crate::mesh::Message;
use crate::mesh::message::PublishError;
use crate::model::StreamPosition;
use crate::session::Phase;
use crate::session::rig::Rig;

fn rig() -> Rig {
    let mut config = Config::built_in();
    config.client.channel_limit = 2;
    config.channels.namespaces = vec![
        Arc::new(Namespace {
            name: "open".to_owned(),
            allow_subscribe_for_client: true,
            ..Namespace::default()
        }),
        Arc::new(Namespace {
            name: "shut".to_owned(),
            ..Namespace::default()
        }),
    ];
    let mut rig = Rig::new(config).in_phase(Phase::Connected);
    rig.session.user = crate::model::UserId::new(crate::model::TenantId::NONE, "ann");
    rig
}

fn subscribe(rig: &mut Rig, fields: &str) -> (Result<(), Disconnect>, String) {
    rig.command(&format!(r#"{{"id":2,"subscribe":{{{fields}}}}}"#))
}

/// The owner's answer to the interest that was told last.
fn answer(rig: &mut Rig) -> Interested {
    let Some(Message::Interest(_, interest)) = rig.told().pop() else {
        panic!("no owner was asked");
    };
    Interested {
        channel: interest.channel,
        hub: interest.hub,
        position: StreamPosition::default(),
        missed: Vec::new(),
        recovered: false,
        after: 0,
        refused: None,
        more: false,
        joined: None,
    }
}

#[test]
fn a_subscribe_that_is_refused_leaves_nothing() {
    let error = |code: u32| format!(r#"{{"id":2,"error":{{"code":{code},"#);
    // What is asked; what comes of it.
    let rows = [
        (
            r#""channel":"""#,
            Err(Disconnect::BadRequest),
            String::new(),
        ),
        (
            r#""channel":"open:1","delta":"other""#,
            Err(Disconnect::BadRequest),
            String::new(),
        ),
        (r#""channel":"none:1""#, Ok(()), error(102)),
        (r#""channel":"shut:1""#, Ok(()), error(103)),
        (r#""channel":"open:1","token":"a.b.c""#, Ok(()), error(103)),
    ];
    for (row, (fields, wanted, says)) in rows.into_iter().enumerate() {
        let mut rig = rig();
        let (result, said) = subscribe(&mut rig, fields);
        assert_eq!(result, wanted, "row {row}");
        assert!(
            said.starts_with(&says) && said.is_empty() == says.is_empty(),
            "row {row}: {said}"
        );
        assert!(rig.session.subscriptions.is_empty(), "row {row}");
        assert!(rig.hub.is_empty(), "row {row}");
        assert!(rig.told().is_empty(), "row {row}");
    }
}

#[test]
fn a_subscriber_is_one_when_the_owner_has_answered_and_until_it_leaves() {
    let mut rig = rig();
    assert_eq!(
        subscribe(&mut rig, r#""channel":"open:1""#),
        (Ok(()), String::new())
    );
    assert!(rig.session.subscriptions[0].is_pending());
    let answer = answer(&mut rig);
    let (ends, said) =
        rig.step(|session, context| session.interested(context, SubscribedBy::Command(2), answer));
    assert!(ends.is_none());
    assert_eq!(said, r#"{"id":2,"subscribe":{}}"#);
    assert!(!rig.session.subscriptions[0].is_pending());
    assert_eq!(
        rig.hub
            .iter()
            .map(|one| one.subscribers.len())
            .sum::<usize>(),
        1
    );
    let (result, said) = subscribe(&mut rig, r#""channel":"open:1""#);
    assert_eq!(result, Ok(()));
    assert!(said.contains(r#""code":105"#), "{said}");
    let left = rig.command(r#"{"id":3,"unsubscribe":{"channel":"open:1"}}"#);
    assert_eq!(left, (Ok(()), r#"{"id":3,"unsubscribe":{}}"#.to_owned()));
    assert!(rig.session.subscriptions.is_empty() && rig.hub.is_empty());
    assert!(matches!(rig.told()[..], [Message::Leave(_)]));
}

#[test]
fn subscriptions_have_a_limit_with_those_that_wait() {
    let mut rig = rig();
    for (channel, is_refused) in [("open:1", false), ("open:2", false), ("open:3", true)] {
        let (result, said) = subscribe(&mut rig, &format!(r#""channel":"{channel}""#));
        assert_eq!(result, Ok(()));
        assert_eq!(
            said.contains(r#""code":106"#),
            is_refused,
            "{channel}: {said}"
        );
    }
    assert_eq!(rig.session.subscriptions.len(), 2);
}

#[test]
fn an_owner_without_room_makes_no_subscriber() {
    let mut rig = rig();
    assert_eq!(subscribe(&mut rig, r#""channel":"open:1""#).0, Ok(()));
    let answer = Interested {
        refused: Some(PublishError::Overloaded),
        ..answer(&mut rig)
    };
    let (ends, said) =
        rig.step(|session, context| session.interested(context, SubscribedBy::Command(2), answer));
    assert!(ends.is_none());
    assert!(said.contains(r#""code":100"#), "{said}");
    assert!(rig.session.subscriptions.is_empty() && rig.hub.is_empty());
}

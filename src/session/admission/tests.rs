use super::*;
use crate::config::Config;
use crate::session::Counted;
use crate::session::rig::Rig;

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

fn known_by_transport(mut config: Config, user: &str) -> Rig {
    config.client.ping_interval = None;
    let mut rig = Rig::new(config);
    rig.session.user = crate::model::UserId::new(crate::model::TenantId::NONE, user);
    rig
}

#[test]
fn who_may_connect_is_connected_and_who_may_not_is_told_or_closed() {
    use Phase::{Connected, Fresh, Refused};
    type Row = (
        &'static str,
        fn(&mut Config),
        &'static str,
        Result<(), Disconnect>,
        &'static str,
        Phase,
    );
    let rows: [Row; 6] = [
        (
            "nobody knows it",
            |_| {},
            CONNECT,
            Err(Disconnect::BadRequest),
            "",
            Fresh,
        ),
        (
            "nobody has to",
            |config| config.client.allow_anonymous_connect_without_token = true,
            CONNECT,
            Ok(()),
            r#"{"id":1,"connect":{"client":"#,
            Connected,
        ),
        (
            "a token that is none",
            |_| {},
            r#"{"id":1,"connect":{"token":"a.b.c"}}"#,
            Err(Disconnect::InvalidToken),
            "",
            Fresh,
        ),
        (
            "something else first",
            |config| config.client.allow_anonymous_connect_without_token = true,
            r#"{"id":1,"presence":{"channel":"a"}}"#,
            Err(Disconnect::BadRequest),
            "",
            Fresh,
        ),
        (
            "a channel that the server does not know",
            |config| config.client.allow_anonymous_connect_without_token = true,
            r#"{"id":1,"connect":{"subs":{"none:1":{}}}}"#,
            Err(Disconnect::BadRequest),
            "",
            Fresh,
        ),
        (
            "no place in the table of channels",
            |config| {
                config.client.allow_anonymous_connect_without_token = true;
                config.client.channel_limit = 0;
            },
            CONNECT,
            Ok(()),
            r#"{"id":1,"connect":{"client":"#,
            Connected,
        ),
    ];
    for (name, set_up, command, wanted, says, phase) in rows {
        let mut config = Config::built_in();
        set_up(&mut config);
        let mut rig = Rig::new(config);
        let (result, said) = rig.command(command);
        assert_eq!(result, wanted, "{name}");
        assert!(
            said.starts_with(says) && said.is_empty() == says.is_empty(),
            "{name}: {said}"
        );
        assert_eq!(rig.session.phase, phase, "{name}");
        assert!(rig.told().is_empty(), "{name}: nobody is asked");
    }
    assert_ne!(Refused, Connected);
}

#[test]
fn nobody_connects_twice() {
    let mut rig = known_by_transport(Config::built_in(), "ann");
    assert_eq!(rig.command(CONNECT).0, Ok(()));
    assert_eq!(rig.command(CONNECT).0, Err(Disconnect::BadRequest));
}

#[test]
fn a_user_with_a_limit_waits_for_its_registry() {
    for (granted, wanted, phase) in [
        (true, Ok(()), Phase::Connected),
        (false, Err(Disconnect::ConnectionLimit), Phase::Connecting),
    ] {
        let mut config = Config::built_in();
        config.client.user_connection_limit = 2;
        let mut rig = known_by_transport(config, "ann");
        assert_eq!(rig.command(CONNECT), (Ok(()), String::new()));
        assert_eq!(rig.session.phase, Phase::Connecting);
        match &rig.told()[..] {
            [Message::Admit(_, admit)] => {
                assert_eq!((&*admit.user, admit.limit), ("ann", 2));
            }
            told => panic!("{told:?}"),
        }
        let (result, said) = rig.step(|session, context| session.admitted(context, granted));
        assert_eq!(result, wanted);
        assert_eq!(said.is_empty(), !granted);
        let is_counted = rig.session.counted.has(Counted::BY_USER);
        assert_eq!((rig.session.phase, is_counted), (phase, granted));
        // What it counts as is given back, and nothing else is.
        rig.step(|session, context| session.end(context));
        let released =
            |told: &Message| matches!(told, Message::Release(user, _) if **user == *"ann");
        assert_eq!(rig.told().iter().any(released), granted);
        assert_eq!(rig.session.phase, Phase::Ended);
    }
}

#[test]
fn pings_begin_in_the_second_half_of_the_first_interval() {
    let mut config = Config::built_in();
    config.client.ping_interval = Some(std::time::Duration::from_secs(20));
    let mut rig = Rig::new(config);
    rig.session.user = crate::model::UserId::new(crate::model::TenantId::NONE, "ann");
    assert_eq!(rig.command(CONNECT).0, Ok(()));
    let after =
        |seconds| TimerWheel::tick_after(rig.now.at, std::time::Duration::from_secs(seconds));
    assert!((after(10)..=after(20)).contains(&rig.session.next));
}

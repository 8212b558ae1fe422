use super::*;
use crate::broker::hub::{Class, Delta, Opener};
use crate::config::hooks::Target;
use crate::mem::Place;
use crate::model::{ChannelName, Format, Speaker};
use crate::session::rig::{CONN, Rig};
use std::sync::Arc;

/// Seconds since the start of the process, where a rig stands.
const NOW: u32 = 1000;

const fn peer(is_held: bool) -> PeerState {
    PeerState {
        is_held,
        is_slowed: false,
        comes_to_ping: false,
    }
}

fn tick(second: u32) -> Tick {
    TimerWheel::tick(Instant(u64::from(second) * 1_000_000_000))
}

/// Pings each 25 s, pongs within 10 s, and some grace after an expiry.
fn rig(phase: Phase) -> Rig {
    let mut config = Config::built_in();
    config.client.ping_interval = Some(Duration::from_secs(25));
    config.client.pong_timeout = Duration::from_secs(10);
    config.client.expired_close_delay = Duration::from_secs(20);
    config.client.expired_sub_close_delay = Duration::from_secs(15);
    Rig::new(config).in_phase(phase)
}

/// Subscribes to a channel; it expires at this second, 0 for never.
fn subscribe(rig: &mut Rig, channel: &str, expire_at: u32, flags: u16) {
    let name = ChannelName::from_whole(channel);
    let id = (rig.hub).enter(&name, &Arc::default(), Opener::default());
    let id = id.unwrap();
    let class = Class {
        format: Format::default(),
        filter: None,
        delta: Delta::Off,
        count: 0,
    };
    let place = rig.hub.activate(id, CONN.slot, false, class);
    rig.session.subscriptions.push(Subscription {
        hub: id.slot,
        place: Some(place),
        expire_at,
        flags,
        extra: None,
    });
}

#[test]
fn the_nearest_deadline_is_that_of_what_comes_first() {
    use Phase::{Connected, Fresh};
    // Phase, next ping, awaited pong, expiry of the connection and of a subscription, all as seconds from now; what is nearest.
    let rows = [
        (Connected, 0, 0, 0, 0, 0),
        (Connected, 5, 0, 0, 0, 5),
        (Connected, 25, 10, 0, 0, 10),
        (Connected, 25, 0, 3, 0, 23),
        (Connected, 25, 0, 9, 0, 25),
        (Connected, 25, 0, 0, 4, 19),
        (Fresh, 15, 0, 3, 0, 15),
        (Connected, 0, 0, 3, 0, 23),
    ];
    for (row, (phase, next, pong, expires, subscription, wanted)) in rows.into_iter().enumerate() {
        let in_future = |seconds| if seconds == 0 { 0 } else { NOW + seconds };
        let at = |seconds| match in_future(seconds) {
            0 => 0,
            second => tick(second),
        };
        let mut rig = rig(phase);
        rig.session.next = at(next);
        rig.session.pong_by = at(pong);
        rig.session.expire_at = in_future(expires);
        if subscription > 0 {
            subscribe(&mut rig, "a", in_future(subscription), 0);
        }
        let nearest = rig.session.deadline(rig.now, &rig.config);
        assert_eq!(nearest, at(wanted), "row {row}");
    }
}

#[test]
fn what_is_due_is_done_and_nothing_else() {
    use Disconnect::{ConnectionClosed, Expired, NoPong, Stale, SubscriptionExpired};
    use Phase::{Connected, Connecting, Ended, Fresh, Refused};
    type Row = (
        &'static str,
        Phase,
        fn(&mut Rig),
        Result<(), Disconnect>,
        &'static str,
    );
    let rows: [Row; 15] = [
        ("nothing", Connected, |_| {}, Ok(()), ""),
        (
            "no connect came",
            Fresh,
            |rig| rig.session.next = tick(NOW),
            Err(Stale),
            "",
        ),
        (
            "it may come",
            Fresh,
            |rig| rig.session.next = tick(NOW + 1),
            Ok(()),
            "",
        ),
        (
            "nobody answered",
            Connecting,
            |rig| rig.session.next = tick(NOW),
            Err(Stale),
            "",
        ),
        (
            "it does not close",
            Refused,
            |rig| rig.session.next = tick(NOW),
            Err(ConnectionClosed),
            "",
        ),
        (
            "it is over",
            Ended,
            |rig| rig.session.next = tick(NOW),
            Ok(()),
            "",
        ),
        (
            "a ping",
            Connected,
            |rig| rig.session.next = tick(NOW),
            Ok(()),
            "{}",
        ),
        (
            "no ping yet",
            Connected,
            |rig| rig.session.next = tick(NOW + 1),
            Ok(()),
            "",
        ),
        (
            "no pong",
            Connected,
            |rig| rig.session.pong_by = tick(NOW),
            Err(NoPong),
            "",
        ),
        (
            "a pong may come",
            Connected,
            |rig| rig.session.pong_by = tick(NOW + 1),
            Ok(()),
            "",
        ),
        (
            "expired",
            Connected,
            |rig| rig.session.expire_at = NOW - 20,
            Err(Expired),
            "",
        ),
        (
            "expired, in its grace",
            Connected,
            |rig| rig.session.expire_at = NOW - 19,
            Ok(()),
            "",
        ),
        (
            "a subscription expired",
            Connected,
            |rig| subscribe(rig, "a", NOW - 15, 0),
            Ok(()),
            r#"{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#,
        ),
        (
            "in its grace",
            Connected,
            |rig| subscribe(rig, "a", NOW - 14, 0),
            Ok(()),
            "",
        ),
        (
            "one that the server made",
            Connected,
            |rig| subscribe(rig, "a", NOW - 15, flag::SERVER_SIDE),
            Err(SubscriptionExpired),
            "",
        ),
    ];
    for (name, phase, set_up, wanted, says) in rows {
        let mut rig = rig(phase);
        set_up(&mut rig);
        let (result, said) = rig.step(|session, context| session.timeout(context, peer(false)));
        assert_eq!((result, said.as_str()), (wanted, says), "{name}");
    }
}

#[test]
fn a_ping_awaits_a_pong_where_the_client_can_say_one() {
    // Who speaks, by frames; what is said, whether a pong is awaited.
    let rows = [
        (Speaker::Centrifuge, false, "{}", true),
        (Speaker::Centrifuge, true, "ping frame", true),
        (Speaker::Unidirectional, true, "ping frame\n{}", true),
        (Speaker::Unidirectional, false, "{}", false),
    ];
    for (row, (speaker, frames, says, awaits)) in rows.into_iter().enumerate() {
        let mut rig = rig(Phase::Connected);
        rig.format.speaker = speaker;
        rig.session.frame_pings = frames;
        rig.session.next = tick(NOW);
        let (result, said) = rig.step(|session, context| session.timeout(context, peer(false)));
        assert_eq!((result, said.as_str()), (Ok(()), says), "row {row}");
        assert_eq!(rig.session.next, tick(NOW + 25), "row {row}");
        let pong_by = if awaits { tick(NOW + 10) } else { 0 };
        assert_eq!(rig.session.pong_by, pong_by, "row {row}");
    }
}

#[test]
fn a_pong_that_may_stand_among_what_waits_gets_more_time_once() {
    let mut rig = rig(Phase::Connected);
    rig.session.pong_by = tick(NOW);
    let due = |rig: &mut Rig| {
        rig.step(|session, context| session.timeout(context, peer(true)))
            .0
    };
    assert_eq!(due(&mut rig), Ok(()));
    assert_eq!(rig.session.pong_by, tick(NOW + 10));
    rig.now.at = rig.now.at + Duration::from_secs(10);
    assert_eq!(due(&mut rig), Err(Disconnect::NoPong));
}

#[test]
fn a_pong_must_have_been_asked_for() {
    // By frames, awaited; what comes of a pong of the protocol.
    let rows = [
        (false, true, Ok(())),
        (false, false, Err(Disconnect::BadRequest)),
        (true, true, Err(Disconnect::BadRequest)),
    ];
    for (row, (frames, awaited, wanted)) in rows.into_iter().enumerate() {
        let mut rig = rig(Phase::Connected);
        rig.session.frame_pings = frames;
        rig.session.pong_by = if awaited { tick(NOW + 5) } else { 0 };
        rig.session.pings.bits = u8::from(awaited && !frames);
        let (result, said) = rig.command("{}");
        assert_eq!((result.clone(), said.as_str()), (wanted, ""), "row {row}");
        assert_eq!(
            rig.session.pong_by == 0,
            result.is_ok() || !awaited,
            "row {row}"
        );
    }
}

/// A peer that is not read for a while is pinged again, and answers each ping once it is read.
#[test]
fn every_ping_may_have_its_pong() {
    let mut rig = rig(Phase::Connected);
    for _ in 0..2 {
        rig.session.next = tick(NOW);
        let slowed = PeerState {
            is_slowed: true,
            ..peer(false)
        };
        let (result, said) = rig.step(|session, context| session.timeout(context, slowed));
        assert_eq!((result, &*said), (Ok(()), "{}"));
    }
    let mut pong = || rig.step(|session, context| session.pong(context)).0;
    assert_eq!([pong(), pong()], [Ok(()), Ok(())]);
    assert_eq!(pong(), Err(Disconnect::BadRequest));
    assert_eq!(rig.session.pong_by, 0);
}

fn at(seconds: u64) -> Now {
    Now {
        at: Instant::START + Duration::from_secs(seconds),
        unix_ms: 1_700_000_000_000 + seconds * 1000,
    }
}

fn config() -> Config {
    let mut config = Config::built_in();
    config.client.expired_close_delay = Duration::from_secs(25);
    config.client.expired_sub_close_delay = Duration::from_secs(7);
    config
}

/// With a backend that prolongs connections.
fn refreshed_by_hook() -> Config {
    let mut config = config();
    config.hooks.refresh_enabled = true;
    config.hooks.refresh = Arc::new(Target {
        endpoint: "http://backend/".to_owned(),
        ..Target::named("client.proxy.refresh")
    });
    config
}

fn subscription(expire_at: u32, flags: u16) -> Subscription {
    Subscription {
        hub: 0,
        place: Some(Place::new(0)),
        expire_at,
        flags,
        extra: None,
    }
}

#[test]
fn what_expires_ends_after_its_grace_and_what_a_hook_prolongs_at_once() {
    let own = config();
    let hooked = refreshed_by_hook();
    let refreshing = flag::SERVER_REFRESH | flag::REFRESHING;
    // Configuration, end of the connection, the subscription, and when something is due.
    type Row<'a> = (&'a Config, u32, Option<(u32, u16)>, Option<u64>);
    let cases: &[Row<'_>] = &[
        (&own, 0, None, None),
        (&own, 10, None, Some(35)),
        (&hooked, 10, None, Some(10)),
        (&own, 0, Some((10, flag::CLIENT_REFRESH)), Some(17)),
        (&own, 0, Some((10, flag::SERVER_REFRESH)), Some(10)),
        (&own, 0, Some((10, refreshing)), None),
        (&own, 10, Some((50, flag::CLIENT_REFRESH)), Some(35)),
        (&own, 40, Some((50, flag::CLIENT_REFRESH)), Some(57)),
        (&own, 40, Some((0, 0)), Some(65)),
    ];
    for (at_row, (config, ends, subscribed, wanted)) in cases.iter().enumerate() {
        let mut session = Session {
            phase: Phase::Connected,
            expire_at: *ends,
            ..Session::default()
        };
        session
            .subscriptions
            .extend(subscribed.map(|(ends, flags)| subscription(ends, flags)));
        let due = session.deadline(at(5), config);
        let wanted = wanted.map_or(0, |second| TimerWheel::tick(at(second).at));
        assert_eq!(due, wanted, "row {at_row}");
    }
}

#[test]
fn connection_that_is_not_connected_does_not_expire() {
    let session = Session {
        phase: Phase::Connecting,
        expire_at: 10,
        next: 70,
        ..Session::default()
    };
    assert_eq!(session.deadline(at(5), &config()), 70);
}

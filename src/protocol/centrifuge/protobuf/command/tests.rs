use proptest::prelude::*;

use super::*;

fn all(frame: &[u8]) -> Vec<Result<Command<'static>, Disconnect>> {
    commands(frame).collect()
}

fn one(frame: &[u8]) -> Command<'static> {
    let [Ok(command)] = &all(frame)[..] else {
        panic!("not one command: {frame:?}")
    };
    command.clone()
}

fn is_refused(frame: &[u8]) -> bool {
    all(frame) == [Err(Disconnect::BadRequest)]
}

fn framed(command: &schema::Command) -> Vec<u8> {
    command.encode_length_delimited_to_vec()
}

const PONG: Command<'static> = Command {
    id: 0,
    body: Body::Pong,
};

fn presence(id: u32) -> Command<'static> {
    Command {
        id,
        body: Body::Presence {
            channel: "a".into(),
        },
    }
}

/// Field number and wire type 2, length, bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// A frame of one command with these fields behind its id.
fn command(id: u8, fields: &[u8]) -> Vec<u8> {
    [&[fields.len() as u8 + 2, 8, id], fields].concat()
}

#[test]
fn example_of_the_specification_is_a_connect() {
    assert_eq!(
        one(b"\x04\x08\x01\x22\x00"),
        Command {
            id: 1,
            body: Body::Connect(Connect::default())
        }
    );
}

#[test]
fn frame_holds_commands_one_behind_the_other() {
    let part = field(8, &field(1, b"a"));
    let frame = [command(1, &part), command(2, &part), vec![0]].concat();
    assert_eq!(all(&frame), [Ok(presence(1)), Ok(presence(2)), Ok(PONG)]);
}

#[test]
fn rest_is_what_is_not_decoded_yet() {
    let part = field(8, &field(1, b"a"));
    let frame = [command(1, &part), command(2, &part), vec![9]].concat();
    let mut commands = commands(&frame);
    assert_eq!(commands.next(), Some(Ok(presence(1))));
    let rest = commands.rest().map(<[u8]>::to_vec);
    assert_eq!(rest, Some([command(2, &part), vec![9]].concat()));
    assert_eq!(commands.next(), Some(Ok(presence(2))));
    assert_eq!(commands.rest(), Some(&[9][..]));
    assert_eq!(commands.next(), Some(Err(Disconnect::BadRequest)));
    assert_eq!(commands.rest(), None);
    assert_eq!(commands.next(), None);
}

#[test]
fn empty_frame_is_refused() {
    assert!(is_refused(b""));
}

#[test]
fn frame_that_is_cut_off_is_refused_wherever_it_is_cut() {
    let whole = command(1, &field(8, &field(1, b"a")));
    for len in 0..whole.len() {
        assert!(is_refused(&whole[..len]), "{len}");
        let behind = [&whole, &whole[..len]].concat();
        let wanted = match len {
            0 => vec![Ok(presence(1))],
            _ => vec![Ok(presence(1)), Err(Disconnect::BadRequest)],
        };
        assert_eq!(all(&behind), wanted, "{len}");
    }
}

#[test]
fn length_beyond_every_frame_is_refused() {
    for frame in [
        &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        b"\x80",
        b"\x7f",
    ] {
        assert!(is_refused(frame), "{frame:?}");
    }
}

#[test]
fn message_that_cannot_be_decoded_is_refused() {
    for fields in [
        &b"\x42\x05"[..],        // shorter than it says
        b"\x42\x03\x0a\x02a",    // a part inside shorter than it says
        b"\x40\x01",             // a part that is a number
        b"\x42\x03\x0a\x01\xff", // a channel that is no text
        b"\x47",                 // a wire type that does not exist
        b"\x44",                 // the end of a group that was not begun
        b"\x02\x00",             // field 0
    ] {
        assert!(is_refused(&command(1, fields)), "{fields:?}");
    }
}

#[test]
fn length_that_is_longer_than_it_need_be_is_read() {
    assert_eq!(one(b"\x84\x00\x08\x01\x22\x00").id, 1);
    assert_eq!(one(b"\x80\x00"), PONG);
}

#[test]
fn unknown_fields_are_skipped_whatever_their_type() {
    let unknown: [&[u8]; 6] = [
        b"\xa0\x06\x96\x01",                         // 100: a varint
        b"\xa1\x06\x01\x02\x03\x04\x05\x06\x07\x08", // 64 bits
        b"\xa2\x06\x03xyz",                          // bytes
        b"\xa3\x06\x08\x01\xa4\x06",                 // a group
        b"\xa5\x06\x01\x02\x03\x04",                 // 32 bits
        b"\x5a\x00",                                 // the legacy ping
    ];
    for skipped in unknown {
        let inside = [&field(1, b"a")[..], skipped].concat();
        let fields = [skipped, &field(8, &inside), skipped].concat();
        assert_eq!(one(&command(1, &fields)), presence(1), "{skipped:?}");
    }
}

#[test]
fn newest_fields_are_accepted() {
    let newest = b"\x38\x01\x42\x01d\x4a\x01p";
    let Body::Connect(connect) = one(&command(1, &field(4, newest))).body else {
        panic!("not a connect")
    };
    assert_eq!(connect, Connect::default());

    let newest = [
        &field(1, b"a")[..],
        b"\x80\x01\x02\x8a\x01\x01c\x90\x01\x05\x98\x01\x01",
    ]
    .concat();
    let Body::Subscribe(subscribe) = one(&command(1, &field(5, &newest))).body else {
        panic!("not a subscribe")
    };
    assert_eq!(subscribe.channel, "a");
}

#[test]
fn command_without_id_is_a_pong_unless_it_sends() {
    assert_eq!(one(&[0]), PONG);
    let subscribe = field(5, &field(1, b"a"));
    assert_eq!(
        one(&[&[subscribe.len() as u8], &subscribe[..]].concat()),
        PONG
    );
    let send = field(12, &field(1, b"\x00\xff"));
    let frame = [&[send.len() as u8], &send[..]].concat();
    let data = Cow::Borrowed(&b"\x00\xff"[..]);
    let body = Body::Send { data };
    assert_eq!(one(&frame), Command { id: 0, body });
}

#[test]
fn command_with_id_and_no_known_part_is_refused() {
    assert!(is_refused(&command(1, b"")));
    assert!(is_refused(&command(1, b"\x5a\x00")), "the legacy ping");
    assert!(is_refused(&command(1, b"\xa2\x06\x00")));
}

#[test]
fn of_several_parts_the_first_in_the_order_of_the_specification_counts() {
    let name = |frame: &[u8]| {
        format!("{:?}", one(frame).body)
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
    };
    // In the order of §2.5: rpc stands before send, whose number is lower.
    let parts = [4, 5, 6, 7, 8, 9, 10, 13, 12, 14, 15];
    for (at, &first) in parts.iter().enumerate() {
        for &second in &parts[at + 1..] {
            let alone = name(&command(1, &field(first, b"")));
            for fields in [[first, second], [second, first]] {
                let fields = fields.map(|number| field(number, b"")).concat();
                assert_eq!(name(&command(1, &fields)), alone, "{fields:?}");
            }
        }
    }
}

#[test]
fn maps_keep_their_order_and_what_is_sent_twice() {
    let entry = |key: &[u8], value: &[u8]| [field(1, key), value.to_vec()].concat();
    let fields = [
        field(3, &entry(b"b", &field(2, b"\x18\x01\x38\x05"))),
        field(3, &entry(b"a", b"")),
        field(3, &entry(b"b", &field(2, &field(6, b"e")))),
        field(6, &entry(b"h", &field(2, b"v"))),
        field(6, b""),
    ]
    .concat();
    let Body::Connect(connect) = one(&command(1, &field(4, &fields))).body else {
        panic!("not a connect")
    };
    let sub = |channel: &'static str| Subscribe {
        channel: channel.into(),
        ..Default::default()
    };
    assert_eq!(
        connect.subs,
        [
            Subscribe {
                recover: true,
                offset: 5,
                ..sub("b")
            },
            sub("a"),
            Subscribe {
                epoch: "e".into(),
                ..sub("b")
            },
        ]
    );
    let headers = [("h".into(), "v".into()), ("".into(), "".into())];
    assert_eq!(connect.headers, headers);
}

fn nested_filter(levels: usize) -> schema::FilterNode {
    let mut node = schema::FilterNode::default();
    for _ in 1..levels {
        node = schema::FilterNode {
            op: "not".to_owned(),
            nodes: vec![node],
            ..Default::default()
        };
    }
    node
}

fn with_filter(node: schema::FilterNode) -> Vec<u8> {
    framed(&schema::Command {
        id: 1,
        subscribe: Some(schema::SubscribeRequest {
            tf: Some(Box::new(node)),
            ..Default::default()
        }),
        ..Default::default()
    })
}

#[test]
fn filter_comes_as_it_was_sent() {
    let leaf = schema::FilterNode {
        key: "k".to_owned(),
        cmp: "in".to_owned(),
        val: "v".to_owned(),
        vals: vec!["a".to_owned(), String::new()],
        ..Default::default()
    };
    let root = schema::FilterNode {
        op: "and".to_owned(),
        nodes: vec![leaf, schema::FilterNode::default()],
        ..Default::default()
    };
    let frame = with_filter(root);
    let Body::Subscribe(subscribe) = one(&frame).body else {
        panic!("not a subscribe")
    };
    let leaf = FilterNode {
        key: "k".into(),
        cmp: "in".into(),
        val: "v".into(),
        vals: vec!["a".into(), "".into()],
        ..Default::default()
    };
    let root = FilterNode {
        op: "and".into(),
        nodes: vec![leaf, FilterNode::default()],
        ..Default::default()
    };
    assert_eq!(subscribe.filter, Some(Box::new(root)));
}

#[test]
fn filter_is_refused_beyond_its_depth() {
    assert_eq!(one(&with_filter(nested_filter(FILTER_DEPTH_MAX))).id, 1);
    for levels in [FILTER_DEPTH_MAX + 1, 90, 110, 1000] {
        assert!(is_refused(&with_filter(nested_filter(levels))), "{levels}");
    }
}

#[test]
fn groups_in_groups_do_not_overflow_the_stack() {
    let deep = [b"\xa3\x06".repeat(100_000), b"\xa4\x06".repeat(100_000)].concat();
    let mut frame = Vec::new();
    prost::encoding::encode_varint(deep.len() as u64, &mut frame);
    frame.extend_from_slice(&deep);
    assert!(is_refused(&frame));
}

#[test]
fn frame_with_more_commands_than_the_limit_is_refused_at_the_limit() {
    assert!(commands(&[0; COMMANDS_PER_FRAME_MAX]).all(|command| command == Ok(PONG)));
    let frame = [0; COMMANDS_PER_FRAME_MAX + 2];
    assert_eq!(commands(&frame).count(), COMMANDS_PER_FRAME_MAX + 1);
    assert_eq!(commands(&frame).last(), Some(Err(Disconnect::BadRequest)));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        for _ in commands(&bytes) {}
    }

    #[test]
    fn message_behind_its_length_never_panics(bytes in proptest::collection::vec(any::<u8>(), 1..127)) {
        let frame = [&[bytes.len() as u8], &bytes[..]].concat();
        prop_assert_eq!(commands(&frame).count(), 1);
    }

    #[test]
    fn payload_may_be_any_bytes(id in 1u32.., channel: String, data: Vec<u8>) {
        let publish = schema::PublishRequest { channel: channel.clone(), data: data.clone() };
        let frame = framed(&schema::Command { id, publish: Some(publish), ..Default::default() });
        let body = Body::Publish { channel: channel.into(), data: data.into() };
        prop_assert_eq!(one(&frame), Command { id, body });
    }
}

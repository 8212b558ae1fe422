use super::*;
use crate::broker::owner::owner_of;
use crate::config::Namespace;
use crate::config::namespace::Delivery;
use crate::limits::LOG_ASK_TIMEOUT;
use crate::mesh::build;
use crate::mesh::durable::{FromLog, RequestId, ToLog};
use crate::shard::tests::{House, kept, request};
use crate::shard::{Close, EndCause, Output, SendBatch, SendFailed};
use std::sync::Arc;

impl House {
    fn new(shards: u16) -> Self {
        Self::with(build(shards), |config| {
            config.http_stream.enabled = true;
            config.channels.namespaces = vec![Arc::new(kept("kept", 10))];
            config.channels.namespaces.push(Arc::new(Namespace {
                name: "log".to_owned(),
                delivery: Delivery::Durable,
                ..Namespace::default()
            }));
        })
    }

    fn post(&mut self, slot: u32, method: &str, body: &str) -> ConnId {
        let conn = self.open(slot);
        self.send(conn, &request(&format!("api/{method}"), body));
        conn
    }

    fn send(&mut self, conn: ConnId, bytes: &str) {
        self.receive((0, conn), bytes.as_bytes());
    }

    fn open(&mut self, slot: u32) -> ConnId {
        self.accept(0, slot).1
    }

    /// Messages in the queues to each shard.
    fn queued(&self) -> Vec<usize> {
        self.shards
            .iter()
            .map(|shard| shard.under_way().mesh_queued)
            .collect()
    }

    fn turn(&mut self) {
        for shard in &mut self.shards {
            shard.handle_mesh(self.now);
        }
    }

    /// What shard 0 wants to have sent, and what it says to the log.
    fn outputs(&mut self) -> (Vec<SendBatch>, Vec<ToLog>) {
        let (mut sent, mut said) = (Vec::new(), Vec::new());
        while let Some(output) = self.shards[0].poll_output() {
            match output {
                Output::Transmit { batch, .. } => sent.push(batch),
                Output::Log(request) => said.push(request),
                _ => {}
            }
        }
        (sent, said)
    }

    /// A fetch that the log's side has been asked.
    fn fetch(&mut self, slot: u32) -> (ConnId, RequestId) {
        let conn = self.open(slot);
        self.send(conn, &fetch());
        (conn, self.asked())
    }

    /// The one thing that the log's side has been asked.
    fn asked(&mut self) -> RequestId {
        let said = self.outputs().1;
        let [ToLog::Ask(id, _)] = said[..] else {
            panic!("{said:?}");
        };
        id
    }

    fn fetched(&mut self, id: RequestId, payload: usize) {
        let json = format!(r#"{{"deliveries":["{}"]}}"#, "x".repeat(payload));
        self.shards[0].handle_log(self.now, FromLog::Answered(id, Ok(json.into())));
    }

    /// The last of the batches that an answer is sent in; the others were taken whole.
    fn last_batch(&mut self, conn: ConnId) -> SendBatch {
        loop {
            let (mut sent, said) = self.outputs();
            assert!(said.is_empty() && sent.len() == 1, "{said:?}");
            let Some(SendBatch::Owned(bytes)) = sent.pop() else {
                panic!("an answer in its own memory");
            };
            let (len, batch) = (bytes.len(), SendBatch::Owned(bytes));
            if len < crate::limits::OWNED_BATCH_BYTES_MAX {
                return batch;
            }
            self.shards[0].handle_sent(self.now, conn, batch, Ok(len));
        }
    }

    /// What shard 0 has written: body of the last response.
    fn response(&mut self) -> serde_json::Value {
        let mut bytes = Vec::new();
        let shard = &mut self.shards[0];
        while let Some(output) = shard.poll_output() {
            if let Output::Transmit { conn, batch } = output {
                match &batch {
                    SendBatch::Ring(range) => bytes.extend_from_slice(shard.ring_bytes(*range)),
                    SendBatch::Owned(owned) => {
                        bytes.extend_from_slice(owned);
                        let taken = owned.len();
                        shard.handle_sent(self.now, conn, batch, Ok(taken));
                    }
                }
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        serde_json::from_str(body).unwrap()
    }
}

fn fetch() -> String {
    request("api/queue/fetch", r#"{"group":"g","wait_ms":20000}"#)
}

fn channels(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("kept:{n}")).collect()
}

#[test]
fn thousand_publications_are_one_message_to_each_owner_and_one_answer_back() {
    let names = channels(1000);
    let abroad = names
        .iter()
        .filter(|name| owner_of(&ChannelName::from_whole(name), 4) != ShardId(0))
        .count();
    assert!(abroad > 500, "{abroad} channels are owned by other shards");
    let commands: Vec<String> = names
        .iter()
        .map(|name| format!(r#"{{"publish":{{"channel":"{name}","data":{{}}}}}}"#))
        .collect();
    let requests = [
        (
            "broadcast",
            format!(r#"{{"channels":{names:?},"data":{{}}}}"#),
        ),
        (
            "batch",
            format!(r#"{{"commands":[{}]}}"#, commands.join(",")),
        ),
        (
            "batch",
            format!(r#"{{"commands":[{}],"parallel":true}}"#, commands.join(",")),
        ),
    ];
    let mut house = House::new(4);
    for (round, (method, body)) in requests.iter().enumerate() {
        house.post(round as u32, method, body);
        assert_eq!(house.queued(), [0, 1, 1, 1], "{method}: asked");
        house.turn();
        assert_eq!(house.queued(), [3, 0, 0, 0], "{method}: answered");
        house.turn();
        assert_eq!(house.queued(), [0; 4], "{method}");
        let response = house.response();
        let list = if *method == "broadcast" {
            &response["result"]["responses"]
        } else {
            &response["replies"]
        };
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), 1000, "{method}");
        for item in list {
            let item = item.get("result").or(item.get("publish")).unwrap();
            assert_eq!(item["offset"], round as u64 + 1, "{method}");
        }
    }
}

#[test]
fn service_that_is_not_answered_in_time_hears_that_it_may_still_happen() {
    let mut house = House::new(1);
    house.post(0, "queue/pause", r#"{"group":"g"}"#);
    let id = house.asked();
    house.now.at = house.now.at + LOG_ASK_TIMEOUT;
    house.shards[0].handle_timeout(house.now);
    let error = house.response()["error"].take();
    assert_eq!(error["code"], 100, "{error}");
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("may still be carried out"), "{text}");
    // The log's side answers at last, and nobody waits for that.
    let late = FromLog::Answered(id, Ok("{}".into()));
    house.shards[0].handle_log(house.now, late);
    assert!(house.outputs().0.is_empty());
    assert_eq!(house.shards[0].counters().asks_overdue, 1);
}

#[test]
fn more_items_than_a_queue_holds_are_all_done() {
    let names = channels(API_ITEMS);
    let mut house = House::new(2);
    house.post(
        0,
        "broadcast",
        &format!(r#"{{"channels":{names:?},"data":1}}"#),
    );
    house.turn();
    house.turn();
    let response = house.response();
    let responses = response["result"]["responses"].as_array().unwrap();
    assert_eq!(responses.len(), API_ITEMS);
    assert!(responses.iter().all(|item| item["result"]["offset"] == 1));

    let names = channels(API_ITEMS + 1);
    house.post(
        1,
        "broadcast",
        &format!(r#"{{"channels":{names:?},"data":1}}"#),
    );
    assert_eq!(house.response()["error"]["code"], 106);
}

const API_ITEMS: usize = crate::limits::API_ITEMS_MAX;

#[test]
fn commands_about_users_take_one_round_wherever_they_stand_together() {
    let disconnects = r#"{"disconnect":{"user":"u"}}"#;
    let publish = r#"{"publish":{"channel":"kept:1","data":1}}"#;
    let commands = [
        vec![disconnects; 1000],
        vec![publish],
        vec![disconnects; 1000],
    ]
    .concat();
    let mut house = House::new(2);
    house.post(
        0,
        "batch",
        &format!(r#"{{"commands":[{}]}}"#, commands.join(",")),
    );
    let mut rounds = 0;
    while house.shards[0].under_way().api_calls > 0 {
        house.turn();
        rounds += 1;
        assert!(rounds < 10, "no round for each command");
    }
    assert_eq!(house.response()["replies"].as_array().unwrap().len(), 2001);
}

#[test]
fn user_on_two_shards_counts_once() {
    let sample = |users: std::ops::Range<u64>, below: u64| {
        // Any bijection will do as a hash.
        let hash = |user: u64| user.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        UserCount {
            distinct: (users.end - users.start) as u32,
            sample: users.map(hash).filter(|&hash| hash <= below).collect(),
            below,
        }
    };
    let everybody = [sample(0..10, u64::MAX), sample(5..15, u64::MAX)];
    assert_eq!(UserCount::union(everybody.iter()), 15);
    let many = [
        sample(0..60_000, u64::MAX / 16),
        sample(30_000..90_000, u64::MAX / 8),
    ];
    let union = UserCount::union(many.iter());
    assert!((85_000..95_000).contains(&union), "{union}");
    assert_eq!(UserCount::union([].iter()), 0);
}

fn is_abandoned(said: &[ToLog], id: RequestId) -> bool {
    matches!(said, [ToLog::Abandoned(of)] if *of == id)
}

fn is_taken(said: &[ToLog], id: RequestId) -> bool {
    matches!(said, [ToLog::Taken(of)] if *of == id)
}

#[test]
fn fetch_whose_caller_goes_while_it_waits_is_over_and_its_answer_is_empty() {
    let mut house = House::new(1);
    for (slot, cause) in [(0, EndCause::Eof), (1, EndCause::Reset)] {
        let (conn, id) = house.fetch(slot);
        house.shards[0].handle_ended(house.now, conn, cause);
        assert!(is_abandoned(&house.outputs().1, id), "{cause:?}");
        // What was on its way goes to others: the log's side knows.
        house.fetched(id, 10);
        if cause == EndCause::Eof {
            let response = house.response();
            assert_eq!(response["result"], serde_json::json!({ "deliveries": [] }));
        }
        house.shards[0].handle_flushed(house.now);
        assert!(house.outputs().1.is_empty(), "it was abandoned");
        house.shards[0].handle_closed(house.now, conn);
        assert!(house.outputs().1.is_empty(), "said once");
    }
}

#[test]
fn answer_that_the_kernel_did_not_take_whole_was_not_taken() {
    for taken in [0, 30_000] {
        let mut house = House::new(1);
        let (conn, id) = house.fetch(0);
        house.fetched(id, 200_000);
        let (sent, said) = house.outputs();
        assert!(said.is_empty());
        let [SendBatch::Owned(bytes)] = &sent[..] else {
            panic!("{sent:?}");
        };
        let batch = SendBatch::Owned(bytes.clone());
        house.shards[0].handle_sent(house.now, conn, batch, Ok(taken));
        house.shards[0].handle_ended(house.now, conn, EndCause::Reset);
        assert!(is_abandoned(&house.outputs().1, id));
        house.shards[0].handle_closed(house.now, conn);
        assert!(house.outputs().1.is_empty(), "said once");
    }
}

#[test]
fn answer_that_the_kernel_has_is_taken() {
    let mut house = House::new(1);
    let (_, id) = house.fetch(0);
    house.fetched(id, 10);
    assert!(house.outputs().1.is_empty());
    house.shards[0].handle_flushed(house.now);
    assert!(is_taken(&house.outputs().1, id), "through the ring");

    let (conn, id) = house.fetch(1);
    house.fetched(id, 200_000);
    // One batch after the other.
    let mut sent_bytes = 0;
    let said = loop {
        let (mut sent, said) = house.outputs();
        let Some(batch) = sent.pop() else { break said };
        assert!(sent.is_empty() && said.is_empty(), "one batch at a time");
        let SendBatch::Owned(bytes) = &batch else {
            panic!("{batch:?}");
        };
        let len = bytes.len();
        sent_bytes += len;
        house.shards[0].handle_sent(house.now, conn, batch, Ok(len));
    };
    assert!(sent_bytes > 200_000);
    assert!(is_taken(&said, id), "through its own memory");
}

#[test]
fn answer_whose_send_failed_was_not_taken() {
    let mut house = House::new(1);
    let (conn, id) = house.fetch(0);
    house.fetched(id, 200_000);
    let batch = house.last_batch(conn);
    house.shards[0].handle_sent(house.now, conn, batch, Err(SendFailed));
    assert!(is_abandoned(&house.outputs().1, id));
}

#[test]
fn answer_in_the_ring_is_not_taken_because_another_was() {
    let mut house = House::new(1);
    let ((_, small), (conn, large)) = (house.fetch(0), house.fetch(1));
    house.fetched(large, 200_000);
    let batch = house.last_batch(conn);
    house.fetched(small, 10);
    assert!(house.outputs().1.is_empty());
    let SendBatch::Owned(bytes) = &batch else {
        panic!("{batch:?}");
    };
    let len = bytes.len();
    house.shards[0].handle_sent(house.now, conn, batch, Ok(len));
    assert!(is_taken(&house.outputs().1, large));
    house.shards[0].handle_flushed(house.now);
    assert!(is_taken(&house.outputs().1, small));
}

#[test]
fn fetch_behind_another_is_taken_up_when_the_deliveries_before_it_are_with_the_kernel() {
    let mut house = House::new(1);
    let conn = house.open(0);
    house.send(conn, &fetch().repeat(2));
    let first = house.asked();
    house.fetched(first, 10);
    let said = house.outputs().1;
    assert!(said.is_empty(), "{said:?}");
    house.shards[0].handle_flushed(house.now);
    assert!(is_taken(&house.outputs().1, first));
    house.turn();
    let second = house.asked();
    house.fetched(second, 10);
    assert!(house.outputs().1.is_empty());
    house.shards[0].handle_flushed(house.now);
    assert!(is_taken(&house.outputs().1, second));
}

#[test]
fn failure_of_another_question_is_no_end_of_a_fetch() {
    let mut house = House::new(1);
    let (conn, id) = house.fetch(0);
    let other = RequestId(AskId {
        generation: id.0.generation + 1,
        ..id.0
    });
    house.shards[0].fetch_failed(conn, other);
    house.fetched(id, 10);
    assert!(house.outputs().1.is_empty());
    house.shards[0].handle_flushed(house.now);
    assert!(is_taken(&house.outputs().1, id));
}

#[test]
fn refusal_of_a_peer_that_has_closed_its_side_ends_with_a_plain_close() {
    let mut house = House::new(1);
    let conn = house.open(0);
    house.send(conn, &(fetch() + "no request\r\n\r\n"));
    let id = house.asked();
    house.shards[0].handle_ended(house.now, conn, EndCause::Eof);
    house.fetched(id, 10);
    let mut closes = Vec::new();
    for _ in 0..3 {
        while let Some(output) = house.shards[0].poll_output() {
            match output {
                Output::Close { how, .. } => closes.push(how),
                Output::HalfClose(_) => panic!("nothing more can come"),
                _ => {}
            }
        }
        house.shards[0].handle_flushed(house.now);
    }
    assert_eq!(closes, [Close::Finish]);
}

#[test]
fn requests_behind_answers_that_are_owed_stay_in_the_socket() {
    const REQUESTS: usize = 1024;
    const RECEIVE: usize = 64 << 10;
    let mut house = House::new(1);
    let conn = house.open(0);
    let page = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Pad: {}\r\n\r\n",
        "x".repeat(1000)
    );
    let input = page.repeat(REQUESTS).into_bytes();
    let mut receives = input.chunks(RECEIVE);
    let (mut sent, mut is_paused, mut most, mut idle) = (Vec::new(), false, 0, 0);
    while idle < 3 {
        idle += 1;
        if !is_paused && let Some(bytes) = receives.next() {
            house.shards[0].handle_received(house.now, conn, &mut bytes.to_vec());
            idle = 0;
        }
        let shard = &mut house.shards[0];
        most = most.max(shard.input_bytes_counted().0);
        while let Some(output) = shard.poll_output() {
            match output {
                Output::Transmit { conn, batch } => {
                    idle = 0;
                    if let SendBatch::Owned(bytes) = &batch {
                        sent.extend_from_slice(bytes);
                        let len = bytes.len();
                        shard.handle_sent(house.now, conn, batch, Ok(len));
                    } else if let SendBatch::Ring(range) = &batch {
                        sent.extend_from_slice(shard.ring_bytes(*range));
                    }
                }
                Output::Pause(_) => is_paused = true,
                Output::Resume(_) => is_paused = false,
                Output::Close { how, .. } => panic!("closed: {how:?}"),
                _ => {}
            }
        }
        shard.handle_flushed(house.now);
        house.turn();
    }
    let answers = memchr::memmem::find_iter(&sent, b"HTTP/1.1 200 OK\r\n").count();
    assert_eq!(answers, REQUESTS);
    // Memory grows to twice of what is in it.
    let bound = 2 * (crate::limits::HELD_PAUSE_BYTES + RECEIVE);
    assert!(most <= bound, "{most} bytes were held");
}

#[test]
fn what_waits_for_a_worker_has_a_bound() {
    let mut house = House::new(1);
    let conn = house.open(0);
    let connect = request("connection/http_stream", r#"{"id":1,"connect":{}}"#);
    house.send(conn, &connect);
    house.turn();
    let queue = house.shards[0].config.client.queue_max_size;
    let most = 2 * queue + crate::limits::HTTP_BODY_BYTES_MAX;
    let json = Bytes::from(format!("{:?}", "x".repeat(queue - 2)));
    let shard = &mut house.shards[0];
    for _ in 0..most / queue {
        shard.deliver_to_worker(conn, json.clone());
    }
    assert_eq!(shard.counters().disconnected_slow, 0, "as much as may wait");
    for _ in 0..2 {
        shard.deliver_to_worker(conn, json.clone());
    }
    assert_eq!(shard.counters().disconnected_slow, 1);
}

#[test]
fn drain_awaits_what_is_on_its_way_to_the_log_also_where_its_publisher_is_gone() {
    use crate::mesh::control::{DrainOutcome, FromShard, ToShard};
    use std::time::Duration;

    fn drained(house: &mut House) -> Option<DrainOutcome> {
        let mut drained = None;
        while let Some(output) = house.shards[0].poll_output() {
            match output {
                Output::Close { conn, .. } => house.shards[0].handle_closed(house.now, conn),
                Output::Report(FromShard::Drained(_, outcome)) => drained = Some(outcome),
                _ => {}
            }
        }
        drained
    }

    let mut house = House::new(1);
    let conn = house.post(0, "publish", r#"{"channel":"log:a","data":1}"#);
    let said = house.outputs().1;
    let [ToLog::Append(id, _)] = said[..] else {
        panic!("{said:?}");
    };
    house.shards[0].handle_ended(house.now, conn, EndCause::Reset);
    assert_eq!(drained(&mut house), None);
    let (window, grace) = (Duration::ZERO, Duration::from_secs(5));
    house.shards[0].handle_control(house.now, ToShard::Drain { window, grace });
    house.shards[0].handle_unlistened(house.now);
    assert_eq!(drained(&mut house), None, "nobody is left but the log");
    let answer = Err(crate::mesh::durable::LogError::Unavailable {
        reason: "tried".into(),
        retry_after: Duration::ZERO,
    });
    house.shards[0].handle_log(house.now, FromLog::Appended(vec![(id, answer)]));
    assert_eq!(drained(&mut house), Some(DrainOutcome::default()));
}

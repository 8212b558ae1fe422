//! What groups promise whose deliveries are posted to a target, whichever engine keeps the log. Each check is given how that log is
//! configured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use super::backend::{Asked, Backend, Reply};
use super::groups::publish;
use super::process::{Server, Start, config};
use super::wait::until;

/// A proxy with the durable namespace `orders` and a target `work`.
pub(crate) fn rules(log: &str, backend: &Backend, push: &str) -> String {
    config(&format!(
        "{log}\n[[channel.namespaces]]\nname = \"orders\"\ndelivery = \"durable\"\n\
         [[proxies]]\nname = \"work\"\nendpoint = \"{}\"\ntimeout = \"2s\"\nbreaker.open_for = \"300ms\"\n\
         {push}\n",
        backend.url("/work")
    ))
}

/// The rule of most checks.
pub(crate) const PUSH: &str = "[[queue.push]]\ngroup = \"pushed\"\nchannels = [\"orders:*\"]\ntarget = \"work\"\n\
     backoff.base = \"20ms\"\nbackoff.cap = \"100ms\"\n";

/// A proxy whose log is there.
pub(crate) fn start(rules: &str) -> Server {
    let server = Start::with_config(rules).shards(2).run();
    until("the log", || {
        let groups = server.api("queue/groups", &json!({}));
        groups.get("error").is_none().then_some(())
    });
    server
}

/// The group as the API shows it, once it is there.
pub(crate) fn group(server: &Server) -> Option<Value> {
    let mut groups = server.api_result("queue/groups", &json!({}));
    let all = groups["groups"].as_array_mut()?;
    let found = all.iter_mut().find(|group| group["group"] == "pushed");
    found.map(Value::take)
}

/// Waits until nothing is left to do.
pub(crate) fn all_done(server: &Server, acked: u64) {
    until("everything is done", || {
        let group = group(server)?;
        (group["acked"].as_u64()? >= acked).then_some(())
    });
}

/// What was posted: the deliveries of a call.
pub(crate) fn deliveries(asked: &Asked) -> Vec<&Value> {
    match asked.body["deliveries"].as_array() {
        Some(deliveries) => deliveries.iter().collect(),
        None => vec![&asked.body],
    }
}

/// Each is posted until the target has taken it, over its failures, and what was under way at the `end` of a process
/// comes again.
pub(crate) fn every_delivery_is_posted_until_it_is_taken(log: &str, end: &str) {
    let taken: Arc<[AtomicU64; 40]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    // What a killed process had comes again at once where the log is its own.
    let is_stuck = Arc::new(AtomicBool::new(end == "KILL"));
    let backend = {
        let (taken, is_stuck) = (Arc::clone(&taken), Arc::clone(&is_stuck));
        Backend::start(move |asked| {
            let number = asked.body["data"]["n"].as_u64().expect("a number");
            let attempt = asked.body["attempt"].as_u64().expect("an attempt");
            if number == 7 && is_stuck.load(Ordering::SeqCst) {
                return Reply::Late(std::time::Duration::from_secs(60), Box::new(Reply::Reset));
            }
            match (number % 5, attempt) {
                (1, 1) => Reply::Status(500),
                (2, 1) => Reply::Full(422, String::new(), "not yet".to_owned()),
                (3, 1) => Reply::Reset,
                _ => {
                    taken[number as usize].fetch_add(1, Ordering::SeqCst);
                    Reply::Status(204)
                }
            }
        })
    };
    let push = format!("{PUSH}concurrency = 8\n");
    let rules = rules(log, &backend, &push);
    let mut server = start(&rules);
    publish(&server, "orders:1", 0..20);
    all_done(&server, if end == "KILL" { 19 } else { 20 });
    server.signal(end);
    server.exit_status();
    is_stuck.store(false, Ordering::SeqCst);
    let server = start(&rules);
    publish(&server, "orders:2", 20..40);
    until("all are taken", || {
        let is_taken = |count: &AtomicU64| count.load(Ordering::SeqCst) > 0;
        taken.iter().all(is_taken).then_some(())
    });
    until("the group is done", || {
        (group(&server)?["lag"] == 0).then_some(())
    });
    let letters = server.api_result("dlq/list", &json!({}));
    assert_eq!(letters["letters"], json!([]));
}

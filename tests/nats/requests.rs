//! Request and reply over queue groups, on JetStream: see `support/request`.

use crate::nats_server::NatsServer;
use crate::support::request::reply_reaches_whoever_asks_and_stays_the_same;

#[test]
fn reply_reaches_whoever_asks_and_who_asks_again_gets_the_same() {
    let nats = NatsServer::start();
    let log = format!(
        "[durable]\nengine = \"nats\"\nnats.servers = [\"{}\"]",
        nats.url()
    );
    reply_reaches_whoever_asks_and_stays_the_same(&log);
}

//! Groups whose deliveries are posted, on JetStream: see `support/push`.

use crate::nats_server::NatsServer;
use crate::support::push::every_delivery_is_posted_until_it_is_taken;

#[test]
fn every_delivery_is_posted_until_the_target_has_taken_it() {
    let nats = NatsServer::start();
    let log = format!(
        "[durable]\nengine = \"nats\"\nnats.servers = [\"{}\"]",
        nats.url()
    );
    // What a killed process had comes again when its leases have run out, after a minute: nothing is under way here.
    every_delivery_is_posted_until_it_is_taken(&log, "TERM");
}

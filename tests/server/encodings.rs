//! What is written for many is written once.

use serde_json::json;

use crate::support::client::{Client, Encoding};
use crate::support::process::{Server, config};
use crate::support::stream::{Shape, Stream};

#[test]
fn a_publication_is_encoded_once_for_each_encoding_in_use() {
    let server = Server::start(&config(
        "[client]\ninsecure = true\nallowed_origins = [\"*\"]\n\n[http_stream]\nenabled = true\n\n[sse]\nenabled = true\n",
    ));
    let encoded = || {
        ["json", "protobuf"].map(|name| server.metric(&format!("ringmain_encoded_{name}_total")))
    };
    let publish = |n: u32| {
        server.api_result(
            "publish",
            &json!({ "channel": "shared", "data": { "n": n } }),
        );
    };
    let mut sockets: Vec<Client> = (0..3).map(|_| Client::anonymous(&server)).collect();
    for client in &mut sockets {
        client.subscribe("shared");
    }
    let mut streams =
        [Shape::Lines, Shape::Events].map(|shape| Stream::connect(&server, shape, &json!({})));
    for stream in &mut streams {
        stream.subscribe("shared");
    }
    for n in 0..5 {
        publish(n);
        for client in &mut sockets {
            assert_eq!(client.publication("shared")["data"]["n"], n);
        }
        for stream in &mut streams {
            assert_eq!(stream.next()["push"]["pub"]["data"]["n"], n);
        }
    }
    assert_eq!(encoded(), [5.0, 0.0], "nobody wants Protobuf");
    let mut binary: Vec<Client> = (0..3)
        .map(|_| Client::open_as(&server, Encoding::Protobuf).connect(&json!({})))
        .collect();
    for client in &mut binary {
        client.subscribe("shared");
    }
    for n in 5..8 {
        publish(n);
        for client in sockets.iter_mut().chain(&mut binary) {
            assert_eq!(client.publication("shared")["data"]["n"], n);
        }
    }
    assert_eq!(encoded(), [8.0, 3.0]);
    publish_to_nobody(&server);
    assert_eq!(encoded(), [8.0, 3.0], "nobody listens");
}

fn publish_to_nobody(server: &Server) {
    server.api_result("publish", &json!({ "channel": "empty", "data": {} }));
}

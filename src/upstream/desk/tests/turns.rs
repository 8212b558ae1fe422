//! Groups of one connection share its room.

use super::*;

#[test]
fn group_with_a_backlog_leaves_room_for_the_others_of_its_connection() {
    for bytes in [200, 900, 5000] {
        run(async {
            let log = MemoryLog::default();
            let payload = format!("\"{}\"", "x".repeat(bytes));
            let channel = |n: u64| {
                if n > 90 {
                    format!("a:{}", n % 2 + 1)
                } else {
                    "a:0".into()
                }
            };
            log.put_all(
                (1..=100).map(|n| memory::record(&channel(n), EventId(u128::from(n)), &payload)),
            );
            let log = Rc::new(log);
            let mut config = durable("a", Vec::new());
            config.client.queue_max_size = 4096;
            let table = Table::new(&log, &config);
            for group in 0..3 {
                let wish = json!({
                    "group": format!("g{group}"), "channels": [format!("a:{group}")], "credit": 100
                });
                assert!(table.ask(LogMethod::Consume, client(1), wish).await.is_ok());
            }
            let mut counts = BTreeMap::new();
            for _ in 0..40 {
                let (_, delivery) = table.delivery().await;
                let group = delivery["group"].as_str().expect("a group").to_owned();
                *counts.entry(group).or_insert(0) += 1;
                let ack = json!({ "delivery": delivery["delivery"] });
                assert!(table.ask(LogMethod::Ack, client(1), ack).await.is_ok());
            }
            for group in ["g0", "g1", "g2"] {
                let count = counts.get(group).copied().unwrap_or_default();
                assert!(count >= 5, "{bytes}: {counts:?}");
            }
        });
    }
}

//! Entries that are read here and there: how much is unpacked for them.

use super::*;
use crate::upstream::embedded::groups::parked;
use crate::upstream::log::LineId;

/// Steps of runs, all first ones before all second ones: what belongs together stands far apart.
#[test]
fn lines_whose_entries_stand_far_apart_unpack_each_block_once() {
    const RUNS: usize = 150;
    const STEPS: usize = 4;
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        log.open_group(&group("g", &["*"])).await.unwrap();
        for step in 0..STEPS {
            let batch =
                (0..RUNS).map(|run| append("steps:1", &format!("{{\"r\":{run},\"s\":{step}}}")));
            store(&log, batch.collect()).await;
        }
        let leased = log.fetch("g", RUNS * STEPS).await.unwrap();
        assert_eq!(leased.len(), RUNS * STEPS);
        let lined = leased.iter().enumerate().map(|(at, leased)| {
            let line = LineId((at % RUNS) as u64);
            (leased.lease, Settled::Lined(line))
        });
        log.settle("g", &lined.collect::<Vec<_>>()).await.unwrap();
        log.write_parked().unwrap();
        let number = log.group("g", |state| state.number()).unwrap();
        let (lines, unpacked) = log
            .reading(move |view, store| {
                let wanted: Vec<_> = (0..RUNS as u64)
                    .map(|line| (LineId(line), 0, STEPS))
                    .collect();
                let mut blocks = read::Blocks::default();
                let lines =
                    parked::first_of_lines(view, store, number, &wanted, 1 << 20, &mut blocks)?;
                Ok((lines, blocks.unpacked()))
            })
            .await
            .unwrap();
        for (line, found) in lines {
            let entries = found.iter().filter_map(|found| found.entry.clone());
            let expected: Vec<String> = (0..STEPS)
                .map(|step| format!("{{\"r\":{},\"s\":{step}}}", line.0))
                .collect();
            assert_eq!(data(&entries.collect::<Vec<_>>()), expected);
        }
        assert_eq!(unpacked, STEPS as u64, "one block for each append");
    });
}

/// However much is read, what is kept of it is bounded, and what is read is right.
#[test]
fn what_is_kept_unpacked_is_bounded() {
    const BLOCKS: usize = 40;
    let directory = TempDir::new().unwrap();
    run(async {
        let log = open(directory.path());
        let large = "x".repeat(400_000);
        for block in 0..BLOCKS {
            store(&log, vec![append("a", &format!("\"{block}{large}\""))]).await;
        }
        let most = log
            .reading(|view, _| {
                let mut blocks = read::Blocks::default();
                let mut most = 0;
                for round in 0..2 {
                    for cursor in 1..=BLOCKS as u64 {
                        let entry = blocks.entry(view, cursor)?.expect("it is there");
                        assert_eq!(entry.cursor, cursor, "round {round}");
                        most = most.max(blocks.bytes());
                    }
                }
                assert_eq!(
                    blocks
                        .entry(view, BLOCKS as u64 + 1)?
                        .map(|entry| entry.cursor),
                    None
                );
                Ok(most)
            })
            .await
            .unwrap();
        assert!(most < 6 << 20, "{most}");
    });
}

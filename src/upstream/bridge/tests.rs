//! The bridge before a log that takes one batch at a time and stands still with it, as the embedded one does whose disk hangs.

use tokio::task::LocalSet;

use super::*;
use crate::mesh::durable::DurableLink;
use crate::model::{AskId, EventId, Terms};
use crate::upstream::memory::{MemoryLog, record};

/// A publisher waits so long.
const PATIENCE: Duration = Duration::from_millis(100);
/// No event takes longer on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

struct House {
    link: DurableLink,
    bell: Arc<Bell>,
    report: watch::Receiver<Report>,
    /// Appends wait while it is true.
    stands_still: watch::Sender<bool>,
    next: u32,
    // As long as these are there, nobody tells the bridge to end.
    _stop: oneshot::Sender<()>,
    _ends: Box<dyn std::any::Any>,
}

impl House {
    fn open() -> Self {
        let mut config = Config::built_in();
        config.durable.append_timeout = PATIENCE;
        let config = Arc::new(config);
        let bell = Arc::new(Bell::default());
        let link = DurableLink::new(Arc::<Bell>::clone(&bell));
        let (stands_still, stands) = watch::channel(false);
        let mut log = MemoryLog::default();
        log.stands_still = Some(stands);
        let (report_in, report) = watch::channel(Report::default());
        let (stop, stopped) = oneshot::channel();
        let (configs_in, configs) = watch::channel(Arc::clone(&config));
        let (questions_in, questions) = mpsc::channel(1);
        let (copies_in, copies) = mpsc::channel(1);
        let (values_in, values) = mpsc::channel(1);
        let (hooks, hooks_out) = mpsc::channel(1);
        let (pushes, pushes_out) = mpsc::channel(1);
        let shard = ShardEnd {
            link: link.clone(),
            bell: Arc::new(Bell::default()),
        };
        let parts = Parts {
            config,
            shards: vec![shard],
            bell: Arc::clone(&bell),
            owner: |_, _| ShardId(0),
            configs,
            questions,
            copies,
            values,
            hooks,
            pushes,
        };
        tokio::task::spawn_local(run(log, parts, report_in, stopped));
        Self {
            link,
            bell,
            report,
            stands_still,
            next: 0,
            _stop: stop,
            _ends: Box::new((
                configs_in,
                questions_in,
                copies_in,
                values_in,
                hooks_out,
                pushes_out,
            )),
        }
    }

    /// A shard asks for an append: its number.
    fn append(&mut self) -> u32 {
        use crate::mesh::bell::Doorbell as _;
        self.next += 1;
        let id = RequestId(AskId {
            slot: self.next,
            generation: 0,
        });
        let record = record("orders:1", EventId(u128::from(self.next)), "1");
        let mut draft = Draft::new(
            Terms::log(Duration::ZERO),
            record.channel.clone(),
            record.data.clone(),
            true,
        );
        draft.record = record;
        let asked = self.link.requests.push(ToLog::Append(id, Box::new(draft)));
        assert!(asked.is_ok(), "there is room");
        self.bell.ring();
        self.next
    }

    /// The next answers to appends: whose, and whether they are kept or when to come again.
    async fn answers(&mut self) -> Vec<(u32, Result<(), Duration>)> {
        let appended = async {
            loop {
                match self.link.answers.pop() {
                    Some(FromLog::Appended(results)) => return results,
                    Some(_) => {}
                    None => tokio::time::sleep(OFFER_INTERVAL).await,
                }
            }
        };
        let results = tokio::time::timeout(DEADLINE, appended).await;
        let results = results.expect("an answer").into_iter();
        results
            .map(|(id, result)| {
                let told = |error: LogError| error.retry_after().expect("it is temporary");
                (id.0.slot, result.map(|_| ()).map_err(told))
            })
            .collect()
    }

    /// The log has got what was asked.
    async fn taken(&self) {
        while !self.link.requests.is_empty() {
            tokio::time::sleep(OFFER_INTERVAL).await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    async fn breaker_is(&mut self, name: &str) {
        let shown = self.report.wait_for(|report| report.breaker == name);
        let shown = tokio::time::timeout(DEADLINE, shown).await;
        assert!(shown.is_ok_and(|shown| shown.is_ok()), "{name}");
    }
}

#[tokio::test]
async fn what_a_log_that_stands_still_has_not_got_is_refused_and_what_it_has_is_kept() {
    let check = async {
        let mut house = House::open();
        let first = house.append();
        assert_eq!(house.answers().await, [(first, Ok(()))]);
        house.stands_still.send_replace(true);
        let in_the_log = house.append();
        house.breaker_is("closed").await;
        house.taken().await;
        let (one, two) = (house.append(), house.append());
        let refused = house.answers().await;
        let numbers: Vec<u32> = refused.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [one, two], "{in_the_log} is with the log");
        house.breaker_is("open").await;
        let late = house.append();
        let answers = house.answers().await;
        assert_eq!(answers.len(), 1);
        assert!(answers[0].0 == late && answers[0].1.is_err_and(|wait| !wait.is_zero()));
        house.stands_still.send_replace(false);
        assert_eq!(house.answers().await, [(in_the_log, Ok(()))]);
        house.breaker_is("closed").await;
        let next = house.append();
        assert_eq!(house.answers().await, [(next, Ok(()))]);
        let report = house.report.borrow().clone();
        assert_eq!(report.breaker_opened, 1);
    };
    LocalSet::new().run_until(check).await;
}

//! Where the server's answers to appends come in.

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;

use crate::upstream::nats::link::Link;

/// One subscription, and while a connection goes over to another one also that of the connection before: what was sent over one may
/// be answered over both, and the second answer finds nobody who waits.
pub(super) struct Answers {
    line: u64,
    newest: Subscriber,
    before: Option<Subscriber>,
}

impl Answers {
    pub(super) async fn begin(link: &Link, inbox: &str) -> Option<Self> {
        Some(Self {
            line: link.newest(),
            newest: subscribe(link, inbox).await?,
            before: None,
        })
    }

    /// Hears also what comes over the connection in use.
    pub(super) async fn follow(&mut self, link: &Link, inbox: &str) {
        let line = link.newest();
        if self.line == line {
            return;
        }
        if let Some(newest) = subscribe(link, inbox).await {
            self.before = Some(std::mem::replace(&mut self.newest, newest));
            self.line = line;
        }
    }

    pub(super) async fn next(&mut self) -> Message {
        if let Some(before) = &mut self.before {
            tokio::select! {
                Some(answer) = self.newest.next() => return answer,
                answer = before.next() => match answer {
                    Some(answer) => return answer,
                    None => self.before = None,
                },
            }
        }
        match self.newest.next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

async fn subscribe(link: &Link, inbox: &str) -> Option<Subscriber> {
    link.client().subscribe(format!("{inbox}.*")).await.ok()
}

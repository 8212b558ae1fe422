//! What a shard tells control. A report that finds the queue full waits here, so none is lost.

use std::collections::VecDeque;

use crate::mesh::control::{ControlLink, FromShard};
use crate::mesh::durable::{FromLog, ToLog};
use crate::mesh::hook::{Call, HookAnswer};

/// Reports on their way.
pub(super) struct Reports {
    held: VecDeque<FromShard>,
    link: ControlLink,
    /// The report after which the thread ends was handed over.
    ended: bool,
    /// A call was handed over since the bell was last rung.
    called: bool,
    /// A request to the log was handed over since its bell was last rung.
    asked: bool,
    /// Requests to the log that found its queue full.
    unasked: VecDeque<ToLog>,
}

impl Reports {
    pub(super) fn new(link: ControlLink) -> Self {
        Self {
            held: VecDeque::new(),
            link,
            ended: false,
            called: false,
            asked: false,
            unasked: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, report: FromShard) {
        self.held.push_back(report);
    }

    /// A backend is to be asked. The shard has no more calls under way than the queue has places.
    pub(super) fn call(&mut self, call: Box<Call>) {
        assert!(
            self.link.hooks.calls.push(call).is_ok(),
            "a shard has more calls under way than it may"
        );
        self.called = true;
    }

    /// The log is to be asked. The shard has no more requests under way than the queue has places, but for the ends of workers.
    pub(super) fn ask_log(&mut self, request: ToLog) {
        self.asked = true;
        if !self.unasked.is_empty() {
            self.unasked.push_back(request);
        } else if let Err(request) = self.link.durable.requests.push(request) {
            self.unasked.push_back(request);
        }
    }

    /// What the log says next.
    pub(super) fn next_from_log(&self) -> Option<FromLog> {
        self.link.durable.answers.pop()
    }

    /// The next answer of a backend.
    pub(super) fn next_answer(&self) -> Option<HookAnswer> {
        self.link.hooks.answers.pop()
    }

    /// Hands over what the queue takes.
    pub(super) fn hand_over(&mut self) {
        while let Some(request) = self.unasked.pop_front() {
            if let Err(request) = self.link.durable.requests.push(request) {
                self.unasked.push_front(request);
                break;
            }
        }
        if std::mem::take(&mut self.asked) {
            self.link.durable.bell.ring();
        }
        if std::mem::take(&mut self.called) {
            self.link.hooks.bell.ring();
        }
        let mut any = false;
        while let Some(report) = self.held.pop_front() {
            let last = matches!(report, FromShard::Drained(..));
            if let Err(report) = self.link.reports.push(report) {
                self.held.push_front(report);
                break;
            }
            any = true;
            self.ended |= last;
        }
        if any {
            self.link.bell.ring();
        }
    }

    /// The shard has drained and control knows.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The next word of control.
    pub(super) fn next_command(&self) -> Option<crate::mesh::control::ToShard> {
        self.link.inbox.pop()
    }

    /// Control said something.
    pub(super) fn has_command(&self) -> bool {
        !self.link.inbox.is_empty()
            || !self.link.hooks.answers.is_empty()
            || !self.link.durable.answers.is_empty()
    }
}

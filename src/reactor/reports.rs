//! What a shard tells control. A report that finds the queue full waits here, so none is lost.

use std::collections::VecDeque;

use crate::mesh::control::{ControlLink, FromShard};

/// Reports on their way.
pub(super) struct Reports {
    held: VecDeque<FromShard>,
    link: ControlLink,
    /// The report after which the thread ends was handed over.
    ended: bool,
}

impl Reports {
    pub(super) fn new(link: ControlLink) -> Self {
        Self { held: VecDeque::new(), link, ended: false }
    }

    pub(super) fn push(&mut self, report: FromShard) {
        self.held.push_back(report);
    }

    /// Hands over what the queue takes.
    pub(super) fn hand_over(&mut self) {
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
    }
}

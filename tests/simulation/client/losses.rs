//! What a client did not get, against what it was told of it.

use std::collections::BTreeSet;

use super::super::setup::is_latest;
use super::super::truth::{Truth, key_of};
use super::Client;

/// What a client missed of a channel during one connection, and was told of it.
#[derive(Debug, Default)]
pub struct Losses {
    /// Offsets that were left out of what it got.
    pub missed: BTreeSet<u64>,
    /// Offset and number of what it got.
    pub got: Vec<(u64, u64)>,
    /// Numbers of those that it got without an offset, which come at any place.
    pub bare: Vec<u64>,
    /// How many it was told that it missed; of how many the number is not known.
    pub told: u64,
    /// Of these, those in whose place later ones with their key come.
    pub conflated: u64,
    pub is_vague: bool,
    /// Offsets of the first and the last of those.
    pub ranges: Vec<(u64, u64)>,
    /// Subscriptions to it.
    pub subscriptions: u32,
}

impl Losses {
    /// Everything that is missing of a channel that ends at `top` was said, to the last one.
    pub fn check(
        &self,
        channel: &str,
        epoch: Option<&str>,
        top: Option<u64>,
        truth: Option<&Truth>,
    ) {
        let last = self.got.last().map_or(0, |&(offset, _)| offset);
        let tail = top.map_or(0, |top| top.saturating_sub(last));
        let missed = self.missed.len() as u64 + tail;
        let told = self.told;
        assert!(
            self.is_vague || told >= missed,
            "{missed} publications of {channel} are missing, and it was told of {told}: {self:?}"
        );
        let covered = |offset: u64| self.ranges.iter().any(|&(a, b)| (a..=b).contains(&offset));
        let ends = (last + 1..=last + tail).chain(self.missed.iter().copied());
        for offset in ends.filter(|_| !self.is_vague) {
            assert!(
                covered(offset),
                "{offset} of {channel} is in none of {self:?}"
            );
        }
        // What has no offset leaves no hole in those of the others, and is told of all the same.
        let bare = || truth.map_or(0, |truth| truth.without_offset(channel));
        // What it was told of while it was not there yet, or no more, nobody knows.
        let first = self.got.first().map_or(0, |&(offset, _)| offset);
        let is_early = self.ranges.iter().any(|&(from, _)| from < first);
        if top.is_some() && !self.is_vague && !is_early && self.subscriptions == 1 {
            assert!(
                told == missed || told <= missed + bare(),
                "{channel}: {self:?}"
            );
        }
        if let (Some(epoch), Some(truth)) = (epoch, truth) {
            let is_replaced = |offset: &&u64| {
                let Some(n) = truth.at(channel, epoch, **offset) else {
                    return true;
                };
                let later = self.got.iter().filter(|(at, _)| at > *offset);
                let later = later.map(|&(_, n)| n).chain(self.bare.iter().copied());
                key_of(n).is_some() && later.clone().any(|later| key_of(later) == key_of(n))
            };
            let replaced = self.missed.iter().filter(is_replaced).count() as u64 + tail;
            assert!(
                self.subscriptions > 1
                    || is_early
                    || self.conflated <= replaced
                    || self.conflated <= replaced + bare(),
                "{channel}: nothing comes in the place of what was conflated: {self:?}"
            );
        }
    }
}

impl Client {
    /// Whoever is not positioned has everything of a channel that ends at `top`, or was told of as many as it has not.
    pub fn check_told(&self, channel: &str, epoch: &str, top: u64, truth: &Truth) {
        let untracked = self.subs.get(channel).filter(|sub| sub.next.is_none());
        // Where only the latest comes, that is what it has.
        if !is_latest(channel)
            && untracked.is_some_and(|sub| sub.last_offset > 0)
            && let Some(losses) = self.losses.get(channel)
        {
            losses.check(channel, Some(epoch), Some(top), Some(truth));
        }
    }
}

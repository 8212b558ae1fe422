//! The rules of a group: who makes it, who joins it as it is, and who may change it.
//!
//! A group is made by the first wish that names its channels. Later ones join it where what they name is what counts; what
//! differs is refused, lest two workers with different rules change a group back and forth, unless `update` says that it is
//! meant. Who changes a group may take from all of its channels, those before and those after.

use std::rc::Rc;

use super::group::{Group, Taker, Window};
use super::settings::{Settings, Wish, WishError, is_group_name};
use super::start::From;
use super::triggers::Rule;
use super::{Inner, Outlet, Place, bad_request, closed, grant, own, wrong};
use crate::limits::GROUPS_AT_DESK_MAX;
use crate::mesh::durable::{Caller, LogError};
use crate::model::TenantId;
use crate::upstream::log::{Entries, Group as LogGroup, Groups, Letters, Values};

/// What a wish makes of a group's rules: `None` leaves them as they are.
fn judge(before: &Settings, wish: &Wish, caller: &Caller) -> Result<Option<Settings>, LogError> {
    let settings = wish.settings(Some(before)).map_err(wrong)?;
    let differs = before.differences(&settings);
    if !differs.is_empty() && !wish.update {
        let names = differs.join("`, `");
        let text = format!(
            "rules differ: the group has other `{names}`; leave them out to join it as it is, or change it with `update`"
        );
        return Err(LogError::BadRequest(text.into()));
    }
    grant::permit(caller, &wish.group, &before.channels)?;
    grant::permit(caller, &wish.group, &settings.channels)?;
    Ok((!differs.is_empty()).then_some(settings))
}

impl<L: Entries + Groups + Letters + Values, O: Outlet> Inner<L, O> {
    /// The group of a wish, made or changed as it says.
    pub(super) async fn open(
        self: &Rc<Self>,
        wish: &Wish,
        caller: &Caller,
    ) -> Result<Rc<Place>, LogError> {
        if !is_group_name(&wish.group) {
            return Err(wrong(WishError::Group));
        }
        // Before anything is said of the group, and before others wait for it.
        let channels = wish.channels.as_deref().unwrap_or_default();
        grant::permit(caller, &wish.group, channels)?;
        wish.check().map_err(wrong)?;
        if let Some(place) = self.place(&wish.group).filter(|place| !place.is_gone.get()) {
            let before = place.group.borrow().settings().clone();
            if let Ok(None) = judge(&before, wish, caller) {
                return Ok(place);
            }
        }
        let _one = self.opening.lock().await;
        if self.is_closed.get() {
            return Err(closed());
        }
        if let Some(place) = self.known(&wish.group).await? {
            let before = place.group.borrow().settings().clone();
            let Some(settings) = judge(&before, wish, caller)? else {
                return Ok(place);
            };
            if settings.channels != before.channels {
                self.check_reach(&settings.channels)?;
            }
            return self
                .make(&wish.group, settings, From::Beginning, None)
                .await;
        }
        if wish.channels.is_none() {
            return Err(self.absent(&wish.group));
        }
        let settings = wish.settings(None).map_err(wrong)?;
        grant::permit(caller, &wish.group, &settings.channels)?;
        self.check_reach(&settings.channels)?;
        let from = wish.from.clone().unwrap_or_default();
        let from = self.resolve(&from, &settings.channels).await?;
        self.make(&wish.group, settings, from, None).await
    }

    /// The group as the log knows it: another process may have made or changed it.
    pub(super) async fn known(self: &Rc<Self>, name: &str) -> Result<Option<Rc<Place>>, LogError> {
        let place = self.place(name).filter(|place| !place.is_gone.get());
        let of_log = self.log.groups().await?;
        let Some(of_log) = of_log.iter().find(|group| *group.name == *name) else {
            // If it is here, it is deleted elsewhere: whoever fetches from it is told.
            return Ok(place);
        };
        let settings = self.stored_settings(of_log).await?;
        match place {
            Some(place) => {
                let now = self.now();
                let mut group = place.group.borrow_mut();
                if !group.settings().differences(&settings).is_empty() {
                    group.handle_settings(now, settings);
                    place.wake.notify_one();
                }
                drop(group);
                Ok(Some(place))
            }
            None => self.start(name, settings, None).map(Some),
        }
    }

    /// The rules of a group of the log.
    pub(super) async fn stored_settings(&self, group: &LogGroup) -> Result<Settings, LogError> {
        let text = self.log.get(&format!("group/{}", group.name)).await?;
        let stored = text.and_then(|text| serde_json::from_slice::<Settings>(&text).ok());
        Ok(stored.unwrap_or_else(|| Settings {
            channels: group.channels.clone(),
            ..Settings::default()
        }))
    }

    /// Every name and pattern may mean a channel whose publications are kept.
    pub(super) fn check_reach(&self, channels: &[Box<str>]) -> Result<(), LogError> {
        let config = self.config.borrow();
        let mut channels = channels.iter();
        match channels.find(|channel| !config.channels.reaches_durable_whole(channel)) {
            Some(channel) => Err(LogError::BadRequest(
                format!("`{}` means no channel of a durable namespace: nothing would ever come from there", own(channel)).into(),
            )),
            None => Ok(()),
        }
    }

    /// Is there room for one more group, or this one there already? Before anything of it is kept.
    fn check_room(&self, name: &str) -> Result<(), LogError> {
        let by_name = self.by_name.borrow();
        if by_name.contains_key(name) {
            return Ok(());
        }
        if by_name.len() >= GROUPS_AT_DESK_MAX {
            return Err(bad_request("there are as many groups as there may be"));
        }
        let (tenant, _) = TenantId::split(name);
        let config = self.config.borrow();
        let limits = config.channels.limits_of(tenant);
        let most = limits.map_or(0, |(limits, _)| limits.queue_groups_max as usize);
        let own = by_name
            .keys()
            .filter(|name| TenantId::split(name).0 == tenant);
        if most > 0 && own.count() >= most {
            return Err(LogError::Full(
                format!("there are {most} queue groups already, as many as there may be").into(),
            ));
        }
        Ok(())
    }

    /// Makes a group or changes it.
    pub(super) async fn make(
        self: &Rc<Self>,
        name: &str,
        settings: Settings,
        from: From,
        trigger: Option<Rc<Rule>>,
    ) -> Result<Rc<Place>, LogError> {
        self.check_room(name)?;
        let of_log = LogGroup {
            name: name.into(),
            channels: settings.channels.clone(),
            from_beginning: from == From::Beginning,
            start_after: from.after(),
            lease: settings.lease(),
            ordered: settings.is_of_one(),
        };
        let text = serde_json::to_vec(&settings).map_err(|_| bad_request("settings"))?;
        self.log.put(&format!("group/{name}"), Some(&text)).await?;
        self.log.open_group(&of_log).await?;
        if let Some(place) = self.place(name) {
            let now = self.now();
            {
                let mut group = place.group.borrow_mut();
                group.handle_settings(now, settings);
                if let (Some(rule), Some(before)) = (&trigger, &*place.trigger.borrow()) {
                    group.handle_credit(Taker::Trigger, rule.credit());
                    let joins = rule.joining().or(before.joining()).is_some();
                    // Other parts may belong together now.
                    let is_unsure = joins && !rule.is_as(before) || place.is_unsure_of_lines.get();
                    place.is_unsure_of_lines.set(is_unsure);
                    if before.joining().is_some() && rule.joining().is_none() {
                        place.joins.borrow_mut().restart(0);
                        group.handle_waiting(0);
                    }
                }
            }
            *place.trigger.borrow_mut() = trigger;
            self.count_limited();
            place.wake.notify_one();
            tracing::info!(group = name, "the rules of a queue group are changed");
            return Ok(place);
        }
        tracing::info!(group = name, channels = ?settings.channels, "a queue group is made");
        self.start(name, settings, trigger)
    }

    pub(super) fn start(
        self: &Rc<Self>,
        name: &str,
        settings: Settings,
        trigger: Option<Rc<Rule>>,
    ) -> Result<Rc<Place>, LogError> {
        let mut groups = self.groups.borrow_mut();
        let index = self.free_index(&groups);
        if index >= GROUPS_AT_DESK_MAX {
            return Err(bad_request("there are as many groups as there may be"));
        }
        self.deleted.borrow_mut().forget_index(index);
        let seed = self.rng.borrow_mut().bits();
        let credit = trigger.as_ref().map(|rule| rule.credit());
        let mut group = Group::new(name, index, settings, seed);
        group.keep_retries(L::RETRY_KEPT);
        let place = Rc::new(Place {
            name: name.into(),
            index,
            group: std::cell::RefCell::new(group),
            wake: tokio::sync::Notify::new(),
            is_gone: std::cell::Cell::new(false),
            is_deleted: std::cell::Cell::new(false),
            ended: std::cell::Cell::new(false),
            is_unsure_of_lines: std::cell::Cell::new(true),
            syncs: std::cell::RefCell::default(),
            seek: std::cell::RefCell::default(),
            is_seeking: std::cell::Cell::default(),
            sought: std::cell::Cell::default(),
            pace: std::cell::Cell::default(),
            lag: std::cell::Cell::default(),
            came: std::cell::Cell::default(),
            refused: std::cell::Cell::default(),
            lost_told: std::cell::Cell::new(None),
            dead_told: std::cell::Cell::new((0, None)),
            copied_by: std::cell::RefCell::default(),
            trigger: std::cell::RefCell::new(trigger),
            joins: std::cell::RefCell::default(),
            push: std::cell::RefCell::default(),
        });
        if let Some(credit) = credit {
            place.group.borrow_mut().handle_joined(
                Taker::Trigger,
                credit,
                &Window::new(usize::MAX),
                "trigger",
            );
        }
        if index == groups.len() {
            groups.push(Some(Rc::clone(&place)));
        } else {
            groups[index] = Some(Rc::clone(&place));
        }
        self.by_name.borrow_mut().insert(name.into(), index);
        drop(groups);
        self.count_limited();
        tokio::task::spawn_local(Rc::clone(self).drive(Rc::clone(&place)));
        Ok(place)
    }

    /// An index that no group has; one that a deleted group had only where there is no other.
    fn free_index(&self, groups: &[Option<Rc<Place>>]) -> usize {
        let deleted = self.deleted.borrow();
        let is_free = |at: &usize| groups.get(*at).is_none_or(Option::is_none);
        let fresh = (0..=groups.len()).find(|at| is_free(at) && deleted.at(*at).is_none());
        fresh
            .filter(|at| *at < GROUPS_AT_DESK_MAX)
            .or_else(|| (0..groups.len()).find(is_free))
            .unwrap_or(GROUPS_AT_DESK_MAX)
    }
}

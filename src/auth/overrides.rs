//! Options of a namespace that a token or a backend sets for one subscription, as they stand in JSON: `{"presence": {"value": true}}`.

use crate::model::Overrides;
use crate::wire::json::fields;

/// `override` as sent; lowered to `Overrides`.
#[derive(Default)]
pub(crate) struct RawOverride {
    presence: Option<Flag>,
    join_leave: Option<Flag>,
    force_push_join_leave: Option<Flag>,
    force_recovery: Option<Flag>,
    force_positioning: Option<Flag>,
}
fields!(RawOverride {
    "presence" => presence,
    "join_leave" => join_leave,
    "force_push_join_leave" => force_push_join_leave,
    "force_recovery" => force_recovery,
    "force_positioning" => force_positioning,
});

/// An option that is set: `{}` and `{"value": null}` are `false`, as the reference has it.
#[derive(Default)]
struct Flag {
    value: bool,
}
fields!(Flag { "value" => value });

impl RawOverride {
    /// What is not set stays the namespace's.
    pub(crate) fn lower(self) -> Overrides {
        let value = |flag: Option<Flag>| flag.map(|flag| flag.value);
        Overrides {
            presence: value(self.presence),
            join_leave: value(self.join_leave),
            force_push_join_leave: value(self.force_push_join_leave),
            force_recovery: value(self.force_recovery),
            force_positioning: value(self.force_positioning),
        }
    }
}

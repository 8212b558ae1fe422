//! Options of a namespace that a token or a backend sets for one subscription, as they stand in JSON: `{"presence": {"value": true}}`.

use serde::Deserialize;

use crate::model::Overrides;

/// `override` as sent; lowered to `Overrides`.
#[derive(Default, Deserialize)]
pub(crate) struct RawOverride {
    presence: Option<Flag>,
    join_leave: Option<Flag>,
    force_push_join_leave: Option<Flag>,
    force_recovery: Option<Flag>,
    force_positioning: Option<Flag>,
}

#[derive(Deserialize)]
struct Flag {
    #[serde(default)]
    value: bool,
}

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

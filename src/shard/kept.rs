//! What is kept of a client's request for the session behind it, and for backends.

use crate::config::Config;
use crate::limits::{HOOK_HEADERS_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::mesh::hook::HookHeader;
use crate::model::{TenantId, UserId};
use crate::session::Session;
use crate::wire::http::RequestHead;

/// What a transport's request says about its client, for the session that follows.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Headers that a target of hooks wants.
    pub(super) headers: Vec<HookHeader>,
    /// Whose client it is, as far as the request says: of the tenant of its host or path, and by `client.user_id_http_header`.
    pub(super) user: UserId,
}

impl Kept {
    /// What is kept of a request. A user id that is too long is none: its client is then not known.
    pub(super) fn of(config: &Config, tenant: TenantId<'_>, head: &RequestHead<'_>) -> Self {
        let mut kept = Self {
            user: UserId::new(tenant, ""),
            ..Self::default()
        };
        let name = &config.client.user_id_http_header;
        if !name.is_empty()
            && let Some(user) = head.header(name)
            && user.len() <= USER_ID_BYTES_MAX
        {
            kept.user = UserId::new(tenant, user);
        }
        let mut room = HOOK_HEADERS_BYTES_MAX;
        for name in config.forwarded_headers() {
            if kept.headers.iter().any(|(one, _)| **one == **name) {
                continue;
            }
            if let Some(value) = head.header(name)
                && name.len() + value.len() <= room
            {
                room -= name.len() + value.len();
                kept.headers.push((name.as_str().into(), value.into()));
            }
        }
        kept
    }

    /// The session knows it from here on.
    pub(super) fn hand_to(self, session: &mut Session) {
        session.user = self.user;
        session.keep_headers(self.headers);
    }
}

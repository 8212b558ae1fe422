//! A shard as bytes, for another process that goes on where this one stops. It has the same configuration and the same key, as many
//! shards, the same slots, and a clock that runs on.
//!
//! A section for each room, and one for what the rooms have in common. What has no image is `Unmoved`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::api::ApiCalls;
use super::connection::Connection;
use super::connections::Connections;
use super::drain::Draining;
use super::inbox::PublishedTo;
use super::intake::Intake;
use super::keys::KeyWaits;
use super::local::Local;
use super::outgoing::Outgoing;
use super::owned::Owned;
use super::people::People;
use super::questions::Questions;
use super::tables::Filling;
use super::waits::Waits;
use super::{Mode, Shard, key_of_tables};
use crate::config::Config;
use crate::image::{Image, ImageError, ImageReader, ImageSection, ImageWriter, image};
use crate::limits;
use crate::mem::{Key, Rng, Secrets, Shares};
use crate::mesh::Endpoint;
use crate::mesh::control::FromShard;
use crate::mesh::message::{PublishError, PublishFor};
use crate::metrics::Counters;
use crate::model::{ConnId, ShardId};
use crate::session::late::Late;
use crate::session::{Calls, Requests, Tokens};
use crate::speaker::Compression;
use crate::time::Now;
use crate::wire::http::DateLine;
use crate::wire::websocket::Inflater;

/// A kind of section: its tag, and the version that is written and read here.
struct SectionKind {
    tag: u16,
    version: u16,
}

/// Which shard it is, of how many, and what belongs to none of its rooms.
const SHARD: SectionKind = SectionKind { tag: 1, version: 3 };
/// See `connections`.
const CONNECTIONS: SectionKind = SectionKind { tag: 2, version: 3 };
/// See `owned`.
const OWNED: SectionKind = SectionKind { tag: 3, version: 2 };
/// See `people`.
const PEOPLE: SectionKind = SectionKind { tag: 4, version: 2 };
/// See `local`.
const LOCAL: SectionKind = SectionKind { tag: 5, version: 3 };
/// See `questions`.
const QUESTIONS: SectionKind = SectionKind { tag: 6, version: 1 };
/// See `keys`.
const KEYS: SectionKind = SectionKind { tag: 7, version: 2 };

impl SectionKind {
    fn write(&self, out: &mut ImageWriter, write: impl FnOnce(&mut ImageWriter)) {
        out.section(self.tag, self.version, write);
    }

    /// Reads a section of this kind whole, in the place of nothing.
    fn read<'a, T>(
        &self,
        section: ImageSection<'a>,
        place: &mut Option<T>,
        read: impl FnOnce(&mut ImageReader<'a>) -> Result<T, ImageError>,
    ) -> Result<(), ImageError> {
        let mut inside = section.of_version(self.version)?;
        let value = read(&mut inside)?;
        inside.end()?;
        if place.replace(value).is_some() {
            return Err(ImageError::Section(self.tag));
        }
        Ok(())
    }

    fn of<T>(&self, place: Option<T>) -> Result<T, ImageError> {
        place.ok_or(ImageError::Missing(self.tag))
    }
}

image!(enum Mode { 0 => Proxy, 1 => Echo });
image!(struct Now { at, unix_ms });
image!(struct PublishFor { conn, id, by_rpc });
image!(enum PublishError { 0 => UnknownChannel, 1 => Overloaded, 2 => TooManyNew, 3 => TooFast(ms), 4 => TenantFull });

/// What a shard has no image of: ends of queues to others, and what others are asked and answer soon, which their askers wait for no
/// longer than they would.
pub struct Unmoved {
    mesh: Endpoint,
    api_calls: ApiCalls,
    waits: Waits,
    hook_calls: Calls,
    log: Requests,
    late: Late,
    outgoing: Outgoing,
    reports: VecDeque<FromShard>,
    tokens: Tokens,
}

impl Unmoved {
    /// Of a shard that begins.
    #[must_use]
    pub fn new(mesh: Endpoint, config: &Config) -> Self {
        Self {
            mesh,
            api_calls: ApiCalls::default(),
            waits: Waits::default(),
            hook_calls: Calls::default(),
            log: Requests::default(),
            late: Late::default(),
            outgoing: Outgoing::default(),
            reports: VecDeque::new(),
            tokens: Tokens::new(config),
        }
    }

    /// Nothing is under way: who goes on without it loses nothing but what it had learned of keys.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let Self {
            mesh,
            api_calls,
            waits,
            hook_calls,
            log,
            late,
            outgoing,
            reports,
            tokens: _,
        } = self;
        mesh.is_idle()
            && api_calls.under_way() == 0
            && waits.len() == 0
            && hook_calls.under_way() == 0
            && log.is_idle()
            && late.is_empty()
            && outgoing.is_empty()
            && reports.is_empty()
    }

    /// The queues to the other shards, for the shard that comes next.
    #[must_use]
    pub fn into_endpoint(self) -> Endpoint {
        self.mesh
    }
}

/// What an image says.
pub(super) struct Moved {
    shard: Common,
    connections: Connections,
    owned: Owned,
    people: People,
    local: Local,
    questions: Questions,
    key_waits: KeyWaits,
}

/// What belongs to no room.
struct Common {
    id: ShardId,
    shards: u16,
    mode: Mode,
    uid: String,
    rng: Rng,
    secrets: Secrets,
    counters: Counters,
    now: Now,
    drain: Option<Draining>,
    intake: Intake,
    filling: Filling,
    has_messages: bool,
    inflated: usize,
    inflating: VecDeque<ConnId>,
    taken: usize,
    ready: VecDeque<ConnId>,
    published: Vec<PublishedTo>,
    waiting_bytes: usize,
    waiting_shares: Shares,
}

impl Common {
    fn read(key: &[u8; 32], from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        let id: ShardId = Image::read(from)?;
        Ok(Self {
            id,
            shards: Image::read(from)?,
            mode: Image::read(from)?,
            uid: Image::read(from)?,
            rng: Image::read(from)?,
            secrets: Secrets::new(key, id.0).read(from)?,
            counters: Image::read(from)?,
            now: Image::read(from)?,
            drain: Image::read(from)?,
            intake: Image::read(from)?,
            filling: Image::read(from)?,
            has_messages: Image::read(from)?,
            inflated: Image::read(from)?,
            inflating: Image::read(from)?,
            taken: Image::read(from)?,
            ready: Image::read(from)?,
            published: Image::read(from)?,
            waiting_bytes: Image::read(from)?,
            waiting_shares: Shares::read(usize::MAX, limits::WAITING_BYTES_SHARD_MAX, from)?,
        })
    }
}

impl Shard {
    /// What moves of it, between two turns.
    ///
    /// # Panics
    /// In the middle of a turn: polled bytes are not with the kernel, or something is due. And where a connection has a window of
    /// compression to itself (`ringmain echo --deflate`): nobody else can go on with it.
    #[must_use]
    pub fn to_image(&self) -> Vec<u8> {
        let Self {
            id,
            mode,
            config,
            people,
            connections,
            local,
            owned,
            mesh,
            questions,
            key_waits,
            drain,
            intake,
            counters,
            rng,
            now,
            uid,
            inflated,
            inflating,
            secrets,
            waiting_bytes,
            waiting_shares,
            has_messages,
            taken,
            ready,
            published,
            filling,
            // See `Unmoved`.
            calls: _,
            waits: _,
            hooks: _,
            log: _,
            late: _,
            outgoing: _,
            reports: _,
            // Everybody who reads the image has it.
            key: _,
            // Follow from the configuration and the clock.
            compression: _,
            date: _,
            // Kept for their capacity.
            scratch: _,
            spares: _,
            // Empty when a handler is over.
            key_wanted,
            said,
            ended,
            moved,
            marks,
        } = self;
        let is_told = said.is_empty() && ended.is_empty() && moved.is_empty();
        let is_done = is_told && marks.is_empty();
        assert!(is_done && key_wanted.is_none(), "a handler is over");
        let mut out = ImageWriter::default();
        SHARD.write(&mut out, |out| {
            id.write(out);
            mesh.shards().write(out);
            mode.write(out);
            uid.write(out);
            rng.write(out);
            secrets.write(out);
            counters.write(out);
            now.write(out);
            drain.write(out);
            intake.write(out);
            filling.write(out);
            has_messages.write(out);
            inflated.write(out);
            inflating.write(out);
            taken.write(out);
            ready.write(out);
            published.write(out);
            waiting_bytes.write(out);
            waiting_shares.write(out);
        });
        CONNECTIONS.write(&mut out, |out| connections.write_image(out));
        OWNED.write(&mut out, |out| owned.write_image(config, out));
        PEOPLE.write(&mut out, |out| people.write_image(out));
        LOCAL.write(&mut out, |out| local.write_image(&config.channels, out));
        QUESTIONS.write(&mut out, |out| questions.write_image(out));
        KEYS.write(&mut out, |out| key_waits.write(out));
        out.finish()
    }

    /// What is left of it when it has been written: for whoever goes on with its image in the same process.
    #[must_use]
    pub fn into_unmoved(self) -> Unmoved {
        self.give_places();
        Unmoved {
            mesh: self.mesh,
            api_calls: self.calls,
            waits: self.waits,
            hook_calls: self.hooks,
            log: self.log,
            late: self.late,
            outgoing: self.outgoing,
            reports: self.reports,
            tokens: self.people.into_tokens(),
        }
    }

    /// The shard that an image was taken of. It has the same configuration and the same key (`with_key`).
    ///
    /// # Errors
    /// The image is damaged, of another release, or of another shard.
    pub fn from_image(
        image: &[u8],
        config: Arc<Config>,
        key: &[u8; 32],
        unmoved: Unmoved,
    ) -> Result<Self, ImageError> {
        let moved = Moved::read(image, &config, key)?;
        let Common {
            id,
            shards,
            mode,
            uid,
            rng,
            secrets,
            counters,
            now,
            drain,
            intake,
            filling,
            has_messages,
            inflated,
            inflating,
            taken,
            ready,
            published,
            waiting_bytes,
            waiting_shares,
        } = moved.shard;
        let Unmoved {
            mesh,
            api_calls,
            waits,
            hook_calls,
            log,
            late,
            outgoing,
            reports,
            tokens,
        } = unmoved;
        if (id, shards) != (mesh.shard(), mesh.shards()) {
            return Err(ImageError::Wrong {
                what: "the state of another shard",
            });
        }
        let mut people = moved.people;
        people.inherit(tokens);
        let shard = Self {
            id,
            key: *key,
            mode,
            people,
            connections: moved.connections,
            local: moved.local,
            owned: moved.owned,
            late,
            mesh,
            calls: api_calls,
            questions: moved.questions,
            waits,
            hooks: hook_calls,
            log,
            outgoing,
            reports,
            drain,
            intake,
            key_waits: moved.key_waits,
            key_wanted: None,
            counters,
            rng,
            now,
            uid,
            scratch: Vec::new(),
            compression: Compression::new(&config.websocket),
            config,
            inflated,
            inflating,
            said: VecDeque::new(),
            secrets,
            date: DateLine::default(),
            ended: Vec::new(),
            moved: Vec::new(),
            marks: Vec::new(),
            spares: Vec::new(),
            waiting_bytes,
            waiting_shares,
            has_messages,
            taken,
            ready,
            published,
            filling,
        };
        shard.adopt_places();
        Ok(shard)
    }
}

impl Moved {
    pub(super) fn read(image: &[u8], config: &Config, key: &[u8; 32]) -> Result<Self, ImageError> {
        let process = Key::new(*key);
        let (mut owned, mut people, mut local) = (None, None, None);
        let (mut questions, mut key_waits) = (None, None);
        let (mut shard, mut connections): (Option<Common>, Option<Connections>) = (None, None);
        let mut sections = ImageReader::new(image)?;
        while let Some(section) = sections.section()? {
            let tables = || {
                let of = shard.as_ref().map(|shard| key_of_tables(key, shard.id));
                SHARD.of(of)
            };
            match section.tag {
                tag if tag == SHARD.tag => {
                    SHARD.read(section, &mut shard, |from| Common::read(key, from))?;
                }
                tag if tag == CONNECTIONS.tag => {
                    let rings = (limits::FANOUT_RING_BYTES, limits::OWN_RING_BYTES);
                    let inflater = Inflater::shared(config.websocket.inflated_bytes_max());
                    CONNECTIONS.read(section, &mut connections, |from| {
                        Connections::read_image(rings, inflater, &config.tenants.weights, from)
                    })?;
                }
                tag if tag == OWNED.tag => {
                    let tables = tables()?;
                    OWNED.read(section, &mut owned, |from| {
                        Owned::read_image(&tables, config, from)
                    })?;
                }
                tag if tag == PEOPLE.tag => {
                    let (tables, connections) = (tables()?, CONNECTIONS.of(connections.as_ref())?);
                    let user_of = |slot| {
                        let connection: Option<&Connection> = connections.at(slot);
                        connection.map(|one| one.session.user.whole())
                    };
                    PEOPLE.read(section, &mut people, |from| {
                        People::read_image(&tables, &process, config, user_of, from)
                    })?;
                }
                tag if tag == LOCAL.tag => {
                    let tables = tables()?;
                    LOCAL.read(section, &mut local, |from| {
                        Local::read_image(&tables, &config.channels, &config.tenants.weights, from)
                    })?;
                }
                tag if tag == QUESTIONS.tag => {
                    QUESTIONS.read(section, &mut questions, Questions::read_image)?;
                }
                tag if tag == KEYS.tag => KEYS.read(section, &mut key_waits, Image::read)?,
                _ if section.may_be_skipped() => {}
                tag => return Err(ImageError::Section(tag)),
            }
        }
        Ok(Self {
            shard: SHARD.of(shard)?,
            connections: CONNECTIONS.of(connections)?,
            owned: OWNED.of(owned)?,
            people: PEOPLE.of(people)?,
            local: LOCAL.of(local)?,
            questions: QUESTIONS.of(questions)?,
            key_waits: KEYS.of(key_waits)?,
        })
    }
}

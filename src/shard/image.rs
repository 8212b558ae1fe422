//! A shard as bytes, for another process that goes on where this one stops. It has the same configuration and the same key, as many
//! shards, the same slots, and a clock that runs on.
//!
//! A section for each room. What has one moves; `ARCHITECTURE.md` lists what does not.

use super::admission::user_of;
use super::local::Local;
use super::owned::Owned;
use super::people::People;
use super::questions::Questions;
use super::{Shard, key_of_tables};
use crate::mem::{Image, ImageError, ImageReader, ImageSection, ImageWriter, Key};
use crate::model::{ConnId, ShardId};
use crate::session::Session;

/// A kind of section: its tag, and the version that is written and read here.
struct SectionKind {
    tag: u16,
    version: u16,
}

/// Which shard it is, and of how many.
const SHARD: SectionKind = SectionKind { tag: 1, version: 1 };
/// See `owned`.
const OWNED: SectionKind = SectionKind { tag: 2, version: 1 };
/// See `people`.
const PEOPLE: SectionKind = SectionKind { tag: 3, version: 1 };
/// See `local`.
const LOCAL: SectionKind = SectionKind { tag: 4, version: 1 };
/// See `questions`.
const QUESTIONS: SectionKind = SectionKind { tag: 5, version: 1 };
/// Sessions, by connection.
const SESSIONS: SectionKind = SectionKind { tag: 6, version: 1 };

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

impl Shard {
    /// What moves of it, between two turns.
    #[must_use]
    pub fn to_image(&self) -> Vec<u8> {
        let mut out = ImageWriter::default();
        SHARD.write(&mut out, |out| {
            self.id.write(out);
            self.mesh.shards().write(out);
        });
        OWNED.write(&mut out, |out| self.owned.write_image(&self.config, out));
        PEOPLE.write(&mut out, |out| self.people.write_image(out));
        LOCAL.write(&mut out, |out| {
            self.local.write_image(&self.config.channels, out);
        });
        QUESTIONS.write(&mut out, |out| self.questions.write_image(out));
        SESSIONS.write(&mut out, |out| {
            let moving = || {
                self.connections
                    .iter()
                    .filter(|(_, one)| one.session.moves())
            };
            out.length(moving().count());
            for (slot, connection) in moving() {
                self.connections.id(slot).write(out);
                connection.session.write(out);
            }
        });
        out.finish()
    }

    /// Puts what an image says in the place of what there is. Nothing has changed where it cannot be read.
    ///
    /// # Errors
    /// It is damaged, of another release, or of another shard.
    pub fn restore(&mut self, image: &[u8]) -> Result<(), ImageError> {
        let (tables, process) = (key_of_tables(&self.key, self.id), Key::new(self.key));
        let (config, connections) = (&self.config, &self.connections);
        let (mut owned, mut people) = (None, None);
        let mut shard: Option<(ShardId, u16)> = None;
        let (mut local, mut questions, mut sessions) = (None, None, None);
        let mut sections = ImageReader::new(image)?;
        while let Some(section) = sections.section()? {
            match section.tag {
                tag if tag == SHARD.tag => SHARD.read(section, &mut shard, Image::read)?,
                tag if tag == OWNED.tag => OWNED.read(section, &mut owned, |from| {
                    Owned::read_image(&tables, config, from)
                })?,
                tag if tag == PEOPLE.tag => PEOPLE.read(section, &mut people, |from| {
                    People::read_image(&tables, &process, config, user_of(connections), from)
                })?,
                tag if tag == LOCAL.tag => LOCAL.read(section, &mut local, |from| {
                    Local::read_image(&tables, &config.channels, from)
                })?,
                tag if tag == QUESTIONS.tag => {
                    QUESTIONS.read(section, &mut questions, Questions::read_image)?;
                }
                tag if tag == SESSIONS.tag => SESSIONS.read(section, &mut sessions, Image::read)?,
                _ if section.may_be_skipped() => {}
                tag => return Err(ImageError::Section(tag)),
            }
        }
        if SHARD.of(shard)? != (self.id, self.mesh.shards()) {
            return Err(ImageError::Wrong {
                what: "the state of another shard",
            });
        }
        let (owned, people) = (OWNED.of(owned)?, PEOPLE.of(people)?);
        let (local, questions) = (LOCAL.of(local)?, QUESTIONS.of(questions)?);
        let sessions: Vec<(ConnId, Session)> = SESSIONS.of(sessions)?;
        let is_here = |(conn, _): &(ConnId, Session)| {
            connections.current(conn.slot, conn.generation).is_some()
        };
        if !sessions.iter().all(is_here) {
            return Err(ImageError::Wrong {
                what: "a session without a connection",
            });
        }
        for (conn, session) in sessions {
            self.connections.of_mut(conn.slot).session = session;
        }
        let before = std::mem::replace(&mut self.people, people);
        self.people.inherit(before);
        (self.owned, self.local, self.questions) = (owned, local, questions);
        Ok(())
    }
}

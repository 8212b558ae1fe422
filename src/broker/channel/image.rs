//! A channel as bytes.

use super::{Channel, ChannelShare};
use crate::broker::image::{read_namespace, write_namespace};
use crate::broker::list::Link;
use crate::config::ChannelRules;
use crate::image::{Image, ImageError, ImageReader, ImageWriter};
use crate::model::ChannelName;

impl Channel {
    pub(in crate::broker) fn write(&self, rules: &ChannelRules, out: &mut ImageWriter) {
        let Self {
            name,
            namespace,
            epoch,
            top,
            history,
            interest,
            patched,
            behind,
            lost,
            presence,
            followed,
            version,
            used,
            // Which place it has among those without subscribers, their list says.
            idle: _,
            made,
            // Taken anew by whoever reads it.
            share: _,
            filed,
        } = self;
        name.write(out);
        write_namespace(name, namespace, rules, out);
        epoch.write(out);
        top.write(out);
        history.write(out);
        interest.write(out);
        patched.write(out);
        behind.write(out);
        lost.write(out);
        presence.write(out);
        followed.write(out);
        version.write(out);
        used.write(out);
        made.write(out);
        filed.write(out);
    }

    /// It is in no list yet.
    pub(in crate::broker) fn read(
        rules: &ChannelRules,
        from: &mut ImageReader<'_>,
    ) -> Result<Self, ImageError> {
        let name: ChannelName = Image::read(from)?;
        let counted = rules.limits_of(name.tenant());
        let mut channel = Self {
            namespace: read_namespace(&name, rules, from)?,
            name,
            epoch: Image::read(from)?,
            top: Image::read(from)?,
            history: Image::read(from)?,
            interest: Image::read(from)?,
            patched: Image::read(from)?,
            behind: Image::read(from)?,
            lost: Image::read(from)?,
            presence: Image::read(from)?,
            followed: Image::read(from)?,
            version: Image::read(from)?,
            used: Image::read(from)?,
            idle: Link::default(),
            made: Image::read(from)?,
            share: counted.map(|(_, quota)| ChannelShare::adopt(quota)),
            filed: Image::read(from)?,
        };
        channel.count_history();
        Ok(channel)
    }
}

//! How the keys of the file are gone through: the schema says what there is, whoever visits does something with each.

use std::time::Duration;

use super::form::{Form, Span};
use crate::config::Secret;

/// What is done with each key.
pub(super) trait Visit {
    /// Values are set, not looked at: defaults may depend on what was read before.
    fn reads(&self) -> bool {
        false
    }
    /// A table below the current one.
    fn section(&mut self, key: &'static str, inside: impl FnOnce(&mut Self));
    /// A list of tables, each of which starts as `fresh`.
    fn sections<T: Clone>(
        &mut self,
        key: &'static str,
        fresh: &T,
        values: &mut Vec<T>,
        inside: impl Fn(&mut Self, &mut T),
    );
    fn boolean(&mut self, key: &'static str, value: &mut bool);
    fn integer<T: Number>(&mut self, key: &'static str, min: u64, max: u64, value: &mut T);
    fn duration(&mut self, key: &'static str, span: Span, value: &mut Duration);
    fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        set: &[(&'static str, T)],
        value: &mut T,
    );
    fn text<T>(&mut self, key: &'static str, form: &Form<T>, value: &mut T);
    fn list<T>(&mut self, key: &'static str, form: &Form<T>, values: &mut Vec<T>);
    fn secret(&mut self, key: &'static str, value: &mut Secret);
    /// A table whose keys are free.
    fn texts(
        &mut self,
        key: &'static str,
        names: &Form<String>,
        texts: &Form<String>,
        values: &mut Vec<(String, String)>,
    );
    /// A table whose keys are free and whose values may be secrets.
    fn secrets(
        &mut self,
        key: &'static str,
        names: &Form<String>,
        texts: &Form<String>,
        values: &mut Vec<(String, Secret)>,
    );
}

/// An unsigned integer field of any width.
pub(super) trait Number: Copy + TryFrom<u64> + TryInto<u64> {}
impl<T: Copy + TryFrom<u64> + TryInto<u64>> Number for T {}

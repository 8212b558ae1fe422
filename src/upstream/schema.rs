//! stub
use crate::config::Config;
use crate::mesh::durable::LogError;
use crate::model::Record;
pub struct Schemas;
impl Schemas {
    pub async fn load<L: super::Log>(_: &L, _: &Config) -> Result<Self, String> {
        Ok(Self)
    }
    pub fn refusing(_: &String) -> Self {
        Self
    }
    pub fn check(&self, _: &Record) -> Result<(), LogError> {
        Ok(())
    }
}

//! stub
#[derive(Debug)]
pub struct Filter;
impl Filter {
    pub fn parse(_: &str) -> Result<Self, String> {
        Ok(Self)
    }
    pub fn matches(&self, _: &[u8]) -> bool {
        true
    }
}

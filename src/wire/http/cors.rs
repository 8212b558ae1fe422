//! What lets a browser's script of another origin read an answer.

/// The origin of a request, found to be allowed, and what its script wants to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origin: Box<str>,
    headers: Option<Box<str>>,
}

impl Cors {
    /// `wanted`: `Access-Control-Request-Headers`.
    #[must_use]
    pub fn new(origin: &str, wanted: Option<&str>) -> Self {
        Self {
            origin: origin.into(),
            headers: wanted.map(Into::into),
        }
    }

    /// Names and values of the answer's headers.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, &str)> {
        let mut headers = vec![
            ("Access-Control-Allow-Origin", &*self.origin),
            ("Access-Control-Allow-Credentials", "true"),
        ];
        if let Some(wanted) = &self.headers {
            headers.push(("Access-Control-Allow-Headers", wanted));
        }
        headers
    }

    /// Names and values of the answer to a browser that asks before it sends.
    #[must_use]
    pub fn preflight(&self, methods: &'static str) -> Vec<(&'static str, &str)> {
        let mut headers = self.headers();
        headers.push(("Access-Control-Allow-Methods", methods));
        headers.push(("Access-Control-Max-Age", "300"));
        headers
    }
}

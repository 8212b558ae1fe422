//! What lets a browser's script of another origin read an answer.

use super::Allow;
use crate::image::image;

/// The origin of a request, found to be allowed, and what its script wants to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origin: Box<str>,
    headers: Option<Box<str>>,
}

image!(struct Cors { origin, headers });

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
            // A cache must not give to one origin what says that another may read it.
            ("Vary", "Origin"),
        ];
        if let Some(wanted) = &self.headers {
            headers.push(("Access-Control-Allow-Headers", wanted));
        }
        headers
    }

    /// Names and values of the answer to a browser that asks before it sends.
    #[must_use]
    pub fn preflight(&self, methods: Allow) -> Vec<(&'static str, &str)> {
        let mut headers = self.headers();
        headers.push(("Access-Control-Allow-Methods", methods.value()));
        headers.push(("Access-Control-Max-Age", "300"));
        headers
    }
}

/// May this request come from a page of this very host, or from no page at all? `origin` and `fetch_site` are what browsers
/// say of the page (`Origin`, `Sec-Fetch-Site`), and scripts cannot change it.
#[must_use]
pub fn is_same_site(host: Option<&str>, origin: Option<&str>, fetch_site: Option<&str>) -> bool {
    let is_own = origin.is_none_or(|origin| {
        let rest = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        rest.zip(host)
            .is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
    });
    is_own
        && fetch_site.is_none_or(|site| {
            site.eq_ignore_ascii_case("same-origin") || site.eq_ignore_ascii_case("none")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_page_and_no_page_are_the_same_site() {
        let host = Some("127.0.0.1:8001");
        for (origin, site) in [
            (None, None),
            (None, Some("none")),
            (Some("http://127.0.0.1:8001"), Some("same-origin")),
            (Some("https://127.0.0.1:8001"), None),
        ] {
            assert!(is_same_site(host, origin, site), "{origin:?} {site:?}");
        }
        for (origin, site) in [
            (Some("null"), None),
            (Some("http://evil.example"), None),
            (Some("http://127.0.0.1:8000"), None),
            (Some("http://127.0.0.1"), None),
            (Some(""), None),
            (None, Some("cross-site")),
            (None, Some("same-site")),
            (Some("http://127.0.0.1:8001"), Some("cross-site")),
        ] {
            assert!(!is_same_site(host, origin, site), "{origin:?} {site:?}");
        }
        assert!(!is_same_site(None, Some("http://a"), None));
    }
}

//! Members of `client.allowed_origins`: patterns that some browser's `Origin` header can match.
//!
//! Browsers send `scheme://host` or `scheme://host:port`, in lower case and ASCII, without the default port of the
//! scheme, and nothing behind it (RFC 6454 §6.1); or `null`.

use std::net::Ipv6Addr;

use super::super::{Glob, GlobError};

/// Why no browser sends an `Origin` that this member of `client.allowed_origins` matches; `None` if some may.
#[must_use]
pub fn unmatched_origin(text: &str) -> Option<String> {
    parse(text).err()
}

/// Reads a member, in lower case. The error says why it can never match, and what would.
pub(super) fn parse(text: &str) -> Result<Glob, String> {
    let lower = text.to_lowercase();
    if lower.contains('@') {
        return Err("an origin has no user name; write only what a browser sends".to_owned());
    }
    let never = |why: String| format!("{text:?} can never match: {why}");
    if lower.is_empty() {
        return Err("an origin is empty; write [\"*\"] for all, or [] for none".to_owned());
    }
    if lower.split_whitespace().count() > 1 {
        return Err(never(
            "these are several origins in one text; give each a text of its own".to_owned(),
        ));
    }
    if lower.contains(char::is_whitespace) {
        return Err(never(format!(
            "it has blanks around it; write {:?}",
            lower.trim()
        )));
    }
    // The brackets of an address are not those of a pattern.
    let glob = if is_address(&lower) {
        Glob::stars(&lower)
    } else {
        Glob::parse(&lower).map_err(|error: GlobError| format!("{text:?} {error}"))?
    };
    if matches!(lower.as_str(), "*" | "null") {
        return Ok(glob);
    }
    let marks = ['*', '?', '[', '{', '\\'];
    if lower.contains(marks) && !is_address(&lower) {
        with_marks(&lower, marks)
    } else {
        without_marks(&lower)
    }
    .map_err(never)?;
    Ok(glob)
}

/// Is the host an IPv6 address, as in `https://[::1]:3000`?
fn is_address(text: &str) -> bool {
    let host = text
        .split_once("://[")
        .and_then(|(_, rest)| rest.split_once(']'));
    host.is_some_and(|(host, _)| host.parse::<Ipv6Addr>().is_ok())
}

/// What holds whatever the marks stand for.
fn with_marks(text: &str, marks: [char; 5]) -> Result<(), String> {
    if !text.is_ascii() {
        return Err(
            "browsers send names in ASCII; write the part that is not as its xn-- form".to_owned(),
        );
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let fixed = &text[..text.find(marks).unwrap_or(text.len())];
        return if fixed.contains(['.', ':']) {
            Err(format!("it has no scheme; write \"https://{text}\""))
        } else {
            Ok(())
        };
    };
    if let Some((host, _)) = rest.split_once('/') {
        return Err(format!(
            "nothing stands behind the host and port of an origin; write \"{scheme}://{host}\""
        ));
    }
    if rest.ends_with(default_port(scheme)) && !scheme.contains(marks) {
        let bare = text.trim_end_matches(default_port(scheme));
        return Err(format!(
            "browsers leave the default port out; write {bare:?}"
        ));
    }
    Ok(())
}

/// One origin, written out.
fn without_marks(text: &str) -> Result<(), String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("it has no scheme; write \"https://{text}\""));
    };
    if let "ws" | "wss" = scheme {
        let of_page = scheme.replacen("ws", "http", 1);
        return Err(format!(
            "it is where the page comes from, not where it connects to; write \"{of_page}://{rest}\""
        ));
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.')
        });
    if !is_scheme {
        return Err("what stands before :// is no scheme".to_owned());
    }
    let host_and_port = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host_and_port.len() < rest.len() {
        return Err(format!(
            "nothing stands behind the host and port of an origin; write \"{scheme}://{host_and_port}\""
        ));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let ascii = ascii_host(host)?;
    if let Some(port) = port {
        let is_port = port
            .parse::<u16>()
            .is_ok_and(|number| number.to_string() == port);
        if !is_port && port != "*" {
            return Err("what stands behind the last colon is no port".to_owned());
        }
        if default_port(scheme).strip_prefix(':') == Some(port) {
            return Err(format!(
                "browsers leave the default port out; write \"{scheme}://{ascii}\""
            ));
        }
    }
    if ascii != host {
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        return Err(format!(
            "browsers send another form of this name; write \"{scheme}://{ascii}{port}\""
        ));
    }
    Ok(())
}

/// The port that is not said, with its colon; a text that no origin ends with where a scheme has none.
fn default_port(scheme: &str) -> &'static str {
    match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "/",
    }
}

/// A host as browsers send it.
fn ascii_host(host: &str) -> Result<String, String> {
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        let address: Ipv6Addr = address
            .parse()
            .map_err(|_| "what stands in brackets is no IPv6 address".to_owned())?;
        return Ok(format!("[{address}]"));
    }
    if host.is_empty() {
        return Err("it has no host".to_owned());
    }
    let labels: Vec<String> = host.split('.').map(ascii_label).collect();
    let ascii = labels.join(".");
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !ascii.bytes().all(fits) {
        return Err("a character of the host stands in no host".to_owned());
    }
    Ok(ascii)
}

fn ascii_label(label: &str) -> String {
    if label.is_ascii() {
        label.to_owned()
    } else {
        format!("xn--{}", punycode(label))
    }
}

/// RFC 3492. Labels are short, so that nothing here overflows.
fn punycode(label: &str) -> String {
    const BASE: u32 = 36;
    const T_MIN: u32 = 1;
    const T_MAX: u32 = 26;
    let digit = |value: u32| {
        let byte = u8::try_from(value).unwrap_or_default();
        char::from(if byte < 26 {
            b'a' + byte
        } else {
            b'0' + byte - 26
        })
    };
    let mut out: String = label.chars().filter(char::is_ascii).collect();
    let total = u32::try_from(label.chars().count()).unwrap_or(u32::MAX);
    let basic = u32::try_from(out.len()).unwrap_or(u32::MAX);
    let mut handled = basic;
    if basic > 0 {
        out.push('-');
    }
    let (mut n, mut delta, mut bias) = (128_u32, 0_u32, 72_u32);
    while handled < total {
        let next = label
            .chars()
            .map(u32::from)
            .filter(|&c| c >= n)
            .min()
            .unwrap_or(n);
        delta = delta.saturating_add((next - n).saturating_mul(handled + 1));
        n = next;
        for c in label.chars().map(u32::from) {
            if c < n {
                delta = delta.saturating_add(1);
            } else if c == n {
                let mut q = delta;
                let mut k = BASE;
                loop {
                    let t = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
                    if q < t {
                        break;
                    }
                    out.push(digit(t + (q - t) % (BASE - t)));
                    q = (q - t) / (BASE - t);
                    k += BASE;
                }
                out.push(digit(q));
                bias = adapt(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.saturating_add(1);
        n += 1;
    }
    out
}

fn adapt(delta: u32, count: u32, is_first: bool) -> u32 {
    let mut delta = if is_first { delta / 700 } else { delta / 2 };
    delta += delta / count;
    let mut k = 0;
    while delta > 455 {
        delta /= 35;
        k += 36;
    }
    k + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_that_a_browser_sends_are_taken() {
        for text in [
            "*",
            "null",
            "https://example.com",
            "HTTPS://Example.COM",
            "http://localhost:3000",
            "https://*.example.com",
            "http*",
            "*.example.com",
            "*://example.com:*",
            "{http,https}://example.com",
            "http?://example.com",
            "https://{a,b}.example.com:300[0-9]",
            "http://[::1]:3000",
            "http://[::1]:*",
            "http://192.168.0.1:8080",
            "https://xn--mnchen-3ya.example",
            "capacitor://localhost",
            "chrome-extension://abcdef",
            "http://example.com:443",
        ] {
            assert_eq!(
                parse(text).map(|glob| glob.as_str().to_owned()),
                Ok(text.to_lowercase()),
                "{text}"
            );
        }
        assert!(
            parse("http://[::1]:3000")
                .unwrap()
                .matches("http://[::1]:3000")
        );
    }

    #[test]
    fn origins_that_no_browser_sends_are_refused_with_what_to_write() {
        for (text, says) in [
            ("https://example.com/", "write \"https://example.com\""),
            ("https://*.example.com/", "write \"https://*.example.com\""),
            ("https://example.com/app", "write \"https://example.com\""),
            ("https://example.com#x", "write \"https://example.com\""),
            ("example.com", "write \"https://example.com\""),
            ("localhost:3000", "no scheme"),
            ("example.com:*", "no scheme"),
            ("https://a https://b", "several origins"),
            (" https://a ", "write \"https://a\""),
            ("https://a\n", "write \"https://a\""),
            ("https://x:443", "write \"https://x\""),
            ("http://x:80", "write \"http://x\""),
            ("https://*.x:443", "write \"https://*.x\""),
            (
                "https://m\u{fc}nchen.example",
                "write \"https://xn--mnchen-3ya.example\"",
            ),
            (
                "https://\u{65e5}\u{672c}\u{8a9e}.jp:8443",
                "write \"https://xn--wgv71a119e.jp:8443\"",
            ),
            ("https://*.m\u{fc}nchen.example", "xn--"),
            ("http://[::0:1]", "write \"http://[::1]\""),
            ("wss://example.com", "write \"https://example.com\""),
            ("https://", "no host"),
            ("://x", "no scheme"),
            ("https://x:99999", "no port"),
            ("https://x:08080", "no port"),
            ("https://user@x", "no user name"),
            ("https://a,b", "no host"),
            ("https://[ab", "without its `]`"),
            ("{a", "without its `}`"),
            ("", "empty"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn names_become_ascii_as_the_rfc_says() {
        for (label, ascii) in [
            ("b\u{fc}cher", "bcher-kva"),
            ("\u{fc}", "tda"),
            (
                "\u{043f}\u{0440}\u{0438}\u{043c}\u{0435}\u{0440}",
                "e1afmkfd",
            ),
            (
                "\u{4ed6}\u{4eec}\u{4e3a}\u{4ec0}\u{4e48}\u{4e0d}\u{8bf4}\u{4e2d}\u{6587}",
                "ihqwcrb4cv8a8dqg056pqjye",
            ),
        ] {
            assert_eq!(punycode(label), ascii);
        }
    }
}

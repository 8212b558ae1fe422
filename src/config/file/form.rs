//! Kinds of values: how each is written, and which ones a key takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::super::namespace::DeltaType;
use super::super::{ListenAddr, Pattern, PublicKey, TrustedProxy};

/// Which durations a key takes.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) min: Duration,
    pub(super) max: Duration,
    /// Zero turns the thing off.
    pub(super) zero: bool,
    pub(super) whole_seconds: bool,
}

/// A kind of value that is written as one string.
pub(super) struct Form<T> {
    /// What belongs here, for errors; begins with an article.
    pub(super) expected: &'static str,
    pub(super) parse: fn(&str) -> Option<T>,
    pub(super) show: fn(&T) -> String,
    /// Written as a number, not as a string.
    pub(super) number: bool,
}

pub(super) const fn millis(min: u64, max: u64) -> Span {
    Span {
        min: Duration::from_millis(min),
        max: Duration::from_millis(max),
        zero: false,
        whole_seconds: false,
    }
}

pub(super) const fn seconds(min: u64, max: u64) -> Span {
    Span {
        min: Duration::from_secs(min),
        max: Duration::from_secs(max),
        zero: false,
        whole_seconds: true,
    }
}

pub(super) const fn or_off(span: Span) -> Span {
    Span { zero: true, ..span }
}

pub(super) const HOUR_MS: u64 = 3_600_000;
pub(super) const DAY_S: u64 = 86_400;
/// Ten years: more than anything here lives, and far from where sums of times overflow.
pub(super) const LONG_S: u64 = 3650 * DAY_S;

pub(super) const LISTEN: Form<ListenAddr> = Form {
    expected: "an address and port such as \"127.0.0.1:8000\" or \"[::]:8000\", or \"unix:PATH\"",
    parse: |text| match text.strip_prefix("unix:") {
        Some(path) => (!path.is_empty() && !path.contains('\0'))
            .then(|| ListenAddr::Unix(PathBuf::from(path))),
        None => text.parse().ok().map(ListenAddr::Tcp),
    },
    show: |listen| match listen {
        ListenAddr::Tcp(addr) => addr.to_string(),
        ListenAddr::Unix(path) => format!("unix:{}", path.display()),
    },
    number: false,
};

pub(super) const ADMIN: Form<Option<SocketAddr>> = Form {
    expected: "an address and port such as \"127.0.0.1:8001\", or \"\" to turn it off",
    parse: |text| {
        if text.is_empty() {
            Some(None)
        } else {
            text.parse().ok().map(Some)
        }
    },
    show: |addr| addr.map(|addr| addr.to_string()).unwrap_or_default(),
    number: false,
};

pub(super) const CORE: Form<usize> = Form {
    expected: "a list of core numbers between 0 and 4095",
    parse: |text| text.parse().ok().filter(|&core| core < 4096),
    show: usize::to_string,
    number: true,
};

pub(super) const ORIGIN: Form<String> = Form {
    expected: "a list of origins such as \"https://*.example.com\", or [\"*\"] for all",
    parse: |text| (!text.is_empty()).then(|| text.to_lowercase()),
    show: String::clone,
    number: false,
};

pub(super) const HOST_NAME: Form<String> = Form {
    expected: "a list of host names without a port such as \"probe.internal\" or \"*.cluster.local\"",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let name = text.strip_prefix('*').unwrap_or(text);
        (!text.is_empty() && text.len() <= 253 && name.bytes().all(fits))
            .then(|| text.to_ascii_lowercase())
    },
    show: String::clone,
    number: false,
};

pub(super) const TRUSTED_PROXY: Form<TrustedProxy> = Form {
    expected: "a list of networks such as \"10.0.0.0/8\", or \"unix\"",
    parse: TrustedProxy::parse,
    show: TrustedProxy::to_string,
    number: false,
};

pub(super) const TEXT: Form<String> = Form {
    expected: "a string",
    parse: |text| Some(text.to_owned()),
    show: String::clone,
    number: false,
};

pub(super) const FILE: Form<PathBuf> = Form {
    expected: "a path",
    parse: |text| (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text)),
    show: |path| path.display().to_string(),
    number: false,
};

pub(super) const FILE_OR_NONE: Form<PathBuf> = Form {
    expected: "a path, or \"\"",
    parse: |text| (!text.contains('\0')).then(|| PathBuf::from(text)),
    show: |path| path.display().to_string(),
    number: false,
};

pub(super) const SERVER: Form<String> = Form {
    expected: "a list of URLs such as \"nats://127.0.0.1:4222\" or \"tls://nats.example:4222\", without a user name",
    parse: |text| {
        let (scheme, rest) = text.split_once("://")?;
        let fits = matches!(scheme, "nats" | "tls" | "ws" | "wss") && !rest.contains('@');
        (fits && !rest.is_empty()).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
};

pub(super) const TRIGGER_NAME: Form<String> = Form {
    expected: "letters, digits, `-` and `_`, up to 64",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
};

pub(super) const PATH: Form<String> = Form {
    expected: "a path such as \"/connection/websocket\", of printable ASCII without `?` and `#`",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        (text.starts_with('/') && text.bytes().all(fits))
            .then(|| text.trim_end_matches('/').to_owned())
    },
    // What is left of the root is nothing.
    show: |path| {
        if path.is_empty() {
            "/".to_owned()
        } else {
            path.clone()
        }
    },
    number: false,
};

pub(super) const CLAIM: Form<String> = Form {
    expected: "the name of a claim, of letters and `_`",
    parse: |text| {
        text.bytes()
            .all(|b| b.is_ascii_alphabetic() || b == b'_')
            .then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
};

pub(super) const RSA_KEY: Form<Option<PublicKey>> = Form {
    expected: "an RSA public key of 2048 to 4096 bits in PEM (\"-----BEGIN PUBLIC KEY-----\" or \"-----BEGIN RSA PUBLIC KEY-----\")",
    parse: |pem| optional(pem, PublicKey::rsa_from_pem),
    show: |key| {
        key.as_ref()
            .map_or_else(String::new, |key| key.pem().to_owned())
    },
    number: false,
};

pub(super) const ECDSA_KEY: Form<Option<PublicKey>> = Form {
    expected: "an ECDSA public key on P-256 or P-384 in PEM (\"-----BEGIN PUBLIC KEY-----\")",
    parse: |pem| optional(pem, PublicKey::ecdsa_from_pem),
    show: |key| {
        key.as_ref()
            .map_or_else(String::new, |key| key.pem().to_owned())
    },
    number: false,
};

pub(super) const PATTERN: Form<Option<Pattern>> = Form {
    expected: "a regular expression",
    parse: |text| optional(text, Pattern::parse),
    show: |pattern| {
        pattern
            .as_ref()
            .map_or_else(String::new, |pattern| pattern.as_str().to_owned())
    },
    number: false,
};

/// The empty text is no value.
fn optional<T>(text: &str, parse: fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.trim().is_empty() {
        Some(None)
    } else {
        parse(text).map(Some)
    }
}

pub(super) const KEY_SET_URL: Form<String> = Form {
    expected: "an http:// or https:// URL of a key set, such as \"https://id.example/jwks.json\", without a user name or {{templates}}",
    parse: |text| {
        (!text.contains('{'))
            .then(|| (ENDPOINT.parse)(text))
            .flatten()
    },
    show: String::clone,
    number: false,
};

pub(super) const NAMESPACE_NAME: Form<String> = Form {
    expected: "two or more of letters, digits, `-`, `_` and `.`",
    parse: |text| is_namespace_name(text).then(|| text.to_owned()),
    show: String::clone,
    number: false,
};

pub(super) const NAMESPACE_NAME_OR_NONE: Form<String> = Form {
    expected: "the name of a namespace, or \"\"",
    parse: |text| (text.is_empty() || is_namespace_name(text)).then(|| text.to_owned()),
    show: String::clone,
    number: false,
};

pub(super) const DELTA_TYPE: Form<DeltaType> = Form {
    expected: "a list of \"fossil\", or []",
    parse: |text| (text == "fossil").then_some(DeltaType::Fossil),
    show: |delta| match delta {
        DeltaType::Fossil => "fossil".to_owned(),
    },
    number: false,
};

pub(super) const MARK: Form<String> = Form {
    expected: "1 to 16 ASCII characters",
    parse: |text| {
        (!text.is_empty() && text.len() <= 16 && text.is_ascii()).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
};

pub(super) const MARK_OR_NONE: Form<String> = Form {
    expected: "at most 16 ASCII characters; \"\" turns private channels off",
    parse: |text| (text.len() <= 16 && text.is_ascii()).then(|| text.to_owned()),
    show: String::clone,
    number: false,
};

fn is_namespace_name(text: &str) -> bool {
    text.len() >= 2
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

pub(super) const ENDPOINT: Form<String> = Form {
    expected: "an http:// or https:// URL such as \"https://backend.example/hooks\", without a user name; gRPC endpoints are not spoken",
    parse: |text| {
        if text.is_empty() {
            return Some(String::new());
        }
        let uri: http::Uri = text.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority()?;
        let is_plain = !authority.host().is_empty() && !authority.as_str().contains('@');
        (is_http && is_plain).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
};

pub(super) const HEADER: Form<String> = Form {
    expected: "the name of an HTTP header",
    parse: |text| {
        http::HeaderName::from_bytes(text.as_bytes())
            .ok()
            .map(|name| name.as_str().to_owned())
    },
    show: String::clone,
    number: false,
};

pub(super) const HEADER_OR_NONE: Form<String> = Form {
    expected: "the name of an HTTP header, or \"\" to turn it off",
    parse: |text| {
        if text.is_empty() {
            Some(String::new())
        } else {
            (HEADER.parse)(text)
        }
    },
    show: String::clone,
    number: false,
};

pub(super) const HEADER_VALUE: Form<String> = Form {
    expected: "the value of an HTTP header, without line breaks",
    parse: |text| {
        http::HeaderValue::from_str(text)
            .ok()
            .map(|_| text.to_owned())
    },
    show: String::clone,
    number: false,
};

pub(super) const METHOD: Form<String> = Form {
    expected: "the name of an RPC method",
    parse: |text| (!text.is_empty()).then(|| text.to_owned()),
    show: String::clone,
    number: false,
};

pub(super) const MESSAGE: Form<String> = Form {
    expected: "a message of at most 1024 bytes",
    parse: |text| (text.len() <= 1024).then(|| text.to_owned()),
    show: String::clone,
    number: false,
};

pub(super) const REASON_OF_OURS: Form<String> = Form {
    expected: "a reason of 1 to 123 bytes that is no JSON, because clients would read it as such",
    parse: |text| (REASON.parse)(text).filter(|reason| !reason.is_empty()),
    show: String::clone,
    number: false,
};

pub(super) const REASON: Form<String> = Form {
    expected: "a reason of at most 123 bytes that is no JSON, because clients would read it as such",
    parse: |text| {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        (text.len() <= 123 && !is_json).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
};

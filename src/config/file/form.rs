//! Kinds of values: how each is written, and which ones a key takes.

use std::path::PathBuf;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::access;
use super::super::apart::Key;
use super::super::durable::{is_key, join_key};
use super::super::namespace::DeltaType;
use super::super::{FileMode, Glob, ListenAddr, Pattern, PublicKey, Tenant, TrustedProxy};
use super::web_origin;
use crate::limits::{GROUP_NAME_BYTES_MAX, KEY_WEIGHT_MAX};
use crate::model::tenant;

/// Bytes of the path of a unix socket: what the kernel takes, less the byte that ends it.
const UNIX_PATH_BYTES_MAX: usize = 107;

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
    /// Why a text is not one, if more can be said than what belongs here. It shows nothing that may be a secret.
    pub(super) why: fn(&str) -> Option<String>,
    /// Its query may hold secrets.
    pub(super) is_url: bool,
}

fn unsaid(_: &str) -> Option<String> {
    None
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
        Some(path) => (!path.is_empty() && unusable_socket(text).is_none())
            .then(|| ListenAddr::Unix(PathBuf::from(path))),
        None => text.parse().ok().map(ListenAddr::Tcp),
    },
    show: ListenAddr::to_string,
    number: false,
    why: |text| unusable_socket(text).or_else(|| almost_an_address(text)),
    is_url: false,
};

/// Why the kernel makes no socket of this path.
fn unusable_socket(text: &str) -> Option<String> {
    let path = text.strip_prefix("unix:")?;
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Some(format!(
            "the path of a unix socket has at most {UNIX_PATH_BYTES_MAX} bytes, and this one has {}",
            path.len()
        ));
    }
    if path.contains('\0') {
        return Some("the path of a unix socket has no NUL".to_owned());
    }
    path.ends_with('/')
        .then(|| "the path of a unix socket does not end with a slash".to_owned())
}

/// What people write in place of an address and a port.
fn almost_an_address(text: &str) -> Option<String> {
    if text.parse::<u16>().is_ok() {
        return Some(format!(
            "this is a port without an address: write \"0.0.0.0:{text}\" for every IPv4 address, \"[::]:{text}\" for IPv6"
        ));
    }
    if let Some(port) = text
        .strip_prefix(':')
        .filter(|port| port.parse::<u16>().is_ok())
    {
        return Some(format!(
            "an address stands before the port: write \"0.0.0.0:{port}\" for every IPv4 address, \"[::]:{port}\" for IPv6"
        ));
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Some("a port stands behind the address, as in \"127.0.0.1:8000\"".to_owned());
    }
    let (host, port) = text.rsplit_once(':')?;
    let is_name = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    (is_name && port.parse::<u16>().is_ok()).then(|| {
        "a listener has an address of this host, not a name, as the name may come to mean another".to_owned()
    })
}

pub(super) const ADMIN: Form<Option<ListenAddr>> = Form {
    expected: "an address and port such as \"127.0.0.1:8001\", or \"unix:PATH\", or \"\" to turn it off",
    parse: |text| {
        if text.is_empty() {
            Some(None)
        } else {
            (LISTEN.parse)(text).map(Some)
        }
    },
    show: |addr| addr.as_ref().map(ToString::to_string).unwrap_or_default(),
    number: false,
    why: |text| (LISTEN.why)(text),
    is_url: false,
};

pub(super) const MODE: Form<FileMode> = Form {
    expected: "permissions in octal such as \"0660\"",
    parse: |text| {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let is_octal =
            (3..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal)?;
        (mode <= 0o777).then_some(FileMode(mode))
    },
    show: |mode| format!("{:04o}", mode.0),
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const GROUP_OR_NONE: Form<String> = Form {
    expected: "the name or number of a group of this host, or \"\"",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        (text.len() <= 64 && text.bytes().all(fits)).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const CORE: Form<usize> = Form {
    expected: "a list of core numbers between 0 and 4095",
    parse: |text| text.parse().ok().filter(|&core| core < 4096),
    show: usize::to_string,
    number: true,
    why: unsaid,
    is_url: false,
};

pub(super) const ORIGIN: Form<Glob> = Form {
    expected: "a list of origins such as \"https://*.example.com\", or [\"*\"] for all",
    parse: |text| web_origin::parse(text).ok(),
    show: |origin| origin.as_str().to_owned(),
    number: false,
    why: |text| web_origin::parse(text).err(),
    is_url: false,
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
    why: unsaid,
    is_url: false,
};

pub(super) const TRUSTED_PROXY: Form<TrustedProxy> = Form {
    expected: "a list of networks such as \"10.0.0.0/8\", or \"unix\"",
    parse: TrustedProxy::parse,
    show: TrustedProxy::to_string,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const TEXT: Form<String> = Form {
    expected: "a string",
    parse: |text| Some(text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const FILE: Form<PathBuf> = Form {
    expected: "a path",
    parse: |text| (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text)),
    show: |path| path.display().to_string(),
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const FILE_OR_NONE: Form<PathBuf> = Form {
    expected: "a path, or \"\"",
    parse: |text| (!text.contains('\0')).then(|| PathBuf::from(text)),
    show: |path| path.display().to_string(),
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const SERVER: Form<String> = Form {
    expected: "a list of URLs such as \"nats://127.0.0.1:4222\" or \"tls://nats.example:4222\", without a user name",
    parse: |text| {
        let uri: http::Uri = text.parse().ok()?;
        let fits = matches!(uri.scheme_str(), Some("nats" | "tls" | "ws" | "wss"));
        (fits && is_plain_authority(uri.authority()?)).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: true,
};

pub(super) const SERVER_HOST: Form<String> = Form {
    expected: "the name or address of a server, or the directory of its unix socket",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b',');
        let is_host = (1..=253).contains(&text.len()) && text.bytes().all(fits);
        is_host.then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: |text| {
        text.contains("://").then(|| {
            "this is a URL: its parts stand in `host`, `port`, `user` and `database`".to_owned()
        })
    },
    is_url: false,
};

pub(super) const BROKER: Form<String> = Form {
    expected: "a name or address with a port, such as \"kafka.internal:9092\"",
    parse: |text| {
        let authority: http::uri::Authority = text.parse().ok()?;
        let fits = authority.port_u16().is_some() && is_plain_authority(&authority);
        fits.then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const KAFKA_NAME: Form<String> = Form {
    expected: "letters, digits, `.`, `-` and `_`, up to 249",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        ((1..=249).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

/// Bytes of a name in PostgreSQL at most: a longer one would be cut there.
const IDENTIFIER_BYTES: usize = 63;

fn is_identifier(text: &str) -> bool {
    (1..=IDENTIFIER_BYTES).contains(&text.len()) && !text.contains('\0')
}

pub(super) const IDENTIFIER: Form<String> = Form {
    expected: "a name of 1 to 63 bytes, without quotes around it",
    parse: |text| is_identifier(text).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const IDENTIFIER_OR_NONE: Form<String> = Form {
    expected: "a name of at most 63 bytes, without quotes around it, or \"\" for none",
    parse: |text| (text.is_empty() || is_identifier(text)).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const TABLE: Form<String> = Form {
    expected: "the name of a table such as \"outbox\" or \"shop.outbox\", without quotes around it",
    parse: |text| {
        let parts: Vec<&str> = text.split('.').collect();
        let fits = parts.len() <= 2 && parts.iter().all(|part| is_identifier(part));
        fits.then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const TRIGGER_NAME: Form<String> = Form {
    expected: "letters, digits, `-` and `_`, up to 64",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const QUEUE_GROUP: Form<String> = Form {
    expected: "letters, digits, `.`, `-` and `_`, up to 128",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let has_length = (1..=GROUP_NAME_BYTES_MAX).contains(&text.len());
        (has_length && text.bytes().all(fits)).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

/// What publications take turns by.
pub(super) const TURN_KEY: Form<String> = Form {
    expected: "one of `channel`, `user`, `tag:NAME` and `data:PATH`, or \"\"",
    parse: |text| (text.is_empty() || is_key(text)).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

/// What unsent publications of a channel are told apart by.
pub(super) const CONFLATE_KEY: Form<Option<Key>> = Form {
    expected: "one of `channel`, `user`, `tag:NAME` and `data:PATH`, or \"\"",
    parse: |text| optional(text, |text| Key::parse(text).ok()),
    show: |key| key.as_ref().map_or_else(String::new, Key::to_string),
    number: false,
    why: unsaid,
    is_url: false,
};

/// Turns of a lane.
pub(super) const LANE_WEIGHT: Form<u32> = Form {
    expected: "a weight of 1 to 100",
    parse: |text| {
        text.parse()
            .ok()
            .filter(|weight| (1..=KEY_WEIGHT_MAX).contains(weight))
    },
    show: u32::to_string,
    number: true,
    why: unsaid,
    is_url: false,
};

/// Name of a tag.
pub(super) const TAG_NAME: Form<String> = Form {
    expected: "the name of a tag",
    parse: |text| (!text.is_empty()).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

/// See `join_key`.
pub(super) const JOIN_KEY: Form<String> = Form {
    expected: "one of `channel`, `user`, `tag:NAME` and `data:PATH`, or the name of a tag",
    parse: |text| match text {
        "" => Some(String::new()),
        text => join_key(text),
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const TENANT_ID: Form<String> = Form {
    expected: "lower-case letters, digits and `-`, up to 32, and not \"default\"",
    parse: |text| (Tenant::is_id(text) && text != tenant::DEFAULT).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const KEY_NAME: Form<String> = Form {
    expected: "letters, digits, `-` and `_`, up to 64",
    parse: |text| access::is_name(text).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const API_METHOD: Form<String> = Form {
    expected: "the name of a method of the server API such as \"publish\", or a pattern such as \"queue/*\"",
    parse: |text| access::method(text).ok(),
    show: String::clone,
    number: false,
    why: |text| access::method(text).err(),
    is_url: false,
};

/// Unix seconds; 0 is no time.
pub(super) const TIME_OR_NONE: Form<u64> = Form {
    expected: "a time such as \"2027-01-31T12:00:00Z\", in quotes, or \"\"",
    parse: |text| {
        if text.is_empty() {
            return Some(0);
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(time.unix_timestamp())
            .ok()
            .filter(|at| *at > 0)
    },
    show: |unix_s| {
        let time = i64::try_from(*unix_s)
            .ok()
            .filter(|unix_s| *unix_s > 0)
            .and_then(|unix_s| OffsetDateTime::from_unix_timestamp(unix_s).ok());
        let text = time.and_then(|time| time.format(&Rfc3339).ok());
        text.unwrap_or_default()
    },
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const PATH: Form<String> = Form {
    expected: "a path such as \"/connection/websocket\", of printable ASCII without `?` and `#`",
    parse: |text| {
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        (text.starts_with('/') && text.bytes().all(fits) && unreachable_path(text).is_none())
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
    why: unreachable_path,
    is_url: false,
};

/// Why no client comes to a path. Paths are compared as they are sent.
fn unreachable_path(text: &str) -> Option<String> {
    /// What browsers send in another form.
    const ENCODED: [char; 10] = ['"', '<', '>', '`', '{', '}', '^', '|', '\\', '%'];
    if !text.starts_with('/') {
        return (!text.is_empty() && !text.contains("://"))
            .then(|| format!("a path begins with a slash: write \"/{text}\""));
    }
    if text.trim_end_matches('/').contains("//") {
        return Some(format!(
            "{text:?} has two slashes in a row, which many clients and proxies make one"
        ));
    }
    if text.split('/').any(|part| matches!(part, "." | "..")) {
        return Some(format!(
            "{text:?} has a part that clients resolve before they send it"
        ));
    }
    let encoded = text.chars().find(|c| ENCODED.contains(c))?;
    Some(format!(
        "{text:?} has `{encoded}`, and paths are compared as they are sent: browsers send it in another form, or it stands for another character"
    ))
}

pub(super) const CLAIM: Form<String> = Form {
    expected: "the name of a claim, of letters and `_`",
    parse: |text| {
        text.bytes()
            .all(|b| b.is_ascii_alphabetic() || b == b'_')
            .then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const RSA_KEY: Form<Option<PublicKey>> = Form {
    expected: "an RSA public key of 2048 to 4096 bits in PEM (\"-----BEGIN PUBLIC KEY-----\" or \"-----BEGIN RSA PUBLIC KEY-----\")",
    parse: |pem| optional(pem, PublicKey::rsa_from_pem),
    show: |key| {
        key.as_ref()
            .map_or_else(String::new, |key| key.pem().to_owned())
    },
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const ECDSA_KEY: Form<Option<PublicKey>> = Form {
    expected: "an ECDSA public key on P-256 or P-384 in PEM (\"-----BEGIN PUBLIC KEY-----\")",
    parse: |pem| optional(pem, PublicKey::ecdsa_from_pem),
    show: |key| {
        key.as_ref()
            .map_or_else(String::new, |key| key.pem().to_owned())
    },
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const PATTERN: Form<Option<Pattern>> = Form {
    expected: "a regular expression",
    parse: |text| {
        optional(text, |text| {
            Pattern::parse(text).filter(|_| Pattern::can_match(text))
        })
    },
    show: |pattern| {
        pattern
            .as_ref()
            .map_or_else(String::new, |pattern| pattern.as_str().to_owned())
    },
    number: false,
    why: |text| {
        let is_one = Pattern::parse(text).is_some();
        (is_one && !Pattern::can_match(text))
            .then(|| "this regular expression matches no text at all, as with something in front of ^ or behind $".to_owned())
    },
    is_url: false,
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
    why: unsaid,
    is_url: true,
};

pub(super) const NAMESPACE_NAME: Form<String> = Form {
    expected: "two or more of letters, digits, `-`, `_` and `.`",
    parse: |text| is_namespace_name(text).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const NAMESPACE_NAME_OR_NONE: Form<String> = Form {
    expected: "the name of a namespace, or \"\"",
    parse: |text| (text.is_empty() || is_namespace_name(text)).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const DELTA_TYPE: Form<DeltaType> = Form {
    expected: "a list of \"fossil\", or []",
    parse: |text| (text == "fossil").then_some(DeltaType::Fossil),
    show: |delta| match delta {
        DeltaType::Fossil => "fossil".to_owned(),
    },
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const MARK: Form<String> = Form {
    expected: "1 to 16 ASCII characters",
    parse: |text| {
        (!text.is_empty() && text.len() <= 16 && text.is_ascii()).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const MARK_OR_NONE: Form<String> = Form {
    expected: "at most 16 ASCII characters; \"\" turns private channels off",
    parse: |text| (text.len() <= 16 && text.is_ascii()).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

fn is_namespace_name(text: &str) -> bool {
    text.len() >= 2
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A host and perhaps a port, without a user name.
fn is_plain_authority(authority: &http::uri::Authority) -> bool {
    // What is no port number is none to `port` either.
    let has_colon = authority.as_str().len() > authority.host().len();
    let has_port = !has_colon || authority.port_u16().is_some_and(|port| port > 0);
    !authority.host().is_empty() && !authority.as_str().contains('@') && has_port
}

pub(super) const ENDPOINT: Form<String> = Form {
    expected: "an http:// or https:// URL such as \"https://backend.example/hooks\", without a user name; gRPC endpoints are not spoken",
    parse: |text| {
        if text.is_empty() {
            return Some(String::new());
        }
        let uri: http::Uri = text.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        (is_http && is_plain_authority(uri.authority()?)).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: true,
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
    why: unsaid,
    is_url: false,
};

/// A header that every call carries.
pub(super) const STATIC_HEADER: Form<String> = Form {
    expected: HEADER.expected,
    parse: |text| (HEADER.parse)(text).filter(|name| of_the_message(name).is_none()),
    show: String::clone,
    number: false,
    why: of_the_message,
    is_url: false,
};

/// Headers that say how a message is framed or for whom it is.
fn of_the_message(name: &str) -> Option<String> {
    const OWN: [&str; 11] = [
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-ringmain-signature",
    ];
    OWN.contains(&name.to_ascii_lowercase().as_str())
        .then(|| "this header is ringmain's own to set; take it out".to_owned())
}

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
    why: unsaid,
    is_url: false,
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
    why: unsaid,
    is_url: false,
};

pub(super) const METHOD: Form<String> = Form {
    expected: "the name of an RPC method",
    parse: |text| (!text.is_empty()).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const MESSAGE: Form<String> = Form {
    expected: "a message of at most 1024 bytes",
    parse: |text| (text.len() <= 1024).then(|| text.to_owned()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const REASON_OF_OURS: Form<String> = Form {
    expected: "a reason of 1 to 123 bytes that is no JSON, because clients would read it as such",
    parse: |text| (REASON.parse)(text).filter(|reason| !reason.is_empty()),
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

pub(super) const REASON: Form<String> = Form {
    expected: "a reason of at most 123 bytes that is no JSON, because clients would read it as such",
    parse: |text| {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        (text.len() <= 123 && !is_json).then(|| text.to_owned())
    },
    show: String::clone,
    number: false,
    why: unsaid,
    is_url: false,
};

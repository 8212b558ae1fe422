//! A small backend for hooks: one thread for each connection, which answers as a test says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use super::wait::DEADLINE;

/// One request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Path of the URL.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    /// The JSON body.
    pub(crate) body: Value,
    /// The same as it came.
    pub(crate) raw: Vec<u8>,
}

/// What the backend does with a request.
pub(crate) enum Reply {
    /// 200 with this body.
    Json(Value),
    /// Another status.
    Status(u16),
    /// A status with headers, each with its line end, and a body.
    Full(u16, String, String),
    /// 200 with any body.
    Body(Vec<u8>),
    /// 200 with a body of this many bytes, of unknown length until it ends.
    Endless(usize),
    /// The connection is reset.
    Reset,
    /// The same after this time, or never if the backend ends before.
    Late(Duration, Box<Self>),
}

impl Reply {
    /// A result.
    pub(crate) fn result(result: Value) -> Self {
        Self::Json(json!({ "result": result }))
    }
}

impl Asked {
    /// A header by its name, whose case does not count.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Names of all headers.
    pub(crate) fn header_names(&self) -> Vec<&str> {
        self.headers.iter().map(|(key, _)| key.as_str()).collect()
    }
}

/// A running backend.
pub(crate) struct Backend {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    asked: mpsc::Receiver<Asked>,
    stopped: Arc<AtomicBool>,
    connections: Arc<AtomicU32>,
}

impl Backend {
    /// Starts one on a free port.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// Starts one at this address.
    pub(crate) fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (tell, asked) = mpsc::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicU32::new(0));
        let answer = Arc::new(answer);
        let (stop, count) = (Arc::clone(&stopped), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { return };
                count.fetch_add(1, Ordering::Relaxed);
                let (tell, answer, stop) = (tell.clone(), Arc::clone(&answer), Arc::clone(&stop));
                std::thread::spawn(move || serve(stream, &tell, &*answer, &stop));
            }
        });
        Self {
            address,
            asked,
            stopped,
            connections,
        }
    }

    /// A URL of it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request that came.
    pub(crate) fn asked(&self) -> Asked {
        self.asked
            .recv_timeout(DEADLINE)
            .expect("the backend is asked")
    }

    /// Requests that came and were not looked at.
    pub(crate) fn unread(&self) -> Vec<Asked> {
        self.asked.try_iter().collect()
    }

    /// Connections that were opened.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(
    mut stream: TcpStream,
    tell: &mpsc::Sender<Asked>,
    answer: &dyn Fn(&Asked) -> Reply,
    stop: &AtomicBool,
) {
    let mut bytes = Vec::new();
    while let Some(asked) = request(&mut stream, &mut bytes) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let reply = answer(&asked);
        // The test may have ended.
        drop(tell.send(asked));
        if !say(&mut stream, reply) {
            return;
        }
    }
}

fn request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Asked> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        if let Ok(httparse::Status::Complete(start)) = head.parse(bytes) {
            let headers: Vec<(String, String)> = head
                .headers
                .iter()
                .map(|header| {
                    let value = String::from_utf8_lossy(header.value).into_owned();
                    (header.name.to_owned(), value)
                })
                .collect();
            let length = headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, value)| value.parse::<usize>().ok())?;
            assert_eq!(head.method, Some("POST"));
            let path = head.path?.to_owned();
            if bytes.len() >= start + length {
                let raw = bytes[start..start + length].to_vec();
                let body = serde_json::from_slice(&raw).expect("the body of a hook is JSON");
                bytes.drain(..start + length);
                return Some(Asked {
                    path,
                    headers,
                    body,
                    raw,
                });
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
        }
    }
}

fn say(stream: &mut TcpStream, reply: Reply) -> bool {
    let with_length = |status: u16, body: &[u8]| {
        let mut bytes = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        bytes
    };
    match reply {
        Reply::Json(value) => stream
            .write_all(&with_length(200, value.to_string().as_bytes()))
            .is_ok(),
        Reply::Status(status) => stream.write_all(&with_length(status, b"no")).is_ok(),
        Reply::Full(status, headers, body) => {
            let length = body.len();
            let text =
                format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).is_ok()
        }
        Reply::Body(body) => stream.write_all(&with_length(200, &body)).is_ok(),
        Reply::Endless(mut left) => {
            let head = b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n{\"result\":{\"data\":\"";
            let mut is_open = stream.write_all(head).is_ok();
            while is_open && left > 0 {
                is_open = stream.write_all(&[b'a'; 8192]).is_ok();
                left = left.saturating_sub(8192);
            }
            false
        }
        Reply::Reset => {
            let socket = socket2::SockRef::from(&*stream);
            socket
                .set_linger(Some(Duration::ZERO))
                .expect("lingering can be set");
            false
        }
        Reply::Late(after, reply) => {
            // A wait for an event that never comes: the peer's answer is what the test looks at.
            let (_open, never) = mpsc::channel::<()>();
            assert!(never.recv_timeout(after).is_err());
            say(stream, *reply)
        }
    }
}

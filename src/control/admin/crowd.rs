//! Connections of the admin listener. Whoever comes is let in: where there are too many, the one that has said or taken
//! nothing for longest goes, so that idle and slow ones keep no probe waiting.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_BYTES_MAX};
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

/// From one byte of answer to the next: time for a whole request to arrive and for the client to read.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same while an answer is being made: a page of a replay may have to look at much.
const WORK_TIMEOUT: Duration = Duration::from_secs(120);
/// Accepting failed for want of something: it is tried again after this.
const RETRY: Duration = Duration::from_millis(100);

/// What kind of listener somebody came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Everybody on this host, browsers too.
    Tcp,
    /// Whom the mode of the socket lets.
    Unix,
}

/// The admin listener.
#[derive(Debug)]
pub enum Listening {
    /// IPv4 or IPv6.
    Tcp(std::net::TcpListener),
    /// A path.
    Unix(std::os::unix::net::UnixListener),
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    pub(super) const fn door(&self) -> Door {
        match self {
            Self::Tcp(_) => Door::Tcp,
            Self::Unix(_) => Door::Unix,
        }
    }

    fn into_listener(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Tcp(TcpListener::from_std(listener)?)
            }
            Self::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Unix(UnixListener::from_std(listener)?)
            }
        })
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        })
    }
}

/// Somebody who is connected, as the one who lets in sees it.
struct Guest {
    place: Arc<Place>,
    task: JoinHandle<()>,
}

/// How a connection does.
struct Place {
    born: Instant,
    /// When it last took a byte of answer, or had one made: milliseconds after `born` of the listener.
    since: AtomicU64,
    /// An answer is being made.
    works: AtomicBool,
}

impl Place {
    fn progress(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(now, Ordering::Relaxed);
    }

    /// When it has been idle for too long.
    fn due(&self) -> Instant {
        let timeout = if self.works.load(Ordering::Relaxed) {
            WORK_TIMEOUT
        } else {
            IDLE_TIMEOUT
        };
        self.born + Duration::from_millis(self.since.load(Ordering::Relaxed)) + timeout
    }
}

/// Lets in whoever comes until it is `closing`. Whoever waits for an answer then gets it.
pub(super) async fn attend(
    listening: Listening,
    routes: Router,
    mut closing: watch::Receiver<bool>,
) {
    let listener = match listening.into_listener() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin listener ended"),
    };
    let born = Instant::now();
    let mut guests: Vec<Guest> = Vec::with_capacity(ADMIN_CONNECTIONS_MAX);
    loop {
        let accepted = tokio::select! {
            biased;
            () = closed(&mut closing) => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(_) => {
                sleep(RETRY).await;
                continue;
            }
        };
        guests.retain(|guest| !guest.task.is_finished());
        if guests.len() >= ADMIN_CONNECTIONS_MAX {
            show_out(&mut guests);
        }
        let place = Arc::new(Place {
            born,
            since: AtomicU64::new(0),
            works: AtomicBool::new(false),
        });
        place.progress();
        let serves = serve(stream, Arc::clone(&place), routes.clone(), closing.clone());
        let task = tokio::spawn(serves);
        guests.push(Guest { place, task });
    }
    drop(listener);
    for guest in guests {
        // However it ended, its client knows.
        let _ = guest.task.await;
    }
}

/// The listener ends.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|is_closing| *is_closing).await;
}

/// Ends the connection that has been idle for longest; one that works only where all do.
fn show_out(guests: &mut Vec<Guest>) {
    let longest = (0..guests.len()).min_by_key(|&at| {
        let place = &guests[at].place;
        (
            place.works.load(Ordering::Relaxed),
            place.since.load(Ordering::Relaxed),
        )
    });
    if let Some(at) = longest {
        guests.remove(at).task.abort();
    }
}

async fn serve(
    stream: Stream,
    place: Arc<Place>,
    routes: Router,
    mut closing: watch::Receiver<bool>,
) {
    let timed = Timed {
        stream,
        sleep: Box::pin(sleep(IDLE_TIMEOUT)),
        place: Arc::clone(&place),
    };
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request| {
        let (place, answer) = (Arc::clone(&place), routes.call(request));
        place.works.store(true, Ordering::Relaxed);
        async move {
            let answer = answer.await;
            place.works.store(false, Ordering::Relaxed);
            place.progress();
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(ADMIN_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(timed), service);
    let mut connection = std::pin::pin!(connection);
    // However it ended, its client knows.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that ends when no byte of an answer left for a while. Bytes received do not count: a request that trickles in
/// is cut like one that never comes.
struct Timed {
    stream: Stream,
    sleep: Pin<Box<Sleep>>,
    place: Arc<Place>,
}

impl Timed {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let due = self.place.due();
            if due <= Instant::now() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.sleep.as_mut().reset(due);
        }
        Ok(())
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        if matches!(written, Poll::Ready(Ok(_))) {
            self.place.progress();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

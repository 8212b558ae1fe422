//! A connection to NATS that can be cut, and whose answers can be withheld.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Passes,
    /// So many more pieces of what the server says pass, then it is `Mute`.
    Few(usize),
    /// What the server says is lost.
    Mute,
    /// Connections end, and new ones are refused.
    Cut,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) line: watch::Sender<Line>,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (line, watched) = watch::channel(Line::Passes);
        let set = line.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watched.borrow() != Line::Cut
                    && let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await
                {
                    tokio::spawn(carry(client, server, watched.clone(), set.clone()));
                }
            }
        });
        Self { port, line }
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    mut line: watch::Receiver<Line>,
    set: watch::Sender<Line>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = from_client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                if to_server.write_all(&up[..count]).await.is_err() { return }
            }
            read = from_server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                let state = *line.borrow();
                if let Line::Few(left) = state {
                    set.send_replace(left.checked_sub(1).map_or(Line::Mute, Line::Few));
                }
                let passes = matches!(state, Line::Passes | Line::Few(1..));
                if passes && to_client.write_all(&down[..count]).await.is_err() { return }
            }
            changed = line.changed() => {
                if changed.is_err() || *line.borrow_and_update() == Line::Cut { return }
            }
        }
    }
}

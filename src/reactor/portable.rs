//! The duties of the hot loop on monoio's epoll driver, for hosts that refuse io_uring: one task reads each connection,
//! the main task thinks and sends, and a writer lives as long as an owned batch is out.

mod connection;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use monoio::net::UnixStream as Source;
use monoio::{LegacyDriver, RuntimeBuilder};

use super::accept::LAST_ACCEPTS;
use super::clock::Clock;
use super::doorbell::{LocalBell, SAFETY_TICK, Sleepers};
use super::fair::{HEAVY_RECEIVE, Share, WEIGHED_BYTES, Weight};
use super::hot::{Next, SHRINK_INTERVAL, take_messages};
use super::reports::Reports;
use super::send::Slice;
use super::strain::Watch;
use super::{Listener, ShardThread};
use crate::mesh::bell::Doorbell as _;
use crate::mesh::control::{FromShard, ToShard};
use crate::model::{ConnId, ShardId};
use crate::shard::{Door, EndCause, Output, Peer, SendBatch, Shard};
use crate::time::{Instant, Now};
use crate::uring::{EventFd, memory, socket};
use connection::{Connection, Connections, outcome};

/// Bytes of one receive.
const RECEIVE: usize = 64 * 1024;
/// Connections taken from one listener before the others get their turn.
const ACCEPTS: u32 = 64;
/// Descriptors that are not connections: listeners, bells, files, the log, backends of hooks. Clients never get them.
const DESCRIPTORS_SPARE: u64 = 256;

/// Runs the shard until it has drained. `started` is called when it serves.
pub(super) fn run(thread: ShardThread, started: impl FnOnce(io::Result<()>)) -> io::Result<()> {
    let mut runtime = match RuntimeBuilder::<LegacyDriver>::new().enable_timer().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            started(Err(io::Error::new(error.kind(), error.to_string())));
            return Err(error);
        }
    };
    runtime.block_on(serve(thread, started))
}

/// One shard and its sockets. Shared by the tasks of the thread, never borrowed over an await.
struct Core {
    id: ShardId,
    shard: Shard,
    connections: Connections,
    reports: Reports,
    sleepers: Arc<Sleepers>,
    clock: Clock,
    connections_max: u32,
    /// Where every receive lands; the shard takes the bytes before the next one.
    scratch: Vec<u8>,
    /// Connections that nothing is read from, or nothing can be: whether they are broken is asked from time to time.
    watched: Vec<ConnId>,
    /// Tasks that go on after the next flush: readers that had their share.
    after_flush: Vec<Waker>,
    /// Readers that cost much, in the order in which they go on, some after each flush.
    resting: VecDeque<(Waker, Weight)>,
    /// Accept tasks that wait for a place, and what stops them.
    accepting: Vec<Rc<LocalBell>>,
    /// Accept tasks that have not ended; `None` once the shard knows that none is left.
    listeners: Option<usize>,
    /// What they accept on; it ends with its task.
    queues: Vec<Weak<Listener>>,
    /// Accept tasks that wait for a descriptor.
    starved: usize,
    /// Some wait until the shard has room for clients.
    held: bool,
    watch: Watch,
    bell: Rc<LocalBell>,
}

type Shared = Rc<RefCell<Core>>;

async fn serve(thread: ShardThread, started: impl FnOnce(io::Result<()>)) -> io::Result<()> {
    let wake = thread.sleepers.bell(thread.id).try_clone()?;
    let (core, bell, listeners) = prepare(thread);
    monoio::spawn(listen_to(wake.try_clone()?, Rc::clone(&bell)));
    let mut sleep = pin!(monoio::time::sleep(SAFETY_TICK));
    let mut tick = core.borrow().clock.now().at;
    let mut shrunk = tick;
    started(Ok(()));
    // Not before they listen: epoll would say of each that it is at its end, and never take that back.
    listen(&core, listeners)?;
    loop {
        let sleeps = match turn(&core) {
            Next::End => return Ok(()),
            Next::Turn => {
                // Once through epoll, so that sockets and timers get their turn before the next slice.
                wake.ring();
                false
            }
            Next::Sleep if lie_down(&core) => true,
            Next::Sleep => continue,
        };
        let alarm = {
            let core = core.borrow();
            let latest = core.clock.now().at + SAFETY_TICK;
            let due = core.shard.poll_timeout().filter(|_| sleeps);
            core.clock
                .to_std(due.map_or(latest, |due| due.at.min(latest)))
        };
        sleep.as_mut().reset(alarm.into());
        poll_fn(|context| {
            if bell.poll(context).is_ready() {
                return Poll::Ready(());
            }
            sleep.as_mut().poll(context)
        })
        .await;
        let mut core = core.borrow_mut();
        core.sleepers.rise(core.id);
        let now = core.clock.now().at;
        if now >= tick {
            tick = now + SAFETY_TICK;
            if now.since(shrunk) >= SHRINK_INTERVAL {
                shrunk = now;
                core.shard.shrink();
                memory::give_back();
            }
            core.look_after_watched();
            core.look(now);
            core.accepting.iter().for_each(|stopped| stopped.ring());
        }
    }
}

fn prepare(thread: ShardThread) -> (Shared, Rc<LocalBell>, Vec<Listener>) {
    let bell = Rc::new(LocalBell::default());
    let descriptors = connections_max(socket::descriptors_max(), thread.endpoint.shards());
    let listeners = thread.listeners;
    let core = Core {
        id: thread.id,
        connections_max: descriptors.min(thread.config.server.connections_per_shard_max),
        shard: Shard::new(
            thread.id,
            thread.mode,
            thread.config,
            thread.endpoint,
            thread.seed,
        )
        .with_key(&thread.key),
        connections: Connections::default(),
        reports: Reports::new(thread.link),
        sleepers: thread.sleepers,
        clock: thread.clock,
        scratch: vec![0; RECEIVE],
        watched: Vec::new(),
        after_flush: Vec::new(),
        resting: VecDeque::new(),
        accepting: listeners.iter().map(|_| Rc::default()).collect(),
        listeners: Some(listeners.len()),
        queues: Vec::new(),
        starved: 0,
        held: false,
        watch: Watch::default(),
        bell: Rc::clone(&bell),
    };
    (Rc::new(RefCell::new(core)), bell, listeners)
}

/// Connections that each of so many shards can have. All of them share the descriptors of the process.
fn connections_max(descriptors: u64, shards: u16) -> u32 {
    let spare = DESCRIPTORS_SPARE.min(descriptors / 4);
    let each = (descriptors - spare) / u64::from(shards.max(1));
    u32::try_from(each).unwrap_or(u32::MAX)
}

/// A task for each listener.
fn listen(core: &Shared, listeners: Vec<Listener>) -> io::Result<()> {
    let stops = core.borrow().accepting.clone();
    for (listener, stopped) in listeners.into_iter().zip(stops) {
        listener.socket.set_nonblocking(true)?;
        // monoio waits on any descriptor that it takes for a stream; the accept itself is ours.
        let source = Source::from_std(UnixStream::from(std::os::fd::OwnedFd::from(
            listener.socket.try_clone()?,
        )))?;
        let listener = Rc::new(listener);
        core.borrow_mut().queues.push(Rc::downgrade(&listener));
        monoio::spawn(accept(Rc::clone(core), listener, source, stopped));
    }
    Ok(())
}

/// Turns signals of the eventfd into rings of the bell.
async fn listen_to(eventfd: EventFd, bell: Rc<LocalBell>) {
    let Ok(source) = eventfd
        .try_clone()
        .and_then(|fd| Source::from_std(UnixStream::from(fd.into_fd())))
    else {
        return;
    };
    while source.readable(false).await.is_ok() {
        eventfd.take();
        bell.ring();
    }
}

fn turn(core: &Shared) -> Next {
    let mut this = core.borrow_mut();
    let now = this.clock.now();
    while let Some(command) = this.reports.next_command() {
        if let ToShard::Reload(config) = &command {
            for listener in this.queues.iter().filter_map(Weak::upgrade) {
                listener.watch_as(config);
            }
        }
        this.shard.handle_control(now, command);
    }
    while !this.shard.is_full()
        && let Some(answer) = this.reports.next_answer()
    {
        this.shard.handle_answer(now, answer);
    }
    while !this.shard.is_full()
        && let Some(message) = this.reports.next_from_log()
    {
        this.shard.handle_log(now, message);
    }
    if !this.shard.is_full() {
        let Core { shard, clock, .. } = &mut *this;
        shard.handle_mesh(now);
        take_messages(shard, clock);
    }
    if this
        .shard
        .poll_timeout()
        .is_some_and(|deadline| deadline.at <= now.at)
    {
        this.shard.handle_timeout(now);
    }
    let more = this.flush(core, now);
    if this.held && this.shard.accept_room(now) > 0 {
        this.held = false;
        this.accepting.iter().for_each(|held| held.ring());
    }
    if !this.shard.is_accepting() {
        for stopped in this.accepting.drain(..) {
            stopped.ring();
        }
        if this.listeners == Some(0) {
            this.listeners = None;
            this.shard.handle_unlistened(now);
            this.bell.ring();
        }
    }
    this.reports.hand_over();
    if more || !this.after_flush.is_empty() {
        let taken = this.clock.now().at.since(now.at);
        this.shard
            .counters_mut()
            .turn
            .record(u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX));
    }
    for task in this.after_flush.drain(..) {
        task.wake();
    }
    let mut share = Share::of_turn();
    while let Some((_, weight)) = this.resting.front()
        && share.has_room(*weight)
        && let Some((task, _)) = this.resting.pop_front()
    {
        task.wake();
    }
    if this.reports.ended() {
        return Next::End;
    }
    let due = this.shard.poll_timeout();
    if more || !this.resting.is_empty() || due.is_some_and(|due| due.at <= now.at) {
        Next::Turn
    } else {
        Next::Sleep
    }
}

/// The last look before sleep, after which everything rings the bell. Returns whether the shard may sleep.
fn lie_down(core: &Shared) -> bool {
    let mut this = core.borrow_mut();
    this.sleepers.lie_down(this.id);
    let now = this.clock.now();
    if !this.shard.is_full() {
        this.shard.handle_mesh(now);
    }
    let more = this.flush(core, now) || this.shard.has_messages();
    let quiet = !more && !this.reports.has_command();
    if !quiet {
        this.sleepers.rise(this.id);
    }
    quiet
}

impl Core {
    /// Takes outputs until the shard has none or a slice is full. Returns whether there may be more.
    fn flush(&mut self, shared: &Shared, now: Now) -> bool {
        let mut slice = Slice::new(self.shard.has_tenants());
        let mut first = true;
        loop {
            let mut taken = 0;
            slice.begin_part();
            while slice.has_room()
                && let Some(output) = self.shard.poll_output()
            {
                taken += 1;
                slice.add(&output);
                self.carry_out(shared, now, output);
            }
            // `handle_flushed` may bring outputs: the loop ends when a flush has brought none.
            if taken == 0 && !first {
                return false;
            }
            first = false;
            // Sending a slice takes its time; the fan-out is measured to its end.
            self.shard.handle_flushed(self.clock.now());
            // Who has come meanwhile is read by tasks of their own, which have their turn behind this one.
            if !slice.has_room() {
                return true;
            }
        }
    }

    fn carry_out(&mut self, shared: &Shared, now: Now, output: Output) {
        match output {
            Output::Transmit {
                conn,
                batch: SendBatch::Ring(range),
            } => {
                let Some(connection) = self.connections.of(conn) else {
                    return;
                };
                let bytes = self.shard.ring_bytes(range);
                let result = outcome(socket::send(&connection.source, bytes));
                if result != Ok(bytes.len()) {
                    self.shard
                        .handle_sent(now, conn, SendBatch::Ring(range), result);
                }
            }
            Output::Transmit {
                conn,
                batch: SendBatch::Owned(batch),
            } => {
                let Some(connection) = self.connections.of(conn) else {
                    return;
                };
                connection.begin_task();
                monoio::spawn(write(Rc::clone(shared), Rc::clone(connection), batch));
            }
            Output::Close { conn, how } => {
                if let Some(connection) = self.connections.of(conn) {
                    connection.close(how);
                    self.close_if_done(now, conn);
                }
            }
            Output::Pause(conn) => {
                if let Some(connection) = self.connections.of(conn) {
                    connection.pause(true);
                    self.watch(conn);
                }
            }
            Output::Resume(conn) => {
                if let Some(connection) = self.connections.of(conn) {
                    connection.pause(false);
                }
            }
            Output::HalfClose(conn) => {
                if let Some(connection) = self.connections.of(conn) {
                    socket::half_close(&connection.source);
                }
            }
            Output::Patience(conn, time) => {
                if let Some(connection) = self.connections.of(conn) {
                    // On a unix socket this fails, and its peer cannot be out of reach.
                    let _ = socket::set_unacknowledged_max(&connection.source, time);
                }
            }
            Output::Wake(shard) => self.sleepers.wake(shard),
            Output::Report(report) => self.reports.push(report),
            Output::Call(call) => self.reports.call(call),
            Output::Log(request) => self.reports.ask_log(request),
        }
    }

    fn watch(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.of(conn)
            && !connection.watched.replace(true)
        {
            self.watched.push(conn);
        }
    }

    /// Tells the shard which of the watched connections are broken.
    fn look_after_watched(&mut self) {
        let now = self.clock.now();
        for conn in std::mem::take(&mut self.watched) {
            let Some(connection) = self.connections.of(conn) else {
                continue;
            };
            connection.watched.set(false);
            if connection.is_closing() {
            } else if socket::is_broken(&connection.source) {
                self.shard.handle_ended(now, conn, EndCause::Reset);
            } else if connection.is_paused() || connection.has_ended() {
                self.watch(conn);
            }
        }
    }

    /// A task of the connection has ended. Its reference goes first: the last one closes the descriptor.
    fn task_ended(&mut self, connection: Rc<Connection>) {
        let conn = connection.conn;
        connection.end_task();
        drop(connection);
        let now = self.clock.now();
        self.close_if_done(now, conn);
        self.bell.ring();
    }

    fn close_if_done(&mut self, now: Now, conn: ConnId) {
        if self
            .connections
            .of(conn)
            .is_some_and(|connection| connection.is_done())
        {
            self.connections.remove(conn.slot);
            self.shard.handle_closed(now, conn);
            self.bell.ring();
        }
    }
}

/// Accepts until the shard stops accepting.
async fn accept(core: Shared, listener: Rc<Listener>, source: Source, stopped: Rc<LocalBell>) {
    // Whoever stood in the queue when there was no room is told of no more.
    let mut was_held = false;
    while core.borrow().shard.is_accepting() {
        if !core.borrow_mut().may_take(listener.door) {
            // Rung by the safety tick, or when the shard has room: places come back one by one, and waiting in the backlog costs a client little.
            poll_fn(|context| stopped.poll(context)).await;
            was_held = true;
            continue;
        }
        if !std::mem::take(&mut was_held) {
            let mut readable = pin!(source.readable(false));
            poll_fn(|context| {
                let stopped = stopped.poll(context).is_ready();
                if readable.as_mut().poll(context).is_ready() || stopped {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
        if take_in(&core, &listener) == Taken::Short {
            core.borrow_mut().starved += 1;
            poll_fn(|context| stopped.poll(context)).await;
            core.borrow_mut().starved -= 1;
        }
        after_flush(&core).await;
    }
    // Who stands in the queue has been let in by the kernel, and waits for the next process where the queue stays.
    let last = core.borrow().clock.now().at + LAST_ACCEPTS;
    while !listener.stays
        && take_in(&core, &listener) == Taken::Some
        && core.borrow().clock.now().at < last
    {
        after_flush(&core).await;
    }
    drop((listener, source));
    let mut core = core.borrow_mut();
    core.listeners = core.listeners.map(|left| left - 1);
    core.bell.ring();
}

/// What became of accepting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// There may be more.
    Some,
    /// Nobody else stands in the queue, or there is no place.
    All,
    /// The process is short of something.
    Short,
}

fn take_in(core: &Shared, listener: &Listener) -> Taken {
    for _ in 0..ACCEPTS {
        if !core.borrow_mut().may_take(listener.door) {
            return Taken::All;
        }
        match listener.socket.accept() {
            Ok((socket, address)) => {
                let ip = address.as_socket().map(|address| address.ip());
                let door = listener.door;
                // A socket that epoll does not take is closed by its drop.
                let _ = open(core, socket, Peer { ip, door });
            }
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
                ) =>
            {
                core.borrow_mut().starve(&error);
                return Taken::Short;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Taken::All,
            Err(_) => {}
        }
    }
    Taken::Some
}

impl Core {
    /// A listener cannot be accepted on for want of a descriptor.
    fn starve(&mut self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EMFILE);
        self.watch.failed(errno, self.shard.counters_mut());
    }

    /// Looks how near the limits of the system are.
    fn look(&mut self, now: Instant) {
        let is_paused = self.shard.is_accepting() && (!self.has_place() || self.starved > 0);
        self.watch.paused(is_paused, self.shard.counters_mut());
        if self.watch.is_due(now) {
            let places = (self.connections.open(), self.connections_max);
            let listeners: Vec<Rc<Listener>> =
                self.queues.iter().filter_map(Weak::upgrade).collect();
            let listeners = listeners.iter().map(|listener| &**listener);
            let counters = self.shard.counters_mut();
            if let Some(strain) = self.watch.look(now, places, listeners, counters) {
                self.reports.push(FromShard::Strained(self.id, strain));
            }
        }
    }

    /// May somebody be taken in at this door?
    fn may_take(&mut self, door: Door) -> bool {
        let now = self.clock.now();
        let is_held = door == Door::Clients && self.shard.accept_room(now) == 0;
        self.held |= is_held;
        self.has_place() && !is_held
    }

    fn has_place(&self) -> bool {
        self.connections.open() < self.connections_max
    }
}

fn open(core: &Shared, socket: socket2::Socket, peer: Peer) -> io::Result<()> {
    let source = Source::from_std(UnixStream::from(std::os::fd::OwnedFd::from(socket)))?;
    let mut this = core.borrow_mut();
    let now = this.clock.now();
    let slot = this.connections.reserve();
    match this.shard.handle_accepted(now, slot, peer) {
        Ok(conn) => {
            let connection = Rc::new(Connection::new(conn, source));
            this.connections.insert(Rc::clone(&connection));
            monoio::spawn(read(Rc::clone(core), connection));
        }
        Err(_) => this.connections.give_back(slot),
    }
    Ok(())
}

/// Waits for the next flush. The only fair way to yield: a task that wakes itself is run before all others.
async fn after_flush(core: &Shared) {
    yield_to(core, |core, waker| core.after_flush.push(waker)).await;
}

/// Waits for its turn among those who cost much.
async fn rest(core: &Shared, weight: Weight) {
    yield_to(core, |core, waker| core.resting.push_back((waker, weight))).await;
}

/// Leaves its waker somewhere, and waits to be woken.
async fn yield_to(core: &Shared, leave: impl Fn(&mut Core, Waker)) {
    let mut waited = false;
    poll_fn(|context: &mut Context<'_>| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        let mut core = core.borrow_mut();
        leave(&mut core, context.waker().clone());
        core.bell.ring();
        Poll::Pending
    })
    .await;
}

/// Reads until the stream ends or the connection is closed.
async fn read(core: Shared, connection: Rc<Connection>) {
    while connection.readable().await {
        while core.borrow().shard.is_full() {
            after_flush(&core).await;
        }
        if connection.is_closing() {
            break;
        }
        if connection.is_paused() {
            continue;
        }
        match receive(&core, &connection) {
            Received::Last => break,
            Received::Heavy(weight) => rest(&core, weight).await,
            Received::Light => after_flush(&core).await,
        }
    }
    core.borrow_mut().task_ended(connection);
}

/// What a receive brought.
enum Received {
    /// It was the last.
    Last,
    /// Little work, or nothing.
    Light,
    /// So much work that others go first.
    Heavy(Weight),
}

/// One receive.
fn receive(core: &Shared, connection: &Connection) -> Received {
    let this = &mut *core.borrow_mut();
    let now = this.clock.now();
    let most = if connection.is_dense() {
        HEAVY_RECEIVE as usize
    } else {
        RECEIVE
    };
    match socket::receive(&connection.source, &mut this.scratch[..most]) {
        Ok(0) => {
            connection.set_ended();
            this.watch(connection.conn);
            this.shard.handle_ended(now, connection.conn, EndCause::Eof);
        }
        Ok(received) => {
            let bytes = &mut this.scratch[..received];
            this.shard.handle_received(now, connection.conn, bytes);
            if received < WEIGHED_BYTES {
                return Received::Light;
            }
            let weight = Weight::new(this.clock.at().since(now.at), received);
            let is_alone = this.after_flush.is_empty() && this.resting.is_empty();
            return if connection.weigh(weight, is_alone) {
                Received::Heavy(weight)
            } else {
                Received::Light
            };
        }
        Err(error) if error.raw_os_error().is_some_and(socket::is_passing) => {
            return Received::Light;
        }
        Err(_) => this
            .shard
            .handle_ended(now, connection.conn, EndCause::Reset),
    }
    Received::Last
}

/// Writes an owned batch to its end, or to the end of the connection.
async fn write(core: Shared, connection: Rc<Connection>, batch: Vec<u8>) {
    let mut sent = 0;
    let result = loop {
        match outcome(socket::send(&connection.source, &batch[sent..])) {
            Ok(taken) => sent += taken,
            Err(failed) => break Err(failed),
        }
        if sent == batch.len() {
            break Ok(sent);
        }
        if connection.source.writable(false).await.is_err() {
            break Err(crate::shard::SendFailed);
        }
    };
    let mut this = core.borrow_mut();
    let now = this.clock.now();
    this.shard
        .handle_sent(now, connection.conn, SendBatch::Owned(batch), result);
    this.task_ended(connection);
}

//! A table of PostgreSQL: rows that are visible are read by their number and published.
//!
//! Numbers are no order of commits: a transaction may draw its number early and commit late, so a place behind a number would
//! lose rows. Where rows are deleted none is kept: every row that is there is still to be published, whenever it was
//! committed. Where rows stay, the place is a transaction and a number in it, and only transactions are read before which none is under way.

mod row;
mod table;

use std::rc::Rc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};

use super::offer::{Fault, Offer, Outcome, publish};
use super::{CONNECT_TIME, Context, Driver, PATIENCE, Sink};
use crate::limits::{SOURCE_BATCH_BYTES_MAX, SOURCE_LAG_MAX, SOURCE_SKIPPED_MAX};
use crate::upstream::log::Values;

use row::{RowName, TableRow};
use table::Table;

/// Rows of the first batch: only afterwards is known how large they are.
const FIRST_BATCH: u32 = 64;
/// The place is kept at most this often while more rows follow at once.
const KEEP_INTERVAL: Duration = Duration::from_millis(100);
/// The lock of a table is waited for this long.
const LOCK_TIME: Duration = Duration::from_secs(2);
/// … and asked for this often.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);
/// How far behind a source is, is counted at most this often.
const LAG_INTERVAL: Duration = Duration::from_secs(2);

/// Where a source is whose rows stay.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Number of a transaction, of 64 bits.
    xact: u64,
    id: i64,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (xact, id) = text.strip_prefix("postgres/")?.split_once('/')?;
        Some(Self {
            xact: xact.parse().ok()?,
            id: id.parse().ok()?,
        })
    }

    fn text(&self) -> String {
        format!("postgres/{}/{}", self.xact, self.id)
    }
}

/// A connection on which the table is read.
struct Session<'a, L, O> {
    context: &'a Context<L, O>,
    client: Client,
    driver: Driver<String>,
    /// Something was notified.
    heard: Rc<Notify>,
    read: Statement,
    done: Statement,
    count: Statement,
    place: Option<Place>,
    kept: Option<Instant>,
    /// Rows that are left out until the configuration changes, or the process starts anew.
    skipped: Vec<i64>,
    config: std::sync::Weak<crate::config::Config>,
    /// Rows that are asked for.
    limit: u32,
    counted: Option<Instant>,
}

/// Reads and publishes until that fails.
pub(super) async fn read<L: Values, O: Sink>(context: &Context<L, O>) -> Fault {
    let mut session = match Session::open(context).await {
        Ok(session) => session,
        Err(fault) => return fault,
    };
    loop {
        match session.turn().await {
            Ok(true) => {}
            Ok(false) => {
                if let Some(fault) = session.wait().await {
                    return fault;
                }
            }
            Err(fault) => return fault,
        }
    }
}

impl<'a, L: Values, O: Sink> Session<'a, L, O> {
    async fn open(context: &'a Context<L, O>) -> Result<Self, Fault> {
        let spec = &context.spec.postgres;
        let password = context.password(&spec.password.0, &spec.password_file)?;
        let mut config = tokio_postgres::Config::new();
        config
            .host(&spec.host)
            .port(spec.port)
            .dbname(&spec.database)
            .user(&spec.user)
            .application_name("ringmain")
            .connect_timeout(CONNECT_TIME)
            .tcp_user_timeout(PATIENCE)
            .keepalives_idle(PATIENCE);
        if !password.is_empty() {
            config.password(password);
        }
        let connected = timeout(CONNECT_TIME, config.connect(NoTls)).await;
        let (client, connection) = connected
            .map_err(|_elapsed| Fault::Away("the database does not answer".to_owned()))?
            .map_err(|error| away(&error))?;
        let heard = Rc::new(Notify::new());
        let driver = tokio::task::spawn_local(drive(connection, Rc::clone(&heard)));
        let driver = Driver(driver);
        let table = answered(Table::find(&client, &context.spec)).await??;
        lock(&client, &table).await?;
        let place = match spec.delete {
            true => None,
            false => answered(first_place(context, &client)).await??,
        };
        let begin = client.batch_execute(&table.begin);
        answered(begin).await?.map_err(|error| away(&error))?;
        let prepared = async {
            let read = client.prepare(&table.read).await?;
            let done = client.prepare(&table.done).await?;
            let count = client.prepare(&table.count).await?;
            Ok((read, done, count))
        };
        let (read, done, count) = answered(prepared).await?.map_err(|error| away(&error))?;
        Ok(Self {
            context,
            client,
            driver,
            heard,
            read,
            done,
            count,
            place,
            kept: None,
            skipped: Vec::new(),
            config: std::sync::Weak::new(),
            limit: FIRST_BATCH.min(context.spec.batch),
            counted: None,
        })
    }

    /// One batch. `true` where there may be more at once.
    async fn turn(&mut self) -> Result<bool, Fault> {
        self.look_at_configuration();
        let (rows, is_full) = answered(self.rows()).await??;
        if rows.is_empty() {
            self.context.ledger.behind(0);
            self.context.ledger.went_on();
            return Ok(false);
        }
        let names: Vec<RowName> = rows.iter().map(|row| row.name.clone()).collect();
        let offers: Vec<Offer<RowName>> = rows.into_iter().map(TableRow::into_offer).collect();
        let outcome = publish(self.context, offers).await;
        self.settle(&names, &outcome, is_full).await?;
        if let Some(fault) = outcome.fault {
            return Err(fault);
        }
        if is_full {
            self.look_ahead().await?;
        } else {
            self.context.ledger.behind(0);
        }
        self.context.ledger.went_on();
        Ok(is_full)
    }

    /// Another configuration may take what the one before refused.
    fn look_at_configuration(&mut self) {
        let now = std::sync::Arc::downgrade(&self.context.sink.config());
        if !now.ptr_eq(&self.config) {
            self.config = now;
            self.skipped.clear();
            self.context.ledger.tries_again();
        }
    }

    /// The next rows, and whether there may be more.
    async fn rows(&mut self) -> Result<(Vec<TableRow>, bool), Fault> {
        let limit = i64::from(self.limit);
        let stream = match &self.place {
            None => {
                let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
                    [&limit, &self.skipped];
                self.client.query_raw(&self.read, parameters).await
            }
            Some(place) => {
                let xact = place.xact.to_string();
                let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                    [&limit, &xact, &place.id];
                self.client.query_raw(&self.read, parameters).await
            }
        };
        let mut stream = std::pin::pin!(stream.map_err(|error| away(&error))?);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(row) = stream.try_next().await.map_err(|error| away(&error))? {
            let row = TableRow::read(&row, &self.context.spec).map_err(|error| away(&error))?;
            bytes += row.bytes();
            rows.push(row);
            if bytes >= SOURCE_BATCH_BYTES_MAX {
                break;
            }
        }
        let most = self.context.spec.batch;
        let count = u32::try_from(rows.len()).unwrap_or(most);
        let is_full = count >= self.limit || bytes >= SOURCE_BATCH_BYTES_MAX;
        // What is asked for and not taken is sent for nothing.
        self.limit = match bytes >= SOURCE_BATCH_BYTES_MAX {
            true => count.max(1),
            false if is_full => self.limit.saturating_mul(2).min(most),
            false => self.limit,
        };
        Ok((rows, is_full))
    }

    /// Rows that are done with do not come again.
    async fn settle(
        &mut self,
        names: &[RowName],
        outcome: &Outcome,
        is_full: bool,
    ) -> Result<(), Fault> {
        let reached = &names[..outcome.reach];
        let Some(last) = reached.last() else {
            return Ok(());
        };
        if self.place.is_some() {
            let place = Place {
                xact: last.mark.parse().unwrap_or_default(),
                id: last.id,
            };
            // While more follows: what is read again after a crash is known.
            let is_early = |at: Instant| at.elapsed() < KEEP_INTERVAL;
            if !is_full || outcome.fault.is_some() || !self.kept.is_some_and(is_early) {
                self.context.keep_place(&place.text()).await?;
                self.kept = Some(Instant::now());
            }
            self.place = Some(place);
            return Ok(());
        }
        let is_left = |at: &usize| outcome.skipped.binary_search(at).is_ok();
        let left = outcome.skipped.iter().map(|at| names[*at].id);
        self.skipped.extend(left);
        let gone = || (0..reached.len()).filter(|at| !is_left(at));
        let ids: Vec<i64> = gone().map(|at| reached[at].id).collect();
        let marks: Vec<&str> = gone().map(|at| &*reached[at].mark).collect();
        if !ids.is_empty() {
            let deleted = answered(self.client.execute(&self.done, &[&ids, &marks])).await?;
            deleted.map_err(|error| away(&error))?;
        }
        if self.skipped.len() > SOURCE_SKIPPED_MAX {
            let why = format!("more than {SOURCE_SKIPPED_MAX} rows cannot be published");
            return Err(Fault::Unfit(why));
        }
        Ok(())
    }

    /// Counts what is still to be read, now and then.
    async fn look_ahead(&mut self) -> Result<(), Fault> {
        let is_early = |at: Instant| at.elapsed() < LAG_INTERVAL;
        if self.counted.is_some_and(is_early) {
            return Ok(());
        }
        self.counted = Some(Instant::now());
        let most = i64::try_from(SOURCE_LAG_MAX).unwrap_or(i64::MAX);
        let counted = match &self.place {
            None => {
                let client = &self.client;
                answered(client.query_one(&self.count, &[&most, &self.skipped])).await?
            }
            Some(place) => {
                let (client, xact) = (&self.client, place.xact.to_string());
                answered(client.query_one(&self.count, &[&most, &xact, &place.id])).await?
            }
        };
        let count: i64 = counted.map_err(|error| away(&error))?.get(0);
        self.context
            .ledger
            .behind(u64::try_from(count).unwrap_or(0));
        Ok(())
    }

    /// Until there may be something new.
    async fn wait(&mut self) -> Option<Fault> {
        tokio::select! {
            biased;
            ended = &mut self.driver.0 => {
                let why = ended.unwrap_or_else(|_cancelled| "the connection was lost".to_owned());
                Some(Fault::Away(why))
            }
            () = self.heard.notified() => None,
            () = tokio::time::sleep(self.context.spec.poll_interval) => None,
        }
    }
}

/// Nobody else reads the table. A process that was killed a moment ago may still seem to.
async fn lock(client: &Client, table: &Table) -> Result<(), Fault> {
    let until = Instant::now() + LOCK_TIME;
    loop {
        let is_ours = answered(client.query_one(table::LOCK, &[&table.lock])).await?;
        if is_ours.map_err(|error| away(&error))?.get(0) {
            return Ok(());
        }
        if Instant::now() > until {
            let other = "another process reads this table; one at a time does";
            return Err(Fault::Unfit(other.to_owned()));
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
}

/// Where a source begins whose rows stay, in this database.
async fn first_place<L: Values, O: Sink>(
    context: &Context<L, O>,
    client: &Client,
) -> Result<Option<Place>, Fault> {
    let Some(text) = context.place().await? else {
        return Ok(Some(Place { xact: 0, id: 0 }));
    };
    let place = Place::parse(&text).ok_or_else(|| context.foreign_place())?;
    let next = client.query_one(table::NEXT_XACT, &[]).await;
    let next: String = next.map_err(|error| away(&error))?.get(0);
    if next.parse().is_ok_and(|next: u64| place.xact >= next) {
        return Err(Fault::Unfit(format!(
            "the place {} is ahead of the database, which is another one or an older state; give the source another name to begin anew",
            place.xact
        )));
    }
    Ok(Some(place))
}

/// Carries what is asked to the server and back. Ends with the connection, and says why.
async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, heard: Rc<Notify>) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(_))) => heard.notify_one(),
            Some(Ok(_)) => {}
            Some(Err(error)) => return told(&error),
            None => return "the connection was closed".to_owned(),
        }
    }
}

/// A server that says nothing is away.
async fn answered<T>(question: impl Future<Output = T>) -> Result<T, Fault> {
    let answer = timeout(PATIENCE, question).await;
    answer.map_err(|_elapsed| Fault::Away("the database does not answer".to_owned()))
}

fn away(error: &tokio_postgres::Error) -> Fault {
    Fault::Away(told(error))
}

/// An error with its causes.
fn told(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!(
            "the database says {}: {}",
            error.code().code(),
            error.message()
        );
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_comes_back_as_it_was() {
        let place = Place {
            xact: u64::MAX,
            id: -5,
        };
        assert_eq!(Place::parse(&place.text()), Some(place));
        for text in ["", "postgres/", "postgres/1", "1/2", "postgres/x/1", "{}"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}

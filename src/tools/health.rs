//! `ringmain health`: does the proxy of this host run, and does it serve clients.

use std::io::Write as _;
use std::time::Duration;

use super::ToolError;
use super::client::Client;

/// Time for the whole answer. Whoever runs this again and again does not wait longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Prints the page; an error is every answer but 200.
pub(super) fn ask(client: Client, is_ready_asked: bool) -> Result<(), ToolError> {
    let path = if is_ready_asked { "/ready" } else { "/health" };
    let mut body = client.page(path, ANSWER_WITHIN)?;
    if !body.ends_with(b"\n") {
        body.push(b'\n');
    }
    std::io::stdout()
        .lock()
        .write_all(&body)
        .map_err(|error| ToolError::file("standard output", error))
}

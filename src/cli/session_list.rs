//! `sandbox session list`: the sessions that there are.

use crate::session::protocol::{Description, Message, Request};
use crate::session::{Client, Place};
use crate::units::rough;
use anyhow::Result;
use std::io::{Write, stdout};
use std::time::Duration;

/// How long a session may take to answer what it can answer at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Shows the sessions that answer.
pub fn list(json: bool) -> Result<u8> {
    let place = Place::open()?;
    let described = described(&place)?;
    let mut out = stdout().lock();
    if json {
        for description in &described {
            serde_json::to_writer(&mut out, description)?;
            writeln!(out)?;
        }
        return Ok(0);
    }
    let width = described.iter().map(|it| it.name.len()).max().unwrap_or(0);
    for it in &described {
        writeln!(out, "{:width$}  {}", it.name, in_words(it))?;
    }
    Ok(0)
}

fn in_words(it: &Description) -> String {
    let time = |seconds: f64| rough(seconds as u64);
    let does = match it.cell {
        Some(cell) => format!("runs cell {cell}, {} wait", it.waiting),
        None if it.commands > 0 => format!("runs {} commands", it.commands),
        None => format!("idle for {}, ends in {}", time(it.idle_s), time(it.left_s)),
    };
    format!(
        "{} MiB, process {}, {} old, {} cells, {does}",
        it.memory >> 20,
        it.pid,
        time(it.age_s),
        it.cells
    )
}

/// Returns what the sessions tell that answer.
pub fn described(place: &Place) -> Result<Vec<Description>> {
    let mut described = Vec::new();
    for name in place.names()? {
        // One may end meanwhile; its socket is removed then.
        let asked = connect(place, &name).and_then(|mut client| client.ask(&Request::Describe {}));
        if let Ok(Message::Described(description)) = asked {
            described.push(description);
        }
    }
    Ok(described)
}

/// Connects to a session that is asked for what it can answer at once.
pub fn connect(place: &Place, name: &str) -> Result<Client> {
    Client::connect(place, name)?.with_timeout(ANSWER_TIMEOUT)
}

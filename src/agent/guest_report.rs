//! Reports from the guest beyond the program's output. They are claims of a program that may say
//! anything, so each is checked for its form, and all are bounded.

use crate::agent::Sink;
use crate::job::Job;
use crate::record::{Bundle, Event, EventKind, Exception};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest::{Field, Record, Records, event, report};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Upper bounds on the bytes of the result and the displays, on the number of displays, and on the
/// number of forms of each. Numbers are bounded since even the smallest item has a cost.
const BUNDLES_MAX: u64 = 16 << 20;
const DISPLAYS_MAX: usize = 1000;
const FORMS_MAX: usize = 16;
/// The form that each bundle has. Its beginning is kept where there is no room for the whole.
const PLAIN: &str = "text/plain";
/// Upper bound on the bytes of an exception, whose texts the guest has cut already.
const EXCEPTION_MAX: usize = 256 << 10;
/// Upper bound on the bytes of an event, which holds a path.
const EVENT_MAX: usize = 5 << 10;
const EVENTS_MAX: usize = 1000;
/// The factor by which JSON may grow when it is parsed.
const JSON_FACTOR: usize = 8;

/// Figures that are open when the program ends, whose displays are not told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostFigures {
    pub open: u32,
    /// Those of them that were never drawn, so that they are in no file either.
    pub undrawn: u32,
}

/// The checked reports of a guest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestReport {
    /// The exception that ended the program.
    pub exception: Option<Exception>,
    /// The value of the last expression.
    pub result: Option<Bundle>,
    /// The displays, in their order.
    pub displays: Vec<Bundle>,
    pub events: Vec<Event>,
    pub lost_figures: LostFigures,
    /// Whether there was more than is kept, or something that could not be understood.
    pub omitted: bool,
}

/// A builder that takes the guest's reports piece by piece, as they arrive.
pub struct GuestReportBuilder {
    reports: Records,
    events: Records,
    /// The bytes that further bundles may take.
    room: usize,
    /// Whether an execution that comes as the next event is that of the program itself.
    begins: bool,
    /// Whether a record of the run is wanted. Without one, the interpreter tells what it has a word for in
    /// passing: the module that the program lacked, and lost figures.
    is_recorded: bool,
    /// The exit status of a session's cell that has ended.
    cell: Option<u8>,
    /// Whether one has begun since that was asked.
    has_begun: bool,
    report: GuestReport,
}

impl GuestReportBuilder {
    /// Makes a builder for the run of this job. `begins` says that an interpreter whose
    /// events are reported executes the program; that execution is then left out of the report.
    pub fn of(job: &Job, sinks: &[Sink; 2], begins: bool) -> Self {
        Self {
            is_recorded: job.record,
            ..Self::new(sinks[0].limit(), begins)
        }
    }

    /// Makes a builder of reports whose result and displays are within this limit.
    pub fn new(limit: u64, begins: bool) -> Self {
        Self {
            is_recorded: true,
            reports: Records::default(),
            events: Records::default(),
            room: limit.min(BUNDLES_MAX) as usize,
            begins,
            cell: None,
            has_begun: false,
            report: GuestReport::default(),
        }
    }

    /// Takes the status of a cell that has ended, if one has.
    pub fn take_cell(&mut self) -> Option<u8> {
        self.cell.take()
    }

    /// Returns whether a cell has begun since this was asked.
    pub fn take_begun(&mut self) -> bool {
        std::mem::take(&mut self.has_begun)
    }

    pub fn finish(self) -> GuestReport {
        self.report
    }

    /// Adds bytes of the interpreter's reports.
    pub fn add_reports(&mut self, mut bytes: &[u8]) {
        let room = |room| {
            move |kind| match kind {
                report::EXCEPTION => EXCEPTION_MAX,
                _ => room,
            }
        };
        while let Some(record) = self.reports.next(&mut bytes, room(self.room)) {
            let taken = record.ok().and_then(|record| self.take_report(record));
            self.report.omitted |= taken.is_none();
        }
    }

    /// Adds bytes of the guest kernel's events.
    pub fn add_events(&mut self, mut bytes: &[u8]) {
        if !self.is_recorded {
            return;
        }
        while let Some(record) = self.events.next(&mut bytes, |_| EVENT_MAX) {
            let event = record.ok().and_then(event_of);
            let begins = std::mem::take(&mut self.begins);
            match event {
                Some(event) if begins && event.kind == EventKind::Execute => {}
                Some(event) if self.report.events.len() < EVENTS_MAX => {
                    self.report.events.push(event)
                }
                _ => self.report.omitted = true,
            }
        }
    }

    fn take_report(&mut self, record: Record) -> Option<()> {
        match record.kind {
            report::EXCEPTION => self.report.exception = Some(exception(record)?),
            report::LOST => self.report.lost_figures = lost_figures(record)?,
            _ if !self.is_recorded => return None,
            report::RESULT => self.report.result = Some(self.bundle(record)?),
            report::CELL if record.fields.is_empty() => self.has_begun = true,
            report::CELL => self.cell = Some(status(record)?),
            report::DISPLAY if self.report.displays.len() < DISPLAYS_MAX => {
                let bundle = self.bundle(record)?;
                self.report.displays.push(bundle);
            }
            _ => return None,
        }
        Some(())
    }

    /// Returns the forms that can be taken, or `None` if plain text is not among them.
    fn bundle(&mut self, record: Record) -> Option<Bundle> {
        let mut bundle = Bundle::new();
        let mut fields = record.fields.into_iter();
        while let (Some(kind), Some(data)) = (fields.next(), fields.next()) {
            if bundle.len() == FORMS_MAX {
                self.report.omitted = true;
                break;
            }
            let kind = kind.is_whole().then(|| mime_type(kind.bytes)).flatten();
            let form = kind.and_then(|kind| Some((self.form(&kind, data)?, kind)));
            match form {
                Some((value, kind)) => drop(bundle.insert(kind, value)),
                None => self.report.omitted = true,
            }
        }
        bundle.contains_key(PLAIN).then_some(bundle)
    }

    fn form(&mut self, kind: &str, data: Field) -> Option<Value> {
        if !data.is_whole() {
            self.report.omitted = true;
            self.room = self.room.saturating_sub(data.bytes.len());
            return (kind == PLAIN).then(|| beginning(&data).into());
        }
        let data = data.bytes;
        let is_json = kind == "application/json" || kind.ends_with("+json");
        let size = kind.len() + data.len() * if is_json { JSON_FACTOR } else { 1 };
        self.room = self.room.checked_sub(size)?;
        if is_json {
            return serde_json::from_slice(&data).ok().filter(is_shallow);
        }
        let text = String::from_utf8(data)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        if kind.starts_with("image/") && kind != "image/svg+xml" {
            STANDARD.decode(&text).ok()?;
        }
        Some(text.into())
    }
}

/// Returns the text that there was room for, and how much is missing.
fn beginning(field: &Field) -> String {
    let whole = match str::from_utf8(&field.bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => field.bytes.len(),
    };
    let omitted = field.omitted + field.bytes.len() - whole;
    let text = text(&field.bytes[..whole]);
    format!("{text}\n[… {omitted} more bytes are left out …]")
}

/// Returns whether a value is nested no deeper than readers of JSON take, with what is around it in a
/// record and in messages.
fn is_shallow(value: &Value) -> bool {
    const DEPTH_MAX: usize = 64;
    fn depth(value: &Value) -> usize {
        let inner = match value {
            Value::Array(values) => values.iter().map(depth).max(),
            Value::Object(values) => values.values().map(depth).max(),
            _ => return 0,
        };
        1 + inner.unwrap_or_default()
    }
    depth(value) <= DEPTH_MAX
}

fn exception(record: Record) -> Option<Exception> {
    let [kind, message, traceback] = <[_; 3]>::try_from(record.fields).ok()?;
    Some(Exception {
        kind: text(&kind.bytes),
        message: text(&message.bytes),
        traceback: text(&traceback.bytes),
    })
}

fn lost_figures(record: Record) -> Option<LostFigures> {
    let number = |field: Field| Some(u32::from_le_bytes(field.bytes.try_into().ok()?));
    let [open, undrawn] = <[_; 2]>::try_from(record.fields).ok()?;
    let (open, undrawn) = (number(open)?, number(undrawn)?);
    (undrawn <= open).then_some(LostFigures { open, undrawn })
}

fn status(record: Record) -> Option<u8> {
    let [status] = <[_; 1]>::try_from(record.fields).ok()?;
    let status = u32::from_le_bytes(status.bytes.try_into().ok()?);
    // As exit(3) has it.
    Some(status as u8)
}

fn event_of(record: Record) -> Option<Event> {
    let [errno, what] = <[_; 2]>::try_from(record.fields).ok()?;
    Some(Event {
        kind: match record.kind {
            event::EXECUTED => EventKind::Execute,
            event::OPENED => EventKind::OpenForWriting,
            event::CONNECTED => EventKind::Connect,
            _ => return None,
        },
        what: what.is_whole().then(|| text(&what.bytes))?,
        errno: i32::from_le_bytes(errno.bytes.try_into().ok()?),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks a media type: a type and a subtype, without parameters (RFC 6838, 4.2).
fn mime_type(bytes: Vec<u8>) -> Option<String> {
    const NAME_MAX: usize = 127;
    let kind = String::from_utf8(bytes).ok()?;
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c);
        (1..=NAME_MAX).contains(&name.len()) && name.chars().all(allowed)
    };
    let (major, minor) = kind.split_once('/')?;
    (is_name(major) && is_name(minor)).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    fn stream(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let fields = fields.iter().map(|&field| field.into()).collect();
        Record { kind, fields }.encode(&mut bytes);
        bytes
    }

    fn reported(limit: u64, records: &[Vec<u8>]) -> GuestReport {
        let mut builder = GuestReportBuilder::new(limit, false);
        records
            .iter()
            .for_each(|record| builder.add_reports(record));
        builder.finish()
    }

    fn happened(begins: bool, records: &[Vec<u8>]) -> GuestReport {
        let mut builder = GuestReportBuilder::new(0, begins);
        records.iter().for_each(|record| builder.add_events(record));
        builder.finish()
    }

    #[test]
    fn forms_are_told_as_what_they_are() {
        let fields: &[&[u8]] = &[
            b"text/plain",
            b"a \xff",
            b"application/json",
            b"{\"a\": [1]}",
            b"image/png",
            b"AAAA",
            b"image/svg+xml",
            b"<svg/>",
        ];
        let report = reported(1000, &[stream(report::RESULT, fields)]);
        let expected = json!({
            "text/plain": "a \u{fffd}",
            "application/json": {"a": [1]},
            "image/png": "AAAA",
            "image/svg+xml": "<svg/>",
        });
        assert_eq!(json!(report.result), expected);
        assert!(!report.omitted);
    }

    #[test]
    fn a_form_that_is_not_what_it_says_is_left_out() {
        let nested = "[".repeat(10_000);
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        for (kind, data) in [
            ("application/json", deep.as_str()),
            ("application/json", "{"),
            ("application/json", nested.as_str()),
            ("image/png", "<html>"),
            ("image/png", "AAA"),
            ("text", "a"),
            ("text/a b", "a"),
            ("text/ü", "a"),
            ("/", "a"),
        ] {
            let fields: &[&[u8]] = &[b"text/plain", b"a", kind.as_bytes(), data.as_bytes()];
            let report = reported(1 << 20, &[stream(report::DISPLAY, fields)]);
            assert_eq!(
                json!(report.displays),
                json!([{"text/plain": "a"}]),
                "{kind}"
            );
            assert!(report.omitted, "{kind}");
        }
    }

    #[test]
    fn what_is_over_the_limit_is_left_out_but_what_fits_after_it_is_not() {
        let display = |length| stream(report::DISPLAY, &[b"text/plain", &vec![b'a'; length]]);
        let exception = stream(report::EXCEPTION, &[b"ValueError", b"m", &[b't'; 500]]);
        let report = reported(200, &[display(10), display(500), display(20), exception]);
        let texts = report.displays.iter();
        let texts = texts.map(|bundle| bundle[PLAIN].as_str().unwrap());
        let cut = format!("{}\n[… 415 more bytes are left out …]", "a".repeat(85));
        assert!(texts.eq(["a".repeat(10), cut, "a".repeat(20)]));
        assert_eq!(report.exception.unwrap().traceback.len(), 500);
        assert!(report.omitted);
    }

    #[test]
    fn small_forms_stay_beside_those_that_there_is_no_room_for() {
        let long = "ü".repeat(1000);
        let fields: &[&[u8]] = &[
            b"text/plain",
            long.as_bytes(),
            b"image/svg+xml",
            long.as_bytes(),
            b"text/html",
            b"<b>",
        ];
        let report = reported(301, &[stream(report::RESULT, fields)]);
        let result = report.result.unwrap();
        assert_eq!(result.keys().collect::<Vec<_>>(), ["text/html", PLAIN]);
        let plain = result[PLAIN].as_str().unwrap();
        assert!(plain.starts_with("üü") && plain.ends_with("bytes are left out …]"));
        assert!(!plain.contains('\u{fffd}') && report.omitted);
    }

    #[test]
    fn displays_and_forms_beyond_their_number_are_left_out() {
        let empty = stream(report::DISPLAY, &[b"text/plain", b""]);
        let report = reported(1 << 20, &vec![empty; DISPLAYS_MAX + 1]);
        assert_eq!(report.displays.len(), DISPLAYS_MAX);
        assert!(report.omitted);
        let kinds: Vec<_> = (0..FORMS_MAX).map(|n| format!("text/x{n}")).collect();
        let mut fields: Vec<&[u8]> = vec![b"text/plain", b""];
        fields.extend(kinds.iter().flat_map(|kind| [kind.as_bytes(), b""]));
        let report = reported(1 << 20, &[stream(report::RESULT, &fields)]);
        assert_eq!(report.result.unwrap().len(), FORMS_MAX);
        assert!(report.omitted);
    }

    #[test]
    fn events_beyond_their_limit_are_left_out() {
        let event = stream(event::CONNECTED, &[&111_u32.to_le_bytes(), b"10.0.0.1:80"]);
        let report = happened(false, &vec![event; EVENTS_MAX + 1]);
        assert_eq!(report.events.len(), EVENTS_MAX);
        let expected = json!({"kind": "connect", "what": "10.0.0.1:80", "errno": 111});
        assert_eq!(json!(report.events[0]), expected);
        assert!(report.omitted);
    }

    #[test]
    fn the_execution_of_the_program_itself_is_no_event() {
        let event = |path: &[u8]| stream(event::EXECUTED, &[&[0; 4], path]);
        let report = happened(true, &[event(b"/usr/bin/bash"), event(b"/usr/bin/ls")]);
        let whats: Vec<_> = report.events.iter().map(|event| &event.what).collect();
        assert_eq!(whats, ["/usr/bin/ls"]);
        assert!(!report.omitted);
    }

    proptest! {
        #[test]
        fn whatever_is_told_is_bounded(
            records in vec((0..5u8, vec(vec(any::<u8>(), 0..60), 0..6), vec(any::<u8>(), 0..9)), 0..20),
        ) {
            const LIMIT: u64 = 100;
            let mut builder = GuestReportBuilder::new(LIMIT, false);
            for (kind, fields, noise) in records {
                let mut bytes = Vec::new();
                let fields = fields.iter().map(|field| Field::from(&field[..])).collect();
                Record { kind, fields }.encode(&mut bytes);
                bytes.extend(noise);
                builder.add_reports(&bytes);
                builder.add_events(&bytes);
            }
            let report = builder.finish();
            let forms = report.displays.iter().flatten().map(|(_, value)| value.to_string().len());
            // A byte that is not UTF-8 becomes a character of three bytes, and an escaped one takes six.
            const NOTE: usize = 60;
            prop_assert!(forms.sum::<usize>() <= 6 * LIMIT as usize + NOTE * report.displays.len());
        }
    }
}

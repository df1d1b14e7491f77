//! The answer about a run: its record, and the same for people.

use crate::mcp::admission::Refused;
use crate::mcp::artifacts::{ArtifactStore, BYTES_MAX, COUNT_MAX, MemoryBudget, contents};
use crate::mcp::workspace::Workspace;
use crate::record::{Bundle, Encoding, Failure, Limit, Record, State, Status};
use crate::text::escape_control;
use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::{Value, json};
use std::mem;
use std::path::Path;

/// The most bytes of a stream that are shown; the record has all of it.
const SHOWN: usize = 32 << 10;
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// Makes the answer about a run.
pub fn of(record: &Record, files: Vec<ContentBlock>) -> CallToolResult {
    let mut content = Vec::new();
    content.extend(stream("", &record.stdout, record.stdout_encoding));
    content.extend(stream("[stderr]\n", &record.stderr, record.stderr_encoding));
    for bundle in &record.displays {
        content.extend(forms("[display] ", bundle));
    }
    if let Some(bundle) = &record.result {
        content.extend(forms("[result] ", bundle));
    }
    content.extend(files);
    let failures = failures(record);
    let failed = !failures.is_empty();
    let advice = record
        .advice
        .iter()
        .map(|text| format!("What to do: {text}"));
    let notes = failures.into_iter().chain(advice).chain(cuts(record));
    let notes = notes.chain(session(record));
    let notes: Vec<_> = notes.collect();
    if !notes.is_empty() {
        content.push(ContentBlock::text(escape_control(&notes.join("\n"))));
    }
    if content.is_empty() {
        content.push(ContentBlock::text("[no output]"));
    }
    let mut result = match failed {
        true => CallToolResult::error(content),
        false => CallToolResult::success(content),
    };
    result.structured_content = serde_json::to_value(record).ok();
    result
}

/// Makes the answer to a call that came to no run.
pub fn refusal(refused: Refused) -> CallToolResult {
    let mut record = Record::empty(Status::Error);
    record.error = Some(refused.failure);
    record.audit = refused.anchor;
    let mut result = of(&record, Vec::new());
    result.meta = refused.refusal.map(|refusal| {
        let mut meta = MetaObject::new();
        if let Some(seconds) = refusal.retry_after_s {
            meta.insert("sandbox/retryAfterSeconds".into(), seconds.into());
        }
        meta.insert("sandbox/refusal".into(), json!(refusal));
        meta
    });
    result
}

/// Lists what went wrong, and what the caller can do about it.
fn failures(record: &Record) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(ending(record).map(|text| format!("[failed] {text}")));
    if let Some(exception) = &record.exception {
        lines.push(format!(
            "[failed] it raised {}: {}",
            exception.kind, exception.message
        ));
    }
    let missing = record.files_missing.iter();
    lines.extend(missing.map(|path| format!("[failed] not fetched: {path}")));
    lines
}

/// Returns how the run ended, unless it ended well.
fn ending(record: &Record) -> Option<String> {
    if let Some(Failure { message, remedy }) = &record.error {
        return Some(format!("{message}\nWhat to do: {remedy}"));
    }
    match (record.status, record.exit_code, record.signal) {
        (Status::Exited, Some(0), _) => None,
        (Status::Exited, code, _) => Some(format!(
            "the program exited with code {}",
            code.unwrap_or_default()
        )),
        (Status::Signaled, _, signal) => Some(format!(
            "signal {} ended the program",
            signal.unwrap_or_default()
        )),
        (Status::Cancelled, ..) => Some("the run was cancelled".into()),
        _ => Some("the program could not be run".into()),
    }
}

/// Says in which session it ran, and what that has left.
fn session(record: &Record) -> Option<String> {
    let name = record.session.as_ref()?;
    let left = match record.state {
        Some(State::Lost) => "it is over, and nothing is left of it",
        Some(State::Reset) => "variables are gone, files are kept",
        _ => "variables and files are kept",
    };
    let why = record.state_reason.as_ref();
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    Some(format!("[session {name}] {left}{why}"))
}

/// Lists what is incomplete.
fn cuts(record: &Record) -> impl Iterator<Item = String> {
    let report = record.limits_hit.contains(&Limit::Report).then(|| {
        "[cut] what the program displayed, its last value or its events were too long or too many to be \
         given whole: print or display less, or leave it in a file and fetch that"
            .into()
    });
    let streams = [
        ("standard output", record.stdout_bytes),
        ("standard error", record.stderr_bytes),
    ];
    streams
        .into_iter()
        .filter(|(_, bytes)| bytes.omitted > 0)
        .map(|(name, bytes)| {
            format!(
                "[cut] {name} has only the first {} of {} bytes",
                bytes.captured, bytes.total
            )
        })
        .chain(report)
}

fn stream(label: &str, text: &Option<String>, encoding: Encoding) -> Option<ContentBlock> {
    let text = text.as_deref().filter(|text| !text.is_empty())?;
    let shown = escape_control(&shortened(text));
    Some(ContentBlock::text(match encoding {
        Encoding::Utf8 => format!("{label}{shown}"),
        Encoding::Base64 => format!("{label}[in base64, since it is no UTF-8]\n{shown}"),
    }))
}

/// Returns the beginning and the end of a long text.
fn shortened(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.into();
    }
    let boundary = |position: usize| (position..).find(|&position| text.is_char_boundary(position));
    let head = boundary(SHOWN / 2).unwrap_or_default();
    let tail = boundary(text.len() - SHOWN / 2).unwrap_or(text.len());
    format!(
        "{}\n[… {} bytes left out here; structuredContent has all …]\n{}",
        &text[..head],
        tail - head,
        &text[tail..]
    )
}

/// Shows a value: as an image if it has one, and as text otherwise.
fn forms(label: &str, bundle: &Bundle) -> Vec<ContentBlock> {
    let text = |kind: &str| bundle.get(kind).and_then(Value::as_str);
    for kind in IMAGES {
        if let Some(data) = text(kind) {
            // Base64 may have line breaks anywhere.
            return vec![ContentBlock::image(data.replace('\n', ""), kind)];
        }
    }
    let markup = ["image/svg+xml", "text/markdown", "text/html", "text/latex"];
    let plain = text("text/plain")
        .map(|plain| ContentBlock::text(format!("{label}{}", escape_control(&shortened(plain)))));
    let rich = markup.into_iter().find_map(|kind| {
        let uri = format!(
            "sandbox://value/{}",
            kind.rsplit('/').next().unwrap_or(kind)
        );
        let contents = contents(text(kind)?.into(), &uri).with_mime_type(kind);
        Some(ContentBlock::resource(contents))
    });
    plain.into_iter().chain(rich).collect()
}

/// Keeps the fetched files and shows them. The record then says where each file is kept.
pub fn keep(
    mut record: Record,
    kept: &ArtifactStore,
    client: &str,
    workspace: Option<Workspace>,
) -> (Record, Vec<ContentBlock>) {
    let mut content = Vec::new();
    let mut room = MemoryBudget::new();
    let mut left_out = record.files_count - (record.files.len() as u64).min(record.files_count);
    for file in &mut record.files {
        let host = mem::take(&mut file.host);
        let Some(workspace) = workspace.as_ref().filter(|_| room.take(file.size)) else {
            left_out += 1;
            continue;
        };
        match kept.keep(client, workspace.path(), Path::new(&host), &file.path) {
            Ok(entry) => {
                file.host = entry.uri.clone();
                content.push(entry.block());
            }
            Err(why) => {
                let text = format!("[cut] {} is not kept: {why:#}", file.path);
                content.push(ContentBlock::text(escape_control(&text)));
            }
        }
    }
    if left_out > 0 {
        content.push(ContentBlock::text(format!(
            "[cut] {left_out} files are not kept: one run may leave {COUNT_MAX} files and {} MiB; fetch fewer, or an archive",
            BYTES_MAX >> 20
        )));
    }
    (record, content)
}

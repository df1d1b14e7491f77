//! What a program is told of a run: one JSON object, whose schema is `docs/record.schema.json`.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The record of one run. The host saw all of it itself, except for fields that say that the guest tells them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    pub status: Status,
    /// The exit code of the program, if it exited. The guest tells it.
    pub exit_code: Option<u8>,
    /// The signal that ended the program, if one did. The guest tells it.
    pub signal: Option<u8>,
    /// Captured standard output; null where it was passed through instead.
    pub stdout: Option<String>,
    /// Captured standard error; null where it was passed through instead.
    pub stderr: Option<String>,
    pub stdout_encoding: Encoding,
    pub stderr_encoding: Encoding,
    pub stdout_bytes: Bytes,
    pub stderr_bytes: Bytes,
    /// The reason why there is no result of the program's own, and what to do about it.
    pub error: Option<Failure>,
    /// The Python exception that ended the program. The guest tells it.
    pub exception: Option<Exception>,
    /// The things that the program lacked here, and what to do about them.
    pub advice: Vec<String>,
    /// The value of the last expression of code, as in a notebook. The guest tells it.
    pub result: Option<Bundle>,
    /// The values that the code gave to `display()`, in their order. The guest tells them.
    pub displays: Vec<Bundle>,
    pub limits_hit: Vec<Limit>,
    /// The files that were fetched; at most 1,000 entries.
    pub files: Vec<File>,
    /// The number of files that were fetched.
    pub files_count: u64,
    /// Requested files that were not delivered, with the reason; at most 1,000 entries per cause.
    pub files_missing: Vec<String>,
    /// The number of requested files that were not delivered.
    pub files_missing_count: u64,
    pub timings_ms: Timings,
    /// The way in which the program got its machine; null if it never had one.
    pub path: Option<Path>,
    /// The name of the template that it started from.
    pub template: Option<String>,
    /// The family of the host's KVM.
    pub host: Option<Host>,
    /// The mode in which the guest's kernel ran: the best that the host's KVM has, or the one that was asked for.
    pub kvm_mode: Option<KvmMode>,
    /// The rights that the process that ran the guest had given up before.
    pub confinement: Vec<String>,
    pub memory: Memory,
    /// Counts of things that a guest of ours does only if its kernel was changed.
    pub unusual: Unusual,
    /// The events that the guest's kernel tells of its processes. They are advice: whoever owns that kernel can hide them.
    pub events: Vec<Event>,
    /// The packages that the program had beside the standard library.
    pub packages: Vec<Package>,
    /// The digest of the lock that names them, with the hashes of what was taken.
    pub packages_lock: Option<String>,
    /// The position of the audit log after this run's end was written to it.
    pub audit: Option<Anchor>,
    /// The name of the session in which this was a cell.
    pub session: Option<String>,
    /// The state of the session after it; null outside of sessions.
    pub state: Option<State>,
    /// The reason why that is not all.
    pub state_reason: Option<String>,
}

impl Record {
    /// Returns the record of a run of which nothing else is known.
    pub fn empty(status: Status) -> Self {
        Self {
            status,
            exit_code: None,
            signal: None,
            stdout: None,
            stderr: None,
            stdout_encoding: Encoding::default(),
            stderr_encoding: Encoding::default(),
            stdout_bytes: Bytes::default(),
            stderr_bytes: Bytes::default(),
            error: None,
            exception: None,
            advice: Vec::new(),
            result: None,
            displays: Vec::new(),
            limits_hit: Vec::new(),
            files: Vec::new(),
            files_count: 0,
            files_missing: Vec::new(),
            files_missing_count: 0,
            timings_ms: Timings::default(),
            path: None,
            template: None,
            host: None,
            kvm_mode: None,
            confinement: Vec::new(),
            memory: Memory::default(),
            unusual: Unusual::default(),
            events: Vec::new(),
            packages: Vec::new(),
            packages_lock: None,
            audit: None,
            session: None,
            state: None,
            state_reason: None,
        }
    }
}

/// The state of a session after a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All that the cell left: variables, files, processes.
    Kept,
    /// Files. The interpreter was started anew, without variables.
    Reset,
    /// Nothing: the session is over.
    Lost,
}

/// The way in which a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The program exited.
    Exited,
    /// A signal ended the program.
    Signaled,
    /// It ran into its time limit.
    Timeout,
    /// It ran out of memory.
    Oom,
    /// The guest did something that no working guest does.
    Crashed,
    /// We were asked to stop.
    Cancelled,
    /// We could not run it, or could not deliver what it left.
    Error,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
}

/// The byte counts of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bytes {
    /// Bytes that were captured or passed through.
    pub captured: u64,
    /// Bytes that the program wrote.
    pub total: u64,
    /// Bytes over the limit, which were dropped.
    pub omitted: u64,
}

/// A failure, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    pub message: String,
    pub remedy: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exception {
    /// The name of its class, in Python with its module unless that is `builtins`.
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    /// The traceback as the interpreter prints it: Python's, or the stack of Node.js.
    pub traceback: String,
}

/// The forms of one value by MIME type: text as it is, `application/json` as JSON, images but SVG in base64.
/// There is always `text/plain`.
pub type Bundle = BTreeMap<String, serde_json::Value>;

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    Timeout,
    Memory,
    /// The limit of standard input, which only a policy sets.
    Stdin,
    Stdout,
    Stderr,
    /// The limit of results, displays and exceptions.
    Report,
    Files,
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// Absolute path in the guest.
    pub path: String,
    /// Its path on the host.
    pub host: String,
    pub size: u64,
}

/// The phases of a run in milliseconds, each from the end of the one before; null if it was not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    pub total: f64,
    /// The time until the guest's first instruction.
    pub setup: f64,
    /// The time until the guest's first process ran; null with a restored machine.
    pub kernel: Option<f64>,
    /// The time until the program was handed over.
    pub agent: Option<f64>,
    /// The time from then until the first output.
    pub first_output: Option<f64>,
    /// The time from the hand-over until the program's end.
    pub guest: Option<f64>,
    pub teardown: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// The machine was restored from a template.
    Warm,
    /// The machine was booted for this run.
    Cold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Host {
    Hardware,
    Software,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KvmMode {
    /// The kernel ran natively, on VT-x or AMD-V.
    Hardware,
    /// The kernel ran natively, on a software KVM.
    Native,
    /// The kernel was emulated, an instruction at a time, on a software KVM.
    Emulated,
}

/// The bytes of the guest's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    pub limit: u64,
    /// Bytes that the guest had used by its end. Where the host backs them with huge pages, each 2 MiB
    /// counts as a whole from its first byte on.
    pub peak: Option<u64>,
}

/// Counts that are 0 as long as the guest's kernel is ours, except for `assists`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unusual {
    /// Accesses to I/O ports where there is nothing.
    pub unknown_ports: u64,
    /// Accesses to addresses where there is nothing.
    pub unknown_addresses: u64,
    /// Requests that the hypervisor does not know.
    pub unknown_services: u64,
    /// Instructions that were done for it because a software KVM cannot (ordinary in small numbers).
    pub assists: u64,
    /// Violations of the rules of a device or of the protocol. One ends the machine.
    pub violations: u64,
}

/// A package in an exact version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Package {
    pub name: String,
    pub version: String,
}

/// A thing that a process in the guest did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    pub kind: EventKind,
    /// The program, file or address.
    pub what: String,
    /// 0: it succeeded.
    pub errno: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A program was executed.
    Execute,
    /// A file outside /tmp, /work and /dev was opened for writing.
    OpenForWriting,
    /// A connection was attempted.
    Connect,
}

/// A place in an audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Anchor {
    /// The number of the entry.
    pub sequence: u64,
    /// SHA-256 of it, in hexadecimal digits.
    pub hash: String,
}

/// Returns the schema of a [`Record`] (JSON Schema 2020-12).
pub fn schema() -> schemars::Schema {
    let settings = SchemaSettings::draft2020_12();
    let generator = settings
        .for_serialize()
        .with_transform(RecursiveTransform(without_format));
    generator.into_generator().into_root_schema_for::<Record>()
}

/// Takes the widths of numbers out, which are Rust's, not JSON Schema's: some validators complain of them.
pub fn without_format(schema: &mut schemars::Schema) {
    schema.remove("format");
}

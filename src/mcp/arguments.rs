//! What a call asks for, checked.

use crate::job::Language;
use crate::mcp::governor::Governor;
use crate::record::Failure;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of code at most.
pub const CODE_MAX: usize = 1 << 20;
/// Bytes of standard input, arguments, variables and files together at most.
pub const INPUT_MAX: usize = 16 << 20;
const ITEMS_MAX: usize = 1000;
const FILES_MAX: usize = 64;
const PATH_MAX: usize = 1024;
/// Of a variable.
const NAME_MAX: usize = 256;
const MEMORY_MIB: (u64, u64) = (64, 16384);
const TIMEOUT_S: (f64, f64) = (0.1, 3600.0);

/// Run a program in a fresh virtual machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// The program. In Python the value of a last expression is given back, as in a notebook, and
    /// `display(value)` shows a value with its rich forms.
    pub code: String,
    /// Of the code.
    #[serde(default = "python")]
    pub language: Language,
    /// Seconds of wall-clock time that it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    pub timeout_s: Option<f64>,
    /// Memory of the machine, files in it included, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub memory_mib: Option<u64>,
    /// Its standard input.
    #[serde(default)]
    pub stdin: String,
    /// Its arguments: sys.argv[1:] in Python, $1 and so on in bash.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables of its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files to put there before it runs, and files to fetch when it has ended.
    #[serde(default)]
    pub files: Vec<File>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path in the machine; a relative one starts in the working directory, /work.
    pub path: String,
    /// What it holds before the program runs. Without it, the file is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub content: Option<String>,
    /// Of content.
    #[serde(default)]
    pub encoding: Encoding,
    /// Whether it is fetched when the program has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub fetch: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
}

fn python() -> Language {
    Language::Python
}

impl Arguments {
    pub fn parse(given: Option<JsonObject>) -> Result<Self, Failure> {
        let given = Value::Object(given.unwrap_or_default());
        let arguments: Self = serde_path_to_error::deserialize(given).map_err(|error| Failure {
            message: format!("the arguments are wrong: {error}"),
            remedy: "call the tool as its inputSchema says".into(),
        })?;
        arguments.check()?;
        Ok(arguments)
    }

    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_s.map(Duration::from_secs_f64)
    }

    /// Bytes.
    pub fn memory(&self) -> Option<u64> {
        self.memory_mib.map(|mib| mib << 20)
    }

    /// Bytes beside the code.
    pub fn input_size(&self) -> usize {
        let args = self.args.iter().map(String::len);
        let env = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let files = self.files.iter().filter_map(|file| file.content.as_ref());
        self.stdin.len()
            + args.sum::<usize>()
            + env.sum::<usize>()
            + files.map(String::len).sum::<usize>()
    }

    fn check(&self) -> Result<(), Failure> {
        within("code", self.code.len(), CODE_MAX, "bytes")?;
        without_nul("code", &self.code)?;
        within("all input", self.input_size(), INPUT_MAX, "bytes")?;
        within("args", self.args.len(), ITEMS_MAX, "items")?;
        within("env", self.env.len(), ITEMS_MAX, "variables")?;
        within("files", self.files.len(), FILES_MAX, "items")?;
        // NaN is in no range.
        let timeout = TIMEOUT_S.0..=TIMEOUT_S.1;
        if self
            .timeout_s
            .is_some_and(|asked| !timeout.contains(&asked))
        {
            return Err(between("timeout_s", TIMEOUT_S.0, TIMEOUT_S.1));
        }
        let memory = MEMORY_MIB.0..=MEMORY_MIB.1;
        if self
            .memory_mib
            .is_some_and(|asked| !memory.contains(&asked))
        {
            return Err(between("memory_mib", MEMORY_MIB.0, MEMORY_MIB.1));
        }
        for word in &self.args {
            without_nul("args", word)?;
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains('=') {
                return Err(wrong(format!("env: {name:?} is no name of a variable")));
            }
            within("names in env", name.len(), NAME_MAX, "bytes")?;
            without_nul("env", name)?;
            without_nul("env", value)?;
        }
        self.files.iter().try_for_each(File::check)
    }
}

impl File {
    pub fn is_fetched(&self) -> bool {
        self.fetch.unwrap_or(self.content.is_none())
    }

    /// What is to be put there.
    pub fn bytes(&self) -> Result<Option<Vec<u8>>, Failure> {
        match (&self.content, self.encoding) {
            (None, _) => Ok(None),
            (Some(text), Encoding::Utf8) => Ok(Some(text.clone().into_bytes())),
            (Some(text), Encoding::Base64) => match BASE64_STANDARD.decode(text) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) => Err(wrong(format!(
                    "the content of {} is no base64: {error}",
                    self.path
                ))),
            },
        }
    }

    fn check(&self) -> Result<(), Failure> {
        within("path", self.path.len(), PATH_MAX, "bytes")?;
        without_nul("path", &self.path)?;
        let named = self
            .path
            .rsplit('/')
            .next()
            .is_some_and(|name| !name.is_empty() && name != ".");
        let plain = !self.path.contains(':') && !self.path.split('/').any(|name| name == "..");
        if !named || !plain {
            return Err(wrong(format!(
                "files: {:?} is no path of a file here; it must name one without : and ..",
                self.path
            )));
        }
        if self.content.is_none() && self.fetch == Some(false) {
            return Err(wrong(format!(
                "files: {} has no content and is not fetched",
                self.path
            )));
        }
        Ok(())
    }
}

/// The schema of the arguments (JSON Schema 2020-12), with what callers get here.
pub fn schema(governor: &Governor) -> JsonObject {
    let mut schema = schemars::schema_for!(Arguments).to_value();
    let (timeout, timeout_max) = governor.timeout_s(TIMEOUT_S.1);
    let (memory, memory_max) = governor.memory_mib(MEMORY_MIB.1);
    for (property, bounds) in [
        ("code", json!({"maxLength": CODE_MAX})),
        (
            "timeout_s",
            json!({"minimum": TIMEOUT_S.0, "maximum": timeout_max, "default": timeout}),
        ),
        (
            "memory_mib",
            json!({"minimum": MEMORY_MIB.0, "maximum": memory_max, "default": memory}),
        ),
        ("args", json!({"maxItems": ITEMS_MAX})),
        ("env", json!({"maxProperties": ITEMS_MAX})),
        ("files", json!({"maxItems": FILES_MAX})),
    ] {
        let bounds = bounds.as_object().into_iter().flatten();
        for (name, value) in bounds {
            schema["properties"][property][name] = value.clone();
        }
    }
    match schema {
        Value::Object(schema) => schema,
        _ => unreachable!("the schema of a struct is an object"),
    }
}

fn within(what: &str, given: usize, most: usize, unit: &str) -> Result<(), Failure> {
    if given <= most {
        return Ok(());
    }
    Err(wrong(format!(
        "{what}: {given} {unit} are more than {most}"
    )))
}

fn without_nul(what: &str, text: &str) -> Result<(), Failure> {
    match text.contains('\0') {
        false => Ok(()),
        true => Err(wrong(format!(
            "{what}: a NUL character cannot be passed on"
        ))),
    }
}

fn between(what: &str, least: impl std::fmt::Display, most: impl std::fmt::Display) -> Failure {
    wrong(format!("{what} is from {least} to {most}"))
}

fn wrong(message: String) -> Failure {
    Failure {
        message,
        remedy: "change that argument and call the tool again".into(),
    }
}

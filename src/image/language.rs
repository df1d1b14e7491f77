//! A language of an image: how its programs are known, and how they are run.

use crate::units::{MEMORY_PIECE, parse_memory};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A language, as `image.toml` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Language {
    pub name: String,
    pub title: String,
    /// The surroundings of its programs, for whoever writes one.
    #[serde(default)]
    pub about: Option<String>,
    /// Endings of scripts' names, without the dot.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// Names of interpreters in a script's first line; a * at the end stands for anything.
    #[serde(default)]
    pub interpreters: Vec<String>,
    /// Words that run a script, code, and code from standard input.
    pub file: Vec<String>,
    pub code: Vec<String>,
    pub stdin: Vec<String>,
    /// Words that start an interpreter that asks for its program, if there is one; and the option that
    /// gives a prompt after one.
    #[serde(default)]
    pub prompt: Vec<String>,
    #[serde(default)]
    pub prompt_after: Option<String>,
    /// The code that runs a module, whose name replaces `{module}`.
    #[serde(default)]
    pub module: Option<String>,
    /// The code that runs the command that its arguments are.
    #[serde(default)]
    pub command: Option<String>,
    /// The file that makes a directory a program.
    #[serde(default)]
    pub main: Option<String>,
    /// Words in a line of a script that loads a file beside it, which the line names.
    #[serde(default)]
    pub loads: Vec<String>,
    /// Words in a script that computes the name of a file that it loads.
    #[serde(default)]
    pub computes: Vec<String>,
    /// Endings of the names of files that scripts load, without the dot.
    #[serde(default)]
    pub modules: Vec<String>,
    /// How its interpreter is started ahead, if it is.
    #[serde(default)]
    pub warm: Option<Warm>,
    /// How an interpreter runs cells beside a session's own, if one can.
    #[serde(default)]
    pub context: Option<Context>,
    /// The MiB of memory that its programs get where nobody says how much, if they need more than others.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Variables that are read when an interpreter starts.
    #[serde(default)]
    pub read_at_start: Vec<String>,
    /// Variables that widespread packages read when they are imported.
    #[serde(default)]
    pub read_at_import: Vec<String>,
}

/// An interpreter that is started ahead and saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Warm {
    /// The library that stops it before its code. Without one, what waits is no interpreter: it gives its
    /// process to any program.
    #[serde(default)]
    pub library: Option<String>,
    /// The words that start what waits, where those of `code` do not.
    #[serde(default)]
    pub start: Vec<String>,
    /// The program that its first clone runs; without a library, its words.
    pub rehearsal: String,
    /// The program that its second clone runs, which reads standard input to its end.
    #[serde(default)]
    pub input_rehearsal: Option<String>,
    /// Whether the library is at home in the interpreter: it tells of exceptions and results, imports packages
    /// ahead, and runs cells.
    #[serde(default)]
    pub hooks: bool,
    /// The modules of its own library that it imports ahead.
    #[serde(default)]
    pub imports: Vec<String>,
}

/// An interpreter that runs cell after cell, as a context of a session. It tells of them in records on its
/// descriptor 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The words that start it.
    pub start: Vec<String>,
    pub cells: Framing,
}

/// The form in which number, code and input of a cell come on standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Each behind its length, and all of them behind theirs: 32 bits, the lowest first.
    Lengths,
    /// Each with a NUL behind it, the input in base64.
    Nul,
}

/// The values that are put into the words of a command.
#[derive(Debug, Clone, Copy, Default)]
pub struct Words<'a> {
    pub file: &'a [u8],
    pub code: &'a [u8],
    /// The value of `{option}`, which is left out if there is none.
    pub option: Option<&'a [u8]>,
}

impl Language {
    /// Checks what the types of the fields do not.
    pub fn check(&self) -> Result<(), String> {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if self.name.is_empty() || !self.name.bytes().all(is_name) {
            return Err(format!(
                "the name {:?} of a language has other characters than a to z and digits, or none",
                self.name
            ));
        }
        if let Some(mib) = self.memory_mib {
            parse_memory(&format!("{mib}M"))
                .map_err(|why| format!("memory_mib of {} is {mib}: {why}", self.name))?;
        }
        if self
            .context
            .as_ref()
            .is_some_and(|its| its.start.is_empty())
        {
            return Err(format!(
                "start of the context of {} has no words",
                self.name
            ));
        }
        if let Some(warm) = &self.warm
            && warm.library.is_none()
            && warm.start.is_empty()
        {
            return Err(format!(
                "[language.warm] of {} has neither library nor start",
                self.name
            ));
        }
        for (key, words) in [
            ("file", &self.file),
            ("code", &self.code),
            ("stdin", &self.stdin),
        ] {
            if words.is_empty() && !self.has_commands_alone() {
                return Err(format!("{key} of {} has no words", self.name));
            }
            for word in words {
                let known = ["{file}", "{code}", "{option}"].contains(&word.as_str());
                if word.starts_with('{') && !known {
                    return Err(format!(
                        "{key} of {} has {word}, which stands for nothing",
                        self.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// Returns whether it is none: its programs are the commands of an image.
    pub fn has_commands_alone(&self) -> bool {
        let warm = self.warm.as_ref();
        warm.is_some_and(|warm| warm.library.is_none())
    }

    /// Returns whether its interpreter is started ahead, with a library that is at home in it.
    pub fn has_hooks(&self) -> bool {
        self.warm.as_ref().is_some_and(|warm| warm.hooks)
    }

    /// Returns whether scripts with this ending are in it.
    pub fn has_extension(&self, extension: &[u8]) -> bool {
        self.extensions
            .iter()
            .any(|its| its.as_bytes() == extension)
    }

    /// Returns whether scripts whose first line names this interpreter are in it.
    pub fn has_interpreter(&self, name: &[u8]) -> bool {
        self.interpreters
            .iter()
            .any(|pattern| matches(pattern, name))
    }

    /// Returns whether a package that is imported already cannot take this variable any more.
    pub fn reads_at_import(&self, variable: &[u8]) -> bool {
        self.read_at_import
            .iter()
            .any(|pattern| matches(pattern, variable))
    }

    /// Returns the bytes of memory that its programs get where nobody says how much, and others would get
    /// these.
    pub fn memory_or(&self, others: u64) -> u64 {
        let own = self.memory_mib.unwrap_or_default() << 20;
        own.next_multiple_of(MEMORY_PIECE).max(others)
    }

    /// Returns whether an interpreter that has started cannot take this variable any more.
    pub fn reads_at_start(&self, variable: &[u8]) -> bool {
        self.read_at_start
            .iter()
            .any(|pattern| matches(pattern, variable))
    }
}

/// Replaces the placeholders in the words of a command.
pub fn expand(command: &[String], words: Words) -> Vec<Vec<u8>> {
    let expanded = command.iter().filter_map(|word| match word.as_str() {
        "{file}" => Some(words.file.to_vec()),
        "{code}" => Some(words.code.to_vec()),
        "{option}" => words.option.map(<[u8]>::to_vec),
        word => Some(word.as_bytes().to_vec()),
    });
    expanded.collect()
}

fn matches(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}

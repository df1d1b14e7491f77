//! The job that the guest gets, made from what the user named (a script, code, standard input).

mod choice;
mod foreign;
mod loads;
mod make;
mod path;
mod script;

pub use choice::make_for_any;
pub use loads::{LoadedNames, loading_statements, text};
pub use make::{Parts, known, make};
pub use path::{beneath, resolve};
pub use script::{python_named, read_code, read_script};

use crate::error::{Error, Kind};
use crate::image::{self, Image, Language, LayerFile, Warm, Words, expand};
use crate::layer::Plan;
use crate::limits::DEFAULT_PIDS;
use crate::wire::Bytes;
use guest::{File, JobFrame, WORKDIR, handover, kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const PRELOAD: &[u8] = b"LD_PRELOAD=";

const SCRIPT_MODE: u32 = kind::FILE | 0o644;

/// The source of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A file of the host.
    File(
        #[serde(with = "crate::wire")]
        #[schemars(with = "Bytes")]
        PathBuf,
    ),
    /// The code itself.
    Code(
        #[serde(with = "crate::wire")]
        #[schemars(with = "Bytes")]
        OsString,
    ),
    /// A module, by its name.
    Module(String),
    /// A command of the guest's, whose name is the first of the arguments.
    Command,
    /// Standard input.
    Stdin,
    /// None: the interpreter asks for it.
    Prompt,
}

/// Files that the guest mounts.
#[derive(Debug, Clone)]
pub struct PutLayer {
    pub plan: Plan,
    /// The window that shows them.
    pub window: usize,
}

/// A program to run once, with its files.
#[derive(Debug, Clone)]
pub struct Job {
    /// The command with its environment and limits, as the guest gets them.
    pub frame: JobFrame,
    pub language: Language,
    pub source: Source,
    pub image: Image,
    /// The script that it runs, if any; its path is relative to the working directory.
    pub script: Option<File>,
    /// The directory that it runs instead, with its path and the code in its main file.
    pub directory: Option<File>,
    /// All other files, with absolute paths.
    pub files: Vec<File>,
    /// The files below the default working directory, if these are many or large.
    pub layer: Option<PutLayer>,
    /// Whether the interpreter gives a prompt, for which it is one of its own.
    pub prompts: bool,
    /// Whether a record of the run is wanted.
    pub record: bool,
    /// Whether somebody waits for each line of its output.
    pub lines: bool,
    /// Whether its code comes later, in cells.
    pub session: bool,
    /// The bytes of its machine's memory that it may not have.
    pub withheld: u64,
}

impl Job {
    /// Returns the job in the form for an interpreter that has started already.
    pub fn handover(&self) -> Vec<u8> {
        let enters = self.has_files() || self.frame.workdir != WORKDIR.as_bytes();
        let is_code = matches!(self.source, Source::Code(_));
        let flags = [
            (handover::ENTER, enters),
            (handover::REPORT, self.record),
            (handover::NOTEBOOK, self.record && is_code),
            (handover::EXECUTE, !self.is_warm()),
            (handover::LINES, self.lines),
            (handover::SESSION, self.session),
        ];
        let flags = flags.iter().filter(|(_, wanted)| *wanted);
        let flags = flags.fold(0, |flags, (flag, _)| flags | flag);
        self.frame.handover(self.script.as_ref(), flags)
    }

    /// Returns whether it has files beside its script. The guest makes these before its program begins.
    pub fn has_files(&self) -> bool {
        !self.files.is_empty() || self.layer.is_some()
    }

    /// Returns the code itself, or `None` if it comes through standard input.
    pub fn code(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Code(code) => Some(code.as_bytes()),
            Source::Module(name) => Some(name.as_bytes()),
            Source::Command => self.language.command.as_ref().map(String::as_bytes),
            _ => Some(&self.script.as_ref().or(self.directory.as_ref())?.content),
        }
    }

    /// Returns whether the interpreter that was started ahead can run it.
    pub fn is_warm(&self) -> bool {
        let warm = self.language.warm.as_ref();
        warm.is_some_and(|warm| warm.library.is_some()) && !self.prompts
    }

    /// Returns the statements of its code that load what these layers have.
    pub fn loads(&self, layers: &[LayerFile]) -> Vec<String> {
        if layers.is_empty() {
            return Vec::new();
        }
        let code = match &self.source {
            Source::Module(_) | Source::Command => None,
            _ => self.code(),
        };
        let modules: Vec<_> = layers
            .iter()
            .flat_map(|layer| layer.modules.iter().cloned())
            .collect();
        let text = text(code.unwrap_or_default());
        loading_statements(&self.language, &text, &modules)
    }

    /// Returns whether modules that were imported already are as if it had imported them.
    pub fn suits_imported_modules(&self) -> bool {
        let reads = |variable: &Vec<u8>| self.language.reads_at_import(name(variable));
        self.is_warm() && self.language.has_hooks() && !self.frame.env.iter().any(reads)
    }

    /// Returns whether an interpreter that is up already can run it as a fresh one would.
    pub fn suits_a_warm_interpreter(&self) -> bool {
        self.variable_read_at_start().is_none()
    }

    /// Returns the name of a variable that an interpreter which is up already cannot take any more.
    pub fn variable_read_at_start(&self) -> Option<&[u8]> {
        let usual = environment(&self.image);
        let is_late = |variable: &&Vec<u8>| {
            !usual.contains(variable) && self.language.reads_at_start(name(variable))
        };
        // A program in another language gets a process that starts anew.
        let mut variables = self.frame.env.iter().filter(|_| self.is_warm());
        variables.find(is_late).map(|variable| name(variable))
    }

    /// Checks that the words of its command can be handed over: an interpreter that is up takes words
    /// of any length. `boots` says that a machine is booted for this job alone.
    pub fn check_words(&self, boots: bool) -> Result<(), Error> {
        /// Upper bound on a word with the NUL at its end: MAX_ARG_STRLEN of execve(2).
        const WORD_MAX: usize = 128 << 10;
        let takes_any = self.is_warm() && (!boots || self.record && self.language.has_hooks());
        let is_long = |word: &Vec<u8>| word.len() >= WORD_MAX;
        if takes_any || !self.frame.argv.iter().any(is_long) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Request,
            "the code or an argument is too long for an interpreter that has yet to start",
            "put it into a script",
        ))
    }

    /// Returns what to start first if a machine is booted for this program alone, and gets the job from the
    /// host: the interpreter if a record is wanted, so that it can report; in an image of others, what tells
    /// why a program cannot be run.
    pub fn interpreter(&self) -> Option<JobFrame> {
        let warm = self.image.started_for(&self.language).warm.as_ref()?;
        let reports = self.record && self.is_warm() && warm.hooks;
        if !reports && warm.library.is_some() {
            return None;
        }
        // Any command will do that differs from that of an interpreter to be saved.
        let (language, frame) = (&self.language, self.frame.clone());
        Some(interpreter((language, warm), frame, b"pass"))
    }

    /// Returns the words of its command that came with it, if it is code that runs what they name.
    pub fn own_words(&self) -> &[Vec<u8>] {
        self.frame
            .argv
            .get(self.language.code.len()..)
            .unwrap_or_default()
    }

    /// Mounts layers, the first of which is in the first window, before anything else is made.
    pub fn mount(&mut self, layers: &[LayerFile]) {
        self.files.splice(0..0, mounts(layers));
    }

    /// Returns the total bytes of its files.
    pub fn size(&self) -> u64 {
        let files = self.files.iter().chain(&self.script);
        let sizes = files.map(|file| file.content.len() as u64);
        let layer = self.layer.as_ref().map(|layer| layer.plan.size());
        sizes.chain(layer).sum()
    }

    /// Returns all files that the guest must have: the working directory, then what goes into it.
    pub fn into_files(self) -> Vec<File> {
        let layer = self.layer.as_ref();
        let layer = layer.map(|layer| File::writable_layer(WORKDIR, layer.window));
        let mut files = layer.unwrap_or_default();
        if self.frame.workdir != WORKDIR.as_bytes() && self.frame.workdir != b"/" {
            files.push(File {
                path: self.frame.workdir.clone(),
                mode: kind::DIRECTORY | 0o755,
                ..File::default()
            });
        }
        files.extend(self.files);
        if let Some(mut script) = self.script {
            script.path = beneath(&self.frame.workdir, &script.path);
            // The script replaces any file that was put at its path, as with the directory around it.
            files.retain(|file| file.path != script.path);
            files.push(script);
        }
        files
    }
}

/// Returns the records that mount layers, the first of which is in the first window.
pub fn mounts(layers: &[LayerFile]) -> Vec<File> {
    let layers = layers.iter().enumerate();
    let mounts = layers.flat_map(|(window, layer)| match layer.mount.as_str() {
        image::OVER_SYSTEM => File::system_layer(window),
        // The agent mounts it before there is a program.
        image::WHOLE_SYSTEM => Vec::new(),
        mount => vec![File::layer(mount.into(), window)],
    });
    mounts.collect()
}

/// Returns the part of a variable before the `=`.
pub fn name(variable: &[u8]) -> &[u8] {
    let end = variable.iter().position(|&byte| byte == b'=');
    &variable[..end.unwrap_or(variable.len())]
}

/// Returns the interpreter of a language to be saved before it has a program, if it is started ahead. It must
/// start as one for a program does. The library that stops it reads the names of the modules that it imports
/// first, and removes the variable.
pub fn warm_interpreter(
    (image, language): (&Image, &Language),
    root: bool,
    wishes: &[String],
    first_uses: &str,
) -> Option<JobFrame> {
    let warm = language.warm.as_ref()?;
    let mut env = environment(image);
    if !wishes.is_empty() {
        env.push(format!("SANDBOX_PRELOAD={}", wishes.join(",")).into());
        env.push(format!("SANDBOX_FIRST_USES={first_uses}").into());
    }
    let (user, group) = image.owner(root);
    let frame = JobFrame {
        argv: Vec::new(),
        env,
        // The program's own limit comes with its job.
        pids_limit: DEFAULT_PIDS,
        user,
        group,
        has_own_root: image.system.is_some(),
        workdir: WORKDIR.into(),
        terminal: None,
    };
    Some(interpreter((language, warm), frame, b""))
}

/// Returns an interpreter that stops before it runs this code. The library that stops it restores the
/// variable LD_PRELOAD.
fn interpreter((language, warm): (&Language, &Warm), mut frame: JobFrame, code: &[u8]) -> JobFrame {
    let words = Words {
        code,
        ..Words::default()
    };
    // It gets a terminal with its program.
    frame.terminal = None;
    let start = match warm.start.is_empty() {
        true => &language.code,
        false => &warm.start,
    };
    frame.argv = expand(start, words);
    let Some(library) = &warm.library else {
        return frame;
    };
    let (preloads, mut env): (Vec<_>, Vec<_>) = frame
        .env
        .into_iter()
        .partition(|variable| variable.starts_with(PRELOAD));
    let others = preloads
        .iter()
        .flat_map(|variable| [b":", &variable[PRELOAD.len()..]].concat());
    let variable = PRELOAD
        .iter()
        .chain(library.as_bytes())
        .copied()
        .chain(others);
    env.push(variable.collect());
    frame.env = env;
    frame
}

/// Returns a program in a language of an image.
pub fn rehearsal((image, language): (&Image, &Language), root: bool, program: &str) -> Job {
    let extension = language.extensions.first().map_or("", String::as_str);
    let name = format!("rehearsal.{extension}");
    let words = Words {
        file: name.as_bytes(),
        ..Words::default()
    };
    let (user, group) = image.owner(root);
    let argv = match language.has_commands_alone() {
        true => program.split_whitespace().map(Into::into).collect(),
        false => expand(&language.file, words),
    };
    Job {
        frame: JobFrame {
            argv,
            env: environment(image),
            pids_limit: DEFAULT_PIDS,
            user,
            group,
            has_own_root: image.system.is_some(),
            workdir: WORKDIR.into(),
            terminal: None,
        },
        language: language.clone(),
        source: Source::File(name.clone().into()),
        image: image.clone(),
        script: Some(File {
            path: name.into(),
            mode: SCRIPT_MODE,
            content: program.into(),
            modified: None,
        }),
        directory: None,
        files: Vec::new(),
        layer: None,
        prompts: false,
        record: false,
        lines: false,
        session: false,
        withheld: 0,
    }
}

/// Returns the default environment of an image's programs, in which there is nothing of the host's.
fn environment(image: &Image) -> Vec<Vec<u8>> {
    let mut env: Vec<Vec<u8>> = [
        "HOME=/work",
        "LANG=C.UTF-8",
        "LOGNAME=sandbox",
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "SHELL=/bin/bash",
        "USER=sandbox",
    ]
    .map(|variable| variable.into())
    .into();
    if let Some(system) = &image.system {
        // It need not have Bash.
        set(&mut env, b"SHELL=/bin/sh");
        set(&mut env, image::DEFAULT_PATH.as_bytes());
        let own = system.env.iter();
        own.for_each(|variable| set(&mut env, variable.as_bytes()));
    }
    env
}

/// Sets a variable of an environment, in place of one with the same name.
fn set(env: &mut Vec<Vec<u8>>, variable: &[u8]) {
    env.retain(|present| name(present) != name(variable));
    env.push(variable.into());
}

/// Returns the source that a word of the user's names: `-` is standard input.
pub fn source_named(name: &OsStr) -> Source {
    if name == "-" {
        Source::Stdin
    } else {
        Source::File(name.into())
    }
}

#[cfg(test)]
mod tests;

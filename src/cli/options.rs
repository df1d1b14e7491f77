//! The options of `sandbox run`.

use crate::cli::package_options::{PACKAGES, PackageArgs};
use crate::cli::values::{Languages, parse_descriptor, parse_pids, parse_switch};
use crate::files::{Get, Put};
use crate::limits::ConfineLevel;
use crate::units::{Timeout, parse_grace, parse_memory, parse_size, parse_timeout};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

/// The headings of the groups of options.
const PROGRAM: &str = "The program";
const LIMITS: &str = "Its limits";
const FILES: &str = "Files in and out";
const MACHINE: &str = "The machine";
const TOLD: &str = "What is told";

/// Options about what the machine of a checkpoint has already, or that are not for cells.
const FIXED: [&str; 31] = [
    "code_file",
    "module",
    "interactive",
    "lang",
    "image",
    "python",
    "memory",
    "pids_limit",
    "env",
    "env_file",
    "args_file",
    "with",
    "requirements",
    "locked",
    "no_packages",
    "no_preload",
    "put",
    "exclude",
    "exclude_from",
    "no_siblings",
    "get",
    "show_dir",
    "workdir",
    "root",
    "fresh",
    "verify",
    "json_events",
    "json_status_fd",
    "policy",
    "audit",
    "console",
];

#[derive(Args)]
pub struct RunArgs {
    /// Code to run instead of a script
    #[arg(short, value_name = "CODE", help_heading = PROGRAM)]
    pub code: Option<OsString>,
    /// The same, from a file
    #[arg(long, value_name = "FILE", conflicts_with = "code", help_heading = PROGRAM)]
    pub code_file: Option<PathBuf>,
    /// A module to run instead of a script, from the current directory or of the standard library
    #[arg(long, value_name = "NAME", conflicts_with_all = ["code", "code_file"], help_heading = PROGRAM)]
    pub module: Option<String>,
    /// Give a prompt after the program, or alone, for which there is no time limit unless one is given
    #[arg(short, long, help_heading = PROGRAM)]
    pub interactive: bool,
    /// Give the program no terminal, even where there is one
    #[arg(short = 'T', long, help_heading = PROGRAM)]
    pub no_tty: bool,
    /// The program's language, python or bash; else a script's name or #! line tells, and it is Python
    #[arg(short, long, value_name = "LANGUAGE", value_parser = Languages::OfPrograms, hide_possible_values = true, help_heading = PROGRAM)]
    pub lang: Option<String>,
    /// Another image than the one that is built in: one that was imported, by its name, or a file
    /// that describes the guest's languages (NAME.toml, or a path with a / in it)
    #[arg(long, value_name = "NAME|FILE", help_heading = MACHINE)]
    pub image: Option<PathBuf>,
    /// The image that has this Python, for example 3.11 or '<3.13'; else a script's #! line or header may
    /// name one
    #[arg(long, env = "SANDBOX_PYTHON", value_name = "VERSION", conflicts_with = "image", help_heading = MACHINE)]
    pub python: Option<String>,
    /// Guest memory, for example 512M or 1G
    #[arg(short, long, env = "SANDBOX_MEMORY", value_name = "SIZE", default_value = "256M", value_parser = parse_memory, allow_negative_numbers = true, help_heading = LIMITS)]
    pub memory: u64,
    /// Wall-clock limit of the program: seconds, or with a unit (30s, 2m, 1h); 0 for none
    #[arg(short, long, env = "SANDBOX_TIMEOUT", value_name = "DURATION", default_value = "60", value_parser = parse_timeout, allow_negative_numbers = true, help_heading = LIMITS)]
    pub timeout: Timeout,
    /// How long the program may go on once a signal asks it to stop (2s, 500ms); the signal comes to the
    /// program first, and a second one ends it at once
    #[arg(long, env = "SANDBOX_GRACE", value_name = "DURATION", default_value = "2s", value_parser = parse_grace, allow_negative_numbers = true, help_heading = LIMITS)]
    pub grace: Duration,
    /// Most bytes delivered of each output stream; the rest is dropped and counted [default: 1G,
    /// or 8M with --json]
    #[arg(long, env = "SANDBOX_MAX_OUTPUT", value_name = "SIZE", value_parser = parse_size, allow_negative_numbers = true, help_heading = LIMITS)]
    pub max_output: Option<u64>,
    /// Most processes and threads at once
    #[arg(long, env = "SANDBOX_PIDS_LIMIT", value_name = "N", default_value = "256", value_parser = parse_pids, allow_negative_numbers = true, help_heading = LIMITS)]
    pub pids_limit: u32,
    /// Set a variable of the program's environment, or pass on the one with this name
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = PROGRAM)]
    pub env: Vec<OsString>,
    /// Set the variables in this file, one on each line, as for --env. Empty lines and those that
    /// begin with # are left out; a value is all that follows the =, quotes too
    #[arg(long, value_name = "FILE", help_heading = PROGRAM)]
    pub env_file: Vec<PathBuf>,
    /// The program's arguments, each ending with a NUL, where no other user can see them
    #[arg(long, value_name = "FILE", help_heading = PROGRAM)]
    pub args_file: Option<PathBuf>,
    #[command(flatten)]
    pub packages: PackageArgs,
    /// Take the packages that SCRIPT.lock names, and nothing else
    #[arg(long, help_heading = PACKAGES)]
    pub locked: bool,
    /// Bring no packages, whatever the script's header names
    #[arg(long, env = "SANDBOX_NO_PACKAGES", value_parser = parse_switch, conflicts_with_all = ["with", "requirements", "locked"], help_heading = PACKAGES)]
    pub no_packages: bool,
    /// Start from a machine that has imported nothing ahead: the program imports modules and packages itself
    #[arg(long, env = "SANDBOX_NO_PRELOAD", value_parser = parse_switch, help_heading = PACKAGES)]
    pub no_preload: bool,
    /// Put a file, or a directory with all in it, into the guest: under its own name in the working
    /// directory, or as GUEST (in GUEST, if that ends with a /). Links in it stay links
    #[arg(long, value_name = "HOST[:GUEST]", value_parser = OsStringValueParser::new().try_map(|word| Put::parse(&word)), help_heading = FILES)]
    pub put: Vec<Put>,
    /// Leave out what matches this pattern, as in a .gitignore, of directories that go into the guest
    #[arg(long, value_name = "PATTERN", help_heading = FILES)]
    pub exclude: Vec<String>,
    /// Leave out what matches the patterns in this file, one on each line
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub exclude_from: Vec<PathBuf>,
    /// Put nothing but the script into the guest, even if it imports what is beside it
    #[arg(long, env = "SANDBOX_NO_SIBLINGS", value_parser = parse_switch, help_heading = FILES)]
    pub no_siblings: bool,
    /// Fetch a file or directory that the program leaves: under its own name in the current
    /// directory, or as HOST (in HOST, if that is a directory). Links in it are left out
    #[arg(long, value_name = "GUEST[:HOST]", value_parser = OsStringValueParser::new().try_map(|word| Get::parse(&word)), help_heading = FILES)]
    pub get: Vec<Get>,
    /// Keep the figures of the program in this directory: figure-1.png and so on
    #[arg(long, value_name = "DIR", help_heading = FILES)]
    pub show_dir: Option<PathBuf>,
    /// Let --get and --show-dir replace files that are there
    #[arg(long, help_heading = FILES)]
    pub force: bool,
    /// The program's working directory in the guest, made if it is missing
    #[arg(short, long, value_name = "DIR", default_value = guest::WORKDIR, help_heading = PROGRAM)]
    pub workdir: OsString,
    /// Run the program as the guest's root
    #[arg(long, help_heading = PROGRAM)]
    pub root: bool,
    /// Boot a machine for this run alone, instead of restoring a saved one
    #[arg(long, env = "SANDBOX_FRESH", value_parser = parse_switch, help_heading = MACHINE)]
    pub fresh: bool,
    /// Run it as a cell of a session that goes on from this checkpoint and ends with it
    #[arg(long, value_name = "NAME", conflicts_with_all = FIXED, help_heading = MACHINE)]
    pub from: Option<String>,
    /// Check all of the saved machine before it is restored
    #[arg(long, env = "SANDBOX_VERIFY", value_parser = parse_switch, help_heading = MACHINE)]
    pub verify: bool,
    /// Whether this process confines itself before the guest runs: as far as this kernel lets it,
    /// or fully or not at all
    #[arg(
        long,
        env = "SANDBOX_CONFINE",
        value_enum,
        value_name = "HOW",
        default_value = "auto",
        help_heading = MACHINE
    )]
    pub confine: ConfineLevel,
    /// Print one JSON object that tells how the run went, with the program's output in it
    #[arg(long, conflicts_with = "json_status_fd", help_heading = TOLD)]
    pub json: bool,
    /// Print a line of JSON for each piece of output as it comes, then such an object without the output
    #[arg(long, conflicts_with_all = ["json", "json_status_fd"], help_heading = TOLD)]
    pub json_events: bool,
    /// Write such an object, without the output, to this descriptor at the end
    #[arg(long, value_name = "N", value_parser = parse_descriptor, allow_negative_numbers = true, help_heading = TOLD)]
    pub json_status_fd: Option<RawFd>,
    /// Ask for no more than this file allows
    #[arg(long, env = "SANDBOX_POLICY", value_name = "FILE", help_heading = LIMITS)]
    pub policy: Option<PathBuf>,
    /// Write down in this file who ran what, and what became of it
    #[arg(long, env = "SANDBOX_AUDIT", value_name = "FILE", help_heading = TOLD)]
    pub audit: Option<PathBuf>,
    /// Show the guest kernel's log on standard error
    #[arg(long, help_heading = TOLD)]
    pub console: bool,
    /// Say on standard error how the run went
    #[arg(long, conflicts_with = "quiet", help_heading = TOLD)]
    pub verbose: bool,
    /// Say nothing beyond the program's own output
    #[arg(short, long, help_heading = TOLD)]
    pub quiet: bool,
    /// A script (- for standard input), then the program's arguments; after a --, a command of the guest's
    #[arg(value_name = "SCRIPT [ARGS]", trailing_var_arg = true)]
    pub words: Vec<OsString>,
}

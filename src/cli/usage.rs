//! Errors in the arguments: what was written, what is wrong with it, and what to do.

use crate::cli::foreign_options;
use crate::error::{Error, Kind};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use std::env;
use std::error::Error as _;
use std::ffi::OsString;

/// The arguments that are wrong, and the grammar that they are wrong in.
struct Usage<'a> {
    error: &'a clap::Error,
    command: Command,
    /// Makes the grammar, as it is before it is read.
    grammar: fn() -> Command,
    /// The words after the program's name.
    words: Vec<String>,
}

/// Returns the error in our own words.
pub fn explained(error: &clap::Error, grammar: fn() -> Command, words: &[OsString]) -> Error {
    let words = words.iter().map(|word| word.to_string_lossy().into_owned());
    let mut command = grammar();
    command.build();
    let usage = Usage {
        error,
        command,
        grammar,
        words: words.collect(),
    };
    let (message, remedy) = usage.explanation();
    Error::new(Kind::Request, message, remedy)
}

impl Usage<'_> {
    fn explanation(&self) -> (String, String) {
        let option = self.name();
        match self.error.kind() {
            ErrorKind::UnknownArgument => self.unknown_option(),
            ErrorKind::InvalidSubcommand => self.unknown_command(),
            ErrorKind::InvalidValue if self.value().is_empty() && !self.is_given_empty() => (
                format!("{option} has nothing after it"),
                format!("give its value: {option} {}", self.placeholder()),
            ),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation => self.wrong_value(),
            ErrorKind::TooManyValues => (
                format!("{option} takes no value, so that {} is wrong", self.value()),
                format!("give {option} alone"),
            ),
            ErrorKind::ArgumentConflict => self.conflict(),
            ErrorKind::MissingRequiredArgument => self.missing(),
            ErrorKind::InvalidUtf8 => (
                "an argument is not UTF-8".into(),
                "only code, paths, variables and the program's arguments may have any bytes".into(),
            ),
            _ => {
                let text = self.error.to_string();
                let first = text.lines().next().unwrap_or_default();
                let message = first.strip_prefix("error: ").unwrap_or(first);
                (message.into(), format!("see {} --help", self.called()))
            }
        }
    }

    fn unknown_option(&self) -> (String, String) {
        let option = self.context(ContextKind::InvalidArg);
        let called = self.called();
        if !option.starts_with('-') {
            let message = format!("{called} does not take {option}");
            return (message, self.place_of_word(&option));
        }
        let message = match called.as_str() {
            "sandbox" => format!("sandbox itself has no option {}", self.whole(&option)),
            "sandbox run" => format!("there is no option {}", self.whole(&option)),
            _ => format!("{called} has no option {option}"),
        };
        let run = self.command.find_subcommand("run");
        let is_of_run = run.is_some_and(|run| run.get_arguments().any(|arg| spells(arg, &option)));
        let suggested = self.context(ContextKind::SuggestedArg);
        let remedy = match foreign_options::remedy(&option) {
            _ if called == "sandbox" && is_of_run => {
                format!("it is an option of sandbox run: sandbox run {option}")
            }
            Some(remedy) if called == "sandbox run" => remedy.into(),
            _ if !suggested.is_empty() => {
                format!("the option that is spelled like it is {suggested}")
            }
            _ if called == "sandbox run" => self.programs_own(&option),
            _ => format!("{called} --help lists its options"),
        };
        (message, remedy)
    }

    /// Returns where a word goes that is out of place: after a --, if words can go there.
    fn place_of_word(&self, word: &str) -> String {
        let called = self.called();
        let mut command = &self.command;
        for name in called.split(' ').skip(1) {
            command = command.find_subcommand(name).unwrap_or(command);
        }
        let takes_words = command.get_positionals().any(Arg::is_last_set);
        match takes_words {
            true => format!("what is to run goes after --, as in -- {word}"),
            false => format!("see {called} --help"),
        }
    }

    /// Returns the word that a short option is in.
    fn whole<'a>(&'a self, option: &'a str) -> &'a str {
        let is_in = |word: &&String| option.len() == 2 && word.starts_with(option);
        self.words.iter().find(is_in).map_or(option, String::as_str)
    }

    /// Returns where an option goes that is meant for the program.
    fn programs_own(&self, option: &str) -> String {
        let has_code = self.words.iter().any(|word| word.starts_with("-c"));
        let place = match has_code {
            true => format!("after --: sandbox run -c CODE -- {option}"),
            false => format!("after the script: sandbox run SCRIPT {option}"),
        };
        format!("sandbox run --help lists the options; the program's own go {place}")
    }

    fn unknown_command(&self) -> (String, String) {
        let word = self.context(ContextKind::InvalidSubcommand);
        let called = self.called();
        let is_file = word.contains(['.', '/']) || std::path::Path::new(&word).exists();
        let suggested = self.context(ContextKind::SuggestedSubcommand);
        let remedy = match suggested.is_empty() {
            _ if is_file && called == "sandbox" => format!("to run a file: sandbox run {word}"),
            false => format!("the command that is spelled like it is {suggested}"),
            true => format!("{called} --help lists the commands"),
        };
        let message = match called.as_str() {
            "sandbox" => format!("there is no command {word}"),
            _ => format!("{called} has no command {word}"),
        };
        (message, remedy)
    }

    fn wrong_value(&self) -> (String, String) {
        let (name, value) = (self.name(), self.value());
        let message = match value.as_str() {
            "" => format!("{name} cannot be empty"),
            value => format!("{name} cannot be {value}"),
        };
        let allowed = self.context(ContextKind::ValidValue);
        let told = self.error.source().map(ToString::to_string);
        let is_module = name == "-m" && value.starts_with(|c: char| c.is_alphabetic());
        let is_tty = name == "-it";
        let remedy = match told {
            _ if is_tty => {
                "-t is the time limit; the program has a terminal where this is one, without an option".into()
            }
            _ if is_module => {
                "-m is the memory, as in -m 512M; a module runs with --module NAME".into()
            }
            _ if !allowed.is_empty() => format!("it is one of {allowed}"),
            Some(told) => told,
            None => format!("see {} --help", self.called()),
        };
        (message, remedy)
    }

    fn conflict(&self) -> (String, String) {
        let option = self.name();
        let told = self.context(ContextKind::InvalidArg);
        let other = self.context(ContextKind::PriorArg);
        if other.is_empty() || other == told {
            let message = format!("{option} is given twice");
            return (message, "give it once".into());
        }
        let other = other.split(' ').next().unwrap_or_default();
        let [option, other] = [&option, other].map(|name| match name.starts_with('-') {
            true => name,
            false => self.excluded_word().unwrap_or(name),
        });
        let message = format!("{option} and {other} exclude each other");
        (message, "leave one of them out".into())
    }

    /// Returns the word from which on the words have to go so that no two exclude each other.
    fn excluded_word(&self) -> Option<&str> {
        let is_whole = |&count: &usize| {
            let words = self.words[..count].iter().map(String::as_str);
            let words = std::iter::once("sandbox").chain(words);
            let error = (self.grammar)().try_get_matches_from(words).err();
            error.is_none_or(|error| error.kind() != ErrorKind::ArgumentConflict)
        };
        let count = (0..self.words.len()).rev().find(is_whole)?;
        Some(&self.words[count])
    }

    fn missing(&self) -> (String, String) {
        let called = self.called();
        let options = self.words.iter().filter(|word| word.starts_with('-'));
        let written: Vec<_> = std::iter::once(&called)
            .chain(options)
            .map(String::as_str)
            .collect();
        let message = format!("something is missing in {}", written.join(" "));
        let usage = match self.error.get(ContextKind::Usage) {
            Some(ContextValue::StyledStr(usage)) => plain(&usage.to_string()),
            _ => format!("Usage: {called}"),
        };
        // What is in brackets may be left out.
        let words = usage.split(' ').skip(1);
        let needed: Vec<_> = words.filter(|word| !word.starts_with('[')).collect();
        (message, format!("give it all: {}", needed.join(" ")))
    }

    /// Returns the commands that were given before the word that is wrong.
    fn called(&self) -> String {
        let wrong = match self.error.kind() {
            ErrorKind::UnknownArgument => self.context(ContextKind::InvalidArg),
            _ => String::new(),
        };
        let (mut command, mut called) = (&self.command, vec!["sandbox"]);
        for word in &self.words {
            if !wrong.is_empty() && word.starts_with(&wrong) {
                break;
            }
            if let Some(found) = command.find_subcommand(word) {
                command = found;
                called.push(word);
            }
        }
        called.join(" ")
    }

    /// Returns what stands for the value of the argument that is wrong.
    fn placeholder(&self) -> String {
        let told = plain(&self.context(ContextKind::InvalidArg));
        told.split(' ').nth(1).unwrap_or("VALUE").into()
    }

    fn context(&self, kind: ContextKind) -> String {
        match self.error.get(kind) {
            Some(ContextValue::String(text)) => text.clone(),
            Some(ContextValue::Strings(texts)) => texts.join(", "),
            _ => String::new(),
        }
    }

    fn value(&self) -> String {
        self.context(ContextKind::InvalidValue)
    }

    /// Returns the option that is wrong as it was written, or the variable that stands for it.
    fn name(&self) -> String {
        let told = self.context(ContextKind::InvalidArg);
        let Some(arg) = find(&self.command, &told) else {
            return plain(told.split(' ').next().unwrap_or_default());
        };
        if let Some(variable) = self.variable(arg) {
            return variable;
        }
        let long = arg.get_long().map(|long| format!("--{long}"));
        let short = arg.get_short().map(|short| format!("-{short}"));
        let is_among = |word: &String| {
            let letters = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
            letters
                .is_some_and(|letters| arg.get_short().is_some_and(|short| letters.contains(short)))
        };
        let is_written = |name: &&String| self.words.iter().any(|word| word.starts_with(*name));
        let among = self.words.iter().find(|word| is_among(word));
        let written = long.iter().chain(&short).find(is_written).or(among);
        written.or(long.as_ref()).cloned().unwrap_or(plain(&told))
    }

    /// Returns the variable that an argument's value comes from, if it does: without it, there is no
    /// such error.
    fn variable(&self, arg: &Arg) -> Option<String> {
        let variable = arg.get_env()?;
        env::var_os(variable)?;
        let id = arg.get_id().as_str();
        let words = std::iter::once("sandbox").chain(self.words.iter().map(String::as_str));
        let again = without_variable((self.grammar)(), id).try_get_matches_from(words);
        let is_gone = again.err().is_none_or(|error| {
            let of = |error: &clap::Error| {
                let value = error.get(ContextKind::InvalidArg).map(ToString::to_string);
                (error.kind(), value)
            };
            of(&error) != of(self.error)
        });
        is_gone.then(|| variable.to_string_lossy().into_owned())
    }

    /// Returns whether an empty value was given, and not none.
    fn is_given_empty(&self) -> bool {
        let is_variable = self.name().starts_with("SANDBOX_");
        is_variable
            || self
                .words
                .iter()
                .any(|word| word.is_empty() || word.ends_with('='))
    }
}

/// Returns a placeholder without its brackets.
fn plain(told: &str) -> String {
    told.replace(['<', '>'], "")
}

/// Returns whether this is how the argument is written.
fn spells(arg: &Arg, option: &str) -> bool {
    let is_long = arg
        .get_long()
        .is_some_and(|long| option == format!("--{long}"));
    is_long
        || arg
            .get_short()
            .is_some_and(|short| option == format!("-{short}"))
}

/// Returns the argument that an error names, of the command or of one below it.
fn find<'a>(command: &'a Command, told: &str) -> Option<&'a Arg> {
    let mut own = command.get_arguments();
    let found = own.find(|arg| arg.to_string() == told);
    found.or_else(|| {
        command
            .get_subcommands()
            .find_map(|below| find(below, told))
    })
}

/// Returns the command without the variable of an argument, which several below it may have.
fn without_variable(command: Command, id: &str) -> Command {
    let has = command.get_arguments().any(|arg| arg.get_id() == id);
    let below: Vec<_> = command
        .get_subcommands()
        .map(|c| c.get_name().to_owned())
        .collect();
    let command = match has {
        true => command.mut_arg(id, |arg| arg.env(None::<&'static str>)),
        false => command,
    };
    below.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |below| without_variable(below, id))
    })
}

//! Making of a job from what was asked for.

use crate::error::{Error, Kind, Remedy};
use crate::image::{Image, Language, System, Words, expand};
use crate::job::{Job, SCRIPT_MODE, Source, environment, foreign, path, script, set};
use guest::{File, JobFrame, Terminal, WORKDIR, kind};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const DIRECTORY_MODE: u32 = kind::DIRECTORY | 0o755;

/// The parts that a job is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    pub image: &'a Image,
    pub source: &'a Source,
    /// The name of the language that was asked for; without one, the program itself tells.
    pub language: Option<&'a str>,
    pub arguments: &'a [OsString],
    /// The variables of the environment, each as `NAME=value`.
    pub variables: &'a [Vec<u8>],
    /// The place of the script in the guest, relative to the working directory, if something else
    /// decides it than its own path.
    pub place: Option<&'a [u8]>,
    /// The working directory, an absolute path in the guest.
    pub workdir: &'a [u8],
    pub pids: u32,
    pub root: bool,
    pub terminal: Option<Terminal>,
    /// Whether there is a prompt after the program.
    pub prompt: bool,
}

impl<'a> Parts<'a> {
    /// Returns what says what the image's own program is, if that is to run.
    fn own_command(&self) -> Option<&'a System> {
        let is_wanted = *self.source == Source::Command && self.arguments.is_empty();
        self.image.system.as_ref().filter(|_| is_wanted)
    }
}

/// Makes the job; reads the script.
pub fn make(parts: Parts) -> Result<Job, Error> {
    let asked = parts.language.map(|name| known(parts.image, name));
    let asked = asked.transpose()?;
    let or_default = asked.unwrap_or(parts.image.default_language());
    let (mut script, mut directory) = (None, None);
    let (language, mut argv) = match parts.source {
        Source::Stdin => (or_default, expand(&or_default.stdin, Words::default())),
        Source::Prompt => (or_default, expand(&or_default.prompt, Words::default())),
        Source::Code(code) => {
            let words = Words {
                code: code.as_bytes(),
                ..Words::default()
            };
            (or_default, expand(&or_default.code, words))
        }
        Source::Module(name) => run_module(parts.image, name, asked)?,
        Source::Command => run_command(parts.image, asked)?,
        Source::File(path) => {
            let (language, argv, file) = run_file(&parts, path, asked)?;
            match file.mode {
                DIRECTORY_MODE => directory = Some(file),
                _ => script = Some(file),
            }
            (language, argv)
        }
    };
    let prompts = parts.prompt || *parts.source == Source::Prompt;
    if prompts {
        ask_for_prompt(parts.source, language, &mut argv)?;
    }
    let workdir = add_arguments(&parts, &mut argv);
    if argv.is_empty() {
        return Err(no_interpreter(parts.image));
    }
    let mut env = environment(parts.image);
    for variable in parts.variables {
        set(&mut env, variable);
    }
    let (user, group) = parts.image.owner(parts.root);
    Ok(Job {
        frame: JobFrame {
            argv,
            env,
            pids_limit: parts.pids,
            user,
            group,
            has_own_root: parts.image.system.is_some(),
            workdir: workdir.into(),
            terminal: parts.terminal,
        },
        language: language.clone(),
        source: parts.source.clone(),
        image: parts.image.clone(),
        script,
        directory,
        files: Vec::new(),
        layer: None,
        prompts,
        record: false,
        lines: false,
        session: false,
        withheld: 0,
    })
}

/// Has an interpreter give a prompt: at once, or after the program.
fn ask_for_prompt(
    source: &Source,
    language: &Language,
    argv: &mut Vec<Vec<u8>>,
) -> Result<(), Error> {
    if language.prompt.is_empty() {
        return Err(no_prompt(language));
    }
    if *source != Source::Prompt {
        let option = language.prompt_after.as_ref();
        argv.insert(1, option.ok_or_else(|| no_prompt(language))?.clone().into());
    }
    Ok(())
}

/// Adds the program's arguments, or the words of the image's own program. Returns the directory in which it
/// runs.
fn add_arguments<'a>(parts: &Parts<'a>, argv: &mut Vec<Vec<u8>>) -> &'a [u8] {
    let Some(system) = parts.own_command() else {
        argv.extend(parts.arguments.iter().map(|word| word.as_bytes().to_vec()));
        return parts.workdir;
    };
    argv.extend(system.command.iter().map(|word| word.as_bytes().to_vec()));
    match parts.workdir == WORKDIR.as_bytes() {
        true => system.workdir.as_deref().unwrap_or("/").as_bytes(),
        false => parts.workdir,
    }
}

/// Returns the language of a script or a directory, the command that runs it, and itself.
fn run_file<'a>(
    parts: &Parts<'a>,
    path: &Path,
    asked: Option<&'a Language>,
) -> Result<(&'a Language, Vec<Vec<u8>>, File), Error> {
    let found = script::find(parts.image, path)?;
    let (word, place) = path::of_script(path, parts.place);
    let (language, option) = match found.directory {
        Some(language) => (asked.unwrap_or(language), None),
        None => script::language(parts.image, path, &found.content, asked)?,
    };
    let words = Words {
        file: &word,
        option,
        ..Words::default()
    };
    let argv = expand(&language.file, words);
    let file = File {
        path: place,
        mode: match found.directory {
            Some(_) => DIRECTORY_MODE,
            None => SCRIPT_MODE,
        },
        content: found.content,
        modified: None,
    };
    Ok((language, argv, file))
}

/// Says that an image runs nothing but the commands in it.
fn no_interpreter(image: &Image) -> Error {
    Error::new(
        Kind::Request,
        format!("the image {} has no interpreter of programs", image.name),
        "run a command that is in the image, or take an image that has the interpreter",
    )
}

fn no_prompt(language: &Language) -> Error {
    Error::new(
        Kind::Request,
        format!("{} gives no prompt after a program", language.title),
        "run the program without a prompt after it",
    )
}

/// Returns the language of a module, and the command that runs it.
fn run_module<'a>(
    image: &'a Image,
    name: &str,
    asked: Option<&'a Language>,
) -> Result<(&'a Language, Vec<Vec<u8>>), Error> {
    let is_letter = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    if name.is_empty() || !name.chars().all(is_letter) {
        return Err(Error::new(
            Kind::Request,
            format!("{name:?} is not the name of a module"),
            "give it as an import statement has it, such as package.module",
        ));
    }
    let mut languages = image.languages.iter();
    let language = asked.or_else(|| languages.find(|language| language.module.is_some()));
    let language = language.unwrap_or(image.default_language());
    let code = language.module.as_ref().ok_or_else(|| {
        Error::new(
            Kind::Request,
            format!("{} has no modules to run", language.title),
            "name a script",
        )
    })?;
    let code = code.replace("{module}", name);
    let words = Words {
        code: code.as_bytes(),
        ..Words::default()
    };
    Ok((language, expand(&language.code, words)))
}

/// Returns the language that runs commands, and how it does.
fn run_command<'a>(
    image: &'a Image,
    asked: Option<&'a Language>,
) -> Result<(&'a Language, Vec<Vec<u8>>), Error> {
    let mut languages = image.languages.iter();
    let found = asked.or_else(|| languages.find(|language| language.command.is_some()));
    let found = found.and_then(|language| Some((language, language.command.as_ref()?)));
    let (language, code) = found.ok_or_else(|| {
        let what = match asked {
            Some(language) => &language.title,
            None => "this image",
        };
        Error::new(
            Kind::Request,
            format!("{what} runs no commands"),
            Remedy::LeaveLanguageOut,
        )
    })?;
    let words = Words {
        code: code.as_bytes(),
        ..Words::default()
    };
    Ok((language, expand(&language.code, words)))
}

/// Returns the language that is meant by a name.
pub fn known<'a>(image: &'a Image, name: &str) -> Result<&'a Language, Error> {
    image.meant(name).ok_or_else(|| {
        Error::new(
            Kind::Request,
            format!("the image {} does not run {name}", image.name),
            foreign::no_language(image, name),
        )
    })
}

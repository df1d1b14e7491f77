//! The arguments of a call, and their checks.

use crate::audit::{Refusal, shortened};
use crate::error::Error;
use crate::image::Image;
use crate::mcp::tool::languages::Offer;
use crate::mcp::tool::remedies::{in_words, words};
use crate::record::Failure;
use crate::session::check_name;
use crate::units::MEMORY_PIECE;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Number, Value};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

/// The most bytes of code.
pub const CODE_MAX: usize = 1 << 20;
/// The most bytes of standard input, arguments, variables and files together.
pub const INPUT_MAX: usize = 16 << 20;
pub const ITEMS_MAX: usize = 1000;
pub const FILES_MAX: usize = 64;
pub const PACKAGES_MAX: usize = 100;
const PATH_MAX: usize = 1024;
/// The most bytes of a variable's name.
const NAME_MAX: usize = 256;
pub const MEMORY_MIB: (u64, u64) = (64, 16384);
pub const TIMEOUT_S: (f64, f64) = (0.1, 3600.0);

/// Run a program in a fresh virtual machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// The program. In Python the value of a last expression is given back, as in a notebook, and
    /// `display(value)` shows a value with its rich forms.
    pub code: String,
    /// The language of the code.
    #[serde(default = "default_language")]
    pub language: String,
    /// The image that has the language.
    #[serde(skip, default = "built_in")]
    pub image: Image,
    /// Seconds of wall-clock time that it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    pub timeout_s: Option<f64>,
    /// Memory of the machine, files in it included, in MiB; more by default for packages and for compiled languages.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_number"
    )]
    #[schemars(with = "u64")]
    pub memory_mib: Option<u64>,
    /// The name of a session, in which variables and files are kept for the next call that names it; its
    /// machine is started with the first call, which says what packages and memory it has. Python and Bash
    /// keep theirs each; without args and env. Without a name, nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub session: Option<String>,
    /// The program's standard input.
    #[serde(default)]
    pub stdin: String,
    /// The program's arguments: sys.argv[1:] in Python, $1 and so on in bash.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables of the program's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Python packages that the program needs: numpy, or pandas>=2; @core stands for numpy, pandas and
    /// matplotlib, @data for these and some twenty more.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Files to put there before it runs, and files to fetch when it has ended.
    #[serde(default)]
    #[schemars(with = "Vec<GivenFile>")]
    pub files: Vec<File>,
}

/// The argument that makes a call invalid, and why.
#[derive(Debug)]
pub struct Wrong {
    pub argument: String,
    pub failure: Failure,
}

impl Wrong {
    /// Returns that the packages are wrong which a call asks for.
    pub fn packages(error: Error) -> Self {
        Self {
            argument: "packages".into(),
            failure: in_words(error),
        }
    }

    /// Returns what the log has of it.
    pub fn refusal(&self) -> Refusal {
        Refusal {
            what: shortened(&self.argument),
            // The value may be a secret in the wrong place.
            asked: None,
            allowed: "what the tool's inputSchema says".into(),
            retry_after_s: None,
        }
    }
}

/// A file that is put into the guest, or fetched, or both.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "GivenFile")]
pub struct File {
    pub path: String,
    pub content: Option<Vec<u8>>,
    pub is_fetched: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "File")]
struct GivenFile {
    /// The path of the file in the machine; a relative one starts in the working directory, /work.
    path: String,
    /// The content that the file has before the program runs. Without it, the file is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    content: Option<String>,
    /// The encoding of content.
    #[serde(default)]
    encoding: Encoding,
    /// Whether it is fetched when the program has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    fetch: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
}

impl Arguments {
    /// Reads the arguments of a call; its language is one of the image that is built in, or of those on offer.
    pub fn parse(given: Option<JsonObject>, offer: impl FnOnce() -> Offer) -> Result<Self, Wrong> {
        let given = Value::Object(given.unwrap_or_default());
        let mut arguments: Self =
            serde_path_to_error::deserialize(given).map_err(|error| Wrong {
                argument: match error.path().iter().next() {
                    Some(_) => error.path().to_string(),
                    None => "arguments".into(),
                },
                failure: Failure {
                    message: format!("the arguments are wrong: {error}"),
                    remedy: "call the tool as its inputSchema says".into(),
                },
            })?;
        arguments.find_language(offer)?;
        arguments.check()?;
        Ok(arguments)
    }

    fn find_language(&mut self, offer: impl FnOnce() -> Offer) -> Result<(), Wrong> {
        if let Some(language) = self.image.meant(&self.language) {
            self.language = language.name.clone();
            return Ok(());
        }
        let offer = offer();
        let Some((language, image)) = offer.find(&self.language) else {
            let what = format!("unknown language {:?}", self.language);
            let known = offer.names().join(", ");
            return Err(wrong(
                "language",
                format!("{what}, expected one of {known}"),
            ));
        };
        (self.language, self.image) = (language.name.clone(), image.clone());
        Ok(())
    }

    /// Returns the bytes of memory that the program gets unless the call says how many, and others would get
    /// these.
    pub fn memory_or(&self, others: u64) -> u64 {
        let language = self.image.find(&self.language);
        language.map_or(others, |language| language.memory_or(others))
    }

    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_s.map(Duration::from_secs_f64)
    }

    /// Returns the memory in bytes.
    pub fn memory(&self) -> Option<u64> {
        self.memory_mib
            .map(|mib| (mib << 20).next_multiple_of(MEMORY_PIECE))
    }

    /// Returns the bytes of all input except the code.
    fn input_size(&self) -> usize {
        let args = self.args.iter().map(String::len);
        let env = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let files = self.files.iter().filter_map(|file| file.content.as_ref());
        self.stdin.len()
            + args.sum::<usize>()
            + env.sum::<usize>()
            + self.packages.iter().map(String::len).sum::<usize>()
            + files.map(Vec::len).sum::<usize>()
    }

    /// Returns the environment's variables as `NAME=value`.
    pub fn variables(&self) -> Vec<String> {
        let variables = self.env.iter();
        variables
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    fn check(&self) -> Result<(), Wrong> {
        within("code", self.code.len(), CODE_MAX, "bytes")?;
        without_nul("code", &self.code)?;
        within("all input", self.input_size(), INPUT_MAX, "bytes")?;
        within("args", self.args.len(), ITEMS_MAX, "items")?;
        within("env", self.env.len(), ITEMS_MAX, "variables")?;
        within("files", self.files.len(), FILES_MAX, "items")?;
        within("packages", self.packages.len(), PACKAGES_MAX, "items")?;
        self.check_session()?;
        if !self.packages.is_empty() && self.image.packages.is_none() {
            return Err(wrong("packages", format!("{} has none", self.language)));
        }
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
                return Err(wrong(
                    "env",
                    format!("{name:?} is not the name of a variable"),
                ));
            }
            within("names in env", name.len(), NAME_MAX, "bytes")?;
            without_nul("env", name)?;
            without_nul("env", value)?;
        }
        Ok(())
    }
}

impl Arguments {
    /// Checks that what comes with a call of a session is what that takes.
    fn check_session(&self) -> Result<(), Wrong> {
        let Some(name) = &self.session else {
            return Ok(());
        };
        check_name(name).map_err(|error| Wrong {
            argument: "session".into(),
            failure: Failure {
                message: error.message,
                remedy: format!("{}, and call the tool again", words(&error.remedy)),
            },
        })?;
        let image = Image::built_in();
        let mut contexts = image.context_languages();
        for (argument, is_given) in [
            ("language", !contexts.any(|its| its.name == self.language)),
            ("args", !self.args.is_empty()),
            ("env", !self.env.is_empty()),
        ] {
            if is_given {
                let languages = image.context_languages();
                let titles: Vec<_> = languages.map(|its| its.title.as_str()).collect();
                let runs = titles.join(" and ");
                let what = format!("a session runs {runs}, without args and env");
                return Err(wrong(argument, what));
            }
        }
        Ok(())
    }
}

fn default_language() -> String {
    Image::built_in().default_language().name.clone()
}

fn built_in() -> Image {
    Image::built_in().clone()
}

impl TryFrom<GivenFile> for File {
    type Error = String;

    fn try_from(given: GivenFile) -> Result<Self, String> {
        let path = check_path(given.path)?;
        let content = match (given.content, given.encoding) {
            (None, _) => None,
            (Some(text), Encoding::Utf8) => Some(text.into_bytes()),
            (Some(text), Encoding::Base64) => Some(
                BASE64_STANDARD
                    .decode(text)
                    .map_err(|error| format!("the content of {path} is not base64: {error}"))?,
            ),
        };
        let is_fetched = given.fetch.unwrap_or(content.is_none());
        if content.is_none() && !is_fetched {
            return Err(format!("{path} has no content and is not fetched"));
        }
        Ok(Self {
            path,
            content,
            is_fetched,
        })
    }
}

/// Reads a whole number, which JSON Schema also takes with a fraction of zero.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = Number::deserialize(deserializer)?;
    let whole = number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        // The fractions of greater numbers are not exact.
        let is_whole = float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&float);
        is_whole.then_some(float as u64)
    });
    let wrong = || de::Error::custom(format!("{number} is not a whole number of at least 0"));
    whole.map(Some).ok_or_else(wrong)
}

fn check_path(path: String) -> Result<String, String> {
    let named = path
        .rsplit('/')
        .next()
        .is_some_and(|name| !name.is_empty() && name != ".");
    let plain = !path.contains([':', '\0']) && !path.split('/').any(|name| name == "..");
    if path.len() > PATH_MAX {
        return Err(format!(
            "a path of {} bytes; {PATH_MAX} are the most",
            path.len()
        ));
    }
    match named && plain {
        true => Ok(path),
        false => Err(format!(
            "{path:?} is not the path of a file here; it must name one without :, .. and NUL"
        )),
    }
}

fn within(argument: &str, given: usize, most: usize, unit: &str) -> Result<(), Wrong> {
    if given <= most {
        return Ok(());
    }
    Err(wrong(
        argument,
        format!("{given} {unit} are more than {most}"),
    ))
}

fn without_nul(argument: &str, text: &str) -> Result<(), Wrong> {
    match text.contains('\0') {
        false => Ok(()),
        true => Err(wrong(
            argument,
            "a NUL character cannot be passed on".into(),
        )),
    }
}

fn between(argument: &str, least: impl Display, most: impl Display) -> Wrong {
    wrong(argument, format!("it is from {least} to {most}"))
}

fn wrong(argument: &str, what: String) -> Wrong {
    Wrong {
        argument: argument.into(),
        failure: Failure {
            message: format!("{argument}: {what}"),
            remedy: "change that argument and call the tool again".into(),
        },
    }
}

//! Failures that somebody can do something about: their kind, the cause, and the remedy.
//!
//! Code branches on kinds and remedies. Where a failure is reported, the kind becomes an exit code,
//! and the remedy is worded for whoever asked (as an option, or as an argument of a tool).

use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};

/// A failure: its kind, what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub remedy: Remedy,
}

/// The kind of a failure: what is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The request cannot be fulfilled, or something is missing from it.
    Request,
    /// A program, or the interpreter that it names, does not exist.
    NoProgram,
    /// A program exists but cannot be run.
    BadProgram,
    /// A file of the user's, other than the program, cannot be used.
    File,
    /// Nothing can be kept in the user's cache.
    Cache,
    /// The policy does not allow the run.
    Policy,
    /// The log of runs cannot be written.
    AuditLog,
    /// The packages that the program needs cannot be had.
    Packages,
    /// The host lacks something that is needed.
    Host,
    /// The program used up a limit of its run.
    Limit,
    /// The guest came to an end without a result.
    Guest,
    /// The files that the program left cannot be delivered.
    Delivery,
    /// This program is at fault.
    Internal,
}

/// The remedy for a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remedy {
    /// Do what these words say. They suit every caller.
    Do(String),
    /// Bring the module with this name, or do without it; by this distribution, if it is known.
    BringModule {
        name: String,
        distribution: Option<String>,
    },
    /// Get packages in another way.
    GetPackages(Packages),
    /// Get an image.
    GetImage(Image),
    /// Use another session, or this one in another way.
    UseSession(Session),
    /// Use another checkpoint, or save one in another way.
    UseCheckpoint(Checkpoint),
    /// Have the program import its packages itself.
    ImportInProgram,
    /// Bring what would come from a network.
    DoWithoutNetwork,
    /// Name something to run.
    GiveProgram,
    /// Name a script that exists, or give code in another way.
    CheckProgramPath,
    /// Name the program's language, if it is one of these.
    NameLanguage(Vec<String>),
    /// Name one of these languages, if the program runs in it, or import an image that has its own.
    NameLanguageOrImport(Vec<String>),
    /// Put the program in and run it as a command.
    RunAsCommand,
    /// Put the file in, and name a program that reads it.
    PutBesideProgram,
    /// Name a script, or leave the language to the image.
    LeaveLanguageOut,
    /// Put data into a file instead of into the program.
    PutDataIntoFile,
    /// Give more memory, for example so many MiB.
    RaiseMemory(Option<u64>),
    /// Give more memory, half of which is for files.
    RaiseMemoryForFiles,
    /// Give more time, for example so many seconds.
    RaiseTimeout(u64),
    /// Check the path of a file that is put into the guest.
    CheckHostPath,
    /// Choose another path in the guest.
    ChooseGuestPath,
    /// Choose a path in the guest that nothing has yet.
    ChooseFreeGuestPath,
    /// Choose a working directory in which files can be made.
    ChooseWorkdir,
    /// See that the program makes the files that are wanted.
    MakeFiles,
    /// Choose what goes with a script.
    ChooseSiblings,
    /// Choose another name or place for a fetched file, or perhaps first another way.
    ChooseDestination(Destination),
    /// Run it again with the console of the guest's kernel shown.
    ShowConsole,
    /// Run it again in emulated mode, or with the console shown.
    EmulateOrShowConsole,
    /// Leave the mode out; the text says why that is as good.
    LeaveModeOut(String),
    /// Confine less, or use a newer kernel.
    ConfineLess,
    /// Verify the log of runs at this path, and move it away.
    VerifyLog(String),
    /// Give the hash that was kept of the entry with this number in the log of runs.
    GiveAnchor(u64),
    /// Leave the log of runs to the policy.
    LeaveLogToPolicy,
    /// Make a token.
    MakeToken,
    /// Serve with tokens, or to this host alone.
    GiveTokens,
    /// Try again, and report it together with the output of `doctor`.
    Report,
}

/// The remedy for a lack of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packages {
    /// Set up the program that chooses them.
    SetUp,
    /// Make their lock again.
    RenewLock,
    /// Let them be downloaded once.
    GoOnline,
    /// Write nothing but requirements into a file, of which there may be several.
    ListRequirements,
    /// Ask for all of them in one file, and lock that.
    LockTogether,
    /// Free space where they are kept.
    FreeSpace,
    /// Give a name and a password for their index.
    LogIn,
    /// Trust the certificate of their index.
    TrustIndex,
    /// Let this host reach their index, or name another.
    ReachIndex,
}

/// The remedy for a lack of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Image {
    /// Import one that has what is wanted.
    Import,
    /// Import it again: a part of it is gone.
    ImportAgain,
    /// Make its file again, and import that.
    MakeAgain,
    /// Import it under another name.
    Rename,
    /// Run the program in the image that is built in.
    UseBuiltIn,
}

/// The remedy for a failure with a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Session {
    /// Start the one with this name, which there is not.
    Start(String),
    /// Start another with this name, whose session is gone.
    StartAnother(String),
    /// Choose another name than this, or stop the session that has it.
    ChooseName(String),
    /// Start it with root, or leave the user out.
    StartWithRoot,
    /// Start one with more memory, for example so many MiB.
    StartWithMemory(Option<u64>),
    /// Name the language of a context, if it is one of these.
    NameLanguage(Vec<String>),
    /// Start it from an image whose first language keeps variables between cells.
    ChooseImage,
    /// Wait until nothing runs in it, or interrupt that.
    Interrupt,
    /// Do not tie it to a process.
    LeaveParentOut,
}

/// The remedy for a failure with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Checkpoint {
    /// Name one that there is, or save one.
    Save,
    /// Save another in its place.
    SaveAnother,
    /// Choose another name, or replace the one that has it.
    Replace,
    /// Save variables of the environment with it, or do without them.
    SaveVariables,
}

/// The problem with the destination of a fetched file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    /// Two files would have the same destination.
    Shared,
    /// There is a file, which may be replaced.
    Taken,
    /// There is a directory.
    Directory,
    /// There is a device, a pipe or a socket.
    Special,
    /// The destination has no name.
    Nameless,
    /// The destination cannot be written to.
    Unwritable,
    /// The destination has no space left.
    Full,
    /// The destination takes too long.
    Slow,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self {
            kind,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// Returns the failure as one in a session that has started.
    pub fn in_session(self) -> Self {
        Self {
            remedy: self.remedy.in_session(),
            ..self
        }
    }
}

impl Remedy {
    /// Returns the remedy for a failure in a session, whose memory is chosen when it starts.
    pub fn in_session(self) -> Self {
        match self {
            Self::RaiseMemory(mib) => Self::UseSession(Session::StartWithMemory(mib)),
            Self::RaiseMemoryForFiles => Self::UseSession(Session::StartWithMemory(None)),
            other => other,
        }
    }

    /// Changes each text of the remedy that may come from elsewhere.
    pub fn each_text(&mut self, mut change: impl FnMut(&mut String)) {
        match self {
            Self::Do(text)
            | Self::BringModule { name: text, .. }
            | Self::LeaveModeOut(text)
            | Self::VerifyLog(text)
            | Self::UseSession(
                Session::Start(text) | Session::StartAnother(text) | Session::ChooseName(text),
            ) => change(text),
            Self::NameLanguage(texts)
            | Self::NameLanguageOrImport(texts)
            | Self::UseSession(Session::NameLanguage(texts)) => texts.iter_mut().for_each(change),
            _ => {}
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<String> for Remedy {
    fn from(words: String) -> Self {
        Self::Do(words)
    }
}

impl From<&str> for Remedy {
    fn from(words: &str) -> Self {
        Self::Do(words.into())
    }
}

/// The variants of enums, by which a test knows whether its table has all of them.
#[cfg(test)]
pub mod variants {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    /// Returns the names of an enum's variants, in order: serde lists them where it finds another.
    pub fn variants<T: DeserializeOwned>() -> Vec<String> {
        let refusal = serde_json::from_str::<T>("\"\"").err().unwrap().to_string();
        let names = refusal.split('`').skip(3).step_by(2);
        names.map(str::to_owned).collect()
    }

    /// Returns the name of this variant.
    pub fn variant(value: &impl Serialize) -> String {
        match serde_json::to_value(value).unwrap() {
            Value::String(name) => name,
            Value::Object(members) => members.keys().next().unwrap().clone(),
            other => panic!("{other} is not a variant"),
        }
    }
}

//! The description of an image: its file system, its languages and its packages.

use crate::error::{Error, Kind};
use crate::image::name::{NAME_MAX, is_name};
use crate::image::{Language, Packages, System};
use crate::text::toml_error;
use guest::USER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

static BUILT_IN: LazyLock<Image> = LazyLock::new(|| {
    const TEXT: &str = include_str!("../../guest/images/python/image.toml");
    Image::parse(TEXT).expect("a test reads it")
});

/// An image, as `image.toml` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    pub name: String,
    /// The interpreter that packages can be brought for, if there is one.
    pub packages: Option<Packages>,
    /// The files of an imported image; others have those that are built in.
    pub files: Option<Files>,
    /// The surroundings of its programs, if its files are their whole file system.
    pub system: Option<System>,
    /// The first is the one of programs that do not say what they are in.
    #[serde(rename = "language")]
    pub languages: Vec<Language>,
}

/// The file system that an image brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Files {
    pub sha256: String,
    /// In bytes.
    pub size: u64,
    /// The SHA-256 of the built-in file system that this one lies over, if it is only a layer.
    #[serde(default)]
    pub base: Option<String>,
}

impl Image {
    /// Returns the image that is part of this program.
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    /// Reads the description in a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refused = |why: String| {
            Error::new(
                Kind::File,
                format!("the image description {} is refused: {why}", path.display()),
                "correct it there; docs/image.md says what an image description has",
            )
        };
        let text = fs::read_to_string(path).map_err(|error| {
            Error::new(
                Kind::File,
                format!(
                    "the image description {} cannot be read: {error}",
                    path.display()
                ),
                "check the path and its permissions",
            )
        })?;
        Self::parse(&text).map_err(refused)
    }

    /// Parses and checks a description. The error says what is wrong, and where.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let image: Self = toml::from_str(text).map_err(|error| toml_error(text, &error))?;
        if !image.languages.iter().any(|its| its.warm.is_some()) {
            return Err("none of its languages has a table [language.warm]".into());
        }
        image.check_name()?;
        image.files.as_ref().map_or(Ok(()), Files::check)?;
        image.system.as_ref().map_or(Ok(()), System::check)?;
        if image.system.is_some() && image.files.as_ref().is_none_or(|its| its.base.is_some()) {
            return Err("it has a table [system], and no whole file system for it".into());
        }
        image.languages.iter().try_for_each(Language::check)?;
        image.packages.as_ref().map_or(Ok(()), Packages::check)?;
        let mut names = BTreeSet::new();
        if let Some(twice) = image.languages.iter().find(|its| !names.insert(&its.name)) {
            return Err(format!("it has the language {} twice", twice.name));
        }
        Ok(image)
    }

    /// Checks that an image can have this name.
    fn check_name(&self) -> Result<(), String> {
        match is_name(&self.name) {
            true => Ok(()),
            false => Err(format!(
                "its name {:?} has other characters than A to Z, digits, ., - and _, more than {NAME_MAX} or none, \
                 a . or - at its beginning, or .toml at its end",
                self.name
            )),
        }
    }

    /// Returns whether its files come to the guest as a layer, beside the runtime image.
    pub fn is_layer(&self) -> bool {
        let lies_over = self.files.as_ref().is_some_and(|its| its.base.is_some());
        lies_over || self.system.is_some()
    }

    /// Returns the numbers of the user and the group of its programs.
    pub fn owner(&self, is_root: bool) -> (u32, u32) {
        let its = self.system.as_ref();
        match is_root {
            true => (0, 0),
            false => its.map_or((USER, USER), System::owner),
        }
    }

    /// Returns the version of its Python, if it has one.
    pub fn python(&self) -> Option<&str> {
        Some(&self.packages.as_ref()?.python)
    }

    /// Returns whether it has this version of Python, of which the last number may be left out.
    pub fn has_python(&self, version: &str) -> bool {
        (self.packages.as_ref())
            .is_some_and(|its| its.python == version || its.python_release() == version)
    }

    /// Returns the language of programs that do not say what they are in.
    pub fn default_language(&self) -> &Language {
        // There is at least one that is started ahead.
        &self.languages[0]
    }

    /// Returns the language whose interpreter is started ahead for programs in this one: its own, or one that
    /// gives such programs its place.
    pub fn started_for<'a>(&'a self, language: &'a Language) -> &'a Language {
        let warm = || self.languages.iter().find(|its| its.warm.is_some());
        match &language.warm {
            Some(_) => language,
            None => warm().unwrap_or(self.default_language()),
        }
    }

    /// Returns the language with this name.
    pub fn find(&self, name: &str) -> Option<&Language> {
        self.languages.iter().find(|language| language.name == name)
    }

    /// Returns the language that somebody means by this: its name in any case, an interpreter or an
    /// ending of scripts' names.
    pub fn meant(&self, word: &str) -> Option<&Language> {
        let word = word.to_ascii_lowercase();
        let is_it = |language: &&Language| {
            language.has_interpreter(word.as_bytes()) || language.has_extension(word.as_bytes())
        };
        let by_name = self.find(&word);
        by_name.or_else(|| self.languages.iter().find(is_it))
    }

    /// Returns the languages that a session can have contexts of, beside its own.
    pub fn context_languages(&self) -> impl Iterator<Item = &Language> {
        let languages = self.languages.iter();
        languages.filter(|language| language.context.is_some())
    }

    /// Returns the names of its languages.
    pub fn names(&self) -> Vec<String> {
        let names = self.languages.iter().map(|language| language.name.clone());
        names.collect()
    }
}

impl Files {
    /// Checks what the types of the fields do not.
    fn check(&self) -> Result<(), String> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_digest = |text: &str| text.len() == 64 && text.bytes().all(is_digit);
        let digests = [("sha256", Some(&self.sha256)), ("base", self.base.as_ref())];
        for (key, digest) in digests {
            if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
                return Err(format!(
                    "{key} = {digest:?} is not of 64 hexadecimal digits"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_that_is_built_in_has_the_languages_of_the_manual() {
        let image = Image::built_in();
        assert_eq!(image.names(), ["python", "bash"]);
        assert_eq!(image.default_language().name, "python");
        let started = image
            .languages
            .iter()
            .map(|its| &image.started_for(its).name);
        assert!(started.eq(["python", "bash"]));
    }

    #[test]
    fn a_language_is_meant_by_its_name_its_interpreter_or_its_ending() {
        for (word, name) in [
            ("python", Some("python")),
            ("Python", Some("python")),
            ("python3", Some("python")),
            ("py", Some("python")),
            ("BASH", Some("bash")),
            ("sh", Some("bash")),
            ("cobol", None),
            ("", None),
        ] {
            let meant = Image::built_in().meant(word);
            assert_eq!(meant.map(|language| &*language.name), name, "{word}");
        }
    }

    #[test]
    fn a_description_that_is_wrong_is_refused_with_its_fault() {
        let text = include_str!("../../guest/images/python/image.toml");
        for (from, to, fault) in [
            ("[language.warm]", "[language.worm]", "worm"),
            ("name = \"bash\"", "name = \"\"", "name"),
            ("{file}", "{path}", "{path}"),
            ("stdin = [\"python3\", \"-\"]", "stdin = []", "stdin"),
            ("name = \"bash\"", "name = \"python\"", "twice"),
            ("name = \"python\"\n\n#", "name = \"../x\"\n\n#", "../x"),
            (
                "[[language]]\nname = \"bash\"",
                "[files]\nsha256 = \"../x\"\nsize = 1\n[[language]]\nname = \"bash\"",
                "sha256",
            ),
            ("cells = \"nul\"", "cells = \"lines\"", "lines"),
            ("start = [\"bash\",", "start = [] # ", "start"),
            ("title = \"Bash\"", "titel = \"Bash\"", "titel"),
            (
                "[[language]]\nname = \"bash\"",
                "[system]\nworkdir = \"work\"\n[[language]]\nname = \"bash\"",
                "no absolute path",
            ),
            (
                "[[language]]\nname = \"bash\"",
                "[system]\n[[language]]\nname = \"bash\"",
                "no whole file system",
            ),
        ] {
            assert!(text.contains(from), "{from}");
            let error = Image::parse(&text.replace(from, to)).unwrap_err();
            assert!(error.contains(fault), "{error}");
        }
    }
}

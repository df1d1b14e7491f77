//! The names of files beside a script that it may load, as its text has them.

use crate::image::Language;
use std::borrow::Cow;
use std::collections::HashSet;

/// The words of a script that may name a file beside it. A text is read, not understood: there are
/// more words than such names, and a script that hides a name in its text hides it from this.
pub struct LoadedNames<'a>(HashSet<&'a str>);

/// Returns the text of a script, as far as it is text.
pub fn text(content: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(content)
}

impl<'a> LoadedNames<'a> {
    /// Finds the words: all of them where names are computed, or else those of the lines that load.
    pub fn of(language: &Language, text: &'a str) -> Self {
        let has = |text: &str, words: &[String]| words.iter().any(|word| has_word(text, word));
        let mut names = HashSet::new();
        if has(text, &language.computes) {
            names.extend(words(text));
        } else if has(text, &language.loads) {
            let mut goes_on = false;
            for line in text.lines().map(without_comment) {
                if goes_on || has(line, &language.loads) {
                    names.extend(words(line));
                    goes_on = line.trim_end().ends_with('\\');
                }
            }
        }
        Self(names)
    }

    /// Returns the one name that a module begins with.
    pub fn of_module(module: &'a str) -> Self {
        let top = module.split('.').next().unwrap_or(module);
        Self(HashSet::from([top]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a file of this name may be meant: one of the words stands before its first dot.
    pub fn has(&self, name: &str) -> bool {
        let stem = name.split('.').next().unwrap_or(name);
        self.0.contains(stem)
    }
}

/// Returns a line up to the first # that begins a word, as a comment does.
fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| !line[..*at].ends_with(|c: char| !c.is_whitespace());
    let comment = line.match_indices('#').find(begins);
    comment.map_or(line, |(at, _)| &line[..at])
}

/// Returns the words that a name of a file can be: letters, digits, - and _.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_letter(c))
        .filter(|word| !word.is_empty())
}

fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

/// Returns whether the text has this word, and not just as a part of another one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let ends_in_letter = word.ends_with(is_letter);
    text.match_indices(word).any(|(at, _)| {
        let after = text[at + word.len()..].chars().next();
        let goes_on = ends_in_letter && is_part(after);
        !goes_on && !is_part(text[..at].chars().next_back())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;

    #[track_caller]
    fn check(language: &str, text: &str, name: &str, is_loaded: bool) {
        let language = Image::built_in().find(language).unwrap();
        let names = LoadedNames::of(language, text);
        assert_eq!(names.has(name), is_loaded, "{text:?} {name}");
    }

    #[test]
    fn what_an_import_of_any_form_names_is_found() {
        for text in [
            "import helper",
            "import os, helper as h",
            "  from helper import x",
            "import helper.sub",
            "if True: import helper",
            "import os; import helper",
            "import os, \\\n  helper\n",
            "try:\n\timport helper\nexcept ImportError: pass",
            "import importlib\nname = 'helper'\nimportlib.import_module(name)",
            "for n in ['helper']: __import__(n)",
            "import runpy\nruns = 'helper'\nrunpy.run_module(runs)",
            "#!/usr/bin/python3\r\nfrom helper import (\r\n  a)\r\n",
        ] {
            check("python", text, "helper.py", true);
            check("python", text, "helper", true);
            check(
                "python",
                text,
                "helper.cpython-311-x86_64-linux-gnu.so",
                true,
            );
        }
    }

    #[test]
    fn a_name_that_is_only_mentioned_is_not_loaded() {
        for text in [
            "print('hello')",
            "helper = 1\nimport os",
            "important = helper",
            "import os  # not helper",
            "# import helper",
            "import helpers",
            "import my_helper",
            "open('helper.py')",
        ] {
            check("python", text, "helper.py", false);
        }
        assert!(LoadedNames::of(Image::built_in().default_language(), "print(1)").is_empty());
    }

    #[test]
    fn a_shell_loads_with_source_and_with_a_dot() {
        for text in [
            "source lib.sh",
            ". ./lib.sh",
            "cd x; . lib.sh",
            "  source \"$(dirname \"$0\")/lib.sh\"",
            ". \"$HERE\"/lib.sh",
        ] {
            check("bash", text, "lib.sh", true);
        }
        for text in [
            "cat lib.sh",
            "./lib.sh",
            "echo Hello. lib",
            "resource lib.sh",
        ] {
            check("bash", text, "lib.sh", false);
        }
    }

    #[test]
    fn what_is_no_text_has_no_names_that_it_should_not() {
        let language = Image::built_in().default_language();
        let content = b"\xff\xfeimport \xff\nimport h\xe9lper";
        let text = text(content);
        let names = LoadedNames::of(language, &text);
        assert!(!names.has("helper.py"));
    }
}

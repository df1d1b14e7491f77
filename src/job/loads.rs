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
        let computes = language.computes.iter().any(|word| has_word(text, word));
        Self(match computes {
            true => words(text).collect(),
            false => {
                let lines = statements(language, text).into_iter().flatten();
                lines.flat_map(words).collect()
            }
        })
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

/// Returns the words of each statement that loads one of these modules, with dots in them and `:`
/// between them. They are bounded: what is told of them, others that load the same may hear of.
pub fn loading_statements(language: &Language, text: &str, modules: &[String]) -> Vec<String> {
    /// The most bytes of all of them.
    const SIZE_MAX: usize = 4096;
    let is_module = |word: &&str| {
        let top = word.split('.').next().unwrap_or(word);
        modules.iter().any(|module| module == top)
    };
    let mut left = SIZE_MAX;
    let mut found = Vec::new();
    for lines in statements(language, text) {
        let [first, rest @ ..] = &lines[..] else {
            continue;
        };
        let mut names: Vec<_> = dotted_words(plain(loading_part(language, first))).collect();
        names.extend(rest.iter().flat_map(|line| dotted_words(plain(line))));
        let loads = names
            .iter()
            .any(|name| language.loads.iter().any(|word| word == name));
        let statement = names.join(":");
        if loads
            && names.iter().any(is_module)
            && let Some(rest) = left.checked_sub(statement.len() + 1)
        {
            left = rest;
            found.push(statement);
        }
    }
    found
}

/// Returns the part of a line, between marks that end statements, that loads.
fn loading_part<'a>(language: &Language, line: &'a str) -> &'a str {
    let loads = |part: &&str| language.loads.iter().any(|word| has_word(part, word));
    line.split([';', ':']).find(loads).unwrap_or_default()
}

/// Returns the start of a line that has names alone: no text in quotes, and no values.
fn plain(line: &str) -> &str {
    let is_plain = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.,()*\\".contains(c);
    let end = line.find(|c| !is_plain(c)).unwrap_or(line.len());
    &line[..end]
}

/// Returns the lines, without comments, of each statement that loads.
fn statements<'a>(language: &Language, text: &'a str) -> Vec<Vec<&'a str>> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    let mut goes_on = false;
    for line in text.lines().map(without_comment) {
        let loads = language.loads.iter().any(|word| has_word(line, word));
        match found.last_mut() {
            Some(last) if goes_on => last.push(line),
            _ if loads => found.push(vec![line]),
            _ => continue,
        }
        goes_on = line.trim_end().ends_with(['\\', '(', ',']);
    }
    found
}

/// Returns the names in a line, with dots in them, that are of ASCII alone.
fn dotted_words(line: &str) -> impl Iterator<Item = &str> {
    let is_letter = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let begins = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_name = move |word: &&str| word.is_ascii() && word.split('.').all(begins);
    line.split(move |c| !is_letter(c)).filter(is_name)
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
    fn statements_that_load_a_module_are_told_and_nothing_else_is() {
        let python = Image::built_in().default_language();
        let modules: Vec<_> = ["numpy", "a"].map(String::from).into();
        let told = |text: &str| loading_statements(python, text, &modules);
        for (text, expected) in [
            ("print(1)", &[] as &[&str]),
            ("import numpy as np, pandas", &["import:numpy:as:np:pandas"]),
            (
                "import numpy.linalg\nimport numpyx",
                &["import:numpy.linalg"],
            ),
            (
                "try:\n  from a.b import (c,\n    d)\nexcept: pass",
                &["from:a.b:import:c:d"],
            ),
            ("if x: import a", &["import:a"]),
            ("key = 'secret'; import a; key = 'secret'", &["import:a"]),
            ("print('import a secret')\nx = 'secret', 'import a'", &[]),
            (
                "from a import (b, 'secret',\n'secret', c)",
                &["from:a:import:b"],
            ),
            (
                "import a  # secret\nkey = 'secret'\nimport mine",
                &["import:a"],
            ),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
        let many = "import a.bcdefgh\n".repeat(10_000);
        let all: usize = told(&many).iter().map(String::len).sum();
        assert!((3000..4096).contains(&all), "{all}");
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

//! The options and commands that texts name below the command line, where nobody knows which door the
//! reader came through.

use crate::files::Finding;
use crate::floors::read_table;
use crate::rust::Crate;
use std::collections::BTreeSet;

/// The module whose floor knows options and commands.
const COMMAND_LINE: &str = "cli";

const VERBS: [&str; 9] = [
    "run", "template", "cache", "packages", "image", "session", "mcp", "audit", "doctor",
];

/// A file, the option or command that it may name, and why.
type Exception = (&'static str, &'static str, &'static str);

/// Options and commands that may be named in a file, and why. Without the name, all may be.
pub const EXCEPTIONS: [Exception; 9] = [
    ("src/packages/uv.rs", "", "they are uv's"),
    ("src/packages/setup.rs", "", "they are pip's"),
    (
        "src/packages/lock.rs",
        "--hash",
        "locks have it, for pip and uv",
    ),
    (
        "src/packages/request.rs",
        "--hash",
        "locks have it, for pip and uv",
    ),
    (
        "src/packages/lock.rs",
        "sandbox packages",
        "a lock says how it was made",
    ),
    ("src/job/foreign.rs", "--to", "it is jupyter's"),
    ("src/vm/host.rs", "--device", "container runtimes have it"),
    (
        "src/library/remedies.rs",
        "sandbox run",
        "a program cannot do that without the command",
    ),
    (
        "src/library/remedies.rs",
        "sandbox doctor",
        "a program cannot do that without the command",
    ),
];

pub fn findings(modules: &Crate, exceptions: &[Exception]) -> Vec<Finding> {
    let (floors, _) = read_table(modules);
    let floor = |name: &str| floors.get(name).map(|(floor, _)| *floor);
    let is_below = |module: &[String]| {
        let name = module.first().map(String::as_str);
        name.and_then(floor) < floor(COMMAND_LINE)
    };
    let mut findings = Vec::new();
    let mut unused: BTreeSet<_> = exceptions.iter().collect();
    for text in modules.texts().filter(|text| is_below(text.module)) {
        for named in named_in(text.text) {
            let is_meant = |(file, name, _): &&Exception| {
                *file == text.file && (name.is_empty() || *name == named)
            };
            match exceptions.iter().find(is_meant) {
                Some(exception) => drop(unused.remove(exception)),
                None => {
                    let what = format!(
                        "it names {named} below the command line: make it a remedy, which cli/remedies and \
                         mcp/tool/remedies put into words"
                    );
                    findings.push(Finding::new(text.file, text.line, what));
                }
            }
        }
    }
    findings.extend(unused.into_iter().map(|(file, name, _)| {
        let what = format!("nothing there names {name}: take it out of the exceptions");
        Finding::new(file, 1, what)
    }));
    findings
}

/// Returns the options in a text, such as `--lang`, and the commands, such as `sandbox run`.
fn named_in(text: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (at, _) in text.match_indices("--") {
        let is_within = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
        let rest = &text[at + 2..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-');
        let option = &rest[..end.unwrap_or(rest.len())];
        if !is_within && option.starts_with(|c: char| c.is_ascii_lowercase()) {
            named.push(format!("--{option}"));
        }
    }
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    for pair in words.windows(2) {
        let verb = pair[1].trim_end_matches(|c: char| !c.is_alphanumeric());
        let program = pair[0].trim_start_matches(|c: char| !c.is_alphanumeric());
        if program == "sandbox" && VERBS.contains(&verb) {
            named.push(format!("sandbox {verb}"));
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(low: &str) -> Vec<String> {
        let table = "//! A crate.\n// | 0 low | `low` |\n// | 1 high | `cli` |\nmod low; mod cli;";
        let read = |path: &str| match path {
            "src/lib.rs" => Some(table.into()),
            "src/low.rs" => Some(low.into()),
            "src/cli.rs" => Some("fn f() { say(\"leave out --lang\") }".into()),
            _ => None,
        };
        let findings = findings(&Crate::read("src/lib.rs", &read), &[]);
        findings.iter().map(|one| one.to_string()).collect()
    }

    #[test]
    fn an_option_or_a_command_in_a_text_is_found_in_macros_too() {
        for (text, named) in [
            ("f(\"leave out --lang\");", "--lang"),
            ("f(\"see `sandbox audit verify`\");", "sandbox audit"),
            ("f(format!(\"{x}: --with-env, or\"));", "--with-env"),
        ] {
            let lines = found(&format!("fn g() {{\n{text}\n}}"));
            assert_eq!(lines.len(), 1, "{text}: {lines:?}");
            let expected = format!("src/low.rs:2: it names {named} below");
            assert!(lines[0].starts_with(&expected), "{lines:?}");
        }
    }

    #[test]
    fn an_option_in_what_a_schema_says_is_found() {
        for text in [
            "#[derive(Debug, JsonSchema)]\n\n/// By --lang.\nstruct A;",
            "#[derive(JsonSchema)]\nstruct A {\n/// By --lang.\na: u8 }",
            "#[derive(schemars::JsonSchema)]\nenum A {\n/// By --lang.\nB }",
        ] {
            let lines = found(text);
            assert_eq!(lines.len(), 1, "{text}: {lines:?}");
            let expected = "src/low.rs:3: it names --lang below";
            assert!(lines[0].starts_with(expected), "{lines:?}");
        }
    }

    #[test]
    fn comments_tests_and_other_dashes_are_no_options() {
        for text in [
            "/// See --lang.\nfn f() {}",
            "#[derive(Debug)] struct A { /** By --lang. */ a: u8 }",
            "#[derive(JsonSchema)] struct A;\n/// By --lang.\nstruct B;",
            "#[cfg(test)] mod tests { const A: &str = \"--lang\"; }",
            "const A: &str = \"a--b, --- and -- c, --{x}\";",
            "const A: &str = \"the sandbox failed: run it\";",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
    }
}

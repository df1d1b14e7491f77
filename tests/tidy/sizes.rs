//! The lengths of functions, of their names, and of files.

use crate::files::{File, Finding};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, ImplItemFn, ItemFn, Signature, TraitItemFn};

const FUNCTION_MAX: usize = 70;
const FILE_MAX: usize = 450;
/// Characters of a name, which for a test is a sentence.
const NAME_MAX: usize = 70;

/// A function's name, and its first and its last line.
type Function = (String, usize, usize);

pub fn long_functions(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, first, last) in functions(file) {
        let length = last + 1 - first;
        if length > FUNCTION_MAX {
            let what = format!(
                "the function {name} has {length} lines: \
                 take parts out that have a name, to leave {FUNCTION_MAX} at most"
            );
            findings.push(Finding::new(&file.path, first, what));
        }
        if name.len() > NAME_MAX {
            let what = format!(
                "the name {name} has {} characters: say it in {NAME_MAX} at most",
                name.len()
            );
            findings.push(Finding::new(&file.path, first, what));
        }
    }
    findings
}

fn functions(file: &File) -> Vec<Function> {
    if file.ends_with("rs") {
        rust(&file.text)
    } else if file.is_python() {
        python(&file.text)
    } else {
        braces(&file.text)
    }
}

pub fn long_file(file: &File) -> Option<Finding> {
    let length = file.text.lines().count();
    (length > FILE_MAX).then(|| {
        let what = format!(
            "the file has {length} lines: \
             split it by subject into files of {FILE_MAX} at most"
        );
        Finding::new(&file.path, FILE_MAX + 1, what)
    })
}

#[derive(Default)]
struct Functions(Vec<Function>);

impl Functions {
    fn add(&mut self, signature: &Signature, block: &Block) {
        let (first, last) = (signature.span().start(), block.span().end());
        self.0
            .push((signature.ident.to_string(), first.line, last.line));
    }
}

impl<'a> Visit<'a> for Functions {
    fn visit_item_fn(&mut self, function: &'a ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'a ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'a TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn rust(text: &str) -> Vec<Function> {
    let mut functions = Functions::default();
    functions.visit_file(&syn::parse_file(text).expect("it compiles"));
    functions.0
}

/// Finds functions of C and bash: from a line with a name and "(" to the next "}", both unindented.
fn braces(text: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    let mut begun = None;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('}')
            && let Some((name, first)) = begun.take()
        {
            functions.push((name, first, number + 1));
        } else if begun.is_none() {
            begun = begun_by(line).map(|name| (name, number + 1));
        }
    }
    functions
}

/// Returns the name of the function that begins in a line of C or bash and goes on after it.
fn begun_by(line: &str) -> Option<String> {
    let (head, _) = line.split_once('(')?;
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_head = !head.starts_with(' ') && head.chars().all(|c| is_of_name(c) || " *".contains(c));
    let name = head.rsplit([' ', '*']).next()?;
    (is_head && !name.is_empty() && line.ends_with(['{', ')', ','])).then(|| name.into())
}

/// Finds functions of Python: from `def` to the last line before one that is indented no further.
fn python(text: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    let lines: Vec<_> = text.lines().collect();
    let indentation = |line: &str| line.len() - line.trim_start().len();
    for (number, line) in lines.iter().enumerate() {
        let start = line.trim_start().trim_start_matches("async ");
        let Some((name, _)) = start
            .strip_prefix("def ")
            .and_then(|rest| rest.split_once('('))
        else {
            continue;
        };
        let is_outside = |other: &&str| {
            !other.trim().is_empty()
                && indentation(other) <= indentation(line)
                && !other.trim_start().starts_with(')')
        };
        let after = lines[number + 1..].iter().position(is_outside);
        let mut last = after.map_or(lines.len(), |after| number + 1 + after);
        while lines[last - 1].trim().is_empty() {
            last -= 1;
        }
        functions.push((name.to_string(), number + 1, last));
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is found in a file with a function of so many lines, after another line.
    fn found(path: &str, head: &str, line: &str, tail: &str, lines: usize) -> Vec<String> {
        let around = head.lines().count() + tail.lines().count();
        let text = format!("\n{head}{}{tail}", line.repeat(lines - around));
        let path = path.into();
        let findings = long_functions(&File { path, text });
        findings.iter().map(|one| one.to_string()).collect()
    }

    fn is_found_from_71_lines(path: &str, head: &str, line: &str, tail: &str) {
        assert_eq!(
            found(path, head, line, tail, 71),
            [format!(
                "{path}:2: the function long has 71 lines: \
                 take parts out that have a name, to leave 70 at most"
            )]
        );
        assert!(found(path, head, line, tail, 70).is_empty());
    }

    #[test]
    fn a_long_name_is_found() {
        let name = "a".repeat(71);
        let file = |name: &str| File {
            path: "a.rs".into(),
            text: format!("fn {name}() {{}}\n"),
        };
        assert_eq!(long_functions(&file(&name)).len(), 1);
        assert!(long_functions(&file(&name[1..])).is_empty());
    }

    #[test]
    fn a_long_function_is_found_in_rust() {
        is_found_from_71_lines("a.rs", "pub fn long() {\n", "    f();\n", "}\n");
        is_found_from_71_lines("a.rs", "impl A { fn long(&self) {\n", "    f();\n", "}}\n");
        is_found_from_71_lines("a.rs", "trait A { fn long(&self) {\n", "    f();\n", "}}\n");
        is_found_from_71_lines(
            "a.rs",
            "mod m { #[test] fn long() {\n",
            "    f();\n",
            "}}\n",
        );
    }

    #[test]
    fn a_long_function_is_found_in_other_languages() {
        is_found_from_71_lines("a.c", "static char *long(int a)\n{\n", "    f();\n", "}\n");
        is_found_from_71_lines("a.sh", "long() {\n", "    f\n", "}\n");
        let after_a_short_one = "short() { f; }\nwords=(\n    a\n)\nlong() {\n";
        assert_eq!(
            found("a.sh", after_a_short_one, "    f\n", "}\n", 75).len(),
            1
        );
        assert_eq!(
            found("a.sh", after_a_short_one, "    f\n", "}\n", 74).len(),
            0
        );
        is_found_from_71_lines("a.py", "def long(a):\n", "    f()\n", "");
        is_found_from_71_lines(
            "a.py",
            "    async def long(\n        a,\n    ):\n",
            "        f()\n",
            "",
        );
    }

    #[test]
    fn a_long_file_is_found() {
        let file = |lines: usize| File {
            path: "a.rs".into(),
            text: "\n".repeat(lines),
        };
        let finding = long_file(&file(451)).unwrap().to_string();
        let expected =
            "a.rs:451: the file has 451 lines: split it by subject into files of 450 at most";
        assert_eq!(finding, expected);
        assert!(long_file(&file(450)).is_none());
    }
}

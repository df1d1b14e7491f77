//! Which files of C use what others of them define, by the names that their header declares.

use crate::circles::Uses;
use crate::files::File;
use std::collections::BTreeMap;

/// Returns the uses among the files beside a header.
pub fn uses(files: &[File], header: &str) -> Uses {
    let header = files.iter().find(|file| file.path == header);
    let declared = names(&header.expect("no such header").text);
    let sources: Vec<_> = files.iter().filter(|file| file.ends_with("c")).collect();
    let mut definitions = BTreeMap::new();
    for file in &sources {
        let own = file.text.lines().filter_map(defined);
        definitions.extend(
            own.filter(|name| declared.contains(name))
                .map(|name| (name, file)),
        );
    }
    let mut uses = Uses::new();
    for file in &sources {
        for (number, line) in code(&file.text).lines().enumerate() {
            for owner in names(line).iter().filter_map(|name| definitions.get(name)) {
                if owner.path != file.path {
                    let pair = (file.path.clone(), owner.path.clone());
                    uses.entry(pair).or_insert(number + 1);
                }
            }
        }
    }
    uses
}

/// Returns the name that a line defines for all files: of a function, or of a variable.
fn defined(line: &str) -> Option<&str> {
    let is_definition = line.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !["static ", "struct {", "enum {", "extern ", "typedef "]
            .iter()
            .any(|other| line.starts_with(other));
    let is_declaration = line.contains('(') && line.ends_with(';');
    if !is_definition || is_declaration {
        return None;
    }
    let before = line.split(['(', '=', ';']).next()?;
    names(before).last().copied()
}

fn names(text: &str) -> Vec<&str> {
    let pieces = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// Blanks out comments and strings; lines stay where they are.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '/']) {
        let (before, after) = rest.split_at(at);
        code += before;
        let length = if after.starts_with("/*") {
            after.find("*/").map_or(after.len(), |end| end + 2)
        } else if after.starts_with('"') {
            string_length(after)
        } else {
            code.push('/');
            rest = &after[1..];
            continue;
        };
        code.extend(after[..length].chars().filter(|c| *c == '\n'));
        rest = &after[length..];
    }
    code + rest
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circles::findings;

    fn files(a: &str, b: &str) -> Vec<File> {
        let header = "extern const char *work;\nvoid fail(const char *what);\nvoid hook(void);\n";
        let files = [("w.h", header), ("a.c", a), ("b.c", b)];
        let file = |(path, text): (&str, &str)| (path.to_string(), text.to_string());
        let files = files.map(file).into_iter();
        files.map(|(path, text)| File { path, text }).collect()
    }

    #[test]
    fn calls_in_both_directions_are_a_circle() {
        let a = "void fail(const char *what)\n{\n}\n\nstatic void start(void)\n{\n    hook();\n}\n";
        let b = "void hook(void)\n{\n    fail(\"it\");\n}\n";
        let found = findings(&uses(&files(a, b), "w.h"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0]
                .to_string()
                .starts_with("a.c:7: it uses b.c, in a circle; b.c:3 uses a.c")
        );
    }

    #[test]
    fn a_variable_of_another_file_is_a_use_as_well() {
        let a = "const char *work = \"/work\";\nstatic void start(void)\n{\n    hook();\n}\n";
        let b = "void hook(void)\n{\n    puts(work);\n}\n";
        assert_eq!(findings(&uses(&files(a, b), "w.h")).len(), 1);
    }

    #[test]
    fn neither_a_comment_nor_a_string_is_a_use() {
        let a = "void fail(const char *what)\n{\n    /* hook()\n */ puts(\"\\\"hook()\");\n}\n";
        let b = "void hook(void)\n{\n    fail(\"it\");\n}\n";
        let uses = uses(&files(a, b), "w.h");
        assert_eq!(uses.len(), 1, "{uses:?}");
    }
}

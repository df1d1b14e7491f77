//! The first sentence of each file, by which a reader knows whether to read on.

use crate::files::{File, Finding};

pub fn finding(file: &File) -> Option<Finding> {
    let head = if file.ends_with("rs") {
        rust(&file.text)
    } else if file.is_python() {
        python(&file.text)
    } else if file.is_c() {
        c(&file.text)
    } else {
        hashes(&file.text)
    };
    let is_sentence = head.contains(". ") || head.ends_with(['.', ':', '?', '!']);
    (!is_sentence).then(|| {
        Finding::new(
            &file.path,
            1,
            "no sentence at its head: say what the file is for, in one that ends with a full stop",
        )
    })
}

/// Joins the lines of the first paragraph.
fn paragraph<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines = lines.map(str::trim).skip_while(|line| line.is_empty());
    let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
}

fn rust(text: &str) -> String {
    let lines = text.lines().skip_while(|line| line.starts_with("#!["));
    paragraph(lines.map_while(|line| line.strip_prefix("//!")))
}

fn python(text: &str) -> String {
    let text = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => rest,
        _ => text,
    };
    // What a script says it needs (PEP 723) may come first.
    let header = text.strip_prefix("# /// script\n");
    let text = match header.and_then(|header| header.split_once("\n# ///\n")) {
        Some((_, rest)) => rest,
        None => text,
    };
    match text.strip_prefix("\"\"\"") {
        Some(docstring) => paragraph(docstring.split("\"\"\"").next().unwrap_or("").lines()),
        None => hashes(text),
    }
}

fn c(text: &str) -> String {
    let comment = text.strip_prefix("/*").unwrap_or("").split("*/").next();
    paragraph(
        comment
            .unwrap_or("")
            .lines()
            .map(|line| line.trim().trim_start_matches('*')),
    )
}

fn hashes(text: &str) -> String {
    let lines = text.lines().skip_while(|line| line.starts_with("#!"));
    paragraph(lines.map_while(|line| line.strip_prefix('#')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_right(path: &str, text: &str) -> bool {
        let (path, text) = (path.into(), text.into());
        finding(&File { path, text }).is_none()
    }

    #[test]
    fn a_file_without_a_sentence_at_its_head_is_found() {
        assert!(!is_right("a.rs", "use std::fs;\n//! Late."));
        assert!(!is_right("a.rs", "//!\nuse std::fs;"));
        assert!(!is_right("a.rs", "//! words\n\n//! More words."));
        assert!(!is_right("a.rs", "// No documentation."));
        assert!(!is_right("a.c", "#include \"a.h\"\n/* Late. */"));
        assert!(!is_right("a.py", "#!/usr/bin/env python3\nimport os\n"));
        assert!(!is_right("a.py", "\"\"\"\"\"\"\nimport os\n"));
        assert!(!is_right("a", "#!/usr/bin/env bash\n\n. lib.sh\n# Late."));
    }

    #[test]
    fn a_sentence_at_the_head_is_enough_in_each_language() {
        assert!(is_right("a.rs", "//! What it is.\n\nuse std::fs;"));
        assert!(is_right(
            "a.rs",
            "#![no_main]\n//! What it is, over\n//! two lines."
        ));
        assert!(is_right("a.c", "/*\n * What it is.\n */\n#include \"a.h\""));
        assert!(is_right(
            "a.py",
            "#!/usr/bin/python3\n\"\"\"What it is.\n\nMore.\"\"\""
        ));
        assert!(is_right("a.py", "# What it is. And more\nimport os"));
        assert!(is_right("a", "#!/usr/bin/env bash\n# What it is.\n"));
    }
}

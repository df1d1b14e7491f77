//! The header of a Python script that says what it needs: a block of comments with TOML in it (PEP 723).

use crate::error::{Error, Kind};
use crate::text::toml_error;
use serde::Deserialize;

/// The needs of a script, as its header lists them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Header {
    /// Requirements as PEP 508 has them.
    pub dependencies: Vec<String>,
    /// The versions of Python that it runs with, such as `>=3.12`.
    pub requires_python: Option<String>,
    /// The time after which nothing that was published is taken: `exclude-newer` of `[tool.uv]`.
    pub exclude_newer: Option<String>,
}

/// The words before the type of a block.
const BEGIN: &str = "# /// ";
const END: &str = "# ///";
/// The type of the block that is a header.
const SCRIPT: &str = "script";

/// The TOML of a header. Other keys and other tools' tables are none of our business.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    #[serde(default)]
    dependencies: Vec<String>,
    requires_python: Option<String>,
    #[serde(default)]
    tool: Tools,
}

#[derive(Debug, Default, Deserialize)]
struct Tools {
    #[serde(default)]
    uv: UvTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UvTable {
    exclude_newer: Option<String>,
}

impl Header {
    /// Returns the header of a script, if it has one.
    pub fn of(script: &[u8]) -> Result<Option<Self>, Error> {
        if !has_mark(script) {
            return Ok(None);
        }
        // A header is found in a script in any encoding that has ASCII in it, as Python's have.
        let text = String::from_utf8_lossy(script);
        let Some(block) = find(&text).map_err(refused)? else {
            return Ok(None);
        };
        let table: Table = toml::from_str(&block.text).map_err(|error| {
            let why = toml_error(&block.text, &error);
            refused(format!("below line {}: {why}", block.line))
        })?;
        Ok(Some(Self {
            dependencies: table.dependencies,
            requires_python: table.requires_python,
            exclude_newer: table.tool.uv.exclude_newer,
        }))
    }
}

fn refused(why: String) -> Error {
    Error::new(
        Kind::BadProgram,
        format!("the script's header is refused: {why}"),
        "correct the header: it begins with # /// script, ends with # ///, and has TOML in comments between (PEP 723)",
    )
}

/// Checks quickly whether there can be a header.
fn has_mark(script: &[u8]) -> bool {
    let mark = BEGIN.as_bytes();
    script.windows(mark.len()).any(|window| window == mark)
}

/// A block's content without its comment signs, and the number of the line before it.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    text: String,
    line: usize,
}

/// Finds the block of a header. The specification has tools ignore one without an end; the script's
/// needs would then be forgotten without a word, so it is an error here, as it is to uv.
fn find(text: &str) -> Result<Option<Block>, String> {
    let lines: Vec<_> = text.lines().collect();
    let mut found: Option<Block> = None;
    let mut next = 0;
    while let Some(line) = lines.get(next) {
        next += 1;
        let Some(kind) = begun(line) else { continue };
        let Some(length) = length(&lines[next..]) else {
            if kind == SCRIPT {
                return Err(format!("that of line {next} has no end, or nothing in it"));
            }
            continue;
        };
        if kind == SCRIPT {
            if let Some(first) = found {
                let first = first.line;
                return Err(format!(
                    "there is one in line {first} and one in line {next}"
                ));
            }
            let content = lines[next..next + length].iter();
            let content: Vec<_> = content.map(|line| uncommented(line)).collect();
            found = Some(Block {
                text: content.join("\n"),
                line: next,
            });
        }
        next += length + 1;
    }
    Ok(found)
}

/// Returns the type of the block that this line begins.
fn begun(line: &str) -> Option<&str> {
    let kind = line.strip_prefix(BEGIN)?;
    let is_of_type = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!kind.is_empty() && kind.chars().all(is_of_type)).then_some(kind)
}

/// Returns the number of lines of the block that begins here. Of several ends the last one counts
/// that has nothing but comments before it.
fn length(lines: &[&str]) -> Option<usize> {
    let comments = lines
        .iter()
        .take_while(|line| **line == "#" || line.starts_with("# "));
    let length = comments
        .enumerate()
        .filter(|(_, line)| **line == END)
        .last()?
        .0;
    (length > 0).then_some(length)
}

fn uncommented(line: &str) -> &str {
    line.strip_prefix("# ")
        .or(line.strip_prefix('#'))
        .unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str) -> Result<Option<Header>, String> {
        Header::of(script.as_bytes()).map_err(|error| error.message)
    }

    fn needs(dependencies: &[&str]) -> Header {
        Header {
            dependencies: dependencies.iter().map(|word| word.to_string()).collect(),
            ..Header::default()
        }
    }

    const EXAMPLE: &str = "#!/usr/bin/env python3\n# A script.\n# /// script\n\
        # requires-python = \">=3.11\"\n# dependencies = [\n#   \"requests<3\",\n#\n#   'rich',\n# ]\n\
        # [tool.uv]\n# exclude-newer = \"2026-01-01T00:00:00Z\"\n# sources = {}\n# [tool.other]\n# a = 1\n\
        # ///\nimport requests\n";

    #[test]
    fn a_header_says_what_a_script_needs() {
        let header = Header {
            requires_python: Some(">=3.11".into()),
            exclude_newer: Some("2026-01-01T00:00:00Z".into()),
            ..needs(&["requests<3", "rich"])
        };
        assert_eq!(of(EXAMPLE), Ok(Some(header.clone())));
        assert_eq!(of(&EXAMPLE.replace('\n', "\r\n")), Ok(Some(header)));
        assert_eq!(
            of("# /// script\n# dependencies = []\n# ///"),
            Ok(Some(needs(&[])))
        );
        assert_eq!(of("# /// script\n#\n# ///\n"), Ok(Some(needs(&[]))));
    }

    #[test]
    fn what_is_no_header_is_none() {
        for script in [
            "",
            "print('# ///')",
            "# /// other\n# dependencies = 1\n# ///\n",
            " # /// script\n# ///\n",
            "# /// script \n#\n# ///\n",
            "#/// script\n#\n# ///\n",
            "# /// two words\n#\n# ///\n",
            "# /// other\nx = 1\n",
        ] {
            assert_eq!(of(script), Ok(None), "{script}");
        }
    }

    #[test]
    fn a_header_ends_at_the_last_end_in_its_comments() {
        let script = "# /// script\n# dependencies = [\"a\"]\n# ///\n#\n# ///\n";
        // What is between is part of it, and no TOML.
        assert!(of(script).unwrap_err().contains("below line 1: line 2"));
        let apart = "# /// script\n# dependencies = [\"a\"]\n# ///\n\n#\n# ///\n";
        assert_eq!(of(apart), Ok(Some(needs(&["a"]))));
    }

    #[test]
    fn a_block_of_another_type_hides_what_is_in_it() {
        let script = "# /// other\n# /// script\n# dependencies = [\"a\"]\n# ///\n";
        assert_eq!(of(script), Ok(None));
    }

    #[test]
    fn two_headers_one_without_an_end_and_bad_toml_are_refused() {
        let one = "# /// script\n# dependencies = []\n# ///\n";
        for (script, why) in [
            (format!("{one}\n{one}"), "in line 1 and one in line 5"),
            (
                "# /// script\n# dependencies = []\n".into(),
                "line 1 has no end",
            ),
            ("# /// script\n# ///\n".into(), "line 1 has no end"),
            ("x\n# /// script\n# a\nx\n# ///".into(), "line 2 has no end"),
            (one.replace("[]", "["), "below line 1: line 1"),
            (one.replace("[]", "\"numpy\""), "expected a sequence"),
            (one.replace("[]", "[1]"), "expected a string"),
        ] {
            let error = of(&script).unwrap_err();
            assert!(error.contains(why), "{script}: {error}");
        }
    }

    #[test]
    fn other_encodings_do_not_hide_a_header() {
        let mut script = b"# -*- coding: latin-1 -*-\n# \xe9\n".to_vec();
        script.extend(b"# /// script\n# dependencies = [\"a\"]\n# ///\n");
        assert_eq!(Header::of(&script), Ok(Some(needs(&["a"]))));
    }
}

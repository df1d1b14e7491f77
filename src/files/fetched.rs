//! What became of the files that were wanted of the guest, as the process that writes them tells
//! the one that waits for it.

use serde::{Deserialize, Serialize};

/// Names that a person reads.
const READ: usize = 5;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Whole files: so many.
    pub files: usize,
    /// What was asked for, or is in a directory that was, and could not be read.
    pub missing: Names,
    /// What in a directory is neither file nor directory.
    pub left_out: Names,
    /// Why there is no more.
    pub failure: Option<Failure>,
}

/// As many names as a person reads, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    pub first: Vec<String>,
    pub count: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub what: String,
    pub remedy: String,
}

impl Names {
    pub fn add(&mut self, name: String) {
        if self.first.len() < READ {
            self.first.push(name);
        }
        self.count += 1;
    }
}

impl Fetched {
    pub fn failed(what: &str, remedy: &str) -> Self {
        Self {
            failure: Some(Failure {
                what: what.into(),
                remedy: remedy.into(),
            }),
            ..Self::default()
        }
    }

    /// To be shown, though a guest may have taken over who tells it.
    pub fn distrusted(mut self) -> Self {
        for names in [&mut self.missing, &mut self.left_out] {
            names.first.truncate(READ);
            names
                .first
                .iter_mut()
                .for_each(|name| *name = visible(name));
        }
        if let Some(failure) = &mut self.failure {
            failure.what = visible(&failure.what);
            failure.remedy = visible(&failure.remedy);
        }
        self
    }
}

/// Without what a terminal would obey or turn around, and no longer than anybody reads. What is
/// visible stays as it is.
pub fn visible(text: &str) -> String {
    const READ: usize = 8192;
    let shown = |c: char| match c {
        '\'' | '"' | '\\' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    text.chars().take(READ).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_once() {
        let shown = visible("it's \\ ü\u{1b}[2J\u{202e}\u{2028}\n");
        assert_eq!(shown, r"it's \ ü\u{1b}[2J\u{202e}\u{2028}\n");
        assert_eq!(visible(&shown), shown);
    }

    #[test]
    fn what_a_writer_tells_is_bounded_and_escaped() {
        let names = Names {
            first: vec!["\u{1b}".repeat(100_000); 10],
            count: 1,
        };
        let told = Fetched {
            missing: names,
            ..Fetched::failed("a\nb", "\u{9b}")
        };
        let told = told.distrusted();
        assert_eq!(told.missing.first.len(), READ);
        assert!(told.missing.first[0].len() < 100_000);
        assert!(!told.missing.first[0].contains('\u{1b}'));
        let expected = Fetched::failed(r"a\nb", r"\u{9b}").failure;
        assert_eq!(told.failure, expected);
    }
}

//! Files that use each other in a circle: none can be read, tested or moved without the others.

use crate::files::Finding;
use std::collections::{BTreeMap, BTreeSet};

/// The first line in which a file uses another, by the two of them.
pub type Uses = BTreeMap<(String, String), usize>;

pub fn findings(uses: &Uses) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut told = BTreeSet::new();
    for (from, _) in uses.keys() {
        let others = reached(uses, from);
        if others.contains(from) && !told.contains(from) {
            let is_member =
                |file: &String| others.contains(file) && reached(uses, file).contains(from);
            let members: BTreeSet<_> = others.iter().filter(|file| is_member(file)).collect();
            findings.push(finding(uses, &members));
            told.extend(members.into_iter().cloned());
        }
    }
    findings
}

/// Returns the files that a file uses, directly or through others.
fn reached(uses: &Uses, start: &String) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![start];
    while let Some(file) = waiting.pop() {
        let used = uses.keys().filter(|(from, _)| from == file);
        for (_, to) in used {
            if reached.insert(to.clone()) {
                waiting.push(to);
            }
        }
    }
    reached
}

fn finding(uses: &Uses, members: &BTreeSet<&String>) -> Finding {
    let mut inner = uses
        .iter()
        .filter(|((from, to), _)| members.contains(from) && members.contains(to));
    let ((from, to), line) = inner.next().expect("a circle has uses");
    let mut what = format!("it uses {to}, in a circle");
    for ((from, to), line) in inner {
        what += &format!("; {from}:{line} uses {to}");
    }
    what += ": move what they share into a file that uses neither";
    Finding::new(from, *line, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(pairs: &[(&str, &str)]) -> Uses {
        let pairs = pairs.iter().enumerate();
        pairs
            .map(|(line, (from, to))| ((from.to_string(), to.to_string()), line + 1))
            .collect()
    }

    #[test]
    fn a_circle_is_found_with_the_lines_that_make_it() {
        let circle = uses(&[
            ("top", "a"),
            ("a", "b"),
            ("b", "c"),
            ("c", "a"),
            ("c", "bottom"),
        ]);
        let findings = findings(&circle);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(
            findings[0].to_string(),
            "a:2: it uses b, in a circle; b:3 uses c; c:4 uses a: \
             move what they share into a file that uses neither"
        );
    }

    #[test]
    fn two_circles_are_two_findings() {
        let circles = uses(&[("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"), ("d", "c")]);
        assert_eq!(findings(&circles).len(), 2);
    }

    #[test]
    fn files_that_share_another_make_no_circle() {
        let diamond = uses(&[("top", "a"), ("top", "b"), ("a", "c"), ("b", "c")]);
        assert!(findings(&diamond).is_empty());
    }
}

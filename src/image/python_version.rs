//! Versions of Python, and lists of clauses that some of them fit (PEP 440), as `requires-python` has.

use std::cmp::Ordering;

/// Returns whether this version fits all clauses of a list, or `None` if it is no such list. Only the
/// numbers count: an image has a released Python.
pub fn fits(version: &str, clauses: &str) -> Option<bool> {
    let own = numbers(version)?;
    let mut fits = true;
    for clause in clauses.split(',').map(str::trim) {
        fits &= holds(clause, &own)?;
    }
    Some(fits)
}

/// Compares two versions, each of numbers alone.
pub fn compare(left: &str, right: &str) -> Ordering {
    let [left, right] = [left, right].map(|version| numbers(version).unwrap_or_default());
    order(&left, &right)
}

/// Returns whether the version is one that the clause names, or `None` if it is no clause.
fn holds(clause: &str, version: &[u64]) -> Option<bool> {
    const OPERATORS: [&str; 8] = ["===", "~=", "==", "!=", "<=", ">=", "<", ">"];
    let operator = OPERATORS.into_iter().find(|it| clause.starts_with(it))?;
    let wanted = clause[operator.len()..].trim();
    let (wanted, is_prefix) = match wanted.strip_suffix(".*") {
        Some(prefix) if ["==", "!="].contains(&operator) => (prefix, true),
        Some(_) => return None,
        None => (wanted, false),
    };
    let wanted = numbers(wanted)?;
    let is_like = |length: usize| padded(version, length) == padded(&wanted, length);
    let ordering = order(version, &wanted);
    Some(match operator {
        "==" | "===" if is_prefix => is_like(wanted.len()),
        "!=" if is_prefix => !is_like(wanted.len()),
        "==" | "===" => ordering.is_eq(),
        "!=" => ordering.is_ne(),
        "<=" => ordering.is_le(),
        ">=" => ordering.is_ge(),
        "<" => ordering.is_lt(),
        ">" => ordering.is_gt(),
        // The last of the operators, ~=: as new, and of the same release but for the last number.
        _ if wanted.len() < 2 => return None,
        _ => ordering.is_ge() && is_like(wanted.len() - 1),
    })
}

/// Parses a version that consists of numbers alone.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let version = version.strip_prefix('v').unwrap_or(version);
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// Returns so many numbers of a version, of which the missing ones are zero.
fn padded(version: &[u64], length: usize) -> Vec<u64> {
    let zeroes = std::iter::repeat(&0);
    version.iter().chain(zeroes).take(length).copied().collect()
}

fn order(left: &[u64], right: &[u64]) -> Ordering {
    let length = left.len().max(right.len());
    padded(left, length).cmp(&padded(right, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_held_against_each_clause() {
        for (wanted, holds) in [
            (">=3.11", true),
            (">=3.13.5", true),
            (">=3.13.6", false),
            ("<3.14", true),
            ("<3.13", false),
            (">3.13", true),
            ("<=3.13", false),
            (">=3.11,<3.13", false),
            (" >= 3.11 , != 3.12.* ", true),
            ("!=3.13.*", false),
            ("==3.13.*", true),
            ("==3.13", false),
            ("==3.13.5", true),
            ("~=3.12", true),
            ("~=3.12.0", false),
            ("~=3.13.2", true),
            ("===3.13.5", true),
            ("==3.*", true),
        ] {
            assert_eq!(fits("3.13.5", wanted), Some(holds), "{wanted}");
        }
    }

    #[test]
    fn what_is_no_list_of_versions_fits_nothing() {
        for wanted in [
            "", "3.11", ">=", "~=3", ">=3.x", ">=3.11,", "<3,>=", ">=3.*", "python3",
        ] {
            assert_eq!(fits("3.13.5", wanted), None, "{wanted}");
        }
    }

    #[test]
    fn a_version_is_newer_by_its_numbers() {
        assert!(compare("3.9.20", "3.13.5").is_lt());
        assert!(compare("3.13.10", "3.13.9").is_gt());
        assert!(compare("3.13", "3.13.0").is_eq());
    }
}

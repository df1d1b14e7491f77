//! The floors that the table in the root of the crate gives its modules, and the imports that run up.

use crate::files::Finding;
use crate::rust::Crate;
use std::collections::BTreeMap;

/// The floor of each module, and the line of the table that gives it.
pub type Floors<'a> = BTreeMap<&'a str, (u32, usize)>;

pub fn findings(modules: &Crate) -> Vec<Finding> {
    let (floors, mut findings) = read_table(modules);
    let declared: Vec<_> = modules.top().collect();
    for (name, (_, line)) in &floors {
        if !declared.iter().any(|(module, _)| module == name) {
            findings.push(Finding::new(
                modules.root(),
                *line,
                format!("there is no module {name}: take it out of the table of floors"),
            ));
        }
    }
    for (name, line) in declared {
        if !floors.contains_key(name) {
            findings.push(Finding::new(
                modules.root(),
                line,
                format!("the module {name} is on no floor: name it in the table of floors"),
            ));
        }
    }
    findings.extend(running_up(modules, &floors));
    findings
}

fn running_up(modules: &Crate, floors: &Floors) -> Vec<Finding> {
    let mut findings = Vec::new();
    for mention in modules.mentions() {
        let floor = |name: &String| floors.get(name.as_str()).map(|(floor, _)| *floor);
        let (Some(from), Some(to)) = (mention.module.first(), mention.target.first()) else {
            continue;
        };
        if let (Some(own), Some(other)) = (floor(from), floor(to))
            && own < other
        {
            let what = format!(
                "{from} on floor {own} uses {to} on floor {other}: \
                 move what it needs down, or what needs it up"
            );
            findings.push(Finding::new(mention.file, mention.line, what));
        }
    }
    findings
}

/// Reads rows such as "// | 2 vm | `vm` | KVM |".
pub fn read_table(modules: &Crate) -> (Floors<'_>, Vec<Finding>) {
    let (mut floors, mut findings) = (Floors::new(), Vec::new());
    for (number, line) in modules.root_text().lines().enumerate() {
        let Some(row) = line.strip_prefix("// | ") else {
            continue;
        };
        let Some((floor, rest)) = row.split_once(' ') else {
            continue;
        };
        let Ok(floor) = floor.parse() else { continue };
        for name in rest.split('`').skip(1).step_by(2) {
            if floors.insert(name, (floor, number + 1)).is_some() {
                let what = format!("the module {name} is in the table twice: leave one of them");
                findings.push(Finding::new(modules.root(), number + 1, what));
            }
        }
    }
    (floors, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "//! A crate.\n// | floor | modules |\n// |---|---|\n\
                         // | 0 low | `low`, `beside` |\n// | 1 high | `high` |\n";

    fn found(root: &str, low: &str) -> Vec<String> {
        let read = |path: &str| match path {
            "src/lib.rs" => Some(format!("{TABLE}{root}")),
            "src/low.rs" => Some(low.into()),
            "src/high.rs" => Some("use crate::low::Low; pub struct High;".into()),
            "src/beside.rs" | "src/other.rs" => Some(String::new()),
            _ => None,
        };
        let findings = findings(&Crate::read("src/lib.rs", &read));
        findings.iter().map(|one| one.to_string()).collect()
    }

    const MODULES: &str = "mod low; mod beside; mod high;";

    #[test]
    fn an_import_that_runs_up_is_found() {
        let up = "src/low.rs:2: low on floor 0 uses high on floor 1: \
                  move what it needs down, or what needs it up";
        assert_eq!(found(MODULES, "\nuse crate::high::High;"), [up]);
        assert_eq!(found(MODULES, "\nuse super::{high, beside};"), [up]);
        assert_eq!(found(MODULES, "\npub use crate::high::High;"), [up]);
        assert_eq!(found(MODULES, "\nuse crate::high::*;"), [up]);
        assert_eq!(found(MODULES, "\nfn f() { crate::high::f() }"), [up]);
        assert_eq!(found(MODULES, "\nfn f() { vec![crate::high::f()]; }"), [up]);
    }

    #[test]
    fn imports_that_run_down_or_aside_are_right_and_so_are_those_of_tests() {
        let tests = "#[cfg(test)] mod tests { use crate::high::High; }";
        let low = format!("use crate::beside::Beside; pub struct Low; {tests}");
        assert!(found(MODULES, &low).is_empty());
    }

    #[test]
    fn a_module_on_no_floor_or_two_and_a_row_without_one_are_found() {
        assert_eq!(
            found("mod low; mod beside; mod high;\nmod other;", ""),
            ["src/lib.rs:7: the module other is on no floor: name it in the table of floors"]
        );
        assert_eq!(
            found("mod low; mod high;", ""),
            ["src/lib.rs:4: there is no module beside: take it out of the table of floors"]
        );
        assert_eq!(
            found(&format!("// | 0 once more | `low` |\n{MODULES}"), ""),
            ["src/lib.rs:6: the module low is in the table twice: leave one of them"]
        );
    }
}

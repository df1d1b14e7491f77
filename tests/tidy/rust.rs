//! A crate: its modules, and which file uses which.

use crate::circles::Uses;
use crate::reader::{Module, Names, Raw, joined};
use std::collections::BTreeMap;
use std::path::Path;

/// How often an import may lead to another before it is taken for a circle of imports.
const HOPS_MAX: usize = 8;

pub struct Crate {
    root: String,
    root_text: String,
    modules: BTreeMap<Names, Module>,
}

/// A path in the code that names something of this crate.
pub struct Mention<'a> {
    pub file: &'a str,
    pub line: usize,
    pub module: &'a [String],
    pub target: Names,
    is_reexport: bool,
}

/// A text in the code: a string, but of documentation only what goes into a schema.
pub struct Text<'a> {
    pub file: &'a str,
    pub line: usize,
    pub module: &'a [String],
    pub text: &'a str,
}

impl Crate {
    /// Reads a crate from its root on, with a function that returns the text of a file.
    pub fn read(root: &str, read: &dyn Fn(&str) -> Option<String>) -> Crate {
        let mut modules = BTreeMap::new();
        let mut waiting = vec![(Names::new(), root.to_string())];
        while let Some((names, file)) = waiting.pop() {
            let module = Module::parse(&names, &file, &read(&file).expect("no such file"));
            for (child, line) in &module.children {
                let path = file_of(&file, child, read);
                let path = path.unwrap_or_else(|| panic!("{file}:{line}: no file of {child}"));
                waiting.push((joined(&names, [child.clone()]), path));
            }
            modules.insert(names, module);
        }
        Crate {
            root: root.into(),
            root_text: read(root).expect("it was read before"),
            modules,
        }
    }

    pub fn root(&self) -> &str {
        &self.root
    }

    pub fn root_text(&self) -> &str {
        &self.root_text
    }

    /// Returns the modules that the root declares, and where.
    pub fn top(&self) -> impl Iterator<Item = (&str, usize)> {
        let children = self.modules[&Names::new()].children.iter();
        children.map(|(name, line)| (name.as_str(), *line))
    }

    pub fn mentions(&self) -> impl Iterator<Item = Mention<'_>> {
        self.modules.values().flat_map(move |module| {
            module.mentions.iter().filter_map(move |raw| {
                Some(Mention {
                    file: &module.file,
                    line: raw.line,
                    module: &raw.module,
                    target: self.resolve(raw, HOPS_MAX)?,
                    is_reexport: raw.is_reexport,
                })
            })
        })
    }

    pub fn texts(&self) -> impl Iterator<Item = Text<'_>> {
        self.modules.iter().flat_map(|(names, module)| {
            module.texts.iter().map(|(text, line)| Text {
                file: &module.file,
                line: *line,
                module: names,
                text,
            })
        })
    }

    /// Returns which file uses which: one in which a name is defined, wherever it is reexported.
    pub fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for mention in self.mentions().filter(|mention| !mention.is_reexport) {
            if let Some(file) = self.defining_file(&mention.target, HOPS_MAX)
                && file != mention.file
            {
                let pair = (mention.file.to_string(), file.to_string());
                let line = uses.entry(pair).or_insert(mention.line);
                *line = mention.line.min(*line);
            }
        }
        uses
    }

    /// Returns the names from the root on, or none for what is of another crate, or local.
    fn resolve(&self, raw: &Raw, hops: usize) -> Option<Names> {
        let mut module = raw.module.clone();
        let mut names = raw.names.as_slice();
        match names.first()?.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => {
                while names.get(1).is_some_and(|name| name == "super") {
                    module.pop()?;
                    names = &names[1..];
                }
                module.pop()?;
            }
            _ => return self.look_up(&module, names, hops),
        }
        Some(joined(&module, names[1..].iter().cloned()))
    }

    /// Looks for names from a module on: in there, then in what it imports.
    fn look_up(&self, module: &Names, names: &[String], hops: usize) -> Option<Names> {
        let within = self.enclosing(module);
        let (first, rest) = names.split_first()?;
        let is_child = within.children.iter().any(|(child, _)| child == first);
        if is_child && !rest.is_empty() || within.items.contains(first) {
            return Some(joined(module, names.iter().cloned()));
        }
        let hops = hops.checked_sub(1)?;
        if let Some(import) = within.imports.get(first) {
            let target = self.resolve(import, hops)?;
            return Some(joined(&target, rest.iter().cloned()));
        }
        let globs = within.globs.iter();
        let mut targets = globs.filter_map(|glob| self.resolve(glob, hops));
        let target = targets.find(|target| self.offers(target, first))?;
        Some(joined(&target, names.iter().cloned()))
    }

    fn offers(&self, module: &Names, name: &String) -> bool {
        let module = self.modules.get(module);
        module
            .is_some_and(|module| module.items.contains(name) || module.imports.contains_key(name))
    }

    /// Returns the module of a file that holds this one, which may be written inside of it.
    fn enclosing(&self, names: &[String]) -> &Module {
        let mut lengths = (0..=names.len()).rev();
        let module = lengths.find_map(|length| self.modules.get(&names[..length]));
        module.expect("there is a root")
    }

    /// Returns the file that defines a name; none for a module, which is but a way to names.
    fn defining_file(&self, target: &Names, hops: usize) -> Option<&str> {
        let mut lengths = (0..=target.len()).rev();
        let length = lengths.find(|length| self.modules.contains_key(&target[..*length]))?;
        let module = &self.modules[&target[..length]];
        let name = target.get(length)?;
        if module.items.contains(name) {
            return Some(&module.file);
        }
        let found = self.look_up(&target[..length].to_vec(), &target[length..], hops);
        match (found, hops.checked_sub(1)) {
            (Some(found), Some(hops)) => self.defining_file(&found, hops),
            _ => Some(&module.file),
        }
    }
}

/// Returns the path of a module that a file declares.
fn file_of(parent: &str, name: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let path = Path::new(parent);
    let directory = match path.file_name()?.to_str()? {
        "lib.rs" | "main.rs" | "mod.rs" => path.parent()?.to_path_buf(),
        _ => path.with_extension(""),
    };
    let candidates = [format!("{name}.rs"), format!("{name}/mod.rs")];
    let paths = candidates.map(|end| format!("{}/{end}", directory.display()));
    paths.into_iter().find(|path| read(path).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circles;

    /// Returns what is found in a crate of two modules, a and b, and b's own, c.
    fn found(root: &str, a: &str, b: &str, c: &str) -> Vec<String> {
        let read = |path: &str| match path {
            "src/lib.rs" => Some(format!("mod a; mod b; {root}")),
            "src/a.rs" => Some(a.into()),
            "src/b/mod.rs" => Some(format!("mod c; {b}")),
            "src/b/c.rs" => Some(c.into()),
            _ => None,
        };
        let findings = circles::findings(&Crate::read("src/lib.rs", &read).uses());
        findings.iter().map(|one| one.to_string()).collect()
    }

    #[test]
    fn imports_and_paths_in_the_code_make_a_circle() {
        let users = [
            "use super::b::B;",
            "use crate::{b::B};",
            "use super::b; fn f() { b::f() }",
            "fn f(b: crate::b::B) {}",
            "fn f() { println!(\"{}\", crate::b::f()) }",
            "#[derive(Debug)] #[made(with(crate::b::f))] struct S;",
            "use crate::b::*; fn f(b: B) {}",
            "mod inner { use super::super::b::B; }",
        ];
        for user in users {
            let a = format!("pub struct A; {user}");
            let found = found("", &a, "use crate::a::A; pub struct B; pub fn f() {}", "");
            assert_eq!(found.len(), 1, "{user}: {found:?}");
            assert!(found[0].starts_with("src/a.rs:1: it uses src/b/mod.rs, in a circle"));
        }
    }

    #[test]
    fn a_module_and_its_own_make_a_circle_as_well() {
        let found = found(
            "",
            "",
            "use c::C; pub struct B;",
            "use super::B; pub struct C;",
        );
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_reexported_name_leads_to_the_file_that_defines_it() {
        let reexport = "pub use c::C; use crate::a::A;";
        let a = "use crate::b::C; pub struct A;";
        assert!(found("", a, reexport, "pub struct C;").is_empty());
        assert_eq!(
            found("", a, reexport, "use crate::a::A; pub struct C;").len(),
            1
        );
        let used = "pub use c::C; pub struct B(C);";
        assert_eq!(found("", "", used, "use super::B; pub struct C;").len(), 1);
    }

    #[test]
    fn neither_declarations_nor_tests_nor_local_names_make_a_circle() {
        let users = [
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "#[cfg(test)] fn f(b: crate::b::B) {}",
            "impl A { #[cfg(test)] fn f(b: crate::b::B) {} }",
            "use crate::b;",
            "fn f(b: u8) -> u8 { println!(\"{}\", b); b }",
        ];
        for user in users {
            let a = format!("pub struct A; {user}");
            let found = found("", &a, "use crate::a::A; pub struct B;", "");
            assert!(found.is_empty(), "{user}: {found:?}");
        }
    }
}

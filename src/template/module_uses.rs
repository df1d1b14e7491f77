//! What a program takes of its layers, and what programs do first with that.

use crate::image::{LayerFile, Packages};
use crate::template::TemplateSpec;
use std::collections::{BTreeMap, BTreeSet};

/// The most modules whose uses are tried out.
const USES_MAX: usize = 8;

/// A module of a layer, and a program that uses it as most do.
pub struct Use {
    /// Its first name.
    pub module: String,
    /// Imports what of it is wished, and uses that.
    pub program: String,
}

/// Returns the first names of the modules of layers that are in these statements.
pub fn modules_of<'a>(statements: &'a [String], layers: &[LayerFile]) -> BTreeSet<&'a str> {
    let known = |name: &&str| {
        let mut modules = layers.iter().flat_map(|layer| &layer.modules);
        modules.any(|module| module == name)
    };
    let names = statements.iter().flat_map(|statement| words(statement));
    names.map(first_name).filter(known).collect()
}

fn words(statement: &str) -> impl Iterator<Item = &str> {
    statement.split([':', ','])
}

fn first_name(word: &str) -> &str {
    word.split('.').next().unwrap_or(word)
}

impl TemplateSpec {
    /// Returns what the machine's interpreter does with modules that it has imported, before it is
    /// saved.
    pub fn first_uses(&self) -> String {
        let statements = self.wishes();
        let modules = modules_of(&statements, &self.layers).into_iter();
        modules
            .map(|module| self.code(|its| &its.first_uses, module))
            .collect()
    }

    /// Returns the uses of the modules that are imported before the machine is saved.
    pub fn uses(&self) -> Vec<Use> {
        let statements = self.wishes();
        let modules = modules_of(&statements, &self.layers);
        let uses = modules.into_iter().take(USES_MAX).map(|module| Use {
            module: module.into(),
            program: imports(&statements, module) + self.code(|its| &its.rehearsals, module),
        });
        uses.collect()
    }

    fn code(&self, which: fn(&Packages) -> &BTreeMap<String, String>, module: &str) -> &str {
        let packages = self.image.packages.as_ref();
        let code = packages.and_then(|its| which(its).get(module));
        code.map_or("", String::as_str)
    }
}

/// Returns statements that import what these import of a module.
fn imports(statements: &[String], module: &str) -> String {
    let names = statements.iter().flat_map(|statement| words(statement));
    let names: BTreeSet<_> = names.filter(|name| first_name(name) == module).collect();
    names
        .iter()
        .map(|name| format!("import {name}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use crate::limits::ConfineLevel;
    use crate::template::Preload;

    fn layer(modules: &[&str]) -> LayerFile {
        LayerFile {
            path: "/layer".into(),
            size: 0,
            digest: String::new(),
            mount: "/packages".into(),
            modules: modules.iter().map(|&name| name.into()).collect(),
        }
    }

    fn spec(imports: &[&str]) -> TemplateSpec {
        let image = Image::built_in().clone();
        TemplateSpec {
            memory: 1 << 30,
            root: false,
            layers: vec![layer(&["pandas", "matplotlib", "mine"])],
            preload: Preload::OfProgram,
            imports: imports.iter().map(|&statement| statement.into()).collect(),
            confine: ConfineLevel::Auto,
            share: None,
            language: image.default_language().clone(),
            image,
        }
    }

    #[test]
    fn the_modules_of_layers_that_statements_name_are_found() {
        let spec = spec(&[
            "import:pandas:as:pd",
            "from:mine.deep:import:pandas",
            "import:os",
        ]);
        let modules = modules_of(&spec.imports, &spec.layers);
        assert_eq!(modules, ["mine", "pandas"].into());
    }

    #[test]
    fn a_use_imports_what_is_wished_and_rehearses_what_is_known() {
        let uses = spec(&["import:mine.a", "from:mine:import:b", "import:pandas"]).uses();
        let programs: Vec<_> = uses
            .iter()
            .map(|its| (&*its.module, &*its.program))
            .collect();
        assert_eq!(programs[0], ("mine", "import mine\nimport mine.a\n"));
        assert_eq!(programs[1].0, "pandas");
        assert!(programs[1].1.contains("groupby"), "{}", programs[1].1);
    }

    #[test]
    fn nothing_is_used_before_the_save_but_what_is_wished() {
        assert_eq!(spec(&["import:mine"]).first_uses(), "");
        assert!(spec(&["import:pandas"]).first_uses().contains("read_csv"));
        assert!(!spec(&["import:pandas"]).first_uses().contains("Figure"));
    }

    #[test]
    fn the_rehearsals_of_many_modules_are_bounded() {
        let names: Vec<_> = (0..50).map(|at| format!("module{at}")).collect();
        let mut spec = spec(&[]);
        spec.imports = names.iter().map(|name| format!("import:{name}")).collect();
        spec.layers[0].modules = names;
        assert_eq!(spec.uses().len(), USES_MAX);
    }
}

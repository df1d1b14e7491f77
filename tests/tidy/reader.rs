//! What a Rust file defines, imports and mentions, and its texts. Code under `#[cfg(test)]` does not count.

use proc_macro2::{Ident, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, ItemMod, ItemUse, LitStr, Meta, Path, UseTree, Visibility};

/// The names from the root of the crate to a module, or to what is in one.
pub type Names = Vec<String>;

#[derive(Default)]
pub struct Module {
    pub file: String,
    /// The modules that it declares, and where.
    pub children: Vec<(String, usize)>,
    /// Whatever else it defines.
    pub items: BTreeSet<String>,
    /// What its imports name, by the names that they give it.
    pub imports: BTreeMap<String, Raw>,
    pub globs: Vec<Raw>,
    pub mentions: Vec<Raw>,
    /// The strings in it, and where they begin; of its documentation only that of types with a schema, which has it.
    pub texts: Vec<(String, usize)>,
}

/// A path as it is written.
#[derive(Clone)]
pub struct Raw {
    /// The module in which it is written.
    pub module: Names,
    pub names: Names,
    pub line: usize,
    pub is_reexport: bool,
}

pub fn joined(names: &[String], more: impl IntoIterator<Item = String>) -> Names {
    names.iter().cloned().chain(more).collect()
}

impl Module {
    pub fn parse(names: &Names, file: &str, text: &str) -> Module {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut reader = Reader {
            module: Module::default(),
            names: names.clone(),
            is_in_schema: false,
        };
        reader.module.file = file.into();
        reader.visit_file(&parsed);
        reader.module
    }
}

struct Reader {
    module: Module,
    /// The module that is being read: that of the file, or one that is written inside of it.
    names: Names,
    /// Whether a type with a schema is being read.
    is_in_schema: bool,
}

impl Reader {
    fn raw(&self, names: Names, line: usize) -> Raw {
        Raw {
            module: self.names.clone(),
            names,
            line,
            is_reexport: false,
        }
    }

    fn mention(&mut self, names: Vec<&Ident>) {
        if let Some(first) = names.first() {
            let line = first.span().start().line;
            let raw = self.raw(names.iter().map(|name| name.to_string()).collect(), line);
            self.module.mentions.push(raw);
        }
    }

    fn import(&mut self, before: &Names, tree: &UseTree, is_reexport: bool) {
        match tree {
            UseTree::Path(path) => {
                let before = joined(before, [path.ident.to_string()]);
                self.import(&before, &path.tree, is_reexport);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(before, tree, is_reexport);
                }
            }
            UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                let raw = Raw {
                    is_reexport,
                    ..self.raw(before.clone(), line)
                };
                self.module.mentions.push(raw.clone());
                self.module.globs.push(raw);
            }
            UseTree::Name(name) => self.import_name(before, &name.ident, None, is_reexport),
            UseTree::Rename(name) => {
                self.import_name(before, &name.ident, Some(&name.rename), is_reexport);
            }
        }
    }

    fn import_name(
        &mut self,
        before: &Names,
        ident: &Ident,
        rename: Option<&Ident>,
        is_reexport: bool,
    ) {
        let names = match ident == "self" {
            true => before.clone(),
            false => joined(before, [ident.to_string()]),
        };
        let own = rename.map(Ident::to_string);
        let name = own.or_else(|| names.last().cloned());
        let raw = Raw {
            is_reexport,
            ..self.raw(names, ident.span().start().line)
        };
        self.module.mentions.push(raw.clone());
        self.module.imports.extend(name.map(|name| (name, raw)));
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a Item) {
        let (attributes, name) = head_of(item);
        if attributes.iter().any(is_test) {
            return;
        }
        self.module.items.extend(name.map(Ident::to_string));
        let around = self.is_in_schema;
        self.is_in_schema |= attributes.iter().any(derives_schema);
        visit::visit_item(self, item);
        self.is_in_schema = around;
    }

    fn visit_impl_item_fn(&mut self, function: &'a ImplItemFn) {
        if !function.attrs.iter().any(is_test) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        let name = module.ident.to_string();
        if module.content.is_none() {
            let line = module.ident.span().start().line;
            return self.module.children.push((name, line));
        }
        self.module.items.insert(name.clone());
        self.names.push(name);
        visit::visit_item_mod(self, module);
        self.names.pop();
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let is_reexport = !matches!(item.vis, Visibility::Inherited);
        self.import(&Names::new(), &item.tree, is_reexport);
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if self.is_in_schema || !attribute.path().is_ident("doc") {
            visit::visit_attribute(self, attribute);
        }
    }

    fn visit_lit_str(&mut self, text: &'a LitStr) {
        let line = text.span().start().line;
        self.module.texts.push((text.value(), line));
    }

    fn visit_path(&mut self, path: &'a Path) {
        self.mention(path.segments.iter().map(|segment| &segment.ident).collect());
        visit::visit_path(self, path);
    }

    fn visit_token_stream(&mut self, tokens: &'a TokenStream) {
        let tokens: Vec<_> = tokens.clone().into_iter().collect();
        for names in paths_in(&tokens) {
            self.mention(names);
        }
        for token in &tokens {
            match token {
                TokenTree::Group(group) => self.visit_token_stream(&group.stream()),
                TokenTree::Literal(literal) => {
                    let line = literal.span().start().line;
                    let text = syn::parse_str::<LitStr>(&literal.to_string());
                    let text = text.map(|text| (text.value(), line));
                    self.module.texts.extend(text);
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

/// Returns the attributes of an item, and its name if it defines one that is no module's.
fn head_of(item: &Item) -> (&[Attribute], Option<&Ident>) {
    match item {
        Item::Const(item) => (&item.attrs, Some(&item.ident)),
        Item::Enum(item) => (&item.attrs, Some(&item.ident)),
        Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        Item::Impl(item) => (&item.attrs, None),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
        Item::Mod(item) => (&item.attrs, None),
        Item::Static(item) => (&item.attrs, Some(&item.ident)),
        Item::Struct(item) => (&item.attrs, Some(&item.ident)),
        Item::Trait(item) => (&item.attrs, Some(&item.ident)),
        Item::Type(item) => (&item.attrs, Some(&item.ident)),
        Item::Union(item) => (&item.attrs, Some(&item.ident)),
        Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

fn is_test(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    let condition = list.tokens.to_string();
    list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all (test"))
}

/// Returns whether the type with this attribute has a schema, into which its documentation goes.
fn derives_schema(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    list.path.is_ident("derive") && list.tokens.to_string().contains("JsonSchema")
}

/// Finds what may be paths among tokens that are not parsed: names with "::" between them.
fn paths_in(tokens: &[TokenTree]) -> Vec<Vec<&Ident>> {
    let is = |at: usize, sign: char| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == sign);
    let mut paths: Vec<Vec<&Ident>> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Ident(ident) = token else {
            continue;
        };
        let follows = at >= 3 && is(at - 1, ':') && is(at - 2, ':');
        match paths.last_mut() {
            Some(path) if follows && matches!(tokens[at - 3], TokenTree::Ident(_)) => {
                path.push(ident)
            }
            _ if at > 0 && is(at - 1, '.') => {}
            _ => paths.push(vec![ident]),
        }
    }
    paths
}

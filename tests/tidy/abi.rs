//! The numbers of the hypercall ABI: those that C repeats, in the guest and in the patches of its kernel,
//! and those that the documents tell, are those of the Rust source.

use crate::files::{File, Finding};
use std::collections::BTreeMap;
use syn::{BinOp, Expr, Item, ItemConst, Lit};

/// A number's module and name in Rust, and its value.
struct Number {
    module: String,
    name: String,
    line: usize,
    value: u64,
}

impl Number {
    /// Returns its name in C.
    fn c_name(&self) -> String {
        let prefix = match self.module.as_str() {
            "" | "stream" => "HOST_",
            "prctl" => "PR_HOST_",
            _ => "",
        };
        format!("{prefix}{}", self.name)
    }

    /// Whether C need not define it: the kernel knows some streams only as numbers that it is given, and
    /// the buffer is a struct.
    fn is_optional(&self) -> bool {
        ["stream", "buffer"].contains(&self.module.as_str())
    }
}

/// A number that C defines.
struct Defined<'a> {
    file: &'a File,
    line: usize,
    name: &'a str,
    value: u64,
}

/// Compares C with the source. The kernel's buffer is in one of the files.
pub fn findings(source: &File, files: &[File]) -> Vec<Finding> {
    let numbers = numbers(source);
    let defined: Vec<_> = files.iter().flat_map(defined).collect();
    let mut findings: Vec<_> = differing(&numbers, &defined).collect();
    for number in &numbers {
        let name = number.c_name();
        if !number.is_optional() && defined.iter().all(|one| one.name != name) {
            let what = format!("no file of C defines {name}: define it, or take it out here");
            findings.push(Finding::new(&source.path, number.line, what));
        }
    }
    findings.extend(buffer_finding(source, &numbers, files));
    findings
}

fn differing<'a>(
    numbers: &'a [Number],
    defined: &'a [Defined],
) -> impl Iterator<Item = Finding> + 'a {
    // A service goes before a stream of the same name, which C does not define.
    let of_c = |name: &str| {
        let mut named = numbers.iter().filter(move |one| one.c_name() == name);
        let first = named.next();
        named.find(|one| one.module.is_empty()).or(first)
    };
    defined.iter().filter_map(move |one| {
        let (name, value) = (one.name, one.value);
        let what = match of_c(name) {
            Some(number) if number.value == value => return None,
            Some(number) => format!("{name} is {value} here, and {} in Rust", number.value),
            None if name.contains("HOST_") => format!("{name} is not in the Rust source"),
            None => return None,
        };
        Some(Finding::new(&one.file.path, one.line, what))
    })
}

/// Reads the constants of the source and of its modules.
fn numbers(source: &File) -> Vec<Number> {
    let parsed = syn::parse_file(&source.text).expect("it compiles");
    let mut numbers = Vec::new();
    for item in &parsed.items {
        match item {
            Item::Const(constant) => numbers.push(number("", constant)),
            Item::Mod(module) => {
                let name = module.ident.to_string();
                let items = module.content.iter().flat_map(|(_, items)| items);
                numbers.extend(items.filter_map(|item| match item {
                    Item::Const(constant) => Some(number(&name, constant)),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    numbers
}

fn number(module: &str, constant: &ItemConst) -> Number {
    Number {
        module: module.into(),
        name: constant.ident.to_string(),
        line: constant.ident.span().start().line,
        value: value(&constant.expr),
    }
}

fn value(expression: &Expr) -> u64 {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.base10_parse().expect("a number"),
            _ => panic!("a constant of the ABI is no integer"),
        },
        Expr::Binary(binary) if matches!(binary.op, BinOp::Shl(_)) => {
            value(&binary.left) << value(&binary.right)
        }
        _ => panic!("a constant of the ABI is neither a number nor a shift"),
    }
}

/// Reads "#define NAME 1" and "NAME = 1," in C, or in the lines that a patch adds.
fn defined(file: &File) -> Vec<Defined<'_>> {
    let mut defined = Vec::new();
    for (line, text) in code(file) {
        let pair = match text.strip_prefix("#define ") {
            Some(definition) => definition.split_once(char::is_whitespace),
            None => text.split_once(" = "),
        };
        let Some((name, rest)) = pair else { continue };
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let value = rest
            .trim()
            .split([',', ' ', '\t'])
            .next()
            .and_then(c_number);
        if let Some(value) = value
            && name.trim().chars().all(is_name)
        {
            let name = name.trim();
            defined.push(Defined {
                file,
                line,
                name,
                value,
            });
        }
    }
    defined
}

/// Returns the lines of C with their numbers: of a patch, those that it adds.
fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let is_patch = file.ends_with("patch");
    let lines = file.text.lines().enumerate();
    lines.filter_map(move |(number, line)| match is_patch {
        true => line.strip_prefix('+').map(|added| (number + 1, added)),
        false => Some((number + 1, line)),
    })
}

fn c_number(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    if let Some(size) = text.strip_prefix("SZ_") {
        let kibibytes: u64 = size.strip_suffix('K')?.parse().ok()?;
        return Some(kibibytes << 10);
    }
    text.parse().ok()
}

/// Compares the kernel's "struct host_buffer": 32-bit numbers, and bytes up to its size.
fn buffer_finding(source: &File, numbers: &[Number], files: &[File]) -> Option<Finding> {
    let number = |name: &str| {
        let mut named = numbers.iter();
        let found = named.find(|one| one.module == "buffer" && one.name == name);
        found.map(|one| one.value)
    };
    let (size, header) = (number("SIZE")?, number("HEADER")?);
    for file in files {
        let mut lines = code(file).skip_while(|(_, line)| !line.ends_with("struct host_buffer {"));
        let Some((line, _)) = lines.next() else {
            continue;
        };
        let fields: Vec<_> = lines
            .map(|(_, line)| line.trim())
            .take_while(|line| !line.starts_with('}'))
            .collect();
        let expected = [
            "u32 sent, filled, stream, unused;".to_string(),
            format!("char bytes[SZ_{}K - {header}];", size >> 10),
        ];
        let is_right = fields == expected && header == 4 * 4;
        return (!is_right).then(|| {
            let what = format!("the buffer of output is {fields:?}, and {expected:?} in Rust");
            Finding::new(&file.path, line, what)
        });
    }
    Some(Finding::new(
        &source.path,
        1,
        "no file of C defines struct host_buffer",
    ))
}

/// Compares the tables of a document with the source: the head of each, and the module that it tells.
pub fn table_findings(source: &File, document: &File) -> Vec<Finding> {
    const TABLES: [(&str, &str); 3] = [
        ("| AL |", ""),
        ("| stream |", "stream"),
        ("| option |", "prctl"),
    ];
    let numbers = numbers(source);
    let mut findings = Vec::new();
    for (head, module) in TABLES {
        // The port is no service.
        let of_module = numbers
            .iter()
            .filter(|one| one.module == module && one.name != "PORT");
        let mut missing: BTreeMap<_, _> = of_module.map(|one| (one.value, one.c_name())).collect();
        let lines = document.text.lines().enumerate();
        let table = lines.skip_while(|(_, line)| !line.starts_with(head));
        for (line, row) in table.take_while(|(_, line)| line.starts_with('|')).skip(2) {
            let first = row.trim_start_matches('|').split('|').next().unwrap_or("");
            for told in first.split(',').filter_map(|text| c_number(text.trim())) {
                if missing.remove(&told).is_none() {
                    let what = format!("{told} is not in the Rust source");
                    findings.push(Finding::new(&document.path, line + 1, what));
                }
            }
        }
        findings.extend(missing.into_values().map(|name| {
            let what = format!("the table {head} leaves {name} out");
            Finding::new(&document.path, 1, what)
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "pub const PORT: u16 = 0xe4;\npub const STDIN: u8 = 6;\n\
        pub mod stream { pub const STDIN: u8 = 0; pub const EVENTS: u8 = 5; }\n\
        pub mod prctl { pub const JOB: i32 = 0x484f_5303; }\n\
        pub mod handover { pub const ENTER: u32 = 1; }\n\
        pub mod buffer { pub const HEADER: usize = 16; pub const SIZE: usize = 64 << 10; }\n";
    const HEADER: &str = "enum {\n    ENTER = 1, /* it */\n    OTHER = 7,\n};\n";
    const PATCH: &str = "--- a\n+++ b\n+#define HOST_PORT\t0xe4\n+#define HOST_STDIN\t6\t/* it */\n\
        +#define HOST_EVENTS\t5\n+#define PR_HOST_JOB\t\t0x484f5303\t/* it */\n\
        +static struct host_buffer {\n+\tu32 sent, filled, stream, unused;\n\
        +\tchar bytes[SZ_64K - 16];\n+} *buffer;\n";

    fn file(path: &str, text: &str) -> File {
        let (path, text) = (path.into(), text.into());
        File { path, text }
    }

    fn found(header: &str, patch: &str) -> Vec<String> {
        let files = [file("w.h", header), file("k.patch", patch)];
        let findings = findings(&file("h.rs", SOURCE), &files);
        findings.iter().map(|one| one.to_string()).collect()
    }

    #[test]
    fn numbers_of_c_that_differ_from_the_rust_source_are_found() {
        assert!(found(HEADER, PATCH).is_empty());
        assert_eq!(
            found(&HEADER.replace("= 1", "= 2"), PATCH),
            ["w.h:2: ENTER is 2 here, and 1 in Rust"]
        );
        for (from, to, what) in [
            (
                "0xe4",
                "0xe5",
                "k.patch:3: HOST_PORT is 229 here, and 228 in Rust",
            ),
            (
                "N\t6",
                "N\t0",
                "k.patch:4: HOST_STDIN is 0 here, and 6 in Rust",
            ),
            (
                "S\t5",
                "S\t4",
                "k.patch:5: HOST_EVENTS is 4 here, and 5 in Rust",
            ),
        ] {
            assert_eq!(found(HEADER, &PATCH.replace(from, to)), [what]);
        }
    }

    #[test]
    fn numbers_that_one_side_lacks_are_found() {
        let more = format!("{PATCH}+#define HOST_MORE 10\n");
        assert_eq!(
            found(HEADER, &more),
            ["k.patch:11: HOST_MORE is not in the Rust source"]
        );
        assert_eq!(
            found("", PATCH),
            ["h.rs:5: no file of C defines ENTER: define it, or take it out here"]
        );
        let unchanged = PATCH.replace("+#define HOST_STDIN", " #define HOST_STDIN");
        assert_eq!(found(HEADER, &unchanged).len(), 1);
    }

    #[test]
    fn a_buffer_of_another_layout_is_found() {
        for (from, to) in [
            ("SZ_64K", "SZ_32K"),
            ("- 16", "- 12"),
            ("sent, filled", "filled, sent"),
            ("host_buffer", "buffer"),
        ] {
            assert_eq!(found(HEADER, &PATCH.replace(from, to)).len(), 1, "{to}");
        }
    }

    #[test]
    fn a_table_that_tells_other_numbers_is_found() {
        let found = |text: &str| {
            let findings = table_findings(&file("h.rs", SOURCE), &file("d.md", text));
            findings
                .iter()
                .map(|one| one.to_string())
                .collect::<Vec<_>>()
        };
        let text = "| AL | AH |\n| --- | --- |\n| 6 | it |\n\n| stream |\n| --- |\n| 0, 5 |\n\n\
                    | option |\n| --- |\n| 0x484f5303 |\n";
        assert!(found(text).is_empty());
        assert_eq!(
            found(&text.replace("| 6", "| 7")),
            [
                "d.md:3: 7 is not in the Rust source",
                "d.md:1: the table | AL | leaves HOST_STDIN out"
            ]
        );
    }
}

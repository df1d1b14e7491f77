//! What the documents claim: each test that they name is there. For `…` in a name, anything may be.

use std::fs;
use std::path::Path;

const DOCUMENTS: [&str; 4] = [
    "README.md",
    "SECURITY.md",
    "docs/clones.md",
    "docs/threat-model.md",
];

/// A module and a test of it, between backquotes.
fn names(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '…';
    quoted
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(move |(module, test)| {
            !test.is_empty() && module.chars().chain(test.chars()).all(is_name)
        })
}

fn source(module: &str) -> Option<String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = match module {
        "hostile" => "tests/hostile/main.rs".into(),
        module => format!("tests/e2e/{module}.rs"),
    };
    fs::read_to_string(repository.join(path)).ok()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let mut count = 0;
    for document in DOCUMENTS {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document));
        for (module, test) in names(&text.unwrap()) {
            let source = source(module).unwrap_or_else(|| panic!("{document}: no tests {module}"));
            let pieces: Vec<_> = test.split('…').collect();
            assert!(
                pieces.iter().all(|piece| source.contains(piece)),
                "{document}: {module} has no test {test}"
            );
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}

/// A document of which this is to be the content. `SANDBOX_WRITE_DOCUMENTS=1` makes it so.
fn generated(document: &str, content: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    if std::env::var_os("SANDBOX_WRITE_DOCUMENTS").is_some() {
        fs::write(&path, content).unwrap();
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|text| text == content),
        "{document} is not what its source makes of it; to renew it: \
         SANDBOX_WRITE_DOCUMENTS=1 cargo test --test documents"
    );
}

#[test]
fn the_published_schema_is_that_of_the_records() {
    let schema = serde_json::to_string_pretty(&sandbox::record::schema()).unwrap();
    generated("docs/record.schema.json", &(schema + "\n"));
}

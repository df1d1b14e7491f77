//! What the documents claim: each test that they name is there. For `…` in a name, anything may be.

use sandbox::internals::cli::exit_code::{
    EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_OURS, EXIT_TIMEOUT,
};
use std::fs;
use std::path::Path;
use std::process::Command;

const DOCUMENTS: [&str; 7] = [
    "README.md",
    "SECURITY.md",
    "docs/cache.md",
    "docs/clones.md",
    "docs/record.md",
    "docs/threat-model.md",
    "docs/audit.md",
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
fn the_readme_has_at_most_150_lines() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    assert!(readme.unwrap().lines().count() <= 150);
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
    let schema = serde_json::to_string_pretty(&sandbox::internals::record::schema()).unwrap();
    generated("docs/record.schema.json", &(schema + "\n"));
}

#[test]
fn the_published_schema_is_that_of_a_sessions_messages() {
    let schema = sandbox::internals::session::protocol::schema();
    let schema = serde_json::to_string_pretty(&schema).unwrap();
    generated("docs/session-protocol.schema.json", &(schema + "\n"));
}

#[test]
fn the_published_schema_is_that_of_policies_and_the_example_holds_to_it() {
    let schema = serde_json::to_value(sandbox::internals::policy::schema()).unwrap();
    let text = serde_json::to_string_pretty(&schema).unwrap();
    generated("docs/policy.schema.json", &(text + "\n"));
    let example: serde_json::Value = toml::from_str(&document("examples/policy.toml")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(&example)
        .map(|e| e.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn each_key_of_a_policy_is_explained() {
    let text = document("docs/policy.md");
    let schema = serde_json::to_value(sandbox::internals::policy::schema()).unwrap();
    for definition in [
        "Ceiling", "Files", "Packages", "Sessions", "Server", "Client", "Audit",
    ] {
        let properties = schema["$defs"][definition]["properties"].as_object();
        for key in properties.unwrap().keys() {
            assert!(text.contains(&format!("`{key}`")), "{key}");
        }
    }
}

#[test]
fn each_variable_that_stands_for_an_option_is_explained() {
    let options = document("docs/options.md");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    let output = command.args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut count = 0;
    for variable in help.split("[env:").skip(1) {
        let (name, _) = variable.trim_start().split_once('=').unwrap();
        assert!(options.contains(&format!("`{name}`")), "{name}");
        count += 1;
    }
    assert!(count > 8, "{count}");
}

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The values of an enum in the schema of records.
fn values(name: &str) -> Vec<String> {
    let schema = serde_json::to_value(sandbox::internals::record::schema()).unwrap();
    let variants = schema["$defs"][name]["oneOf"].as_array().unwrap().clone();
    let values = variants
        .iter()
        .map(|variant| variant["const"].as_str().unwrap().into());
    values.collect()
}

#[test]
fn each_status_and_exit_code_has_a_remedy() {
    let text = document("docs/exit-codes.md");
    let statuses = values("Status");
    assert_eq!(statuses.len(), 7);
    for status in statuses {
        assert!(text.contains(&format!("| `{status}` |")), "{status}");
    }
    let codes = [EXIT_TIMEOUT, EXIT_OURS, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND];
    for code in codes.into_iter().chain([130, 137, 141, 143]) {
        assert!(text.contains(&format!("## {code}: ")), "{code}");
    }
}

#[test]
fn each_field_of_a_record_is_explained() {
    let text = document("docs/record.md");
    let schema = serde_json::to_value(sandbox::internals::record::schema()).unwrap();
    for field in schema["properties"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("`{field}`")), "{field}");
    }
    let unusual = &schema["$defs"]["Unusual"]["properties"];
    for field in unusual.as_object().unwrap().keys() {
        assert!(text.contains(&format!("`{field}`")), "{field}");
    }
}

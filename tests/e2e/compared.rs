//! Programs in languages of images that lie over the built-in one do as the same interpreter makes them do outside of a
//! machine. `scripts/test-images` imports an image and runs this with its files.

use crate::common::{exit_code, finish, sandbox, text};
use crate::reference::reference_over;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::{Command, Output};

/// The programs of `tests/languages/compared`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    image: String,
    /// The interpreter's name.
    program: String,
    #[serde(rename = "case")]
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    code: String,
    #[serde(default = "script")]
    given: String,
    #[serde(default = "js")]
    ending: String,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    stdin: String,
    /// Whether the order of lines is by chance.
    #[serde(default)]
    sorted: bool,
    /// What is by chance: times and numbers of processes, in brackets.
    #[serde(default)]
    bracketed: bool,
}

fn script() -> String {
    "script".into()
}

fn js() -> String {
    "js".into()
}

impl Case {
    /// Runs it in a directory of its own, by a command that `words` start.
    fn run(&self, mut command: Command, words: &[&str]) -> (String, String, i32) {
        let directory = tempfile::tempdir().unwrap();
        let file = format!("program.{}", self.ending);
        std::fs::write(directory.path().join(&file), &self.code).unwrap();
        let stdin = match &*self.given {
            "script" => {
                command.arg(file);
                &self.stdin
            }
            "code" => {
                command.args(words).arg(&self.code).arg("--");
                &self.stdin
            }
            _ => {
                command.arg("-");
                &self.code
            }
        };
        command.args(&self.arguments).current_dir(&directory);
        self.seen(&finish(&mut command, stdin.as_bytes()))
    }

    fn seen(&self, output: &Output) -> (String, String, i32) {
        let stream = |bytes: &[u8]| {
            let mut lines: Vec<_> = text(bytes).lines().map(str::to_owned).collect();
            if self.sorted {
                lines.sort();
            }
            if self.bracketed {
                lines.iter_mut().for_each(without_brackets);
            }
            lines.join("\n")
        };
        let (out, err) = (stream(&output.stdout), stream(&output.stderr));
        (out, err, exit_code(output.status))
    }
}

/// Takes out what is between the first bracket and the last of a line.
fn without_brackets(line: &mut String) {
    if let (Some(from), Some(to)) = (line.find('('), line.rfind(')')) {
        line.replace_range(from..=to, "()");
    }
}

#[test]
#[ignore = "scripts/test-images runs it for the image node"]
fn programs_do_what_they_do_outside() {
    let usr = std::env::var_os("SANDBOX_TEST_FILES").expect("scripts/test-images names them");
    let language = std::env::var("SANDBOX_TEST_LANGUAGE").expect("scripts/test-images names one");
    let path = format!(
        "{}/tests/languages/compared/{language}.toml",
        env!("CARGO_MANIFEST_DIR")
    );
    let table: Table = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(table.cases.len() >= 60);
    let mut differ = Vec::new();
    for case in &table.cases {
        let ours = sandbox(&["run", "--quiet", "--image", &table.image]);
        let (ours, outside) = (
            case.run(ours, &["-c"]),
            case.run(reference_over(&usr, &table.program), &["-e"]),
        );
        if ours != outside {
            differ.push(format!(
                "{}: {ours:#?}, and outside {outside:#?}",
                case.name
            ));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
#[ignore = "scripts/test-images runs it for the image node"]
fn javascript_tells_of_its_exception_and_its_last_value() {
    let record = |code: &str| -> Value {
        let mut command = sandbox(&["run", "--json", "--image", "node", "-c", code]);
        serde_json::from_slice(&finish(&mut command, b"").stdout).unwrap()
    };
    for (code, printed) in [
        (
            "console.log(1); ({a: [1, {b: 'c'}]})",
            "{ a: [ 1, { b: 'c' } ] }",
        ),
        ("'text'", "'text'"),
        ("NaN", "NaN"),
        ("const word: string = 'x'; word.length", "1"),
        (
            "crypto.createHash('md5').update('').digest('hex').length",
            "32",
        ),
        (
            "setTimeout(() => {}, 5); process.once('beforeExit', () => {}); 10n",
            "10n",
        ),
    ] {
        let record = record(code);
        let result = &record["result"]["text/plain"];
        assert_eq!(
            (result, &record["exit_code"]),
            (&json!(printed), &json!(0)),
            "{record}"
        );
        let lines = if code.starts_with("console") {
            "1\n"
        } else {
            ""
        };
        assert_eq!(record["stdout"], lines, "{record}");
    }
    for code in ["let x = 5", "await 1; 5", "import fs from 'fs'; 5"] {
        let record = record(code);
        assert_eq!(
            (&record["result"], &record["exit_code"]),
            (&Value::Null, &json!(0)),
            "{record}"
        );
    }
    for (code, kind, message) in [
        (
            "\nthrow new RangeError('on purpose')",
            "RangeError",
            "on purpose",
        ),
        ("Promise.reject(new TypeError('late'))", "TypeError", "late"),
        ("let =", "SyntaxError", "Unexpected end of input"),
        ("throw {a: 1}", "object", "{ a: 1 }"),
    ] {
        let record = record(code);
        let exception = &record["exception"];
        assert_eq!(
            (&exception["type"], &exception["message"]),
            (&json!(kind), &json!(message)),
            "{record}"
        );
        assert_eq!(record["exit_code"], 1);
    }
    let caught =
        record("process.on('uncaughtException', () => {}); setTimeout(() => { throw 1 }, 1)");
    assert_eq!(
        (&caught["exception"], &caught["exit_code"]),
        (&Value::Null, &json!(0))
    );
}

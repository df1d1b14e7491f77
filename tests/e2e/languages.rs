//! The same programs in each language of the images that lie over the one that is built in.
//! `scripts/test-images` imports an image and runs this with the name of a file of `tests/languages`.

use crate::agent::{Agent, Server};
use crate::common::{exit_code, finish, sandbox, text};
use crate::files::Here;
use crate::mcp_languages::offered;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::Output;
use std::time::SystemTime;

const LARGE: usize = 1 << 20;

/// The programs of a language, and what is known of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Programs {
    image: String,
    ending: String,
    /// What a script has before code.
    #[serde(default)]
    opening: String,
    /// Whether a compiler needs room and time first.
    #[serde(default)]
    compiled: bool,
    /// Whether its interpreter leaves out the script's name where it tells of a wrong program.
    #[serde(default)]
    nameless: bool,
    hello: String,
    arguments: String,
    copy: String,
    large: String,
    unicode: String,
    unicode_printed: String,
    error: String,
    exit: String,
    kill: String,
    fail: String,
    failure: String,
    failed: i32,
    #[serde(rename = "loop")]
    endless: String,
    allocate: String,
    read: String,
    write: String,
    variable: String,
    directory: String,
    random: String,
    clock: String,
    temporary: String,
    network: String,
    shell: String,
}

/// A language at work: its programs, and a directory for their scripts.
struct Table {
    programs: Programs,
    here: Here,
}

/// How code is given.
#[derive(Debug, Clone, Copy)]
enum Given {
    File,
    Code,
    Stdin,
}

impl Table {
    fn open() -> Self {
        let name = std::env::var("SANDBOX_TEST_LANGUAGE").expect("scripts/test-images names one");
        let path = format!("{}/tests/languages/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let programs = std::fs::read_to_string(path).unwrap();
        Self {
            programs: toml::from_str(&programs).unwrap(),
            here: Here::new(),
        }
    }

    /// Runs a program with these options and arguments.
    fn run(&self, given: Given, code: &str, options: &[&str], rest: (&[&str], &[u8])) -> Output {
        let (arguments, stdin) = rest;
        let script = format!("program.{}", self.programs.ending);
        let whole = format!("{}{code}", self.programs.opening);
        let mut command = sandbox(&["run", "--quiet", "--image", &self.programs.image]);
        command.current_dir(self.here.0.path()).args(options);
        let stdin = match given {
            Given::File => {
                self.here.write(&script, whole.as_bytes());
                command.arg(&script);
                stdin
            }
            Given::Code => {
                command.args(["-c", code]);
                stdin
            }
            Given::Stdin => {
                command.arg("-");
                whole.as_bytes()
            }
        };
        finish(command.args(arguments), stdin)
    }

    /// Runs a script, which must print this and end with 0.
    fn prints(&self, code: &str, options: &[&str], rest: (&[&str], &[u8]), expected: &str) {
        let output = self.run(Given::File, code, options, rest);
        let told = (text(&output.stderr), exit_code(output.status));
        assert_eq!(
            (text(&output.stdout), told.1),
            (expected.into(), 0),
            "{}",
            told.0
        );
    }

    fn printed(&self, code: &str) -> String {
        text(&self.run(Given::File, code, &[], NOTHING).stdout)
    }

    fn exit_code(&self, code: &str, options: &[&str]) -> i32 {
        exit_code(self.run(Given::File, code, options, NOTHING).status)
    }
}

const NOTHING: (&[&str], &[u8]) = (&[], b"");

#[test]
#[ignore = "scripts/test-images runs it for each image"]
fn a_program_starts_with_its_words_however_it_is_given() {
    let table = Table::open();
    for given in [Given::File, Given::Code, Given::Stdin] {
        let output = table.run(given, &table.programs.hello, &[], NOTHING);
        assert_eq!(
            text(&output.stdout),
            "hello\n",
            "{given:?}: {}",
            text(&output.stderr)
        );
        let words = ["a b", "ü", "-x", "", "--help"];
        let output = table.run(given, &table.programs.arguments, &[], (&words, b""));
        let expected = "a b\nü\n-x\n\n--help\n";
        assert_eq!(
            text(&output.stdout),
            expected,
            "{given:?}: {}",
            text(&output.stderr)
        );
        let output = table.run(given, &table.programs.exit, &[], NOTHING);
        assert_eq!(exit_code(output.status), 3, "{given:?}");
    }
    let variable = &table.programs.variable;
    table.prints(
        variable,
        &["-e", "GREETING=hi there"],
        NOTHING,
        "hi there\n",
    );
    table.prints(&table.programs.directory, &[], NOTHING, "/work\n");
    table.prints(
        &table.programs.directory,
        &["--workdir", "/tmp/d"],
        NOTHING,
        "/tmp/d\n",
    );
}

#[test]
#[ignore = "scripts/test-images runs it for each image"]
fn a_program_has_its_streams() {
    let table = Table::open();
    let every_byte: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for input in [&b"one\ntwo"[..], b"", &every_byte] {
        let output = table.run(Given::File, &table.programs.copy, &[], (&[], input));
        assert!(
            output.stdout == input,
            "{} bytes: {}",
            input.len(),
            text(&output.stderr)
        );
    }
    let large = table.printed(&table.programs.large);
    assert!(large.len() == LARGE && large.bytes().all(|byte| byte == b'x'));
    let unicode = &table.programs.unicode;
    table.prints(unicode, &[], NOTHING, &table.programs.unicode_printed);
    let output = table.run(Given::File, &table.programs.error, &[], NOTHING);
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        (String::new(), "to the other stream\n".into())
    );
}

#[test]
#[ignore = "scripts/test-images runs it for each image"]
fn a_program_that_fails_or_is_stopped_tells_how() {
    let table = Table::open();
    let output = table.run(Given::File, &table.programs.fail, &[], NOTHING);
    let told = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(exit_code(output.status), table.programs.failed, "{told}");
    assert!(told.contains(&table.programs.failure), "{told}");
    assert_eq!(table.exit_code(&table.programs.kill, &[]), 137);
    let seconds = if table.programs.compiled { "6" } else { "1" };
    let output = table.run(
        Given::File,
        &table.programs.endless,
        &["-t", seconds],
        NOTHING,
    );
    assert_eq!(
        (text(&output.stdout), exit_code(output.status)),
        ("begun\n".into(), 124)
    );
    let memory = if table.programs.compiled {
        "400M"
    } else {
        "128M"
    };
    assert_ne!(
        table.exit_code(&table.programs.allocate, &["-m", memory]),
        0
    );
    let output = table.run(Given::File, "(", &[], NOTHING);
    assert!(!output.status.success());
    let told = text(&output.stderr) + &text(&output.stdout);
    let name = format!("program.{}", table.programs.ending);
    assert!(table.programs.nameless || told.contains(&name), "{told}");
    let fork = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do sleep 9 & done; wait";
    let output = table.run(
        Given::File,
        &table.programs.shell,
        &["--pids-limit", "20"],
        (&[fork], b""),
    );
    assert!(!output.status.success(), "{}", text(&output.stderr));
}

#[test]
#[ignore = "scripts/test-images runs it for each image"]
fn a_program_has_files_time_and_no_network() {
    let table = Table::open();
    table.here.write("in.txt", b"put\n");
    table.prints(&table.programs.read, &["--put", "in.txt"], NOTHING, "put\n");
    table.prints(&table.programs.write, &["--get", "out.txt"], NOTHING, "");
    let written = std::fs::read_to_string(table.here.0.path().join("out.txt")).unwrap();
    assert_eq!(written, "written\n");
    table.prints(&table.programs.temporary, &[], NOTHING, "kept\n");
    table.prints(&table.programs.network, &[], NOTHING, "refused\n");
    let shell = (&["exit 5"][..], &b""[..]);
    let output = table.run(Given::File, &table.programs.shell, &[], shell);
    assert_eq!(exit_code(output.status), 5, "{}", text(&output.stderr));
    let told: u64 = table.printed(&table.programs.clock).trim().parse().unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(now.abs_diff(told) <= 10, "{told}, and it is {now}");
}

#[test]
#[ignore = "scripts/test-images runs it for each image"]
fn no_two_programs_draw_the_same_numbers() {
    let table = Table::open();
    let mut drawn = BTreeSet::new();
    for _ in 0..20 {
        let printed = table.printed(&table.programs.random);
        let words = printed.split_whitespace().map(str::to_owned);
        let before = drawn.len();
        let words: Vec<_> = words.collect();
        assert!(!words.is_empty());
        drawn.extend(words.iter().cloned());
        assert!(
            drawn.len() >= before + words.len(),
            "{printed} was drawn before"
        );
    }
}

#[test]
#[ignore = "scripts/test-images runs it for each image"]
fn a_script_is_run_by_the_image_that_has_its_language() {
    let table = Table::open();
    let script = format!("named.{}", table.programs.ending);
    let code = format!("{}{}", table.programs.opening, table.programs.hello);
    table.here.write(&script, code.as_bytes());
    let mut command = sandbox(&["run", "--quiet", &script]);
    let output = finish(command.current_dir(table.here.0.path()), b"");
    assert_eq!(text(&output.stdout), "hello\n", "{}", text(&output.stderr));
}

#[test]
#[ignore = "scripts/test-images runs it for each image"]
fn an_agent_has_the_language_where_the_image_is() {
    let table = Table::open();
    let server = Server::of(sandbox(&["mcp"]), tempfile::tempdir().unwrap());
    let mut agent = Agent::connect(server);
    agent.initialize();
    assert!(offered(&mut agent).len() > 2);
    // One language may have several endings, and be meant by each.
    let name = &table.programs.ending;
    let call = |code: &str| json!({"code": code, "language": name, "args": ["a b"]});
    let result = agent.call(call(&table.programs.arguments));
    assert_eq!(result["structuredContent"]["stdout"], "a b\n", "{result}");
    let result = agent.call(call(&table.programs.exit));
    assert_eq!(result["structuredContent"]["exit_code"], 3, "{result}");
}

#[test]
#[ignore = "scripts/test-images runs it for the image sql"]
fn sql_is_run_over_the_database_that_is_named() {
    let here = Here::new();
    here.write(
        "fill.sql",
        b"create table t(a, b); insert into t values (1, 'x'), (2, 'y');",
    );
    here.write("ask.sql", b"select sum(a), group_concat(b) from t;");
    let run = |words: &[&str], stdin: &[u8]| {
        let mut command = sandbox(&["run", "--quiet"]);
        finish(command.args(words).current_dir(here.0.path()), stdin)
    };
    let filled = run(&["--get", "a.db", "fill.sql", "a.db"], b"");
    assert_eq!(exit_code(filled.status), 0, "{}", text(&filled.stderr));
    let asked = run(&["--put", "a.db", "ask.sql", "a.db"], b"");
    assert_eq!(text(&asked.stdout), "3|x,y\n", "{}", text(&asked.stderr));
    let code = run(&["-l", "sql", "-c", "select 6 * 7"], b"");
    assert_eq!(text(&code.stdout), "42\n", "{}", text(&code.stderr));
    let wrong = run(&["-l", "sql", "-"], b"select 1; selec 2; select 3;");
    assert_eq!(
        (text(&wrong.stdout), exit_code(wrong.status)),
        ("1\n".into(), 1)
    );
    assert!(text(&wrong.stderr).contains("near \"selec\""));
}

//! Tests of jobs as they are made and handed over.

use super::*;
use crate::error::Remedy;

fn parts<'a>(source: &'a Source, language: Option<&'a str>, variables: &'a [Vec<u8>]) -> Parts<'a> {
    Parts {
        image: Image::built_in(),
        source,
        language,
        arguments: &[],
        variables,
        place: None,
        workdir: b"/work",
        pids: 1,
        root: false,
        terminal: None,
        prompt: false,
    }
}

fn code(language: Option<&str>, variables: &[Vec<u8>]) -> Job {
    make(parts(&Source::Code("pass".into()), language, variables)).unwrap()
}

#[test]
fn a_language_that_the_image_lacks_is_told_with_those_that_it_has() {
    let error = make(parts(&Source::Stdin, Some("cobol"), &[])).unwrap_err();
    assert!(error.message.contains("does not run cobol"), "{error}");
    let known = vec!["python".into(), "bash".into()];
    assert_eq!(error.remedy, Remedy::NameLanguage(known));
}

#[test]
fn a_library_of_the_users_is_loaded_beside_ours() {
    let mut job = code(None, &[b"LD_PRELOAD=/a.so".to_vec()]);
    assert_eq!(job.interpreter(), None);
    job.record = true;
    let env = job.interpreter().unwrap().env;
    let expected: &[u8] = b"LD_PRELOAD=/usr/lib/sandbox/warm.so:/a.so";
    assert_eq!(env.last().unwrap(), expected);
    assert_eq!(env.len(), job.frame.env.len());
}

#[test]
fn nothing_of_the_hosts_environment_is_in_a_job() {
    let job = code(None, &[]);
    let frame = &job.frame;
    let host = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    assert!(
        frame
            .env
            .iter()
            .all(|variable| !variable.ends_with(host.as_bytes()))
    );
    assert_eq!(frame.env.len(), 6);
    assert!(job.suits_a_warm_interpreter());
}

#[test]
fn a_variable_that_is_read_at_start_wants_an_interpreter_of_its_own() {
    for (variable, suits) in [
        ("A=b", true),
        ("USER=other", true),
        ("LANG=C.UTF-8", true),
        ("LANG=C", false),
        ("PYTHONHASHSEED=0", false),
        ("TZ=Asia/Tokyo", true),
        ("TZDIR=/work", false),
        ("LC_ALL=C", false),
    ] {
        let job = code(None, &[variable.into()]);
        assert_eq!(job.suits_a_warm_interpreter(), suits, "{variable}");
        let job = code(Some("bash"), &[variable.into()]);
        assert!(job.suits_a_warm_interpreter(), "{variable}");
    }
}

#[test]
fn the_script_is_the_one_file_at_its_path() {
    let file = |path: &str, content: &str| File {
        path: path.into(),
        mode: SCRIPT_MODE,
        content: content.into(),
        modified: None,
    };
    let image = Image::built_in();
    let mut job = rehearsal((image, image.default_language()), false, "pass");
    job.frame.workdir = b"/tmp/x".into();
    job.files = vec![file("/tmp/x/rehearsal.py", "other"), file("/tmp/x/b", "b")];
    let files = job.into_files();
    let paths: Vec<_> = files.iter().map(|file| &file.path[..]).collect();
    assert_eq!(paths, [&b"/tmp/x"[..], b"/tmp/x/b", b"/tmp/x/rehearsal.py"]);
    assert_eq!(files[2].content, b"pass");
}

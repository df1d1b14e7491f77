//! Files into a session that runs, and out of it.

use crate::common::{exit_code, finish, text};
use crate::session_protocol::Peer;
use crate::sessions::Sessions;
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Output;

impl Sessions {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Asks in the directory of the sessions.
    fn here(&self, words: &[&str]) -> Output {
        finish(self.command(words).current_dir(self.0.path()), b"")
    }

    fn does(&self, words: &[&str]) {
        let output = self.here(words);
        let said = text(&output.stderr);
        assert_eq!(
            (exit_code(output.status), said.as_str()),
            (0, ""),
            "{words:?}"
        );
    }
}

#[test]
fn files_and_directories_go_in_and_come_out_as_with_a_run() {
    let sessions = Sessions::with(&[]);
    fs::create_dir_all(sessions.path("dir/deep")).unwrap();
    fs::write(sessions.path("a.txt"), "ä").unwrap();
    fs::write(sessions.path("dir/deep/run"), "#!/bin/sh\necho run").unwrap();
    fs::set_permissions(sessions.path("dir/deep/run"), Permissions::from_mode(0o755)).unwrap();
    symlink("deep/run", sessions.path("dir/link")).unwrap();
    sessions.does(&[
        "put",
        "a",
        "a.txt",
        "a.txt:b/c.txt",
        "dir",
        "dir/.:/tmp/other",
    ]);
    let look = "import os; print(open('a.txt').read(), open('b/c.txt').read(), os.getuid() == os.stat('b').st_uid)";
    assert_eq!(sessions.gives(look), "ä ä True\n");
    let run = "import os, sys; sys.stdout.flush(); os.system('dir/link; /tmp/other/deep/run')";
    assert!(sessions.gives(run).starts_with("run\nrun\n"));
    sessions.gives(
        "open('out', 'w').write('out'); os.makedirs('made/empty'); open('made/x', 'w').write('x')",
    );
    sessions.does(&[
        "get",
        "a",
        "out",
        "made",
        "a.txt:back.txt",
        "/tmp/other/deep/run:run",
    ]);
    for (path, content) in [("out", "out"), ("made/x", "x"), ("back.txt", "ä")] {
        assert_eq!(fs::read_to_string(sessions.path(path)).unwrap(), content);
    }
    assert!(sessions.path("made/empty").is_dir());
    // What is there is replaced where that is meant.
    fs::write(sessions.path("a.txt"), "new").unwrap();
    sessions.does(&["put", "a", "a.txt"]);
    assert_eq!(sessions.gives("print(open('a.txt').read())"), "new\n");
    let refused = sessions.here(&["get", "a", "out"]);
    assert_eq!(exit_code(refused.status), 125, "{refused:?}");
    sessions.does(&["get", "a", "--force", "out"]);
}

#[test]
fn files_move_while_a_cell_runs() {
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    peer.send(&json!({"verb": "run", "code": "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)"}));
    peer.hear_of("began");
    fs::write(sessions.path("go"), "").unwrap();
    sessions.does(&["put", "a", "go"]);
    assert_eq!(peer.hear_of("ended")["record"]["exit_code"], 0);
}

#[test]
fn files_of_any_size_and_number_go_through() {
    let sessions = Sessions::with(&[]);
    fs::create_dir(sessions.path("many")).unwrap();
    for number in 0..300 {
        fs::write(
            sessions.path(&format!("many/{number}")),
            vec![number as u8; number],
        )
        .unwrap();
    }
    let large: Vec<u8> = (0..9_000_001_u32)
        .map(|n| (n.wrapping_mul(2654435761) >> 24) as u8)
        .collect();
    fs::write(sessions.path("large"), &large).unwrap();
    sessions.does(&["put", "a", "many", "large"]);
    sessions.does(&["get", "a", "many:back", "large:large.back"]);
    assert!(fs::read(sessions.path("large.back")).unwrap() == large);
    for number in 0..300 {
        let content = fs::read(sessions.path(&format!("back/{number}"))).unwrap();
        assert_eq!(content, vec![number as u8; number]);
    }
}

#[test]
fn a_workspace_goes_out_and_in_as_an_archive() {
    let sessions = Sessions::with(&[]);
    sessions.gives("import os; os.makedirs('d'); open('d/f', 'w').write('x' * 3000000)");
    let archive = sessions.here(&["get", "a", "-"]);
    assert_eq!(exit_code(archive.status), 0, "{}", text(&archive.stderr));
    assert!(archive.stdout.len() > 3_000_000);
    assert_eq!(text(&sessions.ask(&["start", "b"]).stdout), "b\n");
    let put = finish(&mut sessions.command(&["put", "b", "-"]), &archive.stdout);
    assert_eq!(exit_code(put.status), 0, "{}", text(&put.stderr));
    let there = sessions.ask(&["exec", "b", "--", "stat", "-c", "%s", "d/f"]);
    assert_eq!(text(&there.stdout), "3000000\n");
    let bad = finish(&mut sessions.command(&["put", "b", "-"]), b"no archive");
    assert_eq!(exit_code(bad.status), 125, "{bad:?}");
    let alone = sessions.here(&["get", "a", "-", "d"]);
    assert!(text(&alone.stderr).contains("goes alone"), "{alone:?}");
}

#[test]
fn files_belong_to_the_user_that_is_named() {
    let sessions = Sessions::of_another_kind(&["--root"]);
    fs::write(sessions.path("f"), "f").unwrap();
    sessions.does(&["put", "a", "f", "f:/work/of/root"]);
    sessions.does(&["put", "a", "--user", "sandbox", "f:/tmp/theirs"]);
    let owners = sessions.ask(&[
        "exec",
        "a",
        "--",
        "stat",
        "-c",
        "%U",
        "f",
        "of",
        "/tmp/theirs",
    ]);
    assert_eq!(text(&owners.stdout), "root\nroot\nsandbox\n");
    sessions.does(&["exec", "a", "--", "chmod", "600", "f"]);
    let refused = sessions.here(&["get", "a", "--user", "sandbox", "f:mine"]);
    assert_eq!(exit_code(refused.status), 125);
    assert!(
        text(&refused.stderr).contains("Permission denied"),
        "{refused:?}"
    );
    sessions.does(&["get", "a", "f:mine"]);
    for words in [
        ["put", "a", "--user", "nosuch", "f"],
        ["get", "a", "--user", "nosuch", "f:mine2"],
    ] {
        let unknown = text(&sessions.here(&words).stderr);
        assert!(unknown.contains("nosuch: no such user"), "{unknown}");
        assert!(unknown.contains("leave the user out"), "{unknown}");
    }
    let mut peer = Peer::connect(&sessions);
    peer.send(&json!({"verb": "put", "user": "root\0"}));
    let refused = peer.hear_of("refused").to_string();
    assert!(refused.contains("a NUL"), "{refused}");
}

#[test]
fn files_of_root_are_moved_only_where_there_is_root() {
    let sessions = Sessions::with(&[]);
    fs::write(sessions.path("f"), "f").unwrap();
    let refused = sessions.here(&["put", "a", "--user", "root", "f"]);
    assert!(
        text(&refused.stderr).contains("the session has no root"),
        "{refused:?}"
    );
}

#[test]
fn what_cannot_be_moved_is_told_with_what_to_do() {
    let sessions = Sessions::with(&[]);
    sessions.gives("import os; os.mkdir('d'); os.mkfifo('pipe')");
    fs::write(sessions.path("f"), "").unwrap();
    for (words, told) in [
        (&["put", "a", "f:/etc/f"][..], ["/etc/f", "below /work"]),
        (&["put", "a", "f:d"], ["/work/d", "DIRECTORY/"]),
        (&["put", "a", "f:pipe/g"], ["/work/pipe", "another path"]),
        (&["put", "a", "nosuch"], ["no nosuch", "HOST in HOST:GUEST"]),
        (&["get", "a", "nosuch"], ["/work/nosuch", "the session has"]),
        (&["get", "a", "d:f"], ["f", "another name: GUEST:HOST"]),
        (&["get", "a", "pipe"], ["pipe", "the session has"]),
        (
            &["get", "a", "/proc/self/mem"],
            ["/proc/self/mem", "the session has"],
        ),
    ] {
        let output = sessions.here(words);
        assert_eq!(exit_code(output.status), 125, "{words:?}: {output:?}");
        let said = text(&output.stderr);
        for told in told {
            assert!(said.contains(told), "{words:?}: {said}");
        }
    }
}

#[test]
fn a_policy_that_bounds_files_has_none_move_in_a_running_session() {
    let sessions = Sessions::new();
    let policy = sessions.path("policy.toml");
    fs::write(&policy, "[run]\nfiles = { count = 3 }\n").unwrap();
    let started = sessions.ask(&["start", "a", "--policy", policy.to_str().unwrap()]);
    assert_eq!(exit_code(started.status), 0, "{started:?}");
    for words in [&["get", "a", "-"][..], &["put", "a", "policy.toml"]] {
        let told = text(&sessions.here(words).stderr);
        assert!(told.contains("policy bounds files"), "{words:?}: {told}");
    }
}

#[test]
fn a_guest_that_sends_what_is_no_file_writes_nothing() {
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    for paths in [json!([]), json!(["relative"]), json!(["/a\u{0}"])] {
        peer.send(&json!({"verb": "get", "paths": paths}));
        assert_eq!(peer.hear()["event"], "refused", "{paths}");
    }
    let link =
        "import os; os.symlink('/etc/passwd', 'link'); os.mkdir('d'); os.symlink('/', 'd/up')";
    sessions.gives(link);
    let output = sessions.here(&["get", "a", "d"]);
    assert!(text(&output.stderr).contains("left out"), "{output:?}");
    assert_eq!(fs::read_dir(sessions.path("d")).unwrap().count(), 0);
}

//! Tests of logs that are written, cut, changed and verified.

use crate::audit::log::ROTATE;
use crate::audit::verify::Fault;
use crate::audit::{Code, Event, Files, Limits, Log, Sound, Start, verify};
use crate::error::Remedy;
use crate::record::{Anchor, Limit};
use proptest::prelude::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

fn start(code: &str) -> Event {
    Event::Start(Start {
        session: None,
        code: Code::new(code.as_bytes(), true),
        language: "python".into(),
        arguments: 0,
        environment: Vec::new(),
        files: Files::default(),
        limits: Limits {
            memory: 256 << 20,
            timeout_s: Some(60.0),
            output: 1 << 20,
            pids: 256,
            stdin: None,
        },
        root: false,
    })
}

fn limit(run: u64) -> Event {
    Event::Limit {
        run,
        limit: Limit::Timeout,
    }
}

/// A log in a directory of its own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(content: &[u8]) -> Self {
        let place = Self::new();
        fs::write(place.path(), content).unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o600)).unwrap();
        place
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.0.path().join(format!("audit.jsonl.{ending}"))
    }

    fn log(&self, rotate: u64) -> Log {
        Log::open(&self.path(), rotate, false).unwrap()
    }

    fn append(&self, event: &Event) -> Anchor {
        self.log(ROTATE).append("somebody", event).unwrap()
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    fn verify(&self, anchors: &[Anchor]) -> Result<Sound, Fault> {
        verify(&self.path(), anchors).unwrap()
    }

    #[track_caller]
    fn assert_sound(&self, entries: u64, torn: u64) {
        let sound = self.verify(&[]).unwrap();
        assert_eq!((sound.entries, sound.torn), (entries, torn));
    }
}

/// A log of six entries, and their anchors.
static LOG: LazyLock<(Vec<u8>, Vec<Anchor>)> = LazyLock::new(|| {
    let place = Place::new();
    let code = ["print(1)", "{\"hash\":\"\"}", "\n", "\"}"];
    let mut anchors: Vec<_> = code.iter().map(|code| place.append(&start(code))).collect();
    anchors.push(place.append(&limit(1)));
    anchors.push(place.append(&limit(2)));
    (place.content(), anchors)
});

fn lines() -> Vec<&'static [u8]> {
    LOG.0.split_inclusive(|&byte| byte == b'\n').collect()
}

#[test]
fn a_log_that_nobody_touched_is_sound() {
    let (content, anchors) = &*LOG;
    let sound = Place::with(content).verify(anchors).unwrap();
    assert_eq!(sound.head, anchors[5]);
    assert_eq!(sound.open, [1, 2, 3, 4]);
}

#[test]
fn an_empty_file_is_the_log_of_nothing_and_can_be_begun() {
    let place = Place::with(b"");
    place.assert_sound(0, 0);
    place.append(&start(""));
    place.assert_sound(1, 0);
}

#[test]
fn the_file_is_for_its_owner_only() {
    let place = Place::new();
    place.append(&start(""));
    assert_eq!(place.path().metadata().unwrap().mode() & 0o777, 0o600);
}

#[track_caller]
fn assert_refused(path: &Path, why: &str) {
    let error = Log::open(path, ROTATE, false).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn a_file_that_others_may_have_written_is_refused() {
    let place = Place::with(b"");
    let link = place.beside("link");
    symlink(place.path(), &link).unwrap();
    assert_refused(&link, "symbolic link");
    for mode in [0o640, 0o620, 0o604, 0o602] {
        fs::set_permissions(place.path(), Permissions::from_mode(mode)).unwrap();
        assert_refused(&place.path(), "others");
    }
    assert_refused(place.0.path(), "not a regular file");
    let fifo = place.beside("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_refused(&fifo, "not a regular file");
    assert_refused(&place.beside("x/y"), "cannot be written");
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return; // nobody else may give files away
    }
    let place = Place::with(b"");
    std::os::unix::fs::chown(place.path(), Some(1), None).unwrap();
    assert_refused(&place.path(), "somebody else");
}

#[test]
fn nothing_is_appended_to_what_is_no_log_or_was_changed_at_its_end() {
    let mut changed = LOG.0.clone();
    let length = changed.len();
    changed[length - 200] ^= 1;
    for content in [b"root:x:0:0\n".as_slice(), &changed] {
        let place = Place::with(content);
        assert_refused(&place.path(), "does not end as an audit log does");
        assert_eq!(place.content(), content);
    }
}

#[test]
fn any_removed_entry_is_found() {
    for index in 0..5 {
        let mut lines = lines();
        lines.remove(index);
        let fault = Place::with(&lines.concat()).verify(&[]).unwrap_err();
        assert_eq!(fault.line, Some(index as u64 + 1), "{fault}");
    }
}

#[test]
fn any_two_entries_that_change_places_are_found() {
    for first in 0..6 {
        for second in first + 1..6 {
            let mut lines = lines();
            lines.swap(first, second);
            let fault = Place::with(&lines.concat()).verify(&[]).unwrap_err();
            assert_eq!(fault.line, Some(first as u64 + 1), "{fault}");
        }
    }
}

#[test]
fn any_entry_that_is_there_twice_is_found() {
    for index in 0..6 {
        for place in 0..=6 {
            let mut lines = lines();
            lines.insert(place, lines[index]);
            let fault = Place::with(&lines.concat()).verify(&[]);
            assert!(fault.is_err(), "{index} at {place}");
        }
    }
}

#[test]
fn any_cut_is_found_by_whoever_kept_where_it_ended() {
    let (content, anchors) = &*LOG;
    for length in 0..content.len() {
        let place = Place::with(&content[..length]);
        assert!(place.verify(&anchors[5..]).is_err(), "{length}");
    }
}

#[test]
fn an_entry_that_was_written_anew_with_all_after_it_is_found_by_its_hash() {
    let place = Place::new();
    for code in ["print(1)", "something else"] {
        place.append(&start(code));
    }
    for run in 1..5 {
        place.append(&limit(run));
    }
    place.assert_sound(6, 0);
    let fault = place.verify(&LOG.1[5..]).unwrap_err();
    assert_eq!(fault.line, Some(6), "{fault}");
}

#[test]
fn a_cut_at_any_byte_is_told_by_the_next_entry() {
    let (content, _) = &*LOG;
    let mut whole = 0;
    for length in 1..content.len() {
        let place = Place::with(&content[..length]);
        let torn = content[length - 1] != b'\n' && content[length] != b'\n';
        assert_eq!(place.verify(&[]).is_err(), content[length - 1] != b'\n');
        whole += u64::from(content[length] == b'\n');
        place.append(&limit(1));
        place.assert_sound(whole + 1, torn.into());
    }
}

#[test]
fn writers_that_were_killed_in_turn_are_told_by_the_next_entry() {
    let line = lines()[0];
    for length in (1..line.len() - 1).step_by(61) {
        let place = Place::with(&line[..length]);
        place.append(&limit(1));
        let sealed = place.content();
        // The writer that would have recorded the torn line was killed too.
        for length in length + 1..sealed.len() - 1 {
            let place = Place::with(&sealed[..length]);
            place.append(&limit(1));
            let sound = place.verify(&[]).unwrap();
            assert!(sound.torn == 1 && sound.entries <= 2, "{length}");
        }
        // No byte of the result can change unseen either.
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(Place::with(&changed).verify(&[]).is_err(), "{position}");
        }
    }
}

#[test]
fn a_line_that_was_torn_cannot_be_taken_away_unseen() {
    let place = Place::with(&LOG.0[..LOG.0.len() - 9]);
    place.append(&limit(1));
    let content = place.content();
    let mut lines: Vec<_> = content.split_inclusive(|&byte| byte == b'\n').collect();
    assert_eq!(lines.len(), 7);
    lines.remove(5);
    let fault = Place::with(&lines.concat()).verify(&[]).unwrap_err();
    assert_eq!(fault.line, Some(6), "{fault}");
}

#[test]
fn full_files_get_numbers_and_the_chain_goes_on_over_them() {
    let place = Place::new();
    let log = place.log(1400);
    let anchors: Vec<_> = (1..=50)
        .map(|run| log.append("somebody", &limit(run)).unwrap())
        .collect();
    place.assert_sound(50, 0);
    assert!(place.verify(&anchors).is_ok());
    assert!(place.beside("9").exists() && !place.beside("next").exists());
    for number in 1..10 {
        assert!(place.beside(&number.to_string()).metadata().unwrap().len() <= 1400);
    }
    let (four, five) = (place.beside("4"), place.beside("5"));
    let moved = place.beside("moved");
    fs::rename(&four, &moved).unwrap();
    let fault = place.verify(&[]).unwrap_err();
    assert_eq!((fault.file, fault.line), (five.clone(), Some(1)));
    fs::rename(&five, &four).unwrap();
    fs::rename(&moved, &five).unwrap();
    assert_eq!(place.verify(&[]).unwrap_err().file, four);
}

#[test]
fn files_that_were_moved_away_leave_a_log_that_begins_where_they_end() {
    let place = Place::new();
    let log = place.log(1400);
    let anchors: Vec<_> = (1..=20)
        .map(|run| log.append("somebody", &limit(run)).unwrap())
        .collect();
    fs::remove_file(place.beside("1")).unwrap();
    let fault = place.verify(&[]).unwrap_err();
    assert_eq!(fault.file, place.beside("2"));
    let Some(Remedy::GiveAnchor(kept)) = fault.remedy else {
        panic!("{fault}: {:?}", fault.remedy)
    };
    assert!(fault.what.contains(&(kept + 1).to_string()), "{fault}");
    let kept = &anchors[kept as usize - 1];
    assert!(place.verify(std::slice::from_ref(kept)).is_ok());
    let mut other = kept.clone();
    other.hash = anchors[0].hash.clone();
    assert!(place.verify(&[other]).is_err());
    assert!(place.verify(&[kept.clone(), anchors[0].clone()]).is_err());
}

#[test]
fn who_is_killed_while_a_file_is_begun_leaves_a_log() {
    let place = Place::new();
    let log = place.log(400);
    log.append("somebody", &limit(1)).unwrap();
    // The new file is not finished, and the full one has its number but was not replaced.
    fs::write(place.beside("next"), "{\"seq").unwrap();
    fs::hard_link(place.path(), place.beside("1")).unwrap();
    place.assert_sound(1, 0);
    for run in 2..5 {
        log.append("somebody", &limit(run)).unwrap();
        place.assert_sound(run, 0);
    }
    assert!(place.beside("2").exists());
}

#[test]
fn what_is_in_the_way_of_a_full_file_is_not_replaced() {
    let place = Place::new();
    let log = place.log(400);
    log.append("somebody", &limit(1)).unwrap();
    fs::write(place.beside("1"), "precious").unwrap();
    let error = format!("{:#}", log.append("somebody", &limit(2)).unwrap_err());
    assert!(error.contains("in the way"), "{error}");
    assert_eq!(fs::read(place.beside("1")).unwrap(), b"precious");
}

#[test]
fn what_is_no_regular_file_is_not_read_and_not_waited_for() {
    let place = Place::with(&LOG.0);
    let fifo = place.beside("7");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, opened) in [(&place.path(), &fifo), (&fifo, &fifo)] {
        let error = format!("{:#}", verify(path, &[]).unwrap_err());
        assert!(error.contains(opened.to_str().unwrap()), "{error}");
        assert!(error.ends_with("it is not a regular file"), "{error}");
    }
}

#[test]
fn many_writers_make_one_chain() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let log = place.log(20_000);
                    log.append("somebody", &limit(1)).unwrap();
                    log.append("somebody", &limit(2)).unwrap();
                }
            });
        }
    });
    place.assert_sound(800, 0);
    assert!(place.beside("2").exists());
}

#[test]
fn a_log_that_was_moved_away_is_followed_by_a_new_one() {
    let place = Place::new();
    let log = place.log(ROTATE);
    log.append("somebody", &limit(1)).unwrap();
    fs::rename(place.path(), place.beside("old")).unwrap();
    assert_eq!(log.append("somebody", &limit(1)).unwrap().sequence, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn any_byte_that_changes_is_found(position: prop::sample::Index, change in 1u8..) {
        let mut content = LOG.0.clone();
        let position = position.index(content.len());
        content[position] ^= change;
        let line = LOG.0[..position].iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
        let fault = Place::with(&content).verify(&[]).unwrap_err();
        prop_assert_eq!(fault.line, Some(line));
    }

    #[test]
    fn any_piece_that_is_cut_out_or_put_in_is_found(
        from: prop::sample::Index, length in 1usize..600, at: prop::sample::Index, cut: bool
    ) {
        let mut content = LOG.0.clone();
        let from = from.index(content.len() - 1);
        let to = (from + length).min(content.len() - 1);
        if cut {
            content.drain(from..to);
        } else {
            let piece = content[from..to].to_vec();
            let at = at.index(content.len());
            content.splice(at..at, piece);
        }
        // Without the anchor of the last line, nobody can tell that it is missing.
        prop_assert!(Place::with(&content).verify(&LOG.1[5..]).is_err());
    }
}

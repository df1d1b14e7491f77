//! Tests of the stream of files that a guest sends: true, broken and forged.

use super::*;
use crate::files::COUNT_MAX;
use guest::FileStream;
use proptest::prelude::*;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use tempfile::TempDir;

/// A directory with one for the files in it; everything beside that must stay as it is.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir(host.path()).unwrap();
        fs::write(host.0.path().join("secret"), "unchanged").unwrap();
        host
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("here")
    }

    fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn unpack(&self, force: bool, stream: impl Read) -> Fetched {
        let place = |name: &str| {
            Place::open(Destination {
                guest: format!("/work/{name}").into(),
                directory: self.path(),
                name: name.into(),
            })
            .unwrap()
        };
        let rules = Rules {
            size_max: 1 << 20,
            count_max: COUNT_MAX,
            force,
        };
        let places = vec![place("first"), place("second")];
        let fetched = Unpack::new(stream, places, rules).run();
        assert_eq!(self.around(), ["here", "secret"]);
        let secret = fs::read(self.0.path().join("secret")).unwrap();
        assert_eq!(secret, b"unchanged");
        fetched
    }

    fn take(&self, files: &[guest::File]) -> Fetched {
        self.unpack(false, stream(files))
    }

    fn around(&self) -> Vec<String> {
        names(self.0.path())
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn record(path: &str, mode: u32, content: &[u8]) -> guest::File {
    guest::File {
        path: path.into(),
        mode,
        content: content.into(),
        ..guest::File::default()
    }
}

fn file(path: &str, content: &[u8]) -> guest::File {
    record(path, kind::FILE | 0o644, content)
}

fn directory(path: &str) -> guest::File {
    record(path, kind::DIRECTORY | 0o755, b"")
}

fn stream(files: &[guest::File]) -> Cursor<Vec<u8>> {
    Cursor::new(FileStream::new(files.to_vec()).take(usize::MAX))
}

fn failure(fetched: &Fetched) -> &str {
    &fetched.failure.as_ref().expect("it did not fail").message
}

fn mode_of(path: PathBuf) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn files_and_directories_arrive_with_their_modes() {
    let host = Host::new();
    let fetched = host.take(&[
        record("0", kind::DIRECTORY | 0o777, b""),
        record("0/run", kind::FILE | 0o7777, b"#!"),
        record("0/closed", kind::DIRECTORY | 0o555, b""),
        file("0/closed/in", b"x"),
        record("0/empty", kind::DIRECTORY | 0o2700, b""),
        record("1", kind::FILE | 0o200, b""),
    ]);
    assert_eq!(fetched.failure, None);
    assert_eq!(fetched.files.count, 3);
    for (name, size) in [("first/run", 2), ("first/closed/in", 1), ("second", 0)] {
        assert_eq!(host.join(name).metadata().unwrap().len(), size, "{name}");
    }
    for (name, mode) in [
        ("first", 0o755),
        ("first/closed", 0o755),
        ("first/empty", 0o700),
        ("second", 0o600),
    ] {
        assert_eq!(mode_of(host.join(name)), mode, "{name}");
    }
    // There is no set-user-ID bit; the umask of the process decides the rest. The user can remove it all.
    assert_eq!(mode_of(host.join("first/run")) & 0o7700, 0o700);
    assert_eq!(fs::read(host.join("first/closed/in")).unwrap(), b"x");
}

#[test]
fn no_path_leads_out_of_its_destination() {
    for path in [
        "/etc/x",
        "0/../x",
        "0/..",
        "..",
        ".",
        "0/./x",
        "0//x",
        "0/",
        "0/a\0b",
        "2",
        "2/x",
        "-1",
        "x",
        "18446744073709551616",
        " 0",
        "secret",
        "../secret",
    ] {
        let host = Host::new();
        let fetched = host.take(&[directory("0"), file(path, b"x")]);
        let told = failure(&fetched);
        assert!(told.starts_with("the guest sent"), "{path:?}: {told}");
        assert_eq!(fetched.files.count, 0, "{path:?}");
    }
}

#[test]
fn a_link_on_the_host_is_never_followed() {
    for force in [false, true] {
        let host = Host::new();
        symlink("..", host.join("first")).unwrap();
        symlink("../secret", host.join("second")).unwrap();
        let through = host.unpack(force, stream(&[file("0/secret", b"x")]));
        assert!(
            failure(&through).contains("cannot be written"),
            "{through:?}"
        );
        let onto = host.unpack(force, stream(&[file("1", b"x")]));
        assert_eq!(onto.failure.is_none(), force);
        let instead = host.unpack(force, stream(&[directory("0"), file("0/secret", b"x")]));
        assert_eq!(instead.failure.is_none(), force);
    }
}

#[test]
fn what_is_neither_file_nor_directory_is_left_out_and_told() {
    let host = Host::new();
    let fetched = host.take(&[
        directory("0"),
        record("0/link", kind::LINK | 0o777, b""),
        record("0/device", 0o020_666, b""),
        record("0/block", 0o060_666, b""),
        record("0/fifo", 0o010_666, b""),
        record("0/socket\x1b[2J", 0o140_666, b""),
        record("0/whatever", 0o170_666, b""),
        file("0/kept", b"x"),
        record("1", kind::LINK | 0o777, b""),
    ]);
    assert_eq!(fetched.failure, None);
    assert_eq!(names(&host.join("first")), ["kept"]);
    assert_eq!(fetched.left_out.count, 6);
    assert_eq!(fetched.left_out.first[0], "/work/first/link");
    assert_eq!(fetched.left_out.first[4], "/work/first/socket\\u{1b}[2J");
    let expected = ["/work/second: neither file nor directory"];
    assert_eq!(fetched.missing.first, expected);
    assert!(!host.join("second").exists());
}

#[test]
fn what_could_not_be_read_is_told() {
    let mut stream = Vec::new();
    let header = Header {
        path: 1,
        size: libc::ENOENT as u64,
        ..Header::default()
    };
    stream.extend(header.encode());
    stream.extend(b"1");
    stream.extend(Header::default().encode());
    let fetched = Host::new().unpack(false, &*stream);
    assert_eq!(
        fetched.missing.first,
        ["/work/second: No such file or directory"]
    );
    assert_eq!(fetched.failure, None);
}

#[test]
fn a_record_without_content_has_none() {
    for mode in [kind::DIRECTORY, kind::LINK, 0o010_000] {
        let fetched = Host::new().take(&[directory("0"), record("0/x", mode, b"content")]);
        assert!(failure(&fetched).contains("with content"), "{mode:o}");
    }
}

#[test]
fn a_name_is_taken_once() {
    for (second, told) in [
        (file("0/a", b"2"), "is there already"),
        (directory("0/a"), "is there already"),
        (file("0/a/b", b"2"), "cannot be written"),
    ] {
        let host = Host::new();
        let fetched = host.take(&[directory("0"), file("0/a", b"1"), second]);
        assert!(failure(&fetched).contains(told), "{fetched:?}");
        assert_eq!(fs::read(host.join("first/a")).unwrap(), b"1");
    }
}

#[test]
fn force_replaces_files_and_links_and_removes_no_directory() {
    let host = Host::new();
    fs::create_dir_all(host.join("first/full")).unwrap();
    fs::write(host.join("first/full/kept"), "kept").unwrap();
    fs::write(host.join("first/old"), "longer than before").unwrap();
    symlink("../../secret", host.join("first/link")).unwrap();
    let files = [
        directory("0"),
        directory("0/full"),
        file("0/full/new", b"new"),
        file("0/old", b"new"),
        file("0/link", b"new"),
    ];
    assert!(failure(&host.take(&files)).contains("is there already"));
    assert_eq!(host.unpack(true, stream(&files)).failure, None);
    for name in ["full/new", "old", "link"] {
        let path = host.join("first").join(name);
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
        assert_eq!(fs::read(path).unwrap(), b"new", "{name}");
    }
    let over = host.unpack(true, stream(&[file("0/full", b"x")]));
    assert!(failure(&over).contains("is a directory"), "{over:?}");
    assert_eq!(fs::read(host.join("first/full/kept")).unwrap(), b"kept");
}

#[test]
fn a_stream_that_is_cut_anywhere_leaves_whole_files_only() {
    let whole = stream(&[directory("0"), file("0/a", b"12345"), file("1", b"67890")]).into_inner();
    for length in 0..whole.len() {
        let host = Host::new();
        let fetched = host.unpack(false, &whole[..length]);
        assert!(
            failure(&fetched).contains("the run ended before"),
            "{length}"
        );
        for (name, content) in [("first/a", b"12345"), ("second", b"67890")] {
            if let Ok(found) = fs::read(host.join(name)) {
                assert_eq!(found, content, "{length}");
            }
        }
    }
}

#[test]
fn sizes_are_bounded_before_anything_is_written() {
    for size in [(1 << 20) + 1, u64::MAX, 1 << 63, 10 << 30] {
        let host = Host::new();
        let header = Header {
            path: 1,
            mode: kind::FILE | 0o644,
            size,
            modified: None,
        };
        let bytes = [&header.encode()[..], b"0"].concat();
        let fetched = host.unpack(false, bytes.chain(io::repeat(0)));
        assert!(failure(&fetched).contains("more than 1 MiB"), "{fetched:?}");
        assert_eq!(names(&host.path()), [""; 0]);
    }
    let two = [file("0", &[0; 600 << 10]), file("1", &[0; 600 << 10])];
    let fetched = Host::new().take(&two);
    assert!(failure(&fetched).contains("more than 1 MiB"), "{fetched:?}");
}

#[test]
fn a_path_is_bounded_before_it_is_read() {
    let header = Header {
        path: u32::MAX,
        ..Header::default()
    };
    let fetched = Host::new().unpack(false, header.encode().chain(io::repeat(b'x')));
    assert!(failure(&fetched).contains("too long"), "{fetched:?}");
}

#[test]
fn a_million_records_are_too_many() {
    let host = Host::new();
    let link = record("0", kind::LINK, b"");
    let one = FileStream::new(vec![link]).take(Header::LENGTH + 1);
    let fetched = host.unpack(false, Cursor::new(one.repeat(1_000_000)));
    assert!(
        failure(&fetched).contains("more than 100000 files"),
        "{fetched:?}"
    );
    assert_eq!(fetched.missing.count, COUNT_MAX);
}

#[test]
fn a_name_that_the_file_system_does_not_take_is_an_error() {
    let long = format!("0/{}", "x".repeat(256));
    let fetched = Host::new().take(&[directory("0"), file(&long, b"")]);
    assert!(
        failure(&fetched).contains("File name too long"),
        "{fetched:?}"
    );
}

#[test]
fn a_full_file_system_is_told_and_leaves_no_half_file() {
    let host = Host::new();
    let place = |directory: &Path, name: &str| {
        Place::open(Destination {
            guest: b"/x".into(),
            directory: directory.into(),
            name: name.into(),
        })
        .unwrap()
    };
    mount_64_kib(&host.path());
    fs::write(host.join("second"), "old").unwrap();
    let rules = |force| Rules {
        size_max: 1 << 20,
        count_max: COUNT_MAX,
        force,
    };
    let files = [
        directory("0"),
        file("0/a", b"x"),
        file("0/b", &[1; 200 << 10]),
    ];
    let places = vec![place(&host.path(), "first")];
    let fetched = Unpack::new(stream(&files), places, rules(false)).run();
    assert!(failure(&fetched).contains("No space left"), "{fetched:?}");
    let full = Remedy::ChooseDestination(Fault::Full);
    assert_eq!(fetched.failure.unwrap().remedy, full);
    assert_eq!(names(&host.join("first")), ["a"]);
    let places = vec![place(&host.path(), "second")];
    let large = [file("0", &[1; 200 << 10])];
    let fetched = Unpack::new(stream(&large), places, rules(true)).run();
    assert!(failure(&fetched).contains("No space left"), "{fetched:?}");
    assert_eq!(fs::read(host.join("second")).unwrap(), b"old");
    assert_eq!(names(&host.path()), ["first", "second"]);
}

/// Mounts a small file system there, in a mount namespace of this thread.
fn mount_64_kib(directory: &Path) {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).unwrap_or_else(|_| {
        // One of several threads cannot get a user namespace; root needs none.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
    });
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let (tmpfs, small) = (Some("tmpfs"), Some("size=64k"));
    mount(tmpfs, directory, tmpfs, MsFlags::empty(), small).unwrap();
}

#[test]
fn what_is_deeper_than_anybody_makes_it_is_told_and_the_rest_fetched() {
    let host = Host::new();
    let deep = format!("0{}", "/d".repeat(DEPTH_MAX + 1));
    let fetched = host.take(&[directory("0"), file(&deep, b"x"), file("0/a", b"y")]);
    assert_eq!(fetched.failure, None);
    assert_eq!(fetched.missing.count, 1);
    assert!(fetched.missing.first[0].ends_with("more than 256 directories deep"));
    assert_eq!(names(&host.join("first")), ["a"]);
}

/// Generates paths from names that mean something to a file system.
fn any_path() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec!["0", "1", "a", "b", "..", ".", "", "secret"]);
    proptest::collection::vec(piece, 1..5).prop_map(|pieces| pieces.join("/"))
}

fn any_record() -> impl Strategy<Value = guest::File> {
    let modes = prop_oneof![
        Just(kind::FILE | 0o644),
        Just(kind::DIRECTORY | 0o755),
        Just(kind::DIRECTORY),
        Just(kind::LINK | 0o777),
        any::<u32>(),
    ];
    let content = proptest::collection::vec(any::<u8>(), 0..3);
    let parts = (any_path(), modes, content, any::<Option<i64>>());
    parts.prop_map(|(path, mode, content, modified)| guest::File {
        modified,
        ..record(&path, mode, &content)
    })
}

proptest! {
    /// Host::unpack checks that nothing has changed beside the destination.
    #[test]
    fn any_records_stay_below_their_destinations(
        records in proptest::collection::vec(any_record(), 0..20),
        force: bool,
        cut in 0..400usize,
    ) {
        let host = Host::new();
        symlink("../secret", host.join("second")).unwrap();
        let bytes = stream(&records).into_inner();
        host.unpack(force, &bytes[..bytes.len().saturating_sub(cut)]);
        for name in names(&host.path()) {
            prop_assert!(["first", "second"].contains(&&*name));
        }
    }

    #[test]
    fn any_bytes_end_in_a_result(bytes: Vec<u8>, force: bool) {
        Host::new().unpack(force, &*bytes);
    }
}

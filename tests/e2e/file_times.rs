//! Files and directories keep the times of their last change, into the guest and out of it.

use crate::files::Here;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

/// Sets the times of a file, a directory or a link.
pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    let flags = UtimensatFlags::NoFollowSymlink;
    utimensat(AT_FDCWD, path, &time, &time, flags).unwrap();
}

fn time_of(path: &Path) -> (i64, i64) {
    let metadata = path.symlink_metadata().unwrap();
    (metadata.mtime(), metadata.mtime_nsec())
}

/// Code that prints the time of each path that it is given, in nanoseconds.
const TELLS: &str = "import os, sys
for path in sys.argv[1:]: print(os.lstat(path).st_mtime_ns)";

#[test]
fn few_small_files_and_directories_keep_their_times_on_the_way_in() {
    let here = Here::new();
    let paths = [
        ("top/inner/file", 978_307_200, 123_456_789),
        ("top/inner/link", 0, 0),
        ("top/empty", -86_400, 1),
        ("top/inner", 1_000_000_000, 999_999_999),
        ("top", 4_102_444_800, 5),
        ("one.csv", 981_173_106, 0),
    ];
    fs::create_dir_all(here.path("top/inner")).unwrap();
    fs::create_dir(here.path("top/empty")).unwrap();
    here.write("top/inner/file", b"content");
    here.write("one.csv", b"1");
    symlink("file", here.path("top/inner/link")).unwrap();
    for (path, seconds, nanoseconds) in paths {
        set_time(&here.path(path), seconds, nanoseconds);
    }
    for place in ["/work", "/tmp"] {
        let puts = ["top", "one.csv"].map(|name| format!("--put={name}:{place}/{name}"));
        let mut command = here.command(&puts.each_ref().map(|put| &**put), TELLS);
        command.args(paths.map(|(path, ..)| format!("{place}/{path}")));
        let output = crate::common::finish(&mut command, b"");
        let expected = paths.map(|(_, seconds, nanoseconds)| seconds * 1_000_000_000 + nanoseconds);
        let expected = expected.map(|time| format!("{time}\n")).concat();
        assert_eq!(crate::common::text(&output.stdout), expected, "{output:?}");
    }
}

#[test]
fn what_is_in_a_directory_may_be_put_where_another_user_owns_it() {
    let here = Here::new();
    fs::create_dir(here.path("top")).unwrap();
    here.write("top/file", b"content");
    set_time(&here.path("top/file"), 1_000, 0);
    set_time(&here.path("top"), 2_000, 0);
    for place in ["/tmp", "/work", "/dev/shm"] {
        let code = format!("import os; print(os.stat('{place}/file').st_mtime)");
        let put = format!("--put=top/.:{place}");
        assert_eq!(here.succeed(&[&put], &code), "1000.0\n");
    }
}

#[test]
fn files_and_directories_keep_their_times_on_the_way_out() {
    let here = Here::new();
    here.succeed(
        &["--get", "top", "--get", "one"],
        "import os
os.makedirs('top/inner/empty')
for path in 'one', 'top/inner/file': open(path, 'w').write('content')
for time, path in enumerate(['one', 'top/inner/file', 'top/inner/empty', 'top/inner', 'top']):
    os.utime(path, ns=(5, 978307200_000000001 + time))",
    );
    let paths = [
        "one",
        "top/inner/file",
        "top/inner/empty",
        "top/inner",
        "top",
    ];
    for (time, path) in (1..).zip(paths) {
        assert_eq!(time_of(&here.path(path)), (978_307_200, time), "{path}");
    }
}

#[test]
fn a_time_that_nothing_can_have_makes_no_failure() {
    let here = Here::new();
    here.succeed(
        &["--get", "late", "--get", "early"],
        "import os
for path, seconds in ('late', 2**62), ('early', -2**62):
    open(path, 'w').write('content')
    os.utime(path, (seconds, seconds))",
    );
    assert_eq!(here.read("late"), b"content");
    assert_eq!(here.read("early"), b"content");
}

#[test]
fn a_directory_that_was_there_keeps_its_own_time() {
    let here = Here::new();
    fs::create_dir_all(here.path("out/there")).unwrap();
    set_time(&here.path("out/there"), 1_000_000_000, 0);
    here.succeed(
        &["--force", "--get", "dir/.:out"],
        "import os
os.makedirs('dir/there'); os.makedirs('dir/new')
for path in 'dir/there', 'dir/new', 'dir': os.utime(path, (5, 5))",
    );
    assert_eq!(time_of(&here.path("out/there")), (1_000_000_000, 0));
    assert_eq!(time_of(&here.path("out/new")), (5, 0));
    assert_ne!(time_of(&here.path("out")), (5, 0));
}

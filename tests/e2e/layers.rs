//! Layers of packages in machines: many at once, one that is gone meanwhile, and beside files that are put.

use crate::common::{exit_code, said, start, text};
use crate::files::noise;
use crate::packages::Place;
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Child;

/// Code that checks 6 MiB of data.
const CHECKS: &str = "import zlib
path = __file__[:-3] + '.bin'
def check(): return zlib.crc32(open(path, 'rb').read())
";

/// Waits for a line between two looks at the data.
const LOOKS: &str =
    "import large\nprint(large.check() and 'ready', flush=True)\ninput()\nprint(large.check())";

fn place() -> Place {
    let place = Place::new();
    // No two pages are the same.
    let data: String = noise(6 << 20).into_iter().map(char::from).collect();
    let files = json!({"large.py": CHECKS, "large.bin": data});
    place.add_wheels(&json!([["large", "1.0", "", files]]));
    place.does(&["packages", "setup"]);
    place.does(&["run", "--with", "large", "-c", "import large"]);
    place
}

fn looking(place: &Place) -> Child {
    let words = ["run", "--with", "large", "-m", "64M", "-c", LOOKS];
    let mut child = start(&mut place.command(&words));
    let mut line = String::new();
    let mut stdout = BufReader::with_capacity(6, child.stdout.as_mut().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn layer(place: &Place) -> PathBuf {
    let entries = fs::read_dir(place.cache_path("layers")).unwrap();
    let [path] =
        <[_; 1]>::try_from(entries.map(|it| it.unwrap().path()).collect::<Vec<_>>()).unwrap();
    path
}

/// Truncates a file under a program that waits for a line before it reads more of it, and checks that this
/// ends its run and is told.
pub fn is_ended_by_truncation(mut child: Child, file: &Path) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_len(4096).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_ne!(exit_code(output.status), 0, "{output:?}");
    assert!(said(&output).contains("truncated"), "{output:?}");
}

#[test]
fn thirty_two_machines_read_one_layer_at_once() {
    let place = place();
    let mut children: Vec<_> = (0..32).map(|_| looking(&place)).collect();
    for child in &mut children {
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
    let outputs = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap());
    let told: Vec<_> = outputs.map(|output| text(&output.stdout)).collect();
    assert!(
        told.iter().all(|it| *it == told[0] && it.len() > 2),
        "{told:?}"
    );
}

#[test]
fn a_layer_that_shrinks_meanwhile_ends_its_run_and_is_made_again() {
    let place = place();
    let child = looking(&place);
    let path = layer(&place);
    // As its user may, who gives permission first.
    let mut permissions = path.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&path, permissions).unwrap();
    is_ended_by_truncation(child, &path);
    let output = place.sandbox(&["run", "--with", "large", "-c", "import large; print('ran')"]);
    assert_eq!(text(&output.stdout), "ran\n", "{output:?}");
}

#[test]
fn a_layer_of_packages_and_one_of_files_are_in_one_machine() {
    let place = place();
    fs::create_dir(place.path("data")).unwrap();
    for number in 0..400 {
        place.script(&format!("data/file-{number}"), &"x".repeat(9000));
    }
    let code = "import large, os\nprint(len(os.listdir('data')), large.check() > 0)\nopen('data/file-0', 'w').write('mine')";
    for how in [&[][..], &["--fresh"], &["--no-preload"], &["--root"]] {
        let words = [
            &["run", "--with", "large", "--put", "data"],
            how,
            &["-c", code],
        ]
        .concat();
        let output = place.sandbox(&words);
        assert_eq!(text(&output.stdout), "400 True\n", "{how:?}: {output:?}");
    }
    let first = fs::read(place.path("data/file-0")).unwrap();
    assert_eq!(first.len(), 9000);
}

#[test]
fn root_in_a_guest_changes_nothing_in_a_layer_of_packages() {
    let place = place();
    let before = fs::read(layer(&place)).unwrap();
    let code = "
import large, mmap, os
os.system('mount -o remount,rw ' + os.path.dirname(large.path))
for path in '/dev/pmem1', large.path, large.path[:-4] + '.py':
    for at in 0, 4096, 2 << 20:
        try:
            fd = os.open(path, os.O_RDWR)
            os.pwrite(fd, b'overwritten', at)
            os.fsync(fd)
            mmap.mmap(fd, 4 << 20)[at:at + 11] = b'overwritten'
        except (OSError, ValueError):
            pass
size = os.open('/dev/pmem1', os.O_RDONLY)
end = os.lseek(size, 0, 2)
print(end, os.read(size, 10))";
    let output = place.sandbox(&["run", "--with", "large", "--root", "-c", code]);
    let survived = text(&output.stdout) == format!("{} b''\n", before.len());
    assert!(survived || !said(&output).is_empty(), "{output:?}");
    assert!(fs::read(layer(&place)).unwrap() == before);
}

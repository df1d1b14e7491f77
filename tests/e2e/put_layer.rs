//! Many or large files that are put: the guest mounts them, and the program cannot tell that from files
//! that were made for it.

use crate::common::{exit_code, finish, said, start, text};
use crate::file_times::set_time;
use crate::files::{Here, noise, tree};
use crate::layers::is_ended_by_truncation;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Code that tells what is below a directory: paths, modes, kinds, sizes, times, link counts, and
/// contents.
const LISTING: &str = "
import hashlib, os, stat
def tell(top):
    for above, names, files in sorted(os.walk(os.fsencode(top))):
        for name in sorted(names + files):
            path = os.path.join(above, name)
            it = os.lstat(path)
            content = os.readlink(path) if stat.S_ISLNK(it.st_mode) else b''
            if stat.S_ISREG(it.st_mode):
                content = hashlib.sha256(open(path, 'rb').read()).hexdigest()
            links = 0 if stat.S_ISDIR(it.st_mode) else it.st_nlink
            size = 0 if stat.S_ISDIR(it.st_mode) else it.st_size
            yield path, oct(it.st_mode), size, it.st_mtime_ns, links, content
";

/// Makes a directory of 300 files and whatever else may be in one.
fn odd_tree(here: &Here) {
    let top = here.path("odd");
    for number in 0..300 {
        let directory = top.join(format!("d{}/e{}", number % 7, number % 3));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{number}")), noise(number * 37)).unwrap();
    }
    fs::create_dir_all(top.join("empty/inner")).unwrap();
    fs::write(top.join("large"), noise(5_000_001)).unwrap();
    fs::write(top.join("medium"), noise(200_000)).unwrap();
    fs::write(top.join("x".repeat(255)), "long name").unwrap();
    fs::write(top.join("Case"), "1").unwrap();
    fs::write(top.join("case"), "2").unwrap();
    fs::hard_link(top.join("large"), top.join("d1/same")).unwrap();
    symlink("../case", top.join("d2/link")).unwrap();
    symlink("/nowhere", top.join("dangling")).unwrap();
    for (name, mode) in [("case", 0o751), ("Case", 0o400), ("empty", 0o700)] {
        fs::set_permissions(top.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    set_time(&top.join("case"), 1_000_000_000, 123_456_789);
    set_time(&top.join("empty"), -86_400, 0);
}

#[test]
fn many_files_are_all_there_with_what_belongs_to_them() {
    let here = Here::new();
    odd_tree(&here);
    let code = format!("{LISTING}\nfor one in tell('odd'): print(*one)");
    let guest = here.succeed(&["--put", "odd"], &code);
    let mut command = std::process::Command::new("python3");
    command.args(["-c", &code]).current_dir(here.0.path());
    let host = text(&finish(&mut command, b"").stdout);
    assert!(host.lines().count() > 300);
    assert_eq!(guest, host);
}

#[test]
fn what_a_program_changes_is_its_own_and_comes_out() {
    let here = Here::new();
    odd_tree(&here);
    let before = tree(&here.path("odd"));
    let code = "
import os, shutil
os.chdir('odd')
open('case', 'a').write('more')
with open('large', 'r+b') as f: f.seek(4_000_000); f.write(b'changed')
os.unlink('d0/e0/f0')
os.rename('d1', 'moved')
shutil.rmtree('d3')
os.mkdir('d3')
open('d3/new', 'w').write('new')
os.chmod('medium', 0o600)
os.symlink('case', 'to')
print(open('to').read(), os.listdir('d3'), 'f0' in os.listdir('d0/e0'), os.path.exists('moved/same'))
";
    let options = ["--put", "odd", "--get", "odd:out"];
    let output = here.run(&options, code);
    assert_eq!(text(&output.stdout), "2more ['new'] False True\n");
    assert!(said(&output).contains("link"), "{output:?}");
    assert!(tree(&here.path("odd")) == before);
    let out = tree(&here.path("out"));
    assert_eq!(out[Path::new("case")].1, b"2more");
    assert_eq!(out[Path::new("medium")].0 & 0o777, 0o600);
    assert_eq!(&out[Path::new("large")].1[4_000_000..4_000_007], b"changed");
    assert!(out.contains_key(Path::new("moved/e1/f1")));
    assert!(!out.contains_key(Path::new("d1")));
    assert_eq!(out[Path::new("d3/new")].1, b"new");
}

#[test]
fn a_current_directory_of_many_files_is_that_of_the_program() {
    let here = Here::new();
    for number in 0..200 {
        here.write(
            &format!("m{number}.py"),
            format!("value = {number}\n").as_bytes(),
        );
    }
    here.write("json.py", b"value = 'its own'\n");
    here.write(
        "main.py",
        b"import json, m7, os; print(json.value, m7.value, os.getcwd(), len(os.listdir()))",
    );
    for (options, expected) in [
        (&["--put", "."][..], "its own 7 /work 203\n"),
        (
            &["--put", ".", "-w", "/work/sub"],
            "its own 7 /work/sub 203\n",
        ),
        (&[], "its own 7 /work 203\n"),
    ] {
        let mut command = crate::common::sandbox(&["run"]);
        command
            .args(options)
            .arg("main.py")
            .current_dir(here.0.path());
        let output = finish(&mut command, b"");
        assert_eq!(text(&output.stdout), expected, "{output:?}");
    }
}

#[test]
fn machines_that_boot_and_programs_that_are_root_get_them_too() {
    let here = Here::new();
    here.write("large", &noise(3 << 20));
    let code = "import os; f = open('large', 'r+b'); f.write(b'x'); f.seek(0, 2); \
                print(f.tell(), os.stat('large').st_uid == os.getuid())";
    for options in [&["--fresh"][..], &["--root"], &["--fresh", "--root"]] {
        let told = here.run(&[options, &["--put", "large"]].concat(), code);
        assert_eq!(
            text(&told.stdout),
            "3145728 True\n",
            "{options:?}: {told:?}"
        );
    }
}

#[test]
fn root_in_a_guest_changes_no_file_that_was_put() {
    let here = Here::new();
    let content = noise(4 << 20);
    here.write("large", &content);
    here.write("small", &content[..5000]);
    let code = "
import mmap, os
for path in '/dev/pmem1', 'large', 'small':
    for at in 0, 4096, 2 << 20, 3 << 20:
        try:
            fd = os.open(path, os.O_RDWR)
            os.pwrite(fd, b'overwritten', at)
            os.fsync(fd)
            mapped = mmap.mmap(fd, 0) if path != '/dev/pmem1' else mmap.mmap(fd, 4 << 20)
            mapped[at:at + 11] = b'overwritten'
            mapped.flush()
        except OSError as error:
            pass
print('done')";
    let told = here.run(&["--root", "--put", "large", "--put", "small"], code);
    assert!(
        exit_code(told.status) == 0 || !said(&told).is_empty(),
        "{told:?}"
    );
    assert!(here.read("large") == content);
    assert!(here.read("small") == content[..5000]);
}

#[test]
fn a_file_that_is_larger_than_the_guest_is_read_whole() {
    let here = Here::new();
    let file = fs::File::create(here.path("sparse")).unwrap();
    file.set_len(5 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", (5 << 30) - 3).unwrap();
    let code = "
import os
f = open('sparse', 'rb')
print(os.fstat(f.fileno()).st_size, f.read(3))
f.seek(-3, 2)
print(f.read())";
    let told = here.succeed(&["-m", "128M", "--put", "sparse"], code);
    assert_eq!(told, "5368709120 b'\\x00\\x00\\x00'\nb'end'\n");
    file.set_len(9 << 30).unwrap();
    here.fail(&["--put", "sparse"], code, "more than the 8 GiB");
}

#[test]
fn paths_that_are_put_twice_are_refused_in_layers_too() {
    let here = Here::new();
    here.write("large", &noise(2 << 20));
    let twice = ["--put", "large", "--put", "large"];
    here.fail(&twice, "open('large')", "a path of its own");
}

#[test]
fn a_file_that_is_truncated_meanwhile_ends_the_run_with_an_outcome() {
    let here = Here::new();
    here.write("large", &noise(8 << 20));
    let code = "
import sys
f = open('large', 'rb')
print(len(f.read(10)), flush=True)
input()
print(sum(f.read()[1_000_000:]))";
    let mut child = start(&mut here.command(&["--put", "large"], code));
    let mut line = [0; 3];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    is_ended_by_truncation(child, &here.path("large"));
}

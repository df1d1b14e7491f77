//! What a guest is compared with: the very Python of its image, run outside of a machine.

use crate::common::PYTHON;
use std::ffi::OsStr;
use std::process::Command;

/// Returns the image's python3 in the guest's environment, with nothing of this process's own. The current
/// directory is /work for it.
pub fn reference() -> Command {
    // scripts/test-images names that of another image.
    let tree = std::env::var_os("REFERENCE_TREE");
    let mut command = if tree.as_ref().is_some_and(|tree| tree == "/") {
        // The tests were moved to a host that has the image's files (scripts/hardware-host).
        Command::new(PYTHON)
    } else {
        in_tree(&tree.unwrap_or(BUILT_IN.into()), "".as_ref(), PYTHON)
    };
    without_own(&mut command, "/nonexistent");
    command
}

/// Returns a program of an image that lies over the built-in one, with these files in /usr.
pub fn reference_over(usr: &OsStr, program: &str) -> Command {
    let mut command = in_tree(BUILT_IN.as_ref(), usr, program);
    without_own(&mut command, "/work");
    command
}

const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/assets/tree");

fn in_tree(tree: &OsStr, over: &OsStr, program: &str) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/reference.sh");
    let mut command = Command::new("sh");
    command.arg(script).args([tree, over, program.as_ref()]);
    command
}

fn without_own(command: &mut Command, home: &str) {
    command
        .env_clear()
        .env("LANG", "C.UTF-8")
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin");
}

//! What a guest is compared with: the very Python of its image, run outside of a machine.

use crate::common::PYTHON;
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
        let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/target/assets/tree");
        let mut command = Command::new("sh");
        command
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/e2e/reference.sh"
            ))
            .arg(tree.unwrap_or(built_in.into()));
        command
    };
    command
        .env_clear()
        .env("LANG", "C.UTF-8")
        .env("HOME", "/nonexistent")
        .env("PATH", "/usr/bin:/bin");
    command
}

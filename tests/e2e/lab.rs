//! Programs of machine code in the guest: what the processor and the guest's kernel do with them.

use crate::common::{exit_code, mode, run, text};

/// Python that runs machine code and tells what became of it.
const LAB: &str = include_str!("lab.py");

/// Runs checks in the guest, with [`LAB`] before them: each line of code that fails an assertion
/// is told by its traceback. What they print is shown.
pub fn holds(options: &[&str], code: &str) {
    let mode = mode().name();
    let program = format!("MODE = {mode:?}\n{LAB}\n{code}\nprint('all hold')");
    let output = run(options, &program);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    println!("{mode}: {stdout}");
    assert!(stdout.ends_with("all hold\n"), "{stdout}{stderr}");
    assert_eq!(exit_code(output.status), 0, "{stderr}");
}

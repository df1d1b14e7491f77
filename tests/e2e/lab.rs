//! Programs of machine code in the guest, which show what the processor and the guest's kernel do
//! with them.

use crate::common::{exit_code, mode, run, text};

/// Python code that runs machine code and reports the result.
pub const LAB: &str = include_str!("lab.py");

/// Parts of lines in a kernel's log that show that something is wrong with that kernel. It is not
/// wrong that a program faulted, or was killed for its memory.
const COMPLAINTS: &str = include_str!("kernel_complaints");

/// Returns the lines that are complaints.
pub fn complaints<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let complains = |line: &&str| COMPLAINTS.lines().any(|complaint| line.contains(complaint));
    lines.filter(complains).collect()
}

/// Runs checks in the guest, with [`LAB`] before them: each line of code that fails an assertion is
/// shown by its traceback. Their output is shown. The guest's kernel must not have complained.
pub fn holds(options: &[&str], code: &str) {
    let mode = mode().name();
    let program = format!("MODE = {mode:?}\n{LAB}\n{code}\nlog()\nprint('all hold')");
    let output = run(options, &program);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    println!("{mode}: {stdout}");
    assert!(stdout.ends_with("all hold\n"), "{stdout}{stderr}");
    let log = stderr.lines().filter(|line| line.starts_with('<'));
    assert!(log.clone().count() > 10, "no log: {stderr}");
    let complaints = complaints(log);
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert_eq!(exit_code(output.status), 0, "{stderr}");
}

#[test]
fn complaints_of_a_kernel_are_told_from_what_it_says_of_programs() {
    let lines = [
        "<4>WARNING: CPU: 0 PID: 12 at kernel/events/core.c:1 f+0x1/0x2",
        "<1>BUG: unable to handle page fault for address: ffffffff81000000",
        "<3>rcu: INFO: rcu_sched self-detected stall on CPU",
        "<6>traps: python3[39] general protection fault ip:7f error:0 in x",
        "<6>python3[40]: segfault at 10 ip 7f sp 7f error 4 likely on CPU 0",
        "<4>python3 invoked oom-killer: gfp_mask=0x140dca, order=0, oom_score_adj=0",
        "<4>Call Trace:",
        "<3>Out of memory: Killed process 41 (python3)",
    ];
    assert_eq!(complaints(lines.into_iter()), lines[..3]);
}

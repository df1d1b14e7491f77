//! The messages of the host's kernel during a test (Documentation/ABI/testing/dev-kmsg).

use crate::turn::turn_of_all;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

const LOG: &str = "/dev/kmsg";

/// The words of messages of a kernel that was hurt: all words of one entry.
const HURT: [&[&str]; 9] = [
    &["BUG:"],
    &["WARNING:"],
    &["Oops"],
    &["lockup"],
    &["rcu", "stall"],
    &["blocked for more than"],
    &["Kernel panic"],
    &["unable to handle"],
    &["kvm", "general protection fault"],
];

/// The kernel's log from here on.
pub struct KernelLog {
    /// The log, or `None` if we may not read it.
    file: Option<File>,
}

impl KernelLog {
    pub fn from_here() -> Self {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(LOG)
            .and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file));
        if let Err(error) = &file {
            println!("the log of the host's kernel is not looked at: {LOG}: {error}");
        }
        Self { file: file.ok() }
    }

    pub fn none() -> Self {
        Self { file: None }
    }

    fn can_be_read(&self) -> bool {
        self.file.is_some()
    }

    /// Returns the lines since the last call.
    pub fn new_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(file) = &mut self.file else {
            return lines;
        };
        // One record at a time, of this size at most.
        let mut record = [0; 8192];
        loop {
            match file.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    let text = text.split_once(';').map_or(&*text, |(_, text)| text);
                    lines.push(text.trim_end().to_owned());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return lines,
                // What was to be read next is overwritten; the next one is not.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => panic!("{LOG}: {error}"),
            }
        }
    }

    /// Checks that the kernel was not hurt since the last call, while `what` went on.
    pub fn assert_unhurt(&mut self, what: &str) {
        let lines = self.new_lines();
        let hurt = lines.iter().find(|line| tells_of_hurt(line));
        assert!(hurt.is_none(), "{what}: the host's kernel says: {lines:#?}");
    }
}

fn tells_of_hurt(line: &str) -> bool {
    HURT.iter()
        .any(|words| words.iter().all(|word| line.contains(word)))
}

/// Checks that a written line is found, and that lines of a hurt kernel are told from others.
pub fn is_read() {
    for hurt in [
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "WARNING: CPU: 1 PID: 77 at arch/x86/kvm/x86.c:1 kvm_arch_vcpu_ioctl_run+0x1/0x2 [kvm]",
        "Oops: general protection fault, probably for non-canonical address: 0000 [#1] SMP PTI",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [vcpu:77]",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "INFO: task vcpu:77 blocked for more than 120 seconds.",
    ] {
        assert!(tells_of_hurt(hurt), "{hurt}");
    }
    for other in [
        "kvm_pvm: Unhandled WRMSR(0xc0010007)",
        "python3[77]: segfault at 0 ip 0000000000000001 sp 0000000000000002 error 4",
        "traps: python3[77] general protection fault ip:1 sp:2 error:0",
    ] {
        assert!(!tells_of_hurt(other), "{other}");
    }
    let Some(_turn) = turn_of_all() else {
        return;
    };
    let mut log = KernelLog::from_here();
    if !log.can_be_read() {
        return;
    }
    let line = format!("sandbox: hostile guests begin ({})", std::process::id());
    // A line without an end is shown to nobody until the next one begins.
    match std::fs::write(LOG, format!("{line}\n")) {
        Ok(()) => assert!(log.new_lines().iter().any(|new| new.contains(&line))),
        Err(error) => println!("nothing can be written to {LOG}: {error}"),
    }
}

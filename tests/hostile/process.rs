//! The resources of this process, as the kernel counts them (proc(5)).

use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// The bytes that the allocator may keep.
const DRIFT: u64 = 1 << 20;
/// The bytes of new address space that nothing has a reason to ask for.
const HUGE: u64 = 1 << 30;

#[derive(Debug)]
pub struct Footprint {
    descriptors: usize,
    machines: usize,
    /// The bytes of anonymous memory, of all resident memory, and of its peak since the last look.
    memory: u64,
    resident: u64,
    peak: u64,
    /// The greatest address space ever, in bytes: memory that was asked for, whether or not it was
    /// used.
    asked: u64,
}

impl Footprint {
    pub fn take() -> Self {
        let links = fs::read_dir("/proc/self/fd").expect("/proc");
        let footprint = Self {
            // The one that reads the directory is among them each time.
            descriptors: links.count(),
            machines: machines(),
            memory: status("RssAnon:"),
            resident: status("VmRSS:"),
            peak: status("VmHWM:"),
            asked: status("VmPeak:"),
        };
        // Resets the peak (proc_pid_clear_refs(5)).
        fs::write("/proc/self/clear_refs", "5").expect("resetting the peak");
        footprint
    }

    pub fn assert_as_before(&self, before: &Self, peak: u64) {
        assert_eq!(self.descriptors, before.descriptors, "descriptors leak");
        assert_eq!(self.machines, 0, "vCPU threads remain");
        assert!(
            self.memory <= before.memory + DRIFT,
            "memory grew: {before:?}, {self:?}"
        );
        assert!(
            self.peak <= before.resident + peak,
            "memory peaked: {before:?}, {self:?}"
        );
        assert!(
            self.asked < before.asked + HUGE,
            "more was asked for than there is: {before:?}, {self:?}"
        );
    }
}

/// Makes the allocator always give back large free blocks: by default it learns not to.
pub fn keep_no_large_blocks() {
    const LARGE: i32 = 128 << 10;
    // SAFETY: it changes a number that the allocator goes by.
    let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    assert_eq!(set, 1, "mallopt");
}

/// Makes a guest's use count in small pages: a huge page would count as a whole.
pub fn use_no_huge_pages() {
    // SAFETY: it changes how this process gets its memory, and nothing else.
    let set = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    assert_eq!(set, 0, "PR_SET_THP_DISABLE");
}

fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect(field) << 10
}

/// Counts the vCPU threads. A thread that was joined exists for a moment longer.
fn machines() -> usize {
    let mut count = 0;
    for _ in 0..5000 {
        let tasks = fs::read_dir("/proc/self/task").expect("/proc");
        count = tasks
            .filter(|task| {
                let name = task.as_ref().expect("/proc").path().join("comm");
                fs::read_to_string(name).is_ok_and(|name| name == "vcpu\n")
            })
            .count();
        if count == 0 {
            break;
        }
        sleep(Duration::from_millis(1));
    }
    count
}

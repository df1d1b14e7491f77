//! Protection from lost guest memory: the file behind a mapping was cut short.
//!
//! If this process touches such a page, it gets a SIGBUS (mmap(2)), which would end it. Instead,
//! the page becomes an empty one, and the machine that owns the memory is told. If the guest
//! touches it, KVM_RUN fails or the guest gets an exception, depending on the KVM, so only the
//! length of the file shows the loss.

use crate::units::PAGE;
use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io::{Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use vm_memory::{FileOffset, MmapRegion};

/// A mapping in use. The entry is free while `start` is 0, and covers nothing while `end` is 0.
struct Watched {
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

/// The mappings: up to five for each machine. A signal handler may take no lock and allocate no
/// memory, so their number is fixed.
static WATCHED: [Watched; 256] = [const {
    Watched {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; 256];

/// A file with guest memory, and the number of its bytes.
pub type Backing = (FileOffset, u64);

/// A guard that keeps this process alive when a page of one machine's mappings is lost, and notes
/// the loss. It must be dropped before the mappings are.
pub struct SigbusGuard {
    places: Vec<&'static Watched>,
    files: Vec<Backing>,
}

impl SigbusGuard {
    pub fn over<'a>(
        mappings: impl Iterator<Item = &'a MmapRegion>,
        files: Vec<Backing>,
    ) -> Result<Self> {
        let action = SigAction::new(
            SigHandler::SigAction(replace_page),
            SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK,
            SigSet::empty(),
        );
        // SAFETY: the handler only makes async-signal-safe system calls and atomic accesses.
        unsafe { sigaction(Signal::SIGBUS, &action) }.context("installing a signal handler")?;
        let mut guard = Self {
            places: Vec::new(),
            files,
        };
        for mapping in mappings {
            let place = Watched::claim(mapping).context("too many machines in one process")?;
            guard.places.push(place);
        }
        Ok(guard)
    }

    /// Checks whether this process touched a lost page.
    pub fn has_seen_loss(&self) -> bool {
        let seen = |place: &&Watched| place.lost.load(Ordering::Acquire);
        self.places.iter().any(seen)
    }

    /// Checks whether this process touched a lost page, or the guest may have touched one.
    pub fn is_lost(&self) -> bool {
        let is_short = |(file, size): &Backing| {
            // The metadata is not used: the confined thread may not ask for it.
            let end = file.file().seek(SeekFrom::End(0));
            end.is_ok_and(|end| end < file.start() + size)
        };
        self.has_seen_loss() || self.files.iter().any(is_short)
    }
}

impl Watched {
    fn claim(mapping: &MmapRegion) -> Option<&'static Self> {
        let start = mapping.as_ptr() as usize;
        let place = WATCHED.iter().find(|place| {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            let claimed = place.start.compare_exchange(0, start, order.0, order.1);
            claimed.is_ok()
        })?;
        place.lost.store(false, Ordering::Relaxed);
        place.end.store(start + mapping.size(), Ordering::Release);
        Some(place)
    }
}

impl Drop for SigbusGuard {
    fn drop(&mut self) {
        for place in &self.places {
            place.end.store(0, Ordering::Release);
            place.start.store(0, Ordering::Release);
        }
    }
}

/// Handles a SIGBUS in the thread that touched the page, which then touches it again.
extern "C" fn replace_page(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a SIGBUS handler with SA_SIGINFO its code and address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let holds = |place: &&Watched| {
        let end = place.end.load(Ordering::Acquire);
        (place.start.load(Ordering::Acquire)..end).contains(&address)
    };
    let place = WATCHED.iter().find(holds);
    match place {
        Some(place) if code == libc::BUS_ADRERR && put_empty_page(address) => {
            place.lost.store(true, Ordering::Release);
        }
        // The page is not guest memory: the second time, the signal is fatal.
        // SAFETY: the default action is no handler.
        _ => unsafe {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        },
    }
}

fn put_empty_page(address: usize) -> bool {
    // SAFETY: the page is one of guest memory, which holds plain bytes, and had no content.
    let mapped = unsafe {
        libc::mmap(
            (address - address % PAGE) as *mut libc::c_void,
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    mapped != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    use std::fs::File;
    use vm_memory::VolatileMemory;
    use vm_memory::mmap::MmapRegionBuilder;

    const SIZE: usize = 8 * PAGE;

    fn mapped() -> (File, MmapRegion) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE as u64).unwrap();
        let mapping = MmapRegionBuilder::new(SIZE)
            .with_file_offset(FileOffset::new(file.try_clone().unwrap(), 0))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE)
            .build()
            .unwrap();
        mapping.get_slice(0, SIZE).unwrap().copy_from(&[7u8; SIZE]);
        (file, mapping)
    }

    fn watched(mapping: &MmapRegion) -> SigbusGuard {
        let file = mapping.file_offset().cloned().unwrap();
        SigbusGuard::over([mapping].into_iter(), vec![(file, SIZE as u64)]).unwrap()
    }

    #[test]
    fn a_page_that_is_gone_reads_as_an_empty_one_and_is_noticed() {
        let (file, mapping) = mapped();
        let guard = watched(&mapping);
        assert!(!guard.is_lost());
        file.set_len(3 * PAGE as u64).unwrap();
        assert!(guard.is_lost() && !guard.has_seen_loss());
        let mut bytes = [1u8; SIZE];
        mapping.get_slice(0, SIZE).unwrap().copy_to(&mut bytes);
        assert!(guard.has_seen_loss());
        let (there, gone) = bytes.split_at(3 * PAGE);
        assert!(there.iter().all(|&byte| byte == 7) && gone.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn one_machine_does_not_hear_of_the_loss_of_another() {
        let ((file, mapping), (_, other)) = (mapped(), mapped());
        let guards = [watched(&mapping), watched(&other)];
        file.set_len(0).unwrap();
        mapping.get_slice(0, 1).unwrap().copy_to(&mut [0u8]);
        assert_eq!(
            guards.each_ref().map(SigbusGuard::has_seen_loss),
            [true, false]
        );
        drop(guards);
        assert!(!watched(&mapping).has_seen_loss(), "a place is used again");
    }

    #[test]
    fn a_bus_error_elsewhere_is_as_fatal_as_ever() {
        let ((file, mapping), (_, other)) = (mapped(), mapped());
        let _guard = watched(&other);
        file.set_len(0).unwrap();
        let slice = mapping.get_slice(0, 1).unwrap();
        // SAFETY: the child only touches memory and exits.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                slice.copy_to(&mut [0u8]);
                // SAFETY: as above.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                let status = waitpid(child, None).unwrap();
                assert!(
                    matches!(status, WaitStatus::Signaled(_, Signal::SIGBUS, _)),
                    "{status:?}"
                );
            }
        }
    }
}

//! A virtual machine. Only this module knows KVM's ioctls.

pub mod arch;
pub mod buffer;
pub mod bus;
mod end;
pub mod host;
pub mod hypercall;
mod initramfs;
mod ioctls;
mod kick;
mod layer;
mod machine;
mod mapping;
pub mod memory;
pub mod mode;
mod native;
mod own_pages;
mod pages;
mod probe;
mod profile;
mod sigbus;
mod vcpu;

pub use crate::vm::arch::x86_64::boot::BootImages;
pub use crate::vm::arch::x86_64::state::{Shape, State};
pub use arch::x86_64::layout;
pub use end::{End, RunError};
pub use hypercall::{HypercallHandler, JobLimits};
pub use ioctls::{requests, requests_of_save, requests_of_state};
pub use kick::{KICK, Kicker, allow_kicks};
pub use kvm_ioctls::Kvm;
pub use layer::{Layer, Part};
pub use memory::SavedMemory;
pub use pages::{Pages, Tracker, Usage};
pub use probe::{Verdict, probe};
pub use profile::Profile;
pub use vcpu::Counters;

use crate::devices::vsock::Peer;
use crate::outcome::Crash;
use crate::vm::arch::x86_64::cpuid::guest_cpuid;
use crate::vm::arch::x86_64::interrupts::split_irqchip;
use crate::vm::arch::x86_64::{boot, state};
use crate::vm::layout::KVM_TSS;
use anyhow::{Context, Result};
use bus::{Bus, Unknown};
use kvm_bindings::CpuId;
use kvm_ioctls::{VcpuFd, VmFd};
use layer::Window;
use machine::Machine;
use memory::Memory;
use mode::Mode;
use std::fs::File;
use std::io::Write;
use std::thread;
use vcpu::Vcpu;
use vm_memory::GuestMemoryMmap;

/// A virtual machine with one vCPU, and the host's end of the conversation with its guest, which is
/// both the peer of the vsock device and the handler of hypercalls.
///
/// Fields drop in this order: the vCPU before the machine that it runs in.
pub struct Vm<H> {
    vcpu: Vcpu,
    machine: Machine,
    host: H,
}

/// The parts of a new machine.
pub struct Config<'a> {
    /// RAM in bytes.
    pub memory: u64,
    pub runtime: File,
    /// The layers that its windows show, in order.
    pub layers: &'a [Layer],
    pub images: BootImages<'a>,
    /// The receiver of the guest's whole console output, if anybody wants it.
    pub console: Option<Box<dyn Write + Send>>,
}

/// A template to make a machine from.
pub struct Saved {
    pub state: State,
    /// Pages that a run is likely to use, of each region of RAM.
    pub working_sets: Vec<Vec<Pages>>,
    pub memory: SavedMemory,
    /// Memory that takes the place of some of that.
    pub over: Option<SavedMemory>,
    pub runtime: File,
    /// The layers that the windows of clones show, in order.
    pub layers: Vec<Layer>,
}

impl<H: Peer + HypercallHandler> Vm<H> {
    /// Makes a machine that is about to execute the kernel's first instruction.
    pub fn boot(kvm: &Kvm, mode: Mode, config: Config, host: H) -> Result<Self> {
        let windows = Window::map_all(config.layers, true)?;
        let memory = Memory::new(config.memory, config.runtime, windows)?;
        let (vm, vcpu) = bare(kvm, &memory, &guest_cpuid(kvm)?)?;
        boot::prepare(
            &vcpu,
            memory.ram(),
            memory.runtime_size(),
            &config.images,
            mode,
            config.console.is_some(),
        )?;
        Ok(Self {
            vcpu: Vcpu::new(vcpu, mode, false),
            machine: Machine::new(vm, memory, Bus::new(config.console)?),
            host,
        })
    }

    /// Makes a clone of a saved machine. Its guest first gets the answer to the hypercall that it
    /// was saved in.
    pub fn restore(kvm: &Kvm, mode: Mode, saved: &Saved, host: H) -> Result<Self> {
        let runtime = saved
            .runtime
            .try_clone()
            .context("duplicating a descriptor")?;
        let windows = Window::map_all(&saved.layers, false)?;
        let memory = Memory::from_saved(&saved.memory, saved.over.as_ref(), runtime, windows)?;
        // Both happen at the same time: they are independent, and there may be two processors.
        let (vm, vcpu) = thread::scope(|scope| {
            // If there is no thread, the guest faults the pages in one by one.
            let helper = thread::Builder::new();
            let _ready = helper.spawn_scoped(scope, || memory.make_ready(&saved.working_sets));
            let (vm, vcpu) = bare(kvm, &memory, &saved.state.cpuid()?)?;
            state::restore(&vm, &vcpu, mode.family(), &saved.state)?;
            anyhow::Ok((vm, vcpu))
        })?;
        vcpu.set_regs(&saved.state.vcpu.regs)
            .context("setting the registers")?;
        let bus = Bus::from_state(saved.state.bus.clone())?;
        Ok(Self {
            vcpu: Vcpu::new(vcpu, mode, true),
            machine: Machine::new(vm, memory, bus),
            host,
        })
    }

    /// Returns the state of a machine whose guest waits for its job.
    pub fn save(&mut self, kvm: &Kvm) -> Result<State> {
        let shape = Shape::of(kvm, &self.vcpu.fd)?;
        let state = self.state(&shape)?;
        state.context("the devices are not at rest")
    }

    /// Returns the state, of a known shape, of a machine whose guest waits for an answer. `None`: the devices
    /// are not at rest.
    pub fn state(&mut self, shape: &Shape) -> Result<Option<State>> {
        self.vcpu.come_to_rest()?;
        let Some(bus) = self.machine.bus.state() else {
            return Ok(None);
        };
        let (vm, vcpu) = (&self.machine.fd, &self.vcpu.fd);
        State::read(shape, vm, vcpu, self.vcpu.mode, bus).map(Some)
    }

    /// Writes the pages that are the machine's own to a file, whose memory begins at this offset; returns
    /// which they are.
    pub fn write_own(&self, tracker: &Tracker, file: &mut File, offset: u64) -> Result<Pages> {
        self.machine.memory.write_own(tracker, file, offset)
    }

    /// Returns the host's end of the conversation with the guest.
    pub fn host(&self) -> &H {
        &self.host
    }

    pub fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }

    /// Returns the usage of its memory, to be counted once the guest has run.
    pub fn usage(&self) -> Result<Usage> {
        self.machine.memory.usage()
    }

    /// Returns what finds the pages of its memory that are written to. It opens files.
    pub fn tracker(&self) -> Result<Tracker> {
        self.machine.memory.tracker()
    }

    /// Begins to find the pages that its guest writes to, and perhaps those that its process reads, for
    /// which it looks at what the guest wrote.
    pub fn profile(&self, tracker: Tracker, reads: bool) -> Result<Profile> {
        let sregs = self.vcpu.fd.get_sregs().context("reading the registers")?;
        let root = reads.then_some(sregs.cr3);
        Ok(Profile::begin(tracker, &self.machine.memory, root))
    }

    /// Returns what a profile found, for each region of RAM.
    pub fn found(&self, profile: Profile) -> Result<Vec<Pages>> {
        profile.finish(&self.machine.memory)
    }

    /// Returns the bytes of its RAM.
    pub fn memory_size(&self) -> u64 {
        self.machine.memory.size()
    }

    pub fn memory(&self) -> &GuestMemoryMmap {
        self.machine.memory.ram()
    }

    /// Returns a kicker, which interrupts [`Vm::run`] from another thread while this machine
    /// exists.
    pub fn kicker(&mut self) -> Kicker {
        self.vcpu.kicker()
    }

    pub fn counters(&self) -> Counters {
        self.vcpu.counters
    }

    /// Returns how often the guest accessed what does not exist, since it had its job.
    pub fn unknown(&self) -> Unknown {
        self.machine.bus.unknown
    }

    /// Returns the end of the guest's console output.
    pub fn console(&self) -> Vec<u8> {
        self.machine.bus.serial.log()
    }

    /// Ends the machine; the host's end of the conversation remains.
    pub fn into_host(self) -> H {
        self.host
    }

    /// Runs the guest until the host needs nothing more from it, or it crashes.
    pub fn run(&mut self) -> Result<End> {
        let ran = self.vcpu.run(&mut self.machine, &mut self.host);
        let flushed = self.machine.flush(&mut self.host);
        // A guest that lacks some of its memory is not to blame for anything that it did.
        if self.machine.memory.is_lost() {
            return Ok(End::Crashed(Crash::MemoryLost));
        }
        match ran.and(flushed.map_err(RunError::from)) {
            Ok(()) => Ok(End::Done),
            Err(RunError::Crashed(crash)) => Ok(End::Crashed(crash)),
            Err(RunError::Failed(error)) => Err(error),
        }
    }
}

/// Makes a VM with its memory, and a vCPU with these processor features.
fn bare(kvm: &Kvm, memory: &Memory, cpuid: &CpuId) -> Result<(VmFd, VcpuFd)> {
    let vm = host::create_vm(kvm)?;
    split_irqchip(&vm)?;
    vm.set_tss_address(KVM_TSS)
        .context("placing KVM's own pages")?;
    memory.register(&vm)?;
    let vcpu = vm.create_vcpu(0).context("creating a vCPU")?;
    vcpu.set_cpuid2(cpuid).context("setting CPUID")?;
    Ok((vm, vcpu))
}

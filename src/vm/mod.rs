//! One virtual machine: the only place that knows KVM's ioctls.

pub mod arch;
pub mod buffer;
pub mod bus;
pub mod host;
pub mod hypercall;
mod initramfs;
mod ioctls;
mod kick;
pub mod memory;
pub mod mode;
mod native;
mod pages;
mod probe;
mod sigbus;

pub use crate::vm::arch::x86_64::boot::BootImages;
pub use crate::vm::arch::x86_64::state::State;
pub use arch::x86_64::layout;
pub use hypercall::Host;
pub use ioctls::requests;
pub use kick::{KICK, Kicker, allow_kicks};
pub use memory::SavedMemory;
pub use pages::{Pages, Usage};
pub use probe::{Verdict, probe};

use crate::devices::Violation;
use crate::devices::ioapic::PINS;
use crate::devices::vsock::Peer;
use crate::outcome::Crash;
use crate::vm::layout::KVM_TSS;
use anyhow::{Context, Result, bail};
use buffer::Buffer;
use bus::{Bus, Effect, Unknown};
use host::Family;
use kvm_bindings::{
    CpuId, KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_HALTED, kvm_enable_cap,
    kvm_msi,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use memory::Memory;
use mode::Mode;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use vm_memory::GuestMemoryMmap;

/// A virtual machine with one vCPU, and the peer that talks with its guest.
///
/// Fields drop in this order: the memory outlives what maps it into the guest.
pub struct Vm<P> {
    vcpu: VcpuFd,
    vm: VmFd,
    memory: Memory,
    bus: Bus<P>,
    mode: Mode,
    /// Of the guest's output.
    buffer: Buffer,
    /// The guest is in the middle of a request, which is to be served before it goes on.
    asks: bool,
    counters: Counters,
    kicked: Arc<AtomicBool>,
}

/// How often the guest came to us, by reason.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Counters {
    pub exits: u64,
    pub port_io: u64,
    pub memory_io: u64,
    pub assists: u64,
    pub services: u64,
}

/// What a new machine is made of.
pub struct Config<'a> {
    /// RAM in bytes.
    pub memory: u64,
    pub runtime: File,
    pub images: BootImages<'a>,
    /// Where the guest's whole console output goes, if anybody wants it.
    pub console: Option<Box<dyn Write + Send>>,
}

/// A template to make a machine from.
pub struct Saved {
    pub state: State,
    /// Pages that a run is likely to write to.
    pub working_set: Vec<Pages>,
    pub memory: SavedMemory,
    pub runtime: File,
}

impl<P: Peer + Host> Vm<P> {
    /// A machine about to execute the kernel's first instruction.
    pub fn boot(kvm: &Kvm, mode: Mode, config: Config, peer: P) -> Result<Self> {
        let memory = Memory::new(config.memory, config.runtime)?;
        let (vm, vcpu) = bare(kvm, &memory, &guest_cpuid(kvm)?)?;
        crate::vm::arch::x86_64::boot::prepare(
            &vcpu,
            memory.ram(),
            memory.runtime_size(),
            &config.images,
            mode,
            config.console.is_some(),
        )?;
        Ok(Self {
            vcpu,
            vm,
            memory,
            bus: Bus::new(peer, config.console)?,
            mode,
            buffer: Buffer::default(),
            asks: false,
            counters: Counters::default(),
            kicked: Arc::default(),
        })
    }

    /// A clone of a saved machine, whose guest gets first of all what it was asking for.
    pub fn restore(kvm: &Kvm, mode: Mode, saved: &Saved, peer: P) -> Result<Self> {
        let runtime = saved
            .runtime
            .try_clone()
            .context("duplicating a descriptor")?;
        let memory = Memory::from_saved(&saved.memory, runtime)?;
        // At the same time: neither needs the other, and there may be two processors.
        let (vm, vcpu) = thread::scope(|scope| {
            // Without a thread, the guest faults the pages in one by one.
            let helper = thread::Builder::new();
            let _ready = helper.spawn_scoped(scope, || memory.make_ready(&saved.working_set));
            let (vm, vcpu) = bare(kvm, &memory, &saved.state.cpuid()?)?;
            crate::vm::arch::x86_64::state::restore(&vm, &vcpu, mode.family(), &saved.state)?;
            anyhow::Ok((vm, vcpu))
        })?;
        vcpu.set_regs(&saved.state.vcpu.regs)
            .context("setting the registers")?;
        Ok(Self {
            vcpu,
            vm,
            memory,
            bus: Bus::from_state(saved.state.bus.clone(), peer)?,
            mode,
            buffer: Buffer::default(),
            asks: true,
            counters: Counters::default(),
            kicked: Arc::default(),
        })
    }

    /// The state of a machine whose guest waits for its job.
    pub fn save(&mut self, kvm: &Kvm) -> Result<State> {
        // An exit for I/O is complete only when the vCPU is entered again.
        self.vcpu.set_kvm_immediate_exit(1);
        match self.vcpu.run() {
            Err(error) if error.errno() == libc::EINTR => {}
            other => bail!("the guest does not come to rest: {other:?}"),
        }
        self.vcpu.set_kvm_immediate_exit(0);
        let bus = self.bus.state().context("the devices are not at rest")?;
        State::read(kvm, &self.vm, &self.vcpu, self.mode, bus)
    }

    pub fn peer(&self) -> &P {
        self.bus.vsock.peer()
    }

    /// How much of its memory is used: to be counted when it has run.
    pub fn usage(&self) -> Result<Usage> {
        self.memory.usage()
    }

    /// Which pages of its memory have been written to since it was restored.
    pub fn written(&self) -> Result<Vec<Pages>> {
        self.memory.written()
    }

    pub fn memory(&self) -> &GuestMemoryMmap {
        self.memory.ram()
    }

    /// What makes [`Vm::run`] look up, from another thread, while this machine exists.
    pub fn kicker(&mut self) -> Kicker {
        Kicker::new(&mut self.vcpu, Arc::clone(&self.kicked))
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How often the guest looked for what is not there, once it had its job.
    pub fn unknown(&self) -> Unknown {
        self.bus.unknown
    }

    /// The end of the guest's console output.
    pub fn console(&self) -> Vec<u8> {
        self.bus.serial.log()
    }

    /// Ends the machine; its peer remains.
    pub fn into_peer(self) -> P {
        self.bus.vsock.into_peer()
    }

    /// Runs the guest until the peer wants nothing more of it, or it crashes.
    pub fn run(&mut self) -> Result<Result<(), Crash>> {
        let ended = self.run_guest();
        let flushed = self.flush();
        // Whatever a guest did that lacks some of its memory: it was not its own doing.
        if self.memory.is_lost() {
            return Ok(Err(Crash::MemoryLost));
        }
        ended.map(|ended| ended.and(flushed.map_err(|Violation(what)| Crash::Violation(what))))
    }

    fn run_guest(&mut self) -> Result<Result<(), Crash>> {
        // Not earlier: it gets the time, which goes on.
        if std::mem::take(&mut self.asks)
            && let Err(Violation(what)) = self.serve()?
        {
            return Ok(Err(Crash::Violation(what)));
        }
        loop {
            // Before looking at what a kick may be about: one that comes now still counts.
            self.vcpu.set_kvm_immediate_exit(0);
            if self.bus.vsock.peer().is_done() || self.memory.has_seen_loss() {
                return Ok(Ok(()));
            }
            if self.kicked.swap(false, Ordering::AcqRel)
                && let Err(crash) = self.look_up()?
            {
                return Ok(Err(crash));
            }
            self.deliver_interrupts()?;
            match self.step()? {
                Ok(()) => {}
                Err(_) if self.bus.vsock.peer().is_done() => return Ok(Ok(())),
                Err(crash) => return Ok(Err(crash)),
            }
        }
    }

    /// Does what the guest's kernel asks for.
    fn serve(&mut self) -> Result<Result<(), Violation>> {
        self.counters.services += 1;
        let mut regs = self.vcpu.get_regs().context("reading the registers")?;
        let sregs = self
            .vcpu
            .get_sregs()
            .context("reading the system registers")?;
        let host = self.bus.vsock.peer_mut();
        let (buffer, unknown) = (&mut self.buffer, &mut self.bus.unknown.services);
        let served = hypercall::serve(&mut regs, &sregs, &self.memory, host, buffer, unknown)?;
        self.vcpu.set_regs(&regs).context("setting the registers")?;
        Ok(served)
    }

    /// Takes what the guest's kernel has of its program's output.
    fn flush(&mut self) -> Result<(), Violation> {
        match self.buffer.take(&self.memory) {
            Some((stream, bytes)) if !self.memory.has_seen_loss() => {
                self.bus.vsock.peer_mut().output(stream, &bytes)
            }
            _ => Ok(()),
        }
    }

    /// Enters the guest once and handles why it came back.
    fn step(&mut self) -> Result<Result<(), Crash>> {
        let ram = self.memory.ram();
        self.counters.exits += 1;
        let violation = match self.vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                self.counters.port_io += 1;
                self.bus.read_port(port, data);
                Ok(())
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                self.counters.port_io += 1;
                match self.bus.write_port(port, data) {
                    Ok(Effect::None) => Ok(()),
                    Ok(Effect::Reset) => return Ok(Err(Crash::Reset)),
                    Ok(Effect::Service) => self.serve()?,
                    Ok(Effect::Flush) => {
                        self.counters.services += 1;
                        self.flush()
                    }
                    Err(violation) => Err(violation),
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.counters.memory_io += 1;
                self.bus.read_memory(address, data);
                Ok(())
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.counters.memory_io += 1;
                self.bus.write_memory(address, data, ram)
            }
            // Level-triggered interrupts would need this; all ours are edges.
            Ok(VcpuExit::IoapicEoi(_) | VcpuExit::IrqWindowOpen) => Ok(()),
            Ok(VcpuExit::InternalError) if self.mode == Mode::Emulated => {
                self.counters.assists += 1;
                return crate::vm::arch::x86_64::emulate::complete(&self.vcpu, &self.memory);
            }
            Ok(VcpuExit::InternalError) if self.mode == Mode::Native => {
                return Ok(Err(crate::vm::arch::x86_64::emulate::explain(
                    &mut self.vcpu,
                    &self.memory,
                )?));
            }
            Ok(VcpuExit::Shutdown) => return Ok(Err(Crash::TripleFault)),
            // A kick, which the next round looks at.
            Ok(VcpuExit::Intr) => Ok(()),
            Ok(other) => return Ok(Err(Crash::Exit(format!("KVM exit {other:?}")))),
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => Ok(()),
                _ => return Ok(Err(Crash::Exit(format!("KVM_RUN: {error}")))),
            },
        };
        // A kernel that boots looks for devices; with a program, it has found them.
        if !self.bus.vsock.peer().has_begun() {
            self.bus.unknown = Unknown::default();
        }
        Ok(violation.map_err(|Violation(what)| Crash::Violation(what)))
    }

    /// After a kick: the peer may have something for the guest, and a guest that halted with
    /// interrupts off will never do anything again.
    fn look_up(&mut self) -> Result<Result<(), Crash>> {
        // What the program wrote comes before what the agent says of it.
        let flushed = self.flush();
        let processed = flushed.and_then(|()| self.bus.vsock.process(self.memory.ram()));
        if let Err(Violation(what)) = processed {
            return Ok(Err(Crash::Violation(what)));
        }
        let state = self
            .vcpu
            .get_mp_state()
            .context("reading the vCPU's state")?;
        if state.mp_state == KVM_MP_STATE_HALTED && !self.has_interrupts_on()? {
            return Ok(Err(Crash::Halted));
        }
        Ok(Ok(()))
    }

    /// On any software KVM the guest may have switched native mode on, and has its flag in memory.
    fn has_interrupts_on(&self) -> Result<bool> {
        const RFLAGS_IF: u64 = 1 << 9;
        let cell = match self.mode.family() {
            Family::Software => native::cell(&self.vcpu)?,
            Family::Hardware => None,
        };
        match cell {
            Some(address) => Ok(native::has_interrupts_on(&self.memory, address)),
            None => {
                let regs = self.vcpu.get_regs().context("reading the registers")?;
                Ok(regs.rflags & RFLAGS_IF != 0)
            }
        }
    }

    fn deliver_interrupts(&mut self) -> Result<()> {
        let raised = self.bus.irqs.take_raised();
        for message in self.bus.ioapic.route(raised) {
            let delivered = self.vm.signal_msi(kvm_msi {
                address_lo: message.address,
                data: message.data,
                ..Default::default()
            });
            match delivered {
                Ok(_) => {}
                // The guest named a processor that it does not have.
                Err(error) if error.errno() == libc::EPERM => {}
                Err(error) => return Err(error).context("delivering an interrupt"),
            }
        }
        Ok(())
    }
}

/// A VM with its memory, and a vCPU that knows its processor's features.
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

/// The local APIC in the kernel, the rest here: a full irqchip makes memory slots or
/// teardown wait for a grace period, milliseconds each.
fn split_irqchip(vm: &VmFd) -> Result<()> {
    let mut capability = kvm_enable_cap {
        cap: KVM_CAP_SPLIT_IRQCHIP,
        ..Default::default()
    };
    capability.args[0] = PINS as u64;
    vm.enable_cap(&capability).context("making a split irqchip")
}

/// What the host supports, as one processor with APIC ID 0 under a hypervisor.
fn guest_cpuid(kvm: &Kvm) -> Result<CpuId> {
    const HYPERVISOR: u32 = 1 << 31;
    const TSC_DEADLINE: u32 = 1 << 24;
    let mut cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .context("reading the supported CPUID")?;
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => {
                entry.ecx |= HYPERVISOR | TSC_DEADLINE;
                // Initial APIC ID 0, one logical processor.
                entry.ebx = entry.ebx & 0x0000_ffff | 1 << 16;
            }
            0xb | 0x1f => entry.edx = 0,
            _ => {}
        }
    }
    Ok(cpuid)
}

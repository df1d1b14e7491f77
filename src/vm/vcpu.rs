//! The one vCPU of a machine, and the loop that runs it.

use crate::devices::vsock::Peer;
use crate::outcome::Crash;
use crate::vm::arch::x86_64::{emulate, interrupts};
use crate::vm::bus::{Effect, Unknown};
use crate::vm::end::RunError;
use crate::vm::hypercall::{self, HypercallHandler};
use crate::vm::kick::Kicker;
use crate::vm::machine::Machine;
use crate::vm::mode::Mode;
use anyhow::{Context, Result, bail};
use kvm_bindings::KVM_MP_STATE_HALTED;
use kvm_ioctls::{VcpuExit, VcpuFd};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Counts of the guest's exits, by reason.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Counters {
    pub exits: u64,
    pub port_io: u64,
    pub memory_io: u64,
    pub assists: u64,
    pub services: u64,
}

/// A vCPU.
pub struct Vcpu {
    pub fd: VcpuFd,
    pub mode: Mode,
    pub counters: Counters,
    /// The guest is in the middle of a hypercall, which must be served before it goes on.
    asks: bool,
    kicked: Arc<AtomicBool>,
}

impl Vcpu {
    /// Wraps a vCPU of KVM's. `asks` means that it was saved in the middle of a hypercall.
    pub fn new(fd: VcpuFd, mode: Mode, asks: bool) -> Self {
        Self {
            fd,
            mode,
            counters: Counters::default(),
            asks,
            kicked: Arc::default(),
        }
    }

    pub fn kicker(&mut self) -> Kicker {
        Kicker::new(&mut self.fd, Arc::clone(&self.kicked))
    }

    /// Completes the vCPU's last exit without running the guest: an exit for I/O is complete only
    /// when the vCPU is entered again.
    pub fn come_to_rest(&mut self) -> Result<()> {
        self.fd.set_kvm_immediate_exit(1);
        match self.fd.run() {
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(error).context("bringing the guest to rest"),
            Ok(_) => bail!("the guest does not come to rest: its last exit has another behind it"),
        }
        self.fd.set_kvm_immediate_exit(0);
        Ok(())
    }

    /// Runs the guest until the host needs nothing more from it.
    pub fn run<H: Peer + HypercallHandler>(
        &mut self,
        machine: &mut Machine,
        host: &mut H,
    ) -> Result<(), RunError> {
        // This must not come earlier: the guest gets the current time, which goes on.
        if std::mem::take(&mut self.asks) {
            self.serve(machine, host)?;
        }
        loop {
            // This comes before the checks that a kick may concern, so that a kick that comes now
            // still counts.
            self.fd.set_kvm_immediate_exit(0);
            if host.is_done() || machine.memory.has_seen_loss() {
                return Ok(());
            }
            if self.kicked.swap(false, Ordering::AcqRel) {
                self.handle_kick(machine, host)?;
            }
            machine.deliver_interrupts()?;
            let stepped = self.step(machine, host);
            // A booting kernel looks for devices; once there is a program, it has found them.
            if !host.has_begun() {
                machine.bus.unknown = Unknown::default();
            }
            match stepped {
                Err(RunError::Crashed(_)) if host.is_done() => return Ok(()),
                stepped => stepped?,
            }
        }
    }

    /// Enters the guest once and handles its exit.
    fn step<H: Peer + HypercallHandler>(
        &mut self,
        machine: &mut Machine,
        host: &mut H,
    ) -> Result<(), RunError> {
        self.counters.exits += 1;
        match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                self.counters.port_io += 1;
                machine.bus.read_port(port, data);
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                self.counters.port_io += 1;
                match machine.bus.write_port(port, data)? {
                    Effect::None => {}
                    Effect::Reset => return Err(Crash::Reset.into()),
                    Effect::Hypercall => self.serve(machine, host)?,
                    Effect::Flush => {
                        self.counters.services += 1;
                        machine.flush(host)?;
                    }
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.counters.memory_io += 1;
                machine.bus.read_memory(address, data);
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.counters.memory_io += 1;
                let ram = machine.memory.ram();
                machine.bus.write_memory(address, data, ram, host)?;
            }
            // Level-triggered interrupts would need this; all of ours are edge-triggered.
            Ok(VcpuExit::IoapicEoi(_) | VcpuExit::IrqWindowOpen) => {}
            Ok(VcpuExit::InternalError) if self.mode == Mode::Emulated => {
                self.counters.assists += 1;
                emulate::complete(&self.fd, &machine.memory)?;
            }
            Ok(VcpuExit::InternalError) if self.mode == Mode::Native => {
                return Err(emulate::explain(&mut self.fd, &machine.memory)?.into());
            }
            Ok(VcpuExit::Shutdown) => return Err(Crash::TripleFault.into()),
            // A kick, which the next round handles.
            Ok(VcpuExit::Intr) => {}
            Ok(other) => return Err(Crash::Exit(format!("KVM exit {other:?}")).into()),
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => {}
                _ => return Err(Crash::Exit(format!("KVM_RUN: {error}")).into()),
            },
        }
        Ok(())
    }

    /// Serves a hypercall of the guest's kernel.
    fn serve(
        &mut self,
        machine: &mut Machine,
        handler: &mut impl HypercallHandler,
    ) -> Result<(), RunError> {
        self.counters.services += 1;
        let mut regs = self.fd.get_regs().context("reading the registers")?;
        let sregs = self
            .fd
            .get_sregs()
            .context("reading the system registers")?;
        let (memory, buffer) = (&machine.memory, &mut machine.buffer);
        let unknown = &mut machine.bus.unknown.services;
        let is_answered = hypercall::serve(&mut regs, &sregs, memory, handler, buffer, unknown)?;
        self.asks = !is_answered;
        self.fd.set_regs(&regs).context("setting the registers")?;
        Ok(())
    }

    /// Handles a kick: the peer may have something for the guest, and a guest that halted with
    /// interrupts off will never do anything again.
    fn handle_kick<H: Peer + HypercallHandler>(
        &mut self,
        machine: &mut Machine,
        host: &mut H,
    ) -> Result<(), RunError> {
        // The program's output must come before the agent's report on it.
        machine.flush(host)?;
        machine.bus.vsock.process(machine.memory.ram(), host)?;
        let state = self.fd.get_mp_state().context("reading the vCPU's state")?;
        let has_halted = state.mp_state == KVM_MP_STATE_HALTED;
        if has_halted && !interrupts::are_on(&self.fd, &machine.memory, self.mode)? {
            return Err(Crash::Halted.into());
        }
        Ok(())
    }
}

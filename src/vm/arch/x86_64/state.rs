//! The state of a saved machine beside its memory, and how a vCPU's state is read and set.

use crate::vm::arch::x86_64::msr::{entry, read_msr, set_msrs};
use crate::vm::bus::BusState;
use crate::vm::host::Family;
use crate::vm::mode::Mode;
use crate::vm::native;
use anyhow::{Context, Result, ensure};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const MSR_TSC: u32 = 0x10;
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// MSRs that make KVM write the time of boot into guest memory when they are written.
const MSR_KVM_WALL_CLOCK: [u32; 2] = [0x11, 0x4b56_4d00];

/// The state of a machine at rest.
#[derive(Serialize, Deserialize)]
pub struct State {
    /// The CPUID that the vCPU was given. Asking KVM again takes half a millisecond where the host
    /// is itself a guest.
    cpuid: Vec<kvm_cpuid_entry2>,
    pub vcpu: VcpuState,
    pub bus: BusState,
    /// The value of kvm-clock, in nanoseconds.
    clock: u64,
}

/// The facts about a machine's state that are known beforehand: what does not change, and which MSRs can be both read and
/// set.
#[derive(Clone)]
pub struct Shape {
    cpuid: Vec<kvm_cpuid_entry2>,
    msrs: Vec<u32>,
}

impl Shape {
    /// Finds the shape out. The vCPU must not be running.
    pub fn of(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Self> {
        let cpuid = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES);
        Ok(Self {
            cpuid: cpuid.context("reading CPUID")?.as_slice().to_vec(),
            msrs: settable_msrs(kvm, vcpu)?,
        })
    }
}

impl State {
    /// Reads the state. The vCPU must not be running, and must have completed its last exit.
    pub fn read(
        shape: &Shape,
        vm: &VmFd,
        vcpu: &VcpuFd,
        mode: Mode,
        bus: BusState,
    ) -> Result<Self> {
        Ok(Self {
            cpuid: shape.cpuid.clone(),
            vcpu: VcpuState::read(&shape.msrs, vcpu, mode)?,
            bus,
            clock: vm.get_clock().context("reading kvm-clock")?.clock,
        })
    }

    /// Has the machine's clocks go on from so much later.
    pub fn advance(&mut self, by: Duration) {
        self.clock = self.clock.saturating_add(by.as_nanos() as u64);
    }

    /// Returns the shape that the state of each machine has that goes on from it.
    pub fn shape(&self) -> Shape {
        let msrs = self.vcpu.msrs.iter().map(|msr| msr.index);
        Shape {
            cpuid: self.cpuid.clone(),
            msrs: msrs.filter(|&index| index != native::MSR_VIF).collect(),
        }
    }

    pub fn cpuid(&self) -> Result<CpuId> {
        CpuId::from_entries(&self.cpuid).context("listing CPUID")
    }
}

#[derive(Serialize, Deserialize)]
pub struct VcpuState {
    pub regs: kvm_regs,
    pub sregs: kvm_sregs,
    mp_state: kvm_mp_state,
    xcrs: kvm_xcrs,
    xsave: kvm_xsave,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    tsc: u64,
    /// The ticks of the TSC until the local APIC's timer fires, if it is armed.
    timer: Option<u64>,
    events: kvm_vcpu_events,
}

impl VcpuState {
    fn read(msrs: &[u32], vcpu: &VcpuFd, mode: Mode) -> Result<Self> {
        let deadline = read_msr(vcpu, MSR_TSC_DEADLINE)?.unwrap_or(0);
        let tsc = read_msr(vcpu, MSR_TSC)?.context("the vCPU has no TSC")?;
        Ok(Self {
            regs: vcpu.get_regs().context("reading the registers")?,
            sregs: vcpu.get_sregs().context("reading the system registers")?,
            mp_state: vcpu.get_mp_state().context("reading the vCPU's state")?,
            xcrs: vcpu.get_xcrs().context("reading XCR0")?,
            xsave: vcpu.get_xsave().context("reading the FPU state")?,
            debug: vcpu
                .get_debug_regs()
                .context("reading the debug registers")?,
            lapic: vcpu.get_lapic().context("reading the local APIC")?,
            msrs: read_msrs(msrs, vcpu, mode)?,
            tsc,
            timer: (deadline != 0).then(|| deadline.saturating_sub(tsc)),
            events: vcpu.get_vcpu_events().context("reading the events")?,
        })
    }
}

/// Finds the MSRs that this KVM can both read and set. The TSC and its deadline are kept apart:
/// they go on from other values.
fn settable_msrs(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Vec<u32>> {
    let list = kvm
        .get_msr_index_list()
        .context("reading the list of MSRs")?;
    let mut msrs = Vec::new();
    for &index in list.as_slice() {
        if [MSR_TSC, MSR_TSC_DEADLINE].contains(&index) || MSR_KVM_WALL_CLOCK.contains(&index) {
            continue;
        }
        if let Some(data) = read_msr(vcpu, index)?
            && set_msrs(vcpu, &[entry(index, data)])?
        {
            msrs.push(index);
        }
    }
    Ok(msrs)
}

fn read_msrs(indices: &[u32], vcpu: &VcpuFd, mode: Mode) -> Result<Vec<kvm_msr_entry>> {
    let mut msrs = Vec::new();
    for &index in indices {
        let data = read_msr(vcpu, index)?.context("an MSR is gone")?;
        msrs.push(entry(index, data));
    }
    if mode == Mode::Native {
        msrs.push(entry(native::MSR_VIF, native::state(vcpu)?));
    }
    Ok(msrs)
}

/// Sets everything but the general registers of a fresh vCPU that already has its CPUID.
///
/// The order matters: the system registers hold the local APIC's mode, which must be set before its
/// registers; those hold its timer's mode, which must be set before the deadline; XCR0 says which
/// parts of the FPU state exist; events come last, as the calls above may clear them. The clock
/// goes on from its saved value when all else is done.
pub fn restore(vm: &VmFd, vcpu: &VcpuFd, family: Family, state: &State) -> Result<()> {
    let saved = &state.vcpu;
    vcpu.set_mp_state(saved.mp_state)
        .context("setting the vCPU's state")?;
    vcpu.set_sregs(&saved.sregs)
        .context("setting the system registers")?;
    vcpu.set_xcrs(&saved.xcrs).context("setting XCR0")?;
    // SAFETY: the area is 4096 bytes, all that KVM_SET_XSAVE reads unless a feature that needs
    // more was enabled with arch_prctl(2); we enable none.
    unsafe { vcpu.set_xsave(&saved.xsave) }.context("setting the FPU state")?;
    vcpu.set_debug_regs(&saved.debug)
        .context("setting the debug registers")?;
    vcpu.set_lapic(&saved.lapic)
        .context("setting the local APIC")?;
    ensure!(
        set_msrs(vcpu, &saved.msrs)?,
        "KVM no longer takes the MSRs of the template"
    );
    restore_timer(vcpu, family, saved)?;
    vcpu.set_vcpu_events(&saved.events)
        .context("setting the events")?;
    let clock = kvm_clock_data {
        clock: state.clock,
        ..Default::default()
    };
    vm.set_clock(&clock).context("setting kvm-clock")
}

/// Restores the timer, which fires as long after the restore as it would have after the save.
fn restore_timer(vcpu: &VcpuFd, family: Family, saved: &VcpuState) -> Result<()> {
    // The guest of a software KVM reads the host's TSC, whatever is set.
    if family == Family::Hardware {
        ensure!(
            set_msrs(vcpu, &[entry(MSR_TSC, saved.tsc)])?,
            "KVM does not take the TSC"
        );
    }
    if let Some(ticks) = saved.timer {
        let now = read_msr(vcpu, MSR_TSC)?.context("the vCPU has no TSC")?;
        let deadline = entry(MSR_TSC_DEADLINE, now.saturating_add(ticks));
        ensure!(
            set_msrs(vcpu, &[deadline])?,
            "KVM does not take the timer's deadline"
        );
    }
    Ok(())
}

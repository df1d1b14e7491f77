//! The numbers of the ioctls that a machine's thread must be able to make while its guest runs
//! (Documentation/virt/kvm/api.rst).

use crate::vm::host::Family;
use crate::vm::mode::Mode;
use kvm_bindings::*;
use nix::{request_code_none, request_code_read, request_code_readwrite, request_code_write};

pub fn requests(mode: Mode) -> Vec<u64> {
    let mut requests = vec![
        // KVM_RUN
        request_code_none!(KVMIO, 0x80),
        // KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS: hypercalls, and reports of an instruction that
        // cannot be run
        request_code_read!(KVMIO, 0x81, size_of::<kvm_regs>()),
        request_code_write!(KVMIO, 0x82, size_of::<kvm_regs>()),
        request_code_read!(KVMIO, 0x83, size_of::<kvm_sregs>()),
        // KVM_GET_MP_STATE: whether the vCPU has halted
        request_code_read!(KVMIO, 0x98, size_of::<kvm_mp_state>()),
        // KVM_SIGNAL_MSI: interrupts
        request_code_write!(KVMIO, 0xa5, size_of::<kvm_msi>()),
    ];
    if mode.family() == Family::Software {
        // KVM_GET_MSRS: the address of the interrupt flag, if the guest switched native mode on
        requests.push(request_code_readwrite!(KVMIO, 0x88, size_of::<kvm_msrs>()));
    }
    if mode == Mode::Emulated {
        requests.extend([
            // KVM_SET_SREGS, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS: an exception and its address
            request_code_write!(KVMIO, 0x84, size_of::<kvm_sregs>()),
            request_code_read!(KVMIO, 0x9f, size_of::<kvm_vcpu_events>()),
            request_code_write!(KVMIO, 0xa0, size_of::<kvm_vcpu_events>()),
            // KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XCRS: XSAVE and XRSTOR
            request_code_read!(KVMIO, 0xa4, size_of::<kvm_xsave>()),
            request_code_write!(KVMIO, 0xa5, size_of::<kvm_xsave>()),
            request_code_read!(KVMIO, 0xa6, size_of::<kvm_xcrs>()),
        ]);
    }
    requests
}

/// Returns the numbers of the ioctls that saving a machine takes, beside those of its thread.
pub fn requests_of_save() -> Vec<u64> {
    let mut requests = requests_of_state();
    requests.extend([
        // KVM_GET_MSR_INDEX_LIST, KVM_SET_MSRS: those that can be set
        request_code_readwrite!(KVMIO, 0x02, size_of::<kvm_msr_list>()),
        request_code_write!(KVMIO, 0x89, size_of::<kvm_msrs>()),
        // KVM_GET_CPUID2
        request_code_readwrite!(KVMIO, 0x91, size_of::<kvm_cpuid2>()),
    ]);
    requests
}

/// Returns the numbers of the ioctls that reading a state of a known shape takes, beside those of the
/// machine's thread.
pub fn requests_of_state() -> Vec<u64> {
    vec![
        // KVM_GET_MSRS
        request_code_readwrite!(KVMIO, 0x88, size_of::<kvm_msrs>()),
        // KVM_GET_CLOCK
        request_code_read!(KVMIO, 0x7c, size_of::<kvm_clock_data>()),
        // KVM_GET_LAPIC, KVM_GET_DEBUGREGS, KVM_GET_VCPU_EVENTS
        request_code_read!(KVMIO, 0x8e, size_of::<kvm_lapic_state>()),
        request_code_read!(KVMIO, 0xa1, size_of::<kvm_debugregs>()),
        request_code_read!(KVMIO, 0x9f, size_of::<kvm_vcpu_events>()),
        // KVM_GET_XSAVE, KVM_GET_XCRS
        request_code_read!(KVMIO, 0xa4, size_of::<kvm_xsave>()),
        request_code_read!(KVMIO, 0xa6, size_of::<kvm_xcrs>()),
    ]
}

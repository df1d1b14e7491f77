//! The ioctls of a machine whose guest runs (Documentation/virt/kvm/api.rst), by number: all that
//! its thread must be able to make.

use crate::vm::host::Family;
use crate::vm::mode::Mode;
use kvm_bindings::*;
use nix::{request_code_none, request_code_read, request_code_readwrite, request_code_write};

pub fn requests(mode: Mode) -> Vec<u64> {
    let mut requests = vec![
        // KVM_RUN
        request_code_none!(KVMIO, 0x80),
        // KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS: services, and an instruction that nobody can run
        request_code_read!(KVMIO, 0x81, size_of::<kvm_regs>()),
        request_code_write!(KVMIO, 0x82, size_of::<kvm_regs>()),
        request_code_read!(KVMIO, 0x83, size_of::<kvm_sregs>()),
        // KVM_GET_MP_STATE: has it halted?
        request_code_read!(KVMIO, 0x98, size_of::<kvm_mp_state>()),
        // KVM_SIGNAL_MSI: interrupts
        request_code_write!(KVMIO, 0xa5, size_of::<kvm_msi>()),
    ];
    if mode.family() == Family::Software {
        // KVM_GET_MSRS: where the interrupt flag is, if the guest switched native mode on
        requests.push(request_code_readwrite!(KVMIO, 0x88, size_of::<kvm_msrs>()));
    }
    if mode == Mode::Emulated {
        requests.extend([
            // KVM_SET_SREGS, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS: an exception, its address
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

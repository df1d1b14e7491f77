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

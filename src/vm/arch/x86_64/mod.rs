//! x86-64: the memory layout, the boot, the state of the processor, and the instructions that KVM
//! leaves to its user.

pub(crate) mod boot;
pub(crate) mod cpuid;
pub(crate) mod emulate;
pub(crate) mod exception;
pub(crate) mod instruction;
pub(crate) mod interrupts;
pub mod layout;
pub(crate) mod mp_table;
pub(crate) mod msr;
pub(crate) mod paging;
pub(crate) mod state;
pub(crate) mod xsave;

//! The exceptions that an instruction raises instead of completing.

use crate::vm::arch::x86_64::paging::PageFault;

/// An exception of the processor that the guest must get.
pub enum Exception {
    Page(PageFault),
    GeneralProtection,
}

impl From<PageFault> for Exception {
    fn from(fault: PageFault) -> Self {
        Self::Page(fault)
    }
}

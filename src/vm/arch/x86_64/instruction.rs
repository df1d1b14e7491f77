//! A decoder for the few instructions that a software KVM leaves to us (Intel SDM 2, chapter 2).

use kvm_bindings::kvm_regs;

/// The most bytes of an instruction.
pub const LENGTH_MAX: usize = 15;

/// An instruction, with its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// `int3`
    Breakpoint { length: u64 },
    /// `fwait`
    Wait { length: u64 },
    /// `xsave64` to the effective address
    Xsave { address: u64, length: u64 },
    /// `xrstor64` from the effective address
    Xrstor { address: u64, length: u64 },
}

const REX_W: u8 = 0x48;
const REX_B: u8 = 1;
const REX_X: u8 = 2;

/// Decodes the instruction at `regs.rip`. `None` means that this module does not handle it.
pub fn decode(bytes: &[u8], regs: &kvm_regs) -> Option<Instruction> {
    match *bytes {
        [0xcc, ..] => Some(Instruction::Breakpoint { length: 1 }),
        [0x9b, ..] => Some(Instruction::Wait { length: 1 }),
        [rex @ REX_W..=0x4f, 0x0f, 0xae, modrm, ..] => {
            let (address, tail) = effective_address(rex, modrm, &bytes[4..], regs, 4)?;
            let length = 4 + tail;
            match modrm >> 3 & 7 {
                4 => Some(Instruction::Xsave { address, length }),
                5 => Some(Instruction::Xrstor { address, length }),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Returns the address of the memory operand in 64-bit mode (tables 2-2 and 2-3), and the number of
/// bytes of SIB and displacement. `before` is the length up to and including ModRM.
fn effective_address(
    rex: u8,
    modrm: u8,
    rest: &[u8],
    regs: &kvm_regs,
    before: u64,
) -> Option<(u64, u64)> {
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let (mut rest, mut used) = (rest, 0);
    let mut base = register(regs, rm | (rex & REX_B) << 3);
    let mut displacement_size = match mode {
        0 => 0,
        1 => 1,
        2 => 4,
        _ => return None,
    };
    if rm == 4 {
        let sib = *rest.first()?;
        (rest, used) = (&rest[1..], 1);
        base = register(regs, sib & 7 | (rex & REX_B) << 3);
        if mode == 0 && sib & 7 == 5 {
            (base, displacement_size) = (0, 4);
        }
        let index = sib >> 3 & 7 | (rex & REX_X) << 2;
        if index != 4 {
            base = base.wrapping_add(register(regs, index) << (sib >> 6));
        }
    } else if mode == 0 && rm == 5 {
        // The address is relative to the next instruction.
        (base, displacement_size) = (regs.rip.wrapping_add(before + 4), 4);
    }
    let displacement = match displacement_size {
        0 => 0,
        1 => i64::from(*rest.first()? as i8),
        _ => i64::from(i32::from_le_bytes(rest.get(..4)?.try_into().ok()?)),
    };
    Some((
        base.wrapping_add_signed(displacement),
        used + displacement_size,
    ))
}

fn register(regs: &kvm_regs, number: u8) -> u64 {
    [
        regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8,
        regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ][usize::from(number & 15)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn regs() -> kvm_regs {
        kvm_regs {
            rax: 0x1000,
            rcx: 0x20,
            rbx: 0x3000,
            rsp: 0x4000,
            rbp: 0x5000,
            rdi: 0x7000,
            r9: 0x9000,
            r12: 0xc000,
            r13: 0xd000,
            rip: 0x10_0000,
            ..Default::default()
        }
    }

    /// Checks encodings that GNU as makes.
    #[test]
    fn addresses_are_those_of_the_assembler() {
        let xsave: [(&[u8], u64); 9] = [
            (&[0x48, 0x0f, 0xae, 0x27], 0x7000),             // xsave64 (%rdi)
            (&[0x48, 0x0f, 0xae, 0x67, 0x40], 0x7040),       // 0x40(%rdi)
            (&[0x48, 0x0f, 0xae, 0x67, 0xc0], 0x6fc0),       // -0x40(%rdi)
            (&[0x48, 0x0f, 0xae, 0xa7, 0, 1, 0, 0], 0x7100), // 0x100(%rdi)
            (&[0x48, 0x0f, 0xae, 0x24, 0x24], 0x4000),       // (%rsp)
            (&[0x49, 0x0f, 0xae, 0x24, 0x24], 0xc000),       // (%r12)
            (&[0x49, 0x0f, 0xae, 0x65, 0x00], 0xd000),       // 0(%r13)
            (&[0x48, 0x0f, 0xae, 0x64, 0x88, 0x08], 0x1088), // 8(%rax,%rcx,4)
            (&[0x48, 0x0f, 0xae, 0x25, 0x10, 0, 0, 0], 0x10_0018), // 0x10(%rip)
        ];
        for (bytes, address) in xsave {
            let length = bytes.len() as u64;
            let expected = Instruction::Xsave { address, length };
            assert_eq!(decode(bytes, &regs()), Some(expected), "{bytes:02x?}");
        }
        let absolute = [0x48, 0x0f, 0xae, 0x2c, 0x25, 0, 0, 0x30, 0]; // xrstor64 0x300000
        let expected = Instruction::Xrstor {
            address: 0x30_0000,
            length: 9,
        };
        assert_eq!(decode(&absolute, &regs()), Some(expected));
    }

    #[test]
    fn other_instructions_of_the_group_are_not_ours() {
        for reg in [0, 1, 2, 3, 6, 7] {
            assert_eq!(decode(&[0x48, 0x0f, 0xae, reg << 3 | 7], &regs()), None);
        }
        assert_eq!(
            decode(&[0x48, 0x0f, 0xae, 0xe7], &regs()),
            None,
            "a register"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic_to_no_more_than_there_are(
            bytes in proptest::collection::vec(any::<u8>(), 0..=LENGTH_MAX),
            prefix in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if prefix && bytes.len() > 3 {
                bytes[..3].copy_from_slice(&[0x48, 0x0f, 0xae]);
            }
            match decode(&bytes, &regs()) {
                Some(Instruction::Xsave { length, .. } | Instruction::Xrstor { length, .. }) => {
                    prop_assert!(length <= bytes.len() as u64);
                }
                Some(_) => prop_assert!(!bytes.is_empty()),
                None => {}
            }
        }
    }
}

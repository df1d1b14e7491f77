//! Exceptions of a program: instructions that only a kernel may execute, debugging, and signals
//! with the right codes and addresses.

use crate::lab::holds;

#[test]
fn what_only_a_kernel_may_execute_ends_in_a_signal() {
    let code = r#"
MSRS = 0x10, 0x1b, 0xc0000080, 0xc0000082, 0xc0000101, 0x4b564d00, 0x4b564d01, 0x4b564d10, 0x4b564d11
REFUSED = {
    'hlt': 'f4', 'cli': 'fa', 'sti': 'fb', 'invd': '0f08', 'wbinvd': '0f09', 'clts': '0f06', 'swapgs': '0f01f8', 'sysretq': '480f07', 'sysretl': '0f07',
    'invlpg [rax]': '0f0138', 'lgdt [rsp]': '0f011424', 'lidt [rsp]': '0f011c24', 'lldt ax': '0f00d0', 'ltr ax': '0f00d8', 'lmsw ax': '0f01f0',
    'mov rax, cr0': '0f20c0', 'mov rax, cr2': '0f20d0', 'mov rax, cr3': '0f20d8', 'mov rax, cr4': '0f20e0', 'mov rax, cr8': '440f20c0',
    'mov cr0, rax': '0f22c0', 'mov cr3, rax': '0f22d8', 'mov cr4, rax': '0f22e0', 'mov rax, dr0': '0f21c0', 'mov rax, dr7': '0f21f8',
    'mov dr7, rax': '0f23f8', 'in al, 0x60': 'e460', 'in eax, dx': 'ed', 'out 0x80, al': 'e680', 'out 0xe4, eax': 'e7e4', 'insb': '6c', 'outsb': '6e',
    'clac': '0f01ca', 'stac': '0f01cb', 'xsetbv': '0f01d1', 'vmxoff': '0f01c4', 'vmrun': '0f01d8', 'clgi': '0f01dd', 'monitor': '0f01c8', 'mwait': '0f01c9',
    'invpcid rax, [rsp]': '660f38820424', 'xsaves [rsp]': '0fc72c24', 'rdpmc': '0f33', 'ud0': '0fff', 'ud1': '0fb9', 'ud2': '0f0b',
    'vmread': '0f78c0', 'vmlaunch': '0f01c2', 'sysexit': '0f35', 'sysenter': '0f34', 'lock nop': 'f090',
} | {f'rdmsr {msr:#x}': f'b9{msr.to_bytes(4, "little").hex()}0f32' for msr in MSRS} | {
    f'wrmsr {msr:#x}': f'b9{msr.to_bytes(4, "little").hex()}31c031d20f30' for msr in MSRS}
for name, code in REFUSED.items():
    event = told(code + ' c3  ' + name)
    assert event.signal in (signal.SIGSEGV, signal.SIGILL), (name, event)
    assert event.rip < len(code) // 2, (name, event)
for name, code in {'vmcall': '0f01c1', 'vmmcall': '0f01d9'}.items():
    for number in *range(16), 0x1001, 0x100b, 0x4b564d10:
        # KVM tells a program's hypercall that only a kernel may; no host does anything.
        result, event = attempt('4889f8 31db 31d2' + code + 'c3  mov rax, rdi; xor ebx, ebx; xor edx, edx; ' + name, number)
        assert event and event.signal in (signal.SIGSEGV, signal.SIGILL) or result in (WORD, WORD - 999, number), (name, number, result, event)
"#;
    holds(&[], code);
}

/// This includes the interrupts by which a native kernel returns and calls its host: for a program
/// they are no way in.
#[test]
fn no_software_interrupt_is_a_hypercall_or_a_return() {
    let code = r#"
FRAME = '''
    554889e54889f84889f34889d131d2                push rbp; mov rbp, rsp; mov rax, rdi; mov rbx, rsi; mov rcx, rdx; xor edx, edx
    6a2b4c8d442408415068020201006a334c8d05020000004150  push 0x2b; lea r8, [rsp + 8]; push r8; push 0x10202; push 0x33; lea r8, [rip + here]; push r8; here:
'''
for number in range(256):
    if number in (3, 4): continue  # programs may: below
    for operands in (0, 0, 0), (0x1001, 0x1000, 0), (0x1003, 0xc0000082, 0), (0x1009, 0, 0), (0x100b, 0, 0x7fff00000000), (WORD, WORD, WORD):
        code = hexadecimal(FRAME) + bytes([0xcd, number, 0xc9, 0xc3])  # int; leave; ret
        result, event = attempt(code, *operands)
        if MODE != 'hardware':
            # Who runs user mode natively takes this one for CPUID, which is anybody's, and some for no instruction.
            if number == 0x1a and event is None: continue
            assert event, number
            if event.signal == signal.SIGILL: continue
        assert event and event[:3] == (signal.SIGSEGV, 0x80, 0) and event.exception == 13, (number, event)
        assert event.rip in (len(code) - 4, len(code) - (4 if MODE == 'hardware' else 2)), (number, event)
        if SLOW and number % 16 != 7: break
assert call(39) == os.getpid()
"#;
    holds(&[], code);
}

/// Tries far jumps and returns, and a return from a signal, to segments and addresses of all kinds.
#[test]
fn no_other_code_segment_leads_anywhere() {
    let code = r#"
FAR = '4889e5 57 56 48cb  mov rbp, rsp; push rdi; push rsi; retfq'
IRET = '6a2b 54 9c 57 56 48cf  push 0x2b; push rsp; pushf; push rdi; push rsi; iretq'
SELECTORS = 0, 3, 8, 0xb, 0x10, 0x13, 0x18, 0x1b, 0x20, 0x28, 0x2b, 0x38, 0x40, 0x43, 0x48, 0x50, 0x78, 0x7b, 0x80, 0xfff8, 0xffff
PLACES = BASE + CODE, 0xffffffff81000000, 1 << 47, 1 << 63, 0
for how in FAR, IRET:
    for selector in SELECTORS:
        for place in PLACES:
            event = told(how, selector, place)
            assert event.signal in (signal.SIGSEGV, signal.SIGBUS), (how, hex(selector), hex(place), event)
    for place in PLACES[1:]:
        event = told(how, 0x33, place)
        assert event.signal in (signal.SIGSEGV, signal.SIGILL if SLOW else signal.SIGSEGV), (how, hex(place), event)
# 32-bit code may run where the processor lets it; there it has no way into the kernel either.
memory_low = call(9, 0x10000000, 4096, 7, 0x32, -1, 0)
assert memory_low == 0x10000000
SWITCH = '89fc 6a23 56 48cb  mov esp, edi; push 0x23; push rsi; retfq'
for name, code in {'int 0x80': 'cd80', 'int 0x1b': 'cd1b', 'int 0x17': 'cd17', 'sysenter': '0f34', 'hlt': 'f4', 'ud2': '0f0b', 'mov eax, [0]': 'a100000000',
        'mov eax, cr0': '0f20c0', 'into': 'ce', 'lcall 0x10:0': '9a000000001000'}.items():
    code = bytes.fromhex('31c0 f9 19c0' + code + 'f4')  # xor eax, eax; stc; sbb eax, eax; ...; hlt
    ctypes.memmove(memory_low, code, len(code))
    event = told(SWITCH, memory_low + 2048, memory_low)
    assert event.signal in (signal.SIGSEGV, signal.SIGILL), (name, event)
# SYSCALL of 32-bit code has no handler here: whatever comes of it, a machine that goes on.
def compatible():
    code = bytes.fromhex('b814000000 0f05 0f0b')
    ctypes.memmove(memory_low, code, len(code))
    for number in FATAL: signal.signal(number, signal.SIG_DFL)
    attempt(SWITCH, memory_low + 2048, memory_low)
status = child(compatible)
assert status & 0x7f in (*FATAL, signal.SIGKILL), status
assert call(39) == os.getpid()
"#;
    holds(&[], code);
}

#[test]
fn a_return_from_a_signal_restores_no_more_than_a_program_may_have() {
    let code = r#"
# Changes, in the frame of the signal that it handles, eight bytes: where and what is after it.
EDIT = '''
    488b0d39000000488b053a0000004889040ac3        mov rcx, [rip + where]; mov rax, [rip + what]; mov [rdx + rcx], rax; ret
    66662e0f1f84000000000066662e0f1f84000000000066662e0f1f84000000000066662e0f1f840000000000900000000000000000  .balign 64; where: .quad 0; what:
'''
code = hexadecimal(EDIT)
handler, place = memory()
RSP, RIP, FLAGS, SEGMENTS = 160, 168, 176, 184
def edited(where, what):
    for number in FATAL: signal.signal(number, signal.SIG_DFL)
    handler[:len(code) + 8] = code[:-8] + struct.pack('QQ', where, what & WORD)
    action(signal.SIGUSR1, place)
    os.kill(os.getpid(), signal.SIGUSR1)
    return 7
def ended(where, what): return os.waitstatus_to_exitcode(child(edited, where, what))
few = slice(None, None, 3 if SLOW else 1)
for address in (0xffffffff81000000, 0xffff888000000000, 1 << 47, 1 << 63, 0, WORD)[few]:
    assert ended(RIP, address) == -signal.SIGSEGV, hex(address)
    assert ended(RSP, address) in (-signal.SIGSEGV, -signal.SIGBUS), hex(address)
# The host of a native kernel returns to 0x33 and 0x2b, whatever the frame says.
REFUSED = {'hardware': [-signal.SIGSEGV], 'native': [7], 'emulated': [-signal.SIGSEGV, -signal.SIGBUS]}[MODE]
for selector in (0, 8, 0x10, 0x13, 0x18, 0x1b, 0x2b, 0x38, 0x40, 0x7b, 0xffff)[few]:  # CS
    assert ended(SEGMENTS, selector | 0x2b << 48) in REFUSED, hex(selector)
assert ended(SEGMENTS, 0x33 | 0x2b << 48) == 7
for selector in (8, 0x10, 0x33, 0x38, 0x40, 0xffff)[few]:  # SS, which the kernel mends where it can
    assert ended(SEGMENTS, 0x33 | selector << 48) in [7, *REFUSED], hex(selector)
for flags in (0x202, 0, 0x3002, 0x20002, 0x180002, WORD & ~0x100, 0x4002, 0x40002)[few]:  # IF off, IOPL, VM, VIF and VIP, NT, AC
    assert ended(FLAGS, flags) in (7, -signal.SIGBUS), hex(flags)
assert ended(FLAGS, 0x302) == -signal.SIGTRAP
"#;
    holds(&[], code);
}

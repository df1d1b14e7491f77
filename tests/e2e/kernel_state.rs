//! The registers of a program keep their values, and are its own: vector and floating-point state,
//! the bases of FS and GS, flags.

use crate::common::mode;
use crate::lab::{LAB, holds};
use crate::session_fork::{cell, fork};
use crate::sessions::Sessions;

/// The processor's extended state as XSAVE lays it out, filled from a seed and compared.
const EXTENDED: &str = r#"
import itertools, random, resource
CPUID = '''
    5389f889f14889d7            push rbx; mov eax, edi; mov ecx, esi; mov rdi, rdx
    0fa2                        cpuid
    8907895f04894f0889570c5bc3  mov [rdi], eax; mov [rdi + 4], ebx; mov [rdi + 8], ecx; mov [rdi + 12], edx; pop rbx; ret
'''
def cpuid(leaf, sub):
    kept, where = memory(4096)
    attempt(CPUID, leaf, sub, where)
    return struct.unpack_from('4I', kept)
NAMES = {0: 'x87', 1: 'SSE', 2: 'AVX', 5: 'opmask', 6: 'ZMM_Hi256', 7: 'Hi16_ZMM'}
OPTIONAL = {3: 'BNDREGS', 4: 'BNDCSR', 9: 'PKRU', 17: 'TILECFG', 18: 'TILEDATA'}
ENABLED = attempt('31c9 0f01d0 48c1e220 4809d0 c3  xor ecx, ecx; xgetbv; shl rdx, 32; or rax, rdx; ret')[0]
MASK = ENABLED & sum(1 << bit for bit in NAMES)
SIZE = cpuid(13, 0)[1] + 64
# Of each component, what there is to compare: for x87 control, status, tags and the registers' ten bytes.
PIECES = {0: [(0, 5)] + [(32 + 16 * n, 10) for n in range(8)], 1: [(24, 4), (160, 256)]}
PIECES |= {bit: [(cpuid(13, bit)[1], cpuid(13, bit)[0])] for bit in NAMES if bit > 1 and MASK >> bit & 1}
def filled(seed):
    kept, where = memory(SIZE)
    source = random.Random(seed)
    for bit, pieces in PIECES.items():
        for offset, size in pieces: kept[offset:offset + size] = source.randbytes(size)
    kept[0:5] = struct.pack('HHB', 0x7f | source.choice([0, 0x200, 0x300]) | source.randrange(4) << 10, source.randrange(8) << 11, 0xff)
    kept[24:28] = struct.pack('I', 0x1f80 | source.randrange(4) << 13 | source.randrange(64))
    kept[512:520] = struct.pack('Q', MASK)
    return kept, where
def same(one, other):
    assert struct.unpack_from('Q', other, 512)[0] & MASK == MASK, other[512:520]
    for bit, pieces in PIECES.items():
        for offset, size in pieces: assert one[offset:offset + size] == other[offset:offset + size], (NAMES[bit], offset)
print('states:', *[name for bit, name in (NAMES | OPTIONAL).items() if ENABLED >> bit & 1], f'({ENABLED:#x})')
assert MASK & 3 == 3
"#;

/// Loads the state at RDI, makes system calls in rounds, and saves the state at RSI. RDX points to
/// the number of rounds, the system call's number and two operands. A new page is touched in each
/// round.
const HOLD: &str = r#"
HOLD = '''
    5355415441554156                  push rbx; push rbp; push r12; push r13; push r14
    4989f54989d6488b1a4889d5          mov r13, rsi; mov r14, rdx; mov rbx, [rdx]; mov rbp, rdx
    b8ffffffffbaffffffff480fae2f      mov eax, -1; mov edx, -1; xrstor64 [rdi]
    4881c500100000c6450001            round: add rbp, 4096; mov byte ptr [rbp], 1
    498b4608498b7e10498b761831d20f05  mov rax, [r14 + 8]; mov rdi, [r14 + 16]; mov rsi, [r14 + 24]; xor edx, edx; syscall
    4989c448ffcb75dd                  mov r12, rax; dec rbx; jnz round
    b8ffffffffbaffffffff490fae6500    mov eax, -1; mov edx, -1; xsave64 [r13]
    dbe368801f00000fae1424584c89e0    fninit; push 0x1f80; ldmxcsr [rsp]; pop rax; mov rax, r12
    415e415d415c5d5bc3                pop r14; pop r13; pop r12; pop rbp; pop rbx; ret
'''
def hold(seed, rounds, number, *operands):
    before, start = filled(seed)
    after, end = memory(SIZE)
    pages, place = memory((rounds + 1) * 4096)
    pages[:32] = struct.pack('QQQQ', rounds, number, *(operands + (0, 0))[:2])
    result, event = attempt(HOLD, start, end, place)
    assert event is None, event
    same(before, after)
    return result
"#;

#[test]
fn vector_states_survive_switches_between_processes() {
    let code = r#"
rounds = 60 if SLOW else 1000
def switches(): usage = resource.getrusage(resource.RUSAGE_SELF); return usage.ru_nvcsw + usage.ru_nivcsw
def work(seed):
    for more in range(100):
        hold(f'{seed}, {more}', rounds, 24)  # sched_yield
        if switches() > rounds: break
    print(seed, switches(), 'switches', flush=True)
    assert switches() > rounds / 2
pids = []
for seed in range(3):
    if not (pid := os.fork()):
        try: work(seed)
        except BaseException: sys.excepthook(*sys.exc_info()); os._exit(1)
        os._exit(0)
    pids.append(pid)
for pid in pids: assert os.waitpid(pid, 0)[1] == 0
"#;
    holds(&[], &format!("{EXTENDED}{HOLD}{code}"));
}

#[test]
fn vector_states_survive_signal_handlers_that_change_them() {
    let code = r#"
CLOBBER = '''
    488d053900000048ff004c8b4008                  lea rax, [rip + data]; inc qword ptr [rax]; mov r8, [rax + 8]
    b8ffffffffbaffffffff490fae28c3                mov eax, -1; mov edx, -1; xrstor64 [r8]; ret
    66662e0f1f84000000000066662e0f1f84000000000066662e0f1f8400000000006690  .balign 64; data:
'''
code = hexadecimal(CLOBBER)
handler, place = memory()
other, there = filled('other')
handler[:len(code) + 16] = code + struct.pack('QQ', 0, there)
action(signal.SIGUSR1, place)
rounds = 50 if SLOW else 500
hold('own', rounds, 62, os.getpid(), signal.SIGUSR1)
assert struct.unpack_from('Q', handler, len(code))[0] == rounds
# As an interrupt finds it, at any instruction of a computation.
action(signal.SIGALRM, place)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
while struct.unpack_from('Q', handler, len(code))[0] < rounds + 20: hold('own', 50, 39)
signal.setitimer(signal.ITIMER_REAL, 0)
"#;
    holds(&[], &format!("{EXTENDED}{HOLD}{code}"));
}

/// A process that a cell left keeps its state in registers alone, without a system call, while its
/// machine is saved. It compares that once its flag is set, in the machine and in those that go on from it.
#[test]
fn vector_states_survive_a_save_and_a_restore() {
    let sessions = Sessions::with(&[]);
    let code = r#"
SPIN = '''
    4889d1 b8ffffffff baffffffff 480fae2f   mov rcx, rdx; mov eax, -1; mov edx, -1; xrstor64 [rdi]
    f390 803900 74f9                        spin: pause; cmp byte ptr [rcx], 0; je spin
    b8ffffffff baffffffff 480fae26          mov eax, -1; mov edx, -1; xsave64 [rsi]
    dbe3 68801f0000 0fae142458 31c0c3       fninit; push 0x1f80; ldmxcsr [rsp]; pop rax; xor eax, eax; ret
'''
flag = mmap.mmap(-1, 4096)
def spin():
    before, start = filled('spun')
    after, end = memory(SIZE)
    flag[1] = 1
    result, event = attempt(SPIN, start, end, ctypes.addressof(ctypes.c_char.from_buffer(flag)))
    assert event is None, event
    same(before, after)
    return 'the same'
if not os.fork():
    try: told = spin()
    except BaseException as error: told = repr(error)
    with open('/tmp/.told', 'w') as file: file.write(told)
    os.rename('/tmp/.told', '/tmp/told')
    os._exit(0)
while not flag[1]: time.sleep(0.01)
time.sleep(0.1)
"#;
    let mode = mode().name();
    sessions.gives(&format!("MODE = {mode:?}\n{LAB}\n{EXTENDED}{code}"));
    let names = fork(&sessions, "a", 2);
    let look = "flag[0] = 1
while not os.path.exists('/tmp/told'): time.sleep(0.01)
print(open('/tmp/told').read())";
    for name in names.iter().map(String::as_str).chain(["a"]) {
        assert_eq!(cell(&sessions, name, look), "the same\n", "{name}");
    }
}

#[test]
fn vector_states_are_the_childs_after_a_fork() {
    let code = r#"
for seed in range(5):
    pid = hold(seed, 1, 57)
    if pid == 0: os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"#;
    holds(&[], &format!("{EXTENDED}{HOLD}{code}"));
}

/// A program begins without any state of its predecessors, in a clone as in the machine that was
/// saved.
#[test]
fn a_program_begins_with_the_initial_state() {
    let code = r#"
START = '''
    b8ffffffffbaffffffffbf00204000480fae27        mov eax, -1; mov edx, -1; mov edi, 0x402000; xsave64 [rdi]
    b89e000000bf03100000be001040000f05            mov eax, 158; mov edi, 0x1003; mov esi, 0x401000; syscall (arch_prctl(ARCH_GET_FS))
    b89e000000bf04100000be081040000f05            mov eax, 158; mov edi, 0x1004; mov esi, 0x401008; syscall (arch_prctl(ARCH_GET_GS))
    9c584889042510104000                          pushf; pop rax; mov [0x401010], rax
    b801000000bf01000000be00104000ba004000000f05  mov eax, 1; mov edi, 1; mov esi, 0x401000; mov edx, 0x4000; syscall
    b83c00000031ff0f05                            mov eax, 60; xor edi, edi; syscall
'''
start = hexadecimal(START)
header = b'\x7fELF' + bytes([2, 1, 1]) + bytes(9) + struct.pack('HHIQQQIHHHHHH', 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
header += struct.pack('IIQQQQQQ', 1, 7, 0, 0x400000, 0x400000, 0x78 + len(start), 0x10000, 4096)
open('/tmp/start', 'wb').write(header + start)
os.chmod('/tmp/start', 0o755)
assert call(158, 0x1001, 0x1234567000) == 0  # ARCH_SET_GS
for seed in range(3):
    read, write = os.pipe()
    os.set_inheritable(write, True)
    if not (pid := os.fork()):
        os.dup2(write, 1)
        hold(seed, 1, 59, ctypes.cast(path := ctypes.c_char_p(b'/tmp/start'), ctypes.c_void_p).value, 0)
        os._exit(1)
    os.close(write)
    said = open(read, 'rb').read()
    assert os.waitpid(pid, 0)[1] == 0 and len(said) == 0x4000
    assert struct.unpack_from('QQ', said) == (0, 0), said[:16]
    assert struct.unpack_from('Q', said, 16)[0] & ~0x246 == 0, said[16:24].hex()
    state = said[0x1000:]
    assert struct.unpack_from('HHB', state) == (0x37f, 0, 0) and struct.unpack_from('I', state, 24)[0] == 0x1f80
    for bit, pieces in PIECES.items():
        if state[512] >> bit & 1 and bit:
            for offset, size in pieces:
                if offset != 24: assert state[offset:offset + size] == bytes(size), (NAMES[bit], offset)
"#;
    holds(&[], &format!("{EXTENDED}{HOLD}{code}"));
}

#[test]
fn the_bases_of_fs_and_gs_are_each_programs_own() {
    let code = r#"
LIBC.getauxval.restype = ctypes.c_ulong
instructions = LIBC.getauxval(26) >> 1 & 1  # AT_HWCAP2, HWCAP2_FSGSBASE
print('FSGSBASE' if instructions else 'no FSGSBASE')
def get(): assert call(158, 0x1004, place) == 0; return struct.unpack_from('Q', kept)[0]
kept, place = memory()
READ, WRITE = 'f3480faec8 c3  rdgsbase rax; ret', 'f3480faedf c3  wrgsbase rdi; ret'
LOAD = '65488b07 c3  mov rax, gs:[rdi]; ret'
kept[64:72] = b'by  base'
def write(base):
    if instructions: assert attempt(WRITE, base)[1] is None
    else: assert call(158, 0x1001, base) == 0
def work(base):
    write(base)
    for _ in range(20 if SLOW else 300):
        call(24)
        assert get() == base, hex(get())
        if instructions: assert attempt(READ)[0] == base
for base in 0, place, 0x7ffffffff000:
    pids = []
    for more in 0, 8, 16:
        if not (pid := os.fork()):
            try: work(base + more)
            except BaseException: sys.excepthook(*sys.exc_info()); os._exit(1)
            os._exit(0)
        pids.append(pid)
    work(base)
    for pid in pids: assert os.waitpid(pid, 0)[1] == 0
write(place + 64)
assert attempt(LOAD, 0)[0].to_bytes(8, 'little') == b'by  base'
event = told(LOAD, (0xffffffff81000000 - place - 64) & WORD)
assert event[:3] == (signal.SIGSEGV, 1, 0xffffffff81000000), event
assert get() == place + 64
# A null selector: the base is the processor maker's choice, the machine's life is not.
attempt('8cd8 31c0 8ee8 c3  mov eax, ds; xor eax, eax; mov gs, eax; ret')
for selector in 0, 3, 0x2b, 0x33, 0x23:
    attempt('8eef c3  mov gs, edi; ret', selector); call(24); get()
for selector in 8, 0x10, 0x18, 0x40, 0x78, 0xffff:
    event = attempt('8eef c3  mov gs, edi; ret', selector)[1]
    assert event is None or event[:2] == (signal.SIGSEGV, 0x80), (selector, event)
if instructions:
    for base in 0x0000800000000000, 0x8000000000000000:
        assert told(WRITE, base)[:3] == (signal.SIGSEGV, 0x80, 0), hex(base)
    # In the kernel's half it may be named, but nothing is read there; the host of a native kernel takes it for none.
    for base in 0xffffffff81000000, 0xffff888000000000:
        assert attempt(WRITE, base)[1] is None
        kept_as = 0 if MODE == 'native' else base
        assert get() == kept_as, (hex(base), hex(get()))
        assert told(LOAD, 0)[:3] == (signal.SIGSEGV, 1, kept_as), hex(base)
        call(24); assert get() == kept_as
"#;
    holds(&[], code);
}

#[test]
fn flags_of_a_program_trouble_no_kernel_and_come_back() {
    let code = r#"
FLAGS = '''
    53559c5b4889dd4809fd559d              push rbx; push rbp; pushf; pop rbx; mov rbp, rbx; or rbp, rdi; push rbp; popf
    c60601                                mov byte ptr [rsi], 1 (a page fault)
    b8270000000f05b8180000000f05          mov eax, 39; syscall; mov eax, 24; syscall (getpid, sched_yield)
    b80100000089d74883c603bafb0f00000f05  mov eax, 1; mov edi, edx; add rsi, 3; mov edx, 4091; syscall (an unaligned write)
    b9c0c62d00e2fe                        mov ecx, 3000000; wait: loop wait (interrupts)
    9c58539d5d5bc3                        pushf; pop rax; push rbx; popf; pop rbp; pop rbx; ret
'''
AC, DF, NT, ID, IOPL, OF = 1 << 18, 1 << 10, 1 << 14, 1 << 21, 3 << 12, 1 << 11
null = os.open('/tmp/out', os.O_WRONLY | os.O_CREAT)
kept, place = memory(64 << 12)
for page, flags in enumerate([0, AC, DF, NT, ID, AC | DF | NT | ID, IOPL, IOPL | AC]):
    result, event = attempt(FLAGS, flags, place + page * 4096, null)
    assert event is None, (hex(flags), event)
    # Nested tasks are nobody's: a host that returns for the kernel may clear NT.
    assert result & (AC | DF | IOPL) == flags & (AC | DF) and flags & ID <= result & ID, (hex(flags), hex(result))
    assert result & NT <= flags & NT, (hex(flags), hex(result))
    assert result & 0x200, hex(result)
# What a signal handler and whoever looks on see of them.
BREAK = '''
    9c48093c249d480fbe069c58c3  pushf; or [rsp], rdi; popf; movsx rax, byte ptr [rsi]; pushf; pop rax; ret
'''
for flags in AC, DF, NT, ID, AC | DF | NT | ID:
    event = told(BREAK, flags, 0x10)
    assert event[:3] == (signal.SIGSEGV, 1, 0x10) and flags & ~NT & ~event.flags == 0, (hex(flags), event)
UNALIGNED = '''
    9c48810c24000004009d488b4701c3  pushf; or qword ptr [rsp], 0x40000; popf; mov rax, [rdi + 1]; ret
'''
event = told(UNALIGNED, place)
assert event[:2] == (signal.SIGBUS, 1), event
# A crash that the kernel writes a line about, with AC set.
def crash(flags, address):
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    attempt(BREAK, flags, address)
for flags in AC, DF, NT, AC | DF | NT:
    for address in 0x10, 0xffffffff81000000, 1 << 63: assert child(crash, flags, address) & 0x7f == signal.SIGSEGV
"#;
    holds(&[], code);
}

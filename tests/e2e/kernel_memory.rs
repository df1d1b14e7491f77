//! A program cannot read, write or enter its kernel, whatever separates them: the processor's user
//! level, or a page table of its own that the host switches.

use crate::lab::holds;

/// Addresses of all kinds that a kernel has, and addresses that nobody has.
const PLACES: &str = r#"
LOAD, STORE, JUMP = '488b07 c3  mov rax, [rdi]; ret', '488907 c3  mov [rdi], rax; ret', 'ffe7  jmp rdi'
SLOT = 1 << 39  # what an entry of the top-most table maps
KERNEL = [WORD + 1 - slot * SLOT for slot in range(256, 0, -16 if SLOW else -1)] + [
    0xffff888000000000, 0xffff888000001000, 0xffff888001000000,  # all of its memory
    0xffffc90000000000, 0xffffea0000000000,                      # vmalloc, vmemmap
    0xfffffe0000000000, 0xfffffe0000001000, 0xfffffe0000002000,  # entry area: IDT, GDT, stack of entries
    0xffffff0000000000, 0xffffff7fffffe000,                      # espfix
    0xffffffff80000000, 0xffffffff81000000, 0xffffffff82000000,  # its image
    0xffffffffa0000000, 0xffffffffc0000000,                      # modules
    0xffffffffff5fd000, 0xffffffffff600000, 0xffffffffff600400, 0xffffffffff5ff000,  # fixmap, vsyscall
    WORD & ~4095, WORD - 7]
NOBODYS = [0x0000800000000000, 0x0000800000001000, 0x00ff000000000000, 0x8000000000000000, 0xfeffffffffffffff, 0xffff7fffffffeff8]
SEGV_MAPERR, SI_KERNEL = 1, 0x80
PAGE_FAULT, GENERAL_PROTECTION = 14, 13
"#;

#[test]
fn no_address_of_the_kernel_can_be_read_written_or_entered() {
    let code = r#"
for how in LOAD, STORE, JUMP:
    for place in KERNEL:
        event = told(how, place)
        assert event[:3] == (signal.SIGSEGV, SEGV_MAPERR, place), (how, hex(place), event)
        assert event.exception == PAGE_FAULT, (how, hex(place), event)
        assert event.rip == (0 if how != JUMP else place - BASE - CODE & WORD), (how, hex(place), event)
    for place in NOBODYS:
        event = told(how, place)
        assert event[:3] == (signal.SIGSEGV, SI_KERNEL, 0), (how, hex(place), event)
        assert event.exception == GENERAL_PROTECTION and event.rip in (0, place - BASE - CODE & WORD), (how, hex(place), event)
"#;
    holds(&[], &format!("{PLACES}{code}"));
}

/// This holds wherever in memory the page is that the host and a native kernel share.
#[test]
fn no_page_of_the_kernels_image_tables_and_memory_is_there() {
    let code = r#"
step = 4096 * (16 if SLOW else 1)
ranges = [(0xffffffff80000000, 32 << 20, step), (0xfffffe0000000000, 64 << 12, 4096), (0xffffffffff000000, 16 << 20, step),
    (0xffff888000000000, 1 << 30, 1 << 19), (0xffff888000000000, 4 << 20, step), (0xffffea0000000000, 4 << 20, 1 << 16)]
count = 0
put(LOAD)
for start, length, step in ranges:
    for place in range(start, start + length, step):
        ENTER(BASE + CODE, place & WORD, 0, 0)
        count += 1
        seen, number, code, address = struct.unpack_from('QqqQ', LAB, RECORD)
        assert (seen, number, code, address) == (count, signal.SIGSEGV, SEGV_MAPERR, place), hex(place)
print(count, 'pages looked for')
"#;
    holds(&[], &format!("{PLACES}{code}"));
}

#[test]
fn no_system_call_reads_or_writes_the_kernel_for_a_program() {
    let code = r#"
read_end, write_end = os.pipe()
zero, null = os.open('/dev/zero', os.O_RDONLY), os.open('/dev/null', os.O_WRONLY)
own = open('/proc/self/mem', 'r+b', buffering=0)
buffer = ctypes.create_string_buffer(64)
here = ctypes.cast(buffer, ctypes.c_void_p).value
os.write(write_end, b'x' * 64)
FAULT, NONE = (-errno.EFAULT,), (-errno.ENOMEM, -errno.EINVAL)
for place in [place for place in KERNEL[-21:] + NOBODYS if place < WORD - 4096]:
    remote, local = struct.pack('QQ', place, 8), struct.pack('QQ', here, 8)
    calls = {
        'read': (call(0, zero, place, 8), FAULT), 'write': (call(1, write_end, place, 8), FAULT),
        'read of a pipe': (call(0, read_end, place, 8), FAULT), 'getrandom': (call(318, place, 8, 0), FAULT),
        'writev': (call(20, write_end, remote, 1), FAULT), 'writev of a list there': (call(20, write_end, place, 1), FAULT),
        'readv': (call(19, zero, remote, 1), FAULT),
        'open': (call(2, place, 0), FAULT), 'stat': (call(4, b'/\0', place), FAULT), 'getcwd': (call(79, place, 64), FAULT),
        'uname': (call(63, place), FAULT), 'pipe': (call(22, place), FAULT), 'nanosleep': (call(35, place, 0), FAULT),
        'clock_gettime': (call(228, 1, place), FAULT), 'rt_sigaction': (call(13, signal.SIGUSR1, place, 0, 8), FAULT),
        'the old rt_sigaction': (call(13, signal.SIGUSR1, 0, place, 8), FAULT), 'rt_sigprocmask': (call(14, 0, place, 0, 8), FAULT),
        'sigaltstack': (call(131, place, 0), FAULT), 'arch_prctl': (call(158, 0x1003, place), FAULT), 'execve': (call(59, place, 0, 0), FAULT),
        'execve with arguments there': (call(59, b'/bin/true\0', place, 0), FAULT),
        'futex': (call(202, place & ~3, 0, 1, 0, 0, 0), FAULT), 'process_vm_readv': (call(310, os.getpid(), local, 1, remote, 1, 0), FAULT),
        'process_vm_writev': (call(311, os.getpid(), local, 1, remote, 1, 0), FAULT),
        'sched_getaffinity': (call(204, 0, 8, place), FAULT), 'prctl, name': (call(157, 16, place), FAULT),
        'mprotect': (call(10, place & ~4095, 4096, 7), NONE), 'munmap': (call(11, place & ~4095, 4096), NONE), 'msync': (call(26, place & ~4095, 4096, 4), NONE),
        'madvise': (call(28, place & ~4095, 4096, 4), NONE), 'mremap': (call(25, place & ~4095, 4096, 8192, 1), NONE + FAULT),
        'a fixed mmap': (call(9, place & ~4095, 4096, 7, 0x32, -1, 0), NONE),
        'mincore': (call(27, place & ~4095, 4096, here), NONE + FAULT), 'ARCH_SET_FS': (call(158, 0x1002, place), (-errno.EPERM,)),
        'ARCH_SET_GS': (call(158, 0x1001, place), (-errno.EPERM,)),
    }
    for name, (result, expected) in calls.items(): assert result in expected, (name, hex(place), result)
    for access in lambda: os.pread(own.fileno(), 8, place), lambda: os.pwrite(own.fileno(), b'x', place):
        try: access()
        except (OSError, OverflowError, ValueError) as error: assert getattr(error, 'errno', errno.EIO) in (errno.EIO, errno.EINVAL), (hex(place), error)
        else: raise AssertionError(hex(place))
assert buffer.raw == bytes(64)
"#;
    holds(&[], &format!("{PLACES}{code}"));
}

/// A kernel must not resume a program at an address in the kernel.
#[test]
fn no_signal_handler_stack_or_return_leads_into_the_kernel() {
    let code = r#"
def handler_there(place):
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    action(signal.SIGUSR1, place)
    os.kill(os.getpid(), signal.SIGUSR1)
def stack_there(place):
    STACK = '4889fc 58 c3  mov rsp, rdi; pop rax; ret'
    event = told(STACK, place)
    return event.signal == signal.SIGBUS if place in NOBODYS else event[:3] == (signal.SIGSEGV, SEGV_MAPERR, place)
def alternate_stack_there(place):
    if call(131, struct.pack('QQQ', place, 0, 1 << 16), 0) == 0: attempt('0f0b  ud2')
def traced(place, registers):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        call(101, 0, 0, 0, 0); os.kill(os.getpid(), signal.SIGSTOP); os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0x137f
    assert call(101, 3, pid, place, bytes(8)) == -errno.EIO, 'PEEKDATA'
    assert call(101, 5, pid, place, 0) == -errno.EIO, 'POKEDATA'
    for register in registers: assert call(101, 6, pid, register * 8, place) in (0, -errno.EIO), register
    assert call(101, 7, pid, 0, 0) == 0
    status = os.waitpid(pid, 0)[1]
    if os.WIFSTOPPED(status): os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
    return (status >> 8 if os.WIFSTOPPED(status) else status) == signal.SIGSEGV
for place in (KERNEL[-21:] + NOBODYS)[::9 if SLOW else 1]:
    for work in handler_there, alternate_stack_there:
        status = child(work, place)
        assert status & 0x7f in (signal.SIGSEGV, signal.SIGILL), (work.__name__, hex(place), status)
    assert stack_there(place) or place in NOBODYS, hex(place)
    assert traced(place, [16]), ('RIP', hex(place))
    assert traced(place, [19, 16]), ('RSP and RIP', hex(place))
"#;
    holds(&[], &format!("{PLACES}{code}"));
}

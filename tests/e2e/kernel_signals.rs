//! Signals and debugging: the right codes and addresses, steps and breakpoints by ptrace, handlers
//! within handlers, alternate stacks, the vDSO.

use crate::lab::holds;

#[test]
fn each_fault_has_its_signal_code_address_and_place() {
    let code = r#"
LOAD, STORE, JUMP = '488b07 c3  mov rax, [rdi]; ret', '488907 c3  mov [rdi], rax; ret', 'ffe7  jmp rdi'
area = call(9, 0, 4 << 12, 3, 0x22, -1, 0)  # mmap
readable, inaccessible, gone, ordinary = (area + (page << 12) + 0x123 for page in range(4))
assert call(10, area, 4096, 1) == call(10, area + 4096, 4096, 0) == call(11, area + 8192, 4096) == 0
with open('/tmp/short', 'wb') as file: file.truncate(4096)
beyond = call(9, 0, 8192, 1, 2, os.open('/tmp/short', os.O_RDONLY), 0) + 4096
MAPERR, ACCERR, KERNEL = 1, 2, 0x80
UNMASKED = '6800000000 0fae1424'  # push 0; ldmxcsr [rsp]
CASES = [  # code, operand, signal, si_code, si_addr or None for the instruction's, RIP (of a jump: where it leads)
    (LOAD, 0x10, signal.SIGSEGV, MAPERR, 0x10, 0), (STORE, readable, signal.SIGSEGV, ACCERR, readable, 0),
    (LOAD, inaccessible, signal.SIGSEGV, ACCERR, inaccessible, 0), (STORE, inaccessible, signal.SIGSEGV, ACCERR, inaccessible, 0),
    (LOAD, gone, signal.SIGSEGV, MAPERR, gone, 0), (LOAD, 0x7ffffffff000, signal.SIGSEGV, MAPERR, 0x7ffffffff000, 0),
    (JUMP, ordinary, signal.SIGSEGV, ACCERR, ordinary, ordinary), (JUMP, gone, signal.SIGSEGV, MAPERR, gone, gone),
    (JUMP, 0, signal.SIGSEGV, MAPERR, 0, 0 - BASE - CODE), (LOAD, beyond, signal.SIGBUS, 2, beyond, 0),
    *[(how, place, signal.SIGSEGV, MAPERR, place, place if how == JUMP else 0)  # vsyscalls are not emulated
        for how in (LOAD, STORE, JUMP) for place in (0xffffffffff600000, 0xffffffffff600400, 0xffffffffff600800)],
    ('488b042500000080', 0, signal.SIGSEGV, MAPERR, 0xffffffff80000000, 0),
    ('48a10000000000008000', 0, signal.SIGSEGV, KERNEL, 0, 0), ('660f280425 11000000', 0, signal.SIGSEGV, KERNEL, 0, 0),
    ('31c9 f7f1  xor ecx, ecx; div ecx', 0, signal.SIGFPE, 1, None, 2), ('0f0b  ud2', 0, signal.SIGILL, 2, None, 0),
    ('b800000080 99 b9ffffffff f7f9  idiv: an overflow', 0, signal.SIGFPE, 1, None, 11),
    ('90 cc  int3', 0, signal.SIGTRAP, KERNEL, 0, 2), ('9c 810c2400010000 9d 90 90  TF; nop; nop', 0, signal.SIGTRAP, 2, None, 10),
    ('dbe3 6a00 d92c24 d9e8 d9ee def9 9b  fninit; fldcw 0; 1 / 0; fwait', 0, signal.SIGFPE, 3, None, 13),
    (UNMASKED + '0f57c0 b801000000 f30f2ac8 f30f5ec8  1 / 0', 0, signal.SIGFPE, 3, None, 21),
    (UNMASKED + '0f57c0 f30f5ec0  0 / 0', 0, signal.SIGFPE, 7, None, 12),
]
for code, operand, number, reason, address, rip in CASES:
    event = told(code, operand)
    rip = (rip - BASE - CODE if rip > 4096 else rip) & WORD
    address = BASE + CODE + rip & WORD if address is None else address
    assert event[:3] == (number, reason, address), (code, hex(operand), hex(address), event)
    assert event.rip == rip, (code, hex(operand), rip, event)
"#;
    holds(&[], code);
}

/// A traced child that runs into a breakpoint of its own.
const TRACED: &str = r#"
TRACEME, PEEKTEXT, POKETEXT, PEEKUSER, POKEUSER, CONT, STEP, SYSCALL, GETSIGINFO = 0, 1, 4, 3, 6, 7, 9, 24, 0x4202
RIP, RAX, DEBUG = 16 * 8, 10 * 8, 848
def traced(code):
    pid = os.fork()
    if pid == 0:
        assert call(101, TRACEME) == 0
        signal.signal(signal.SIGTRAP, signal.SIG_DFL)
        result, event = attempt(code)
        os._exit(99 if event else result & 0x7f)
    assert wait(pid) == signal.SIGTRAP and rip(pid) == 1
    return pid
def wait(pid):
    """The signal at which it stopped, or its exit code as a negative number."""
    status = os.waitpid(pid, 0)[1]
    return os.WSTOPSIG(status) if os.WIFSTOPPED(status) else -1 - os.waitstatus_to_exitcode(status)
def ptrace(request, pid, address=0, data=0):
    result = call(101, request, pid, address, data)
    assert result >= 0, (request, hex(address), result)
def peek(request, pid, address):
    kept, place = memory()
    ptrace(request, pid, address, place)
    return struct.unpack_from('Q', kept)[0]
def rip(pid): return peek(PEEKUSER, pid, RIP) - BASE - CODE & WORD
def reason(pid):
    kept, place = memory()
    ptrace(GETSIGINFO, pid, 0, place)
    return struct.unpack_from('3i', kept)[2]
"#;

#[test]
fn ptrace_steps_stop_after_each_instruction() {
    let code = r#"
STEPPED = '''
    cc90b8270000000f0550595331c00fa25b            int3; nop; mov eax, 39; syscall; push rax; pop rcx; push rbx; xor eax, eax; cpuid; pop rbx
    4883ec404889e7b903000000f3aa4883c440          sub rsp, 64; mov rdi, rsp; mov ecx, 3; rep stosb; add rsp, 64
    eb020f0b0f319c5ab8180000000f05c64424ff07b82a000000ccc3  jmp over; ud2; over: rdtsc; pushf; pop rdx; mov eax, 24; syscall; mov byte ptr [rsp - 1], 7; mov eax, 42; int3; ret
'''
pid = traced(STEPPED)
places = [1]
for _ in range(60):
    ptrace(STEP, pid)
    stopped = wait(pid)
    assert stopped == signal.SIGTRAP, (stopped, places)
    places.append(rip(pid))
    if reason(pid) == 0x80: break  # the int3 at the end
    assert reason(pid) in (1, 2), (reason(pid), places)  # TRAP_TRACE, and TRAP_BRKPT of a system call
print('stepped to', places)
EXPECTED = [1, 2, 7, 9, 10, 11, 12, 14, 16, 17, 21, 24, 29, 29, 29, 31, 35, 39, 41, 42, 43, 48, 50, 55, 60, 61]
assert places == EXPECTED, places
ptrace(CONT, pid)
assert wait(pid) == -1 - 42
# Of a system call, its beginning and its end.
pid = traced(STEPPED)
for expected in 9, 9, 50, 50:
    ptrace(SYSCALL, pid)
    assert wait(pid) == signal.SIGTRAP and rip(pid) == expected, (expected, rip(pid))
# A breakpoint that the tracer writes, and takes away again.
ptrace(CONT, pid)
assert wait(pid) == signal.SIGTRAP and rip(pid) == 61
ptrace(CONT, pid)
assert wait(pid) == -1 - 42
pid = traced(STEPPED)
word = peek(PEEKTEXT, pid, BASE + CODE + 35)
ptrace(POKETEXT, pid, BASE + CODE + 35, word & ~0xff | 0xcc)
ptrace(CONT, pid)
assert wait(pid) == signal.SIGTRAP and rip(pid) == 36 and reason(pid) == 0x80
ptrace(POKETEXT, pid, BASE + CODE + 35, word)
ptrace(POKEUSER, pid, RIP, BASE + CODE + 35)
ptrace(CONT, pid)
assert wait(pid) == signal.SIGTRAP and rip(pid) == 61
ptrace(CONT, pid)
assert wait(pid) == -1 - 42
"#;
    holds(&[], &format!("{TRACED}{code}"));
}

/// On a software KVM no breakpoint ever fires; a native kernel refuses them.
#[test]
fn hardware_breakpoints_stop_or_are_refused() {
    let code = r#"
TARGET = '''
    cc909048894424c090b82a000000c3  int3; nop; nop; mov [rsp - 64], rax; nop; mov eax, 42; ret
'''
def try_breakpoint(kind):
    pid = traced(TARGET)
    address = BASE + CODE + 2 if kind == 0 else peek(PEEKUSER, pid, 19 * 8) - 64
    results = [call(101, POKEUSER, pid, DEBUG, address), call(101, POKEUSER, pid, DEBUG + 7 * 8, 1 | kind << 16)]
    ptrace(CONT, pid)
    stopped = wait(pid)
    if stopped == signal.SIGTRAP:
        stopped = rip(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return results, stopped
for kind, name, place in (0, 'execute', 2), (0b1101, 'write of 4 bytes', 8):
    results, stopped = try_breakpoint(kind)
    print(name, results, stopped)
    if MODE == 'native': assert results == [-errno.EOPNOTSUPP] * 2 and stopped == -43, (name, results, stopped)
    elif MODE == 'hardware': assert results == [0, 0] and stopped == place, (name, results, stopped)
    # Emulated, the kernel does not know that they are without effect.
    else: assert results == [0, 0] and stopped == -43, (name, results, stopped)
"#;
    holds(&[], &format!("{TRACED}{code}"));
}

#[test]
fn signals_nest_and_alternate_stacks_are_kept_to() {
    let code = r#"
# Sends itself the same signal until it is so deep, keeps the deepest RSP, and asks for another stack.
NEST = '''
    535541574881ec00010000488d1d6e00000048ff03488b2b4989e7  push rbx; push rbp; push r15; sub rsp, 256; lea rbx, [rip + depth]; inc qword ptr [rbx]; mov rbp, [rbx]; mov r15, rsp
    48896310488b7b1831f6b8830000000f0548894320    mov [rbx + 16], rsp; mov rdi, [rbx + 24]; xor esi, esi; mov eax, 131; syscall; mov [rbx + 32], rax
    483b6b087310488b7b28be0a000000b83e0000000f05  cmp rbp, [rbx + 8]; jae enough; mov rdi, [rbx + 40]; mov esi, 10; mov eax, 62; syscall
    4939e7751048ff43304881c400010000415f5d5bc3    enough: cmp r15, rsp; jne wrong; inc qword ptr [rbx + 48]; add rsp, 256; pop r15; pop rbp; pop rbx; ret
    0f0b                                          wrong: ud2
    66662e0f1f84000000000066662e0f1f84000000000066662e0f1f8400000000006690  .balign 64; depth:
'''
code = hexadecimal(NEST)
handler, place = memory()
stack, bottom = memory(1 << 18)
def nest(depth, size=1 << 18):
    assert call(131, descriptor := struct.pack('QQQ', bottom, 0, size), 0) == 0
    handler[:len(code)] = code
    where = ctypes.cast(kept := ctypes.create_string_buffer(descriptor), ctypes.c_void_p).value
    handler[len(code):len(code) + 56] = struct.pack('7Q', 0, depth, 0, where, 0, os.getpid(), 0)
    action(signal.SIGUSR1, place)
    os.kill(os.getpid(), signal.SIGUSR1)
    return struct.unpack_from('QQQQqQQ', handler, len(code))
for depth in 1, 2, 40:
    count, _, lowest, _, refused, _, returned = nest(depth)
    assert (count, returned, refused) == (depth, depth, -errno.EPERM), (count, returned, refused)
    assert bottom <= lowest < bottom + (1 << 18) - depth * 1024, hex(lowest)
# One that is used up ends the program, and nothing before it is written to.
def used_up(size):
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    nest(10000, size)
# A frame of the kernel's, with the processor's state, is of another size on each; what the handler itself takes fits.
step = nest(1)[2] - nest(2)[2]
for depth in 3, (1 << 18) // step - 1: assert child(used_up, depth * step + 512) & 0x7f == signal.SIGSEGV
# A fault whose stack is none is handled on the alternate one, also one within the other.
assert call(131, struct.pack('QQQ', bottom, 0, 1 << 18), 0) == 0
for stack_pointer in 0, 0x1000, 1 << 47, 0xffffffff81000000, WORD & ~15:
    event = told('4889fc 50  mov rsp, rdi; push rax', stack_pointer)
    assert event.signal in (signal.SIGSEGV, signal.SIGBUS) and bottom <= event.stack < bottom + (1 << 18), (hex(stack_pointer), event)
# Those that are blocked wait, and arrive in order.
signal.pthread_sigmask(signal.SIG_BLOCK, range(34, 44))
for number in range(43, 33, -1): os.kill(os.getpid(), number)
assert [signal.sigwait(range(34, 44)) for _ in range(10)] == list(range(34, 44))
"#;
    holds(&[], code);
}

#[test]
fn the_vdso_tells_the_time_without_a_system_call() {
    let code = r#"
start, end = next([int(number, 16) for number in line.split()[0].split('-')] for line in open('/proc/self/maps') if '[vdso]' in line)
image = ctypes.string_at(start, end - start)
assert image[:4] == b'\x7fELF'
programs, count = struct.unpack_from('Q', image, 32)[0], struct.unpack_from('H', image, 56)[0]
headers = [struct.unpack_from('IIQQQQ', image, programs + 56 * number) for number in range(count)]
dynamic = next(header for header in headers if header[0] == 2)
tags = dict(struct.unpack_from('QQ', image, dynamic[2] + offset) for offset in range(0, dynamic[5], 16))
symbols, strings = tags[6], tags[5]
def address(name):
    for offset in range(symbols, strings, 24):
        at, value = struct.unpack_from('I', image, offset)[0], struct.unpack_from('Q', image, offset + 8)[0]
        if image[strings + at:].split(b'\0')[0] == name: return start + value
gettime = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)(address(b'__vdso_clock_gettime'))
getcpu = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(address(b'__vdso_getcpu'))
kept, place = memory()
def now(clock): assert gettime(clock, place) == 0; return struct.unpack_from('QQ', kept)
def asked(clock): assert call(228, clock, place) == 0; return struct.unpack_from('QQ', kept)
for clock in 0, 1, 4, 5, 6, 7, 11:
    for _ in range(50 if SLOW else 1000):
        first, second, third, fourth = asked(clock), now(clock), now(clock), asked(clock)
        assert first <= second <= third <= fourth, (clock, first, second, third, fourth)
processor, node = ctypes.c_uint(7), ctypes.c_uint(7)
assert getcpu(ctypes.addressof(processor), ctypes.addressof(node), None) == 0 and processor.value == node.value == 0
def strictly():
    assert call(157, 22, 1) == 0  # SECCOMP_MODE_STRICT: any call but a few is death
    for _ in range(1000): gettime(0, place), gettime(1, place)
    LIBC.syscall(60, 7)
assert os.waitstatus_to_exitcode(child(strictly)) == 7
"#;
    holds(&[], code);
}

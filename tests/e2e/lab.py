# Runs machine code in the guest and tells what became of it. MODE, the mode of KVM, is set by lab.rs.
import collections, ctypes, errno, mmap, os, signal, struct, sys, time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
# A kernel that is emulated takes a hundred times longer for all that it does.
SLOW = MODE == 'emulated'
WORD = (1 << 64) - 1

def argument(operand):
    return ctypes.c_char_p(operand) if isinstance(operand, bytes) else ctypes.c_ulong(operand & WORD)

def call(number, *operands):
    """A system call: what it gives, or its error as a negative number."""
    result = LIBC.syscall(ctypes.c_long(number), *map(argument, operands))
    return result if result != -1 else -ctypes.get_errno()

ATTEMPT, HANDLER, RESTORER, RECORD, CODE, SPACE = 0, 64, 256, 320, 512, 2 * mmap.PAGESIZE
BLOB = {ATTEMPT: '''
    53 55 4154 4155 4156 4157           push rbx, rbp, r12, r13, r14, r15
    4889f8 4889f7 4889d6 4889ca         mov rax, rdi; mov rdi, rsi; mov rsi, rdx; mov rdx, rcx
    488d1d23010000 48896348 ffd0        lea rbx, [record]; mov [rbx + 72], rsp; call rax
    488d1d16010000 488b6348 fc          resume: lea rbx, [record]; mov rsp, [rbx + 72]; cld
    415f 415e 415d 415c 5d 5b c3        pop r15, r14, r13, r12, rbp, rbx; ret
    ''', HANDLER: '''
    488d05f9000000 48ff00 48897808      lea rax, [record]; inc qword ptr [rax]; mov [rax + 8], rdi (signal)
    48634e08 48894810                   movsxd rcx, [rsi + 8] (si_code); mov [rax + 16], rcx
    488b4e10 48894818                   mov rcx, [rsi + 16] (si_addr); mov [rax + 24], rcx
    488b8aa8000000 48894820             mov rcx, [rdx + 168] (of the ucontext: RIP); mov [rax + 32], rcx
    488b8ab0000000 48894828             mov rcx, [rdx + 176] (EFLAGS); mov [rax + 40], rcx
    488b8ac0000000 48894830             mov rcx, [rdx + 192] (error code); mov [rax + 48], rcx
    488b8ac8000000 48894838             mov rcx, [rdx + 200] (exception); mov [rax + 56], rcx
    48896040                            mov [rax + 64], rsp
    488d0d8effffff 48898aa8000000       lea rcx, [resume]; mov [rdx + 168], rcx
    488b4848 48898aa0000000             mov rcx, [rax + 72]; mov [rdx + 160], rcx (RSP)
    81a2b0000000ffbafbff                and dword ptr [rdx + 176], ~(TF | DF | NT | AC)
    c782b800000033000000                mov dword ptr [rdx + 184], 0x33 (CS)
    66c782be0000002b00 c3               mov word ptr [rdx + 190], 0x2b (SS); ret
    ''', RESTORER: 'b80f000000 0f05     mov eax, rt_sigreturn; syscall'}

def hexadecimal(text):
    """The bytes at the begin of each line: what follows two spaces is their meaning."""
    return bytes.fromhex(''.join(line.strip().split('  ')[0] for line in text.splitlines()))

def memory(size=SPACE):
    """Private memory, also for machine code, and its address."""
    kept = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    return kept, ctypes.addressof(ctypes.c_char.from_buffer(kept))

LAB, BASE = memory()
for offset, blob in BLOB.items():
    blob = hexadecimal(blob)
    LAB[offset:offset + len(blob)] = blob
ENTER = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_ulong] * 4)(BASE + ATTEMPT)
SA_SIGINFO, SA_RESTORER, SA_ONSTACK, SA_NODEFER = 4, 0x4000000, 0x8000000, 0x40000000
Event = collections.namedtuple('Event', 'signal code address rip flags error exception stack')

def action(number, handler=BASE + HANDLER, flags=SA_SIGINFO | SA_ONSTACK | SA_NODEFER):
    """rt_sigaction: what the C library would not let us set."""
    new = struct.pack('QQQQ', handler, flags | SA_RESTORER, BASE + RESTORER, 0)
    assert call(13, number, new, 0, 8) == 0

STACK, STACK_BASE = memory(1 << 16)
assert call(131, struct.pack('QQQ', STACK_BASE, 0, 1 << 16), 0) == 0  # sigaltstack
FATAL = signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGTRAP, signal.SIGFPE
for number in FATAL: action(number)

def put(code):
    if isinstance(code, str): code = hexadecimal(code)
    assert len(code) < SPACE - CODE
    LAB[CODE:CODE + len(code)] = code
    return len(code)

def attempt(code, *operands):
    """Calls it with up to three operands: (RAX, None), or (None, what the first signal said).
    RIP counts from the beginning of the code."""
    put(code)
    before = struct.unpack_from('Q', LAB, RECORD)[0]
    result = ENTER(BASE + CODE, *(operands + (0, 0, 0))[:3])
    count, *event = struct.unpack_from('Qqq6Q', LAB, RECORD)
    if count == before: return result, None
    event = Event(*event)
    return None, event._replace(rip=(event.rip - BASE - CODE) & WORD)

def told(code, *operands):
    """What the signal said by which it ended."""
    result, event = attempt(code, *operands)
    assert event is not None, f'no signal, but {result:#x}'
    return event

def child(work, *operands):
    """Forks: what the other process does and returns ends it. Gives its status."""
    pid = os.fork()
    if pid == 0:
        try: status = work(*operands)
        except BaseException: sys.excepthook(*sys.exc_info()); status = 99
        finally: os._exit(status or 0)
    return os.waitpid(pid, 0)[1]

def log():
    """Tells what the kernel said."""
    said, place = memory(1 << 18)
    size = call(103, 3, place, len(said))  # SYSLOG_ACTION_READ_ALL
    sys.stderr.buffer.write(said[:size])

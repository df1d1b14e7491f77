//! Page tables that change all the time: a program finds exactly what it maps, protects, moves,
//! shares and forks.

use crate::lab::holds;

/// Makes random changes beside a model, which knows the protection and content of each page.
#[test]
fn pages_are_what_a_model_of_them_says() {
    let code = r#"
import random
LOAD, STORE = '488b07 c3  mov rax, [rdi]; ret', '488937 31c0 c3  mov [rdi], rsi; xor eax, eax; ret'
PAGES, STEPS = 1536, 60 if SLOW else 800  # three huge pages of 512
AREA = 0x40000000
NONE, READ, WRITE = 0, 1, 3
chance = random.Random(seed := os.environ.get('SEED', 'pages'))
def ok(result): assert result >= 0, (result, history[-5:]); return result
def mapped(page, count): ok(call(9, AREA + page * 4096, count * 4096, 3, 0x32, -1, 0)); model[page:page + count] = [[WRITE, 0] for _ in range(count)]
model, history = [None] * PAGES, []
mapped(0, PAGES)
def check(page, model):
    where = AREA + page * 4096 + 8 * (page % 512)
    value, event = attempt(LOAD, where)
    expected = model[page]
    if expected is None: assert event and event[:3] == (signal.SIGSEGV, 1, where), (page, value, event, history[-5:])
    elif expected[0] == NONE: assert event and event[:3] == (signal.SIGSEGV, 2, where), (page, value, event, history[-5:])
    else: assert event is None and value == expected[1], (page, value, event, expected, history[-5:])
def store(page, value):
    where = AREA + page * 4096 + 8 * (page % 512)
    event = attempt(STORE, where, value)[1]
    if model[page] and model[page][0] == WRITE: assert event is None, event; model[page][1] = value
    else: assert event[:3] == (signal.SIGSEGV, 2 if model[page] else 1, where), (page, event, history[-5:])
def forked(changed):
    for page in range(0, PAGES, 7): check(page, model)
    for page in changed: store(page, 12345); check(page, model)
for step in range(STEPS):
    what = chance.choice(['store'] * 8 + ['protect'] * 4 + ['map', 'unmap', 'move', 'zero', 'huge', 'fork'])
    count = chance.choice([1, 1, 2, 3, 17, 100, 512, 700])
    page = chance.randrange(PAGES - count)
    history.append((what, page, count))
    inside = model[page:page + count]
    if what == 'store':
        for one in range(page, page + min(count, 20)): store(one, step << 16 | one)
    elif what == 'protect' and all(inside):
        protection = chance.choice([NONE, READ, WRITE, WRITE])
        ok(call(10, AREA + page * 4096, count * 4096, protection))
        for one in inside: one[0] = protection
    elif what == 'map': mapped(page, count)
    elif what == 'unmap': ok(call(11, AREA + page * 4096, count * 4096)); model[page:page + count] = [None] * count
    elif what == 'zero' and all(inside):
        ok(call(28, AREA + page * 4096, count * 4096, 4))  # MADV_DONTNEED
        for one in inside: one[1] = 0
    elif what == 'huge' and all(inside): ok(call(28, AREA + page * 4096, count * 4096, chance.choice([14, 15])))
    elif what == 'move' and all(inside):
        to = chance.randrange(PAGES - count)
        if abs(to - page) < count or len({one[0] for one in inside}) > 1: continue
        result = call(25, AREA + page * 4096, count * 4096, count * 4096, 3, AREA + to * 4096)
        if result < 0: assert result == -errno.EFAULT; continue  # over two mappings
        model[page:page + count] = [None] * count
        # A cell is at another place in each page, and moves with it: write those that are looked at anew.
        ok(call(10, AREA + to * 4096, count * 4096, 3))
        for one, old in enumerate(inside):
            was = ctypes.c_ulong.from_address(AREA + (to + one) * 4096 + 8 * ((page + one) % 512)).value
            assert was == old[1], (to + one, was, old, history[-5:])
            model[to + one] = [WRITE, 0]
            store(to + one, old[1])
            if (page - to) % 512: ctypes.c_ulong.from_address(AREA + (to + one) * 4096 + 8 * ((page + one) % 512)).value = 0
    elif what == 'fork':
        assert child(forked, [chance.randrange(PAGES) for _ in range(10)]) == 0, history[-5:]
    for one in [page, page + count - 1, *(chance.randrange(PAGES) for _ in range(6))]: check(one, model)
for page in range(PAGES): check(page, model)
print(STEPS, 'changes;', *[line.strip() for line in open('/proc/vmstat') if line.startswith(('thp_fault_alloc', 'thp_split_pmd'))])
"#;
    holds(&[], code);
}

#[test]
fn storms_of_forks_share_and_copy_as_they_should() {
    let code = r#"
pages, place = memory(4 << 20)
for page in range(0, len(pages), 4096): pages[page:page + 8] = struct.pack('Q', page)
def generation(depth, mark):
    for page in range(0, len(pages), 4096 * 8):
        assert struct.unpack_from('Q', pages, page)[0] == (page if mark == 0 else mark + page), (depth, mark, page)
    for page in range(0, len(pages), 4096 * 8): pages[page:page + 8] = struct.pack('Q', mark + 1 + page)
    if depth: assert child(generation, depth - 1, mark + 1) == 0
    for page in range(0, len(pages), 4096 * 8): assert struct.unpack_from('Q', pages, page)[0] == mark + 1 + page
    assert struct.unpack_from('Q', pages, 4096)[0] == 4096
for _ in range(1 if SLOW else 3): assert child(generation, 3 if SLOW else 10, 0) == 0
many = 10 if SLOW else 60
for _ in range(1 if SLOW else 2):
    pids = []
    for number in range(many):
        if not (pid := os.fork()):
            pages[4096:4104] = struct.pack('Q', number)
            call(24)
            os._exit(struct.unpack_from('Q', pages, 4096)[0] != number)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * many
assert all(struct.unpack_from('Q', pages, page)[0] == page for page in range(0, len(pages), 4096))
# Threads and forks at once, while the address space changes.
import threading
stop = False
def churn():
    while not stop:
        area = call(9, 0, 1 << 20, 3, 0x22, -1, 0)
        ctypes.memset(area, 7, 1 << 20)
        assert ctypes.c_ubyte.from_address(area + 54321).value == 7
        call(11, area, 1 << 20)
threads = [threading.Thread(target=churn) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(3 if SLOW else 20): assert child(lambda: ctypes.memset(place, 9, 1 << 16) and 0) == 0
stop = True
for thread in threads: thread.join()
"#;
    holds(&["--pids-limit", "200"], code);
}

#[test]
fn huge_pages_are_split_and_joined_without_a_loss() {
    let code = r#"
HUGE = 2 << 20
area = call(9, 0x60000000, 8 * HUGE, 3, 0x32, -1, 0)
assert area == 0x60000000
call(28, area, 8 * HUGE, 14)  # MADV_HUGEPAGE
for number in range(8): ctypes.memset(area + number * HUGE, number + 1, HUGE)
def content(start, size): return ctypes.string_at(start, size)
def huge(): return sum(int(line.split()[1]) for line in open('/proc/self/smaps') if line.startswith('AnonHugePages'))
print('huge pages:', huge(), 'KiB')
for number in range(8): assert content(area + number * HUGE, HUGE) == bytes([number + 1]) * HUGE
assert call(10, area + HUGE + 4096 * 5, 4096, 1) == 0  # one page of it read-only
event = told('c60700 c3  mov byte ptr [rdi], 0', area + HUGE + 4096 * 5 + 3)
assert event[:3] == (signal.SIGSEGV, 2, area + HUGE + 4096 * 5 + 3), event
ctypes.memset(area + HUGE + 4096 * 6, 77, 4096)
assert content(area + HUGE, HUGE) == b'\2' * (6 * 4096) + b'\x4d' * 4096 + b'\2' * (HUGE - 7 * 4096)
assert call(11, area + 2 * HUGE + 4096, 4096) == 0
event = told('8a07 c3  mov al, [rdi]', area + 2 * HUGE + 4096)
assert event[:3] == (signal.SIGSEGV, 1, area + 2 * HUGE + 4096), event
assert content(area + 2 * HUGE, 4096) + content(area + 2 * HUGE + 8192, HUGE - 8192) == b'\3' * (HUGE - 4096)
moved = call(25, area + 3 * HUGE, HUGE, HUGE, 3, area + 16 * HUGE)  # a huge page moves whole, and by a page
assert moved == area + 16 * HUGE and content(moved, HUGE) == b'\4' * HUGE
again = call(25, moved, HUGE, HUGE, 3, area + 20 * HUGE + 4096)
assert again == area + 20 * HUGE + 4096 and content(again, HUGE) == b'\4' * HUGE
def other():
    for number in (4, 5): ctypes.memset(area + number * HUGE + 4096 * 9, 99, 4096)
    assert content(area + 4 * HUGE, HUGE) == b'\5' * (9 * 4096) + b'\x63' * 4096 + b'\5' * (HUGE - 10 * 4096)
for _ in range(2 if SLOW else 8): assert child(other) == 0
assert content(area + 4 * HUGE, HUGE) == b'\5' * HUGE and content(area + 5 * HUGE, HUGE) == b'\6' * HUGE
call(28, area + 6 * HUGE + 4096, 4096, 4)  # MADV_DONTNEED
assert content(area + 6 * HUGE, HUGE) == b'\7' * 4096 + bytes(4096) + b'\7' * (HUGE - 8192)
call(28, area + 6 * HUGE, HUGE, 25)  # MADV_COLLAPSE
assert content(area + 6 * HUGE, HUGE) == b'\7' * 4096 + bytes(4096) + b'\7' * (HUGE - 8192)
"#;
    holds(&[], code);
}

"""Runs cell after cell for a session: each comes behind its length on standard input, and what is told goes to
descriptor 3, as records (guest/src/report.rs)."""

import builtins
import linecache
import os
import signal
import struct
import sys
import traceback
import types

EXCEPTION, RESULT, DISPLAY, CELL = 1, 2, 3, 5
TEXT_MAX = 60 << 10
cells, reports = os.dup(0), os.dup(3)
os.close(3)
main = types.ModuleType('__main__')
main.__builtins__ = builtins
notebook, cell = {}, {}


def tell(kind, *fields):
    body = b''.join(struct.pack('<I', len(field)) + field for field in fields)
    record = struct.pack('<BI', kind, len(body)) + body
    while record:
        record = record[os.write(reports, record) :]


def display(*values, raw=False, display_id=None, **options):
    for value in values:
        tell(DISPLAY, *notebook['forms'](value, raw))
    return notebook['DisplayHandle'](display_id) if display_id else None


def read(count):
    parts = []
    while count > 0:
        part = os.read(cells, count)
        if not part:
            os._exit(0)
        parts.append(part)
        count -= len(part)
    return b''.join(parts)


def next_cell():
    whole = read(struct.unpack('<I', read(4))[0])
    fields = []
    while whole:
        length = 4 + struct.unpack('<I', whole[:4])[0]
        fields.append(whole[4:length])
        whole = whole[length:]
    return fields


def give_input(content):
    file = os.memfd_create('stdin')
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
    os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)
    os.close(file)
    sys.stdin = open(0, encoding='utf-8', closefd=False)


def report(error):
    trace = error.__traceback__
    while trace and not trace.tb_frame.f_code.co_filename.startswith('<cell '):
        trace = trace.tb_next
    text = ''.join(traceback.format_exception(type(error), error, trace))
    sys.stderr.write(text)
    tell(EXCEPTION, *(part[-TEXT_MAX:].encode(errors='backslashreplace') for part in (type(error).__name__, str(error), text)))
    return 1


def status_of(exit):
    if exit.code is None:
        return 0
    if isinstance(exit.code, int):
        return exit.code & 255
    print(exit.code, file=sys.stderr)
    return 1


def run(text, name):
    try:
        try:
            text, pieces, awaits = cell['compiled'](text, name)
        except Exception as error:
            cell['explain'](error, text, True)
            return report(error)
        cell['begin'](text, name)
        linecache.cache[name] = cell['lines_of'](name)
        builtins.display = display
        value = cell['run_in_loop'](pieces, main.__dict__) if awaits else [eval(piece, main.__dict__) for piece in pieces][-1]
        if value is not None:
            builtins._ = value
            tell(RESULT, *notebook['forms'](value, False))
        return 0
    except SystemExit as exit:
        return status_of(exit)
    except BaseException as error:
        return report(error)


def finish():
    for figure in notebook['take_figures']():
        display(figure)
    for stream in sys.stdout, sys.stderr:
        try:
            stream.flush()
        except Exception:
            pass


def hidden(path, names):
    with open(path) as file:
        exec(compile(file.read(), path, 'exec'), names)


def serve():
    status, handler = 0, signal.default_int_handler
    while True:
        tell(CELL, struct.pack('<I', status))
        number, code, content = next_cell()
        give_input(content)
        signal.signal(signal.SIGINT, handler)
        try:
            tell(CELL)
            status = run(code.decode(errors='surrogateescape') + '\n', f'<cell {number.decode()}>')
            finish()
            # From here on, an interrupt is for nobody.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            status = 1


signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.argv = ['']
sys.modules['__main__'] = main
notebook['display'] = display
hidden('/usr/lib/sandbox/notebook.py', notebook)
cell['show_figures'] = notebook['show_figures']
hidden('/usr/lib/sandbox/cell.py', cell)
serve()

"""Writes the code of the standard library into one file, for imports.py: modules.py LIBRARY FILE.

The length of an index (8 bytes, little endian), the index with the names of all that can be
imported, and the code of all modules, as
marshal writes them.
"""

import importlib.util
import marshal
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES

library, target = sys.argv[1:]
# Tests, tools, and what is not for importing.
LEFT_OUT = {'__pycache__', 'idlelib', 'lib2to3', 'lib-dynload', 'pydoc_data', 'test', 'tests', 'turtledemo'}
# Extension modules that ordinary programs import.
EXTENSIONS = (
    '_asyncio _bz2 _contextvars _crypt _ctypes _decimal _hashlib _json _lsprof _lzma _multibytecodec '
    '_multiprocessing _posixshmem _queue _sqlite3 _ssl _typing _uuid _zoneinfo mmap resource termios'
).split()


def sources():
    for directory, names, files in os.walk(library):
        names[:] = sorted(name for name in names if name.isidentifier() and name not in LEFT_OUT)
        package = os.path.relpath(directory, library).replace('/', '.').lstrip('.')
        for file in sorted(files):
            stem, extension = os.path.splitext(file)
            if extension == '.py' and stem.isidentifier():
                is_package = stem == '__init__'
                name = '.'.join(part for part in (package, '' if is_package else stem) if part)
                if name:
                    yield name, os.path.join(directory, file), is_package


index, code = {}, b''
for name, path, is_package in sources():
    with open(importlib.util.cache_from_source(path), 'rb') as compiled:
        HEADER = 16
        bytecode = compiled.read()[HEADER:]
    index[name] = path, is_package, (len(code), len(code) + len(bytecode))
    code += bytecode
for name in EXTENSIONS:
    path = f'{library}/lib-dynload/{name}{EXTENSION_SUFFIXES[0]}'
    # Each version has some of them.
    if os.path.exists(path):
        index[name] = path, False, None


# Whatever is a module, or looks like a package.
names = {entry.partition('.')[0] for directory in sys.path if os.path.isdir(directory) for entry in os.listdir(directory)}


def shifted(offset):
    spans = {
        name: (path, is_package, span and (span[0] + offset, span[1] + offset))
        for name, (path, is_package, span) in index.items()
    }
    return spans, names


# The offsets are part of the index, whose length does not depend on them: all are 32-bit integers.
start = 8 + len(marshal.dumps(shifted(0)))
with open(target, 'wb') as archive:
    packed = marshal.dumps(shifted(start))
    assert len(packed) == start - 8
    archive.write(len(packed).to_bytes(8, 'little') + packed + code)

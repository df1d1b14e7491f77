"""Lets a warm interpreter import the standard library without a look at the file system.

Runs in the interpreter before it is saved, with four names given: `archive`, the memory of the
file that modules.py made; `unchanged`, one byte that is true until a file is made, renamed or
removed, or the current directory changes, after the job came; `job`, a list whose only item will be the name that a script hides from the import
system by being a module of that name itself; and `work`, the directory of scripts.

Modules are executed when they are imported, as ever, and have the loaders and the specs that they
always have. Only where their code comes from is new: from memory, where finding and reading a
file takes the kernel of the guest milliseconds on a software KVM.
"""

import sys
import marshal
from _frozen_importlib_external import (
    ExtensionFileLoader,
    PathFinder,
    SourceFileLoader,
    SourceLoader,
    spec_from_file_location,
)
from _imp import _fix_co_filename
from posix import listdir

length = int.from_bytes(archive[:8], 'little')
# Name: path, whether a package, and where its code is; nothing if it is an extension module.
# And the names of all that can be imported from the library's directories.
index, names = marshal.loads(archive[8 : 8 + length])
library = sys.path[1:]
# A layer of packages may have been mounted.
for place in library:
    if place.endswith('-packages'):
        names.update(entry.partition('.')[0] for entry in listdir(place))
find_anywhere = PathFinder.find_spec
find_in = PathFinder._get_spec
read_anywhere = SourceLoader.get_code


def find_spec(cls, fullname, path=None, target=None):
    known = index.get(fullname)
    if known is None:
        if path is None and fullname not in names and is_only_library(fullname):
            return None
        return find_anywhere(fullname, path, target)
    if not is_first(fullname, path, target, known[0]):
        return find_anywhere(fullname, path, target)
    location, is_package, code = known
    loader = (SourceFileLoader if code else ExtensionFileLoader)(fullname, location)
    places = [location.rpartition('/')[0]] if is_package else None
    return spec_from_file_location(fullname, location, loader=loader, submodule_search_locations=places)


def is_first(fullname, path, target, location):
    """Whether a search would find the library's module before any other of this name."""
    if path is not None:
        return type(path) is list and len(path) == 1 and location.startswith(path[0] + '/')
    if is_only_library(fullname):
        return True
    if sys.path[1:] != library:
        return False
    found = find_in(fullname, sys.path[:1], target)
    return found is None or found.loader is None


def is_only_library(fullname):
    """Whether nobody can have put a module of this name where it would be found first."""
    return unchanged[0] and sys.path[1:] == library and sys.path[0] in ('', work) and fullname not in job


def get_code(self, fullname):
    known = index.get(fullname)
    if known is None or type(self) is not SourceFileLoader or self.path != known[0]:
        return read_anywhere(self, fullname)
    start, end = known[2]
    code = marshal.loads(archive[start:end])
    _fix_co_filename(code, self.path)
    return code


PathFinder.find_spec = classmethod(find_spec)
SourceLoader.get_code = get_code
extensions = [location for location, _, code in index.values() if not code]

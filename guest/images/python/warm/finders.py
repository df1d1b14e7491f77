"""Whether a search for a module would find the one that was imported ahead, and what such searches leave behind.

Part of preload.py, whose names it uses.
"""

from posix import listdir


def may_appear(fullname):
    """Whether a search would find this very module."""
    parent = fullname.rpartition('.')[0]
    if parent and packages.get(parent) is not modules.get(parent):
        return False
    if builtins.__import__ is not usual_import or sys.meta_path[:1] != [BuiltinImporter]:
        return False
    if any(modules.get(name, module) is not module for name, module, *_ in plan_of(fullname)):
        return False
    # The script may have the name of one of them.
    is_only = is_only_library(fullname) and tops.isdisjoint(job)
    return is_only or not are_shadowed()


def are_shadowed():
    """Whether the program may have put something where one of the modules would be looked for."""
    if [place for place in sys.path if place in library] != library:
        return True
    return any(holds_any(place or '.', True) for place in sys.path if type(place) is str and place not in library)


def collides(directory, script):
    """Whether something in there, or beside a script in there, has one of the names that are looked for."""
    return any(holds_any(place, False) for place in {directory, directory + '/' + script.rpartition('/')[0]})


def holds_any(place, unless_known):
    try:
        entries = listdir(place)
    except FileNotFoundError:
        return False
    except OSError:
        return unless_known
    return not tops.isdisjoint(map(meant_by, entries))


def meant_by(entry):
    """The name by which a file or directory would be looked for; other files are data, whatever they are called."""
    name, dot, _ = entry.partition('.')
    return name if name and (not dot or entry.endswith(SUFFIXES)) else entry


SUFFIXES = ('.py', '.pyc', '.so')


def forget_places(known):
    for place in set(sys.path_importer_cache) - known:
        del sys.path_importer_cache[place]

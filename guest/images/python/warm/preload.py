"""Imports modules before the interpreter is saved, so that importing them costs a program nothing.

Runs in the interpreter before it is saved, with these names given: `wanted`, names of modules, or
statements that import some, as their words with a colon between them; `first_uses`, code that does
what programs do first with them; `draws`, a function that tells which random bytes were drawn since it
was last called (randomness.py); `linecache`, that module if it is loaded, but not there, or None; `know`, a
function that lets the end of the interpreter pass over a module that was changed here, if it does not
change any more; `complete` and `completions`, of cell.py; `is_only_library`, of imports.py; and all of
randomness.py.

What is imported is hidden at once: it is not in sys.modules until the program imports it, and then
appears there with all that its own import brought, in the same order. What else an import changed
(filters of warnings, functions for the end, the environment, places where imports look) is undone,
and done again when the module appears. What it drew by chance is drawn again before.

`wishes` is then what of that is imported, and `fit` what of it could be imported ahead: others
raised an exception, printed something, or drew random bytes for something that cannot be drawn again,
and an interpreter must start anew without them; `is_useful` says the same of `first_uses`.
"""

import sys
import builtins
import os
from _imp import acquire_lock, release_lock
from posix import close, dup, dup2, fstat, listdir, memfd_create
import _frozen_importlib as bootstrap
from _frozen_importlib import BuiltinImporter, ModuleSpec

modules = sys.modules
before, places, library = set(modules), set(sys.path_importer_cache), sys.path[1:]
if linecache is not None:
    modules['linecache'] = linecache
find_builtin = BuiltinImporter.find_spec
usual_import, usual_load, usual_find = builtins.__import__, bootstrap._load_unlocked, bootstrap._gcd_import

hidden = {}  # Name: module, of those that no program has imported yet.
needs = {}  # Name: the names that its execution imported, in order, as keys.
changes = {}  # Name: what its execution changed beside itself, in order.
culprits = []  # What drew random bytes that cannot be drawn again.
running = [None]  # The modules whose execution has begun and not ended.


# ---- Looking on while modules are imported.


def need(importer, name):
    if importer != name:
        needs.setdefault(importer, {})[name] = True


def need_with_parents(importer, name):
    parts = name.split('.')
    for end in range(1, len(parts) + 1):
        need(importer, '.'.join(parts[:end]))


def watched_import(name, globals=None, locals=None, fromlist=(), level=0):
    note_modules()
    result = usual_import(name, globals, locals, fromlist, level)
    # A function may import for the module that calls it while that is executed.
    importer = running[-1]
    if level:
        name = bootstrap._resolve_name(name, bootstrap._calc___package__(globals), level)
    need_with_parents(importer, name)
    for item in fromlist or ():
        if type(item) is str and f'{name}.{item}' in modules:
            need(importer, f'{name}.{item}')
    return result


def watched_find(name, package=None, level=0):
    result = usual_find(name, package, level)
    if level:
        name = bootstrap._resolve_name(name, package, level)
    need_with_parents(running[-1], name)
    return result


def watched_load(spec):
    note_changes()
    need(running[-1], spec.name)
    running.append(spec.name)
    try:
        return usual_load(spec)
    finally:
        note_changes()
        running.pop()


# ---- What an import changes beside modules.

lists = {'meta_path': sys.meta_path, 'path_hooks': sys.path_hooks, 'path': sys.path}


def state():
    environment = dict(os.environ)
    return {name: list(items) for name, items in lists.items()}, environment


def note_modules():
    """A module may make another without importing it."""
    global seen
    if len(modules) != len(seen):
        for name in [name for name in modules if name not in seen]:
            need(running[-1], name)
            if name == '_ssl':
                watch_openssl()
        seen = set(modules)


def note_changes():
    """What differs from the last time was done by the module that runs."""
    global last
    note_modules()
    now = state()
    if now != last:
        changes.setdefault(running[-1], []).append(difference(last, now))
        last = now
    culprits.extend(draw for draw in draws() if not can_be_drawn_again(*draw))


def difference(old, new):
    """Functions without names of their own: items to put before and behind, and variables to set."""
    items = {}
    for name in lists:
        was, now = old[0][name], new[0][name]
        if was != now:
            front = [item for item in now if item not in was]
            # New ones are put in front of an old one, or behind all.
            behind = bool(was) and bool(now) and was[0] == now[0]
            items[name] = behind, front, [item for item in was if item not in now]
    variables = {name: value for name, value in new[1].items() if old[1].get(name) != value}
    removed = [name for name in old[1] if name not in new[1]]
    return items, variables, removed


def change(items, variables, removed):
    for name, (behind, added, gone) in items.items():
        target = lists[name]
        for item in gone:
            if item in target:
                target.remove(item)
        added = [item for item in added if item not in target]
        if behind:
            target.extend(added)
        else:
            target[:0] = added
        if name == 'filters':
            warnings._filters_mutated()
    os.environ.update(variables)
    for name in removed:
        os.environ.pop(name, None)


def restore(to):
    for name, items in to[0].items():
        lists[name][:] = items
    warnings._filters_mutated()
    if dict(os.environ) != to[1]:
        os.environ.clear()
        os.environ.update(to[1])


# Functions for the end: they are registered when their module appears.


def watched_register(function, *arguments, **keywords):
    at_exit.setdefault(running[-1], []).append((function, arguments, keywords))
    return function


at_exit = {}

# ---- Hiding, and appearing.


def hide(name):
    module = modules.pop(name)
    parent, _, leaf = name.rpartition('.')
    home = hidden.get(parent) or modules.get(parent)
    if not parent or home is None or vars(home).get(leaf) is not module:
        return
    bound.add(name)
    # Where it always comes with its parent, it may as well wait there.
    if name not in followers[parent]:
        delattr(home, leaf)


bound = set()  # Modules that their parents have as attributes.
followers = {}  # Parent: all modules that its import brings.
plans = {}  # Name: the steps of its import, if the first program imported it.


def order(name, seen):
    """The modules that come with a module, itself the last: each of them when all that it imports is there."""
    if name in seen or name not in hidden:
        return
    yield from order(name.rpartition('.')[0], seen)
    if name in seen:
        return
    seen.add(name)
    for other in needs.get(name, ()):
        yield from order(other, seen)
    yield name


def steps(names):
    """What is done for each module that appears: its name, itself, its parent and name there, if that is yet to
    be told, and whether there is more."""
    for name in names:
        parent, _, leaf = name.rpartition('.')
        is_apart = name in bound and name not in followers.get(parent, ())
        yield name, hidden[name], parent if is_apart else None, leaf, has_more(name)


def has_more(name):
    return name in changes or name in at_exit or name in completions or name in names_of_program


def hide_names_of_program():
    """What is another name of the program's own module is that again when who gave the name appears: multiprocessing."""
    for name in [name for name in modules if name not in before and modules[name] is modules['__main__']]:
        del modules[name]
        for importer in needs:
            if name in needs[importer]:
                names_of_program.setdefault(importer, []).append(name)


names_of_program = {}


def plan_of(name):
    return plans.get(name) or list(steps(order(name, set())))


def renew(name):
    """Draws again what a module, and those that come with it, drew by chance. Nobody can find them yet."""
    for name, module, *_ in plan_of(name):
        if name in hidden and (renewal := renewals.pop(name, None)):
            renewal(module)
            know(module)


def appear(name):
    """Puts a module where its import would have put it, with all that its import brought."""
    for name, module, parent, leaf, more in plan_of(name):
        if name not in hidden:
            continue
        # Another thread finds it in one or the other.
        modules[name] = module
        del hidden[name]
        if parent in modules:
            setattr(modules[parent], leaf, module)
            know(modules[parent])
        if more:
            for one in changes.get(name, ()):
                change(*one)
            for other in names_of_program.get(name, ()):
                modules[other] = modules['__main__']
            for function, arguments, keywords in at_exit.get(name, ()):
                register(function, *arguments, **keywords)
            complete(module)
            know(module)


class Appearing:
    """The loader of a module that is there already; what else is asked of it is for the module's own. Only one
    thread at a time has modules appear."""

    def __init__(self, name, module):
        self.name = name
        self.module = module
        self.spec = getattr(module, '__spec__', None)

    def __getattr__(self, name):
        return getattr(self.spec.loader, name)

    def create_module(self, spec):
        acquire_lock()
        try:
            renew(self.name)
        finally:
            release_lock()
        return self.module

    def exec_module(self, module):
        acquire_lock()
        try:
            appear(self.name)
        finally:
            release_lock()
        # Until then, other threads wait for the module.
        module.__spec__ = self.spec
        know(module)


def find_spec(cls, fullname, path=None, target=None):
    module = hidden.get(fullname)
    if module is None and target is None and fullname in packages:
        # It may have appeared a moment ago, in another thread.
        there = modules.get(fullname)
        module = there if there is packages[fullname] else None
    if module is not None and may_appear(fullname):
        return spec_of(fullname, module)
    return find_builtin(fullname, path, target)


def spec_of(name, module):
    """A specification that says where the module is from, as its own, and has it appear."""
    known = getattr(module, '__spec__', None)
    spec = ModuleSpec(name, Appearing(name, module), origin=getattr(known, 'origin', None))
    spec.submodule_search_locations = getattr(known, 'submodule_search_locations', None)
    spec.has_location = getattr(known, 'has_location', False)
    return spec


# ---- The imports.


def wish(words):
    """What a statement imports, each as a statement that imports nothing else."""
    words = [word for at, word in enumerate(words) if 'as' not in words[max(at - 1, 0) : at + 1]]
    if 'import' not in words:
        return words
    at = words.index('import')
    if 'from' in words[:at]:
        module = words[words.index('from') + 1]
        return [':'.join(['from', module, *words[at:]])]
    return words[at + 1 :]


def module_of(wish):
    words = wish.split(':')
    return words[1] if words[0] == 'from' else words[0]


def is_of_package(wish):
    return module_of(wish).partition('.')[0] in installed


installed = {
    entry.partition('.')[0] for place in sys.path if place.endswith('-packages') for entry in listdir(place)
}


def import_all():
    """Imports what is wished, and returns what of it could be imported, and whether that could be used."""
    streams, output = (dup(1), dup(2)), memfd_create('output')
    dup2(output, 1), dup2(output, 2)
    fit = [wish for wish in wishes if leaves_nothing(output, import_one, wish)]
    is_useful = leaves_nothing(output, use)
    dup2(streams[0], 1), dup2(streams[1], 2)
    for descriptor in (*streams, output):
        close(descriptor)
    return fit, is_useful


def import_one(wish):
    watched_import(module_of(wish), fromlist=wish.split(':')[3:])


def use():
    known = set(sys.path_importer_cache)
    exec(first_uses, {'__builtins__': builtins, '__name__': None})
    forget_places(known)


def leaves_nothing(output, function, *arguments):
    """Calls a function, and returns whether that left nothing which a program could notice, as far as is known."""
    running[:] = [None]
    culprits.clear()
    printed = fstat(output).st_size
    try:
        function(*arguments)
        is_done = True
    except Exception:
        is_done = False
    note_changes()
    sys.stdout.flush(), sys.stderr.flush()
    is_silent = fstat(output).st_size == printed
    return is_done and is_silent and not culprits and not have_given_numbers()


def hide_all():
    hidden.update((name, modules[name]) for name in new)
    for parent in {name.rpartition('.')[0] for name in new}:
        followers[parent] = set(order(parent, set()))
    for name in reversed(new):
        # Whoever took a function that looks on gets the usual one.
        for key, value in list(getattr(modules[name], '__dict__', {}).items()):
            if value is watched_register:
                setattr(modules[name], key, register)
            elif value is watched_bytes:
                setattr(modules[name], key, usual_bytes)
        hide(name)
    for name in map(module_of, fit):
        while name:
            plans[name] = list(steps(order(name, set())))
            name = name.rpartition('.')[0]


# The statements of a program count for packages only.
wishes = [one for words in wanted for one in wish(words.split(':')) if ':' not in words or is_of_package(one)]
wishes = list(dict.fromkeys(wishes))
last, seen = state(), set(modules)
builtins.__import__, bootstrap._load_unlocked, bootstrap._gcd_import = watched_import, watched_load, watched_find
import atexit
import random
import warnings

lists['filters'] = warnings.filters
first = state()
# Where matplotlib keeps what it finds out of fonts, which is not the program's directory.
os.environ.setdefault('MPLCONFIGDIR', '/tmp/matplotlib')
last = state()
usual_seed, state_of, register = random.Random.seed, random.Random.getstate, atexit.register
unseeded.append((random._inst, state_of(random._inst), 'random'))
random.Random.seed, atexit.register = watched_seed, watched_register
fit, is_useful = import_all()
builtins.__import__, bootstrap._load_unlocked, bootstrap._gcd_import = usual_import, usual_load, usual_find
random.Random.seed, atexit.register = usual_seed, register
preloaded.extend(find_numpy_generators())
has_packages = any(map(is_of_package, fit))
if not has_packages:
    # The library is found without a look at directories.
    forget_places(places)
restore(first)
hide_names_of_program()
new = [name for name in modules if name not in before]
packages = {name: modules[name] for name in new}
# What a search for a module would find, and files that packages read when they are imported.
tops = {name for name in new if '.' not in name}
if installed:
    tops |= {'matplotlibrc', '.config', '.matplotlib'}
hide_all()
BuiltinImporter.find_spec = classmethod(find_spec)

"""Makes another of the interpreter, where its machine goes on in several: what it drew by chance is drawn again.

Runs in the interpreter before it is saved, with two names given: `completions`, of cell.py, and
`forget_numbers`. What it imports does not stay in sys.modules.

A generator that the program seeded itself goes on as it is, in each machine.
"""

from _frozen_importlib import ModuleSpec
from _imp import create_builtin, exec_builtin
from posix import urandom
from sys import modules


def hidden(name):
    module = create_builtin(ModuleSpec(name, None))
    exec_builtin(module)
    return module


gc, weakref = hidden('gc'), hidden('_weakref')
# Generators of the module random that were seeded by chance, by their addresses, and what seeds each.
by_chance = {}
# Those of numpy that there were before the program, with the kinds of their seeds (randomness.py).
preloaded = []


def watch(module):
    """Has the generators of the module random tell how they are seeded."""
    base = module.Random.__base__
    if base.seed.__class__ is watch.__class__:
        return
    usual_seed, usual_setstate = base.seed, base.setstate

    def seed(self, *arguments):
        usual_seed(self, *arguments)
        note(self, usual_seed if arguments in ((), (None,)) else None)

    def setstate(self, *arguments):
        usual_setstate(self, *arguments)
        note(self, None)

    base.seed, base.setstate = seed, setstate
    note(module._inst, usual_seed)


def note(generator, seed):
    key = id(generator)
    if seed is None:
        by_chance.pop(key, None)
    else:
        by_chance[key] = weakref.ref(generator, lambda _: by_chance.pop(key, None)), seed


def find_numpy_generators():
    """The generators of numpy whose seeds came by chance, with the kinds of their seeds."""
    bit_generator = getattr(modules.get('numpy.random.bit_generator'), 'BitGenerator', None)
    if bit_generator is None:
        return []
    found = {}
    for thing in gc.get_objects():
        if str(type(thing).__module__).startswith('numpy.random'):
            thing = getattr(thing, '_bit_generator', thing)
            if isinstance(thing, bit_generator):
                found[id(thing)] = thing
    return [(thing, type(thing.seed_seq)) for thing in found.values() if is_by_chance(thing)]


def is_by_chance(generator):
    """Nobody writes a seed as long as one that comes by chance, of 128 bits."""
    entropy = getattr(getattr(generator, 'seed_seq', None), 'entropy', None)
    return type(entropy) is int and entropy >> 64 != 0


def seed_numpy(generators):
    for generator, sequence in generators:
        fresh = type(generator)(sequence())
        generator.__setstate__((fresh.state, fresh.seed_seq))


def become_another():
    for renewal in renewals:
        # What the program has put in the place of a module need not work.
        try:
            renewal()
        except Exception:
            pass


def renew_random():
    for reference, seed in list(by_chance.values()):
        generator = reference()
        if generator is not None:
            seed(generator)
            generator.gauss_next = None


def renew_numpy():
    # The collector does not know those that there were before the program.
    known = [(generator, kind) for generator, kind in preloaded if is_by_chance(generator)]
    seed_numpy({id(generator): (generator, kind) for generator, kind in known + find_numpy_generators()}.values())


def renew_openssl():
    if '_ssl' in modules:
        modules['_ssl'].RAND_add(urandom(32), 32)


def renew_uuid():
    uuid = modules.get('uuid')
    if uuid is not None:
        # The library that makes them keeps its own name of the machine.
        uuid._generate_time_safe = None
        uuid._node = uuid._random_getnode()


def renew_multiprocessing():
    process = modules.get('multiprocessing.process')
    # Children know the key that they were given.
    if process is not None and not process._children:
        process.current_process().authkey = urandom(32)


renewals = (renew_random, renew_numpy, renew_openssl, renew_uuid, renew_multiprocessing, forget_numbers)
completions['random'] = watch

"""What modules draw by chance when they are imported before the interpreter is saved, and how each clone draws it again.

Part of preload.py, whose names it uses, with some of individual.py. A draw is a count of bytes, the module and the function whose
code ran, the module for which it did, and the file of the library that asked the C library for them
as OpenSSL does, or an empty word.
"""

# Bytes that random.Random takes to seed itself.
SEED = 2496
unseeded = []  # The generators of the library's random module, each with its state after that, and who made it.
has_openssl_drawn = False
numpy_seeds = 0  # How many seeds numpy drew, which come from the module secrets.


def can_be_drawn_again(count, module, function, drawer, library):
    global numpy_seeds, has_openssl_drawn
    if library:
        # Its generator is one for the process, and takes more entropy at any time.
        has_openssl_drawn = library.endswith('/x86_64-linux-gnu/libcrypto.so.3') and '_ssl' in modules
        return has_openssl_drawn
    if drawer in EXAMPLES or (module, function) == ('multiprocessing.process', '__init__'):
        return True
    if (module, function) == ('random', 'getrandbits'):
        numpy_seeds += 1
        return True
    return count == SEED or module is not None and module.partition('.')[0] in HASHES


# Packages whose compiled code draws keys of its hash tables, which a program cannot ask for.
HASHES = {'orjson', 'polars', 'pyarrow', 'pydantic_core', 'rpds', 'tokenizers'}


usual_bytes = None


def watch_openssl():
    global usual_bytes
    usual_bytes, modules['_ssl'].RAND_bytes = modules['_ssl'].RAND_bytes, watched_bytes


def watched_bytes(count):
    culprits.append('RAND_bytes')
    return usual_bytes(count)


# Modules that draw numbers only for examples in the text of their documentation.
EXAMPLES = {'scipy.stats._distribution_infrastructure'}


def watched_seed(self, a=None, version=2):
    unseeded[:] = [known for known in unseeded if known[0] is not self]
    usual_seed(self, a, version)
    if a is None:
        unseeded.append((self, state_of(self), running[-1]))


def have_given_numbers():
    """Whether a number came from what was seeded by chance: it may be anywhere now."""
    if any(state_of(generator) != state and not is_spent(generator, maker) for generator, state, maker in unseeded):
        return True
    found = find_numpy_generators()
    if len({id(generator.seed_seq) for generator, _ in found}) != numpy_seeds:
        return True
    return any(not is_same(type(generator)(generator.seed_seq).state, generator.state) for generator, _ in found)


def is_spent(generator, maker):
    """Whether the numbers that it gave are drawn again, or are nowhere any more: joblib tries out a semaphore."""
    dummy = getattr(modules.get('sympy.core.symbol'), 'Dummy', None)
    return maker == 'joblib._multiprocessing_helpers' or generator is getattr(dummy, '_prng', running)


def seed_random(module):
    """Whoever has a generator of this module has imported it."""
    for generator, *_ in unseeded:
        generator.seed()


def seed_openssl(ssl):
    if has_openssl_drawn:
        ssl.RAND_add(os.urandom(32), 32)


def draw_index(symbol):
    if hasattr(symbol.Dummy, '_prng'):
        symbol.Dummy._base_dummy_index = symbol.Dummy._prng.randint(10**6, 9 * 10**6)


def draw_key(process):
    process.current_process().authkey = os.urandom(32)


def look_at_clock(logging):
    logging._startTime = logging.time.time_ns() if type(logging._startTime) is int else logging.time.time()


# What modules drew for themselves when they were imported, or when that was, is drawn again before they appear.
renewals = {
    'random': seed_random,
    'numpy.random.bit_generator': lambda module: seed_numpy(preloaded),
    '_ssl': seed_openssl,
    'sympy.core.symbol': draw_index,
    'multiprocessing.process': draw_key,
    'logging': look_at_clock,
}


def is_same(one, other):
    """States of numpy's generators hold arrays."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    same = one == other
    return same if isinstance(same, bool) else bool(same.all())

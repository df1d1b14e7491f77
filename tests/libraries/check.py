"""Runs programs with the real libraries of an index, and looks at what becomes of them.

check.py BINARY PUT [CHECK…]

PUT is a directory with the packages that programs get by --put.
"""

import base64
import concurrent.futures
import fcntl
import json
import os
import pathlib
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
import zipfile

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parents[1] / 'examples'
BINARY, PUT = sys.argv[1], pathlib.Path(sys.argv[2])
CORE = ['--requirements', HERE / 'requirements.txt']
EVERYTHING = ['--requirements', HERE / 'everything.txt']
# The first program with a layer says what is imported ahead: what is to be that has a layer of its own.
AHEAD = ['--with', 'six']
CLONES = int(os.environ.get('SANDBOX_CLONES', '200'))


def run(*words, **options):
    return subprocess.run([BINARY, 'run', *words], capture_output=True, text=True, **options)


def printed(*words, **options):
    done = run(*words, **options)
    assert done.returncode == 0, done
    return done.stdout


def record(*words):
    return json.loads(printed('--json', *words))


def shown(columns, *words, **options):
    """What a run shows on a terminal with so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('4H', 30, columns, 0, 0))
    done = subprocess.Popen([BINARY, 'run', *words], stdin=theirs, stdout=theirs, stderr=theirs, **options)
    os.close(theirs)
    text = b''
    try:
        while piece := os.read(ours, 1000):
            text += piece
    except OSError:
        pass
    os.close(ours)
    assert done.wait() == 0, text
    return text.decode()


def widths(record):
    """The widths of the pictures that were displayed."""
    pictures = [base64.b64decode(shown['image/png']) for shown in record['displays']]
    assert all(picture.startswith(b'\x89PNG\r\n\x1a\n') for picture in pictures)
    return [struct.unpack('>I', picture[16:20])[0] for picture in pictures]


def in_order(widths, count):
    return len(widths) == count and widths == sorted(set(widths))


PLOT = "import matplotlib.pyplot as plt\ndef plot(size): plt.figure(figsize=(size, 2)); plt.plot([1, 2])\n"


def figures_are_shown_once_in_order_and_none_is_left_for_the_next():
    shows = PLOT + 'for size in 2, 3: plot(size); plt.show()\nplot(4), plot(5)\nNone'
    for _ in range(2):
        assert in_order(widths(record(*CORE, '-c', shows)), 4)
    assert record(*CORE, '-c', PLOT + 'print(plt.get_fignums())')['stdout'] == '[]\n'
    with tempfile.TemporaryDirectory() as home:
        script = pathlib.Path(home, 'script.py')
        script.write_text(PLOT + 'plot(2), plot(3)\nplt.show()\n')
        assert in_order(widths(record(*CORE, script)), 2)
        printed(*CORE, '--show-dir', home, script)
        assert sorted(path.name for path in pathlib.Path(home).glob('*.png')) == ['figure-1.png', 'figure-2.png']


def a_figure_that_would_be_lost_is_told_at_a_terminal():
    def told(code, *options):
        with tempfile.TemporaryDirectory() as home:
            pathlib.Path(home, 'script.py').write_text(PLOT + code)
            return shown(100, *CORE, *options, 'script.py', cwd=home)

    assert '1 figure is lost: keep it with --show-dir' in told('plot(2)\n')
    assert 'lost' not in told("plot(2)\nplt.savefig('plot.png')\n", '--get', 'plot.png')
    assert 'lost' not in told("plot(2)\nplt.tight_layout()\nplt.savefig('plot.png')\nplt.close()\n")


def a_bar_of_tqdm_is_redrawn_in_place_and_as_wide_as_the_terminal():
    code = "import tqdm\nfor _ in tqdm.tqdm(range(20), 'loads', mininterval=0, miniters=1): pass"
    for columns in 100, 61:
        start, *bars = shown(columns, '--put', PUT / 'tqdm', '-c', code).removesuffix('\r\n').split('\r')
        assert start == '' and len(bars) > 20, bars
        # It leaves the last column free.
        assert all(bar.startswith('loads: ') and len(bar) == columns - 1 for bar in bars), bars
        assert bars[0].startswith('loads:   0%|  ') and '| 20/20 [' in bars[-1], bars


def values_have_the_forms_that_their_libraries_give_them():
    def result(code):
        return record(*EVERYTHING, '-c', code)['result']

    table = result("import pandas as pd\npd.DataFrame({'a': [1, 2]})")
    assert '<table' in table['text/html'] and 'a' in table['text/plain'], table
    series = result("import pandas as pd\npd.Series([1, 2])")
    assert 'dtype' in series['text/plain'], series
    picture = result("from PIL import Image\nImage.new('RGB', (3, 4))")
    assert base64.b64decode(picture['image/png']).startswith(b'\x89PNG'), picture
    chart = result("import altair as alt, pandas as pd\nalt.Chart(pd.DataFrame({'a': [1]})).mark_bar().encode(x='a')")
    assert any('vega' in kind or kind == 'text/html' for kind in chart), chart.keys()
    figure = result("import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1]))")
    assert any('plotly' in kind or kind == 'text/html' for kind in figure), figure.keys()
    formula = result("import sympy\nsympy.sqrt(2)")
    assert formula['text/latex'] == '$\\displaystyle \\sqrt{2}$', formula


def the_examples_run():
    with tempfile.TemporaryDirectory() as home:
        words = ['--put', EXAMPLES / 'rain.csv', '--get', 'chart.png', EXAMPLES / 'chart.py']
        printed(*words, cwd=home)
        assert pathlib.Path(home, 'chart.png').read_bytes().startswith(b'\x89PNG')
    assert 'level at: {3*pi/4, 7*pi/4}' in printed(EXAMPLES / 'derivation.py')
    assert '97% of 38 flowers' in printed(EXAMPLES / 'fit.py')


def a_command_of_a_package_runs():
    for words in (['--', 'pytest', '-q', 'tests/'], ['--module', 'pytest', '-q', 'tests/']):
        said = printed(*CORE, '--with', 'pytest', *words, cwd=HERE)
        assert '1 passed' in said, said


# Counts the files of packages that an import opens: there are none if it was imported ahead.
OPENED = '''import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == 'open' and 'dist-packages' in str(args[0]) else None)
{}
print(len(opened), opened[:3])
'''


def large_libraries_are_imported_ahead():
    for wanted, statement in (
        ([*CORE, '--with', 'iniconfig'], 'import numpy, pandas, matplotlib.pyplot'),
        (['--with', 'sympy==1.14.0'], 'import sympy'),
        (['--with', 'scikit-learn==1.9.1'], 'import sklearn.linear_model, sklearn.datasets, sklearn.model_selection'),
        (['--with', 'scipy==1.18.1'], 'import scipy.stats, scipy.optimize'),
    ):
        for _ in range(2):
            said = printed(*wanted, '-c', OPENED.format(statement))
        assert said.startswith('0 '), (statement, said)


CHANCE = '''import random, numpy as np, numpy.random as npr
own, system = random.Random(), random.SystemRandom()
rng, legacy, bits = npr.default_rng(), npr.RandomState(), npr.PCG64()
spawned = npr.SeedSequence()
'''


def wheel(directory, name, code):
    file, info = pathlib.Path(directory, f'{name}-1.0-py3-none-any.whl'), f'{name}-1.0.dist-info'
    with zipfile.ZipFile(file, 'w') as made:
        made.writestr(f'{name}.py', code)
        made.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: numpy\n')
        made.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        made.writestr(f'{info}/RECORD', f'{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n')
    return file


def no_two(count, *words):
    """Runs a program that prints numbers by their names in clones, and compares them."""
    printed(*words)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        told = [json.loads(text) for text in pool.map(lambda _: printed(*words), range(count))]
    for name in told[0]:
        different = {json.dumps(one[name]) for one in told}
        # sympy's index is one of 8 millions.
        allowed = 3 if name == 'sympy: Dummy' else 0
        assert len(different) >= count - allowed, (name, len(different))


def no_two_clones_draw_the_same():
    no_two(CLONES, *EVERYTHING, *AHEAD, HERE / 'draws.py')
    with tempfile.TemporaryDirectory() as home:
        draws = '''import json, chance
print(json.dumps({'own': chance.own.getrandbits(64), 'rng': int(chance.rng.integers(2**62)), 'bits': int(chance.bits.random_raw()),
'legacy': int(chance.legacy.randint(2**62)), 'system': chance.system.getrandbits(64), 'entropy': str(chance.spawned.entropy)}))'''
        no_two(CLONES, '--with', wheel(home, 'chance', CHANCE), '-c', draws)


def session(verb, *words):
    return subprocess.run([BINARY, 'session', verb, *words], capture_output=True, text=True, check=True).stdout


def no_two_children_of_a_session_draw_the_same():
    name = f'draws-{os.getpid()}'
    session('start', name, '--quiet', *CORE)
    names = [name]
    try:
        session('run', name, '-c', 'import numpy; rng = numpy.random.default_rng(); kept = numpy.random.default_rng(7); numpy.random.rand()')
        names += session('fork', name, '-n', '20').split()
        draws = 'int(rng.integers(2**62)), int(numpy.random.randint(2**62)), int(kept.integers(2**62))'
        told = [eval(session('run', one, '-c', draws)) for one in names]
    finally:
        session('stop', *names)
    by_chance, legacy, seeded = map(set, zip(*told))
    assert (len(by_chance), len(legacy), len(seeded)) == (21, 21, 1), told


# Where a clone may differ from an interpreter that imported the same: docs/clones.md has each of these.
DIFFERENCES = [
    # What was compiled lately, a text that is made of a set, and numbers of threads.
    '/globals/re/_cache/',
    '/globals/re/_cache2/',
    '/globals/tokenize/',
    '/globals/threading/_active/',
    # A name that is made when it is asked for.
    '/globals/typing/Match',
    # Of modules that were imported for what programs do first, or for other programs.
    '/loggers/matplotlib.legend',
    '/loggers/asyncio',
    # Where matplotlib's cache of fonts is.
    '/globals/matplotlib.style/USER_LIBRARY_PATHS',
]


def differences(left, right, path=''):
    if isinstance(left, dict) and isinstance(right, dict):
        for key in {**left, **right}:
            if key not in left or key not in right:
                yield f'{path}/{key}', left.get(key, 'nothing'), right.get(key, 'nothing')
            else:
                yield from differences(left[key], right[key], f'{path}/{key}')
    elif left != right and not is_same(left, right):
        yield path, str(left)[:200], str(right)[:200]


def is_same(left, right):
    """Whether they differ in the order of a set, or are addresses."""
    if isinstance(left, list) and isinstance(right, list):
        return sorted(map(str, left)) == sorted(map(str, right))
    is_address = [isinstance(one, str) and one.isdigit() and int(one) >> 40 != 0 for one in (left, right)]
    return all(is_address)


def a_clone_is_as_an_interpreter_that_imported_the_same():
    words = [*CORE, *AHEAD, HERE / 'state.py']
    printed(*words)
    clone, plain = (json.loads(printed(*how, *words)) for how in ([], ['--no-preload']))
    assert len(clone['modules']) > 500
    found = [one for one in differences(clone, plain) if not any(one[0].startswith(known) for known in DIFFERENCES)]
    assert not found, '\n'.join(f'{path}:\n  clone {one}\n  plain {other}' for path, one, other in found)


def main():
    checks = [
        figures_are_shown_once_in_order_and_none_is_left_for_the_next,
        a_figure_that_would_be_lost_is_told_at_a_terminal,
        a_bar_of_tqdm_is_redrawn_in_place_and_as_wide_as_the_terminal,
        values_have_the_forms_that_their_libraries_give_them,
        the_examples_run,
        a_command_of_a_package_runs,
        large_libraries_are_imported_ahead,
        no_two_clones_draw_the_same,
        no_two_children_of_a_session_draw_the_same,
        a_clone_is_as_an_interpreter_that_imported_the_same,
    ]
    failed = 0
    for check in checks:
        if sys.argv[3:] and check.__name__ not in sys.argv[3:]:
            continue
        began = time.monotonic()
        try:
            check()
            print(f'{check.__name__} ... ok, {time.monotonic() - began:.0f} s', flush=True)
        except Exception as error:
            failed += 1
            print(f'{check.__name__} ... FAILED: {type(error).__name__}: {error}', flush=True)
    sys.exit(failed != 0)


main()

"""Code as a cell of a notebook: how it is read, and what there is for it beside Python.

Runs in the interpreter before it is saved, with one name given: `show_figures`, of notebook.py. What
it imports does not stay in sys.modules.
"""

from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import PathFinder, SourceFileLoader
from _imp import create_builtin, exec_builtin
from sys import meta_path, modules

_ast = create_builtin(ModuleSpec('_ast', None))
exec_builtin(_ast)

COROUTINE = 0x80
# Where there is an IPython for code that wants one.
STAND_INS = ['/usr/lib/sandbox/notebook']
# What is asked of IPython, and what does that in Python.
INSTEAD = (
    (('!pip', '%pip', '!conda', '%conda', '!apt', '!uv'), 'nothing can be installed here'),
    (('%%bash', '%%sh', '%%script', '%sx', '!'), 'run commands with subprocess.run(...), or a whole program with the language bash'),
    (('%timeit', '%%timeit'), 'use timeit.timeit(...)'),
    (('%time', '%%time'), 'use time.perf_counter()'),
    (('%%writefile', '%%file'), 'use pathlib.Path(...).write_text(...)'),
    (('%cd',), 'use os.chdir(...)'),
    (('%env', '%set_env'), 'use os.environ'),
    (('%run',), 'use runpy.run_path(...)'),
    (('%',), 'leave it out, or do the same in Python'),
)


def compiled(text, name):
    """The text as it runs, its code in pieces, whose last value is the cell's, and whether they await."""
    text = dedented(text.replace('\r\n', '\n').replace('\r', '\n'))
    awaiting = _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(text, name, 'exec', _ast.PyCF_ONLY_AST | awaiting, True)
    trees = [(tree, 'exec')]
    if tree.body and type(tree.body[-1]) is _ast.Expr and not is_quiet(text, tree.body[-1]):
        trees.append((_ast.Expression(tree.body.pop().value), 'eval'))
    pieces = [compile(tree, name, mode, awaiting, True) for tree, mode in trees]
    return text, pieces, any(piece.co_flags & COROUTINE for piece in pieces)


def dedented(text):
    """The text without the indentation of its first statement, as IPython takes it off."""
    lines = text.split('\n')
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith('#')), '')
    indentation = first[: len(first) - len(first.lstrip())]
    return '\n'.join(line.removeprefix(indentation) for line in lines) if indentation else text


def is_quiet(text, statement):
    """Whether a semicolon ends the statement, the last one."""
    line = text.split('\n')[statement.end_lineno - 1]
    return line.encode()[statement.end_col_offset :].lstrip().startswith(b';')


def run_in_loop(pieces, globals):
    async def run():
        value = None
        for piece in pieces:
            value = eval(piece, globals)
            if piece.co_flags & COROUTINE:
                value = await value
        return value

    return __import__('asyncio').run(run())


def explain(error, text, is_cell):
    """Completes an error of the compiler: with the line, as in a file, and with what to do about IPython's syntax."""
    lines = text.split('\n')
    if not isinstance(error, SyntaxError) or not error.lineno or error.lineno > len(lines):
        return
    if error.text is None:
        error.text = lines[error.lineno - 1] + '\n'
    if is_cell:
        first = next((line for line in lines if line.strip()), '')
        note = note_on(lines[error.lineno - 1].strip()) or first.startswith('%%') and note_on(first.strip())
        if note:
            error.msg += f'; {note}'


def note_on(line):
    word = line.split(None, 1)[0] if line else ''
    for magics, instead in INSTEAD:
        if any(word == magic or magic in ('!', '%') and word.startswith(magic) for magic in magics):
            return f"{word} is IPython's, and this is plain Python: {instead}"
    if line.endswith('?') or line.startswith('?'):
        return f"{line} is IPython's, and this is plain Python: use help({line.strip('?')})"
    return None


class StandIns:
    """Finds an IPython where there is no real one."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, STAND_INS) if name == 'IPython' else None


# Texts of the cells that have begun, by the names of their code.
cells = {}


def complete_linecache(module):
    module.cache.update((name, lines_of(name)) for name in cells)


def complete_pyplot(module):
    module.show = show_figures


completions = {'linecache': complete_linecache, 'matplotlib.pyplot': complete_pyplot}


def complete(module):
    """Completes a module that was imported, or came when it was imported: what runs is a cell."""
    completion = completions.get(module.__name__)
    if cells and completion:
        completion(module)


def lines_of(name):
    text = cells[name]
    return len(text), None, [f'{line}\n' for line in text.split('\n')], name


def begin(text, name):
    """Has the import system know the cell: `linecache`, and so `traceback` and `inspect`, and `IPython`."""
    is_first = not cells
    cells[name] = text
    if is_first:
        prepare_imports()
    elif 'linecache' in modules:
        try:
            modules['linecache'].cache[name] = lines_of(name)
        except Exception:
            # The program has put another in its place.
            pass


def prepare_imports():
    def exec_module(self, module):
        execute(self, module)
        complete(module)

    execute = SourceFileLoader.exec_module
    SourceFileLoader.exec_module = exec_module
    meta_path.append(StandIns)

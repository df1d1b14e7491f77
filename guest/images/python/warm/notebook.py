"""The forms in which a notebook can show a value.

Runs in the interpreter before it is saved, with one name given: `display`. What it imports does
not stay in sys.modules.
"""

import sys
from io import BytesIO
from _frozen_importlib import ModuleSpec
from _imp import create_builtin, create_dynamic, exec_builtin, exec_dynamic, extension_suffixes

EXTENSIONS = next(path for path in sys.path if path.endswith('/lib-dynload'))


def hidden(name):
    if name in sys.builtin_module_names:
        module = create_builtin(ModuleSpec(name, None))
        exec_builtin(module)
    else:
        path = f'{EXTENSIONS}/{name}{extension_suffixes()[0]}'
        module = create_dynamic(ModuleSpec(name, None, origin=path))
        exec_dynamic(module)
    return module


binascii, _json = hidden('binascii'), hidden('_json')

JSON = 'application/json'
# As IPython knows them.
METHODS = {
    '_repr_html_': 'text/html',
    '_repr_markdown_': 'text/markdown',
    '_repr_svg_': 'image/svg+xml',
    '_repr_png_': 'image/png',
    '_repr_jpeg_': 'image/jpeg',
    '_repr_latex_': 'text/latex',
    '_repr_json_': JSON,
}


def forms(value, raw):
    """MIME type, data, MIME type, data and so on: what the value offers, or holds, as it is told."""
    # First: there is room for so many forms only.
    bundle = {'text/plain': None}
    if raw and is_a(value, dict):
        bundle.update((kind, data) for kind, data in dict.items(value) if is_a(kind, str))
    elif not is_a(value, type) and offered(value, '_ipython_canary_method_should_not_exist_') is None:
        bundle.update((kind, offered(value, method)) for method, kind in METHODS.items())
        whole = offered(value, '_repr_mimebundle_', include=None, exclude=None)
        if is_a(whole, dict):
            bundle.update((kind, data) for kind, data in dict.items(whole) if is_a(kind, str))
        if is_figure(value):
            bundle['image/png'] = picture(value)
    if not raw or bundle['text/plain'] is None:
        bundle['text/plain'] = plain(value)
    fields = []
    for kind, data in bundle.items():
        try:
            fields += str.encode(kind), encoded(kind, data)
        except Exception:
            # Not offered, or nothing that could be told.
            continue
    return fields


# Figures of matplotlib, which offers no form of them itself.
shown = []


def is_figure(value):
    kind = getattr(sys.modules.get('matplotlib.figure'), 'Figure', None)
    return kind is not None and isinstance(value, kind)


def picture(figure):
    if not any(figure is known for known in shown):
        shown.append(figure)
    file = BytesIO()
    try:
        figure.savefig(file, format='png', bbox_inches='tight')
    except Exception:
        return None
    return file.getvalue()


def take_figures():
    """The open figures that were not shown yet, in order. They are open no more."""
    pyplot = sys.modules.get('matplotlib.pyplot')
    if getattr(pyplot, 'get_fignums', None) is None:
        return []
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close('all')
    figures = [figure for figure in figures if not any(figure is known for known in shown)]
    shown.clear()
    return figures


def count_figures():
    """How many figures are open, and how many of them were changed since they were drawn: saved, above all."""
    managers = sys.modules['matplotlib._pylab_helpers'].Gcf.get_all_fig_managers()
    figures = [manager.canvas.figure for manager in managers]
    return len(figures), sum(any(axes.stale for axes in figure.axes) for figure in figures)


def show_figures(*arguments, **options):
    """In place of pyplot.show(): there is no window, and a figure that was shown is done with."""
    for figure in take_figures():
        display(figure)


def is_a(value, kind):
    return issubclass(type(value), kind)


def plain(value):
    try:
        return repr(value)
    except Exception as error:
        return f'<{type(value).__name__} object, whose repr() raises {type(error).__name__}>'


def offered(value, name, **options):
    """What this method of the value's gives, less metadata; None where there is nothing."""
    try:
        method = getattr(value, name, None)
        data = method(**options) if callable(method) else None
    except Exception:
        return None
    return data[0] if is_a(data, tuple) and len(data) == 2 else data


def encoded(kind, data):
    """Text as it is, also that of JSON; bytes, which are no text, in base64; as JSON, what that can hold."""
    if is_a(data, bytes) and not kind.startswith('text/'):
        return binascii.b2a_base64(data, newline=False)
    if kind.endswith('json') and data is not None and not is_a(data, str):
        data = ''.join(_json.make_encoder({}, refuse, quote, None, ': ', ', ', False, False, False)(data, 0))
    return str.encode(data, 'utf-8', 'backslashreplace')


def refuse(value):
    raise TypeError


quote = _json.encode_basestring_ascii


class DisplayHandle:
    """What display() returns for a display_id: nothing that was displayed changes, so an update is displayed too."""

    def __init__(self, display_id):
        self.display_id = display_id

    def display(self, value, **options):
        display(value, **options)

    update = display

"""Values that know how they are shown, as IPython.display has them."""

import builtins
import json
import os
import pathlib

display = builtins.display

__all__ = (
    'Code DisplayObject HTML Image JSON Latex Markdown Math Pretty SVG TextDisplayObject '
    'clear_output display update_display'
).split()


def clear_output(wait=False):
    """Does nothing: what was shown has been told."""


def update_display(value, *, display_id, **options):
    """Shows the value once more: what was shown stays."""
    display(value, **options)


class DisplayObject:
    """Data in the form that its class names, from a text, bytes, a file or an address."""

    kind = 'text/plain'
    is_text = True

    def __init__(self, data=None, url=None, filename=None, metadata=None, **options):
        if isinstance(data, pathlib.PurePath) or (isinstance(data, str) and is_file(data)):
            data, filename = None, data
        self.data, self.url, self.filename, self.metadata = data, url, filename and str(filename), metadata
        self.reload()

    def reload(self):
        if self.filename is not None:
            path = pathlib.Path(self.filename)
            self.data = path.read_text('utf-8') if self.is_text else path.read_bytes()
        elif self.url is not None:
            self.data = self.fetched()

    def fetched(self):
        from urllib.request import urlopen

        with urlopen(self.url) as answer:
            data = answer.read()
        return data.decode('utf-8', 'replace') if self.is_text else data

    def __repr__(self):
        return f'<IPython.display.{type(self).__name__} object>'

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {} if self.data is None else {self.kind: self.data}


class TextDisplayObject(DisplayObject):
    pass


class HTML(TextDisplayObject):
    kind = 'text/html'

    def _repr_html_(self):
        return self.data


class Markdown(TextDisplayObject):
    kind = 'text/markdown'


class Latex(TextDisplayObject):
    kind = 'text/latex'


class Math(TextDisplayObject):
    kind = 'text/latex'

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {self.kind: '$\\displaystyle ' + self.data.strip('$') + '$'}


class SVG(TextDisplayObject):
    kind = 'image/svg+xml'


class Pretty(TextDisplayObject):
    def __repr__(self):
        return str(self.data)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {}


class Code(TextDisplayObject):
    def __repr__(self):
        return str(self.data)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {self.kind: self.data}


class JSON(DisplayObject):
    kind = 'application/json'

    def __init__(self, data=None, *others, **options):
        super().__init__(data, *others, **options)
        if isinstance(self.data, str):
            self.data = json.loads(self.data)


class Image(DisplayObject):
    is_text = False
    kinds = {b'\x89PNG': 'image/png', b'\xff\xd8': 'image/jpeg', b'GIF8': 'image/gif', b'RIFF': 'image/webp'}

    def fetched(self):
        """Nothing: whoever shows it can fetch it."""
        return None

    def _repr_mimebundle_(self, include=None, exclude=None):
        if self.data is None:
            return {'text/html': f'<img src="{self.url}"/>'}
        data = self.data.encode() if isinstance(self.data, str) else bytes(self.data)
        if data.lstrip().startswith((b'<svg', b'<?xml')):
            return {'image/svg+xml': data.decode()}
        kinds = [kind for start, kind in self.kinds.items() if data.startswith(start)]
        return {kinds[0] if kinds else 'image/png': data}


def is_file(text):
    try:
        return len(text) < 256 and '\n' not in text and os.path.isfile(text)
    except ValueError:
        return False

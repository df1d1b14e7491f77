"""Stands in for IPython in a notebook that has none: what code uses to show values."""

from . import display


def get_ipython():
    """There is no shell."""
    return None

"""What IPython.display has, under its old name."""

from IPython.display import *

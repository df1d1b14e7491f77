"""Where older code looks for what IPython.display has."""

"""A test that a command of a package runs in a guest."""

import numpy as np


def test_sum():
    assert np.arange(4).sum() == 6

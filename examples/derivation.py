# /// script
# dependencies = ["sympy"]
# ///
"""Finds where a damped oscillation is at its highest.

    sandbox run examples/derivation.py
"""

from sympy import cos, diff, exp, pi, simplify, solveset, symbols, Interval

t = symbols("t", real=True)
height = exp(-t) * cos(t)
slope = simplify(diff(height, t))
print("height:", height)
print("slope: ", slope)
print("level at:", solveset(slope, t, Interval(0, 2 * pi)))

# /// script
# dependencies = ["pandas", "matplotlib"]
# ///
"""Draws the rain of two years.

    sandbox run --put examples/rain.csv --get chart.png examples/chart.py
"""

import matplotlib.pyplot as plt
import pandas as pd

rain = pd.read_csv("rain.csv", index_col="month")
print(rain.describe().loc[["mean", "min", "max"]].round(1))
rain.plot.bar(ylabel="mm", title="Rain", figsize=(6, 3), rot=0)
plt.tight_layout()
plt.savefig("chart.png", dpi=80)
plt.close()

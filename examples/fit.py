# /// script
# dependencies = ["scikit-learn"]
# ///
"""Learns to tell three kinds of iris apart.

    sandbox run examples/fit.py
"""

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

flowers = load_iris()
known, new, kinds, answers = train_test_split(flowers.data, flowers.target, random_state=0)
model = LogisticRegression(max_iter=1000).fit(known, kinds)
print(f"{model.score(new, answers):.0%} of {len(new)} flowers are told right")

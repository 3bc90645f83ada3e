"""Probe frozen features: train a linear classifier on them and score it."""

# %% A checkout need not be installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package

from IPython.display import display

from jtm.data.toyset import toy_data
from jtm.embedding import WEIGHTS
from jtm.evaluation.probing import probe_features
from jtm.results import figures

# %% The shipped network, the same untrained, and spectra, with a third of the labels.
made = probe_features(
    WEIGHTS,
    toy_data("tiny"),
    tasks=("multipitch",),
    representations=("cpc-c", "random-c", "logmel"),
    out="logs/examples/probe/records.jsonl",
    fraction=0.3,
)

# %% The same as a figure, with 95 % intervals over recordings. The probe has not seen
# these works, but the shipped network has most of them, in the larger set that it was
# trained on. The fair comparison, on works new to both, is the table in the README.
figure = figures.probe_dots(made)
figures.save(figure, "logs/examples/probe.png")
display(figure)

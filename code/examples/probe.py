"""Probe frozen features: train only heads, on three labelled recordings."""

# %% A checkout need not be installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package

from jtm.files import stop_in_one_line

stop_in_one_line()

import pandas as pd
from IPython.display import display

from jtm.cpc.supervised import run
from jtm.data.toyset import toy_data
from jtm.embedding import WEIGHTS
from jtm.results import figures
from jtm.training.config import SupervisedConfig, make_config

# %% Heads on the frozen shipped network, and the same network fine-tuned.
scores = []
for method, frozen in (("frozen", True), ("fine-tuned", False)):
    chosen = {
        "data": toy_data("tiny"),
        "path_checkpoint": f"logs/examples/probe/{method}",
        "load": str(WEIGHTS),
        "frozen": frozen,
        "task": "multipitch",
        "n_epoch": 1,
    }
    config = make_config(SupervisedConfig, "tiny", chosen)
    scores += [{"method": method} | score for score in run(config, n_recordings=3)]

# %% Primary metrics with 95 % intervals over tune families. These works are held out
# from the heads, but the shipped network was pretrained on most of them, in a larger
# set. For a fair comparison, on works held out from both, see the table in the README.
figure = figures.method_dots(pd.DataFrame(scores))
figures.save(figure, "logs/examples/probe.png")
display(figure)

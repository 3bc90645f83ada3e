"""Inspect the shipped network: features of a piece, and the memory of c."""

# %% A checkout need not be installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package

from jtm.files import stop_in_one_line

stop_in_one_line()

from IPython.display import display

from jtm.cpc.figures import inside_figures, read_analyses
from jtm.data.musicnet import open_dataset
from jtm.data.toyset import toy_data
from jtm.embedding import load_model
from jtm.evaluation.features import view
from jtm.files import ROOT
from jtm.results import figures

# %% Latents z and contexts c of a test piece, below its spectrogram and notes.
piece = open_dataset(toy_data("tiny")).split("test")[0]
figure = figures.piece(**view(load_model(), piece))
figures.save(figure, "logs/examples/look_inside.png")
display(figure)

# %% Results of "jtm inside" on the full set: how well c predicts the past.
results = read_analyses(ROOT / "report" / "results" / "inside.json")
figure = inside_figures(results)["memory"]()
figures.save(figure, "logs/examples/remembers.png")
display(figure)

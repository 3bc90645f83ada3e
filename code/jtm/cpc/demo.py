"""``jtm demo``: from nothing to a table of what features are worth, in minutes."""

import shutil
from pathlib import Path

from jtm.cpc.config import PretrainConfig
from jtm.cpc.figures import pretraining_curve
from jtm.cpc.run import pretrain
from jtm.data.musicnet import open_dataset
from jtm.data.toyset import toy_data
from jtm.evaluation.features import view
from jtm.evaluation.probing import probe_features
from jtm.results import figures
from jtm.training.checkpoints import load_model
from jtm.training.config import make_config

EPOCHS = 3
"""Epochs of pretraining: what ten minutes allow."""

FRACTION = 0.1
"""Share of the training labels that the demonstration's probes may see."""


def demo(preset, out):
    """
    Make the toy set, pretrain, evaluate frozen features and draw figures.

    Parameters
    ----------
    preset : {"small", "tiny"}
        Which toy set, and which sizes.
    out : str or Path
        Folder for the run, the records and the figures.
    """
    out = Path(out)
    data = toy_data(preset)
    chosen = {
        "data": data,
        "path_checkpoint": (out / "pretraining").as_posix(),
        "n_epoch": EPOCHS,
    }
    checkpoint = pretrain(make_config(PretrainConfig, preset, chosen))
    made = probe_features(
        checkpoint,
        data,
        representations=("cpc-z", "cpc-c", "random-z", "random-c", "logmel"),
        out=out / "records.jsonl",
        fraction=FRACTION,
    )
    piece = open_dataset(data).split("test")[0]
    for name, figure in (
        ("pretraining", pretraining_curve(checkpoint.parent)),
        ("probes", figures.probe_dots(made)),
        ("piece", figures.piece(**view(load_model(checkpoint)[0], piece))),
    ):
        figures.save(figure, out / f"{name}.svg")
        print(f"figure {out / name}.svg")
    shutil.rmtree(out / "features")  # gigabytes, and computed in a minute

"""``jtm demo``: from nothing to notes learned from few labels, in minutes."""

from pathlib import Path

import pandas as pd

from jtm.cpc import supervised
from jtm.cpc.config import PretrainConfig
from jtm.cpc.figures import pretraining_curve
from jtm.cpc.run import pretrain
from jtm.data.musicnet import open_dataset
from jtm.data.toyset import toy_data
from jtm.evaluation.features import view
from jtm.results import figures, tables
from jtm.training.checkpoints import load_model
from jtm.training.config import SupervisedConfig, make_config
from jtm.training.folder import BEST

EPOCHS = 2
"""Epochs of pretraining: what minutes allow."""

LABELLED = 3
"""Labelled recordings that the demonstration learns from, 30 s of each."""

PIECES = 3
"""Test recordings that it transcribes and names."""


def demo(preset, out, weights):
    """
    Make the toy set, pretrain, learn from few labels and draw figures.

    What is pretrained here is to be watched: minutes teach a network little. It is the
    network that ships which is fine-tuned, beside one from scratch.

    Parameters
    ----------
    preset : {"small", "tiny"}
        Which toy set, and which sizes.
    out : str or Path
        Folder for the runs, each with its scores, and the figures.
    weights : str or Path
        The network that ships.

    Returns
    -------
    pieces : list of jtm.data.musicnet.Recording
        Test recordings.
    checkpoint : Path
        The network that was fine-tuned.
    """
    out = Path(out)
    data = toy_data(preset)
    chosen = {"data": data, "path_checkpoint": (out / "pretraining").as_posix()}
    checkpoint = pretrain(
        make_config(PretrainConfig, preset, chosen | {"n_epoch": EPOCHS})
    )
    made = []
    for method, more in (
        ("CPC, fine-tuned", {"load": str(weights)}),
        ("from scratch", {}),
    ):
        print(f"{LABELLED} labelled recordings, {method}:")
        chosen["path_checkpoint"] = (out / method).as_posix()
        config = make_config(SupervisedConfig, preset, chosen | {"n_epoch": 1} | more)
        scores = supervised.run(config, n_recordings=LABELLED)
        made += [{"method": method} | score for score in scores]
    made = pd.DataFrame(made)
    print(f"\n{tables.write(tables.run_scores(made))}")
    print("CPC: the network that ships, which has heard works of this test, unlabelled")
    pieces = open_dataset(data).split("test")[:PIECES]
    for name, figure in (
        ("pretraining", pretraining_curve(checkpoint.parent)),
        ("scores", figures.method_dots(made)),
        ("piece", figures.piece(**view(load_model(weights)[0], pieces[0]))),
    ):
        figures.save(figure, out / f"{name}.svg")
        print(f"figure {out / name}.svg")
    return pieces, out / "CPC, fine-tuned" / BEST

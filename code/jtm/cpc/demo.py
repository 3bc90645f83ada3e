"""``jtm demo``: pretraining, and transcription with few labels, in minutes."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from jtm.cpc import supervised
from jtm.cpc.config import PretrainConfig
from jtm.cpc.figures import pretraining_curve
from jtm.cpc.run import pretrain
from jtm.data.musicnet import open_dataset
from jtm.data.toyset import toy_data
from jtm.evaluation.features import view
from jtm.files import InputError
from jtm.results import figures, tables
from jtm.training.checkpoints import load_model
from jtm.training.config import SupervisedConfig, make_config
from jtm.training.folder import BEST, check

EPOCHS = 2
"""Number of epochs of pretraining, which take minutes."""

LABELLED = 3
"""Number of labelled recordings for fine-tuning, 30 s of each."""

PIECES = 3
"""Number of test recordings to transcribe and name."""


def demo(preset, out, weights):
    """
    Make the toy set, pretrain, fine-tune with few labels and draw figures.

    Pretraining is for demonstration: minutes teach a network little. The shipped
    network is fine-tuned instead, and compared with one trained from scratch.

    Parameters
    ----------
    preset : {"small", "tiny"}
        Preset of the toy set and of the runs.
    out : str or Path
        Path to the folder for the runs, each with its scores, and the figures.
    weights : str or Path
        Path to the shipped network.

    Returns
    -------
    pieces : list of jtm.data.musicnet.Recording
        Test recordings.
    checkpoint : Path
        Checkpoint of the fine-tuned network.
    """
    out = Path(out)
    chosen = {"path_checkpoint": (out / "pretraining").as_posix(), "n_epoch": EPOCHS}
    config = make_config(PretrainConfig, preset, chosen)
    try:
        check(config)  # before minutes of synthesis
    except InputError as error:
        raise InputError(str(error).replace("--pathCheckpoint", "--out")) from error
    data = toy_data(preset)
    checkpoint = pretrain(replace(config, data=data))
    chosen = {"data": data}
    rows = []
    for method, start in (
        ("CPC, fine-tuned", {"load": str(weights)}),
        ("from scratch", {}),
    ):
        print(f"{LABELLED} labelled recordings, {method}:")
        chosen["path_checkpoint"] = (out / method).as_posix()
        config = make_config(SupervisedConfig, preset, chosen | {"n_epoch": 1} | start)
        scores = supervised.run(config, n_recordings=LABELLED)
        rows += [{"method": method} | score for score in scores]
    scores = pd.DataFrame(rows)
    print(f"\n{tables.write(tables.run_scores(scores))}")
    print("CPC: the shipped network, pretrained on unlabelled works of this test too")
    pieces = open_dataset(data).split("test")[:PIECES]
    for name, figure in (
        ("pretraining", pretraining_curve(checkpoint.parent)),
        ("scores", figures.method_dots(scores)),
        ("piece", figures.piece(**view(load_model(weights)[0], pieces[0]))),
    ):
        figures.save(figure, out / f"{name}.svg")
        print(f"figure {out / name}.svg")
    return pieces, out / "CPC, fine-tuned" / BEST

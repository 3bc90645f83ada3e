"""Pretrain a small network by CPC on raw audio without labels."""

# %% A checkout need not be installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package

from jtm.files import stop_in_one_line

stop_in_one_line()

from IPython.display import display

from jtm.cpc.config import PretrainConfig
from jtm.cpc.figures import pretraining_curve
from jtm.cpc.run import pretrain
from jtm.data.toyset import toy_data
from jtm.results import figures
from jtm.training.checkpoints import load_model
from jtm.training.config import make_config

# %% A preset and overrides; help(PretrainConfig) lists all settings.
chosen = {
    "data": toy_data("tiny"),
    "path_checkpoint": "logs/examples/pretraining",
    "n_epoch": 2,
}
config = make_config(PretrainConfig, "tiny", chosen)

# %% An interrupted run resumes.
checkpoint = pretrain(config)
model, _ = load_model(checkpoint)
print(f"{sum(p.numel() for p in model.parameters())} trainable parameters")

# %% Contrastive loss and accuracy of each step ahead, on held-out recordings.
figure = pretraining_curve(checkpoint.parent)
figures.save(figure, "logs/examples/pretrain.png")
display(figure)

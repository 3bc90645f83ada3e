"""Transcribe: train a network from scratch, and write its notes as MIDI."""

# %% A checkout need not be installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package

from jtm.files import stop_in_one_line

stop_in_one_line()

import numpy as np
from IPython.display import display

from jtm.cpc import supervised
from jtm.data.musicnet import open_dataset
from jtm.data.rolls import PLAYED_DTYPE
from jtm.data.store import build_store
from jtm.data.toyset import toy_data
from jtm.evaluation import metrics, transcription
from jtm.evaluation.families import Family
from jtm.evaluation.features import view_notes
from jtm.evaluation.labelled import Labelled
from jtm.models.heads import add_heads
from jtm.models.network import build_model
from jtm.music import midi
from jtm.music.score import Note, Score
from jtm.results import figures
from jtm.training.checkpoints import load_part, read_checkpoint
from jtm.training.config import SupervisedConfig, make_config
from jtm.training.spectra import Spectra, harmonic_front_end

# %% Train and evaluate; the same as "python main.py --supervised".
folder = "logs/examples/transcription"
chosen = {
    "data": toy_data("tiny"),
    "path_checkpoint": folder,
    "encoder_type": "pitchmap",
    "hidden_encoder": 16,
    "hidden_gar": 16,
    "n_epoch": 6,
    "learning_rate": 5e-3,
}
config = make_config(SupervisedConfig, "tiny", chosen)
supervised.run(config)

# %% The network of the best epoch, and a held-out test recording.
store = build_store(open_dataset(config.data))
labelled = {"transcription": Labelled.of(store, "transcription")}
model = build_model(config)
network = add_heads(model, {"transcription": labelled["transcription"].head})
load_part(f"{folder}/best.pt", read_checkpoint(f"{folder}/best.pt"), "network", network)
spectra = Spectra(store, harmonic_front_end(model.encoder), folder)
family = Family(labelled, stride=2, read=spectra.read)

# %% Frame and onset logits, decoded into notes with thresholds chosen on validation.
task = labelled["transcription"].task
logits = {
    split: family.predict(network.eval(), split, labelled)["transcription"]
    for split in ("validation", "test")
}
thresholds = task.choose(labelled["transcription"], logits["validation"])
found = transcription.decode(logits["test"][0], **thresholds)
piece = labelled["transcription"].splits["test"][0]
truth = labelled["transcription"].references("test")[0]
print(f"{len(found)} notes found, {len(truth)} in the reference")
print(f"F1 {metrics.note_f1(truth, found):.2f}")

# %% The estimated notes over a spectrogram, and as MIDI for a piano.
notes = [Note(start, end, 1, pitch) for start, end, pitch in found.tolist()]
midi.write("logs/examples/transcribe.mid", Score(tuple(notes)))
shown = view_notes(store.recordings[piece])
shown["notes"] = np.zeros(len(found), PLAYED_DTYPE)
shown["notes"]["program"] = 1
for name in found.dtype.names:
    shown["notes"][name] = found[name]
figure = figures.notes_over_sound(**shown)
figures.save(figure, "logs/examples/transcribe.png")
display(figure)

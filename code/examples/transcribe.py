"""Transcribe: train a head on frozen features, and write its notes as MIDI."""

# %% A checkout need not be installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package

import numpy as np
from IPython.display import display

from jtm.data.musicnet import open_dataset
from jtm.data.rolls import PLAYED_DTYPE
from jtm.data.store import build_store
from jtm.data.toyset import toy_data
from jtm.embedding import WEIGHTS, load_model
from jtm.evaluation import metrics, networks, supervised, transcription
from jtm.evaluation.features import listen
from jtm.evaluation.labelled import Labelled
from jtm.music import midi
from jtm.music.score import Note, Score
from jtm.results import figures
from jtm.training.checkpoints import load_part, read_checkpoint
from jtm.training.config import SupervisedConfig, make_config

# %% Train and score; "python main.py --supervised --load FILE" is the same.
folder = "logs/examples/transcription"
chosen = {
    "data": toy_data("tiny"),
    "path_checkpoint": folder,
    "load": str(WEIGHTS),
    "learning_rate": 1e-2,  # with many labels a smaller one is better
}
config = make_config(SupervisedConfig, "tiny", chosen)
scores = supervised.run(config)

# %% The head of the best epoch, and a test piece: new to the head, though the shipped
# network may have seen it in the larger set that it was trained on.
store = build_store(open_dataset(config.data))
labelled = Labelled.of(store, "transcription")
model = load_model()
heads = networks.make_heads({"transcription": labelled}, model, 0, tuned=True).eval()
load_part(f"{folder}/best.pt", read_checkpoint(f"{folder}/best.pt"), "head", heads)
piece = labelled.splits["test"][0]
[(_, features)] = networks.represent(store, [piece], model)

# %% Frame and onset logits, decoded into notes.
take = labelled.selections("test", piece)[-1]
logits = networks.read_off(heads["transcription"], features, take)
thresholds = [scores[0].config[f"{name}_threshold"] for name in ("frame", "onset")]
found = transcription.decode(logits, thresholds)
truth = labelled.notes(piece)
print(f"{len(found)} notes found, {len(truth)} in the reference")
print(f"F1 {metrics.note_f1(truth, found):.2f}")

# %% The estimated notes over the sound, and as MIDI for a piano.
notes = [Note(start, end, 1, pitch) for start, end, pitch in found.tolist()]
midi.write("logs/examples/transcribe.mid", Score(tuple(notes)))
shown = listen(store.recordings[piece])
shown["notes"] = np.zeros(len(found), PLAYED_DTYPE)
shown["notes"]["program"] = 1
for name in found.dtype.names:
    shown["notes"][name] = found[name]
figure = figures.notes_over_sound(**shown)
figures.save(figure, "logs/examples/transcribe.png")
display(figure)

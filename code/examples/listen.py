"""Listen to the toy set: a piece, its notes over its sound, and one single note."""

# %% A checkout need not be installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package

from IPython.display import Audio, display

from jtm.cli import toy_data
from jtm.data.musicnet import SPLITS, open_dataset
from jtm.data.notes import read_notes
from jtm.evaluation.features import listen
from jtm.music import audio
from jtm.results import figures

# %% The set, made on first use, lies in MusicNet's layout.
data = toy_data("tiny")
dataset = open_dataset(data)
for split in SPLITS:
    print(f"{split:12} {len(dataset.split(split))} recordings")

# %% A piece that is held out for the test, through the SoundFont of training.
piece = dataset.split("test")[0]
display(Audio(audio.read(piece.audio), rate=16_000))

# %% The labels are exact: MusicNet's own were aligned by machine.
figure = figures.notes_over_sound(**listen(piece))
figures.save(figure, "logs/examples/listen.png")
display(figure)

# %% The same piece, through the SoundFont that training never hears.
unseen = {recording.id: recording for recording in dataset.split("test_timbre")}
for recording in filter(None, [unseen.get(piece.id)]):
    display(Audio(audio.read(recording.audio), rate=16_000))

# %% A single note, of which the set has every playable pitch of 11 instruments.
clip = read_notes(data)[0]
print(clip.audio.name)
display(Audio(audio.read(clip.audio), rate=16_000))

"""Listen to the toy set: a piece, its notes over a spectrogram, and a single note."""

# %% A checkout need not be installed.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package

from jtm.files import stop_in_one_line

stop_in_one_line()

from IPython.display import Audio, display

from jtm.data.clips import read_clips
from jtm.data.musicnet import SPLITS, open_dataset
from jtm.data.toyset import toy_data
from jtm.evaluation.features import view_notes
from jtm.music import audio
from jtm.results import figures, show

# %% The set is synthesised on first use, in MusicNet's layout.
data = toy_data("tiny")
dataset = open_dataset(data)
for split in SPLITS:
    print(f"{split:12} {len(dataset.split(split))} recordings")

# %% A test piece, rendered with a training SoundFont and with an unseen one.
piece = dataset.split("test")[0]
same = [recording for recording in dataset.recordings if recording.id == piece.id]
display(show.players(same))

# %% The labels are exact, while MusicNet's were aligned automatically.
figure = figures.notes_over_sound(**view_notes(piece))
figures.save(figure, "logs/examples/listen.png")
display(figure)

# %% A single note; the full set has every playable pitch of 11 instruments.
clip = read_clips(data)[0]
print(clip.audio.name)
display(Audio(audio.read(clip.audio), rate=16_000))

"""
Single notes on disk, for the tasks ``note_pitch`` and ``note_instrument``.

The folder of a toy set contains ``notes/NAME.wav`` and ``notes.csv``, one row per file.
All clips of one instrument and pitch, whatever their velocity and duration, are in one
split; ``test_timbre`` has the test notes rendered with another SoundFont.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from jtm.constants import INSTRUMENTS, LABEL_RATE, PITCH_MAX, PITCH_MIN
from jtm.data.musicnet import CLIPS_FILE, CLIPS_FOLDER, read_table
from jtm.files import InputError, atomic, inside

CLIP_COLUMNS = tuple(
    "file instrument note velocity duration start_time end_time split soundfont".split()
)
CLIP_SPLITS = ("train", "validation", "test", "test_timbre")
_WHOLE = "instrument", "note", "velocity", "start_time", "end_time"


@dataclass(frozen=True)
class Clip:
    """
    One recorded note.

    Parameters
    ----------
    audio : Path
        Path to its audio file.
    program : int
        General MIDI program counted from 1.
    pitch : int
        MIDI note number.
    velocity : int
        MIDI velocity.
    start, end : int
        Onset and offset in samples at 44.1 kHz, half-open.
    split : str
        One of :data:`CLIP_SPLITS`.
    soundfont : str
        File name of the SoundFont.
    """

    audio: Path
    program: int
    pitch: int
    velocity: int
    start: int
    end: int
    split: str
    soundfont: str


def read_clips(root):
    """
    Read the table of single notes of a dataset.

    Parameters
    ----------
    root : str or Path
        Path to the dataset's folder.

    Returns
    -------
    tuple of Clip
        The notes, in the order of the table.

    Raises
    ------
    InputError
        If the table is missing or malformed, or names a note twice.
    """
    path = Path(root) / CLIPS_FILE
    clips = {}
    for where, row in read_table(path, CLIP_COLUMNS):
        try:
            numbers = [int(row[name]) for name in _WHOLE]
        except ValueError as error:
            raise InputError(f"{where}: {error}; expected whole numbers") from error
        program, pitch = numbers[:2]
        if program not in INSTRUMENTS or row["split"] not in CLIP_SPLITS:
            raise InputError(
                f"{where}: instrument {program}, split {row['split']}; "
                f"expected one of {list(INSTRUMENTS)} and of {list(CLIP_SPLITS)}"
            )
        if not PITCH_MIN <= pitch <= PITCH_MAX:
            raise InputError(
                f"{where}: note {pitch}; expected a MIDI number of the piano, "
                f"{PITCH_MIN} to {PITCH_MAX}"
            )
        if not 0 <= numbers[3] < numbers[4]:
            raise InputError(
                f"{where}: note from sample {numbers[3]} to {numbers[4]}; "
                "expected 0 <= start_time < end_time"
            )
        audio = inside(Path(root) / CLIPS_FOLDER, row["file"])
        name = audio.with_suffix("")
        if name in clips:
            raise InputError(f"{where}: a second note named {name.name}")
        clips[name] = Clip(audio, *numbers, row["split"], row["soundfont"])
    return tuple(clips.values())


def write_clips(root, clips):
    """
    Write the table of single notes, atomically.

    Parameters
    ----------
    root : str or Path
        Path to the dataset's folder.
    clips : sequence of Clip
        The notes, in the order to write.
    """
    path = Path(root) / CLIPS_FILE
    with atomic(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CLIP_COLUMNS)
        for clip in clips:
            played = clip.program, clip.pitch, clip.velocity
            times = round((clip.end - clip.start) / LABEL_RATE, 4), clip.start, clip.end
            names = clip.split, clip.soundfont
            writer.writerow((clip.audio.name, *played, *times, *names))

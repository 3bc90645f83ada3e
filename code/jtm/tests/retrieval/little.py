"""A tiny dataset of performances with beats, and their scores, for the tests."""

from pathlib import Path

import numpy as np

from jtm.constants import LABEL_RATE, SAMPLE_RATE
from jtm.data.musicnet import LABEL_DTYPE, write_labels, write_metadata
from jtm.music import audio, notation

PITCHES = (48, 50, 53, 55, 58, 60, 62, 65, 67, 70, 72)


def tune(seed, n_notes=40):
    """Compose a tune of half and whole beats, of type :data:`notation.NOTE`."""
    rng = np.random.default_rng(seed)
    beats = rng.choice((0.5, 1.0), n_notes)
    starts = np.concatenate(((0.0,), np.cumsum(beats)[:-1]))
    pitches = rng.choice(PITCHES, n_notes)
    return np.array(
        [(a, b, p, 0) for a, b, p in zip(starts, beats, pitches, strict=True)],
        notation.NOTE,
    )


def play(notes, tempo=120.0, rate=SAMPLE_RATE):
    """Synthesise a tune with harmonics; return the wave and its labels."""
    second = 60 / tempo
    length = float((notes["beat"] + notes["beats"]).max()) * second + 0.3
    wave, rows = np.zeros(round(length * rate)), []
    for beat, beats, pitch, _ in notes.tolist():
        start, end = beat * second, (beat + beats) * second
        time = np.arange(round((end - start) * rate)) / rate
        phase = 2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time
        tone = sum(np.sin(k * phase) / k for k in (1, 2, 3)) * np.exp(-2 * time)
        first = round(start * rate)
        wave[first : first + len(tone)] += 0.2 * tone
        edges = round(start * LABEL_RATE), round(end * LABEL_RATE)
        rows.append((*edges, 1, pitch, beat, beats, "Quarter"))
    return wave.astype(np.float32), np.array(rows, LABEL_DTYPE)


def write_dataset(root, counts=(("train", 4), ("validation", 2), ("test", 2))):
    """Write performances of tunes, seeded in order, with labels and metadata."""
    rows = []
    for split, count in counts:
        folder = "test" if split == "test" else "train"
        for number in range(count):
            name = f"{split}{number}"
            notes = tune(len(rows))
            wave, labels = play(notes, tempo=100 + 10 * number)
            for target in [folder] + ["test_timbre"] * (split == "test"):
                path = Path(root) / f"{target}_data" / f"{name}.wav"
                audio.write(path, wave, SAMPLE_RATE)
                path = Path(root) / f"{target}_labels" / f"{name}.csv"
                write_labels(path, labels)
            row = {"id": name, "composition": name, "split": split}
            row |= {"corpus_path": f"{name}.abc", "first_beat": 0.0, "tempo": 100}
            rows.append(row | {"tune_family": name})
    write_metadata(Path(root) / "musicnet_metadata.csv", rows)


def write_abc(path, notes, title="Tune"):
    """Write a tune as ABC."""
    names = {0: "C", 2: "D", 5: "F", 7: "G", 10: "_B"}
    tokens = []
    for _, beats, pitch, _ in notes.tolist():
        octave = pitch // 12 - 5
        name = names[pitch % 12] + ("'" * octave if octave > 0 else "," * -octave)
        tokens.append(name + {0.5: "/2", 1.0: ""}[beats])
    text = f"X:1\nT:{title}\nM:none\nL:1/4\nK:C\n" + " ".join(tokens) + "\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")

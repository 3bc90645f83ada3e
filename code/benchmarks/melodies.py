"""
Melody extraction from chorales and quartets, evaluated on the top voice of the scores.

``python code/benchmarks/melodies.py --data toy/data/full`` transcribes held-out works
of the toy set, extracts the melody of each, and writes ``report/results/melody.json``.
The reference is the score's highest voice, as played by the player who has most of it,
or by the highest of several such players; solos of one-voiced instruments, in which
there is nothing to choose, are excluded. Scores are mir_eval's melody metrics (Salamon
et al. 2014), every 10 ms. The rule of `jtm.transcriber.melody` is compared with the
plain skyline, which is always the highest note; both are also scored on the true notes.
``--choose`` tries constants of the rule on validation works.
"""

import argparse
import sys
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "toy"))

import voices  # noqa: E402

from jtm.constants import LABEL_RATE  # noqa: E402
from jtm.data.musicnet import open_dataset, read_labels  # noqa: E402
from jtm.evaluation import metrics  # noqa: E402
from jtm.files import digest, write_json  # noqa: E402
from jtm.transcriber import melody as rule  # noqa: E402
from jtm.transcriber.model import WEIGHTS  # noqa: E402
from jtm.transcriber.notes import MEDIUM, NOTE_DTYPE  # noqa: E402
from jtm.transcriber.transcribe import transcribe  # noqa: E402

ONE_VOICED = ("Solo Flute", "Solo Violin", "Solo Cello")
"""Ensembles of one voice, which are excluded."""

METRICS = {
    "overall_accuracy": "Overall Accuracy",
    "raw_pitch_accuracy": "Raw Pitch Accuracy",
    "raw_chroma_accuracy": "Raw Chroma Accuracy",
    "voicing_recall": "Voicing Recall",
    "voicing_false_alarm": "Voicing False Alarm",
}
"""Names of the metrics, and mir_eval's."""

TRIED = {
    "BELOW": (0.5, 1.0, 1.5, 2.0, 3.0),
    "REGISTER": (0.25, 0.5, 0.75, 0.9),
    "LOUD": (0.0, 0.3, 0.6, 1.0, 1.5),
    "LEAP": (0.05, 0.1, 0.15, 0.25, 0.4),
}
"""Constants of the rule that ``--choose`` tries."""


@cache
def top_voice(path):
    """
    Read the highest voice of a score.

    Parameters
    ----------
    path : str
        Path to a file in music21's corpus.

    Returns
    -------
    pitches : dict of float to int
        Pitch by beat.
    verse : float
        Beats after which the score is repeated, if it is.
    """
    music = voices.read_work(path)
    pitches = {round(beat, 3): pitch for beat, _, pitch in music.voices[0]}
    return pitches, np.ceil(music.length / music.bar) * music.bar


def reference(recording):
    """
    Find the notes of the score's top voice among the labels of a recording.

    Parameters
    ----------
    recording : jtm.data.musicnet.Recording
        A recording of a corpus work in the toy set.

    Returns
    -------
    numpy.ndarray
        Its notes ``(notes,)`` of :data:`NOTE_DTYPE`, by onset.
    numpy.ndarray
        All notes of the labels.
    """
    labels, row = read_labels(recording.labels), recording.metadata
    pitches, verse = top_voice(row["corpus_path"])
    beats = labels["start_beat"] + float(row["first_beat"])
    written = [pitches.get(round(beat % verse, 3)) for beat in beats]
    unshifted = labels["pitch"] - int(row["transposition"])
    shift = np.array(
        [p - q if q is not None else 1 for p, q in zip(unshifted, written, strict=True)]
    )
    players = [
        (labels["program"] == program) & (shift == octave)
        for program in np.unique(labels["program"])
        for octave in range(-48, 60, 12)
    ]
    notes = np.zeros(len(labels), NOTE_DTYPE)
    for name in ("start", "end"):
        notes[name] = labels[name] / LABEL_RATE
    notes["pitch"], notes["program"] = labels["pitch"], labels["program"]
    notes["velocity"] = MEDIUM
    maximum = max(map(np.sum, players))
    candidates = [each for each in players if each.sum() >= 0.9 * maximum]
    return notes[max(candidates, key=lambda each: notes["pitch"][each].mean())], notes


def skyline(notes):
    """
    Return the highest note at each moment.

    Parameters
    ----------
    notes : numpy.ndarray
        Notes by onset.

    Returns
    -------
    numpy.ndarray
        MIDI pitches every 10 ms ``(frames,)``; 0 where no note is active.
    """
    return frames(np.sort(notes, order="pitch"))  # the highest is written last


def frames(line, n_frames=None):
    """
    Convert notes to frames of 10 ms; later notes overwrite earlier ones.

    Parameters
    ----------
    line : numpy.ndarray
        Notes.
    n_frames : int, optional
        Number of frames; up to the last offset by default.

    Returns
    -------
    numpy.ndarray
        MIDI pitches ``(frames,)``; 0 where no note is active.
    """
    pitches = np.zeros(n_frames or round(100 * line["end"].max(initial=0)), int)
    for note in line:
        pitches[round(100 * note["start"]) : round(100 * note["end"])] = note["pitch"]
    return pitches


def score(truth, estimate):
    """
    Score a melody.

    Parameters
    ----------
    truth, estimate : numpy.ndarray
        MIDI pitches every 10 ms; 0 in unvoiced frames.

    Returns
    -------
    dict of str to float
        Scores in 0..1 by the names of :data:`METRICS`.
    """
    import mir_eval

    n = max(len(truth), len(estimate))
    arguments = []
    for pitches in (truth, estimate):
        pitches = np.pad(pitches, (0, n - len(pitches)))
        hertz = np.where(pitches, 440 * 2 ** ((pitches - 69) / 12), 0)
        arguments += [np.arange(n) / 100, hertz]
    scores = mir_eval.melody.evaluate(*arguments)
    return {name: float(scores[theirs]) for name, theirs in METRICS.items()}


def works(data, split):
    """
    Select the recordings of chorales and string quartets by ensembles.

    Parameters
    ----------
    data : str or Path
        Path to the toy set.
    split : str
        Split of the toy set.

    Returns
    -------
    list of jtm.data.musicnet.Recording
        The recordings.
    """
    return [
        recording
        for recording in open_dataset(data).split(split)
        if recording.metadata["ensemble"] not in ONE_VOICED
        and recording.metadata["composition"].startswith(("Chorale", "String Quartet"))
    ]


def prepare(recordings, weights):
    """
    Transcribe recordings.

    Parameters
    ----------
    recordings : list of jtm.data.musicnet.Recording
        The recordings.
    weights : str or None
        Path to the transcriber; None for the shipped one.

    Returns
    -------
    list of tuple
        Each recording, its top voice, its labelled notes, and the transcribed notes.
    """
    rows = []
    for each in tqdm(recordings, "Transcribing"):
        top, labels = reference(each)
        if len(top) < len(labels) / 20:
            print(f"{each.id}: excluded; the score's top voice rests in this excerpt")
            continue
        rows.append((each, top, labels, transcribe(each.audio, weights=weights).notes))
    return rows


def choose(prepared):
    """
    Optimise the constants of the rule one at a time, in two rounds.

    Parameters
    ----------
    prepared : list of tuple
        From :func:`prepare`, of validation works.

    Returns
    -------
    list of tuple
        Mean overall accuracy and the constants, in the order tried.
    """
    chosen, tried = {name: getattr(rule, name) for name in TRIED}, []

    def accuracy(constants):
        with mock.patch.multiple(rule, **constants):
            lines = [rule.melody(detected)[1] for *_, detected in prepared]
        scores = []
        for (_, top, *_), line in zip(prepared, lines, strict=True):
            n = round(100 * max(top["end"].max(), line["end"].max(initial=0)))
            scores.append(np.mean(frames(top, n) == frames(line, n)))
        tried.append((float(np.mean(scores)), constants))
        return tried[-1][0]

    for name, values in [*TRIED.items()] * 2:
        scores = [accuracy(chosen | {name: value}) for value in values]
        chosen[name] = values[int(np.argmax(scores))]
        print(f"{max(scores):.4f}  {chosen}", flush=True)
    return tried


def measure(prepared):
    """
    Score the rule, the skyline, and the rule on the true notes.

    Parameters
    ----------
    prepared : list of tuple
        From :func:`prepare`, of held-out works.

    Returns
    -------
    dict
        By method and metric: mean, and the ends of its interval over tune families.
    """
    groups = [each.metadata["tune_family"] for each, *_ in prepared]
    methods = {
        "melody": lambda labels, detected: frames(rule.melody(detected)[1]),
        "skyline": lambda labels, detected: skyline(detected),
        "melody of the true notes": lambda labels, detected: frames(
            rule.melody(labels)[1]
        ),
        "skyline of the true notes": lambda labels, detected: skyline(labels),
    }
    results = {}
    for name, method in methods.items():
        scores = [
            score(frames(top), method(labels, detected))
            for _, top, labels, detected in prepared
        ]
        results[name] = {}
        for metric in METRICS:
            parts = np.array([(each[metric], 1.0) for each in scores])
            draws = metrics.bootstrap(parts, groups, metrics.mean)
            mean = float(parts[:, 0].mean())
            results[name][metric] = [mean, *metrics.interval(draws)]
    return results


def main():
    """Transcribe, measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default=str(ROOT / "toy" / "data" / "full"))
    parser.add_argument("--weights", help="weights of the transcriber")
    parser.add_argument(
        "--choose", action="store_true", help="choose the constants on validation"
    )
    parser.add_argument("--maximum", type=int, help="maximum number of recordings")
    options = parser.parse_args()
    recordings = works(options.data, "validation" if options.choose else "test")
    if options.maximum:
        step = -(-len(recordings) // options.maximum)
        recordings = recordings[::step]
    prepared = prepare(recordings, options.weights)
    if options.choose:
        best, constants = max(choose(prepared), key=lambda each: each[0])
        print(f"best: {best:.4f}  {constants}")
        return
    result = {"weights": digest(options.weights or WEIGHTS)}
    result |= {"recordings": len(prepared), "methods": measure(prepared)}
    for method, scores in result["methods"].items():
        for metric, (mean, low, high) in scores.items():
            print(f"{method:28}{metric:24}{mean:.3f} [{low:.3f}, {high:.3f}]")
    write_json(ROOT / "report" / "results" / "melody.json", result)


if __name__ == "__main__":
    main()

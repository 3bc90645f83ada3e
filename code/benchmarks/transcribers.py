"""
Our transcriber compared with other transcribers on the same files.

``python code/benchmarks/transcribers.py --data toy/data/full --real DIR`` runs ours,
Basic Pitch (Bittner et al. 2022) and harmonica (the reproduction of that name of Ou et
al. 2026), each in its own process. The peers run in virtual environments, which are
created in the folder of ``--work``; none is a dependency. It writes
``report/results/transcribers.json``; run again, it transcribes only what is new.

Notes are scored by mir_eval (Raffel et al. 2014): F1 of pitch and onset within 50 ms,
with offsets within 20 % of the duration or 50 ms, and with instruments. The other
instruments are those that MusicNet lacks, such as guitars; they play the toy test
through the unseen SoundFont. Frame F1 counts pairs of a 10 ms frame and a pitch that is
active by the notes. A score is the mean over recordings, with a bootstrap interval over
tune families of toy pieces, over mixes, instruments of single notes, and recordings of
real piano. A peer runs at its shipped thresholds and at those that are best on toy
validation, by the sum of note F1 and frame F1; for each set and metric, the setting
with the higher score counts, so that ours is compared with the stronger one. Ours runs
at its shipped thresholds.
"""

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile
from cpc_step import RESULTS, machine
from mir_eval.transcription import match_notes
from mir_eval.util import midi_to_hz
from tqdm import tqdm

from jtm.constants import FRAME_RATE, LABEL_RATE, SAMPLE_RATE
from jtm.data.musicnet import Recording, labels_of, open_dataset, write_labels
from jtm.data.rolls import PLAYED_DTYPE, frame_roll, read_notes
from jtm.data.splits import labelled_splits
from jtm.evaluation.labelled import evenly
from jtm.evaluation.metrics import bootstrap, f1, frame_counts, mean, note_f1
from jtm.evaluation.transcription import by_instrument
from jtm.files import InputError, atomic, digest, read_json, write_json
from jtm.music import midi
from jtm.music.audio import write
from jtm.results.compare import estimate as over_seeds
from jtm.transcriber.tables import SPEEDS
from jtm.transcriber.transcribe import transcribe

sys.path.insert(0, str(RESULTS.parents[1] / "toy"))

import acoustics
import synth
from voices import note_value

CODE = RESULTS.parents[1] / "code"
"""Path to the folder of the package."""

OURS = "jtm"
"""Our transcriber, the only one that predicts instruments."""

NEEDS = {
    "basic-pitch": (
        "basic-pitch==0.4.0",
        "onnxruntime librosa mir_eval pretty_midi resampy<0.4.3 scikit-learn scipy",
    ),
    "harmonica": (
        "harmonica-amt==0.3.0",
        "torch<=2.13.0 loguru nnaudio numpy omegaconf scipy soundfile symusic typer",
    ),
}
"""Packages that pip installs in an environment: the transcriber, its dependencies."""

SYSTEMS = {
    OURS: (None, "weights"),
    "basic-pitch": ("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
} | {
    f"harmonica-{size}": ("harmonica", f"harmonica/weights/harmonica-{size}.pt")
    for size in ("nano", "small", "medium")
}
"""Environment of each transcriber, and the path to its weights there."""

GRID = [
    {"onset": onset, "frame": frame}
    for onset in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    for frame in (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
]
"""Candidate thresholds for validation."""

SHORTEST = (5, 11)
"""Candidate minimum note lengths of Basic Pitch, in its frames of 11.6 ms."""

SETS = {
    "toy": "toy test",
    "unseen": "unseen SoundFont",
    "others": "other instruments",
    "mixes": "mixes of recorded notes",
    "piano": "real piano",
    "notes": "real single notes",
}
"""Sets to transcribe, and their titles."""

TUNED_ON = 12
"""Number of validation recordings that thresholds are chosen on."""

SECONDS = 30
"""Maximum duration transcribed of a recording, from its start, in seconds."""


class Piece(NamedTuple):
    """A recording: audio, notes in seconds, duration and bootstrap group."""

    path: Path
    notes: np.ndarray
    seconds: float
    group: str


def _read(recording, group, cut):
    """Read a piece; the beginning of a long one is saved in the folder `cut`."""
    path, rate = recording.audio, soundfile.info(recording.audio).samplerate
    seconds = soundfile.info(path).duration
    notes = read_notes(recording, round(seconds * SAMPLE_RATE))
    if seconds > SECONDS:
        path, seconds = cut / f"{path.parent.name}-{path.stem}.flac", float(SECONDS)
        notes = notes[notes["start"] < SECONDS]
        notes["end"] = np.minimum(notes["end"], SECONDS)
        with atomic(path) as part:
            wave, _ = soundfile.read(recording.audio, frames=SECONDS * rate)
            soundfile.write(part, wave, rate)
    return Piece(path, notes, seconds, group)


def _with_others(recordings, cut):
    """Render test recordings by other instruments, with the unseen SoundFont."""
    font, rendered = synth.find_soundfont(synth.TIMBRE_SOUNDFONTS), []
    for recording in recordings if font else ():
        rng = np.random.default_rng(int(recording.id))
        path = recording.audio.parents[1] / "midi" / f"{recording.id}.mid"
        score = acoustics.replace_players(midi.read(path), rng, share=1.0)
        key = hashlib.sha256(repr((score, digest(font))).encode()).hexdigest()[:8]
        audio = cut / f"others-{recording.id}-{key}.wav"
        labels = audio.with_suffix(".csv")
        if not audio.exists():
            wave, _ = acoustics.render(score, font, acoustics.draw_sound(rng), rng=rng)
            write_labels(labels, labels_of(score, note_value))
            write(audio, wave, LABEL_RATE)
        rendered.append(replace(recording, audio=audio, labels=labels))
    return rendered


def read_sets(data, real, n_recordings, cut):
    """
    Read the sets by name, and ``validation``; report those that are missing.

    Parameters
    ----------
    data, real : Path
        Paths to the toy set and to the folder of real recordings, or None.
    n_recordings : int
        Maximum number of recordings of each toy split.
    cut : Path
        Folder for the beginnings of long recordings.

    Returns
    -------
    dict of str to list of Piece
        The pieces of each set.
    """
    dataset = open_dataset(data)
    every = np.array(dataset.recordings, object)
    lengths = [soundfile.info(each.audio).frames for each in every]
    splits = labelled_splits(every, lengths)
    family = {each.id: each.metadata.get("tune_family") or each.id for each in every}
    sets = {}
    for name, split, n in (
        ("validation", "validation", TUNED_ON),
        ("toy", "test", n_recordings),
        ("unseen", "test_timbre", n_recordings),
    ):
        chosen = every[evenly(np.array(splits.get(split, []), int), n)]
        sets[name] = [_read(each, family[each.id], cut) for each in chosen]
    chosen = _with_others(chosen, cut)  # the last, which are test recordings
    sets["others"] = [_read(each, family[each.id], cut) for each in chosen]
    for name in ("mixes", "piano", "notes"):
        sets[name] = []
        for path in sorted(Path(real or os.devnull).glob(f"{name}/*.flac")):
            one = Recording(path.stem, path, path.with_suffix(".csv"), "test")
            group = path.stem.split("_")[0] if name == "notes" else path.stem
            sets[name].append(_read(one, group, cut))
    for name in [name for name, pieces in sets.items() if not pieces]:
        print(f"{SETS.get(name, name)}: not found, skipped", file=sys.stderr)
        del sets[name]
    return sets


def _environment(name, work):
    """Create the virtual environment of a peer if missing; return its Python."""
    folder = work / "environments" / name
    python, ready = folder / "bin" / "python", folder / "ready"
    peer, needs = NEEDS[name]
    if ready.exists() and ready.read_text() == f"{peer} {needs}":
        return python
    print(f"{name}: installing in {folder}", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet"]
    # Basic Pitch declares TensorFlow and harmonica Python 3.12 as required, but both
    # work without: harmonica's notes are the same with 3.11.
    for words in (["--no-deps", "--ignore-requires-python", peer], needs.split()):
        if subprocess.run([*pip, *words]).returncode:
            raise InputError(f"{name}: cannot be installed; is a registry reachable?")
    ready.write_text(f"{peer} {needs}")
    return python


class System:
    """A transcriber, run on files in its own process; its notes are cached."""

    def __init__(self, name, work, weights):
        self.name, self.work = name, work
        needs, file = SYSTEMS[name]
        self.python, self.weights = sys.executable, weights
        if needs:
            self.python = _environment(needs, work)
            self.weights = next(self.python.parents[1].glob(f"lib/*/*/{file}"))
        self.key = f"{name} {digest(self.weights)}"
        if not needs:  # the code that decodes counts too
            for path in sorted((CODE / "jtm" / "transcriber").glob("*.py")):
                self.key += digest(path)

    def outputs(self, paths, settings, threads=1):
        """Yield the output of ``peers.py`` for each file; InputError if it fails."""
        job = {"files": [str(path) for path in paths], "settings": settings}
        job |= {"threads": threads, "weights": str(self.weights)}
        names = ("OMP", "OPENBLAS", "MKL", "NUMBA")
        variables = {f"{name}_NUM_THREADS": str(threads) for name in names}
        own = CODE if self.name == OURS else ""
        log = self.work / f"{self.name}.log"
        with (
            open(log, "w") as errors,
            subprocess.Popen(
                [self.python, Path(__file__).with_name("peers.py"), self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | variables | {"PYTHONPATH": str(own)},
                text=True,
            ) as worker,
        ):
            try:
                worker.stdin.write(json.dumps(job))
                worker.stdin.close()
                yield from map(json.loads, worker.stdout)
            except BaseException:
                worker.kill()
                raise
        if worker.returncode:
            raise InputError(f"{self.name}: failed; {log} says why")

    def notes(self, pieces, settings, what):
        """
        Transcribe pieces, or read the cached notes of an earlier run.

        Return, for each piece and each of the settings, an array of notes of
        :data:`jtm.data.rolls.PLAYED_DTYPE`; `what` names the pieces to the user.
        """
        cached = []
        for piece in pieces:
            key = f"{self.key} {digest(piece.path)} {json.dumps(settings)}"
            name = hashlib.sha256(key.encode()).hexdigest()[:16]
            cached.append(self.work / "notes" / self.name / f"{name}.json")
        new = [i for i, file in enumerate(cached) if not file.exists()]
        outputs = self.outputs([pieces[i].path for i in new], settings) if new else ()
        bar = tqdm(outputs, f"{self.name}, {what}", len(new), disable=not new)
        for i, output in zip(new, bar, strict=True):
            with atomic(cached[i]) as part:
                part.write_text(json.dumps(output["notes"]))
        return [
            [np.array([*map(tuple, each)], PLAYED_DTYPE) for each in read_json(file)]
            for file in cached
        ]


def score(piece, predicted, instruments=False):
    """
    Score the notes of a piece.

    Parameters
    ----------
    piece : Piece
        The piece.
    predicted : numpy.ndarray
        Notes of :data:`jtm.data.rolls.PLAYED_DTYPE`.
    instruments : bool
        Whether to score instruments.

    Returns
    -------
    dict of str to float
        F1 in 0..1: ``onset``, ``offset``, ``frame`` and, if `instruments`,
        ``instrument``. For a single note also ``found``, 1 if a predicted note has its
        pitch, and ``on_time``, 1 if its onset is within 50 ms too.
    """
    n_frames = round(piece.seconds * FRAME_RATE)
    rolls = [frame_roll(notes, n_frames) for notes in (piece.notes, predicted)]
    scores = {
        "onset": note_f1(piece.notes, predicted),
        "offset": note_f1(piece.notes, predicted, offsets=True),
        "frame": f1(frame_counts(*rolls)),
    }
    if instruments:
        scores["instrument"] = note_f1(*map(by_instrument, (piece.notes, predicted)))
    if len(piece.notes) == 1:
        scores["found"] = float((predicted["pitch"] == piece.notes["pitch"]).any())
        scores["on_time"] = float(scores["onset"] > 0)
    return scores


def estimate(values, groups):
    """
    Estimate a mean over recordings, and over seeds if there are any, with its interval.

    Parameters
    ----------
    values : array_like
        Value of each recording ``(recordings,)``, or by seed ``(seeds, recordings)``.
    groups : sequence of str
        Bootstrap group of each recording.

    Returns
    -------
    dict of str to float
        ``value``, ``low`` and ``high``.
    """
    seeds = {}
    for seed, each in enumerate(np.atleast_2d(values)):
        parts = np.stack((each, np.ones(len(each))), axis=1)
        drawn = bootstrap(parts, groups, mean)
        seeds[seed] = mean(parts.sum(axis=0)), drawn if len(drawn) else None
    value, low, high, *_ = over_seeds(seeds)
    return {"value": value, "low": low, "high": high}


def compare(scores, groups):
    """
    Compare ours with each peer on a set, and mark its stronger setting by each metric.

    Parameters
    ----------
    scores : dict
        By transcriber and setting, a list of the scores of each recording, from
        :func:`score`.
    groups : sequence of str
        Bootstrap group of each recording.

    Returns
    -------
    list of dict
        A row for each transcriber, setting and metric: ``value``, ``low`` and ``high``;
        whether its setting is the ``stronger`` one by this metric; and ``difference``,
        by how much ours is better, with its interval, if both have that metric.
    """
    ours = pd.DataFrame(scores.get(OURS, {}).get("default", []))
    rows = []
    for system, settings in scores.items():
        tables = {setting: pd.DataFrame(each) for setting, each in settings.items()}
        means = pd.DataFrame({name: table.mean() for name, table in tables.items()})
        stronger = means.idxmax(axis=1)
        for setting, metric in itertools.product(tables, means.index):
            values = tables[setting][metric]
            row = {"system": system, "setting": setting, "metric": metric}
            row |= {"stronger": setting == stronger[metric]} | estimate(values, groups)
            if metric in ours and system != OURS:
                row["difference"] = estimate(ours[metric] - values, groups)
            rows.append(row)
    return rows


def _tune(system, pieces):
    """Choose the settings of a peer on validation."""
    grid = GRID
    if system.name == "basic-pitch":
        grid = [each | {"shortest": n} for each in GRID for n in SHORTEST]
    sums = np.zeros(len(grid))
    for piece, each in zip(pieces, system.notes(pieces, grid, "tuning"), strict=True):
        scores = [score(piece, notes) for notes in each]
        sums += [one["onset"] + one["frame"] for one in scores]
    return grid[int(sums.argmax())]


def errors(pieces, predicted, weights):
    """
    Measure what our errors are: missed unisons, and the choice of instruments.

    Parameters
    ----------
    pieces : sequence of Piece
        The pieces.
    predicted : sequence of numpy.ndarray
        Our notes of each piece.
    weights : Path
        Path to the weights of our transcriber.

    Returns
    -------
    dict of str to float
        How many notes are ``missed``; how many of these are ``unisons``, with another
        note of the same pitch that starts within 50 ms; and ``given``, the mean note F1
        with instruments if the ensemble is given.
    """
    missed = unisons = 0
    scores = []
    for piece, notes in zip(tqdm(pieces, "errors"), predicted, strict=True):
        truth = piece.notes
        sides = [
            (np.stack((each["start"], each["end"]), axis=1), midi_to_hz(each["pitch"]))
            for each in (truth, notes)
        ]
        found = [i for i, _ in match_notes(*sides[0], *sides[1], offset_ratio=None)]
        near = abs(truth["start"][:, None] - truth["start"]) <= 0.05
        near &= truth["pitch"][:, None] == truth["pitch"]
        alone = near.sum(axis=1) == 1
        missed += len(truth) - len(found)
        unisons += int(np.delete(~alone, found).sum())
        ensemble = tuple(np.unique(truth["program"]).tolist())
        given = transcribe(piece.path, weights=weights, instruments=ensemble).notes
        scores.append(note_f1(*map(by_instrument, (truth, given))))
    return {"missed": missed, "unisons": unisons, "given": float(np.mean(scores))}


def _speed(systems, pieces, threads):
    """
    Measure speed and memory, after a first piece that loads everything.

    The fastest of three rounds counts, since other load on the machine can only slow it
    down; the processor time of one thread hardly depends on that load.
    """
    paths, rows = [piece.path for piece in pieces], {}
    seconds = sum(piece.seconds for piece in pieces[1:])
    for n, system in itertools.product(threads, systems):
        runs = [*system.outputs(paths[:1] + 3 * paths[1:], [{}], n)]
        row = rows.setdefault(system.name, {})
        for kind in ("seconds", "processor_seconds"):
            rounds = np.reshape([each[kind] for each in runs[1:]], (3, -1)).sum(axis=1)
            row[f"{kind}_of_{n}_thread{'s' * (n > 1)}"] = rounds.min() / seconds
        row["peak_bytes"] = runs[-1]["peak_bytes"]
    return rows


def run(options):
    """Transcribe, score, compare and write the results."""
    work = options.work
    sets = read_sets(options.data, options.real, options.recordings, work / "cut")
    validation = sets.pop("validation")
    known = read_json(options.out) if options.out.exists() else {}
    about, scores, systems = {}, {name: {} for name in sets}, []
    for name in options.only:
        system = System(name, work, options.load)
        systems.append(system)
        settings = {"default": {}}
        if name != OURS:
            settings["tuned"] = _tune(system, validation)
        about[name] = {"tuned": settings.get("tuned")}
        about[name]["weights_bytes"] = system.weights.stat().st_size
        about[name]["sha256"] = digest(system.weights)
        for each, pieces in sets.items():
            predicted = system.notes(pieces, [*settings.values()], SETS[each])
            pairs = [*zip(pieces, predicted, strict=True)]
            # Some single notes are of other instruments too.
            instruments = name == OURS and each not in ("others", "notes")
            if (name, each) == (OURS, "toy"):
                notes = [notes for (notes,) in predicted]
                about[name]["errors"] = errors(pieces, notes, options.load)
            scores[each][name] = {
                setting: [score(piece, notes[i], instruments) for piece, notes in pairs]
                for i, setting in enumerate(settings)
            }
    result = {"cut": SECONDS, "sets": {}, "systems": about, "scores": []}
    for name, pieces in sets.items():
        facts = {"title": SETS[name], "recordings": len(pieces)}
        facts["notes"] = sum(len(piece.notes) for piece in pieces)
        facts["seconds"] = sum(piece.seconds for piece in pieces)
        if name == "notes":
            runs = [run for each in scores[name].values() for run in each.values()]
            found = [[piece["found"] for piece in run] for run in runs]
            facts["found_by_none"] = int((~np.any(found, axis=0)).sum())
        result["sets"][name] = facts
        rows = compare(scores[name], [piece.group for piece in pieces])
        result["scores"] += [{"set": name} | row for row in rows]
    speeds = {name: known.get(name) or {} for name in SPEEDS}
    if options.threads:
        here = machine()
        rows = speeds[[*SPEEDS][not here["bf16_instructions"]]]
        new = _speed(systems, sets["toy"][:3], options.threads)
        rows |= {name: rows.get(name, {}) | row for name, row in new.items()}
        if here["bf16_instructions"]:
            known["machine"] = here
    result |= speeds | {"machine": known.get("machine")}
    write_json(options.out, result)
    table = pd.DataFrame(result["scores"]).query("stronger")
    print((100 * table.pivot_table("value", "system", ["set", "metric"])).round(1).T)


def main():
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    shipped = CODE / "jtm" / "weights" / "transcriber.safetensors"
    default = RESULTS.parents[1] / "logs" / "transcribers"
    add = parser.add_argument
    add("--data", type=Path, required=True, help="toy set")
    add("--real", type=Path, help="folder with mixes/, piano/ and notes/")
    add("--work", type=Path, default=default, help="folder for cached predictions")
    add("--load", type=Path, default=shipped, help="weights of JTM's transcriber")
    add("--only", nargs="+", choices=SYSTEMS, default=[*SYSTEMS])
    add("--recordings", type=int, default=32, help="recordings per toy split")
    add("--threads", nargs="+", type=int, help="numbers of threads to time")
    add("--out", type=Path, default=RESULTS / "transcribers.json")
    options = parser.parse_args()
    try:
        run(options)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

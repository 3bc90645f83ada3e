"""
Make the toy set: real scores, rendered, in MusicNet's layout.

    python toy/generate.py --preset small

reads scores from music21's corpus, arranges them for MusicNet's ensembles and
renders them with FluidSynth on all cores. The same seed gives the same bytes on
the same FluidSynth, whatever the number of processes and however often it was
interrupted: the same command goes on where it stopped.
"""

import argparse
import hashlib
import importlib.metadata
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "toy"), str(ROOT / "code")]

import numpy as np  # noqa: E402
import recipe  # noqa: E402

from jtm import files  # noqa: E402
from jtm.constants import INSTRUMENTS, LABEL_RATE  # noqa: E402
from jtm.data import musicnet  # noqa: E402
from jtm.data.check import coverage  # noqa: E402
from jtm.data.clips import Clip, write_clips  # noqa: E402
from jtm.files import InputError  # noqa: E402
from jtm.music import audio, midi, synth  # noqa: E402
from jtm.music.score import Note, Score, note_value  # noqa: E402

STATE_FILE = "toy.json"
"""What a folder of the toy set was made from; decides whether it may go on."""

COST_FILE = "generation.json"
"""Seconds that the generation took, those of interrupted runs with them."""


def generate(preset, out, seed=0, soundfont=None, progress=True, processes=None):
    """
    Make a toy set, or finish one.

    Parameters
    ----------
    preset : str
        'tiny', 'small' or 'full'.
    out : str or Path
        The folder; made if missing.
    seed : int
        Seed of everything.
    soundfont : str or Path, optional
        The SoundFont of the second test split; by default FluidR3 if the system
        has it, else there is no such split.
    progress : bool
        Whether to show progress bars.
    processes : int, optional
        Processes to use; one a core by default. The result is the same.

    Raises
    ------
    InputError
        If the folder holds something else, FluidSynth or a SoundFont is missing,
        the seed is negative, or the disk is full.
    """
    out = Path(out)
    size = recipe.PRESETS[preset]
    if seed < 0:
        raise InputError(f"seed {seed}: expected a whole number from 0 on")
    fonts = _fonts(soundfont)
    _claim(out, preset, seed, fonts)
    if (out / musicnet.METADATA_FILE).exists():
        return
    for part in out.rglob(".*.part*"):  # what a killed process left
        part.unlink()
    with _Pool(out, processes, progress) as pool:
        works = recipe.choose_works(size, seed)
        music = pool.map(recipe.read_work, [w.path for w in works], "reading scores")
        numbers = {"train": 5000, "validation": 6000, "test": 7000, "unlabelled": 8000}
        jobs = []
        for piece in recipe.plan(works, music, size, seed):
            numbers[piece.split] += 1
            jobs.append((str(out), str(numbers[piece.split]), piece, seed, fonts))
        rows = pool.map(_make_piece, jobs, "rendering pieces")
        pairs = recipe.split_notes(size.note_step, seed)
        jobs = [(str(out), *pair, split, fonts) for pair, split in pairs.items()]
        clips = pool.map(_make_notes, jobs, "rendering notes")
    write_clips(out, [clip for made in clips for clip in made])
    # Last, as it tells that all the rest is there.
    musicnet.write_metadata(
        out / musicnet.METADATA_FILE, sorted(rows, key=lambda row: row["id"])
    )


class _Pool:
    """Calls functions on all cores, with progress bars, and keeps count of the cost."""

    def __init__(self, out, processes, progress):
        self.path = out / COST_FILE
        self.progress = progress
        self.pool = ProcessPoolExecutor(
            processes or os.cpu_count(),
            multiprocessing.get_context("spawn"),
            _begin,
        )

    def __enter__(self):
        self.start = time.perf_counter(), sum(os.times()[:4])
        return self

    def __exit__(self, *_):
        self.pool.shutdown(cancel_futures=True)
        times = time.perf_counter(), sum(os.times()[:4])
        before = files.read_json(self.path) if self.path.exists() else {}
        cost = {"processors": os.cpu_count()}
        names = ("seconds", "processor_seconds")
        for name, end, start in zip(names, times, self.start, strict=True):
            cost[name] = round(before.get(name, 0) + end - start, 1)
        files.write_json(self.path, cost)

    def map(self, function, arguments, what):
        """Call for each argument; results in order."""
        from tqdm import tqdm

        futures = {self.pool.submit(function, a): i for i, a in enumerate(arguments)}
        results = [None] * len(arguments)
        done = as_completed(futures)
        for future in tqdm(done, what, len(futures), disable=not self.progress):
            results[futures[future]] = future.result()
        return results


def _begin():
    """Prepare a worker: it ends with its parent, and only with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _fonts(soundfont):
    """Find the SoundFonts: of the labels, of the second test, of the unlabelled."""
    main = synth.default_soundfont()
    if soundfont is None:
        soundfont = synth.find_soundfont(synth.TIMBRE_SOUNDFONTS)
    elif not Path(soundfont).is_file():
        raise InputError(f"{soundfont}: no such SoundFont; expected an SF2 or SF3 file")
    extra = synth.find_soundfont(synth.EXTRA_SOUNDFONTS)
    if soundfont and files.digest(soundfont) in map(
        files.digest, (main, extra or main)
    ):
        raise InputError(
            f"{soundfont}: is heard in training; the second test needs another one"
        )
    return {
        "main": str(main),
        "timbre": str(soundfont) if soundfont else None,
        "unlabelled": [str(main)] + [str(extra)] * bool(extra),
    }


def _claim(out, preset, seed, fonts):
    """Write what the folder is to hold, or check that it holds just that."""
    paths = {fonts["main"], fonts["timbre"], *fonts["unlabelled"]} - {None}
    sources = [recipe.__file__, __file__, synth.__file__]
    state = {
        "preset": preset,
        "seed": seed,
        "soundfonts": {Path(p).name: files.digest(p) for p in sorted(paths)},
        "fluidsynth": synth.version(),
        "music21": importlib.metadata.version("music21"),
        "recipe": hashlib.sha256(
            "".join(map(files.digest, sources)).encode()
        ).hexdigest(),
    }
    path = out / STATE_FILE
    if path.exists():
        found = files.read_json(path)
        # What is finished may have been made by an earlier version of this file.
        finished = (out / musicnet.METADATA_FILE).exists()
        for key in ("preset", "seed") if finished else state:
            if found.get(key) != (value := state[key]):
                raise InputError(
                    f"{out}: holds a toy set of another {key} ({found.get(key)}, "
                    f"not {value}); choose another folder or remove this one"
                )
    elif out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a folder or a new name")
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"{out}: holds something else than a toy set; choose another folder"
        )
    else:
        files.write_json(path, state)


def _make_piece(job):
    """Write one piece, unless it is there, and give its row of the metadata."""
    out, name, piece, seed, fonts = job
    out = Path(out)
    labelled = piece.split != "unlabelled"
    rng = recipe.generator(seed, "piece", name)
    if piece.program:
        parts = [(piece.program, voice, False) for voice in piece.music.voices]
        transposition = 0
    else:
        parts, transposition = recipe.arrange(piece.music, piece.ensemble, rng)
    score = recipe.perform(parts, piece.music, piece.tempo, rng)
    sound = recipe.draw_sound(rng, wide=not labelled)
    folder = "train" if piece.split == "validation" else piece.split
    font = fonts["main"]
    if not labelled:
        font = fonts["unlabelled"][int(name) % len(fonts["unlabelled"])]
    targets = {folder: font}
    if folder == "test" and fonts["timbre"]:
        targets["test_timbre"] = fonts["timbre"]
    if labelled:
        midi.write(out / "midi" / f"{name}.mid", score)
        labels = musicnet.labels_of(score, note_value)
    tail = 1.5 + max(0.0, piece.seconds - score.seconds)
    for target, path in targets.items():
        wav = out / f"{target}_data" / f"{name}.wav"
        if labelled:
            musicnet.write_labels(out / f"{target}_labels" / f"{name}.csv", labels)
        if not wav.exists():
            room = recipe.generator(seed, "room", name)
            wave = recipe.treat(synth.render(score, path, tail), sound, room)
            audio.write(wav, wave, LABEL_RATE)
    return {
        "id": name,
        "composer": piece.work.composer,
        "composition": piece.work.composition,
        "movement": piece.work.movement,
        "ensemble": piece.ensemble if labelled else "",
        "source": "procedural" if piece.program else "corpus",
        "transcriber": "" if piece.program else "music21 corpus",
        "catalog_name": piece.work.catalog,
        "seconds": round(audio.duration(wav), 3),
        "split": piece.split,
        "instruments": "+".join(INSTRUMENTS[p] for p in score.programs if labelled),
        "tune_family": piece.family,
        "corpus_path": piece.work.path,
        "first_beat": piece.first_beat,
        "transposition": transposition,
        "tempo": round(piece.tempo, 2),
        "soundfont": Path(font).name,
        "reverb_seconds": sound.reverb_seconds,
        "peak_db": sound.peak_db,
        "seed": seed,
    }


def _make_notes(job):
    """Write the clips of one pitch of one instrument, unless they are there."""
    out, program, pitch, split, fonts = job
    targets = {split: fonts["main"]}
    if split == "test" and fonts["timbre"]:
        targets["test_timbre"] = fonts["timbre"]
    start = synth.snap(recipe.NOTE_ONSET)
    kinds = list(itertools.product(recipe.VELOCITIES, recipe.DURATIONS))
    clips = []
    for target, font in targets.items():
        # One rendering for all, with time between them for the sound to die away.
        played, spans, now = [], [], 0.0
        for velocity, length in kinds:
            end = synth.snap(start + recipe.DURATIONS[length])
            played.append(Note(now + start, now + end, program, pitch, velocity))
            size = synth.snap(end + recipe.NOTE_TAIL)
            spans.append([round(time * LABEL_RATE) for time in (now, now + size, end)])
            now = float(synth.snap(now + size + 3.0))
        wavs = [
            Path(out, "notes") / f"{INSTRUMENTS[program]}_p{pitch:03d}_v{velocity:03d}_"
            f"{length}_{Path(font).stem}.wav"
            for velocity, length in kinds
        ]
        missing = not all(wav.exists() for wav in wavs)
        wave = synth.render(Score(tuple(played)), font, 1.0) if missing else None
        for note, wav, (first, last, end) in zip(played, wavs, spans, strict=True):
            if not wav.exists():
                clip = recipe.treat_note(wave[first:last], note.velocity)
                audio.write(wav, clip, LABEL_RATE)
            clips.append(
                Clip(
                    *(wav, program, pitch, note.velocity),
                    *(round(start * LABEL_RATE), end, target, Path(font).name),
                )
            )
    return clips


def main(argv=None):
    """
    Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code: 0, or 2 after a mistake of the user's.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--preset", choices=recipe.PRESETS, default="small")
    parser.add_argument("--out", help="folder (default: toy/data/PRESET)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of everything (default: 0)"
    )
    parser.add_argument(
        "--soundfont",
        help="SoundFont of the second test split (default: FluidR3 if installed)",
    )
    options = parser.parse_args(argv)
    out = Path(options.out or ROOT / "toy" / "data" / options.preset)
    try:
        generate(options.preset, out, options.seed, options.soundfont)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{out}: interrupted; the same command goes on here", file=sys.stderr)
        return 130
    dataset = musicnet.open_dataset(out)
    counts, playable = coverage(dataset.split("train"))
    print(
        f"{out}: the toy set '{options.preset}' is complete, with "
        f"{len(dataset.recordings)} recordings; {np.count_nonzero(counts[playable])} "
        f"of {playable.sum()} playable pitches of all instruments occur in training"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

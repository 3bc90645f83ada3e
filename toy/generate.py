"""
Make the toy set: real scores, rendered, in MusicNet's layout.

    python toy/generate.py --preset small

reads scores from music21's corpus, arranges them for MusicNet's ensembles and
renders them with FluidSynth on all cores. The same seed gives the same bytes on
the same FluidSynth, whatever the number of processes and however often it was
interrupted: the same command goes on where it stopped.
"""

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "toy"), str(ROOT / "code")]

import recipe  # noqa: E402

from jtm import files  # noqa: E402
from jtm.constants import LABEL_RATE  # noqa: E402
from jtm.data import musicnet  # noqa: E402
from jtm.files import InputError  # noqa: E402
from jtm.music import audio, midi, synth  # noqa: E402
from jtm.music.score import note_value  # noqa: E402

STATE_FILE = "toy.json"
"""What a folder of the toy set was made from; decides whether it may go on."""


def generate(preset, out, seed=0, soundfont=None, progress=True):
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

    Raises
    ------
    InputError
        If the folder holds something else, FluidSynth or a SoundFont is missing,
        or the disk is full.
    """
    out = Path(out)
    size = recipe.PRESETS[preset]
    fonts = _fonts(soundfont)
    state = _claim(out, preset, seed, fonts)
    if (out / musicnet.METADATA_FILE).exists():
        return
    works = recipe.choose_works(size, seed)
    music = _all(
        recipe.read_work, [work.path for work in works], "reading scores", progress
    )
    jobs = []
    numbers = {"train": 5000, "validation": 6000, "test": 7000, "unlabelled": 8000}
    for excerpt in recipe.plan(works, music, size, seed):
        name = str(numbers[excerpt.split])
        numbers[excerpt.split] += 1
        jobs.append((str(out), name, excerpt, seed, fonts))
    rows = _all(_make_piece, jobs, "rendering pieces", progress)
    musicnet.write_metadata(
        out / musicnet.METADATA_FILE, sorted(rows, key=lambda row: row["id"])
    )
    return state


def _fonts(soundfont):
    """Find the SoundFonts: of the labels, of the second test, of the unlabelled."""
    main = synth.default_soundfont()
    if soundfont is None:
        soundfont = synth.find_soundfont(synth.TIMBRE_SOUNDFONTS)
    elif not Path(soundfont).is_file():
        raise InputError(f"{soundfont}: no such SoundFont; expected an SF2 or SF3 file")
    extra = synth.find_soundfont(synth.EXTRA_SOUNDFONTS)
    return {
        "main": str(main),
        "timbre": str(soundfont) if soundfont else None,
        "unlabelled": [str(main)] + [str(extra)] * bool(extra),
    }


def _claim(out, preset, seed, fonts):
    """Write what the folder is to hold, or check that it holds just that."""
    paths = {fonts["main"], fonts["timbre"], *fonts["unlabelled"]} - {None}
    state = {
        "preset": preset,
        "seed": seed,
        "soundfonts": {Path(p).name: files.digest(p) for p in sorted(paths)},
        "recipe": files.digest(recipe.__file__),
    }
    path = out / STATE_FILE
    if path.exists():
        found = files.read_json(path)
        for key, value in state.items():
            if found.get(key) != value:
                raise InputError(
                    f"{out}: holds a toy set with another {key} "
                    f"({found.get(key)}, not {value}); choose another folder"
                )
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: not empty and no toy set; choose another folder")
    else:
        files.write_json(path, state)
    return state


def _all(function, arguments, what, progress):
    """Call a function for each argument on all cores; results in order."""
    from tqdm import tqdm

    results = [None] * len(arguments)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        futures = {pool.submit(function, a): i for i, a in enumerate(arguments)}
        try:
            for future in tqdm(
                as_completed(futures), what, len(futures), disable=not progress
            ):
                results[futures[future]] = future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def _make_piece(job):
    """Write one piece, unless it is there, and give its row of the metadata."""
    out, name, excerpt, seed, fonts = job
    out = Path(out)
    split = excerpt.split
    labelled = split != "unlabelled"
    rng = recipe.generator(seed, "piece", name)
    parts, transposition = recipe.arrange(excerpt.music, excerpt.ensemble, rng)
    score = recipe.perform(parts, excerpt.music, excerpt.tempo, rng)
    sound = recipe.draw_sound(rng, wide=not labelled)
    folder = "train" if split == "validation" else split
    font = (
        fonts["main"]
        if labelled
        else fonts["unlabelled"][int(name) % len(fonts["unlabelled"])]
    )
    targets = [(folder, font)]
    if split == "test" and fonts["timbre"]:
        targets.append(("test_timbre", fonts["timbre"]))
    if labelled:
        midi.write(out / "midi" / f"{name}.mid", score)
    for target, path in targets:
        wav = out / f"{target}_data" / f"{name}.wav"
        if labelled:
            musicnet.write_labels(
                out / f"{target}_labels" / f"{name}.csv",
                musicnet.labels_of(score, note_value),
            )
        if not wav.exists():
            room = recipe.generator(seed, "room", name)
            wave = recipe.treat(synth.render(score, path), sound, room)
            audio.write(wav, wave, LABEL_RATE)
    work = excerpt.work
    return {
        "id": name,
        "composer": work.composer,
        "composition": work.composition,
        "movement": work.movement,
        "ensemble": excerpt.ensemble if labelled else "",
        "source": "corpus",
        "transcriber": "music21 corpus",
        "catalog_name": work.catalog,
        "seconds": round(audio.duration(wav), 3),
        "split": split,
        "tune_family": excerpt.family,
        "corpus_path": work.path,
        "first_beat": excerpt.first_beat,
        "transposition": transposition,
        "tempo": round(excerpt.tempo, 2),
        "soundfont": Path(font).name,
        "reverb_seconds": sound.reverb_seconds,
        "peak_db": sound.peak_db,
        "seed": seed,
    }


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
    print(f"{out}: the toy set '{options.preset}' is complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())

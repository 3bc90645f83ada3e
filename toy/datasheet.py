"""
Write the statistics, figures and PDF of the datasheet of a toy set.

    python toy/datasheet.py toy/data/full

writes statistics to ``report/results/data.json``, which the report uses too, plots
``toy/figures/`` and, if LaTeX is installed, builds ``toy/datasheet.pdf`` from
``toy/datasheet.tex.j2``.
"""

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

TOY = Path(__file__).resolve().parent
sys.path[:0] = [str(TOY), str(TOY.parent / "code")]

import jinja2  # noqa: E402
import librosa  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from generate import COST_FILE, STATE_FILE  # noqa: E402
from matplotlib.colors import LogNorm  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from jtm import files  # noqa: E402
from jtm.cli import Parser  # noqa: E402
from jtm.constants import (  # noqa: E402
    INSTRUMENTS,
    LABEL_RATE,
    PITCH_MAX,
    PITCH_MIN,
    PITCH_RANGES,
)
from jtm.data.check import coverage  # noqa: E402
from jtm.data.clips import CLIP_SPLITS, read_clips  # noqa: E402
from jtm.data.musicnet import (  # noqa: E402
    SPLITS,
    open_dataset,
    read_labels,
)
from jtm.data.store import STORE_FOLDER  # noqa: E402
from jtm.files import InputError  # noqa: E402
from jtm.music import audio  # noqa: E402

TEMPLATE = TOY / "datasheet.tex.j2"
FIGURES = TOY / "figures"
FACTS = TOY.parent / "report" / "results" / "data.json"


def statistics(root):
    """
    Compute the statistics of a toy set.

    Parameters
    ----------
    root : str or Path
        A finished toy set with single notes.

    Returns
    -------
    facts : dict
        Statistics for JSON: ``splits``, ``composers``, ``instruments`` and ``clips``
        with an entry for each, ``works``, ``hours``, ``gigabytes``, ``pitches`` (in
        training, in the ranges of all instruments), and inputs and cost of the set.
    shown : dict
        Data of the figures: 'coverage' (11, 88), labels in training; 'polyphony',
        seconds by number of active notes; 'seconds' of each labelled piece;
        'ensembles' (21, composers), a table of pieces.

    Raises
    ------
    InputError
        If it is not a toy set.
    """
    root = Path(root)
    dataset = open_dataset(root)
    if not (root / STATE_FILE).exists():
        raise InputError(f"{root}: not a toy set; expected {STATE_FILE} in it")
    state, cost = (files.read_json(root / name) for name in (STATE_FILE, COST_FILE))
    table = pd.DataFrame([{**r.metadata, "split": r.split} for r in dataset.recordings])
    table["seconds"] = table["seconds"].astype(float)
    corpus = table[table["source"] == "corpus"]
    pieces = corpus[corpus["split"].isin(SPLITS[:3])]
    notes, polyphony, instruments = _count_notes(dataset)
    clips = read_clips(root)
    by_split = Counter(clip.split for clip in clips)
    by_instrument = Counter((clip.program, clip.split) for clip in clips)
    paths = [item.audio for item in (*dataset.recordings, *clips)]
    counts, playable = coverage(dataset.split("train"))
    composers = pd.crosstab(corpus["composer"], corpus["split"])
    columns = [*SPLITS[:3], "unlabelled"]
    facts = {
        **{name: state[name] for name in ("preset", "seed", "fluidsynth", "music21")},
        **cost,
        "splits": {
            split: {**_describe(table, corpus, split), "notes": notes[split]}
            for split in SPLITS
        },
        "works": len(pieces.groupby(["composer", "composition"])),
        "composers": composers.reindex(columns=columns, fill_value=0).T.to_dict("list"),
        "instruments": {
            name: {
                "hours": round(instruments[program] / 3600, 2),
                "clips": [by_instrument[program, split] for split in CLIP_SPLITS],
            }
            for program, name in INSTRUMENTS.items()
        },
        "clips": {split: by_split[split] for split in CLIP_SPLITS},
        "pitches": [int(np.count_nonzero(counts[playable])), int(playable.sum())],
        "hours": sum(map(audio.duration, paths)) / 3600,
        "gigabytes": round(_size(root) / 1e9, 2),
    }
    shown = {
        "coverage": counts,
        "polyphony": dict(polyphony),
        "seconds": table["seconds"][table["split"].isin(SPLITS[:3])],
        "ensembles": pd.crosstab(pieces["ensemble"], pieces["composer"]),
    }
    return facts, shown


def _describe(table, corpus, split):
    """Count the recordings, hours, movements and tune families of a split."""
    own, corpus = (rows[rows["split"] == split] for rows in (table, corpus))
    return {
        "recordings": len(own),
        "hours": round(float(own["seconds"].sum()) / 3600, 2),
        "movements": corpus["corpus_path"].nunique(),
        "tune families": corpus["tune_family"].nunique(),
    }


def _count_notes(dataset):
    """Count notes by split, seconds by polyphony, seconds of notes by program."""
    notes, polyphony, instruments = Counter(), Counter(), Counter()
    for recording in dataset.split(*SPLITS[:4]):
        labels = read_labels(recording.labels)
        notes[recording.split] += len(labels)
        if recording.split != "test_timbre":
            polyphony.update(_polyphony(labels))
            lengths = (labels["end"] - labels["start"]) / LABEL_RATE
            for program, length in zip(labels["program"], lengths, strict=True):
                instruments[int(program)] += float(length)
    return notes, polyphony, instruments


def _size(root):
    """Return the size of a set in bytes, without its 16 kHz copy."""
    return sum(
        path.stat().st_size
        for path in root.rglob("*")
        if path.is_file() and STORE_FOLDER not in path.parts
    )


def _polyphony(labels):
    """Count seconds by number of active notes, from the first note to the last."""
    times = np.concatenate([labels["start"], labels["end"]])
    order = np.argsort(times, kind="stable")
    n_active = np.cumsum(np.repeat([1, -1], len(labels))[order])[:-1]
    lengths = np.diff(times[order]) / LABEL_RATE
    return Counter(dict(enumerate(np.bincount(n_active, lengths))))


def _draw(root, shown):
    """Plot the figures."""
    FIGURES.mkdir(exist_ok=True)
    figure = Figure(figsize=(11, 9.5), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw_coverage(axes[0, 0], shown["coverage"])
    hours = {n: s / 3600 for n, s in sorted(shown["polyphony"].items()) if s > 1}
    axes[0, 1].bar([*hours], [*hours.values()], color="0.4")
    axes[0, 1].set(title="Polyphony", xlabel="simultaneous notes")
    axes[0, 1].set_ylabel("hours of labelled audio")
    axes[1, 0].hist(shown["seconds"], bins=24, color="0.4")
    axes[1, 0].set(title="Length of labelled pieces", xlabel="seconds")
    axes[1, 0].set_ylabel("recordings")
    _draw_ensembles(axes[1, 1], shown["ensembles"])
    _save(figure, "statistics")
    _draw_example(open_dataset(root))


def _draw_ensembles(axes, table):
    axes.imshow(table, cmap="Blues", aspect="auto")
    axes.set_title("Ensembles by composers (recordings)")
    axes.set_xticks(range(len(table.columns)), table.columns, rotation=30)
    axes.set_yticks(range(len(table)), table.index, fontsize=8)
    for (row, column), count in np.ndenumerate(table.to_numpy()):
        colour = "white" if count > 0.6 * table.to_numpy().max() else "black"
        style = {"color": colour, "ha": "center", "va": "center", "fontsize": 7}
        axes.text(column, row, count, **style)


def _draw_coverage(axes, counts):
    edges = np.arange(PITCH_MIN - 0.5, PITCH_MAX + 1), np.arange(len(counts) + 1) - 0.5
    norm = LogNorm(1, max(2, counts.max()))
    shades = np.ma.masked_equal(counts, 0)
    mesh = axes.pcolormesh(*edges, shades, cmap="viridis", norm=norm, rasterized=True)
    for i, (low, high) in enumerate(PITCH_RANGES.values()):
        edges = (low - 0.5, high + 0.5)
        axes.hlines((i - 0.5, i + 0.5), *edges, colors="k", lw=0.6)
        axes.vlines(edges, i - 0.5, i + 0.5, colors="k", lw=0.6)
    axes.set_yticks(range(len(INSTRUMENTS)), INSTRUMENTS.values())
    axes.invert_yaxis()
    axes.set_title("Pitches by instruments (training; ranges framed)")
    axes.set_xlabel("MIDI pitch")
    axes.figure.colorbar(mesh, ax=axes, label="labelled notes")


def _draw_example(dataset):
    """Plot the labels of ten seconds of a string quartet over the spectrogram."""
    recording = next(
        r for r in dataset.split("train") if r.metadata["ensemble"] == "String Quartet"
    )
    seconds, rate = 10.0, LABEL_RATE // 2
    wave = audio.read(recording.audio, rate)[: int(seconds * rate)]
    options = {"hop_length": 512, "n_bins": 88 * 2, "bins_per_octave": 24}
    lowest = librosa.midi_to_hz(PITCH_MIN)
    spectrum = np.abs(librosa.cqt(wave, sr=rate, fmin=lowest, **options))
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(
        librosa.amplitude_to_db(spectrum, ref=np.max),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-60,
        extent=(0, seconds, PITCH_MIN - 0.25, PITCH_MAX + 0.75),
    )
    figure.colorbar(shown, label="dB below the maximum")
    labels = read_labels(recording.labels)
    for program, colour in ((41, "white"), (42, "cyan"), (43, "lime")):
        own = labels[labels["program"] == program]
        ends = own["start"] / LABEL_RATE, own["end"] / LABEL_RATE
        name = INSTRUMENTS[program]
        axes.hlines(own["pitch"], *ends, colors=colour, lw=2.5, label=name)
    axes.set_title(
        f"Labels over the spectrogram: {recording.metadata['composer']}, "
        f"{recording.metadata['composition']}, for string quartet"
    )
    axes.set(xlabel="seconds", xlim=(0, seconds))
    axes.set(ylabel="MIDI pitch", ylim=(PITCH_MIN, PITCH_MAX))
    axes.legend(loc="upper right", facecolor="0.3", labelcolor="white")
    _save(figure, "example")


def _save(figure, name):
    figure.savefig(FIGURES / f"{name}.pdf", dpi=100, metadata={"CreationDate": None})


def _build_pdf(facts, path):
    """Build the PDF, reproducibly to the byte; return False without pdflatex."""
    if not shutil.which("pdflatex"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "datasheet.tex"
        source.write_text(_to_latex(facts), encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error"]
        done = subprocess.run(
            [*command, f"-output-directory={folder}", str(source)],
            cwd=TOY,  # where the figures are
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise InputError(f"LaTeX failed:\n{done.stdout[-2000:]}")
        with files.atomic(path) as part:
            shutil.copy(Path(folder) / "datasheet.pdf", part)
    return True


def _to_latex(facts):
    """Fill in the LaTeX template."""
    environment = jinja2.Environment(
        *("<%", "%>", "<<", ">>", "<#", "#>"),  # as braces are LaTeX syntax
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(facts)


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
        Exit code: 0, or 2 after a user error.
    """
    parser = Parser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument(
        "folder",
        nargs="?",
        help="finished toy set, such as toy/data/full (default: rebuild only the PDF, "
        "from existing statistics and figures)",
    )
    options = parser.parse_args(argv)
    try:
        if options.folder:
            facts, shown = statistics(options.folder)
            files.write_json(FACTS, facts)
            _draw(options.folder, shown)
        if not _build_pdf(files.read_json(FACTS), TOY / "datasheet.pdf"):
            print(
                "no PDF: pdflatex is missing; install texlive-latex-recommended "
                "and texlive-fonts-recommended"
            )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

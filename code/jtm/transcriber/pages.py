"""
Self-contained HTML pages for listening to and viewing a transcription.

A page embeds the recording as MP3, its constant-Q spectrogram as WebP tiles and its
notes as JSON; script and style are inline. A content security policy with their hashes
blocks everything else, including network access, and all text from file names or
metadata is escaped. Text and styling are in ``templates/``.
"""

import base64
import contextlib
import functools
import hashlib
import html
import io
import json
import re
import urllib.parse
from pathlib import Path

import jinja2
import markupsafe
import numpy as np
import soundfile
import soxr
from jinja2.utils import htmlsafe_json_dumps
from PIL import Image

from jtm.constants import INSTRUMENTS, N_PITCHES, PITCH_MIN, SAMPLE_RATE
from jtm.files import PART, InputError
from jtm.music.audio import A4, check_level

# Audio. At lower sample rates, which use MPEG-2, players do not learn the encoder delay
# and would be up to 70 ms late.
MP3_RATE = 32_000  # Hz
MP3_KBITS = 64  # kbit/s; a constant bit rate, so that seeking is exact
BLOCK = 2**20  # samples of an array processed at a time

# The spectrogram.
BINS = 2  # rows per semitone
HOP = 512  # samples at 16 kHz per column: 32 ms
TILE = 1024  # columns per tile: 33 s at the finest zoom level
MARGIN = 64 * HOP  # samples on each side of a tile, more than half the longest filter
COARSER = 8  # columns of one zoom level per column of the next
DECIBELS = 60  # dynamic range below the 99.9th percentile
FAINT = -30  # dB; recordings that are never louder are drawn fainter
QUALITY = 50  # of WebP; 0.9 kB per second

MISTUNED = 0.08  # minimum deviation from 440 Hz in semitones to show the tuning
COLOURS = 8  # of instruments, in page.css; further instruments are drawn hollow

# The index, compiled from metadata in the first bytes of each page.
ROW = {"title": str, "piece": str, "seconds": float, "notes": int, "programs": list}
HEAD = 32_768  # bytes


def _ascii(value):
    """Escape a value for HTML, in ASCII, unless it is marked as safe."""
    if isinstance(value, markupsafe.Markup):
        return value
    escaped = str(markupsafe.escape(value))
    return markupsafe.Markup(escaped.encode("ascii", "xmlcharrefreplace").decode())


_TEMPLATES = Path(__file__).with_name("templates")
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES, encoding="ascii"),
    autoescape=True,
    finalize=_ascii,  # each variable of a template
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def page(wave, rate, notes, title, piece="", melody=None, tuning=0.0):
    """
    Build the HTML page of a transcription.

    Parameters
    ----------
    wave : numpy.ndarray or iterable of numpy.ndarray
        Mono waveform ``(samples,)`` within [-1, 1], or its consecutive blocks, such as
        those of :func:`jtm.music.audio.blocks`, for long recordings.
    rate : int
        Sample rate in Hz; the page stores at most 32 000 Hz.
    notes : numpy.ndarray
        Notes with the fields ``start`` and ``end`` in seconds, ``pitch`` (MIDI number),
        ``program`` (of :data:`jtm.constants.INSTRUMENTS`) and ``velocity`` (1 to 127).
    title : str
        Title of the page, such as the file name.
    piece : str
        Title of the piece, if known.
    melody : numpy.ndarray, optional
        Booleans ``(notes,)``: whether each note belongs to the melody, which is marked
        and can be played alone.
    tuning : float
        Tuning of the recording in semitones above A4 = 440 Hz, used for the spectrogram
        and for playback of the notes.

    Returns
    -------
    str
        HTML in ASCII, about 0.7 MB per minute.

    Raises
    ------
    InputError
        If the waveform is not mono, is empty, or has samples that are not finite or
        not scaled to [-1, 1].
    """
    blocks = wave
    if isinstance(wave, np.ndarray):
        blocks = (wave[i : i + BLOCK] for i in range(0, len(wave), BLOCK))
    recording = _Recording(rate, tuning)
    for block in blocks:
        recording.add(title, block)
    if not recording.samples:
        raise InputError(f"{title}: contains no samples")
    audio, levels = recording.finish()
    seconds = recording.samples / rate
    programs, part_of = np.unique(notes["program"], return_inverse=True)
    has_melody = melody is not None and np.any(melody)
    row = {
        "title": title,
        "piece": piece,
        "seconds": round(float(seconds), 3),
        "notes": len(notes),
        "programs": programs.tolist(),
    }
    a4 = A4 * 2 ** (tuning / 12)
    data = {
        "seconds": seconds,
        "a4": a4,
        "level": round(np.sqrt(recording.power / recording.samples), 5),
        "notes": _columns(notes, part_of, melody if has_melody else None),
        "parts": [{"program": int(p), "name": _name_of(p)} for p in programs],
        "tiles": {
            "columns": TILE,
            "rows": BINS * N_PITCHES,
            "low": PITCH_MIN,
            "levels": levels,
        },
    }
    return _render(
        "page.html.j2",
        script=_file("page.js"),
        row=json.dumps(row),
        title=title,
        piece=piece,
        length=_clock(seconds),
        seconds=f"{seconds:.2f}",
        count=_count(len(notes), "note"),
        a4=round(a4) if abs(tuning) >= MISTUNED else None,
        parts=[
            {
                "name": _name_of(p),
                "count": int((part_of == i).sum()),
                "colour": i % COLOURS,
                "hollow": i >= COLOURS,
            }
            for i, p in enumerate(programs)
        ],
        melody=has_melody,
        audio=audio,
        data=htmlsafe_json_dumps(data, separators=(",", ":")),
    )


def index(folder):
    """
    Build the HTML index of the pages in a folder.

    Parameters
    ----------
    folder : str or Path
        Folder to search recursively; files not made by :func:`page` are skipped.

    Returns
    -------
    str
        HTML in ASCII, with links relative to the folder.
    """
    rows = _listing(Path(folder))
    listed = [
        {
            # With a leading ./ no path can be mistaken for a URL scheme.
            "href": "./" + urllib.parse.quote(row["path"], errors="surrogateescape"),
            "title": row["path"].rpartition("/")[2].removesuffix(".html"),
            "piece": row["piece"],
            "folder": row["path"].rpartition("/")[0],
            "length": _clock(row["seconds"]),
            "notes": row["notes"],
            "instruments": ", ".join(_name_of(p) for p in row["programs"]),
        }
        for row in rows
    ]
    seconds = sum(row["seconds"] for row in rows)
    total = f"{_count(len(rows), 'recording')}, {_clock(seconds)} in all"
    return _render("index.html.j2", rows=listed, total=total if rows else "")


def _listing(folder):
    """Return the metadata and ``path`` of each page, sorted by this."""
    pages = []
    for path in folder.rglob("*.html"):
        if PART.fullmatch(path.name) or not path.is_file():
            continue
        with open(path, encoding="ascii", errors="replace") as file:
            meta = re.search(
                '<meta name="jtm-page" content="([^"]*)">', file.read(HEAD)
            )
        with contextlib.suppress(ValueError):
            row = json.loads(html.unescape(meta[1])) if meta else None
            if _is_row(row):
                pages.append(row | {"path": path.relative_to(folder).as_posix()})
    return sorted(pages, key=lambda row: row["path"])


def _is_row(row):
    """Return whether metadata are a page's, with values of their types."""
    return (
        isinstance(row, dict)
        and row.keys() == ROW.keys()
        and all(isinstance(row[name], kind) for name, kind in ROW.items())
        and 0 <= row["seconds"] < np.inf
        and all(isinstance(program, int) for program in row["programs"])
    )


def frame(document):
    """
    Show a page in a notebook.

    Parameters
    ----------
    document : str
        HTML from :func:`page`.

    Returns
    -------
    IPython.display.HTML
        The page in a sandboxed iframe.
    """
    from IPython.display import HTML

    return HTML(
        f'<div><iframe srcdoc="{markupsafe.escape(document)}" sandbox="allow-scripts" '
        'title="Transcription" width="100%" height="620" style="border: 0">'
        "</iframe></div>"
    )


def _name_of(program):
    """Return the name of a program; pages of other origin may have unknown ones."""
    return INSTRUMENTS.get(program, "unknown instrument")


def _clock(seconds):
    """Format a duration, such as ``1:05`` or ``1:00:05``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Recording:
    """Encode and analyse a recording block by block, each at its own sample rate."""

    def __init__(self, rate, tuning=0.0):
        self.samples, self.power = 0, 0.0
        self.file = io.BytesIO()
        self.mp3 = soundfile.SoundFile(
            self.file,
            "w",
            MP3_RATE,
            1,
            "MPEG_LAYER_III",
            format="MP3",
            # libsndfile counts from 320 kbit/s at 0 down to 32 kbit/s at 1.
            compression_level=(320 - MP3_KBITS) / (320 - 32),
            bitrate_mode="CONSTANT",
        )
        self.playback = soxr.ResampleStream(rate, MP3_RATE, 1)
        self.analysis = soxr.ResampleStream(rate, SAMPLE_RATE, 1)
        self.spectrogram = _Spectrogram(tuning)

    def add(self, name, wave, last=False):
        if wave.ndim != 1:
            raise InputError(
                f"{name}: a waveform of shape {wave.shape}; expected (samples,)"
            )
        if wave.size:
            check_level(name, np.abs(wave).max())
        wave = np.asarray(wave, np.float32)
        self.samples += wave.size
        self.power += float(np.vdot(wave, wave))
        self.mp3.write(np.clip(self.playback.resample_chunk(wave, last=last), -1, 1))
        self.spectrogram.add(self.analysis.resample_chunk(wave, last=last))

    def finish(self):
        """Return the MP3 file in base64, and the zoom levels of tiles."""
        self.add("", np.zeros(0, np.float32), last=True)
        self.mp3.close()
        levels = _levels(self.spectrogram.finish())
        # An hour is 29 MB: at most two copies at a time.
        with self.file, self.file.getbuffer() as mp3:
            encoded = base64.b64encode(mp3)
        return markupsafe.Markup(encoded, "ascii"), levels


class _Spectrogram:
    """Analyse a 16 kHz waveform tile by tile, quantised to half decibels in 8 bits."""

    def __init__(self, tuning):
        # The bins of a semitone are centred on its pitch.
        lowest = PITCH_MIN - 0.5 + 0.5 / BINS + tuning
        self.lowest = A4 * 2 ** ((lowest - 69) / 12)
        self.buffer = np.zeros(MARGIN, np.float32)
        self.tiles = []

    def add(self, wave):
        self.buffer = np.concatenate((self.buffer, wave))
        while len(self.buffer) >= TILE * HOP + 2 * MARGIN:
            self._analyse(TILE)

    def finish(self):
        """Return half decibels above -100 dB ``(rows, columns)``, low pitches first."""
        n_columns = max(1, -(-(len(self.buffer) - MARGIN) // HOP))
        self.buffer = np.pad(self.buffer, (0, MARGIN + HOP))
        for first in range(0, n_columns, TILE):
            self._analyse(min(n_columns - first, TILE))
        tiles, self.tiles = self.tiles, []
        return np.concatenate(tiles, axis=1)

    def _analyse(self, n_columns):
        """Analyse the next tile, and drop its samples."""
        magnitudes = _constant_q(self.buffer, self.lowest, n_columns)
        decibels = 20 * np.log10(np.maximum(magnitudes, 1e-5))
        self.tiles.append(np.clip(2 * (decibels + 100), 0, 255).astype(np.uint8))
        self.buffer = self.buffer[TILE * HOP :]


def _constant_q(wave, lowest, n_columns):
    """
    Compute constant-Q magnitudes ``(rows, columns)``, low pitches first.

    Column ``i`` is centred on sample ``MARGIN + HOP * i``. From the highest octave
    down, samples are decimated by two per octave (Schoerkhuber and Klapuri 2010).
    Importing ``librosa.cqt``, which does the same, would take 200 MB.
    """
    per_octave, ratio = 12 * BINS, 2 ** (1 / (6 * BINS))
    rows = np.arange(-per_octave, 0)[:, None] + BINS * N_PITCHES  # of the top octave
    frequencies = lowest / SAMPLE_RATE * 2 ** (rows / per_octave)  # cycles per sample
    lengths = (ratio + 1) / (ratio - 1) / frequencies
    reach = int(lengths.max() / 2) + 1
    times = np.arange(-reach, reach + 1)
    windows = np.where(
        2 * abs(times) < lengths, 1 + np.cos(2 * np.pi * times / lengths), 0
    )
    kernels = windows * np.exp(-2j * np.pi * frequencies * times)
    # As in librosa, the response to a sine grows with the root of the length.
    kernels *= np.sqrt(lengths) / windows.sum(axis=1, keepdims=True)
    kernels, octaves = kernels.astype(np.complex64), []
    wave, first, hop = wave[: n_columns * HOP + 2 * MARGIN], MARGIN, HOP
    for remaining in range(BINS * N_PITCHES, 0, -per_octave):
        frames = np.lib.stride_tricks.sliding_window_view(
            wave[first - reach :], len(times)
        )[::hop][:n_columns]
        octaves.insert(0, np.abs(frames @ kernels[-remaining:].T).T)
        wave, first, hop = soxr.resample(wave, 2, 1), first // 2, hop // 2
        kernels *= np.float32(np.sqrt(2))
    return np.concatenate(octaves)


def _levels(half_decibels):
    """Encode tiles of each zoom level, finest first, up to a level of one tile."""
    top = max(np.percentile(half_decibels, 99.9), 2 * (FAINT + 100))
    values = np.arange(256, dtype=np.float32) - (top - 2 * DECIBELS)
    values *= 255 / (2 * DECIBELS)
    grey = np.clip(values, 0, 255).astype(np.uint8)
    image = grey[half_decibels[::-1]]  # high pitches at the top
    rate, levels = SAMPLE_RATE / HOP, []
    while True:
        starts = range(0, image.shape[1], TILE)
        tiles = [_webp(image[:, first : first + TILE]) for first in starts]
        levels.append({"rate": rate, "tiles": tiles})
        if len(tiles) == 1:
            return levels
        firsts = np.arange(0, image.shape[1], COARSER)
        image = np.maximum.reduceat(image, firsts, axis=1)
        rate /= COARSER


def _webp(image):
    """Encode a greyscale image ``(rows, columns)`` as WebP in base64."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "WEBP", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _columns(notes, part_of, melody):
    """Return notes as integer columns, sorted by start, with times in milliseconds."""
    order = np.lexsort((notes["pitch"], notes["start"]))
    start = np.round(1000 * notes["start"]).astype(int)
    length = np.maximum(np.round(1000 * notes["end"]).astype(int) - start, 1)
    columns = {
        "start": start,
        "length": length,
        "pitch": notes["pitch"],
        "part": part_of,
        "velocity": notes["velocity"],
    }
    if melody is not None:
        columns["melody"] = np.asarray(melody, int)
    return {name: column[order].tolist() for name, column in columns.items()}


def _count(number, noun):
    """Format a count, such as '1 note' or 'no notes'."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


@functools.cache
def _file(name):
    """Read a script or style sheet of the page, marked as safe."""
    return markupsafe.Markup(_TEMPLATES.joinpath(name).read_text(encoding="ascii"))


def _render(template, script="", **facts):
    """Render a template with a policy that allows only its own script and style."""
    style = _file("page.css")
    sources = [f"style-src {_hash(style)}", "img-src data:"]
    if script:
        sources += [f"script-src {_hash(script)}", "media-src blob:"]
    policy = "; ".join(
        ("default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'")
    )
    loaded = _ENVIRONMENT.get_template(template)
    return loaded.render(policy=policy, style=style, script=script, **facts)


def _hash(text):
    """Return the hash of an inline script or style for a content security policy."""
    digest = hashlib.sha256(text.encode("ascii")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

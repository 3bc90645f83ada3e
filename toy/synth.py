"""
Synthesis of scores by FluidSynth and a SoundFont.

FluidSynth processes events at the boundaries of blocks of 64 samples, so times on that
grid (:func:`snap`) are exact to the sample. A reused synthesiser carries over voices
and filter states, even after a reset; each call therefore creates a new one (some
10 ms, since samples are loaded on demand), so that rendering is deterministic.
Reverberation and chorus are off.
"""

import ctypes
import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jtm.constants import INSTRUMENTS, LABEL_RATE, PITCH_RANGES
from jtm.files import InputError
from jtm.music.score import Note, Score

BLOCK = 64
"""Block size of FluidSynth in samples: 1.45 ms."""

GAIN = 0.25
"""Gain of the synthesiser; low, since levels are set on the float samples."""

COARSE_TUNE = 51
"""Number of the SoundFont generator that transposes samples by semitones."""

BEND_RANGE = 200
"""Pitch-bend range up or down in cents, General MIDI's default."""

TIMBRE_SOUNDFONTS = ("FluidR3Mono_GM.sf3", "FluidR3_GM.sf2")
"""File names of the SoundFont that is used in tests only."""

EXTRA_SOUNDFONTS = ("sf_GMbank.sf2",)
"""File names of further SoundFonts for unlabelled audio."""

PLAYER_SOUNDFONTS = ("GeneralUser-v1.47.sf2", "A320U.sf2", "sonivox.sf2")
"""File names of further SoundFonts for training the transcriber."""

_SETTINGS = {
    "synth.reverb.active": 0,
    "synth.chorus.active": 0,
    "synth.cpu-cores": 1,
    "synth.dynamic-sample-loading": 1,
    "synth.lock-memory": 0,
    "synth.polyphony": 512,
}

_FOLDERS = (
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/share/minuet/soundfonts",
    "/usr/local/share/soundfonts",
    "/opt/homebrew/share/soundfonts",
    f"{sys.prefix}/share/soundfonts",
    f"{sys.prefix}/share/sounds/sf2",
)


def default_soundfont():
    """
    Return the SoundFont shipped with pretty_midi, TimGM6mb.

    Returns
    -------
    Path
        The SoundFont file.

    Raises
    ------
    InputError
        If pretty_midi is not installed with its SoundFont.
    """
    package = importlib.util.find_spec("pretty_midi")
    path = Path(package.origin).with_name("TimGM6mb.sf2") if package else None
    if path is None or not path.exists():
        raise InputError(
            "TimGM6mb.sf2, the SoundFont of pretty_midi, is missing; "
            "run pip install -r requirements.txt"
        )
    return path


def find_soundfont(names):
    """
    Find a SoundFont in the usual system folders.

    Parameters
    ----------
    names : sequence of str
        File names, in order of preference.

    Returns
    -------
    Path or None
        The first that exists.
    """
    paths = (Path(folder, name) for name in names for folder in _FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def snap(seconds):
    """
    Round times to the nearest block boundary of FluidSynth.

    Parameters
    ----------
    seconds : float or numpy.ndarray
        Times in seconds.

    Returns
    -------
    float or numpy.ndarray
        Times in seconds, multiples of 64 samples at 44.1 kHz.
    """
    return np.round(np.asarray(seconds) * LABEL_RATE / BLOCK) * BLOCK / LABEL_RATE


def version():
    """
    Return the version of FluidSynth.

    Returns
    -------
    str
        Such as '2.3.1'; the same version renders the same samples.

    Raises
    ------
    InputError
        If FluidSynth is missing.
    """
    return _library().fluid_version_str().decode()


def check_soundfont(soundfont):
    """
    Check that a SoundFont renders all instruments, which its header does not tell.

    Parameters
    ----------
    soundfont : str or Path
        An SF2 or SF3 file.

    Raises
    ------
    InputError
        If FluidSynth or the SoundFont is missing, or one of MusicNet's instruments is
        missing or silent.
    """
    for program in INSTRUMENTS:
        pitch = sum(PITCH_RANGES[program]) // 2
        wave = render(Score((Note(0.0, 0.2, program, pitch, 100),)), soundfont, 0)
        if not np.abs(wave).max() > 0:
            raise InputError(
                f"{soundfont}: General MIDI program {program} is silent; the file is "
                "damaged, or in a format that this FluidSynth was built without"
            )


@dataclass(frozen=True)
class Timbre:
    """
    Replacement for the sound of a program.

    Parameters
    ----------
    program : int
        General MIDI program to use instead, counted from 1.
    shift : int
        Transposition of samples in semitones: samples of another key are transposed to
        the pitch played, which moves formants but not the pitch.
    generators : dict of int to float
        Offsets of the SoundFont's generators, by number and in the units of the
        standard (SoundFont 2.04, section 8.1.2).
    """

    program: int
    shift: int = 0
    generators: dict = field(default_factory=dict)


def render(score, soundfont, tail=1.5, cents=None, timbres=None):
    """
    Render a score.

    Parameters
    ----------
    score : Score
        The notes; onsets and offsets are rounded to multiples of 64 samples.
    soundfont : str or Path
        An SF2 or SF3 file with the General MIDI programs.
    tail : float
        Seconds of audio after the last offset, for releases.
    cents : dict of int to float, optional
        Tuning by program in cents relative to A4 at 440 Hz, in -200..200; 0 for
        programs that are not named.
    timbres : dict of int to Timbre, optional
        Replacement sounds by program.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in float32 at 44.1 kHz, mono, neither scaled nor
        clipped.

    Raises
    ------
    InputError
        If FluidSynth or the SoundFont is missing, or the SoundFont lacks a program.
    """
    library = _library()
    import fluidsynth

    # MIDI channel 10, index 9, is reserved for drums.
    channels = {program: i + (i >= 9) for i, program in enumerate(score.programs)}
    synth = fluidsynth.Synth(gain=GAIN, samplerate=LABEL_RATE, channels=16, **_SETTINGS)
    try:
        font = synth.sfload(str(soundfont)) if is_soundfont(soundfont) else -1
        if font < 0:
            raise InputError(f"{soundfont}: not a SoundFont that FluidSynth can read")
        for program, channel in channels.items():
            timbre = (timbres or {}).get(program) or Timbre(program)
            if synth.program_select(channel, font, 0, timbre.program - 1) != 0:
                raise InputError(
                    f"{soundfont}: has no General MIDI program {timbre.program}; "
                    "choose a SoundFont with the whole General MIDI bank"
                )
            if bend := round((cents or {}).get(program, 0) / BEND_RANGE * 8191):
                synth.pitch_bend(channel, bend)
            shifted = {COARSE_TUNE: timbre.shift} if timbre.shift else {}
            for generator, value in (timbre.generators | shifted).items():
                library.fluid_synth_set_gen(synth.synth, channel, generator, value)
        length = _block(score.seconds + tail)
        events = _events(score, channels, timbres or {})
        return _play(library, synth, events, length)
    finally:
        synth.delete()


def _events(score, channels, timbres):
    """List (block, whether it is an onset, channel, key, velocity) in order."""
    events = []
    for note in score.notes:
        start, end = (_block(time) for time in (note.start, note.end))
        channel, timbre = channels[note.program], timbres.get(note.program)
        key = min(127, max(0, note.pitch - timbre.shift)) if timbre else note.pitch
        events.append((start, 1, channel, key, note.velocity))
        events.append((max(end, start + 1), 0, channel, key, 0))
    return sorted(events)  # offsets before onsets of the same block, as 0 < 1


def _play(library, synth, events, length):
    """Render events to a waveform ``(samples,)``, `length` blocks long."""
    write_float = library.fluid_synth_write_float
    wave = np.empty((2, length * BLOCK), dtype=np.float32)  # (channels, samples)
    left, right = (channel.ctypes.data for channel in wave)
    position = 0
    for block, on, channel, pitch, velocity in (*events, (length,) * 5):
        if block > position:
            offset = position * BLOCK * wave.itemsize
            count = (block - position) * BLOCK
            write_float(synth.synth, count, left + offset, 0, 1, right + offset, 0, 1)
            position = block
        if block == length:
            break
        if on:
            synth.noteon(channel, pitch, velocity)
        else:
            synth.noteoff(channel, pitch)
    return wave.mean(axis=0)


def is_soundfont(path):
    """
    Check the chunks of a SoundFont file, since FluidSynth prints its own errors.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    bool
        Whether it is a RIFF file with the three complete chunks of a SoundFont; False
        if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(12)[8:] != b"sfbk":
                return False
            kinds = []
            while len(head := file.read(12)) == 12:  # 'LIST', number of bytes, kind
                kinds.append(head[8:])
                end = file.seek(int.from_bytes(head[4:8], "little") - 4, os.SEEK_CUR)
                if end > size:
                    return False
    except OSError:
        return False
    return kinds[:3] == [b"INFO", b"sdta", b"pdta"]


def _block(seconds):
    return int(round(seconds * LABEL_RATE / BLOCK))


def _library():
    """Import FluidSynth, and declare functions that pyfluidsynth does not bind."""
    try:
        import fluidsynth
    except ImportError as error:
        raise InputError(
            "FluidSynth's library is missing; install libfluidsynth3 (Debian, Ubuntu), "
            "fluid-synth (Homebrew) or fluidsynth (conda-forge)"
        ) from error
    library = ctypes.CDLL(fluidsynth.lib)
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    library.fluid_version_str.restype = ctypes.c_char_p
    library.fluid_synth_set_gen.argtypes = (pointer, integer, integer, ctypes.c_float)
    channel = (pointer, integer, integer)  # buffer, first sample, step
    library.fluid_synth_write_float.argtypes = (pointer, integer, *channel, *channel)
    for level in range(5):  # disable FluidSynth's log messages
        library.fluid_set_log_function(level, None, None)
    return library

"""
Score to waveform, through FluidSynth and a SoundFont.

FluidSynth hears events at the borders of blocks of 64 samples, so times snapped
to that grid (:func:`snap`) are true to the sample. A synthesiser that is used
again carries voices and filter states over, even after a reset; every call here
makes a new one (some 10 ms, as samples are loaded by need), so a score always
gives the same samples. Reverberation and chorus are off.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from jtm.constants import LABEL_RATE
from jtm.files import InputError

BLOCK = 64
"""Samples between the moments at which FluidSynth takes events: 1.45 ms."""

GAIN = 0.25
"""Gain of the synthesiser; low, as levels are set on the float samples."""

TIMBRE_SOUNDFONTS = ("FluidR3Mono_GM.sf3", "FluidR3_GM.sf2")
"""File names of the SoundFont that is heard in tests only."""

EXTRA_SOUNDFONTS = ("sf_GMbank.sf2",)
"""File names of further SoundFonts for unlabelled audio."""

_FOLDERS = (
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/local/share/soundfonts",
    "/opt/homebrew/share/soundfonts",
    f"{sys.prefix}/share/soundfonts",
    f"{sys.prefix}/share/sounds/sf2",
)


def default_soundfont():
    """
    Give the SoundFont that comes with pretty_midi, TimGM6mb.

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
    Look for a SoundFont where systems keep them.

    Parameters
    ----------
    names : sequence of str
        File names, the best first.

    Returns
    -------
    Path or None
        The first that is there.
    """
    paths = (Path(folder, name) for name in names for folder in _FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def snap(seconds):
    """
    Move times to the nearest moments at which FluidSynth takes events.

    Parameters
    ----------
    seconds : float or numpy.ndarray
        Times in seconds.

    Returns
    -------
    float or numpy.ndarray
        Times in seconds, whole multiples of 64 samples at 44.1 kHz.
    """
    return np.round(np.asarray(seconds) * LABEL_RATE / BLOCK) * BLOCK / LABEL_RATE


def version():
    """
    Tell which FluidSynth plays.

    Returns
    -------
    str
        Such as '2.3.1'; renderings are the same on the same version.

    Raises
    ------
    InputError
        If FluidSynth is missing.
    """
    import ctypes

    library = _library()
    library.fluid_version_str.restype = ctypes.c_char_p
    return library.fluid_version_str().decode()


def render(score, soundfont, tail=1.5):
    """
    Play a score.

    Parameters
    ----------
    score : Score
        The notes; onsets and offsets are taken at the nearest multiple of 64
        samples.
    soundfont : str or Path
        An SF2 or SF3 file with the General MIDI programs.
    tail : float
        Seconds to go on after the last offset, for what still rings.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in float32 at 44.1 kHz, mono, neither scaled nor
        clipped.

    Raises
    ------
    InputError
        If FluidSynth or the SoundFont is missing, or the latter lacks a program.
    """
    import ctypes

    pointer, integer = ctypes.c_void_p, ctypes.c_int
    library = _library()
    import fluidsynth

    write_float = library.fluid_synth_write_float
    write_float.argtypes = (
        *(pointer, integer),
        *(pointer, integer, integer),
        *(pointer, integer, integer),
    )
    events = []
    channels = {program: _channel(i) for i, program in enumerate(score.programs)}
    for note in score.notes:
        start, end = (_block(time) for time in (note.start, note.end))
        events.append((start, 1, channels[note.program], note.pitch, note.velocity))
        events.append((max(end, start + 1), 0, channels[note.program], note.pitch, 0))
    length = _block(score.seconds + tail)
    sound = np.empty((2, length * BLOCK), dtype=np.float32)  # (channels, samples)
    left, right = (channel.ctypes.data for channel in sound)
    synth = fluidsynth.Synth(
        gain=GAIN,
        samplerate=LABEL_RATE,
        channels=16,
        **{
            "synth.reverb.active": 0,
            "synth.chorus.active": 0,
            "synth.cpu-cores": 1,
            "synth.dynamic-sample-loading": 1,
            "synth.lock-memory": 0,
            "synth.polyphony": 512,
        },
    )
    try:
        font = synth.sfload(str(soundfont)) if _is_soundfont(soundfont) else -1
        if font < 0:
            raise InputError(f"{soundfont}: not a SoundFont that FluidSynth can read")
        for program, channel in channels.items():
            if synth.program_select(channel, font, 0, program - 1) != 0:
                raise InputError(
                    f"{soundfont}: has no General MIDI program {program}; "
                    "choose a SoundFont with the whole General MIDI bank"
                )
        position = 0
        # Releases come before onsets of the same moment, as 0 < 1.
        for block, on, channel, pitch, velocity in (*sorted(events), (length,) * 5):
            if block > position:
                offset = position * BLOCK * sound.itemsize
                count = (block - position) * BLOCK
                write_float(
                    synth.synth, count, left + offset, 0, 1, right + offset, 0, 1
                )
                position = block
            if block == length:
                break
            if on:
                synth.noteon(channel, pitch, velocity)
            else:
                synth.noteoff(channel, pitch)
    finally:
        synth.delete()
    return sound.mean(axis=0)


def _is_soundfont(path):
    """Look at the first bytes, as FluidSynth's loaders print what they dislike."""
    try:
        with open(path, "rb") as file:
            return file.read(12)[8:] == b"sfbk"
    except OSError:
        return False


def _block(seconds):
    return int(round(seconds * LABEL_RATE / BLOCK))


def _channel(index):
    """MIDI channel 10, which is number 9 here, is for drums: leave it out."""
    return index + (index >= 9)


def _library():
    """Load FluidSynth late; its float output is not among pyfluidsynth's names."""
    import ctypes

    try:
        import fluidsynth
    except ImportError as error:
        raise InputError(
            "FluidSynth's library is missing; install libfluidsynth3 (Debian, Ubuntu), "
            "fluid-synth (Homebrew) or fluidsynth (conda-forge)"
        ) from error
    library = ctypes.CDLL(fluidsynth.lib)
    for level in range(5):  # FluidSynth's chatter on the error stream, off
        library.fluid_set_log_function(level, None, None)
    return library

"""
Acoustics: rendering of notes to waveforms.

:func:`render` renders any score with any SoundFont, room, tuning and tempo.
"""

from dataclasses import dataclass, replace

import numpy as np
import pianos
import synth
from arrange import arrange
from perform import change_tempo, perform, remove_overlaps
from voices import Music, from_music21

from jtm.constants import LABEL_RATE, PITCH_MAX, PITCH_MIN
from jtm.music.audio import A4
from jtm.music.score import Score

OTHERS = (
    *(5, 6, 8, 11, 12, 13),  # electric pianos, clavinet, music box, vibra-, marimba
    *(21, 22, 23, 24),  # reed organ, accordions, harmonica
    *range(25, 32),  # guitars
    *(33, 34, 35, 36, 37, 38, 40),  # basses
    *(46, 47, 54, 57, 63, 64, 67),  # pizzicato, harp, voice, trumpet, brass, saxophone
    *(81, 82, 84, 85, 86),  # synthesisers
    *(105, 106, 107, 108, 109, 112),  # sitar, banjo, shamisen, koto, kalimba, shawm
)
"""
General MIDI programs of other instruments, counted from 1: those that sound at the
pitch played (within 35 cents) and within 60 ms, in all SoundFonts for training.
"""

OTHERS_SHARE = 0.25
"""Fraction of players whose instrument is replaced, in training the transcriber."""

MODAL_SHARE = 0.6
"""Fraction of pianos that are synthesised by :mod:`pianos`, without a SoundFont."""

MODAL = "modal synthesis"
"""What stands in the place of such a piano's SoundFont."""


@dataclass(frozen=True)
class Sound:
    """
    Tuning, room and level of a rendering.

    Parameters
    ----------
    peak_db : float
        Peak level of the file in dB below full scale.
    reverb_seconds : float
        Reverberation time (RT60); 0 for no room.
    wet_db : float
        Reverberant-to-direct energy ratio in dB.
    noise_db : float
        Level of white noise relative to the peak, in dB; -inf for none.
    tilt_db : float
        Spectral tilt: gain at 8 kHz relative to 125 Hz, in dB.
    tuning : float
        Frequency of A4 in Hz.
    spread_cents : float
        Standard deviation of the players' tunings in cents.
    """

    peak_db: float = -3.0
    reverb_seconds: float = 0.0
    wet_db: float = -10.0
    noise_db: float = -np.inf
    tilt_db: float = 0.0
    tuning: float = A4
    spread_cents: float = 0.0


def draw_sound(rng, wide=False):
    """
    Draw a room and a level.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random generator.
    wide : bool
        Whether to vary everything widely, as for unlabelled audio; otherwise half of
        the draws are dry at -3 dB, and the others vary in room and level.

    Returns
    -------
    Sound
        Room and level.
    """
    if not wide and rng.random() < 0.5:
        return Sound()
    sound = Sound(
        peak_db=round(rng.uniform(-15, -1), 2),
        reverb_seconds=round(rng.uniform(0.3, 1.2), 2),
        wet_db=round(rng.uniform(-18, -6), 2),
    )
    if wide:
        sound = replace(
            sound,
            reverb_seconds=round(rng.choice((0.0, rng.uniform(0.2, 2.5))), 2),
            noise_db=round(rng.uniform(-80, -35), 2),
            tilt_db=round(rng.normal(0, 6), 2),
        )
    return sound


def draw_tuning(rng, sound):
    """
    Draw a tuning.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random generator.
    sound : Sound
        Room and level, which are retained.

    Returns
    -------
    Sound
        The same, with A4 at 440 +- 15 Hz and players a few cents apart.
    """
    tuning = round(A4 + rng.uniform(-15, 15), 2)
    return replace(sound, tuning=tuning, spread_cents=4.0)


def render(score, soundfont, sound=None, tempo=1.0, programs=(1,), rng=None, tail=1.5):
    """
    Render a score to a waveform.

    Parameters
    ----------
    score : Score, Music or music21.stream.Score
        A performance, or a notated score, which is arranged for `programs` and
        performed first.
    soundfont : str or Path
        An SF2 or SF3 file.
    sound : Sound, optional
        Tuning, room and level; by default 440 Hz, dry, with its peak at -3 dB.
    tempo : float
        Tempo relative to the score's (:attr:`Music.tempo`, or the performance).
    programs : sequence of int
        General MIDI program of each player, counted from 1; for notated scores.
    rng : numpy.random.Generator, optional
        Random generator of arrangement, performance and room; seeded by 0 by default.
    tail : float
        Seconds of audio after the last offset.

    Returns
    -------
    wave : numpy.ndarray
        Waveform ``(samples,)`` in int16 at 44.1 kHz.
    notes : Score
        The rendered notes: onsets and offsets in seconds of `wave`, exact to the
        sample, and in beats of the notated score.

    Raises
    ------
    InputError
        If FluidSynth or the SoundFont is missing, or the SoundFont lacks a program.
    """
    sound = sound or Sound()
    rng = rng or np.random.default_rng(0)
    if not isinstance(score, Score):
        music = score if isinstance(score, Music) else from_music21(score)
        parts, _ = arrange(music, programs, rng)
        score = perform(parts, music, music.tempo * tempo, rng)
    elif tempo != 1:
        score = change_tempo(score, tempo)
    cents = {}
    if sound.tuning != A4 or sound.spread_cents:
        offset = 1200 * np.log2(sound.tuning / A4)
        for program in score.programs:
            cents[program] = offset + rng.normal(0, sound.spread_cents)
    wave = synth.render(score, soundfont, tail, cents)
    return apply_sound(wave, sound, rng), score


def replace_players(score, rng, share=OTHERS_SHARE):
    """
    Give the parts of some players to instruments that MusicNet lacks.

    Parameters
    ----------
    score : Score
        The performance.
    rng : numpy.random.Generator
        Random generator.
    share : float
        Expected fraction of players whose instrument is replaced.

    Returns
    -------
    Score
        The same notes, some of the players with a program of :data:`OTHERS`.
    """
    own = score.programs
    others = rng.choice(OTHERS, len(own), replace=False).tolist()
    chosen = rng.random(len(own)) < share
    programs = dict(zip(own, np.where(chosen, others, own).tolist(), strict=True))
    notes = (replace(note, program=programs[note.program]) for note in score.notes)
    return Score(tuple(notes))


def draw_soundfonts(score, soundfonts, rng):
    """
    Draw a SoundFont for each player, or :data:`MODAL` for a piano.

    Parameters
    ----------
    score : Score
        The performance.
    soundfonts : list of str
        SF2 or SF3 files.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    dict of int to str
        File of each player, or :data:`MODAL`, by program.
    """
    drawn = {program: str(rng.choice(soundfonts)) for program in score.programs}
    if 1 in drawn and rng.random() < MODAL_SHARE:
        drawn[1] = MODAL
    return drawn


def render_players(score, soundfonts, sound, rng, tail=1.5):
    """
    Render each player with a timbre of its own, unlike that of any SoundFont.

    A SoundFont has few instruments. Therefore another program of the family may replace
    an instrument, samples are taken from other keys, and filters, envelopes, vibrato,
    spectrum and level vary. Some recordings are interrupted, as if cut out of longer
    ones.

    Parameters
    ----------
    score : Score
        The performance.
    soundfonts : dict of int to str
        SF2 or SF3 file of each player, or :data:`MODAL`, by program.
    sound : Sound
        Tuning, room and level.
    rng : numpy.random.Generator
        Random generator.
    tail : float
        Seconds of audio after the last offset.

    Returns
    -------
    wave : numpy.ndarray
        Waveform ``(samples,)`` in int16 at 44.1 kHz.
    notes : Score
        The rendered notes.
    """
    mix = 0.0
    for program in score.programs:
        own = Score(tuple(note for note in score.notes if note.program == program))
        cents = rng.normal(1200 * np.log2(sound.tuning / A4), sound.spread_cents)
        own_tail = score.seconds - own.seconds + tail
        if soundfonts[program] == MODAL:
            wave = pianos.render(own, rng, own_tail, cents)
        else:
            wave = synth.render(
                own,
                soundfonts[program],
                own_tail,
                {program: cents},
                {program: _draw_timbre(own, rng)} if rng.random() < 0.8 else None,
            )
        gains = rng.normal(0, rng.uniform(0, 6), len(_OCTAVES))
        wave = _filter(wave, lambda octaves, g=gains: np.interp(octaves, _OCTAVES, g))
        mix = mix + wave * 10 ** (np.clip(rng.normal(0, 4), -9, 9) / 20)
    wave = apply_sound(mix, sound, rng)
    return _interrupt(wave, score, rng) if rng.random() < 0.3 else (wave, score)


SUBSTITUTES = {
    1: (2, 3, 4),
    41: (49, 111),
    42: (49,),
    43: (49,),
    61: (58, 59, 62),
    69: (70, 110),
    71: (70, 68),
    72: (65, 66),
    74: (73, 75, 76, 80),
}
"""General MIDI programs that may replace an instrument's own, counted from 1."""

_PLUCKED = (1, 7)
_OCTAVES = np.arange(-4, 4)


def _draw_timbre(score, rng):
    """Draw the timbre of a player, for the notes of this player."""
    (program,) = score.programs
    substitutes = SUBSTITUTES.get(program, ())
    sounding = program
    if substitutes and rng.random() < (0.2 if program == 1 else 0.3):
        sounding = int(rng.choice(substitutes))
    generators = {
        8: min(0.0, rng.uniform(-2800, 1400)),  # cut-off of the low-pass filter, cents
        9: rng.uniform(0, 60),  # its resonance, centibels
        38: rng.uniform(-1200, 1800),  # release, timecents
    }
    if program in _PLUCKED:
        generators[36] = rng.uniform(-1200, 1200)  # decay, timecents
    elif program not in OTHERS:
        generators[34] = rng.uniform(-1200, 3000 if program < 50 else 5500)  # attack
        generators[6] = max(0.0, rng.uniform(-30, 40))  # depth of vibrato, cents
        generators[24] = rng.uniform(-700, 100)  # its rate, cents above 8.2 Hz
        generators[23] = rng.uniform(0, 12000) if rng.random() < 0.7 else 0.0  # delay
    pitches = [note.pitch for note in score.notes]
    # Few SoundFonts have samples of keys that a piano lacks.
    limits = max(pitches) - PITCH_MAX, min(pitches) - PITCH_MIN
    shift = int(np.clip(rng.integers(-5, 6), *limits))
    return synth.Timbre(sounding, shift, generators)


def _interrupt(wave, score, rng):
    """Silence audio before an onset; notes active at its end begin there."""
    note = score.notes[rng.integers(len(score.notes))]
    end = float(synth.snap(max(0.0, note.start - rng.choice((0.0, 0.003, 0.02)))))
    start = float(synth.snap(max(0.0, end - rng.uniform(0.2, 1.5))))
    wave[round(start * LABEL_RATE) : round(end * LABEL_RATE)] = 0
    notes = []
    for note in score.notes:
        if note.start < start:
            notes.append(replace(note, end=min(note.end, start)))
        if note.start >= end or note.end > end + 0.02:
            notes.append(replace(note, start=max(note.start, end)))
    return wave, Score(tuple(remove_overlaps(notes)))


def apply_sound(wave, sound, rng):
    """
    Apply room, spectral tilt, noise and level to a rendering.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 44.1 kHz.
    sound : Sound
        Room, noise, spectral tilt and level.
    rng : numpy.random.Generator
        Random generator of the room impulse response and the noise.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in int16. The direct sound is not delayed, so labels
        stay exact.
    """
    from scipy.signal import oaconvolve

    if sound.reverb_seconds:
        # Polack's model of a diffuse room: noise that decays exponentially.
        times = np.arange(int(sound.reverb_seconds * LABEL_RATE)) / LABEL_RATE
        response = 10 ** (-3 * times / sound.reverb_seconds)
        response = rng.normal(size=times.size) * response
        response[: int(0.005 * LABEL_RATE)] = 0  # before the first reflection
        response = np.convolve(response, (0.3, 0.4, 0.3), "same")  # wall absorption
        response *= 10 ** (sound.wet_db / 20) / np.sqrt(np.sum(response**2))
        response[0] = 1
        wave = oaconvolve(wave, response.astype(np.float32))[: wave.size]
    if sound.tilt_db:
        wave = _filter(wave, lambda octaves: sound.tilt_db * octaves / 6)
    peak = np.abs(wave).max() or 1.0
    wave = wave / peak
    if np.isfinite(sound.noise_db):
        wave = wave + 10 ** (sound.noise_db / 20) * rng.normal(size=wave.size)
        wave = wave / np.abs(wave).max()
    return np.round(wave * (10 ** (sound.peak_db / 20) * 32767)).astype(np.int16)


def _filter(wave, decibels):
    """Filter with a gain in dB over octaves above 1 kHz, from 125 Hz to 8 kHz."""
    from scipy.signal import oaconvolve

    taps = 1023
    frequencies = np.fft.rfftfreq(4096, 1 / LABEL_RATE)
    octaves = np.log2(np.clip(frequencies, 125, 8000) / 1000)
    kernel = np.fft.irfft(10 ** (decibels(octaves) / 20))
    kernel = np.roll(kernel, taps // 2)[:taps] * np.hanning(taps)
    return oaconvolve(wave, kernel.astype(np.float32), "same")


def finish_note(wave, velocity):
    """
    Set the level of a single note and fade out its end.

    Parameters
    ----------
    wave : numpy.ndarray
        Waveform ``(samples,)`` at 44.1 kHz.
    velocity : int
        MIDI velocity; the peak level is -1 dB + 40 log10(velocity / 127) relative to
        full scale, General MIDI's recommended law.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in int16; the last 20 ms fade out.
    """
    wave = wave.copy()
    fade = int(0.02 * LABEL_RATE)
    wave[-fade:] *= np.linspace(1, 0, fade)
    peak = 10 ** (-1 / 20) * (velocity / 127) ** 2
    return np.round(wave * (peak * 32767 / np.abs(wave).max())).astype(np.int16)

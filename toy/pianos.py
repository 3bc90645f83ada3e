"""
Modal synthesis of pianos that do not exist.

SoundFonts have few pianos. Each call of :func:`render` draws another one: its strings'
inharmonicity and tuning (Rigaud, David and Daudet 2013), the hammers and their striking
position, the two decays of coupled strings (Weinreich 1977), the resonances of the
soundboard, the dampers, and the strings that vibrate in sympathy.
"""

import numpy as np
from synth import snap

from jtm.constants import LABEL_RATE, N_PITCHES, PITCH_MAX, PITCH_MIN
from jtm.music.audio import A4

HIGHEST = 8000.0
"""Highest frequency of a partial in Hz: what remains at the models' sample rate."""

N_PARTIALS = 60
"""Maximum number of partials per string."""

LAST_DAMPED = 88
"""Highest pitch with a damper; the strings above ring freely."""

_BLOCK = 256
_PITCHES = np.arange(PITCH_MIN, PITCH_MAX + 1)
_A4 = 69 - PITCH_MIN
_GRID = np.arange(np.log2(20), np.log2(HIGHEST) + 1, 1 / 6)  # octaves above 1 Hz


class Piano:
    """
    A piano, drawn at random.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random generator.
    cents : float
        Tuning in cents relative to A4 at 440 Hz.

    Attributes
    ----------
    inharmonicity : numpy.ndarray
        Coefficient B of the strings of each pitch ``(88,)``, from A0 on: partial n of
        a string of frequency f is at ``n * f * sqrt(1 + B * n**2)``.
    hertz : numpy.ndarray
        Frequency f of each pitch ``(88,)`` in Hz; octaves are stretched.
    """

    def __init__(self, rng, cents=0.0):
        self.rng = rng
        # Two asymptotes, for bass and treble: Rigaud et al. (2013).
        slopes = np.array((-0.0847, 0.0926)) + rng.normal(0, 0.005, 2)
        logs = np.array((-9.2, -6.2)) + rng.normal(0, 0.4, 2)  # at pitches 40 and 80
        logs = logs + slopes * (_PITCHES[:, None] - (40, 80))
        self.inharmonicity = np.exp(logs).sum(1)
        # Partial 2 r of a string coincides with partial r of that an octave above.
        ratio = 1 + rng.uniform(1, 5) * (1 - np.tanh((_PITCHES - 64) / 24)) / 2
        squares = ratio**2 * self.inharmonicity
        above = np.exp(np.interp(_PITCHES + 12, _PITCHES, np.log(squares)))
        stretch = np.cumsum(50 * np.log2((1 + 4 * squares) / (1 + above)))  # in cents
        stretch -= stretch[_A4]
        stretch *= min(1, 30 / np.abs(stretch).max())
        cents = cents + 100 * (np.arange(N_PITCHES) - _A4) + stretch
        self.hertz = A4 * 2 ** ((cents + rng.normal(0, 1.5, N_PITCHES)) / 1200)
        self.strike = rng.uniform(1 / 12, 1 / 7)  # position along the string
        self.hardness = rng.uniform(0.2, 1.2)
        self.contact = rng.uniform(0.5, 4)  # of the hammer with the string at C4, ms
        self.slope = rng.uniform(0.3, 1.2)  # exponent of the spectrum's decay
        self.soundboard = rng.normal(0, rng.uniform(1, 5), _GRID.size)  # in dB
        self.soundboard -= rng.uniform(0, 12) * np.maximum(0, np.log2(110) - _GRID)
        self.decay = rng.uniform(0.4, 1.5), rng.uniform(1000, 5000)  # scale, in Hz
        self.double = rng.uniform(3, 9), rng.uniform(-20, -6)  # ratio of rates, in dB
        self.detuning = rng.uniform(0.1, 1.2)  # of a pitch's strings, in cents
        self.damping = rng.uniform(0.05, 0.25)  # time to -20 dB at C4, in seconds
        self.knock = rng.uniform(-60, -30)  # of the hammer, in dB

    def strike_string(self, pitch, velocity, seconds, ringing):
        """
        Synthesise a note.

        Parameters
        ----------
        pitch : int
            MIDI pitch, 21 to 108.
        velocity : int
            MIDI velocity, 1 to 127: level and brightness.
        seconds : float
            Time until the key is released.
        ringing : float
            Length of the waveform in seconds at most.

        Returns
        -------
        numpy.ndarray
            Waveform ``(samples,)`` in float32 at 44.1 kHz.
        """
        rng, fundamental = self.rng, self.hertz[pitch - PITCH_MIN]
        lower = 2 ** ((60 - pitch) / 36)  # the bass is slower
        numbers = np.arange(1, N_PARTIALS + 1)
        inharmonicity = self.inharmonicity[pitch - PITCH_MIN]
        hertz = numbers * fundamental * np.sqrt(1 + inharmonicity * numbers**2)
        numbers, hertz = numbers[hertz < HIGHEST], hertz[hertz < HIGHEST]
        cutoff = self.hardness * (fundamental + 400 + 2600 * (velocity / 127) ** 1.5)
        levels = np.abs(np.sin(np.pi * numbers * self.strike))
        levels *= numbers**-self.slope / (1 + (hertz / cutoff) ** 2)
        gains = np.interp(np.log2(hertz), _GRID, self.soundboard)
        gains += rng.normal(0, 1.5, hertz.size)
        levels = levels / levels.max() * 10 ** (gains / 20) * (velocity / 127) ** 1.5
        scale, corner = self.decay
        # Time in which the fundamental decays by 60 dB, or 6.9 nepers.
        lasting = scale * 15 * 2 ** ((PITCH_MIN - pitch) / 20)
        rates = 6.9 / lasting * (1 + (hertz / corner) ** 1.5)
        ratio, after = self.double
        rates = np.concatenate((rates, rates / ratio)) * rng.lognormal(0, 0.2)
        levels = np.concatenate((levels, levels * 10 ** (after / 20)))
        cents = np.repeat(rng.normal(0, self.detuning, 2), hertz.size)
        hertz = np.tile(hertz, 2) * 2 ** (cents / 1200)
        levels = levels * np.exp(1j * rng.uniform(-1, 1, hertz.size))
        wave = _sum_modes(levels, hertz, rates, ringing)
        contact = round(self.contact * lower * LABEL_RATE / 1000)
        wave[:contact] *= np.linspace(0, 1, contact)
        if pitch <= LAST_DAMPED:
            times = np.arange(wave.size) / LABEL_RATE - seconds
            wave *= 0.1 ** (np.maximum(0, times) / (self.damping * lower))
        n_knock = min(wave.size, LABEL_RATE // 20)
        knock = rng.normal(0, 1, n_knock) * np.exp(-np.arange(n_knock) / 300)
        knock = np.convolve(knock, np.hanning(40) / 10, "same")
        wave[:n_knock] += 10 ** (self.knock / 20) * velocity / 127 * knock
        return wave

    def resonance(self):
        """
        Return the response of the strings that vibrate in sympathy.

        Returns
        -------
        numpy.ndarray
            Impulse response ``(samples,)`` at 44.1 kHz, of unit energy.
        """
        hertz = np.concatenate([self.hertz * n for n in (1, 2, 3, 4)])
        hertz = hertz[hertz < HIGHEST]
        real, imaginary = self.rng.normal(size=(2, hertz.size))
        levels = real + 1j * imaginary
        rates = 6.9 / self.rng.uniform(0.5, 4, hertz.size)
        response = _sum_modes(levels / np.sqrt(hertz), hertz, rates, 2.0)
        return response / np.sqrt(np.sum(response**2))


def render(score, rng, tail=1.5, cents=0.0):
    """
    Render the notes of a piano by a piano drawn at random.

    Parameters
    ----------
    score : Score
        The notes.
    rng : numpy.random.Generator
        Random generator.
    tail : float
        Seconds of audio after the last offset.
    cents : float
        Tuning in cents relative to A4 at 440 Hz.

    Returns
    -------
    numpy.ndarray
        Waveform ``(samples,)`` in float32 at 44.1 kHz, neither scaled nor clipped, as
        long as that of :func:`synth.render`.
    """
    from scipy.signal import oaconvolve

    piano = Piano(rng, cents)
    wave = np.zeros(round(snap(score.seconds + tail) * LABEL_RATE), np.float32)
    for note in score.notes:
        first, seconds = round(note.start * LABEL_RATE), note.end - note.start
        ringing = seconds + 1.0 if note.pitch <= LAST_DAMPED else 3.0
        own = piano.strike_string(note.pitch, note.velocity, seconds, ringing)
        own = own[: wave.size - first]
        wave[first : first + own.size] += own
    sympathy = 10 ** (rng.uniform(-50, -20) / 20)
    return wave + sympathy * oaconvolve(wave, piano.resonance())[: wave.size]


def _sum_modes(levels, hertz, rates, seconds):
    """Sum decaying sinusoids of complex levels, ``(modes,)``; rates are per second."""
    exponents = (2j * np.pi * hertz - rates) / LABEL_RATE
    n_samples = round(seconds * LABEL_RATE)
    starts = np.arange(0, n_samples, _BLOCK)
    outer = levels * np.exp(np.outer(starts, exponents))  # (blocks, modes)
    inner = np.exp(np.outer(exponents, np.arange(_BLOCK)))  # (modes, samples)
    outer, inner = outer.astype(np.complex64), inner.astype(np.complex64)
    blocks = outer.real @ inner.real - outer.imag @ inner.imag
    return blocks.reshape(-1)[:n_samples]

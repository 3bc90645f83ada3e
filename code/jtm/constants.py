"""
Constants of audio and music, with units; adjustable settings live in configs.

MusicNet's conventions (Thickstun et al. 2017) hold throughout the project:
label times are in samples at 44 100 Hz, pitches are MIDI note numbers and
instruments are General MIDI programs counted from 1.
"""

LABEL_RATE = 44_100
"""Sample rate of label times in Hz, whatever the sample rate of the audio."""

SAMPLE_RATE = 16_000
"""Sample rate of the models' input in Hz."""

HOP = 160
"""Hop of the frame grid in samples at SAMPLE_RATE; encoders derive it from strides."""

FRAME_RATE = SAMPLE_RATE / HOP
"""Frames per second: 100."""

MAP_STRIDE = 2
"""Number of 10 ms frames per frame of a pitch map."""

PITCH_MIN = 21
"""MIDI number of the lowest pitch of the piano, A0 (27.5 Hz)."""

PITCH_MAX = 108
"""MIDI number of the highest pitch of the piano, C8 (4186 Hz)."""

N_PITCHES = PITCH_MAX - PITCH_MIN + 1
"""Number of pitches on the piano: 88."""

INSTRUMENTS = {
    1: "piano",
    7: "harpsichord",
    41: "violin",
    42: "viola",
    43: "cello",
    44: "contrabass",
    61: "horn",
    69: "oboe",
    71: "bassoon",
    72: "clarinet",
    74: "flute",
}
"""MusicNet's eleven instruments by General MIDI program, counted from 1."""

PITCH_RANGES = {
    1: (21, 108),
    7: (29, 89),
    41: (55, 100),
    42: (48, 88),
    43: (36, 81),
    44: (28, 67),
    61: (41, 77),
    69: (58, 91),
    71: (34, 72),
    72: (50, 91),
    74: (60, 96),
}
"""Lowest and highest playable MIDI pitch of each instrument, at sounding pitch."""

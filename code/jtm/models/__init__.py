"""Networks: torch modules only, without file access or training loops."""

from typing import NamedTuple

from jtm.constants import MAP_STRIDE


class _Encoder(NamedTuple):
    """Properties of an encoder that are available without importing torch."""

    path: str  # module and class in this package; its arguments are channels and norm
    channels: int  # by default; per pitch if there is a pitch axis
    tiny: int  # channels in the preset `tiny`
    pitch_axis: bool  # whether the latents have features for each of the 88 pitches
    stride: int = 1  # number of 10 ms frames per latent


AUGMENTATIONS = ("noise", "reverb", "equaliser", "level")
"""Augmentations accepted by ``--augmentPast``."""

ENCODERS = {
    "conv": _Encoder("encoder.ConvEncoder", 256, 32, False),
    "sinc": _Encoder("encoder.SincEncoder", 256, 32, False),
    "harmonic": _Encoder("encoder.HarmonicEncoder", 8, 2, True),
    "pitchmap": _Encoder("pitchmap.PitchMapEncoder", 32, 4, True, MAP_STRIDE),
}
"""Encoders by their name for ``--encoderType``."""

"""Networks: torch modules only, without file access or training loops."""

from typing import NamedTuple

from jtm.constants import MAP_STRIDE


class Encoder(NamedTuple):
    """
    Properties of an encoder that are available without importing torch.

    Parameters
    ----------
    path : str
        Module and class in this package; its arguments are channels and norm.
    channels, tiny : int
        Number of channels (per pitch on a pitch axis) by default and in `tiny`.
    pitch_axis : bool
        Whether the latents have features for each of the 88 pitches.
    stride : int
        Number of 10 ms frames per latent.
    """

    path: str
    channels: int
    tiny: int
    pitch_axis: bool
    stride: int = 1


AUGMENTATIONS = ("noise", "reverb", "equaliser", "level")
"""Augmentations accepted by ``--augmentPast``."""

ENCODERS = {
    "conv": Encoder("encoder.ConvEncoder", 256, 32, False),
    "sinc": Encoder("encoder.SincEncoder", 256, 32, False),
    "harmonic": Encoder("encoder.HarmonicEncoder", 8, 2, True),
    "pitchmap": Encoder("pitchmap.PitchMapEncoder", 32, 4, True, MAP_STRIDE),
}
"""Encoders by their name for ``--encoderType``."""

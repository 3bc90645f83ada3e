"""Networks: torch modules only, without file access or training loops."""

from typing import NamedTuple


class Encoder(NamedTuple):
    """
    Facts about an encoder that are available without importing torch.

    Parameters
    ----------
    where : str
        Module and class in this package; the class takes number of channels and norm.
    channels, tiny : int
        Channels by default and in the preset `tiny`; per pitch on a pitch axis.
    pitch_axis : bool
        Whether the latents have features for each of the 88 pitches.
    """

    where: str
    channels: int
    tiny: int
    pitch_axis: bool


AUGMENTATIONS = ("noise", "reverb", "equaliser", "level")
"""Augmentations accepted by ``--augmentPast``."""

ENCODERS = {
    "conv": Encoder("encoder.ConvEncoder", 256, 32, False),
    "sinc": Encoder("encoder.SincEncoder", 256, 32, False),
    "harmonic": Encoder("encoder.HarmonicEncoder", 8, 2, True),
    "pitchmap": Encoder("pitchmap.PitchMapEncoder", 32, 4, True),
}
"""Encoders by the name that ``--encoderType`` takes."""

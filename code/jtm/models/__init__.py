"""Networks and losses: torch modules only, no files, no loops."""

from typing import NamedTuple


class Encoder(NamedTuple):
    """
    What the rest of the package must know of an encoder, without importing torch.

    Parameters
    ----------
    where : str
        Module here and class, which takes the number of channels and the norm.
    channels, tiny : int
        Channels by default and in the preset `tiny`; of each pitch on a pitch axis.
    pitch_axis : bool
        Whether the latents have a part for each of the 88 pitches.
    """

    where: str
    channels: int
    tiny: int
    pitch_axis: bool


AUGMENTATIONS = ("noise", "reverb", "equaliser", "level")
"""What ``--augmentPast`` may list."""

ENCODERS = {
    "conv": Encoder("encoder.ConvEncoder", 256, 32, False),
    "sinc": Encoder("encoder.SincEncoder", 256, 32, False),
    "harmonic": Encoder("encoder.HarmonicEncoder", 8, 2, True),
    "pitchmap": Encoder("pitchmap.PitchMapEncoder", 32, 4, True),
}
"""The encoders, as ``--encoderType`` names them."""

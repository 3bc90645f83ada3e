"""
The unit tests.

FluidSynth decodes SoundFonts by the libsndfile loaded first, and versions of it differ
in the last bit. It is that of soundfile wherever the toy set is rendered, but the
system's if a test imports pretty_midi first.
"""

import soundfile  # noqa: F401

"""Rendering: onsets, pitch, duration and velocity, independent of earlier calls."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "toy"))

from synth import (
    BLOCK,
    default_soundfont,
    find_soundfont,
    render,
    snap,
    version,
)

from jtm.constants import LABEL_RATE
from jtm.files import InputError
from jtm.music.score import Note, Score

FONT = default_soundfont()


def piano(start, end, pitch=69):
    return Note(float(snap(start)), float(snap(end)), 1, pitch, 100)


class TestRender(unittest.TestCase):
    def test_audio_begins_at_the_onset_with_constant_delay(self):
        delays = set()
        for start in (0.0, 0.25, 1.0):
            wave = render(Score((piano(start, start + 0.5),)), FONT)
            onset = round(float(snap(start)) * LABEL_RATE)
            delays.add(int(np.flatnonzero(wave)[0]) - onset)
        # The recorded hammer adds a constant delay of some milliseconds.
        self.assertEqual(len(delays), 1, delays)
        self.assertIn(delays.pop(), range(0, LABEL_RATE // 100))

    def test_pitch_of_several_programs(self):
        for program, pitch in ((1, 69), (74, 81), (43, 45)):
            wave = render(Score((Note(0, 1, program, pitch, 100),)), FONT, tail=0)
            spectrum = np.abs(np.fft.rfft(wave * np.hanning(wave.size)))
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            for harmonic in (1, 2):
                peak = round(harmonic * hertz * wave.size / LABEL_RATE)
                near = spectrum[peak - 4 : peak + 5].max()
                between = spectrum[round(peak - 0.5 * hertz * wave.size / LABEL_RATE)]
                self.assertGreater(near, 10 * between, (program, harmonic))

    def test_samples_do_not_depend_on_earlier_renderings(self):
        score = Score((piano(0, 1), piano(0.3, 0.8, 76)))
        first = render(score, FONT)
        render(Score((Note(0, 2, 49, 50, 127), Note(0.1, 3, 41, 60, 90))), FONT)
        np.testing.assert_array_equal(render(score, FONT), first)

    def test_length_is_the_last_offset_plus_the_tail(self):
        wave = render(Score((piano(0, 0.5),)), FONT, tail=0.25)
        self.assertLess(abs(wave.size - 0.75 * LABEL_RATE), BLOCK)
        self.assertEqual(render(Score(()), FONT, tail=0.0).size, 0)

    def test_release_ends_the_note(self):
        short = render(Score((Note(0, 0.2, 74, 72, 100),)), FONT, tail=1)
        held = render(Score((Note(0, 1.0, 74, 72, 100),)), FONT, tail=0.2)
        late = slice(int(0.7 * LABEL_RATE), int(0.9 * LABEL_RATE))
        self.assertLess(np.abs(short[late]).max(), 0.05 * np.abs(held[late]).max())

    def test_velocity_increases_level_and_many_programs_render(self):
        soft, loud = (
            np.abs(render(Score((Note(0, 0.5, 1, 60, v),)), FONT)).max()
            for v in (40, 110)
        )
        self.assertGreater(loud, 2 * soft)
        many = Score(tuple(Note(0, 0.2, p, 60, 80) for p in range(1, 12)))
        self.assertGreater(np.abs(render(many, FONT)).max(), 0)

    def test_invalid_soundfont_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "no.sf2"
            path.write_bytes(b"RIFF")
            with self.assertRaisesRegex(InputError, "no.sf2.*not a SoundFont"):
                render(Score((piano(0, 1),)), path)

    def test_missing_fluidsynth_names_what_to_install(self):
        with (
            mock.patch.dict(sys.modules, fluidsynth=None),
            self.assertRaisesRegex(InputError, "libfluidsynth3"),
        ):
            render(Score((piano(0, 1),)), FONT)


class TestHelpers(unittest.TestCase):
    def test_snap_rounds_to_the_grid(self):
        self.assertEqual(float(snap(0)), 0)
        grid = np.arange(5) * BLOCK / LABEL_RATE
        np.testing.assert_allclose(snap(grid + 0.0005), grid)

    def test_version_of_fluidsynth(self):
        self.assertRegex(version(), r"^\d+\.\d+\.\d+")

    def test_unknown_soundfont_is_not_found(self):
        self.assertIsNone(find_soundfont(("no such font.sf2",)))


if __name__ == "__main__":
    unittest.main()

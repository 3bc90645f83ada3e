"""The melody: the line with the maximum score by the stated rule."""

import json
import re
import unittest
from pathlib import Path

import numpy as np

from jtm.transcriber import pages
from jtm.transcriber.melody import melody, spell
from jtm.transcriber.notes import NOTE_DTYPE


def notes(*rows):
    """Make notes of ``(start, end, pitch)``, optionally with program and velocity."""
    complete = [(*row, 1, 64)[:5] if len(row) < 4 else row for row in rows]
    return np.sort(np.array(complete, NOTE_DTYPE), order=("start", "pitch"))


def chorale(n=12):
    """Make notes of four voices in homophony, the highest rising and falling."""
    rows = []
    for i in range(n):
        top = 72 + (0, 2, 4, 5, 4, 2)[i % 6]
        for interval in (0, 9, 16, 24):
            rows.append((0.5 * i + 0.001 * interval, 0.5 * i + 0.45, top - interval))
    return notes(*rows)


class TestMelody(unittest.TestCase):
    def test_melody_of_a_chorale_is_the_highest_voice(self):
        piece = chorale()
        chosen, line = melody(piece)
        self.assertEqual(chosen.sum(), 12)
        expected = [72 + (0, 2, 4, 5, 4, 2)[i % 6] for i in range(12)]
        self.assertEqual(line["pitch"].tolist(), expected)
        np.testing.assert_array_equal(piece[chosen]["pitch"], line["pitch"])

    def test_rest_of_the_highest_voice_stays_a_rest(self):
        piece = chorale()
        rests = (piece["pitch"] >= 72) & (piece["start"] >= 2) & (piece["start"] < 3)
        _, line = melody(piece[~rests])
        self.assertEqual(len(line), 10)
        self.assertTrue((line["pitch"] >= 72).all())

    def test_single_soft_high_note_is_skipped(self):
        piece = np.append(chorale(), notes((2.1, 2.2, 100, 1, 20)))
        piece = np.sort(piece, order=("start", "pitch"))
        self.assertNotIn(100, melody(piece)[1]["pitch"])

    def test_melody_is_monophonic(self):
        piece = notes((0.0, 1.0, 72), (0.5, 1.5, 74), (1.2, 2.0, 76))
        _, line = melody(piece)
        np.testing.assert_allclose(line["end"], [0.5, 1.2, 2.0])

    def test_leap_after_a_long_rest_costs_nothing(self):
        piece = notes((0.0, 1.0, 76), (30.0, 31.0, 48), (31.0, 32.0, 50))
        self.assertEqual(len(melody(piece)[1]), 3)

    def test_long_tones_with_short_rests_are_all_in_the_melody(self):
        rows = [(12.0 * i, 12.0 * i + 11.0, 60 + i) for i in range(4)]
        self.assertTrue(melody(notes(*rows))[0].all())

    def test_melody_equals_exhaustive_search(self):
        rng = np.random.default_rng(0)
        for _ in range(20):
            start = np.sort(rng.uniform(0, 3, 9))
            rows = zip(start, start + rng.uniform(0.1, 2, 9), strict=True)
            piece = notes(
                *(
                    (*row, int(pitch), int(program), int(velocity))
                    for row, pitch, program, velocity in zip(
                        rows,
                        rng.integers(48, 84, 9),
                        rng.choice((1, 41), 9),
                        rng.integers(30, 110, 9),
                        strict=True,
                    )
                )
            )
            every = [[bool(n >> i & 1) for i in range(9)] for n in range(1, 512)]
            best = max(every, key=lambda which: score(piece, np.array(which)))
            chosen, _ = melody(piece)
            self.assertAlmostEqual(score(piece, chosen), score(piece, np.array(best)))

    def test_melody_of_no_notes_is_empty(self):
        for piece in (notes(), np.zeros(0, NOTE_DTYPE)):
            chosen, line = melody(piece)
            self.assertEqual((len(chosen), len(line)), (0, 0))
            self.assertEqual(spell(line), "")

    def test_hand_computed_spelling(self):
        piece = notes((0.5, 0.9, 60), (1.0, 1.4, 61), (62.0, 63.0, 69))
        self.assertEqual(spell(piece), "0:00.50  C4 C#4\n1:02.00  A4")

    def test_spelling_equals_that_of_the_page(self):
        script = (Path(pages.__file__).parent / "templates" / "page.js").read_text()
        names = json.loads(re.search(r"const NAMES = (.*);", script)[1])
        names = [n.replace("\u266f", "#").replace("\u266d", "b") for n in names]
        octave = notes(*((i, i + 1, 60 + i) for i in range(12)))
        self.assertEqual(spell(octave), "0:00.00  " + "4 ".join(names) + "4")


def score(piece, mask):
    """Compute the score of a line by the documented rule."""
    from jtm.transcriber import melody as rule

    worth, line = rule._rates(piece)[mask], piece[mask]
    if not len(line):
        return 0.0
    stop = np.append(np.minimum(line["end"][:-1], line["start"][1:]), line["end"][-1])
    total = float((worth * (stop - line["start"])).sum())
    for a, b in zip(line[:-1], line[1:], strict=True):
        if b["start"] - a["end"] < rule.REST:
            total -= rule.LEAP * abs(int(a["pitch"]) - int(b["pitch"])) / 12
    return total


if __name__ == "__main__":
    unittest.main()

import tempfile
import unittest
from pathlib import Path

import numpy as np
import pandas as pd

from jtm.files import InputError
from jtm.results import figures
from jtm.results.records import METHODS, Contrast
from jtm.tests.results import synthetic

RECORD = {"task": "multipitch", "method": "CPC, frozen", "split": "test"} | {
    "metric": "average_precision",
    "primary": True,
    "value": 0.5,
    "low": 0.4,
    "high": 0.6,
}


class TestMethodDots(unittest.TestCase):
    def test_primary_scores_and_intervals_are_shown(self):
        records = [
            RECORD,
            RECORD | {"method": "from scratch", "value": 0.7, "low": None},
            RECORD | {"task": "ensemble", "metric": "accuracy", "value": 0.3},
            RECORD | {"metric": "minor", "primary": False, "value": 0.99},
            RECORD | {"split": "test_timbre", "value": 0.2},
        ]
        records = pd.DataFrame(records)
        pitch, ensemble, unseen = figures.method_dots(records).axes
        spans = [line.get_xdata() for line in pitch.lines]
        self.assertEqual([list(s) for s in spans], [[40.0, 60.0], [50.0], [70.0]])
        rows = [line.get_ydata()[0] for line in pitch.lines]
        self.assertEqual(rows, [0, 0, 1])
        names = [label.get_text() for label in pitch.get_yticklabels()]
        self.assertEqual(names, ["CPC, frozen", "from scratch"])
        self.assertEqual(pitch.get_title(), "multipitch, seen SoundFont")
        self.assertEqual(unseen.get_title(), "multipitch, unseen SoundFont")
        self.assertEqual(pitch.get_xlabel(), "average precision (%)")
        self.assertEqual(ensemble.lines[1].get_xdata()[0], 30.0)

    def test_rc_settings_of_the_caller_are_ignored(self):
        import matplotlib as mpl

        with mpl.rc_context({"font.size": 30, "axes.labelsize": 30}):
            axis = figures.method_dots(pd.DataFrame([RECORD])).axes[0]
            self.assertEqual(mpl.rcParams["font.size"], 30)
        self.assertEqual(axis.title.get_fontsize(), 8)
        self.assertEqual(axis.xaxis.label.get_fontsize(), 8)


class TestNotes(unittest.TestCase):
    def draw(self, notes):
        kinds = [("start", float), ("end", float), ("pitch", int), ("program", int)]
        spectrum = np.random.default_rng(0).random((100, 194))
        figure = figures.notes_over_sound(spectrum, np.array(notes, kinds), "A piece")
        return figure.axes[0], figure

    def test_notes_are_drawn_by_instrument(self):
        axis, figure = self.draw(
            [(0.0, 0.5, 60, 41), (0.5, 3.0, 62, 41), (0.2, 0.4, 48, 1)]
            + [(2.0, 2.5, 72, 1)]  # after the end of the excerpt
        )
        drawn = {
            lines.get_label(): [line.tolist() for line in lines.get_segments()]
            for lines in axis.collections
        }
        self.assertEqual(drawn["piano"], [[[0.2, 48], [0.4, 48]]])
        violin = [[[0.0, 60], [0.5, 60]], [[0.5, 62], [1.0, 62]]]
        self.assertEqual(drawn["violin"], violin)
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        self.assertEqual(legend, ["piano", "violin"])
        # Two rows per semitone: the first is centred a quarter tone below A0.
        self.assertEqual(axis.images[0].get_extent(), [0, 1.0, 20.5, 117.5])

    def test_no_notes_give_no_legend(self):
        axis, figure = self.draw([])
        self.assertEqual((len(axis.collections), len(figure.legends)), (0, 0))


class TestPiece(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_every_layer_is_shown_over_time(self):
        rng = np.random.default_rng(0)
        roll = np.zeros((200, 88), bool)
        roll[50:, 39] = True  # middle C
        layers = {"z": rng.normal(size=(200, 12)), "c": np.ones((200, 4))}
        figure = figures.piece(rng.normal(size=(200, 40)), roll, layers, "A piece")
        sound, notes, z, c = figure.axes
        self.assertEqual(sound.get_title(loc="left"), "A piece")
        self.assertEqual(c.get_xlabel(), "time (s)")
        for axis in figure.axes:
            self.assertEqual(axis.images[0].get_extent()[:2], [0, 2.0])
        # Middle C lies in the row that is centred on its MIDI number.
        image = notes.images[0]
        self.assertEqual(image.get_extent()[2:], [20.5, 108.5])
        np.testing.assert_array_equal(image.get_array()[39], 1.0 - roll[:, 39])
        self.assertIn("C4", [label.get_text() for label in notes.get_yticklabels()])

    def test_hand_computed_principal_components(self):
        # Points on a line, and a direction that explains less.
        along = np.array([-2.0, 0.0, 2.0, 0.0])
        across = np.array([0.0, 1.0, 0.0, -1.0])
        features = np.stack((5 + along, 7 + across, np.zeros(4)), axis=1)
        found = figures._principal_components(features)
        scale = np.sqrt(2)
        np.testing.assert_allclose(np.abs(found[:, 0]), np.abs(along) / scale)
        np.testing.assert_allclose(np.abs(found[:, 1]), np.abs(across) * scale)
        np.testing.assert_array_equal(found[:, 2], 0)
        still = figures._principal_components(np.ones((5, 3)))
        np.testing.assert_array_equal(still, 0)

    def test_equal_figures_give_equal_files(self):
        for ending in ("pdf", "svg", "png"):
            for name in ("a", "b"):
                figure = figures.method_dots(pd.DataFrame([RECORD]))
                figures.save(figure, self.folder / f"{name}.{ending}")
            written = [(self.folder / f"{n}.{ending}").read_bytes() for n in "ab"]
            self.assertEqual(*written)
        with self.assertRaisesRegex(InputError, "a.tune"):
            figures.save(figure, self.folder / "a.tune")
        self.assertEqual(len(list(self.folder.iterdir())), 6)


class TestBenchmarkFigures(unittest.TestCase):
    def setUp(self):
        self.bench = synthetic.bench(
            ("transcription", "ensemble"), lambda cell: cell[1] == "cpc-selftrained"
        )

    def test_scores_are_shown_over_labelled_recordings(self):
        figure = figures.benchmark_figures(self.bench)["labels"]()
        seen, unseen, legend = figure.axes  # of the task that contrasts name
        amounts = (1, 3, 10, 30, 294)
        for axis, split in ((seen, "test"), (unseen, "test_timbre")):
            blue = next(e for e in axis.lines if e.get_color() == figures.BLUE)
            found = [
                self.bench.score("transcription", "cpc-finetuned", each, split)
                for each in amounts
            ]
            shown = [(a, 100 * e.value) for a, e in zip(amounts, found, strict=True)]
            np.testing.assert_allclose(blue.get_xydata(), shown)
        self.assertEqual(unseen.get_title(), "transcription, unseen SoundFont")
        self.assertEqual(seen.get_ylabel(), "note F1 (%)")
        self.assertEqual(unseen.get_xlabel(), "labelled recordings")
        texts = [t.get_text() for t in legend.get_legend().get_texts()]
        self.assertIn("untrained, frozen", texts)
        self.assertNotIn("CPC, self-trained", texts)  # has not run

    def test_gains_are_shown_with_intervals(self):
        figure = figures.benchmark_figures(self.bench)["gains"]()
        axis = figure.axes[0]
        marks = [line for line in axis.lines if len(line.get_xdata()) == 1]
        self.assertEqual(len(marks), 2 * 2 * 5)  # pairs that have run, splits, amounts
        contrast = Contrast("transcription", "cpc-finetuned", "scratch", 1, "test")
        gain = self.bench.difference(contrast)
        self.assertAlmostEqual(marks[0].get_ydata()[0], 100 * gain.value)
        interval = axis.lines[0].get_ydata()
        np.testing.assert_allclose(interval, [100 * gain.low, 100 * gain.high])
        hollow = [mark.get_markerfacecolor() == "white" for mark in marks]
        self.assertEqual(sum(hollow), 10)

    def test_scores_are_shown_by_kind_of_sound(self):
        figure = figures.benchmark_figures(self.bench)["sounds"]()
        axis = figure.axes[0]
        self.assertEqual(axis.get_title(), "transcription, 10 labelled")
        marks = [line for line in axis.lines if len(line.get_xdata()) == 1]
        self.assertEqual(len(marks), 3 * 7)
        score = self.bench.score("transcription", "scratch", 10, "real")
        self.assertAlmostEqual(marks[2].get_xdata()[0], 100 * score.value)

    def test_methods_are_distinguishable_without_colour(self):
        self.assertEqual(figures.STROKES.keys(), METHODS.keys() - {"largest"})
        for index in (0, 1, 2):  # colour, mark, dashes
            seen = {stroke[index] for stroke in figures.STROKES.values()}
            self.assertEqual(len(seen), len(figures.STROKES))

    def test_figures_without_results_are_omitted(self):
        self.assertEqual(figures.benchmark_figures(synthetic.bench(())), {})
        alone = synthetic.bench(("ensemble",), lambda cell: cell[1] != "scratch")
        self.assertEqual(figures.benchmark_figures(alone).keys(), {"labels", "sounds"})


if __name__ == "__main__":
    unittest.main()

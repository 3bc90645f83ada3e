import csv
import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np

from jtm.files import InputError
from jtm.results import figures
from jtm.tests.results.test_records import RECORD


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class Curve(WithFolder):
    def write(self, columns=("loss_1", "accuracy_1", "loss_2", "accuracy_2")):
        settings = {"n_predicts": 2, "step_frames": 10, "negative_sampling_ext": 7}
        (self.folder / "config.json").write_text(json.dumps(settings))
        with open(self.folder / "metrics.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("epoch", "split", *columns))
            writer.writerow((0, "train", 9.0, 0.9, 9.0, 0.9))
            writer.writerow((0, "validation", 2.0, 0.1, 2.5, 0.05))
            writer.writerow((1, "validation", 1.0, 0.5, 1.5, 0.25))

    def test_it_shows_the_validation_of_each_step(self):
        self.write()
        loss, accuracy, bar = figures.pretraining_curve(self.folder).axes
        shown = [line.get_ydata().tolist() for line in loss.lines[:2]]
        self.assertEqual(shown, [[2.0, 1.0], [2.5, 1.5]])
        shown = [line.get_ydata().tolist() for line in accuracy.lines[:2]]
        self.assertEqual(shown, [[10.0, 50.0], [5.0, 25.0]])
        self.assertEqual(loss.lines[0].get_xdata().tolist(), [0, 1])
        # One of eight candidates is right by chance.
        self.assertAlmostEqual(loss.lines[2].get_ydata()[0], np.log(8))
        self.assertAlmostEqual(accuracy.lines[2].get_ydata()[0], 12.5)
        self.assertEqual(bar.get_yticks().tolist(), [100.0, 200.0])
        for axis, unit in ((loss, "nats"), (accuracy, "%"), (bar, "ms")):
            self.assertIn(unit, axis.get_ylabel())

    def test_files_of_something_else(self):
        self.write(columns=("loss_1", "accuracy_1"))
        with self.assertRaisesRegex(InputError, "metrics.csv: lacks 'loss_2'"):
            figures.pretraining_curve(self.folder)
        (self.folder / "metrics.csv").unlink()
        with self.assertRaisesRegex(InputError, "metrics.csv: cannot be read"):
            figures.pretraining_curve(self.folder)


class Dots(unittest.TestCase):
    def test_it_shows_the_latest_main_scores(self):
        records = [
            replace(RECORD, value=0.1),
            RECORD,
            replace(RECORD, representation="logmel", value=0.7, low=None, high=None),
            replace(RECORD, task="ensemble", metric="accuracy", value=0.3),
            replace(RECORD, metric="minor", primary=False, value=0.99),
            replace(RECORD, split="validation", value=0.99),
        ]
        pitch, ensemble = figures.probe_dots(records).axes
        spans = [line.get_xdata() for line in pitch.lines]
        self.assertEqual([list(s) for s in spans], [[40.0, 60.0], [50.0], [70.0]])
        rows = [line.get_ydata()[0] for line in pitch.lines]
        self.assertEqual(rows, [0, 0, 1])
        names = [label.get_text() for label in pitch.get_yticklabels()]
        self.assertEqual(names, ["cpc-z", "logmel"])
        self.assertEqual(pitch.get_title(), "multipitch")
        self.assertEqual(pitch.get_xlabel(), "average precision (%)")
        self.assertEqual(ensemble.lines[1].get_xdata()[0], 30.0)

    def test_the_callers_settings_are_of_no_account(self):
        import matplotlib as mpl

        with mpl.rc_context({"font.size": 30, "axes.labelsize": 30}):
            axis = figures.probe_dots([RECORD]).axes[0]
            self.assertEqual(mpl.rcParams["font.size"], 30)
        self.assertEqual(axis.title.get_fontsize(), 8)
        self.assertEqual(axis.xaxis.label.get_fontsize(), 8)

    def test_nothing_to_show(self):
        with self.assertRaisesRegex(InputError, "validation"):
            figures.probe_dots([RECORD], split="validation")


class Piece(WithFolder):
    def test_it_shows_every_layer_over_time(self):
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

    def test_principal_components_by_hand(self):
        # Points on a line, and a direction that explains less.
        along = np.array([-2.0, 0.0, 2.0, 0.0])
        across = np.array([0.0, 1.0, 0.0, -1.0])
        features = np.stack((5 + along, 7 + across, np.zeros(4)), axis=1)
        found = figures.principal_components(features, 3)
        scale = np.sqrt(2)
        np.testing.assert_allclose(np.abs(found[:, 0]), np.abs(along) / scale)
        np.testing.assert_allclose(np.abs(found[:, 1]), np.abs(across) * scale)
        np.testing.assert_array_equal(found[:, 2], 0)
        still = figures.principal_components(np.ones((5, 3)))
        np.testing.assert_array_equal(still, 0)

    def test_the_same_figure_is_the_same_file(self):
        for ending in ("pdf", "svg", "png"):
            for name in ("a", "b"):
                figure = figures.probe_dots([RECORD])
                figures.save(figure, self.folder / f"{name}.{ending}")
            written = [(self.folder / f"{n}.{ending}").read_bytes() for n in "ab"]
            self.assertEqual(*written)
        with self.assertRaisesRegex(InputError, "a.tune"):
            figures.save(figure, self.folder / "a.tune")
        self.assertEqual(len(list(self.folder.iterdir())), 6)


if __name__ == "__main__":
    unittest.main()

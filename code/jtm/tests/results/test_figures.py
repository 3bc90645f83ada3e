import csv
import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np

from jtm.files import InputError
from jtm.results import figures
from jtm.results.compare import LINES, Grid
from jtm.tests.results.test_compare import CPC, CQT, draws, score
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


class Notes(unittest.TestCase):
    def draw(self, notes):
        kinds = [("start", float), ("end", float), ("pitch", int), ("program", int)]
        spectrum = np.random.default_rng(0).random((100, 194))
        figure = figures.notes_over_sound(spectrum, np.array(notes, kinds), "A piece")
        return figure.axes[0], figure

    def test_each_instrument_has_its_notes(self):
        axis, figure = self.draw(
            [(0.0, 0.5, 60, 41), (0.5, 3.0, 62, 41), (0.2, 0.4, 48, 1)]
            + [(2.0, 2.5, 72, 1)]  # after the end of the excerpt
        )
        drawn = {
            lines.get_label(): [line.tolist() for line in lines.get_segments()]
            for lines in axis.collections
        }
        self.assertEqual(drawn["piano"], [[[0.2, 48], [0.4, 48]]])
        held = [[[0.0, 60], [0.5, 60]], [[0.5, 62], [1.0, 62]]]
        self.assertEqual(drawn["violin"], held)
        named = [text.get_text() for text in figure.legends[0].get_texts()]
        self.assertEqual(named, ["piano", "violin"])
        # Two rows a semitone: the first is centred on A0, less a quarter tone.
        self.assertEqual(axis.images[0].get_extent(), [0, 1.0, 20.5, 117.5])

    def test_silence(self):
        axis, figure = self.draw([])
        self.assertEqual((len(axis.collections), len(figure.legends)), (0, 0))


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


class GridFigures(unittest.TestCase):
    def setUp(self):
        records, beside = [], {}
        for row, value in ((CPC, 0.5), (CQT, 0.7), (CQT._replace(fraction=1.0), 0.9)):
            for split, change in (("validation", 0), ("test", 0), ("test_timbre", 0.2)):
                seconds = 600 * row.fraction
                records.append(score(row, 0, value - change, split, labelled=seconds))
                spread = np.linspace(-1000, 1000, 201) + 1e4 * (value - change)
                beside |= draws(row, 0, spread.tolist(), split)
        self.records, self.beside = records, beside
        self.grid = Grid(records, beside)

    def test_scores_over_labels(self):
        figure = figures.label_efficiency(self.grid)
        axis, legend = figure.axes[:2]
        cpc, cqt = axis.lines
        np.testing.assert_allclose(cpc.get_xydata(), [[60, 50]])
        np.testing.assert_allclose(cqt.get_xydata(), [[60, 70], [600, 90]])
        [band] = axis.collections  # of CPC's, not of constant-Q's
        band = band.get_paths()[0].vertices
        np.testing.assert_allclose(band[:, 1].max(), 59.5)
        np.testing.assert_allclose(band[:, 1].min(), 40.5)
        self.assertEqual(axis.get_title(), "multipitch")
        self.assertEqual(axis.get_xlabel(), "labelled audio")
        self.assertIn("10 min", [t.get_text() for t in axis.get_xticklabels()])
        texts = [t.get_text() for t in legend.get_legend().get_texts()]
        self.assertEqual(texts, ["CPC, frozen", "constant-Q"])

    def test_gains(self):
        self.assertNotIn("gains", figures.grid_figures(self.grid))
        network = CPC._replace(representation="supervised", probe="network")
        for split in ("validation", "test"):
            self.records.append(score(network, 0, 0.45, split, labelled=60))
        spread = np.linspace(-1000, 1000, 201) + 4500 + np.linspace(0, 200, 201)
        self.beside |= draws(network, 0, spread.tolist(), "test")
        figure = figures.grid_figures(Grid(self.records, self.beside))["gains"]()
        axis, legend = figure.axes[:2]
        line, interval, zero = axis.lines
        np.testing.assert_allclose(line.get_ydata(), [5])
        np.testing.assert_allclose(sorted(interval.get_ydata()), [3.05, 4.95])
        np.testing.assert_allclose(zero.get_ydata(), [0, 0])
        texts = [t.get_text() for t in legend.get_legend().get_texts()]
        self.assertEqual(texts, ["CPC less supervised", "CPC less untrained"])

    def test_lines_differ_without_colour(self):
        strokes = figures.STROKES
        self.assertEqual(strokes.keys(), LINES.keys())
        for index in (0, 1, 2):  # colour, mark, dashes
            self.assertEqual(len({s[index] for s in strokes.values()}), len(strokes))

    def test_both_soundfonts(self):
        axis = figures.timbre_dots(self.grid, 0.1).axes[0]
        marks = [line for line in axis.lines if len(line.get_xdata()) == 1]
        shown = [(m.get_xdata()[0], round(m.get_ydata()[0])) for m in marks]
        np.testing.assert_allclose(shown, [(50, 0), (30, 0), (70, 5), (50, 5)])
        fills = [m.get_markerfacecolor() == "white" for m in marks]
        self.assertEqual(fills, [False, True, False, True])

    def test_learning(self):
        rows = [
            CPC._replace(representation=name, probe="network")
            for name in ("cpc-finetuned", "supervised")
        ]
        curve = {"step": [1, 2], "seconds": [2.0, 4.0], "score": [0.25, 0.5]}
        for row in rows:
            self.records.append(score(row, 0, 0.5, "validation"))
            self.records.append(score(row, 0, 0.5))
            self.beside[(*row, 0, "validation")] = {"curve": curve}
        made = figures.grid_figures(Grid(self.records, self.beside))
        self.assertIn("learning", made)
        for line in made["learning"]().axes[0].lines:
            np.testing.assert_allclose(line.get_xydata(), [[1, 25], [2, 50]])

    def test_learning_leaves_out_tasks_without_curves(self):
        row = CPC._replace(representation="supervised", probe="network")
        for task in ("multipitch", "ensemble"):
            self.records.append(score(row._replace(task=task), 0, 0.5, "validation"))
            self.records.append(score(row._replace(task=task), 0, 0.5))
        curve = {"step": [1], "seconds": [2.0], "score": [0.25]}
        self.beside[(*row, 0, "validation")] = {"curve": curve}
        figure = figures.learning_curves(Grid(self.records, self.beside), 0.1)
        titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
        self.assertEqual(titles, ["multipitch"])

    def test_confusion_by_hand(self):
        figure = figures.confusion([[3, 1, 0], [0, 0, 0], [0, 2, 2]], ["a", "b", "c"])
        axis = figure.axes[0]
        shares = axis.images[0].get_array().filled(np.nan)
        np.testing.assert_allclose(
            shares, [[75, 25, 0], [np.nan] * 3, [0, 50, 50]], equal_nan=True
        )
        shown = [(*t.get_position(), t.get_text()) for t in axis.texts]
        self.assertEqual(
            shown, [(0, 0, "75"), (1, 0, "25"), (1, 2, "50"), (2, 2, "50")]
        )
        self.assertEqual(axis.get_ylabel(), "truth")

    def test_confusion_of_the_best_row_by_validation_with_most_labels(self):
        row = CQT._replace(fraction=1.0)
        for each in (CPC, CQT, row):
            counts = [[9, 1], [1, 9]] if each == row else [[0, 1], [1, 0]]
            line = self.beside[(*each, 0, "test")]
            line |= {"confusion": counts, "classes": ["a", "b"]}
        made = figures.grid_figures(Grid(self.records, self.beside))
        axis = made["confusion-multipitch"]().axes[0]
        np.testing.assert_allclose(axis.images[0].get_array(), [[90, 10], [10, 90]])
        self.assertIn("cqt", axis.get_title(loc="left"))

    def test_what_results_do_not_allow_is_left_out(self):
        made = figures.grid_figures(self.grid)
        self.assertEqual(made.keys(), {"label-efficiency", "timbre"})
        self.assertEqual(figures.grid_figures(Grid([])), {})


if __name__ == "__main__":
    unittest.main()

"""Training curves and analyses of a network: reading, pages and figures."""

import csv
import json
import tempfile
import unittest
from pathlib import Path

import numpy as np

from jtm.cpc import figures, tables
from jtm.files import InputError
from jtm.results import render
from jtm.tests.results import synthetic

NAMES = ("cpc-z", "cpc-c", "random-z", "random-c", "logmel")


def score(name, value, **about):
    """Return a score with an interval of five points to either side."""
    interval = {"value": value, "low": value - 0.05, "high": value + 0.05}
    return about | {"representation": name} | interval


def analyses():
    """Return results of all analyses."""
    bank = {"centre": [60.0, 62.0], "width": [1.0, 3.0], "in_tune": 1.0}
    return {
        "data": "small",
        "checkpoint": "0123456789",
        "revision": "abc",
        "recordings": {"train": 6, "validation": 2, "test": 2},
        "filters": {
            "start": bank,
            "trained": bank | {"centre": [60.5, 61.5], "in_tune": 0.0},
            "moved": 0.5,
        },
        "carried": [
            score(name, 0.5, what=what, metric="average precision", chance=0.02)
            for what in ("pitch", "loudness")
            for name in NAMES
        ],
        "memory": {
            "scores": [
                score(name, 0.8 - delay, delay=delay)
                for name in (*NAMES[:-1], "notes")
                for delay in (0.0, 0.5)
            ],
            "leads": [
                {"over": name, "delay": delay, "value": lead}
                | {"low": lead - 0.01, "high": lead + 0.01}
                for name in ("cpc-z", "notes")
                for delay, lead in ((0.0, -0.2), (0.5, 0.1 if name == "cpc-z" else 0))
            ],
        },
    }


class FolderTestCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / "results" / "inside.json"
        self.path.parent.mkdir()

    def write(self, found):
        self.path.write_text(json.dumps(found))


class TestCurve(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def write(self, columns=("loss_1", "accuracy_1", "loss_2", "accuracy_2")):
        settings = {"n_predicts": 2, "step_frames": 10, "negative_sampling_ext": 7}
        (self.folder / "config.json").write_text(json.dumps(settings))
        with open(self.folder / "metrics.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("epoch", "split", *columns))
            writer.writerow((0, "train", 9.0, 0.9, 9.0, 0.9))
            writer.writerow((0, "validation", 2.0, 0.1, 2.5, 0.05))
            writer.writerow((1, "validation", 1.0, 0.5, 1.5, 0.25))

    def test_curve_shows_validation_values_of_each_step(self):
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

    def test_other_files_are_refused(self):
        self.write(columns=("loss_1", "accuracy_1"))
        with self.assertRaisesRegex(InputError, "metrics.csv: lacks 'loss_2'"):
            figures.pretraining_curve(self.folder)
        (self.folder / "metrics.csv").unlink()
        with self.assertRaisesRegex(InputError, "metrics.csv: cannot be read"):
            figures.pretraining_curve(self.folder)


class TestFiles(FolderTestCase):
    def test_analyses_are_read_and_other_content_refused(self):
        self.write(analyses())
        self.assertEqual(figures.read_analyses(self.path), analyses())
        self.write({"memory": []})
        with self.assertRaisesRegex(InputError, "inside.json: expected the results"):
            figures.read_analyses(self.path)

    def test_page_and_figures_are_written(self):
        read = figures.read_analyses
        chosen = tables, figures.inside_figures, read, ("memory",)
        render.study(self.path, *chosen)  # without results nothing is written
        self.assertEqual(list(self.path.parent.iterdir()), [])
        self.write(analyses())
        render.study(self.path, *chosen)
        written = {each.name for each in (self.folder / "figures").iterdir()}
        names = ("carried", "memory", "filters")
        expected = {f"inside-{name}.svg" for name in names} | {"inside-memory.pdf"}
        self.assertEqual(written, expected)
        text = self.path.with_name("INSIDE.md").read_text(encoding="utf-8")
        for name in names:
            self.assertIn(f"](../figures/inside-{name}.svg)", text)


class TestTrials(unittest.TestCase):
    def test_trials_table(self):
        scores = {f"{task} {amount}": [0.8, 0.9] for task, amount in tables.TRIED}
        tried = [{"name": "longer", "validation": scores}]
        self.assertEqual(tables.trials(tried)["recipe"].tolist(), ["longer"])
        table = tables.trials(tried, synthetic.bench())
        names = ["from scratch", "from scratch, self-trained", "shipped recipe"]
        self.assertEqual(table["recipe"].tolist(), [*names, "longer"])
        self.assertEqual(set(table.iloc[3, 1:]), {"85.0"})
        reached = synthetic.bench().values("transcription", "scratch", 3, "validation")
        self.assertEqual(len(reached), 5)
        self.assertEqual(table.iloc[0, 1], f"{50 * sum(reached[:2]):.1f}")
        (missing, *others) = scores
        fewer = {name: scores[name] for name in others}
        table = tables.trials([*tried, {"name": "fewer", "validation": fewer}])
        self.assertEqual(table.isna().sum(axis=1).tolist(), [0, 1])
        self.assertTrue(table.isna().iloc[1, 1])


class TestPage(FolderTestCase):
    def page(self, found):
        self.write(found)
        render.study(self.path, tables, lambda found: {})
        return self.path.with_name("INSIDE.md").read_text(encoding="utf-8")

    def test_page_holds_tables_and_sentences(self):
        text = self.page(analyses())
        for part in (
            "| c, untrained | 50.0 [45.0, 55.0] | 50.0 [45.0, 55.0] |\n",
            "| chance | 2.0 | 2.0 |\n",
            "|  | 0 s | 0.5 s |\n| --- | --- | --- |\n| z | 80.0 [75.0, 85.0] | 30.0",
            "| the notes | 80.0 [75.0, 85.0] | 30.0 [25.0, 35.0] |\n",
            "moved the centres of the 2 filters by 50 cents on average",
            "lie 0 % of them, 100 % at the start",
        ):
            self.assertIn(part, text)
        self.assertNotIn("\n\n\n", text)

    def test_missing_analyses_are_omitted(self):
        found = analyses() | {"filters": None, "memory": None}
        text = self.page(found)
        self.assertIn("filters of this network are fixed", text)
        self.assertNotIn("How far back", text)
        self.assertEqual(figures.inside_figures(found).keys(), {"carried"})


class TestFigures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        drawings = figures.inside_figures(analyses())
        cls.drawn = {name: draw() for name, draw in drawings.items()}

    def test_carried_figure_shows_scores_and_intervals(self):
        pitch, loudness = self.drawn["carried"].axes
        names = [t.get_text() for t in pitch.get_yticklabels()]
        self.assertEqual(names, ["z", "c", "z, untrained", "c, untrained", "log-mel"])
        self.assertEqual(loudness.get_title(), "loudness")
        self.assertEqual([x for x in pitch.lines[-1].get_xdata()], [2.0, 2.0])
        np.testing.assert_allclose(pitch.lines[0].get_xdata(), (45, 55))

    def test_memory_figure_shows_scores_and_leads(self):
        scores, leads, _ = self.drawn["memory"].axes
        np.testing.assert_allclose(scores.lines[0].get_ydata(), (80, 30))
        np.testing.assert_allclose(leads.lines[0].get_ydata(), (-20, 10))
        ticks = [t.get_text() for t in scores.get_xticklabels()]
        self.assertEqual(ticks, ["0", "0.5"])

    def test_filters_figure_shows_centres_and_widths(self):
        moved, wide = self.drawn["filters"].axes
        np.testing.assert_allclose(moved.lines[0].get_xydata(), [[60, 50], [62, -50]])
        np.testing.assert_allclose(wide.lines[1].get_xydata(), [[60.5, 1], [61.5, 3]])


if __name__ == "__main__":
    unittest.main()

"""Tables in Markdown and LaTeX, and their contents."""

import unittest

import pandas as pd

from jtm.results import tables
from jtm.results.compare import Score
from jtm.results.records import METHODS
from jtm.results.tables import escape, write
from jtm.tests.results import synthetic


class TestWriter(unittest.TestCase):
    def test_retrieval_tables(self):
        def run(value, works):
            score = [value, value - 0.1, value + 0.1]
            both = {"audio_to_score": {"recall_at_1": score, "mrr": score}}
            return {"works": works, "test": both, "test_timbre": both}

        runs = {"cpc-finetuned": run(0.8, 400), "scratch": run(0.7, 400)}
        runs |= {"scratch-80": run(0.5, 80), "scratch-5": run(0.1, 5)}
        table = tables.retrieval({"runs": runs | {"linear-cca": run(0.4, 0)}})
        names = ["ours, from scratch", "ours, CPC fine-tuned", "linear CCA"]
        self.assertEqual(table["model"].tolist(), names)
        self.assertEqual(str(table["R@1, unseen SoundFont"][1]), "80.0")
        table = tables.aligned({"runs": runs})
        columns = [f"{works} works" for works in (5, 80, 400)]
        self.assertEqual(table.columns.tolist(), ["model", "SoundFont", *columns])
        self.assertEqual(
            [str(cell) for cell in table.loc[0, columns]], ["10.0", "50.0", "70.0"]
        )
        self.assertEqual(table["SoundFont"].tolist(), ["seen", "unseen"] * 2)

    def test_trials_table(self):
        scores = {f"{task} {amount}": [0.8, 0.9] for task, amount in tables.TRIED}
        tried = [{"name": "longer", "validation": scores}]
        self.assertEqual(tables.trials(tried)["recipe"].tolist(), ["longer"])
        table = tables.trials(tried, synthetic.bench())
        names = ["from scratch", "shipped recipe", "longer"]
        self.assertEqual(table["recipe"].tolist(), names)
        self.assertEqual(set(table.iloc[2, 1:]), {"85.0"})
        reached = synthetic.bench().values("transcription", "scratch", 3, "validation")
        self.assertEqual(len(reached), 5)
        self.assertEqual(table.iloc[0, 1], f"{50 * sum(reached[:2]):.1f}")

    def test_latex_escapes(self):
        for words, expected in {
            "50 % of A & B_c": r"50\,\% of A \& B\_c",
            "−0.1 → x": r"$-$0.1 $\to$ x",
            "in 3 seconds, 3 s or 4.08 GB": r"in 3 seconds, 3\,s or 4.08\,GB",
            r"a\b": r"a\textbackslash{}b",
        }.items():
            self.assertEqual(escape(words), expected)

    def test_cell_formats(self):
        for cell, markdown, latex in (
            (
                Score(0.813, 0.78, 0.842),
                "81.3 [78.0, 84.2]",
                r"81.3\interval{78.0, 84.2}",
            ),
            (Score(0.5, bold=True), "**50.0**", r"\textbf{50.0}"),
            (Score(-0.01, -0.02, 0.003, signed=True), "−1.0 [−2.0, 0.3]", None),
            (Score(0.01, signed=True), "+1.0", "+1.0"),
            (Score(0.5, float("nan"), float("nan")), "50.0", "50.0"),
            (
                Score(0.5, 0.4, 0.6, bold=True),
                "**50.0** [40.0, 60.0]",
                r"\textbf{50.0}\interval{40.0, 60.0}",
            ),
            (None, "", ""),
            (float("nan"), "", ""),
            ("a|b", r"a\|b", "a|b"),
            (7, "7", "7"),
        ):
            self.assertEqual(tables.write_cell(cell), markdown)
            if latex is not None:
                self.assertEqual(tables.write_cell(cell, "latex"), latex)

    def test_table_formats(self):
        table = pd.DataFrame({"a": ["x_y"], "far too long a head": [Score(0.1)]})
        self.assertEqual(
            write(table), "| a | far too long a head |\n| --- | --- |\n| x_y | 10.0 |"
        )
        self.assertEqual(
            write(table, "latex"),
            "\\fit{\\begin{tabular}{@{}lr@{}}\\toprule\n"
            "\\shortstack[l]{a} & \\shortstack[r]{far too long a\\\\head} "
            "\\\\\\midrule\n"
            "x\\_y & 10.0 \\\\\n"
            "\\bottomrule\\end{tabular}}",
        )
        self.assertEqual(write(table[:0]), "")
        self.assertEqual(write(table[:0], "latex"), "")
        sparse = table.assign(b=[None])
        self.assertIn("| b |", write(sparse))
        self.assertNotIn("{b}", write(sparse, "latex"))


class TestBenchmark(unittest.TestCase):
    def setUp(self):
        self.bench = synthetic.bench(
            ("transcription", "ensemble"),
            lambda cell: cell[1] == "scratch" and cell[2] == 30,
        )

    def test_scores_table(self):
        table = tables.scores(self.bench, "transcription").set_index("method")
        headings = [f"{amount} rec." for amount in (1, 3, 10, 30, 294)]
        self.assertEqual(table.columns.tolist(), headings)
        self.assertIsNone(table.loc["from scratch", "30 rec."])  # has not run
        column = [cell for cell in table["30 rec."] if cell]
        top = max(column, key=lambda cell: cell.value)
        self.assertEqual([cell for cell in column if cell.bold], [top])
        self.assertNotIn("largest class", table.index)

    def test_contrasts_table(self):
        table = tables.contrasts(self.bench)
        self.assertEqual(table["task"].tolist(), ["transcription"] * 3)
        cell = table["CPC, fine-tuned − from scratch; unseen SoundFont"][0]
        self.assertTrue(cell.signed and cell.bold)
        self.assertRegex(str(cell), r"^\+\d\.\d$")
        self.assertEqual(len(tables.contrasts(synthetic.bench(()))), 0)

    def test_few_labels_table(self):
        table = tables.few(self.bench).set_index("method")
        headings = [f"transcription, {amount} rec." for amount in (1, 3, 10)]
        self.assertEqual(table.columns.tolist(), headings)
        shown = [METHODS[each] for each in self.bench.methods("transcription")]
        self.assertEqual(table.index.tolist(), shown)  # the largest class has not run
        shown = table.loc["from scratch", headings[0]]
        scores = [
            self.bench.score("transcription", "scratch", 1, split).value
            for split in ("test", "test_timbre")
        ]
        self.assertEqual(shown, " / ".join(f"{100 * each:.1f}" for each in scores))
        one = tables.few(self.bench, [("ensemble", 294)]).set_index("method")
        self.assertEqual(one.columns.tolist(), ["ensemble, 294 rec."])
        self.assertEqual(one.index[-1], "largest class")

    def test_secondary_table_has_means_on_both_soundfonts(self):
        scores = self.bench.table
        minor = ~scores["primary"] & scores["method"].eq("scratch")
        for split, seeds in (("test", (0.2, 0.3, 0.4)), ("test_timbre", (0.1,) * 3)):
            chosen = minor & scores["split"].eq(split) & scores["task"].eq("ensemble")
            scores.loc[chosen & scores["labelled_recordings"].eq(10), "value"] = seeds
        table = tables.secondary(self.bench, "ensemble", "minor")
        cell = table.set_index("method").loc["from scratch", "10 rec."]
        self.assertEqual(cell, "30.0 / 10.0")
        self.assertTrue(tables.secondary(self.bench, "ensemble", "other").empty)

    def test_sounds_table(self):
        table = tables.sounds(self.bench).set_index(["task", "method"])
        columns = ["labelled recordings", "seen SoundFont", "unseen SoundFont"]
        self.assertEqual(table.columns.tolist(), [*columns, "real recordings"])
        row = table.loc["ensemble", "log-mel"]
        self.assertEqual(row["labelled recordings"], "10")
        self.assertGreater(row["seen SoundFont"].value, row["real recordings"].value)


class TestOthers(unittest.TestCase):
    def test_run_scores_table(self):
        row = {"task": "multipitch", "method": "CPC, frozen", "split": "test"}
        row |= {"primary": True, "metric": "average_precision"}
        row |= {"value": 0.5, "low": 0.4, "high": 0.6}
        rows = [
            row,
            row | {"method": "from scratch", "value": 0.75, "low": None},
            row | {"split": "test_timbre", "value": 0.25},
            row | {"metric": "minor", "primary": False},
        ]
        text = write(tables.run_scores(pd.DataFrame(rows))).splitlines()
        self.assertEqual(
            text[0],
            "| method | multipitch, seen SoundFont: average precision (%) | "
            "multipitch, unseen SoundFont: average precision (%) |",
        )
        self.assertEqual(
            text[2], "| CPC, frozen | 50.0 [40.0, 60.0] | **25.0** [40.0, 60.0] |"
        )
        self.assertEqual(text[3], "| from scratch | **75.0** |  |")


class TestTranscribers(unittest.TestCase):
    """JTM and two settings of another transcriber, on two sets."""

    def setUp(self):
        def row(each, system, metric, value, ahead=None, stronger=True):
            made = {"set": each, "system": system, "metric": metric, "value": value}
            made |= {"low": value - 0.1, "high": value + 0.1, "stronger": stronger}
            if ahead:
                made["difference"] = dict(
                    zip(("value", "low", "high"), ahead, strict=True)
                )
            return made

        peer = "basic-pitch"
        self.results = {
            "sets": {"toy": {"title": "toy test"}, "notes": {"title": "single notes"}},
            "systems": {"jtm": {"weights_bytes": 4e5}, peer: {"weights_bytes": 2.3e5}},
            "speed": None,
            "scores": [
                row("toy", "jtm", "onset", 0.92),
                row("toy", "jtm", "frame", 0.8),
                row("toy", peer, "onset", 0.9, (0.02, 0.01, 0.03)),
                row("toy", peer, "frame", 0.85, (-0.05, -0.1, 0.0)),
                row("toy", peer, "onset", 0.5, (0.42, 0.4, 0.44), stronger=False),
                row("notes", "jtm", "onset", 0.7),
                row("notes", "jtm", "found", 0.95),
                row("notes", peer, "onset", 0.6, (0.1, -0.1, 0.3)),
                row("notes", peer, "found", 0.96, (-0.01, -0.1, 0.1)),
            ],
        }

    def test_stronger_setting_of_each_peer_is_shown(self):
        lines = write(tables.transcribers(self.results)).splitlines()
        self.assertEqual(lines[2], "| JTM | 92.0 / 80.0 | 70.0 / 95.0 | 0.40 MB |")
        expected = "| Basic Pitch | 90.0 / 85.0 | 60.0 / 96.0 | 0.23 MB |"
        self.assertEqual(lines[3], expected)
        cost = {"processor_seconds_of_1_thread": 0.02, "peak_bytes": 3e8}
        self.results["speed"] = {"jtm": cost}
        lines = write(tables.transcribers(self.results)).splitlines()
        self.assertTrue(lines[2].endswith("| 50 | 300 MB |"))

    def test_only_significant_differences_are_bold(self):
        worse = {"value": -0.2, "low": -0.3, "high": -0.1}
        self.results["sets"]["piano"] = {"title": "piano"}
        row = self.results["scores"][2] | {"set": "piano", "difference": worse}
        self.results["scores"].append(row)
        (line,) = write(tables.ahead(self.results)).splitlines()[2:]
        self.assertIn("**+2.0** [1.0, 3.0]", line)
        self.assertIn("| +10.0 [−10.0, 30.0]", line)
        self.assertIn("**−20.0** [−30.0, −10.0]", line)

    def test_significant_ingredients_are_bold(self):
        values = {"set": "toy", "steps": 5, "value": 0.8, "low": 0.7, "high": 0.9}
        scores = [values | {"with": "labels", "beside": None}]
        for name, low in (("noise", -0.01), ("sounds", 0.02)):
            more = {"value": 0.1, "low": low, "high": 0.2}
            added = {"with": name, "beside": "labels", "difference": more}
            scores.append(values | added)
        results = {"sets": {"toy": "toy test"}, "scores": scores}
        lines = write(tables.ingredients(results)).splitlines()
        self.assertEqual(lines[0], "| learned from | added to | steps | toy test |")
        self.assertEqual(lines[2], "| labels |  | 5 | 80.0 [70.0, 90.0] |")
        self.assertEqual(lines[3], "| noise | labels | 5 | 80.0 [70.0, 90.0] |")
        self.assertEqual(lines[4], "| sounds | labels | 5 | **80.0** [70.0, 90.0] |")

    def test_targets_table(self):
        self.results["speed"] = {"jtm": {"processor_seconds_of_1_thread": 0.03}}
        targets = tables.targets(self.results).set_index("target")
        self.assertEqual(targets["reached"]["toy test: note F1, 92 %"], "yes")
        self.assertEqual(targets["reached"]["single notes: pitches found, 96 %"], "no")
        notes = targets.loc["note F1 above every other: on 2 sets"]
        self.assertEqual(tuple(notes), ("on 2", "yes"))
        interval = targets.loc["note F1 above every other, interval above 0: on 3 sets"]
        self.assertEqual(tuple(interval), ("on 1", "no"))
        frames = targets.loc["frame F1 above every other: on 1 sets"]
        self.assertEqual(tuple(frames), ("on 0", "no"))
        speed = targets.loc["40 times real time on one thread"]
        self.assertEqual(tuple(speed), ("33 times", "no"))
        hour = {"hours": 1.0, "peak_bytes": 5e8, "page": False}
        rows = [hour, hour | {"page": True, "peak_bytes": 8e8}, hour | {"hours": 0.25}]
        reached = tables.targets(self.results, {"rows": rows})["reached"].tolist()
        self.assertEqual(reached[-2:], ["yes", "no"])


if __name__ == "__main__":
    unittest.main()

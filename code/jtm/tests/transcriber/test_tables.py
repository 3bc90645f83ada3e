"""Tables of transcribers."""

import unittest

from jtm.results.tables import write
from jtm.transcriber import tables


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
        for record in ("speed_without_bf16", "speed"):
            self.results[record] = {"jtm": cost}
            lines = write(tables.transcribers(self.results)).splitlines()
            self.assertTrue(lines[2].endswith("| 50 | 300 MB |"))

    def test_speeds_by_threads_and_processor(self):
        one, two = "processor_seconds_of_1_thread", "seconds_of_2_threads"
        self.results["speed"] = {"jtm": {one: 0.02}, "basic-pitch": {one: 0.025}}
        self.results["speed_without_bf16"] = {"basic-pitch": {one: 0.04, two: 0.02}}
        lines = write(tables.speeds(self.results)).splitlines()
        heading = "one thread, bf16 | one thread, no bf16 | two threads, no bf16"
        self.assertEqual(lines[0], f"| transcriber | {heading} |")
        self.assertEqual(lines[2].split("|")[1:3], [" JTM ", " 50 "])
        self.assertEqual(lines[3], "| Basic Pitch | 40 | 25 | 50 |")

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
        values = {"set": "toy", "steps": 5, "seeds": 3}
        values |= {"value": 0.8, "low": 0.7, "high": 0.9}
        scores = [values | {"with": "labels", "beside": None}]
        for name, low in (("noise", -0.01), ("sounds", 0.02), ("rooms", None)):
            more = {"value": 0.1, "low": low, "high": 0.2}
            added = {"with": name, "beside": "labels", "difference": more}
            scores.append(values | added)
        results = {"sets": {"toy": "toy test"}, "scores": scores}
        head, _, *rows = write(tables.ingredients(results)).splitlines()
        self.assertEqual(head, "| learned from | added to | steps | seeds | toy test |")
        self.assertEqual(rows[0], "| labels |  | 5 | 3 | 80.0 [70.0, 90.0] |")
        self.assertEqual(rows[1], "| noise | labels | 5 | 3 | 80.0 [70.0, 90.0] |")
        self.assertEqual(rows[2], "| sounds | labels | 5 | 3 | **80.0** [70.0, 90.0] |")
        self.assertEqual(rows[3], "| rooms | labels | 5 | 3 | 80.0 [70.0, 90.0] |")

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

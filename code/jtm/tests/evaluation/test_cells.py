import json
import multiprocessing
import tempfile
import unittest
from dataclasses import asdict, replace
from pathlib import Path

from jtm.evaluation.cells import (
    CELL_FIELDS,
    Record,
    append,
    append_beside,
    beside,
    latest,
    read,
    read_beside,
    write,
)
from jtm.files import InputError

RECORD = Record(
    task="multipitch",
    representation="cpc-z",
    probe="linear",
    fraction=0.1,
    labelled=12.8,
    seed=0,
    split="test",
    metric="average_precision",
    value=0.5,
    low=0.4,
    high=0.6,
    seconds=1.5,
    revision="abc",
    config={"steps": 100},
    primary=True,
)


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "results" / "grid.jsonl"

    def test_what_is_appended_is_read(self):
        other = replace(RECORD, representation="logmel", low=None, high=None)
        append(self.path, [RECORD])
        append(self.path, [other, RECORD])
        self.assertEqual(read(self.path), [RECORD, other, RECORD])

    def test_two_processes_lose_nothing(self):
        def work(first):
            for seed in range(first, first + 40):
                append(self.path, [replace(RECORD, seed=seed)])

        context = multiprocessing.get_context("fork")
        both = [context.Process(target=work, args=(first,)) for first in (0, 40)]
        for process in both:
            process.start()
        for process in both:
            process.join()
        self.assertEqual(sorted(r.seed for r in read(self.path)), list(range(80)))

    def test_the_file_of_a_run(self):
        path = self.path.with_name("record.json")
        write(path, [RECORD, RECORD])
        write(path, [RECORD])
        self.assertEqual(read(path), [RECORD])
        self.assertEqual(json.loads(path.read_text()), [asdict(RECORD)])
        path.write_text('[{"task": 3}]')
        with self.assertRaisesRegex(InputError, "record.json, entry 1"):
            read(path)
        path.write_text("3")
        with self.assertRaisesRegex(InputError, "not a list"):
            read(path)

    def test_what_stands_beside(self):
        cell = {name: getattr(RECORD, name) for name in CELL_FIELDS}
        append_beside(self.path, [cell | {"draws": [1, 2]}])
        timbre = cell | {"split": "test_timbre"}
        append_beside(self.path, [timbre | {"draws": [3]}, cell | {"draws": [4]}])
        self.assertEqual(beside(self.path).name, "grid_draws.jsonl")
        found = read_beside(self.path)
        self.assertEqual([line["draws"] for line in found.values()], [[4], [3]])
        self.assertIn(tuple(timbre.values()), found)
        with open(beside(self.path), "a") as file:
            file.write('{"task": "multipitch"}\n')
        with self.assertRaisesRegex(InputError, "grid_draws.jsonl, line 4"):
            read_beside(self.path)
        with self.assertRaisesRegex(InputError, "none_draws.jsonl: cannot be read"):
            read_beside(self.path.with_name("none.jsonl"))

    def test_the_keys_are_those_agreed_on(self):
        append(self.path, [RECORD])
        agreed = (
            "task representation probe fraction labelled seed split metric value low "
            "high seconds revision config primary"
        )
        self.assertEqual(" ".join(json.loads(self.path.read_text())), agreed)

    def test_an_odd_line_is_named(self):
        missing = asdict(RECORD)
        missing.pop("seed")
        for line in (
            json.dumps(asdict(RECORD) | {"colour": "red"}),
            json.dumps(missing),
            "[1, 2]",
            '{"task": "multip',
        ):
            append(self.path, [RECORD])
            with open(self.path, "a") as file:
                file.write(line + "\n")
            with self.assertRaisesRegex(InputError, "grid.jsonl, line 2: not a record"):
                read(self.path)
            self.path.unlink()

    def test_a_missing_file(self):
        with self.assertRaisesRegex(InputError, "cannot be read"):
            read(self.path)

    def test_a_score_is_a_number(self):
        with self.assertRaises(ValueError):
            replace(RECORD, value=float("nan"))


class Readings(unittest.TestCase):
    def test_the_latest_replaces(self):
        other = replace(RECORD, seed=1)
        newer = replace(RECORD, value=0.7, seconds=9.0)
        self.assertEqual(latest([RECORD, other, newer]), [newer, other])


if __name__ == "__main__":
    unittest.main()

import importlib.util
import json
import shutil
import subprocess
import tempfile
import unittest
from dataclasses import asdict, replace
from pathlib import Path

from jtm.files import InputError
from jtm.results import records
from jtm.results.records import (
    CELL_FIELDS,
    Record,
    append,
    append_beside,
    beside,
    latest,
    read,
    read_beside,
    revision,
    table,
    write,
)

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

    def test_table(self):
        records = [
            RECORD,
            replace(RECORD, representation="logmel", value=0.75, low=None, high=None),
            replace(RECORD, task="ensemble", metric="accuracy", value=0.25),
            replace(RECORD, metric="minor", primary=False),
            replace(RECORD, split="validation", value=0.9),
            replace(RECORD, value=0.625),
        ]
        expected = [
            ["representation", "multipitch, average precision (%)"]
            + ["ensemble, accuracy (%)"],
            ["cpc-z", "62.5 [40.0, 60.0]", "**25.0** [40.0, 60.0]"],
            ["logmel", "**75.0**", ""],
        ]
        lines = table(records).splitlines()
        self.assertEqual(set(lines.pop(1)), set("|- "))
        cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
        self.assertEqual(cells, expected)

    def test_table_tells_rows_apart(self):
        lines = table([RECORD, replace(RECORD, fraction=1.0)]).splitlines()
        self.assertIn("labels", lines[0])
        self.assertIn("10 %", lines[2])
        self.assertIn("100 %", lines[3])

    def test_table_of_nothing(self):
        self.assertIn("representation", table([]))

    def test_revision_is_one_word(self):
        self.assertRegex(revision(), r"^\S+$")

    def test_a_repository_around_the_project_does_not_name_it(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        copy = folder / "libraries" / "jtm" / "code" / "jtm" / "results" / "copied.py"
        copy.parent.mkdir(parents=True)
        shutil.copy(records.__file__, copy)
        subprocess.run(["git", "init", "-q", folder], check=True)
        author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        command = ("commit", "-q", "--allow-empty", "-m", "theirs")
        subprocess.run(["git", *author, *command], cwd=folder, check=True)
        spec = importlib.util.spec_from_file_location("copied", copy)
        spec.loader.exec_module(copied := importlib.util.module_from_spec(spec))
        self.assertEqual(copied.revision(), "unknown")


if __name__ == "__main__":
    unittest.main()

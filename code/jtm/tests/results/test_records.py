"""Records: concurrent and killed processes, headers, and invalid files."""

import gzip
import importlib.util
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from jtm.files import InputError, read_json, write_json
from jtm.results import records
from jtm.results.records import COLUMNS, KEY
from jtm.tests.results import synthetic

ROWS = 40
"""Number of rows that each of two processes writes."""


def cell(number, method="scratch"):
    """Make the rows of a small cell."""
    row = {"task": "transcription", "method": method, "labelled_recordings": 3}
    row |= {"seed": number, "split": "test", "metric": "note_f1"}
    row |= {"value": 0.5, "primary": True, "seconds": 1.0}
    return [row | {"draws": np.full(10, 0.5)}]


def work(folder, method):
    """Run cells and compile after each, as a process of a benchmark does."""
    for number in range(ROWS):
        records.save_cell(folder, f"{method}-{number}", cell(number, method))
        if number % 8 == 7:
            records.compile_cells(folder)


class RecordsTestCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.work = self.folder / "work"
        self.out = self.work / records.TABLE
        records.begin(self.work, **synthetic.header(()))

    def save(self, number=0, **changes):
        records.save_cell(self.work, f"{number}", [cell(number)[0] | changes])


class TestCells(RecordsTestCase):
    def test_saved_records_are_read_unchanged(self):
        tasks = ("ensemble",)
        out = synthetic.run(self.folder / "whole", tasks)
        found = records.read(out)
        rows = [
            row for each in synthetic.plan(tasks) for row in synthetic.cell(*each, 100)
        ]
        expected = records._check(pd.DataFrame(rows, columns=COLUMNS), "rows")
        pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
        self.assertEqual(tuple(found.columns), COLUMNS)
        self.assertEqual(len(found), 8 * len(synthetic.plan(tasks)))
        with np.load(out.with_name(records.DRAWS), allow_pickle=False) as file:
            keys, draws = file["keys"], file["draws"]
        self.assertEqual(draws.dtype, np.uint16)
        self.assertEqual(draws.shape, (len(keys), 100))
        main = found[found["primary"] & (found["split"] != "validation")]
        named = {records._draws_key(row) for row in main.to_dict("records")}
        self.assertEqual(set(keys), named)
        self.assertIn("ensemble|scratch|10|0|test_timbre|accuracy", named)
        own = synthetic.cell("ensemble", "cqt", 30, 1, 100)
        [expected] = [row for row in own if row["split"] == "real" and row["primary"]]
        table, header = records.read_all(out)
        self.assertEqual(header["data"][0], "d")
        keys = [records._draws_key(row) for row in table.to_dict("records")]
        unpacked = table["draws"][keys.index("ensemble|cqt|30|1|real|accuracy")]
        np.testing.assert_allclose(unpacked, expected["draws"].clip(0, 1), atol=5e-5)
        self.assertIsNone(table["draws"][keys.index("ensemble|cqt|30|1|real|minor")])

    def test_equal_scores_give_equal_bytes(self):
        self.save()
        records.compile_cells(self.work)
        before = {p: p.read_bytes() for p in self.work.glob("benchmark*")}
        records.compile_cells(self.work)
        after = {p: p.read_bytes() for p in self.work.glob("benchmark*")}
        self.assertEqual(before, after)

    def test_concurrent_processes_lose_no_record(self):
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=work, args=(self.work, method))
            for method in ("scratch", "cpc-finetuned")
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            self.assertEqual(process.exitcode, 0)
        records.compile_cells(self.work)
        self.assertEqual(len(records.read(self.out)), 2 * ROWS)
        draws = records._read_draws(self.work)
        self.assertEqual(len(draws), 2 * ROWS)

    def test_killed_process_loses_no_record(self):
        self.save(0)
        records.compile_cells(self.work)

        def killed():
            replace = os.replace

            def never(part, path):  # files are complete or absent
                if Path(path).name in ("1.json", "benchmark.csv.gz"):
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(part, path)

            with mock.patch.object(os, "replace", never):
                self.save(1)

        def killed_compiling():
            self.save(2)
            with mock.patch.object(
                records,
                "_write_table",
                lambda *_: os.kill(os.getpid(), signal.SIGKILL),
            ):
                records.compile_cells(self.work)

        for run in (killed, killed_compiling):
            process = multiprocessing.get_context("fork").Process(target=run)
            process.start()
            process.join()
            self.assertEqual(process.exitcode, -signal.SIGKILL)
            self.assertEqual(records.read(self.out)["seed"].tolist(), [0])
        self.assertFalse(records.cell_path(self.work, "1").exists())
        self.assertTrue(records.cell_path(self.work, "2").exists())
        self.save(1)  # a resumed run
        records.compile_cells(self.work)
        table = records.read(self.out)
        self.assertEqual(sorted(table["seed"]), [0, 1, 2])

    def test_cells_without_a_replacement_are_retained(self):
        for number in (0, 1):
            minor = {"metric": "minor", "primary": False}
            rows = cell(number)
            rows.append({name: rows[0][name] for name in COLUMNS} | minor)
            records.save_cell(self.work, f"{number}", rows)
        records.compile_cells(self.work)
        shutil.rmtree(self.work / "cells")
        row = {name: cell(1)[0][name] for name in COLUMNS}
        records.save_cell(self.work, "1", [row | {"value": 0.75}])
        records.compile_cells(self.work)
        table = records.read(self.out)
        self.assertEqual(table["seed"].tolist(), [0, 0, 1])  # seed 1 is replaced
        self.assertEqual(table["value"].tolist(), [0.5, 0.5, 0.75])
        draws = records._read_draws(self.work)
        self.assertEqual(list(draws), [records._draws_key(cell(0)[0])])

    def test_cell_path_stays_in_its_folder(self):
        with self.assertRaisesRegex(InputError, "leads outside"):
            records.cell_path(self.work, "../../else")


class TestHeader(RecordsTestCase):
    def test_another_dataset_or_checkpoint_is_refused(self):
        self.save()
        records.compile_cells(self.work)
        other = self.folder / "elsewhere"
        for name in records.HASHES:
            header = synthetic.header(()) | {name: "0" * 64}
            with self.assertRaisesRegex(InputError, f"another {name} .*choose another"):
                records.begin(self.work, **header)
            shutil.rmtree(other, ignore_errors=True)
            records.begin(other, **header)  # a folder of its own
            # A copied cell is refused too.
            shutil.copytree(self.work / "cells", other / "cells")
            with self.assertRaisesRegex(InputError, f"0.json: .*another {name}"):
                records.compile_cells(other)
        records.begin(self.work, **synthetic.header(("ensemble",)))  # a longer plan
        with self.assertRaisesRegex(InputError, "named before the run"):
            records.begin(self.work, **synthetic.header(("transcription",)))
        header = records._read_header(self.work / "benchmark.json")
        self.assertGreater(len(header["plan"]), 0)

    def test_folder_without_header_is_refused(self):
        with self.assertRaisesRegex(InputError, "benchmark.json: cannot be read"):
            records.save_cell(self.folder, "a", cell(0))
        (self.work / "benchmark.json").write_text("[]")
        with self.assertRaisesRegex(InputError, "expected the header of a benchmark"):
            self.save()


class TestInvalidFiles(RecordsTestCase):
    def test_invalid_rows_are_named_by_line(self):
        self.save(0)
        self.save(1)
        records.compile_cells(self.work)
        table = records.read(self.out)
        for name, value, message in (
            ("value", 1.5, "line 3: value, expected 0 to 1"),
            ("value", "nan", "line 3: value"),
            ("method", "magic", "line 3: method, expected one of scratch"),
            ("split", "train", "line 3: split"),
            ("seed", 0.5, "line 3: seed, expected a whole number"),
            ("primary", "maybe", "line 3: primary, expected True or False"),
            ("seed", 0, "line 3: repeats an earlier score"),
            ("metric", "other", "transcription has several primary metrics"),
            ("labelled_recordings", "all", "line 3: labelled_recordings"),
        ):
            invalid = table.astype(object)
            invalid.loc[1, name] = value
            self.out.write_bytes(gzip.compress(invalid.to_csv(index=False).encode()))
            with self.assertRaisesRegex(InputError, message):
                records.read(self.out)
        invalid = table.drop(columns="seconds")
        self.out.write_bytes(gzip.compress(invalid.to_csv(index=False).encode()))
        with self.assertRaisesRegex(InputError, "expected the columns task, method"):
            records.read(self.out)

    def test_other_files_are_refused(self):
        for content in (b"", b"abc", gzip.compress(b""), gzip.compress(b'"')[:-9]):
            self.out.write_bytes(content)
            with self.assertRaisesRegex(InputError, "benchmark.csv.gz: "):
                records.read(self.out)
        with self.assertRaisesRegex(InputError, "none.csv.gz: cannot be read"):
            records.read(self.out.with_name("none.csv.gz"))
        draws = self.out.with_name(records.DRAWS)
        np.savez(draws, keys=np.array([{}], object), draws=np.zeros((1, 2), "<u2"))
        with self.assertRaisesRegex(InputError, "not bootstrap draws"):  # a pickle
            records._read_draws(self.work)
        draws.write_bytes(b"PK")
        with self.assertRaisesRegex(InputError, "not bootstrap draws"):
            records._read_draws(self.work)

    def test_invalid_cells_are_refused(self):
        with self.assertRaisesRegex(InputError, "0.json, line 2: value"):
            self.save(value=float("nan"))
        self.assertFalse(records.cell_path(self.work, "0").exists())
        self.save(1)
        path = records.cell_path(self.work, "1")
        content = read_json(path)
        for change in ({"rows": 3}, {"draws": []}, {"rows": [{"task": "a"}]}):
            write_json(path, content | change)
            with self.assertRaisesRegex(InputError, "1.json"):
                records.compile_cells(self.work)
        for packed in ("AA", "AA=!", "=", "\u00e9AA=", "AA==", 3):
            write_json(path, content | {"draws": {"x": packed}})
            with self.assertRaisesRegex(InputError, r"^\S*1.json: not a.*; delete it"):
                records.compile_cells(self.work)
        write_json(path, {k: v for k, v in content.items() if k != "rows"})
        with self.assertRaisesRegex(InputError, "1.json: not a cell"):
            records.compile_cells(self.work)
        self.assertFalse(self.out.exists())

    def test_draws_key_joins_the_key_columns(self):
        row = dict(zip(KEY, ("a", "b", 3.0, 0, "test", "m"), strict=True))
        self.assertEqual(records._draws_key(row), "a|b|3|0|test|m")


class TestRevision(unittest.TestCase):
    def test_revision_is_one_word(self):
        self.assertRegex(records.revision(), r"^\S+$")

    def test_revision_ignores_an_enclosing_repository(self):
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

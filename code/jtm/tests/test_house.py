"""The rules of the house: imports point one way, and requirements agree."""

import ast
import csv
import itertools
import json
import re
import sys
import tomllib
import unittest
from pathlib import Path

CODE = Path(__file__).resolve().parents[2]
ROOT = CODE.parent

MAY_IMPORT = {
    "constants": set(),
    "files": {"constants"},
    "music": {"constants", "files", "music"},
    "data": {"constants", "files", "music", "data"},
    "models": {"constants", "models"},
    "training": {
        "constants",
        "files",
        "music",
        "data",
        "models",
        "training",
    },
    "evaluation": {
        "constants",
        "files",
        "music",
        "data",
        "models",
        "training",
        "evaluation",
        "results",
    },
    "results": {"constants", "files", "music", "results"},
}
"""What each floor of the package may import of the package."""

STUDIES = {path.parent.name for path in (CODE / "jtm").glob("*/__init__.py")}
STUDIES -= {*MAY_IMPORT, "tests"}
"""All other folders: they stand on the floors, and not on one another."""

MAY_IMPORT |= {study: {*MAY_IMPORT, study} for study in STUDIES}
MAY_IMPORT |= {
    "embedding": {
        *("constants", "files", "music", "data", "training", "evaluation"),
        *STUDIES,
    },
    "hear": {
        *("constants", "files", "models", "training", "embedding"),
        *STUDIES,
    },
}

NO_TORCH = ("constants", "files", "music", "results")

CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "soundfile": "pysoundfile",
    "soxr": "soxr-python",
    "torch": "pytorch",
}
"""Names on conda-forge, where they differ."""

PIP_NAMES = {
    "IPython": "jupyter",  # which brings it
    "PIL": "pillow",
    "fluidsynth": "pyfluidsynth",
    "markupsafe": "jinja2",
    "sklearn": "scikit-learn",
    "websocket": "jupyter",
}
"""Names of what is to be installed, where they differ from what is imported."""

FOR_LINT = {"numpydoc"}
"""What ``make lint`` installs by itself."""

PEERS = {"basic_pitch", "harmonica", "onnxruntime"}
"""What a benchmark runs in environments of their own."""


def imports(path):
    """List the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


class TestImports(unittest.TestCase):
    def test_imports_go_downward_only(self):
        rooms = set()
        for path in sorted((CODE / "jtm").rglob("*.py")):
            room = path.relative_to(CODE / "jtm").parts[0].removesuffix(".py")
            rooms.add(room)
            for name in imports(path) if room in MAY_IMPORT else ():
                if name.startswith("jtm."):
                    self.assertIn(name.split(".")[1], MAY_IMPORT[room], path)
                if room in NO_TORCH:
                    self.assertNotIn(name.split(".")[0], ("torch", "lightning"), path)
        self.assertLessEqual(MAY_IMPORT.keys(), rooms)
        # A new study is named among the studies, else no rule would hold for it.
        self.assertLessEqual(
            rooms - {"__init__", "__main__", "cli", "tests"}, MAY_IMPORT.keys()
        )

    def test_code_is_no_package_and_every_folder_inside_is(self):
        self.assertFalse((CODE / "__init__.py").exists())
        for path in (CODE / "jtm").rglob("*.py"):
            self.assertTrue((path.parent / "__init__.py").exists(), path.parent)


class TestRequirements(unittest.TestCase):
    def test_names_and_ranges_are_equal_in_the_three_files(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        lines = (ROOT / "requirements.txt").read_text().splitlines()
        pip = [line.split("#")[0].strip() for line in lines]
        self.assertEqual(sorted(filter(None, pip)), sorted(project["dependencies"]))
        conda = re.findall(
            r"- ([\w-]+[<>=][^\s#]*)", (ROOT / "environment.yml").read_text()
        )
        expected = [f"python{project['requires-python']}"]
        for item in project["dependencies"]:
            name = re.match(r"[\w-]+", item)[0]
            expected.append(CONDA_NAMES.get(name, name) + item.removeprefix(name))
        self.assertEqual(sorted(conda), sorted(expected))

    def test_what_ci_installs_is_within_the_ranges_and_has_licences(self):
        def numbers(version):
            return [int(part) for part in re.findall(r"\d+", version)]

        def name_of(package):
            return re.sub(r"[-_.]+", "-", package).lower()

        # Names and versions alone: no host, no path, no build of one machine.
        lines = (ROOT / "lock.txt").read_text().splitlines()
        locked = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines]
        locked = {name_of(name): version for name, version in locked}
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for item in project["dependencies"]:
            name, ends = re.match(r"([\w-]+)(.*)", item).groups()
            found = numbers(locked[name_of(name)])
            ends = dict(re.findall(r"([<>]=?)([\d.]+)", ends))
            self.assertGreaterEqual(found, numbers(ends.pop(">=")), item)
            ((sign, end),) = ends.items()  # each range ends where tests end
            self.assertLessEqual(found, numbers(end), item)
            if sign == "<":
                self.assertNotEqual(found[: len(numbers(end))], numbers(end), item)
        with open(ROOT / "licences.csv", newline="") as file:
            told = {name_of(row["Name"]): row for row in csv.DictReader(file)}
        versions = {name: row["Version"].split("+")[0] for name, row in told.items()}
        self.assertEqual(versions, locked)
        self.assertTrue(all(row["License"] for row in told.values()))
        ci = ROOT / ".ci" / "run"  # which the archive that is handed in does without
        if ci.exists():
            self.assertIn("LOCK=lock.txt", ci.read_text())

    def test_what_is_imported_is_named(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        items = [*project["dependencies"]]
        items += itertools.chain(*project["optional-dependencies"].values())
        named = {re.match(r"[\w-]+", item)[0] for item in items}
        outside = (ROOT.glob(f"{folder}*.py") for folder in ("", "toy/", "report/"))
        files = [*CODE.rglob("*.py"), *itertools.chain(*outside)]
        here = {part for p in files for part in p.relative_to(ROOT).parts[:-1]}
        here |= (
            {path.stem for path in files} | FOR_LINT | PEERS | sys.stdlib_module_names
        )
        for path in files:
            for name in {name.split(".")[0] for name in imports(path)} - here:
                self.assertIn(PIP_NAMES.get(name, name), named, path)


class TestMakefile(unittest.TestCase):
    def test_clean_leaves_what_was_trained(self):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        removed = makefile.partition("\nclean:\n")[2].split()
        expected = ["rm", "-rf", "$(VENV)", "$(VENV)-oldest", "toy/data"]
        self.assertEqual(removed, expected)


class TestNotebook(unittest.TestCase):
    def test_it_is_small_and_executed_and_holds_calls_alone(self):
        path = ROOT / "notebooks" / "JTM progress report.ipynb"
        self.assertLess(path.stat().st_size, 5e6)
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        counts = [cell["execution_count"] for cell in code]
        self.assertEqual(counts, list(range(1, len(code) + 1)))
        for cell in code:
            lines = [line for line in cell["source"] if not line.startswith("%")]
            for node in ast.walk(ast.parse("".join(lines))):
                made_here = ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.If
                self.assertNotIsInstance(node, made_here)
            for output in cell["outputs"]:
                self.assertNotEqual(output["output_type"], "error")


if __name__ == "__main__":
    unittest.main()

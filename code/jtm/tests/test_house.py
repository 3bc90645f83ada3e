"""Project rules: layered imports, consistent requirements, a clean notebook."""

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
"""Parts of the package that each layer may import."""

STUDIES = {path.parent.name for path in (CODE / "jtm").glob("*/__init__.py")}
STUDIES -= {*MAY_IMPORT, "tests"}
"""All other folders: they import the layers, and not one another."""

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
"""Names of packages on conda-forge, where they differ from PyPI."""

PIP_NAMES = {
    "IPython": "jupyter",  # which depends on it
    "PIL": "pillow",
    "fluidsynth": "pyfluidsynth",
    "markupsafe": "jinja2",
    "sklearn": "scikit-learn",
    "websocket": "jupyter",
}
"""Names of packages on PyPI, where they differ from the imported module."""

FOR_LINT = {"numpydoc"}
"""Packages that ``make lint`` installs."""

PEERS = {"basic_pitch", "harmonica", "onnxruntime"}
"""Packages that a benchmark runs in separate environments."""


def imports(path):
    """Yield the modules that a file imports, at any level."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


class TestImports(unittest.TestCase):
    def test_imports_go_downward_only(self):
        parts = set()
        for path in sorted((CODE / "jtm").rglob("*.py")):
            part = path.relative_to(CODE / "jtm").parts[0].removesuffix(".py")
            parts.add(part)
            for name in imports(path) if part in MAY_IMPORT else ():
                if name.startswith("jtm."):
                    self.assertIn(name.split(".")[1], MAY_IMPORT[part], path)
                if part in NO_TORCH:
                    self.assertNotIn(name.split(".")[0], ("torch", "lightning"), path)
        self.assertLessEqual(MAY_IMPORT.keys(), parts)
        # Each part is in MAY_IMPORT, else no rule would hold for it.
        self.assertLessEqual(
            parts - {"__init__", "__main__", "cli", "tests"}, MAY_IMPORT.keys()
        )

    def test_code_is_not_a_package_but_its_folders_are(self):
        self.assertFalse((CODE / "__init__.py").exists())
        for path in (CODE / "jtm").rglob("*.py"):
            self.assertTrue((path.parent / "__init__.py").exists(), path.parent)


class TestRequirements(unittest.TestCase):
    def test_requirements_agree_in_the_three_files(self):
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

    def test_locked_versions_are_within_ranges_and_have_licences(self):
        def numbers(version):
            return [int(digits) for digits in re.findall(r"\d+", version)]

        def name_of(package):
            return re.sub(r"[-_.]+", "-", package).lower()

        # Names and versions only: no URL, path or local build.
        lines = (ROOT / "lock.txt").read_text().splitlines()
        locked = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines]
        locked = {name_of(name): version for name, version in locked}
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for item in project["dependencies"]:
            name, ends = re.match(r"([\w-]+)(.*)", item).groups()
            version = numbers(locked[name_of(name)])
            ends = dict(re.findall(r"([<>]=?)([\d.]+)", ends))
            self.assertGreaterEqual(version, numbers(ends.pop(">=")), item)
            ((sign, end),) = ends.items()  # each range has one upper end
            self.assertLessEqual(version, numbers(end), item)
            if sign == "<":
                self.assertNotEqual(version[: len(numbers(end))], numbers(end), item)
        with open(ROOT / "licences.csv", newline="") as file:
            rows = {name_of(row["Name"]): row for row in csv.DictReader(file)}
        versions = {name: row["Version"].split("+")[0] for name, row in rows.items()}
        self.assertEqual(versions, locked)
        self.assertTrue(all(row["License"] for row in rows.values()))
        ci = ROOT / ".ci" / "run"  # absent from the submitted archive
        if ci.exists():
            self.assertIn("LOCK=lock.txt", ci.read_text())

    def test_imported_packages_are_declared(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        items = [*project["dependencies"]]
        items += itertools.chain(*project["optional-dependencies"].values())
        declared = {re.match(r"[\w-]+", item)[0] for item in items}
        outside = (ROOT.glob(f"{folder}*.py") for folder in ("", "toy/", "report/"))
        files = [*CODE.rglob("*.py"), *itertools.chain(*outside)]
        local = {part for p in files for part in p.relative_to(ROOT).parts[:-1]}
        local |= (
            {path.stem for path in files} | FOR_LINT | PEERS | sys.stdlib_module_names
        )
        for path in files:
            for name in {name.split(".")[0] for name in imports(path)} - local:
                self.assertIn(PIP_NAMES.get(name, name), declared, path)


class TestMakefile(unittest.TestCase):
    def test_clean_keeps_trained_models(self):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        removed = makefile.partition("\nclean:\n")[2].split()
        expected = ["rm", "-rf", "$(VENV)", "$(VENV)-oldest", "toy/data"]
        self.assertEqual(removed, expected)


class TestNotebook(unittest.TestCase):
    def test_notebook_is_small_executed_and_without_definitions(self):
        path = ROOT / "notebooks" / "JTM progress report.ipynb"
        self.assertLess(path.stat().st_size, 5e6)
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        counts = [cell["execution_count"] for cell in code]
        self.assertEqual(counts, list(range(1, len(code) + 1)))
        for cell in code:
            lines = [line for line in cell["source"] if not line.startswith("%")]
            for node in ast.walk(ast.parse("".join(lines))):
                forbidden = ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.If
                self.assertNotIsInstance(node, forbidden)
            for output in cell["outputs"]:
                self.assertNotEqual(output["output_type"], "error")


if __name__ == "__main__":
    unittest.main()

"""
Check every public docstring with numpydoc's validator; ``make lint`` runs this.

The checks, and the excluded names with the reason, are in pyproject.toml.
It is not a unit test, as numpydoc is needed for nothing else.
"""

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

from numpydoc.hooks.validate_docstrings import parse_config
from numpydoc.validate import validate

ROOT = Path(__file__).resolve().parents[3]


def public_names(package):
    """Yield the public functions, classes and methods of a package, without tests."""
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "tests" in info.name or info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for name, item in vars(module).items():
            if getattr(item, "__module__", "") != info.name or name.startswith("_"):
                continue
            if inspect.isfunction(item) or inspect.isclass(item):
                yield f"{info.name}.{name}"
            for inner, value in vars(item).items() if inspect.isclass(item) else ():
                is_method = isinstance(value, (property, classmethod, staticmethod))
                if not inner.startswith("_") and (
                    is_method or inspect.isfunction(value)
                ):
                    yield f"{info.name}.{name}.{inner}"


def main():
    """Print the faults; return the exit code."""
    config = parse_config(ROOT)
    sys.path.insert(0, str(ROOT / "code"))
    names = list(public_names(importlib.import_module("jtm")))
    n_faults = 0
    for name in names:
        if config["exclude"] and config["exclude"].search(name):
            continue
        for code, text in validate(name)["errors"]:
            if code in config["checks"]:
                print(f"{name}: {code} {text}")
                n_faults += 1
    print(f"numpydoc: {len(names)} public names, {n_faults} faults")
    return int(n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())

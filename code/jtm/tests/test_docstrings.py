"""The examples in docstrings run, and settings are told of where they are classes."""

import doctest
import importlib
import pkgutil
import unittest

import jtm
from jtm.cpc.config import PretrainConfig
from jtm.training.config import SupervisedConfig, _explain


def load_tests(_, tests, __):
    """Add the examples of every module."""
    found = 0
    for info in pkgutil.walk_packages(jtm.__path__, "jtm."):
        if "tests" not in info.name and not info.name.endswith("__main__"):
            suite = doctest.DocTestSuite(importlib.import_module(info.name))
            found += suite.countTestCases()
            tests.addTest(suite)
    if not found:
        raise AssertionError("no example found")
    return tests


class TestSettings(unittest.TestCase):
    def test_docstrings_of_settings_tell_what_the_help_tells(self):
        for kind in (PretrainConfig, SupervisedConfig):
            for name, item in kind.__pydantic_fields__.items():
                of, choices, text = _explain(item)
                of = (
                    "{" + ", ".join(map(repr, choices)) + "}"
                    if choices
                    else of.__name__
                )
                told = f"{name} : {of}\n    {text[0].upper()}{text[1:]}."
                self.assertIn(told, kind.__doc__)


if __name__ == "__main__":
    unittest.main()

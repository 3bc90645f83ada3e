"""Docstrings: their examples run, and settings match the help texts."""

import doctest
import importlib
import pkgutil
import unittest

import jtm
from jtm.cpc.config import PretrainConfig
from jtm.training.config import SupervisedConfig, _explain


def load_tests(_, tests, __):
    """Add the doctests of every module."""
    n_examples = 0
    for info in pkgutil.walk_packages(jtm.__path__, "jtm."):
        if "tests" not in info.name and not info.name.endswith("__main__"):
            suite = doctest.DocTestSuite(importlib.import_module(info.name))
            n_examples += suite.countTestCases()
            tests.addTest(suite)
    if not n_examples:
        raise AssertionError("no doctest found")
    return tests


class TestSettings(unittest.TestCase):
    def test_docstrings_of_settings_equal_their_help_texts(self):
        for kind in (PretrainConfig, SupervisedConfig):
            for name, item in kind.__pydantic_fields__.items():
                kind_name, choices, text = _explain(item)
                kind_name = (
                    "{" + ", ".join(map(repr, choices)) + "}"
                    if choices
                    else kind_name.__name__
                )
                entry = f"{name} : {kind_name}\n    {text[0].upper()}{text[1:]}."
                self.assertIn(entry, kind.__doc__)


if __name__ == "__main__":
    unittest.main()

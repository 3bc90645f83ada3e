"""The benchmarks measure what they say."""

import sys
import unittest

import torch

from jtm.cli import ROOT

sys.path.insert(0, str(ROOT / "code" / "benchmarks"))

import cpc_step  # noqa: E402
import memory  # noqa: E402


class TestBenchmarks(unittest.TestCase):
    def test_a_step_learns(self):
        step = cpc_step.Step("tiny", "cpu", "float32")
        before = [p.clone() for p in step.model.parameters()]
        step()
        for old, new in zip(before, step.model.parameters(), strict=True):
            self.assertFalse(torch.equal(old, new))

    def test_memory_is_that_of_the_peak(self):
        found = {}
        with cpc_step.peak_memory("cpu", found):
            torch.ones(25_000_000).sum()
        if found["bytes"] is None:
            self.skipTest("this system does not tell the memory of a process")
        self.assertGreater(found["bytes"], 90e6)
        self.assertLess(found["bytes"], 150e6)

    def test_the_fastest_of_several_turns_counts(self):
        calls = []
        times = cpc_step.fastest({"a": lambda: calls.append(1)}, turns=3)
        self.assertEqual(len(calls), 3)
        self.assertGreater(times["a"], 0)

    def test_planning_is_timed_by_the_window(self):
        self.assertLess(memory.planning(2) / memory.planning(1), 10)


if __name__ == "__main__":
    unittest.main()

"""Tables of the retrieval of scores."""

import unittest

from jtm.retrieval import tables


class TestTables(unittest.TestCase):
    def test_retrieval_tables(self):
        def run(value, works):
            score = [value, value - 0.1, value + 0.1]
            both = {"audio_to_score": {"recall_at_1": score, "mrr": score}}
            return {"works": works, "test": both, "test_timbre": both}

        runs = {"cpc-finetuned": run(0.8, 400), "scratch": run(0.7, 400)}
        runs |= {"scratch-80": run(0.5, 80), "scratch-5": run(0.1, 5)}
        table = tables.retrieval({"runs": runs | {"linear-cca": run(0.4, 0)}})
        names = ["ours, from scratch", "ours, CPC fine-tuned", "linear CCA"]
        self.assertEqual(table["model"].tolist(), names)
        self.assertEqual(str(table["R@1, unseen SoundFont"][1]), "80.0")
        table = tables.aligned({"runs": runs})
        columns = [f"{works} works" for works in (5, 80, 400)]
        self.assertEqual(table.columns.tolist(), ["model", "SoundFont", *columns])
        self.assertEqual(
            [str(cell) for cell in table.loc[0, columns]], ["10.0", "50.0", "70.0"]
        )
        self.assertEqual(table["SoundFont"].tolist(), ["seen", "unseen"] * 2)


if __name__ == "__main__":
    unittest.main()

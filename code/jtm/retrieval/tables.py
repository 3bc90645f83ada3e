"""Tables of the retrieval of scores from audio."""

from jtm.results.compare import Score
from jtm.results.records import SPLITS, TESTS
from jtm.results.tables import pivot

MATCHERS = {
    "pitchmap": "ours, as shipped",
    "scratch": "ours, from scratch",
    "cpc-finetuned": "ours, CPC fine-tuned",
    "cpc-frozen": "ours, CPC frozen",
    "untrained-frozen": "ours, untrained frozen",
    "published": "published, ranking loss",
    "published-infonce": "published, InfoNCE",
    "linear-cca": "linear CCA",
    "chroma-dtw": "chroma and DTW",
}
"""Names of the models of audio-to-score retrieval that learn from all works."""

STARTS = ("scratch", "cpc-finetuned")
"""Those that also learn from few works."""


def retrieval(results):
    """
    Tabulate retrieval of the passage of a score from two seconds of audio.

    A row is a model of ``jtm retrieval``, a column a metric and a SoundFont.
    """
    return pivot(
        (
            {"model": MATCHERS[name]},
            f"{title}, {SPLITS[split]}",
            Score(*results["runs"][name][split]["audio_to_score"][metric]),
        )
        for name in MATCHERS
        if name in results["runs"]
        for metric, title in (("recall_at_1", "R@1"), ("mrr", "MRR"))
        for split in TESTS
    )


def by_works(results, start):
    """List the runs from a start in :data:`STARTS`, by the number of their works."""
    runs = results["runs"].items()
    own = [run for name, run in runs if name.rstrip("0123456789-") == start]
    return sorted(own, key=lambda run: run["works"])


def aligned(results):
    """
    Tabulate recall at 1 by the number of training works with aligned pairs.

    A row is a start of the audio tower and a SoundFont, a column a number of works.
    """
    return pivot(
        (
            {"model": MATCHERS[start], "SoundFont": SPLITS[split].split()[0]},
            f"{run['works']} works",
            Score(*run[split]["audio_to_score"]["recall_at_1"]),
        )
        for start in STARTS
        for split in TESTS
        for run in by_works(results, start)
    )

"""
Self-supervised learning of music from raw audio.

The package is built in floors: data flows upward through them, and each imports from
the floors below alone::

    score -> MIDI -> audio -> dataset folder -> chunk store -> windows
          -> encoder z -> context c -> InfoNCE | head
          -> results (JSON) -> figures, tables, numbers -> notebook and report

Four names are for everyday use, with the networks that come with the package:
:func:`transcribe` gives the notes of a sound file or an array, :func:`load_model`
returns the pretrained network, :func:`embed` gives embeddings with their times, and
:mod:`jtm.hear` is the network behind the interface of HEAR. They are loaded when they
are first asked for, since PyTorch takes seconds to load.
"""

import importlib
import importlib.metadata
import os
import tomllib
from pathlib import Path

# Threads that wait by spinning slow a step down tenfold as soon as anything else
# runs on the machine; OpenMP reads this when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["embed", "hear", "load_model", "transcribe"]


def __getattr__(name):
    """Load a public name when it is first asked for."""
    if name == "__version__":  # of a checkout, which need not be installed
        project = Path(__file__).parents[2] / "pyproject.toml"
        if project.exists():
            return tomllib.loads(project.read_text("utf-8"))["project"]["version"]
        return importlib.metadata.version("jtm")
    if name == "hear":
        return importlib.import_module("jtm.hear")
    if name == "transcribe":
        return importlib.import_module("jtm.transcriber.transcribe").transcribe
    if name in __all__:
        return getattr(importlib.import_module("jtm.embedding"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    """List the public names too."""
    return sorted({*globals(), *__all__})

"""
Self-supervised learning of music from raw audio.

The package is built in layers: data flows upward, and each layer imports only from
the layers below it::

    score -> MIDI -> audio -> dataset folder -> chunk store -> windows
          -> encoder z -> context c -> InfoNCE | head
          -> results (JSON) -> figures, tables, numbers -> notebook and report

Four names form the public interface to the shipped networks: :func:`transcribe`
returns the notes in an audio file or array, :func:`load_model` the pretrained network,
:func:`embed` embeddings and their times; :mod:`jtm.hear` implements the HEAR interface.
They are imported on first access, since importing PyTorch takes seconds.
"""

import importlib
import os
from pathlib import Path

# Spin-waiting threads slow a training step down tenfold as soon as anything else
# runs on the machine; OpenMP reads this when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["embed", "hear", "load_model", "transcribe"]


def __getattr__(name):
    """Import a public name on first access."""
    if name == "__version__":  # a checkout need not be installed
        project = Path(__file__).parents[2] / "pyproject.toml"
        if project.exists():
            import tomllib

            return tomllib.loads(project.read_text("utf-8"))["project"]["version"]
        from importlib import metadata

        return metadata.version("jtm")
    if name == "hear":
        return importlib.import_module("jtm.hear")
    if name == "transcribe":
        return importlib.import_module("jtm.transcriber.transcribe").transcribe
    if name in __all__:
        return getattr(importlib.import_module("jtm.embedding"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    """List the module's attributes, including the public names."""
    return sorted({*globals(), *__all__})

"""Checkpoints and curves of a run, whatever it learns."""

import csv
import math
import shutil
import signal
import time
from pathlib import Path

import lightning

from jtm.files import InputError, StoppedError, atomic

SAVE_SECONDS = 100
"""Seconds between two writes of ``last.pt`` inside an epoch."""

METRICS_FILE = "metrics.csv"
"""Curves of a run: a row for each epoch and split."""


def write_metrics(folder, history):
    """
    Write the curves of a run.

    Parameters
    ----------
    folder : str or Path
        The run's folder; receives ``metrics.csv``.
    history : list of dict
        A row for each epoch and split.
    """
    with (
        atomic(Path(folder) / METRICS_FILE) as part,
        open(part, "w", newline="") as file,
    ):
        writer = csv.DictWriter(file, history[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def advice(folder):
    """
    Say what to do about a run that came to a number that is none.

    Parameters
    ----------
    folder : str or Path
        The run's folder.

    Returns
    -------
    str
        Where the last good checkpoint is, and how to go on from it.
    """
    last = Path(folder) / "last.pt"
    if not last.exists():
        return "there is no checkpoint yet; try a smaller --learningRate"
    return (
        f"the last good checkpoint is {last}; start from it with --load, a smaller "
        "--learningRate and another --pathCheckpoint"
    )


class Keeper(lightning.Callback):
    """
    Save checkpoints: each epoch's, the best, and the last at short intervals.

    Parameters
    ----------
    folder : Path
        Receives ``checkpoint{epoch}.pt``, ``best.pt`` and ``last.pt``.
    """

    def __init__(self, folder):
        self.folder = folder
        self.best = math.inf
        self.saved = time.monotonic()
        self.signal = None
        self.handlers = {}

    def state_dict(self):
        """
        Give what a resumed run must know.

        Returns
        -------
        dict
            The best validation loss so far.
        """
        return {"best": self.best}

    def load_state_dict(self, state):
        """
        Take back what :meth:`state_dict` gave.

        Parameters
        ----------
        state : dict
            What was saved.
        """
        self.best = state["best"]

    def on_train_start(self, trainer, module):
        """Let Ctrl-C and SIGTERM wait for the end of the step, then save."""

        def note(number, _):
            self.signal = number

        for number in (signal.SIGINT, signal.SIGTERM):
            self.handlers[number] = signal.signal(number, note)

    def teardown(self, trainer, module, stage):
        """Give Ctrl-C and SIGTERM back their meaning."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        """Save from time to time, and before stopping."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # The last batch of an epoch is saved with its validation loss instead.
        if not stepped or batch_idx + 1 == trainer.num_training_batches:
            return
        stopping = self._any(trainer, self.signal is not None)
        due = self._any(trainer, time.monotonic() - self.saved > SAVE_SECONDS)
        if due or stopping:
            self._save(trainer, "last.pt")
        if stopping:
            raise StoppedError

    def _any(self, trainer, flag):
        """Tell whether a flag is up in any process, so that all do the same."""
        return trainer.strategy.reduce_boolean_decision(flag, all=False)

    def on_train_epoch_end(self, trainer, module):
        """Save the epoch's curves and checkpoint, and the best one."""
        module.close_epoch()
        loss = float(trainer.callback_metrics["validation_loss"])
        better = loss < self.best
        self.best = min(loss, self.best)
        name = f"checkpoint{trainer.current_epoch}.pt"
        self._save(trainer, name)
        for copy in ("best.pt", "last.pt") if better else ("last.pt",):
            if trainer.is_global_zero:
                with atomic(self.folder / copy) as part:
                    shutil.copyfile(self.folder / name, part)
        if self._any(trainer, self.signal is not None):
            raise StoppedError

    def _save(self, trainer, name):
        """Save under a final name at once or not at all, and sound weights only."""
        if not all(p.isfinite().all() for p in trainer.lightning_module.parameters()):
            raise InputError(
                f"some weights are no numbers after step {trainer.global_step}; "
                f"{advice(self.folder)}"
            )
        if trainer.is_global_zero:
            with atomic(self.folder / name) as part:
                trainer.save_checkpoint(part)
        else:  # gives its share of what is saved, but writes nothing
            trainer.save_checkpoint(self.folder / name)
        self.saved = time.monotonic()

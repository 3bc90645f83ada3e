"""
Memory and time of transcribing hours of audio.

``python code/benchmarks/hours.py --data toy/data/full`` concatenates the test
recordings of a dataset to the durations of ``--hours``, transcribes each in its own
process with one thread, without and with the page, and writes
``report/results/hours.json``: the peak of resident memory, and the seconds of audio
transcribed per second of processor time, which includes start-up and reading the file.
Results for other durations are kept. Processor time is measured, since other load on
the machine changes the wall-clock time.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile
from cpc_step import RESULTS, machine, resources

from jtm.data.musicnet import open_dataset
from jtm.files import read_json, write_json

HOUR = 3600
"""Number of seconds in an hour."""


def concatenate(data, path, seconds):
    """
    Write test recordings one after the other, repeated as needed.

    Parameters
    ----------
    data : str or Path
        Path to the dataset.
    path : Path
        Path to the file to write, at the sample rate of the first recording.
    seconds : float
        Duration in seconds.
    """
    files = [recording.audio for recording in open_dataset(data).split("test")]
    rate = soundfile.info(files[0]).samplerate
    remaining = round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, 1) as out:
        for file in itertools.cycle(files):
            wave, _ = soundfile.read(file, frames=remaining, always_2d=True)
            out.write(wave.mean(axis=1))
            remaining -= len(wave)
            if not remaining:
                break


def transcribe(path, out, *options):
    """
    Transcribe a file in its own process.

    Parameters
    ----------
    path, out : Path
        Paths to the file and to the folder for its notes.
    *options : str
        Further options of the command.

    Returns
    -------
    tuple of float
        Peak of resident memory in bytes, and processor time in seconds.
    """
    command = [sys.executable, "-m", "jtm", "transcribe", path, "--out", out, *options]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    child = subprocess.Popen(map(str, command), env=os.environ | threads)
    status, *used = resources(child)
    if status:
        raise SystemExit(f"{path}: not transcribed")
    return tuple(used)


def main():
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="toy/data/full")
    parser.add_argument("--hours", type=float, nargs="+", default=[0.25, 1.0, 3.0])
    parser.add_argument("--weights", help="weights of the transcriber")
    options = parser.parse_args()
    weights = ("--weights", options.weights) if options.weights else ()
    file, rows = RESULTS / "hours.json", {}
    if file.exists():
        rows = {(row["hours"], row["page"]): row for row in read_json(file)["rows"]}
    with tempfile.TemporaryDirectory() as folder:
        for hours in options.hours:
            path = Path(folder) / f"{hours:g}h.wav"
            concatenate(options.data, path, hours * HOUR)
            for page in (False, True):
                out = Path(folder) / f"{hours:g}-{page}"
                flags = weights if page else (*weights, "--no-page")
                peak, seconds = transcribe(path, out, *flags)
                rows[hours, page] = {
                    "hours": hours,
                    "page": page,
                    "peak_bytes": peak,
                    "times_real_time": hours * HOUR / seconds,
                }
                print(rows[hours, page], flush=True)
                results = [rows[key] for key in sorted(rows)]
                write_json(file, {"rows": results, "machine": machine()})
            path.unlink()


if __name__ == "__main__":
    main()

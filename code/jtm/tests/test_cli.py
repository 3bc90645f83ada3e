"""Command line: help, error messages and exit codes."""

import contextlib
import errno
import io
import os
import subprocess
import sys
import tempfile
import time
import tomllib
import unittest
import warnings
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile

import jtm
from jtm import cli
from jtm.cli import train_main
from jtm.cpc import demo
from jtm.cpc.config import PretrainConfig
from jtm.data import check
from jtm.data.musicnet import Recording
from jtm.data.store import STORE_FOLDER
from jtm.files import InputError, write_json
from jtm.music import audio
from jtm.tests.cpc.test_run import write_tunes
from jtm.training.config import make_config

ROOT = Path(__file__).resolve().parents[3]


def in_process(*arguments):
    """Run ``python main.py`` in this process; return exit code and stderr."""
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = train_main([str(word) for word in arguments])
        except SystemExit as stop:  # argparse's own
            code = stop.code
    return code, output.getvalue()


def main(*arguments, cwd=None):
    """Run ``python main.py`` as a subprocess; return the completed process."""
    return subprocess.run(
        [sys.executable, ROOT / "main.py", *map(str, arguments)],
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
    )


class TestCommands(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def refused(self, message, *arguments):
        code, output = in_process(*arguments)
        self.assertEqual(code, 2, output)
        self.assertRegex(output, message)
        self.assertNotIn("Traceback", output)

    def test_help_is_quick_and_lists_original_flags(self):
        before = time.monotonic()
        done = main("--help")
        self.assertLess(time.monotonic() - before, 10)  # 2 s on a quiet machine
        for flag in ("--samplingType", "--useSincNet", "--maxChunksInMem", "--load"):
            self.assertIn(flag, done.stdout)
        for part, slow in (
            ("jtm.cli", ("torch", "lightning", "librosa")),
            ("jtm.retrieval.search", ("lightning", "music21")),  # and `jtm transcribe`
        ):
            code = f"import sys, {part}; print([m for m in {slow} if m in sys.modules])"
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT / "code", capture_output=True
            )
            self.assertEqual(done.stdout.strip(), b"[]")

    def test_input_errors_are_one_line_with_exit_code_2(self):
        empty = self.folder / "empty"
        empty.mkdir()
        self.refused("none: no such folder", "--data", self.folder / "none")
        self.refused("empty: no audio file found", "--data", empty)
        self.refused("expected 'uniform'", "--samplingType", "random")
        self.refused("'many'; expected a whole number", "--batchSize", "many")
        self.refused("expected 'conv', 'sinc'", "--encoderType", "mlp")
        self.refused("'1e400'; expected a whole number", "--chunkSize", "1e400")
        self.refused("'1.5e0'; expected a whole number", "--nEpoch", "1.5e0")
        self.refused("--learningRate is nan; expected a fin", "--learningRate", "nan")
        self.refused("--onEncoder has no effect without --superv", "--onEncoder")
        self.refused("--nPredicts has no effect", "--supervised", "--nPredicts", 3)
        (self.folder / "x.pt").touch()
        options = ("--supervised", "--load", self.folder / "x.pt")
        self.refused("--arMode has no effect with", *options, "--arMode", "LSTM")
        zero = self.folder / "zero"
        zero.mkdir()
        (zero / "silent.wav").touch()
        self.refused(
            "silent.wav: is empty",
            *("--data", zero, "--pathCheckpoint", self.folder / "run"),
        )
        self.assertFalse((self.folder / "run").exists())

    def test_input_errors_precede_generation_of_toy_data(self):
        run, file = self.folder / "run", self.folder / "file"
        run.mkdir()
        config = make_config(PretrainConfig, "small", {"hidden_gar": 77})
        write_json(run / "config.json", asdict(config))
        (run / "last.pt").touch()
        file.touch()
        with mock.patch("jtm.cli._default_data", side_effect=AssertionError):
            self.refused("--hiddenGar 77, not 32", "--pathCheckpoint", run)
            self.refused("cannot be written", "--pathCheckpoint", file / "run")
            load = ("--load", self.folder / "none.pt")
            self.refused("none.pt: no such file", *load)
            self.refused("none.pt: no such file", "--supervised", *load)

    def test_argparse_errors_are_one_line_with_a_suggestion(self):
        for words, message in (
            (
                "transcirbe x",
                "no command 'transcirbe'; did you mean transcribe.*see jtm",
            ),
            ("melody", "the following arguments are required: FILE .see jtm melody"),
            ("melody x --store y", "unrecognized arguments: --store y .see jtm mel"),
            ("train --neg 3", "--neg 3; did you mean --negativeSamplingExt"),
            ("train --nEpoch", "--nEpoch: expected one argument .see jtm train"),
            ("embed x --out y --layer q", "--layer: invalid choice: 'q'"),
        ):
            with contextlib.redirect_stderr(io.StringIO()) as output:
                with self.assertRaises(SystemExit) as stop:
                    cli.main(words.split())
            self.assertEqual(stop.exception.code, 2)
            self.assertRegex(output.getvalue(), rf"\Ajtm: .*{message}.* --help\)\n\Z")
        for script in ("main.py", "toy/generate.py", "toy/pairs.py"):
            done = subprocess.run(
                [sys.executable, ROOT / script, "--nothing"],
                capture_output=True,
                text=True,
            )
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr, r"\Ajtm: .*\.py --help\)\n\Z")

    def test_missing_paths_are_reported_before_slow_imports(self):
        (self.folder / "b.pt").touch()
        folder = str(self.folder)
        verbs = {verb: (self.fail, each[1]) for verb, each in cli.VERBS.items()}
        self.enterContext(mock.patch.dict(cli.VERBS, verbs))
        data = ("--data", folder)
        for words, message in (
            (("train", "--data", "none"), "none: no such folder"),
            (("train", "--also", f"{folder},none"), "none: no such folder"),
            (("check-data", "none"), "none: no such folder"),
            (("index", "none", "--out", "x"), "none: no such folder"),
            (("check-data", f"{folder}/b.pt"), "b.pt: is a file; expected a folder"),
            (("train", "--load", folder), "is a folder; expected a file"),
            (("index", folder, "--out", folder), "is a folder; expected a file"),
            (("index", folder, "--out", f"{folder}/b.pt/x"), "b.pt: is a file, or lie"),
            (("demo", "--out", f"{folder}/b.pt"), "b.pt: is a file, or lies in one"),
            (("train", "--load", f"{folder}/a.pt"), "no such file; there are b.pt"),
            (("benchmark", *data, "--load", "a.pt"), "a.pt: no such file"),
            (("inside", "--data", "none", "--load", "a.pt"), "none: no such folder"),
            (("export", "--load", "a.pt", "--out", "x"), "a.pt: no such file"),
            (("identify", folder), "is a folder; expected an audio file"),
            (("melody", "none.wav"), "none.wav: no such file"),
            (("transcribe", "none.wav", "--out", "x"), "none.wav: no such file or"),
        ):
            with contextlib.redirect_stderr(io.StringIO()) as output:
                self.assertEqual(cli.main([*words]), 2, words)
            self.assertRegex(output.getvalue(), rf"\Ajtm: .*{message}")

    def test_demos_of_both_presets_have_folders_of_their_own(self):
        used = []

        def record(preset, out, weights):
            used.append(out)
            raise InputError("enough")

        with mock.patch.object(demo, "demo", record):
            for preset in ("tiny", "small"):
                with contextlib.redirect_stderr(io.StringIO()):
                    cli.main(["demo", "--preset", preset])
        self.assertEqual(used, ["logs/demo-tiny", "logs/demo"])

    def test_demo_of_another_preset_is_refused_before_synthesis(self):
        run = self.folder / "pretraining"
        config = make_config(PretrainConfig, "tiny", {"n_epoch": demo.EPOCHS})
        write_json(run / "config.json", asdict(config))
        (run / "last.pt").touch()
        self.enterContext(mock.patch.object(demo, "toy_data", self.fail))
        with contextlib.redirect_stderr(io.StringIO()) as output:
            self.assertEqual(cli.main(["demo", "--out", str(self.folder)]), 2)
        self.assertRegex(output.getvalue(), r"holds a run with .*another --out\n\Z")

    def test_commands_that_need_a_checkout_say_so(self):
        self.enterContext(mock.patch("jtm.cli.ROOT", self.folder))
        self.enterContext(mock.patch("jtm.data.toyset.ROOT", self.folder))
        for verb, out in (("report", ()), ("demo", ("--out", self.folder / "out"))):
            with contextlib.redirect_stderr(io.StringIO()) as output:
                self.assertEqual(cli.main([verb, *map(str, out)]), 2)
            message = rf"\Ajtm: jtm {verb} needs a checkout of the repository.*\n\Z"
            self.assertRegex(output.getvalue(), message)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_file_names_with_a_leading_dash(self):
        self.enterContext(contextlib.chdir(self.folder))
        for words in ("melody -dash.wav", "embed --out x a.wav -dash.wav"):
            for exists in (False, True):
                with contextlib.redirect_stderr(io.StringIO()) as output:
                    with self.assertRaises(SystemExit):
                        cli.main(words.split())
                hint = "; write ./-dash.wav" in output.getvalue()
                self.assertEqual(hint, exists, output.getvalue())
                Path("-dash.wav").touch()
            Path("-dash.wav").unlink()

    def test_version_equals_that_of_pyproject(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        self.assertEqual(jtm.__version__, project["project"]["version"])
        with contextlib.redirect_stdout(io.StringIO()) as output:
            with self.assertRaises(SystemExit):
                cli.main(["--version"])
        self.assertEqual(output.getvalue(), f"jtm {jtm.__version__}\n")

    def test_closed_pipe_causes_no_traceback(self):
        for words in ("--help", "--data nowhere"):
            command = f"{sys.executable} {ROOT / 'main.py'} {words} | true"
            done = subprocess.run(command, shell=True, capture_output=True, text=True)
            self.assertNotIn("Error", done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    def test_output_that_cannot_be_written_causes_no_traceback(self):
        soundfile.write(self.folder / "a.wav", np.ones(16_000) / 9, 16_000)
        jtm_check = f"{sys.executable} -m jtm check-data {self.folder}"
        full = "\njtm: refused by the system: unexpected OSError"
        for end, code, message in (
            (">&-", 0, ""),
            (">&- 2>&-", 0, ""),
            (">/dev/full", 1, full),
        ):
            if "full" in end and not Path("/dev/full").exists():
                continue
            done = subprocess.run(
                f"{jtm_check} {end}",
                shell=True,
                env=os.environ | {"PYTHONPATH": str(ROOT / "code")},
                capture_output=True,
                text=True,
            )
            self.assertNotIn("Traceback", done.stderr, end)
            self.assertIn(message, done.stderr, end)
            self.assertEqual(done.returncode, code, end)

    def test_ctrl_c_during_setup_is_reported_in_one_line(self):
        script = (
            "import os, signal, sys, threading\n"
            "from jtm import cli\n"
            # Processes that a shell starts in the background ignore SIGINT.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "def data(preset):\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "    threading.Event().wait(60)\n"
            "cli._default_data = data\n"
            "sys.exit(cli.train_main([]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT / "code")},
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertRegex(done.stderr, "^jtm: stopped")
        self.assertNotIn("Traceback", done.stderr)

    def test_ctrl_c_during_imports_is_reported_in_one_line(self):
        (self.folder / "numpy.py").write_text("raise KeyboardInterrupt\n")
        scripts = ("main.py", "toy/generate.py", "toy/pairs.py")
        for words in (["-m", "jtm"], *([ROOT / script] for script in scripts)):
            done = subprocess.run(
                [sys.executable, *words],
                env=os.environ | {"PYTHONPATH": f"{self.folder}:{ROOT / 'code'}"},
                capture_output=True,
                text=True,
            )
            self.assertEqual(done.returncode, 130, done.stderr)
            self.assertRegex(done.stderr, r"\A(jtm: stopped|interrupted)\n\Z")

    def test_pretraining_on_a_folder_of_recordings(self):
        audio = self.folder / "audio" / "deep"
        audio.mkdir(parents=True)
        write_tunes(audio)
        options = ("--preset", "tiny", "--data", self.folder / "audio", "--nEpoch", 1)
        done = main(*options, "--useSincNet", cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        shown = r"Pretraining: 100%.*00:00.*loss \d.*accuracy 0\.\d.*\d+ audio seconds"
        self.assertRegex(done.stderr, shown)
        self.assertTrue((self.folder / "logs" / "checkpoint0.pt").exists())

    def test_file_names_outside_the_terminal_encoding(self):
        audio = os.fsencode(self.folder / "audio")
        os.mkdir(audio)
        rng = np.random.default_rng(0)
        for name in (b"caf\xe9.wav", b"good.wav", b"x" * 237 + b".wav"):
            path = os.path.join(audio, name)
            soundfile.write(path, 0.1 * rng.standard_normal(48_000), 16_000)
        (self.folder / "audio" / "gone.wav").symlink_to("nowhere")
        cache = str(self.folder / "cache")
        self.enterContext(mock.patch.dict(os.environ))
        out = self.folder / "\u00e9crit"
        for command in (
            ("check-data", os.fsdecode(audio)),
            ("embed", os.fsdecode(audio), "--out", str(out)),
            ("embed", os.path.join(os.fsdecode(audio), "caf\udce9.wav"), "--out", "o"),
            ("train", "--preset", "tiny", "--nEpoch", "1", "--data", os.fsdecode(audio))
            + ("--pathCheckpoint", str(self.folder / "caf\u00e9"), "--store", cache),
        ):
            output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                with contextlib.chdir(self.folder), warnings.catch_warnings():
                    code = cli.main([*command])
            output.seek(0)
            self.assertEqual(code, 0, shown := output.read())
            whole = command[0] == "train" or command[1] == os.fsdecode(audio)
            self.assertEqual(shown.count("broken links"), whole, shown)
        self.assertEqual(len(list(Path(cache).rglob("*.s16"))), 3)
        self.assertFalse((self.folder / "audio" / STORE_FOLDER).exists())
        self.assertEqual(len(list(out.glob("*.npz"))), 3)

    def test_library_error_in_one_file_does_not_end_the_batch(self):
        for name in "abc":
            path, rate = self.folder / "audio" / f"{name}.wav", 16_000
            path.parent.mkdir(exist_ok=True)
            soundfile.write(
                path, 0.1 * np.random.default_rng(0).normal(size=rate), rate
            )

        def blocks(path, *rate):
            if "b.wav" in str(path):
                raise LookupError("a fault of a library")
            return whole(path, *rate)

        whole = audio.blocks
        self.enterContext(mock.patch.object(audio, "blocks", blocks))
        one = Recording("b", self.folder / "audio" / "b.wav", None, "unlabelled")
        [problem] = check._measure_recording(one).problems  # workers have no mock
        self.assertRegex(problem, "audio/b.wav: unexpected LookupError: a f")
        for verb, options, code in (
            ("embed", ("--out", str(self.folder / "out")), 1),
            ("train", ("--pathCheckpoint", str(self.folder / "run"), "--data"), 2),
        ):
            with contextlib.redirect_stderr(output := io.StringIO()):
                with contextlib.redirect_stdout(output):
                    exit_code = cli.main([verb, *options, str(self.folder / "audio")])
            self.assertEqual(exit_code, code, output.getvalue())
            self.assertRegex(
                output.getvalue(), "audio/b.wav: unexpected LookupError: a f"
            )
        self.assertEqual(len(list((self.folder / "out").glob("*.npz"))), 2)
        self.assertEqual(len(list(self.folder.rglob("*.s16"))), 2)

    def test_crash_is_one_line_and_debug_shows_the_traceback(self):
        def crash(options):
            """Divide by zero."""
            return 1 // 0

        options = cli.VERBS["check-data"][1]
        with mock.patch.dict(cli.VERBS, {"check-data": (crash, options)}):
            output = io.StringIO()
            with contextlib.redirect_stderr(output):
                self.assertEqual(cli.main(["check-data", "."]), 1)
            self.assertRegex(
                output.getvalue(), r"\Ajtm: a fault .* ZeroDiv.*debug.*\n\Z"
            )
            with self.assertRaises(ZeroDivisionError):
                cli.main(["check-data", ".", "--debug"])

    def test_operating_system_errors_are_reported_as_such(self):
        def write(options):
            """Raise the error of a read-only disk."""
            raise OSError(errno.EROFS, "Read-only file system")

        options = cli.VERBS["check-data"][1]
        with mock.patch.dict(cli.VERBS, {"check-data": (write, options)}):
            output = io.StringIO()
            with contextlib.redirect_stderr(output):
                self.assertEqual(cli.main(["check-data", "."]), 1)
        self.assertRegex(output.getvalue(), r"\Ajtm: refused by the system: .*\n\Z")


if __name__ == "__main__":
    unittest.main()

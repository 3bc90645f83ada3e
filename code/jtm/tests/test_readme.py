"""The Python and command lines of the README and the pages it links to run."""

import contextlib
import functools
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch

import jtm
from jtm import cli
from jtm.tests.test_embedding import music
from jtm.transcriber import model

PAGES = ("README.md", "code/jtm/weights/README.md", "code/jtm/training/README.md")
PAGE = "\n".join((cli.ROOT / p).read_text(encoding="utf-8") for p in PAGES)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHELL = re.findall(r"^    ((?:make|python|jtm|torchrun) .*)", PAGE, re.MULTILINE)
SHELL += re.findall(r"`((?:make|python|jtm) (?!-m jtm`)[^`]*)`", PAGE)
SHELL += re.findall(r"^srun \S+ (python .*)", PAGE, re.MULTILINE)


class TestReadme(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(contextlib.chdir(self.folder))

    def test_python_lines_that_transcribe_run(self):
        soundfile.write("song.wav", music(2.0, 44_100, 2).T, 44_100)  # stereo
        exec(PYTHON[0], names := {})
        self.assertTrue(Path("song.mid").stat().st_size)
        self.assertEqual(len(names["embedding"]), len(names["times"]))

    def test_python_lines_that_embed_run(self):
        soundfile.write("song.wav", music(2.0, 44_100, 2).T, 44_100)  # stereo
        exec(PYTHON[1], names := {})
        self.assertEqual(names["embedding"].shape, (100, jtm.load_model().z_dim))
        self.assertEqual(names["c"].shape[:2], (1, 50))

    def test_python_lines_that_fine_tune_reduce_the_loss(self):
        rng = np.random.default_rng(0)
        for number in range(6):
            for name, wave in (
                ("tones", music(1.1, 16_000, seed=number)[0]),
                ("noise", 0.1 * rng.standard_normal(17_600)),
            ):
                path = self.folder / "sounds" / name / f"{number}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, wave, 16_000)
        fewer = PYTHON[2].replace("(100, 8)", "(12, 8)")
        self.assertNotEqual(fewer, PYTHON[2])
        torch.manual_seed(0)
        exec(fewer, names := {})
        self.assertEqual(list(names["classes"]), ["noise", "tones"])
        self.assertLess(names["loss"].item(), 0.2)  # by chance 0.69
        start = jtm.load_model().state_dict()
        for name, weights in names["model"].named_parameters():
            self.assertFalse(torch.equal(weights, start[name]), name)

    def test_python_lines_that_average_transcribers_run(self):
        shipped = model.load().network.state_dict()
        for name, change in (("fourth", 0.1), ("sixth", -0.1)):
            changed = model.load()
            weights = {n: x + change for n, x in shipped.items()}
            changed.network.load_state_dict(weights)
            facts = changed.network, changed.config, changed.thresholds
            model.save(f"{name}.safetensors", *facts)
        exec(PYTHON[3], {})
        mean = model.load("transcriber.safetensors").network.state_dict()
        for name, weights in shipped.items():
            torch.testing.assert_close(mean[name], weights, atol=1e-6, rtol=1e-5)

    def test_python_lines_that_render_a_score_run(self):
        page = (cli.ROOT / "toy" / "README.md").read_text(encoding="utf-8")
        [lines] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        with mock.patch("sys.path", [str(cli.ROOT / "toy"), *sys.path]):
            exec(lines, names := {})
        self.assertGreater(np.abs(names["wave"]).max(), 10_000)
        self.assertEqual(set(names["notes"].programs), {1, 41, 43})

    def test_all_python_blocks_are_tested(self):
        self.assertEqual(len(PYTHON), 4)

    def test_every_command_line_is_parsed(self):
        """Run each line up to the function of its command."""
        self.assertGreater(len(SHELL), 20)
        started = []
        self.enterContext(mock.patch.object(cli, "_check_paths"))
        for verb, (function, options) in cli.VERBS.items():
            start = functools.update_wrapper(lambda o: started.append(o), function)
            self.enterContext(mock.patch.dict(cli.VERBS, {verb: (start, options)}))
        for line in SHELL:
            with self.subTest(line):
                words = shlex.split(re.sub(r"\\\|\S*", "", line), comments=True)
                if words[0] == "jtm" and len(words) == 2:  # a mention, not an example
                    self.assertIn(words[1], cli.VERBS)
                    continue
                if words[0] == "make":
                    done = subprocess.run(
                        ["make", "-n", *words[1:]], cwd=cli.ROOT, capture_output=True
                    )
                    self.assertEqual(done.returncode, 0, done.stderr)
                    continue
                script = next((w for w in words if w.endswith(".py")), None)
                if script and script != "main.py":
                    self.assertTrue((cli.ROOT / script).is_file())
                    continue
                before = len(started)
                with contextlib.redirect_stdout(io.StringIO()) as output:
                    try:
                        if script:
                            after = words[words.index(script) + 1 :]
                            self.assertEqual(cli.train_main(after), 0)
                        else:
                            after = words[1 + 2 * (words[0] == "python") :]
                            self.assertEqual(cli.main(after), 0)
                    except SystemExit as end:  # of --help
                        self.assertEqual(end.code, 0)
                        self.assertIn("usage:", output.getvalue())
                        continue
                self.assertEqual(len(started), before + 1)

    def test_quick_command_lines_run(self):
        """Run the lines for a user's recordings on two of them."""
        home, song = self.folder / "home", music(2.0, 16_000)[0]
        (home / "recordings").mkdir(parents=True)
        self.enterContext(mock.patch.dict(os.environ, HOME=str(home)))
        for name in ("a", "b"):
            soundfile.write(home / "recordings" / f"{name}.wav", song, 16_000)
        quick = ("~/recordings", "jtm embed FILES_OR_", "jtm export --load CHECKPOINT")
        lines = [line for line in SHELL if any(word in line for word in quick)]
        self.assertEqual(len(lines), 3, lines)
        self.assertIn("main.py", lines[0])  # the others use what it writes
        for line in lines:
            line = line.replace("FILES_OR_FOLDERS...", "~/recordings")
            line = line.replace("CHECKPOINT", "logs/recordings/checkpoint0.pt")
            line = os.path.expandvars(line.replace("~", "$HOME"))
            words = shlex.split(line)
            with contextlib.redirect_stdout(io.StringIO()):
                if words[0] == "python":
                    smaller = ("--preset", "tiny", "--nEpoch", "1")
                    code = cli.train_main([*words[2:], *smaller])
                else:
                    code = cli.main(words[1:])
            self.assertEqual(code, 0, line)
        self.assertEqual(len(list(Path("DIR").glob("*.npz"))), 2)
        self.assertIsNotNone(jtm.load_model("FILE.safetensors"))
        shutil.rmtree(home)

    def test_code_readme_names_existing_files_and_tables(self):
        page = (cli.ROOT / "code" / "README.md").read_text(encoding="utf-8")
        named = set(re.findall(r"`((?:jtm|examples|benchmarks)/[^`]*)`", page))
        for name in named:
            self.assertTrue((cli.ROOT / "code" / name).exists(), name)
        folders = {p.parent.name for p in cli.ROOT.glob("code/jtm/*/__init__.py")}
        self.assertLessEqual({f"jtm/{name}/" for name in folders}, named)
        for table, name in re.findall(r"of `([A-Z_]+)` in `([^`]*)`", page):
            code = (cli.ROOT / "code" / name).read_text(encoding="utf-8")
            self.assertRegex(code, rf"(?m)^{table} = ")

    def test_minutes_of_the_readme_equal_those_of_the_help(self):
        time = re.search(r"about \w+ minutes on two cores", " ".join(PAGE.split()))[0]
        with contextlib.redirect_stdout(io.StringIO()) as output:
            with self.assertRaises(SystemExit):
                cli.main(["demo", "--help"])
        self.assertIn(time, " ".join(output.getvalue().split()))


if __name__ == "__main__":
    unittest.main()

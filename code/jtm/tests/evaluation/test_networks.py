"""Networks of the grid: what they see, where they start, which state counts."""

import contextlib
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch.nn import BatchNorm1d, Dropout

from jtm.cpc.config import PretrainConfig
from jtm.data.musicnet import open_dataset
from jtm.data.store import build_store
from jtm.evaluation import networks, tasks
from jtm.evaluation.labelled import Labelled, clip_store
from jtm.evaluation.metrics import average_precision
from jtm.models.encoder import HarmonicEncoder
from jtm.models.heads import (
    FrameHead,
    OctaveHead,
    PitchHead,
    PooledHead,
    Standard,
    TranscriptionHead,
)
from jtm.models.network import make_network
from jtm.tests.evaluation.little import SMALL, write_clips, write_dataset
from jtm.training.config import make_config
from jtm.training.finetune import SupervisedModule
from jtm.training.loop import Plan

HARMONIC = {"hidden_encoder": 1, "hidden_context": 88}


class Heads(unittest.TestCase):
    def test_on_an_axis_of_pitch_they_are_shared_along_it(self):
        model = make_network(**HARMONIC)
        plain = make_network("conv", 24, hidden_context=16)
        expected = {
            "multipitch": (PitchHead, FrameHead),
            "transcription": (PitchHead, TranscriptionHead),
            "who_plays_what": (PitchHead, TranscriptionHead),
            "note_pitch": (PitchHead, FrameHead),
            "instrument_activity": (OctaveHead, FrameHead),
            "ensemble": (OctaveHead, FrameHead),
        }
        for task, kinds in expected.items():
            for network, kind in zip((model, plain), kinds, strict=True):
                shape = tasks.TASKS[task].shape or (88,)
                head = networks.make_head(task, shape, network)
                inner = head.head if isinstance(head, PooledHead) else head
                self.assertIs(type(inner), kind, task)
                x = torch.zeros(2, 128, network.z_dim + network.c_dim)
                shapes = {
                    "multipitch": (2, 128, 88),
                    "transcription": (2, 128, 2, 88),
                    "instrument_activity": (2, 128, 11),
                    "who_plays_what": (2, 128, 12, 88),
                }
                self.assertEqual(head(x).shape, shapes.get(task, (2, 88)))
        tuned = networks.make_head("transcription", (2, 88), model, True, tuned=True)
        self.assertEqual(tuned(torch.zeros(2, 9, 264)).shape, (2, 9, 2, 88))
        self.assertIsNotNone(tuned.time)

    def test_the_budget_is_larger_with_all_labels(self):
        found = [networks.steps(fraction) for fraction in (0.001, 0.1, 1.0)]
        self.assertEqual(found, [300, 300, 600])


class OnDataset(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        root = Path(folder.name)
        write_dataset(root)
        write_clips(root)
        cls.store = build_store(open_dataset(root), progress=False)
        cls.clips = clip_store(root, progress=False)
        cls.config = make_config(PretrainConfig, "tiny", SMALL)

    def labelled(self, *names):
        stores = {"clips": self.clips}
        return {
            name: Labelled.of(stores.get(tasks.TASKS[name].unit, self.store), name)
            for name in names
        }

    def test_a_task_sees_no_label_but_its_own(self):
        family = networks.Family(self.labelled("ensemble", "instrument"), 0.2, 0)
        seen = {
            task: set(map(tuple, rows.tolist()))
            for task, rows in family.subsets.items()
        }
        # Of 18 windows four each, drawn alike or not.
        self.assertEqual([len(rows) for rows in seen.values()], [4, 4])
        self.assertEqual(
            set(map(tuple, family.windows.tolist())), set().union(*seen.values())
        )
        with mock.patch.dict(family._train, {"instrument": set()}):
            for unit in family.windows.tolist():
                wave, asked = family.read(*unit)
                self.assertEqual(wave.shape, (1, 160 * 160))
                self.assertEqual(
                    asked["ensemble"] >= 0, tuple(unit) in seen["ensemble"]
                )
                self.assertEqual(asked["instrument"], -1)

    def test_a_window_is_heard_as_in_its_recording(self):
        whole = networks.read_wave(self.store, 0, 0, 400)[0]
        self.assertEqual(len(whole), 64_000)
        within = networks.read_wave(self.store, 0, 200, 128, 16)[0]
        np.testing.assert_array_equal(within, whole[184 * 160 : 344 * 160])
        early = networks.read_wave(self.store, 0, 10, 128, 16)[0]
        self.assertEqual(np.abs(early[: 6 * 160]).max(), 0)
        np.testing.assert_array_equal(early[6 * 160 :], whole[: 154 * 160])
        late = networks.read_wave(self.store, 0, 272, 128, 16)[0]
        np.testing.assert_array_equal(late[: 144 * 160], whole[256 * 160 :])
        self.assertEqual((len(late), np.abs(late[144 * 160 :]).max()), (25_600, 0))
        # At the edges too, z is what streaming the recording gives, in training and
        # where heads are fitted.
        model = make_network(**HARMONIC).eval()
        family = networks.Family(self.labelled("ensemble"), 1.0, 0)
        (index, first), edge = (0, 128), networks.EDGE["windows"]
        ((_, streamed),) = networks.represent(self.store, [index], model)
        module = SupervisedModule(
            Plan(1),
            model,
            torch.nn.ModuleDict({"ensemble": torch.nn.Identity()}),
            *([], []),
            rate=0.0,
            edge=edge,
        )
        wave, _ = family.read(index, first)
        with torch.no_grad():
            given = module(torch.from_numpy(wave)[None])["ensemble"][0]
        units = np.array([(index, first)])
        (((fitted, _),),) = networks._embed(model, units, family.read, edge)
        for x in (given, fitted):
            self.assertEqual(len(x), 128)
            z = x[:, : model.z_dim].numpy()
            np.testing.assert_allclose(z, streamed[128:256, : model.z_dim], atol=1e-4)

    def test_frames_are_asked_about_where_the_window_is(self):
        labelled = self.labelled("multipitch", "transcription")
        family = networks.Family(labelled, 1.0, 0)
        index, first = family.windows[1].tolist()
        _, asked = family.read(index, first)
        self.assertEqual(first, 128)
        whole = labelled["multipitch"].rolls(index, 400)[128:256]
        np.testing.assert_array_equal(asked["multipitch"], whole)
        np.testing.assert_array_equal(asked["transcription"][:, 0], whole)

    def test_a_clip_is_heard_from_before_its_onset_and_padded(self):
        family = networks.Family(self.labelled("note_pitch"), 1.0, 0)
        wave, asked = family.read(*family.windows[0])
        self.assertEqual(wave.shape, (1, networks.CLIP_FRAMES * 160))
        self.assertEqual(np.abs(wave[0, :1_600]).max(), 0.0)
        self.assertGreater(np.abs(wave[0, 1_600:1_760]).max(), 0.01)
        short = networks.read_wave(self.clips, family.windows[0][0], 0, 100)
        self.assertEqual(short.shape, (1, 16_000))
        self.assertEqual(np.abs(short[0, 9_600:]).max(), 0.0)

    def test_heads_start_as_probes(self):
        for names, least in (
            (("multipitch", "instrument_activity"), 0.5),
            (("ensemble", "instrument"), 0.9),
            (("note_instrument",), 0.9),
        ):
            labelled = self.labelled(*names)
            family = networks.Family(labelled, 1.0, 0)
            begun = networks.start(family, None, self.config, 0)
            found = networks.answers(begun.model, begun.heads, labelled, "test")
            for name, each in labelled.items():
                answers = found[name, "test"]
                scores, _ = each.task.score(each, "test", answers, {"threshold": 0})
                self.assertGreater(scores[0]["value"], least, name)
                self.assertGreater(begun.look["score"][name], least, name)

    def test_heads_are_fitted_to_labelled_windows_and_judged_by_validation(self):
        family = networks.Family(self.labelled("ensemble", "instrument"), 1.0, 0)
        real, seen = networks.Family.read, {False: set(), True: set()}

        def read(family, index, first, held_out=False):
            seen[held_out].add((int(index), int(first)))
            return real(family, index, first, held_out)

        begun = networks.start(family, None, self.config, 0)
        few = {"windows": 3}
        with (
            mock.patch.object(networks.Family, "read", read),
            mock.patch.object(networks, "PROBED", few),
            mock.patch.object(
                networks.probes, "fit_head", side_effect=networks.probes.fit_head
            ) as fit,
        ):
            networks.fit_heads(family, begun.model, begun.heads)
        asked = [family.subsets[task][:3] for task in family.subsets]
        expected = set(map(tuple, np.concatenate(asked).tolist()))
        self.assertEqual(seen[False], expected)
        self.assertEqual(seen[True], set(map(tuple, family.held_out.tolist())))
        for call in fit.call_args_list:
            _, train, validation = call.args
            self.assertEqual(len(train[0]), len(train[1]))
            self.assertLess(len(train[0]), len(expected) + 1)
            self.assertEqual(len(validation[1]), len(family.held_out))

    def test_the_network_starts_where_it_is_told(self):
        family = networks.Family(self.labelled("note_instrument"), 1.0, 0)
        chance = networks.start(family, None, self.config, 0).model
        other = networks.start(family, None, self.config, 1).model
        kept = networks.start(family, other, self.config, 0).model
        name = "context.net.weight_hh_l0"
        states = [model.state_dict()[name] for model in (chance, other, kept)]
        self.assertFalse(torch.equal(states[0], states[1]))
        self.assertTrue(torch.equal(states[1], states[2]))

    def train(self, family, config):
        """Train for a few steps; give the run and the modes of its layers."""
        begun = networks.start(family, None, config, 0)
        modes, loss = {"train": set(), "validation": set()}, SupervisedModule.loss

        def watched(module, batch, split, step):
            modes[split] |= {
                (type(part), part.training)
                for part in module.modules()
                if part != module
            }
            return loss(module, batch, split, step)

        with (
            mock.patch.multiple(networks, steps=lambda fraction: 4, LOOKS=2),
            mock.patch.object(SupervisedModule, "loss", watched),
        ):
            plan = {"fraction": 1.0, "seed": 0, "rate": 1e-3}
            folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
            return networks.train(folder, family, begun, "", config, plan), modes

    def test_layers_are_in_training_while_they_learn_but_what_is_fixed_stays(self):
        config = replace(self.config, norm_mode="batchNorm")
        family = networks.Family(self.labelled("multipitch", "transcription"), 1.0, 0)
        module, modes = self.train(family, config)
        for kind, training in ((BatchNorm1d, True), (Dropout, True), (Standard, False)):
            self.assertIn((kind, training), modes["train"])
            if kind is not Standard:  # a head that is no probe has one that learns
                self.assertNotIn((kind, not training), modes["train"])
        self.assertEqual({training for _, training in modes["validation"]}, {False})
        self.assertFalse(any(part.training for part in module.modules()))

    def test_the_harmonic_network_learns_alike_in_either_mode(self):
        # Several threads add up in no fixed order.
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        config = make_config(PretrainConfig, "small", {})
        family = networks.Family(self.labelled("multipitch", "transcription"), 1.0, 0)
        states = []
        for training in (True, False):
            with contextlib.ExitStack() as stack:
                if not training:
                    still = mock.patch.object(SupervisedModule, "train")
                    stack.enter_context(still)
                module, modes = self.train(family, config)
            self.assertIn((HarmonicEncoder, training), modes["train"])
            states.append(module.state_dict())
        for name, value in states[0].items():
            self.assertTrue(torch.equal(value, states[1][name]), name)

    def test_answers_are_those_of_the_head_on_the_judged_part(self):
        labelled = self.labelled("multipitch", "transcription")
        labelled["transcription"].lengths["test"] = 200
        model = make_network("sinc", 8, hidden_context=8).eval()
        heads = networks.make_heads(labelled, model, 0).eval()
        found = networks.answers(model, heads, labelled, "test")
        index = labelled["multipitch"].splits["test"][1]
        [(_, x)] = networks.represent(self.store, [index], model)
        x = torch.from_numpy(x)
        self.assertEqual(x.shape, (400, 16))
        with torch.no_grad():
            frames = heads["multipitch"](x[8::16])
            notes = heads["transcription"](x[None, :200])[0]
        np.testing.assert_allclose(found["multipitch", "test"][1], frames, atol=1e-4)
        np.testing.assert_allclose(found["transcription", "test"][1], notes, atol=1e-4)

    def test_no_clips_no_answers(self):
        labelled = self.labelled("note_pitch")
        labelled["note_pitch"].splits["test_timbre"] = []
        model = make_network(**HARMONIC).eval()
        heads = networks.make_heads(labelled, model, 0).eval()
        found = networks.answers(model, heads, labelled, "test_timbre")
        self.assertEqual(found, {("note_pitch", "test_timbre"): []})

    def test_recordings_side_by_side_are_as_one_after_the_other(self):
        model = make_network(**HARMONIC).eval()
        indices = range(len(self.store.lengths))
        lengths = [100 + 50 * (i % 2) for i in indices]
        for reverse in (False, True):
            model.reverse = reverse
            found = dict(
                networks.represent(self.store, indices, model, lengths=lengths)
            )
            self.assertEqual(sorted(found), list(indices))
            for index in indices:
                alone = networks.represent(
                    self.store, [index], model, lengths=[lengths[index]]
                )
                ((_, x),) = alone
                self.assertEqual(len(x), lengths[index])
                np.testing.assert_allclose(found[index], x, atol=1e-5)


class Looks(unittest.TestCase):
    def test_all_frames_of_validation_are_scored(self):
        rng = np.random.default_rng(0)
        truth = rng.random((3, 128, 2, 88)) < 0.1
        right, logits = 2.0 * truth, rng.normal(size=truth.shape)
        logits[:, :2] = right[:, :2]  # right in the first frames alone
        frames = average_precision(truth[:, :, 0], logits[:, :, 0])
        starts = average_precision(truth[:, :, 1], logits[:, :, 1])
        self.assertLess(frames, 0.3)
        truth = truth.astype(np.float32)
        self.assertAlmostEqual(networks.score(logits[:, :, 0], truth[:, :, 0]), frames)
        self.assertAlmostEqual(networks.score(logits, truth), (frames + starts) / 2)
        self.assertEqual(networks.score(right, truth), 1.0)
        classes = networks.score(np.eye(4)[[0, 1, 2, 2]], np.array([0, 1, 2, 3]))
        self.assertEqual(classes, 0.75)

    def test_the_best_look_on_the_mean_counts_and_of_equals_the_first(self):
        curve = [
            {"score": {"a": a, "b": b}}
            for a, b in ((0.9, 0.9), (0.1, 0.9), (0.6, 0.8), (0.8, 0.6))
        ]  # the first is the start
        score, look = networks.best_look(SimpleNamespace(curve=curve))
        self.assertAlmostEqual(score, 0.7)
        self.assertEqual(look, 2)

    def test_each_task_settles_on_what_validation_has_best(self):
        def linear(value):
            layer = torch.nn.Linear(1, 1, bias=False)
            torch.nn.init.constant_(layer.weight, value)
            return layer

        def heads(value):
            return torch.nn.ModuleDict({name: linear(value) for name in "abc"})

        with tempfile.TemporaryDirectory() as folder:
            for look in range(2):
                state = {"model.weight": torch.full((1, 1), float(look))}
                for name in "abc":
                    state[f"head.{name}.weight"] = torch.full((1, 1), float(look))
                content = {"state_dict": state, "config": {}}
                torch.save(content, Path(folder) / f"checkpoint{look}.pt")
            module = torch.nn.Module()
            module.model, module.head = linear(5), heads(5)
            module.plan = Plan(2, folder=Path(folder))
            module.curve = [
                {"step": step, "score": dict(zip("abc", scores, strict=True))}
                for step, scores in enumerate(((0, 0, 3), (1, 0, 0), (2, 2, 1)))
            ]
            begun = networks.Start(linear(7), heads(7), module.curve[0])
            fitted = {"a": 2, "b": 3, "c": 2}  # a is no better than it was
            with (
                mock.patch.object(networks, "make_heads", lambda *_: heads(9)),
                mock.patch.object(networks, "fit_heads", lambda *_: fitted),
            ):
                family = SimpleNamespace(labelled=dict.fromkeys("abc"))
                settled = networks.settle(module, begun, family, 0)

        def told(model, heads, labelled, split):
            return {
                (task, split): (model.weight.item(), heads[task].weight.item())
                for task in labelled
            }

        with mock.patch.object(networks, "answers", told):
            found = networks.answer(settled, dict.fromkeys("abc"), ("test",))
        kinds = {t: (each.kind, each.step) for t, each in settled.items()}
        expected = {"a": ("trained", 2), "b": ("anew", 2), "c": ("start", 0)}
        self.assertEqual(kinds, expected)
        expected = {"a": (1, 1), "b": (1, 9), "c": (7, 7)}
        self.assertEqual({task: told for (task, _), told in found.items()}, expected)


if __name__ == "__main__":
    unittest.main()

"""Randomly damaged and hostile files are read, or refused in one line."""

import contextlib
import functools
import io
import os
import pickle
import shutil
import signal
import struct
import tempfile
import traceback
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pretty_midi
import soundfile
import torch
import voices
from isolated import LostError, last_line, limit_memory, run
from stopped import inputs

from jtm import cli, embedding
from jtm.cpc.config import PretrainConfig
from jtm.data import clips, musicnet
from jtm.data.splits import split_recordings
from jtm.data.store import build_store
from jtm.files import InputError, digest, read_json, write_json
from jtm.music import audio, midi, notation
from jtm.results import records
from jtm.retrieval import search
from jtm.tests.evaluation.little import write_clips
from jtm.tests.music.test_audio import encode
from jtm.tests.results import synthetic
from jtm.tests.retrieval.little import tune, write_abc
from jtm.training import checkpoints
from jtm.training import folder as run_folder
from jtm.training.config import make_config
from jtm.transcriber import model

FILES = 10
"""Number of damaged files that are read in one process."""

SECONDS = 10.0
"""Maximum processor time in seconds to read or refuse a file."""

MEMORY = 2e9
"""Maximum memory in bytes to read a file."""

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Values that break parsers."""

WORDS = '-1 0 nan inf 1e309 99999999999999999999 ../../x /x .. \x00 é , " \n'.split(" ")
"""Strings that break parsers."""


def damage(content, rng):
    """Damage a file's bytes in a few places."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        # Half of the damage is near the start, where the headers are.
        end = len(content) if rng.random() < 0.5 else min(len(content), 200)
        start, length = int(rng.integers(0, end + 1)), int(rng.integers(1, 64))
        part = slice(start, start + length)
        kind = rng.integers(8)
        if kind == 0:
            del content[start:]
        elif kind == 1:
            del content[part]
        elif kind == 2:
            content[start:start] = content[part]
        elif kind == 3:
            content[part] = rng.bytes(length)
        elif kind == 4:
            content[start : start + 1] = bytes([1 << rng.integers(8)])
        elif kind == 5:
            number = int(rng.choice(NUMBERS))
            order = rng.choice(("<I", ">I"))
            content[start : start + 4] = struct.pack(order, number)
        elif kind == 6:
            content[start : start + int(rng.integers(8))] = rng.choice(WORDS).encode()
        else:
            content[part] = bytes(length)
    return bytes(content)


# --- Readers of each kind of file --------------------------------------------


def _read_audio(path):
    audio.duration(path)
    for _ in audio.blocks(path):
        pass


def _read_metadata(path):
    root = path.parent / "data"
    shutil.copytree(inputs() / "data", root, dirs_exist_ok=True)
    shutil.copy(path, root / musicnet.METADATA_FILE)
    recordings = musicnet.open_dataset(root).recordings
    split_recordings(recordings, [16_000] * len(recordings))


def _read_clips(path):
    shutil.copy(path, path.parent / clips.CLIPS_FILE)
    for clip in clips.read_clips(path.parent):
        if not clip.audio.resolve().is_relative_to(path.parent.resolve()):
            raise LostError(f"{clip.audio} is outside the folder")


def _read_index(path):
    out = path.parent / "store"
    shutil.copytree(_undamaged_store(), out, dirs_exist_ok=True)
    shutil.copy(path, next(out.glob("sounds-*")))
    dataset = musicnet.open_dataset(inputs() / "sounds")
    store = build_store(dataset, out, progress=False)
    samples = [store.read(i).tobytes() for i in range(3)]
    expected = build_store(dataset, _undamaged_store(), progress=False)
    if samples != [expected.read(i).tobytes() for i in range(3)]:
        raise LostError("samples of a damaged index are used")


def _read_run(path):
    shutil.copy(path, path.parent / run_folder.CONFIG_FILE)
    chosen = {"path_checkpoint": f"{path.parent}"}
    run_folder.check(make_config(PretrainConfig, "tiny", chosen))


def _read_checkpoint(path):
    embedding.load_model(path)


def _resume(path):
    shutil.copy(path, path.parent / "last.pt")
    run_folder.newest(path.parent)


def _read_embedding(path):
    provenance = {"network": "x", "layer": "c"}
    embedding._is_current(path, Path(__file__), provenance)


def _read_midi(path):
    midi.read(path)


def _read_score_index(path):
    index = search.Index.load(path)
    search._unchanged(index, index.towers, {})
    for hit in index.nearest(np.ones((1, index.vectors.shape[1])))[0]:
        print(index.pieces[index.owners[hit]]["title"], index.middles[hit])


def _read_work(path):
    voices.corpus_root, original = (lambda: path.parent), voices.corpus_root
    try:
        voices.read_work(path.name)
    finally:
        voices.corpus_root = original


READERS = {
    "WAV": ("a.wav", _read_audio),
    "WAV of floats": ("b.wav", _read_audio),
    "FLAC": ("a.flac", _read_audio),
    "MP3": ("a.mp3", _read_audio),
    "OGG": ("a.ogg", _read_audio),
    "M4A": ("a.m4a", _read_audio),
    "labels (CSV)": ("labels.csv", musicnet.read_labels),
    "metadata (CSV)": ("metadata.csv", _read_metadata),
    "single notes (CSV)": ("clips.csv", _read_clips),
    "scores of the benchmark (CSV)": ("records.csv", records.read),
    "MIDI": ("a.mid", _read_midi),
    "MusicXML": ("a.musicxml", _read_work),
    "score (MusicXML)": ("a.musicxml", notation.read),
    "score (ABC)": ("a.abc", notation.read),
    "score (kern)": ("a.krn", notation.read),
    "score (MIDI)": ("a.mid", notation.read),
    "index of scores": ("i.safetensors", _read_score_index),
    "transcriber (safetensors)": ("t.safetensors", model.load),
    "index of the store (JSON)": ("index.json", _read_index),
    "settings of a run (JSON)": ("settings.json", _read_run),
    "checkpoint": ("a.pt", _read_checkpoint),
    "checkpoint to go on from": ("b.pt", _resume),
    "weights (safetensors)": ("a.safetensors", _read_checkpoint),
    "embedding (npz)": ("a.npz", _read_embedding),
}
"""Kinds of files: the name of an undamaged one, and its reader."""

SLOW = {"MusicXML", "metadata (CSV)"} | {name for name in READERS if "score (" in name}
"""Kinds that are slow to read."""


@functools.cache
def _undamaged_store():
    folder = inputs() / "whole-store"
    build_store(musicnet.open_dataset(inputs() / "sounds"), folder, progress=False)
    return folder


@functools.cache
def samples():
    """Write an undamaged file of each kind, once."""
    folder = inputs() / "samples"
    folder.mkdir()
    wave = 0.1 * np.random.default_rng(0).standard_normal((6_000, 2))
    for name in ("a.wav", "a.flac", "a.mp3", "a.ogg"):
        soundfile.write(folder / name, wave, 22_050)
    soundfile.write(folder / "b.wav", wave, 22_050, subtype="FLOAT")
    encode(folder / "a.m4a", wave[:, 0], 22_050, "aac")
    data = inputs() / "data"
    shutil.copy(next(data.glob("train_labels/*.csv")), folder / "labels.csv")
    shutil.copy(data / musicnet.METADATA_FILE, folder / "metadata.csv")
    write_clips(inputs() / "clips")
    shutil.copy(inputs() / "clips" / clips.CLIPS_FILE, folder / "clips.csv")
    rows = synthetic.cell("transcription", "scratch", 3, 0)
    table = pd.DataFrame(rows, columns=records.COLUMNS)
    table.to_csv(folder / "records.csv", index=False)
    performance = pretty_midi.PrettyMIDI()
    performance.instruments.append(pretty_midi.Instrument(40))
    for i in range(20):
        note = pretty_midi.Note(90, 60 + i, i / 4, i / 4 + 0.2)
        performance.instruments[0].notes.append(note)
    performance.write(f"{folder / 'a.mid'}")
    note = "<note><pitch><step>{}</step><octave>4</octave></pitch>"
    note += "<duration>1</duration><type>quarter</type></note>"
    notes = "".join(note.format(step) for step in 4 * "CDEF")
    (folder / "a.musicxml").write_text(
        '<?xml version="1.0"?><score-partwise version="3.1"><part-list><score-part '
        'id="P1"><part-name>A</part-name></score-part></part-list><part id="P1">'
        "<measure number='1'><attributes><divisions>1</divisions><time><beats>4</beats>"
        f"<beat-type>4</beat-type></time></attributes>{notes}</measure></part>"
        "</score-partwise>"
    )
    write_abc(folder / "a.abc", tune(0))
    (folder / "a.krn").write_text("**kern\n4c\n4d\n4e\n4f\n*-\n")
    weights = inputs() / "w.safetensors"
    index = folder / "i.safetensors"
    search.build(inputs() / "scores", index, None, weights, progress=False)
    shutil.copy(inputs() / "t.safetensors", folder)
    shutil.copy(next(_undamaged_store().glob("sounds-*/index.json")), folder)
    config = make_config(PretrainConfig, "tiny", {})
    write_json(folder / "settings.json", vars(config))
    for name in ("a.pt", "b.pt"):
        shutil.copy(inputs() / name, folder)
    checkpoints.export(folder / "a.pt", folder / "a.safetensors")
    facts = {"network": "x", "layer": "c", "path": __file__, "source": [1, 2]}
    np.savez(folder / "a.npz", embedding=wave, times=wave, **facts)
    return folder


class _SlowError(BaseException):
    """Reading takes too long; not an Exception, so that no reader catches it."""


def mutate(kind, rng, folder):
    """Damage files of a kind, and read them in a separate process."""
    name, read = READERS[kind]
    content = (samples() / name).read_bytes()
    files = [folder / f"{i}" / name for i in range(FILES)]
    for path in files:
        path.parent.mkdir()
        path.write_bytes(damage(content, rng) if path != files[0] else content)
    before = sorted(inputs().rglob("*"))

    def stop(*_):
        raise _SlowError

    def read_all():
        warnings.simplefilter("ignore")
        limit_memory(MEMORY)
        signal.signal(signal.SIGPROF, stop)
        for path in files:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                try:
                    read(path)
                except InputError:
                    if path == files[0]:  # which is undamaged
                        raise
            except (Exception, _SlowError) as error:
                traceback.print_exc()
                print(f"\n{_save(path)}: {type(error).__name__}: {error}"[:200])
                return 1
        return 0

    code, output, _ = run(read_all, folder / "log")
    if code:
        raise LostError(last_line(output))
    if (
        sorted(inputs().rglob("*")) != before
        or len(list(folder.iterdir())) != FILES + 1
    ):
        raise LostError(f"{kind}: wrote outside its folder")


def _save(path):
    """Save a copy of a file that broke something, and return its path."""
    copy = Path(tempfile.gettempdir(), "faults", f"{digest(path)[:8]}{path.suffix}")
    copy.parent.mkdir(exist_ok=True)
    return shutil.copy(path, copy)


# --- Hostile files ------------------------------------------------------------


class _Harm:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (f"{self.target}",)


def _pickled_checkpoint(folder, out):
    harm = {"state_dict": _Harm(out / "harm"), "config": {}}
    (folder / "a.pt").write_bytes(pickle.dumps(harm))
    return cli.main(
        ["embed", f"{folder}", "--out", f"{out}", "--load", f"{folder}/a.pt"]
    )


def _zipped_checkpoint(folder, out):
    torch.save({"state_dict": _Harm(out / "harm"), "config": {}}, folder / "a.pt")
    return cli.main(
        ["export", "--load", f"{folder}/a.pt", "--out", f"{out}/a.safetensors"]
    )


def _names_in_checkpoint_lead_out(folder, out):
    with zipfile.ZipFile(folder / "a.pt", "w") as file:
        file.writestr("../../harm", "x")
        file.writestr("a/data.pkl", pickle.dumps({}))
    return cli.main(
        ["export", "--load", f"{folder}/a.pt", "--out", f"{out}/a.safetensors"]
    )


def _pickled_embedding(folder, out):
    path = inputs() / "sounds" / "a" / "0.wav"
    options = [f"{path}", "--out", f"{out}", "--load", f"{inputs() / 'a.pt'}"]
    cli.main(["embed", *options])
    array = np.array([_Harm(out / "harm")], object)
    np.savez(out / "0.wav.npz", network=array, layer=array, source=array)
    code = cli.main(["embed", *options])
    np.load(out / "0.wav.npz", allow_pickle=False)["embedding"]
    return code


def _metadata_ids_lead_out(folder, out):
    shutil.copytree(inputs() / "data", out / "data")
    path = out / "data" / musicnet.METADATA_FILE
    path.write_text(path.read_text().replace("train0", "../../../harm"))
    options = ["--data", f"{out / 'data'}", "--pathCheckpoint", f"{out / 'run'}"]
    return cli.train_main(["--preset", "tiny", "--nEpoch", "1", *options])


def _notes_lead_out(folder, out):
    shutil.copytree(inputs() / "clips", out / "data")
    path = out / "data" / clips.CLIPS_FILE
    first = next(clip.audio.name for clip in clips.read_clips(out / "data"))
    path.write_text(path.read_text().replace(first, "../../../harm.wav"))
    with contextlib.suppress(InputError):
        clips.read_clips(out / "data")
        raise LostError("a note outside the folder is accepted")


def _index_leads_out(folder, out):
    (folder / "harm").write_text("kept")
    build_store(musicnet.open_dataset(inputs() / "sounds"), out / "s", progress=False)
    path = next((out / "s").glob("sounds-*/index.json"))
    index = read_json(path)
    index["../../../harm"] = index["../../../../harm"] = next(iter(index.values()))
    write_json(path, index)
    with contextlib.suppress(InputError):
        build_store(
            musicnet.open_dataset(inputs() / "sounds"), out / "s", progress=False
        )
    return 0 if (folder / "harm").read_text() == "kept" else 70


def _output_folder_is_a_link(folder, out):
    (folder / "elsewhere").mkdir()
    out.mkdir()
    (out / "a").symlink_to(folder / "elsewhere")
    options = [f"{inputs() / 'sounds'}", "--out", f"{out}", "--load"]
    code = cli.main(["embed", *options, f"{inputs() / 'a.pt'}"])
    return 70 if list((folder / "elsewhere").iterdir()) else code


def _output_file_is_a_link(folder, out):
    out.mkdir()
    (folder / "kept").write_text("kept")
    (out / "0.wav.npz").symlink_to(folder / "kept")
    options = [f"{inputs() / 'sounds' / 'a' / '0.wav'}", "--out", f"{out}", "--load"]
    code = cli.main(["embed", *options, f"{inputs() / 'a.pt'}"])
    return code if (folder / "kept").read_text() == "kept" else 70


def _links_in_a_ring(folder, out):
    shutil.copytree(inputs() / "sounds", folder / "ring")
    (folder / "ring" / "a" / "ring").symlink_to(folder / "ring")
    (folder / "ring" / "b" / "itself").symlink_to("itself")
    options = [f"{folder / 'ring'}", "--out", f"{out}", "--load"]
    code = cli.main(["embed", *options, f"{inputs() / 'a.pt'}"])
    return code if len(list(out.rglob("*.npz"))) == 16 else 70


def _playlist(folder, out):
    other = inputs() / "sounds" / "a" / "0.wav"
    (folder / "a.wav").write_text(f"ffconcat version 1.0\nfile {other}\n")
    (folder / "b.wav").write_text(f"#EXTM3U\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n")
    options = [f"{folder}", "--out", f"{out}", "--load", f"{inputs() / 'a.pt'}"]
    code = cli.main(["embed", *options])
    return 70 if list(out.rglob("*.npz")) else code


def _deep_json(folder, out):
    out.mkdir()
    (out / run_folder.CONFIG_FILE).write_text("[" * 100_000)
    options = ["--data", f"{inputs() / 'sounds'}", "--pathCheckpoint", f"{out}"]
    return cli.train_main(["--preset", "tiny", *options])


HOSTILE = {
    "pickle as a checkpoint": _pickled_checkpoint,
    "pickle in a checkpoint": _zipped_checkpoint,
    "names in a checkpoint that lead out": _names_in_checkpoint_lead_out,
    "pickle in an embedding": _pickled_embedding,
    "ids in the metadata that lead out": _metadata_ids_lead_out,
    "names of single notes that lead out": _notes_lead_out,
    "index of the store that leads out": _index_leads_out,
    "folder of results that is a link": _output_folder_is_a_link,
    "file of results that is a link": _output_file_is_a_link,
    "links in a ring": _links_in_a_ring,
    "playlists as audio files": _playlist,
    "JSON of a hundred thousand brackets": _deep_json,
}
"""Attempts by name; each takes a folder and its output folder, returns a code."""


def attack(attempt, rng, folder):
    """Make an attempt, and check that it did no harm."""
    inside = folder / "in"
    inside.mkdir()
    samples()

    def attack_inside():
        os.chdir(inside)
        return attempt(inside, inside / "out")

    code, output, _ = run(lambda: cli.run(attack_inside), folder / "log")
    if code not in (0, 1, 2) or "Traceback" in output:
        raise LostError(f"code {code}: {last_line(output)}")
    if [p for p in inside.parents[1].rglob("harm*") if p != inside / "harm"]:
        raise LostError("code in the file was run, or a file written outside")
    if code and not io.StringIO(output).readline():
        raise LostError("failed without a message")
    if len(list(folder.iterdir())) != 2:
        raise LostError("wrote outside its folder")

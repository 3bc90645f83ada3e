"""The page of a transcription: its content, and its behaviour in a real browser."""

import base64
import hashlib
import html.parser
import io
import itertools
import json
import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import librosa
import numpy as np
import soundfile
from PIL import Image

from jtm.files import InputError
from jtm.tests.transcriber import chromium
from jtm.transcriber import pages

RATE = 16_000

NOTE = np.dtype(
    [
        ("start", float),
        ("end", float),
        ("pitch", np.int16),
        ("program", np.int16),
        ("velocity", np.int16),
    ]
)

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&.wav"

SCRIPTS = "Žluťoučký קונצ'רטו موسيقى 協奏曲 🎻"


def tone(seconds, pitch=69, start=0.0, rate=RATE):
    """Return a sine that begins at `start`."""
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t)
    return (wave * (t >= start)).astype(np.float32)


def some_notes():
    """Return eight seconds of notes of violin and piano."""
    rows = [(0.5 * i, 0.5 * i + 0.45, 72 + i % 5, 41, 90) for i in range(16)]
    rows += [(2.0 * i, 2.0 * i + 1.9, 48 + i, 1, 60) for i in range(4)]
    return np.array(rows, NOTE)


def dense_notes(seconds, a_second=25):
    """Return random notes, as dense as those of a large ensemble."""
    random = np.random.default_rng(0)
    notes = np.zeros(seconds * a_second, NOTE)
    notes["start"] = np.sort(random.uniform(0, seconds, len(notes)))
    notes["end"] = notes["start"] + random.uniform(0.1, 1.5, len(notes))
    notes["pitch"] = random.integers(30, 100, len(notes))
    notes["program"] = random.choice((1, 41, 42, 43, 74), len(notes))
    notes["velocity"] = random.integers(20, 128, len(notes))
    return notes


RECORDING = pages._Recording


class Long:
    """Replace a recording of 30 minutes by short audio and repeated tiles."""

    seconds = 1800

    def __init__(self, rate, tuning):
        self.samples, self.power = self.seconds * rate, 1.0
        self.short = RECORDING(rate)

    def add(self, name, wave):
        self.short.add(name, wave)

    def finish(self):
        audio, (level,) = self.short.finish()
        return audio, [
            {
                "rate": level["rate"] / scale,
                "tiles": level["tiles"] * -(-Long.seconds // (33 * scale)),
            }
            for scale in (1, 8, 64)
        ]


class Elements(html.parser.HTMLParser):
    """Parse the elements of a page, with their attributes and text."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        self.found.append([None, {}, ""])

    def handle_data(self, data):
        if self.found:
            self.found[-1][2] += data

    def of(self, tag):
        return [(attrs, text) for name, attrs, text in self.found if name == tag]


def tiles_of(page, level=0):
    """Return the spectrogram of a page ``(rows, columns)``, low pitches first."""
    (data,) = (t for a, t in Elements(page).of("script") if a.get("id") == "data")
    tiles = json.loads(data)["tiles"]["levels"][level]["tiles"]
    images = [Image.open(io.BytesIO(base64.b64decode(tile))) for tile in tiles]
    return np.concatenate([np.asarray(i.convert("L")) for i in images], axis=1)[::-1]


def mp3_of(page):
    """Return the MP3 recording in a page."""
    (text,) = (t for a, t in Elements(page).of("script") if a.get("id") == "audio")
    return base64.b64decode(text)


class TestText(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.page = pages.page(tone(8), RATE, some_notes(), HOSTILE, SCRIPTS)
        cls.elements = Elements(cls.page)

    def test_file_names_are_escaped(self):
        self.assertEqual(self.elements.of("img"), [])
        kinds = [attrs.get("type") for attrs, _ in self.elements.of("script")]
        self.assertEqual(kinds, ["text/plain", "application/json", None])
        ((attrs, text),) = self.elements.of("h1")
        self.assertEqual((attrs["title"], text), (HOSTILE, HOSTILE))
        self.assertIn(SCRIPTS, [text for _, text in self.elements.of("p")])
        self.assertTrue(self.page.isascii())

    def test_content_security_policy_allows_only_own_content(self):
        with tempfile.TemporaryDirectory() as folder:
            made = pages.index(folder), self.page
        for page, allowed in zip(made, ({"style"}, {"style", "script"}), strict=True):
            elements = Elements(page)
            metas = [attrs for attrs, _ in elements.of("meta")]
            (policy,) = (m["content"] for m in metas if "http-equiv" in m)
            self.assertTrue(policy.startswith("default-src 'none'; "))
            hashes = dict(re.findall(r"(style|script)-src 'sha256-([^']+)'", policy))
            self.assertEqual(hashes.keys(), allowed)
            for tag, hashed in hashes.items():
                ((_, text),) = (e for e in elements.of(tag) if "type" not in e[0])
                digest = hashlib.sha256(text.encode()).digest()
                self.assertEqual(base64.b64encode(digest).decode(), hashed)
            self.assertNotIn("unsafe", policy)
            self.assertNotIn("http:", page)
            self.assertNotIn("https:", page)
            self.assertFalse(
                {"style", "onclick"} & {k for m in elements.found for k in m[1]}
            )

    def test_page_holds_all_notes_in_order(self):
        notes = some_notes()
        texts = [t for a, t in self.elements.of("script") if a.get("id") == "data"]
        data = json.loads(texts[0])
        columns = data["notes"]
        self.assertEqual(columns["start"], sorted(columns["start"]))
        programs = [data["parts"][part]["program"] for part in columns["part"]]
        found = zip(
            np.array(columns["start"]) / 1000,
            columns["pitch"],
            programs,
            np.array(columns["length"]) / 1000,
            strict=True,
        )
        expected = {
            (n["start"], n["pitch"], n["program"], round(n["end"] - n["start"], 3))
            for n in notes
        }
        self.assertEqual(set(found), expected)

    def test_melody_is_marked_among_the_notes(self):
        notes = some_notes()[::-1]
        page = pages.page(tone(8), RATE, notes, "", melody=notes["program"] == 41)
        texts = [t for a, t in Elements(page).of("script") if a.get("id") == "data"]
        columns = json.loads(texts[0])["notes"]
        self.assertEqual(columns["melody"], [int(p >= 72) for p in columns["pitch"]])

    def test_size_per_minute_is_limited(self):
        seconds = 20
        noise = np.random.default_rng(0).normal(0, 0.1, seconds * 44_100)
        notes = dense_notes(seconds)
        page = pages.page(noise.astype(np.float32), 44_100, notes, "noise")
        self.assertLess(len(page) / seconds * 60, 1e6)

    def test_invalid_waveforms_are_refused(self):
        bad = tone(1)
        bad[5] = np.nan
        for wave in (tone(0), np.zeros((100, 2), np.float32), bad, [], 100 * tone(1)):
            with self.assertRaisesRegex(InputError, "^song: "):
                pages.page(wave, RATE, some_notes()[:0], "song")

    def test_instrument_names_and_times(self):
        names = [pages._name_of(p) for p in (41, 200)]
        self.assertEqual(names, ["violin", "unknown instrument"])
        times = [pages._clock(s) for s in (0, 59.4, 59.6, 3600, 3725)]
        self.assertEqual(times, ["0:00", "0:59", "1:00", "1:00:00", "1:02:05"])

    def test_colours_have_enough_contrast(self):
        style = pages._file("page.css")
        light, dark = style.split("@media screen and (prefers-color-scheme: dark)")[:2]
        for theme in (light, dark):
            colour = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
            for name in ("text", "quiet", "accent"):
                for ground in ("ground", "surface"):
                    self.assertGreater(contrast(colour[name], colour[ground]), 4.5)
            self.assertGreater(contrast(colour["on-accent"], colour["accent"]), 4.5)
            parts = [colour[f"part-{i}"] for i in range(pages.COLOURS)]
            for part in (*parts, colour["playhead"]):
                self.assertGreater(contrast(part, colour["surface"]), 3)
            for one, other in itertools.combinations(parts[:4], 2):
                for kind in BLINDNESS:
                    difference = seen_by(kind, one) - seen_by(kind, other)
                    self.assertGreater(np.linalg.norm(difference), 0.1, (kind, one))


def linear(colour):
    """Return the linear RGB of a colour such as ``#a63c80``."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )


def contrast(one, other):
    """Return the contrast ratio of WCAG 2."""
    light = [linear(c) @ (0.2126, 0.7152, 0.0722) + 0.05 for c in (one, other)]
    return max(light) / min(light)


BLINDNESS = {
    "protanopia": [
        [0.152, 1.053, -0.205],
        [0.115, 0.786, 0.099],
        [-0.004, -0.048, 1.052],
    ],
    "deuteranopia": [
        [0.367, 0.861, -0.228],
        [0.280, 0.673, 0.047],
        [-0.012, 0.043, 0.969],
    ],
}
"""Linear RGB as the colour-blind see it (Machado, Oliveira and Fernandes 2009)."""


def seen_by(kind, colour):
    """Return roughly uniform coordinates of a colour under colour blindness."""
    return np.cbrt(np.clip(np.array(BLINDNESS[kind]) @ linear(colour), 0, 1))


class TestSound(unittest.TestCase):
    def test_spectrogram_shows_a_tone_at_its_pitch_and_onset(self):
        page = pages.page(tone(4, pitch=69, start=2), RATE, some_notes()[:0], "")
        image = tiles_of(page)
        loud = image[:, int(2.5 * RATE / pages.HOP)].argsort()[-2:]
        first = (69 - 21) * pages.BINS
        self.assertEqual(sorted(loud), [first, first + 1])
        level = image[first].astype(int)
        onset = np.argmax(level > level.max() / 2) * pages.HOP / RATE
        self.assertAlmostEqual(onset, 2, delta=0.1)
        self.assertEqual(image.shape[1], -(-4 * RATE // pages.HOP))

    def test_spectrogram_equals_the_constant_q_transform_of_librosa(self):
        rng = np.random.default_rng(0)
        rate, n_columns, lowest = RATE, 64, pages.A4 / 16
        wave = rng.standard_normal(n_columns * pages.HOP + 2 * pages.MARGIN)
        wave = 0.1 * wave.astype(np.float32)
        bins = {"n_bins": pages.BINS * 88, "bins_per_octave": 12 * pages.BINS}
        expected = librosa.cqt(
            wave, sr=rate, hop_length=pages.HOP, fmin=lowest, **bins
        )[:, pages.MARGIN // pages.HOP :][:, :n_columns]
        found = pages._constant_q(wave, lowest, n_columns)
        self.assertEqual(found.shape, (pages.BINS * 88, n_columns))
        error = np.linalg.norm(found - abs(expected), axis=1)
        np.testing.assert_array_less(error / np.linalg.norm(expected, axis=1), 0.02)

    def test_spectrogram_follows_the_tuning(self):
        wave = tone(4, pitch=69.4)
        page = pages.page(wave, RATE, some_notes()[:0], "", tuning=0.4)
        loud = tiles_of(page)[:, int(2 * RATE / pages.HOP)].argsort()[-2:]
        first = (69 - 21) * pages.BINS
        self.assertEqual(sorted(loud), [first, first + 1])
        self.assertIn("A = 450 Hz", page)
        self.assertNotIn(" Hz", pages.page(wave, RATE, some_notes()[:0], ""))

    def test_silence_and_one_sample_give_a_blank_spectrogram(self):
        for wave in (np.zeros(RATE, np.float32), np.zeros(1, np.float32)):
            page = pages.page(wave, RATE, some_notes()[:0], "")
            self.assertEqual(tiles_of(page).max(), 0)

    def test_chunked_recording_gives_the_same_page(self):
        wave = tone(11) + tone(11, 45)
        cut = np.split(wave, [5, 5, 30_000, 30_001, 100_000])
        with mock.patch.object(pages, "TILE", 128):  # of 4 s
            whole = pages.page(wave, RATE, some_notes(), "")
            self.assertEqual(pages.page(iter(cut), RATE, some_notes(), ""), whole)
        coarse, fine = tiles_of(whole, 1), tiles_of(whole)
        self.assertEqual(fine.shape[1], -(-11 * RATE // pages.HOP))
        self.assertEqual(coarse.shape[1], -(-fine.shape[1] // pages.COARSER))
        # The border between tiles is invisible.
        joined = fine[:, 108:148].astype(int)
        row = (45 - 21) * pages.BINS
        self.assertLess(np.ptp(joined[row : row + 2], axis=1).max(), 25)

    def test_mp3_keeps_timing_at_any_sample_rate(self):
        for rate in (8_000, 16_000, 22_050, 44_100, 96_000):
            wave = tone(2, pitch=81, start=0.5, rate=rate)
            mp3 = mp3_of(pages.page(wave, rate, some_notes()[:0], ""))
            audio, sr = soundfile.read(io.BytesIO(mp3))
            self.assertEqual((sr, len(audio)), (pages.MP3_RATE, 2 * pages.MP3_RATE))
            loud = np.abs(audio) > 0.1
            self.assertAlmostEqual(loud.argmax() / sr, 0.5, delta=0.01)


class TestIndex(unittest.TestCase):
    def test_index_lists_pages_of_a_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "javascript:alert(1)").mkdir()
            names = {
                "a.html": ("a", some_notes()),
                "javascript:alert(1)/b #1%.html": (HOSTILE, some_notes()[:0]),
            }
            for name, (title, notes) in names.items():
                page = pages.page(tone(8), RATE, notes, title, SCRIPTS)
                (folder / name).write_text(page, encoding="ascii")
            (folder / "other.html").write_text("<p>häßlich", encoding="latin-1")
            for i, broken in enumerate(("{", "[]", "{}")):
                meta = f"<meta name='jtm-page' content='{broken}'>"
                (folder / f"broken{i}.html").write_text(meta)
            unfinished = folder / ".0123abcd.7.part.html"
            unfinished.write_bytes((folder / "a.html").read_bytes())
            rows, made = pages._listing(folder), pages.index(folder)
            (folder / "index.html").write_text(made)
            self.assertEqual(pages._listing(folder), rows)
        first, second = rows
        self.assertEqual(first["programs"], [1, 41])
        self.assertEqual((first["notes"], first["seconds"]), (20, 8))
        self.assertEqual((second["title"], second["notes"]), (HOSTILE, 0))
        index = Elements(made)
        links = [(attrs["href"], text) for attrs, text in index.of("a")]
        odd = "./javascript%3Aalert%281%29/b%20%231%25.html"
        self.assertEqual(links, [("./a.html", "a"), (odd, "b #1%")])
        cells = [text for _, text in index.of("td")]
        self.assertEqual(cells[:3], ["0:08", "20", "piano, violin"])
        self.assertEqual(cells[3:], ["0:08", "0", "no notes were found"])

    def test_index_lists_hidden_recordings(self):
        page = pages.page(tone(1), RATE, some_notes()[:0], ".take", SCRIPTS)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, ".take.html").write_text(page, encoding="ascii")
            self.assertIn("./.take.html", pages.index(folder))

    def test_index_of_an_empty_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("No recording", pages.index(folder))


@unittest.skipUnless(chromium.find(), "no Chromium here: sh setup.sh --browser")
class TestBrowser(unittest.TestCase):
    """User interaction in one browser; each test opens its page again."""

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        notes = some_notes()
        melody = notes["program"] == 41
        made = {
            "song": pages.page(tone(8), RATE, notes, HOSTILE, SCRIPTS, melody),
            "empty": pages.page(tone(1), RATE, notes[:0], SCRIPTS),
        }
        wave = tone(pages.TILE * pages.HOP / RATE)
        with mock.patch.object(pages, "_Recording", Long):
            made["long"] = pages.page(wave, RATE, dense_notes(Long.seconds), "long")
        made["frame"] = pages.frame(made["song"]).data
        for name, page in made.items():
            (cls.folder / f"{name}.html").write_text(page, encoding="ascii")
        cls.browser = cls.enterClassContext(chromium.Browser())

    def open(self, name="song", **window):
        address = (self.folder / f"{name}.html").as_uri()
        self.browser.open(address, **window)
        self.browser.until(
            "window.jtm && jtm.audio.readyState >= 3 && jtm.stats.frames"
        )

    def tearDown(self):
        self.assertEqual(self.browser.faults(), [])
        for address in self.browser.requests():
            self.assertRegex(address, "^(file|data|blob|about):")

    def eval(self, script):
        """Draw the page, then evaluate a script."""
        return self.browser.run(f"jtm.draw(), {script}")

    def picture(self):
        return self.eval("document.querySelector('#roll').toDataURL()")

    def test_playback_follows_the_playhead(self):
        self.open()
        self.assertEqual(self.browser.run("jtm.position()"), 0)
        self.browser.run("jtm.view.scale *= 6, jtm.seek(4), 0")
        self.browser.click("#play")
        self.browser.until("jtm.position() > 4.3")
        pressed = "document.querySelector('#play').ariaPressed"
        self.assertEqual(self.eval(pressed), "true")
        view = self.eval("({...jtm.view, time: jtm.position()})")
        x = view["keys"] + (view["time"] - view["left"]) * view["scale"]
        share = (x - view["keys"]) / (view["width"] - view["keys"])
        self.assertAlmostEqual(share, 0.35, delta=0.1)
        now = "document.querySelector('#now').textContent"
        self.assertRegex(self.eval(now), r"^\w. piano, \w+. violin$|piano$")
        self.browser.press(" ")
        self.browser.until(f"jtm.audio.paused && {pressed} === 'false'")
        slider = "document.querySelector('#overview')"
        self.assertGreater(float(self.eval(f"{slider}.ariaValueNow")), 4)
        self.assertIn(" of 0:08", self.eval(f"{slider}.ariaValueText"))

    def test_file_names_run_no_script(self):
        self.open()
        text = "document.querySelector('h1').textContent"
        self.assertEqual(self.browser.run(text), HOSTILE)
        self.assertEqual(self.browser.run("document.title"), HOSTILE)
        self.assertEqual(self.browser.run("document.images.length"), 0)
        # Even an injected script would not run.
        self.browser.run(
            "document.body.append(Object.assign(document.createElement('script'),"
            "{textContent: 'window.evil = 1'}))"
        )
        self.assertIsNone(self.browser.run("window.evil"))
        self.assertIn("Content Security Policy", str(self.browser.faults()))
        self.browser.events.clear()

    def test_playback_of_recording_notes_or_both(self):
        self.open()
        self.browser.click("#play")
        for key, muted, played in (
            ("2", True, True),
            ("3", False, True),
            ("1", False, False),
        ):
            self.browser.press(key)
            self.browser.until(
                "jtm.audio.seeking === false && jtm.audio.paused === false"
            )
            self.assertEqual(self.browser.run("jtm.audio.muted"), muted)
            self.browser.until(f"(jtm.voices() > 0) === {str(played).lower()}")
        self.browser.click("input[value=both] + span")
        self.assertEqual(self.browser.run("jtm.source"), "both")
        self.browser.run(
            "speed.value = 0.5, speed.dispatchEvent(new Event('change')), 0"
        )
        self.assertEqual(self.browser.run("jtm.audio.playbackRate"), 0.5)

    def test_clock_and_notes_wait_for_the_recording_to_start(self):
        self.open()
        self.browser.press("2")
        rows = self.browser.run(
            "new Promise(done => jtm.audio.addEventListener('playing', () => {"
            "const rows = [], start = performance.now();"
            "const look = () => {"
            "if (performance.now() - start > 120) return done(rows);"
            "rows.push([jtm.position() - jtm.audio.currentTime, jtm.voices()]);"
            "setTimeout(look, 10); };"
            "look(); }) || document.querySelector('#play').click())"
        )
        ahead, voices = np.transpose(rows)
        self.assertLess(np.abs(ahead).max(), 0.005)
        self.assertEqual(voices.max(), 0)
        self.browser.until("jtm.voices() > 0")

    def test_notes_to_come_are_not_heard_after_a_pause(self):
        self.open()
        self.browser.run(
            "((start, stop) => {"
            "window.made = [];"
            "OscillatorNode.prototype.start = function (from) {"
            "made.push(Object.assign(this, {from})); start.call(this, from); };"
            "OscillatorNode.prototype.stop = function (to) {"
            "Object.assign(this, {to, at: this.context.currentTime});"
            "stop.call(this, to); };"
            "})(OscillatorNode.prototype.start, OscillatorNode.prototype.stop)"
        )
        self.browser.press("2")
        self.browser.click("#play")
        due = "(note => note.from - note.context.currentTime)(note)"
        self.browser.until(
            f"made.some(note => {due} > 0.03 && {due} < 0.13)"
            "&& (jtm.audio.pause(), true)"
        )
        self.browser.until("jtm.voices() === 0")
        heard = "made.filter(note => note.from > note.at && note.to > note.from)"
        self.assertEqual(self.browser.run(f"{heard}.length"), 0)

    def test_instruments_melody_and_spectrogram_are_toggled(self):
        self.open()
        self.browser.press("0")
        self.assertEqual(self.eval("jtm.stats.drawn"), len(some_notes()))
        before = self.picture()
        self.browser.click("[data-part='1']")
        self.assertEqual(self.eval("jtm.stats.drawn"), 4)
        self.browser.click("[data-part='1']")
        self.assertEqual(self.picture(), before)
        for button, key in (("#melody", "m"), ("#spectrogram", "s")):
            self.browser.click(button)
            self.assertNotEqual(self.picture(), before)
            self.browser.press(key)
            self.assertEqual(self.picture(), before)

    def test_zoom_and_pan(self):
        self.open()
        pointer = {"x": 700, "y": 400}
        hovered = f"jtm.view.left + ({pointer['x']} - jtm.view.keys) / jtm.view.scale"
        scale, time = self.eval("jtm.view.scale"), self.eval(hovered)
        self.browser.mouse("mouseWheel", **pointer, deltaX=0, deltaY=-300)
        self.browser.until(f"jtm.view.scale > {1.2 * scale}")
        self.assertAlmostEqual(self.eval(hovered), time, places=3)
        scale, left = self.eval("jtm.view.scale"), self.eval("jtm.view.left")
        self.browser.mouse("mousePressed", **pointer)
        self.browser.mouse("mouseMoved", x=500, y=400, held=True)
        self.browser.mouse("mouseReleased", x=500, y=400)
        self.assertAlmostEqual(self.eval("jtm.view.left"), left + 200 / scale, places=3)
        self.assertFalse(self.eval("jtm.following"))
        self.assertEqual(self.browser.run("jtm.position()"), 0)  # dragged, not clicked
        for button, key, zooms_in in (("#in", "+", True), ("#out", "-", False)):
            for act in (
                lambda b=button: self.browser.click(b),
                lambda k=key: self.browser.press(k),
            ):
                scale = self.eval("jtm.view.scale")
                act()
                self.assertEqual(self.eval("jtm.view.scale") > scale, zooms_in)
        row = self.eval("jtm.view.row")
        self.browser.press("]")
        self.assertGreater(self.eval("jtm.view.row"), row)
        self.browser.click("#fit")
        right = "jtm.view.left + (jtm.view.width - jtm.view.keys) / jtm.view.scale"
        self.assertAlmostEqual(self.eval(right), 8, delta=0.01)
        self.browser.mouse("mousePressed", **pointer)
        self.browser.mouse("mouseReleased", **pointer)
        time = self.eval(hovered)
        self.browser.until(f"Math.abs(jtm.position() - {time}) < 0.05")

    def test_keyboard_shortcuts(self):
        self.open()
        for key, time in (("End", 8), ("Home", 0), ("ArrowRight", 2), ("ArrowLeft", 0)):
            self.browser.press(key)
            self.browser.until(f"Math.abs(jtm.position() - {time}) < 0.05")
        self.browser.press("ArrowRight", modifiers=8)  # shift
        self.browser.until("jtm.position() > 7.9")
        self.browser.press("?")
        self.assertTrue(self.browser.run("keys.open"))
        self.browser.press("f")  # the dialog has the keys
        self.assertTrue(self.browser.run("jtm.following"))
        self.browser.run("keys.close()")
        self.browser.press("f")
        self.assertFalse(self.browser.run("jtm.following"))
        top = self.browser.run("jtm.view.top")
        self.browser.press("]")
        self.browser.press("ArrowUp")
        self.assertNotEqual(self.browser.run("jtm.view.top"), top)

    def test_list_of_speeds_has_the_keys_while_it_is_focused(self):
        self.open()
        self.browser.run("document.querySelector('#speed').focus()")
        for key in ("2", "End"):
            self.browser.press(key)
        self.assertEqual(self.browser.run("jtm.position()"), 0)
        checked = "document.querySelector('[name=source]:checked').value"
        self.assertEqual(self.browser.run(checked), "recording")

    def test_only_the_main_button_seeks_in_the_overview(self):
        self.open()
        place = self.browser.run(
            "document.querySelector('#overview').getBoundingClientRect().toJSON()"
        )
        where = {"x": place["x"] + 0.75 * place["width"], "y": place["y"] + 5}
        for button, time in (("right", 0), ("left", 6)):
            pointer = where | {"button": button, "clickCount": 1}
            self.browser.mouse("mousePressed", **pointer)
            self.browser.mouse("mouseReleased", **pointer)
            self.browser.until(f"Math.abs(jtm.position() - {time}) < 0.1")

    def test_page_fits_a_phone(self):
        self.open(width=390, height=844, scale=2, touch=True)
        self.assertEqual(self.browser.run("document.scrollingElement.scrollWidth"), 390)
        self.assertGreater(self.browser.run("roll.clientHeight"), 844 / 2)
        outside = self.browser.run(
            "[...document.querySelectorAll('footer button, footer select')].filter(e =>"
            "(b => b.right > innerWidth || b.bottom > innerHeight || b.width < 40"
            "|| b.height < 40)(e.getBoundingClientRect())).map(e => e.id)"
        )
        self.assertEqual(outside, [])
        scale = self.eval("jtm.view.scale")
        self.browser.touch("touchStart", (180, 400), (220, 400))
        for spread in range(30, 90, 10):
            self.browser.touch("touchMove", (200 - spread, 400), (200 + spread, 400))
        self.browser.touch("touchEnd")
        self.assertGreater(self.eval("jtm.view.scale"), 1.5 * scale)
        self.assertEqual(self.browser.run("jtm.position()"), 0)

    def test_index_fits_a_phone(self):
        with tempfile.TemporaryDirectory() as folder:
            notes = some_notes()
            notes["program"] = np.where(notes["program"] == 41, 7, 44)
            page = pages.page(tone(8), RATE, notes, "Prelude")
            (Path(folder) / "Prelude.html").write_text(page, encoding="ascii")
            index = Path(folder) / "index.html"
            index.write_text(pages.index(folder), encoding="ascii")
            self.browser.open(index.as_uri(), width=360, height=640, touch=True)
            width = self.browser.run("document.scrollingElement.scrollWidth")
            self.assertEqual(width, 360)

    def test_page_is_sharp_on_a_screen_of_another_density(self):
        self.open(width=1000, height=700)
        for scale in (2, 1, 1.5):
            self.browser.resize(1000, 700, scale)
            self.assertEqual(self.eval("roll.width / roll.clientWidth"), scale)

    def test_tooltip_describes_the_note_under_the_pointer(self):
        self.open()
        x, y = self.eval(
            "[jtm.view.keys + 0.2 * jtm.view.scale, roll.getBoundingClientRect().y"
            "+ jtm.view.ruler + (jtm.view.top - 72) * jtm.view.row]"
        )
        self.browser.mouse("mouseMoved", x=x, y=y)
        tip = self.browser.run("tip.textContent")
        self.assertEqual(tip, "C5 violin, 0:00.00 for 0.45 s, velocity 90")
        self.assertFalse(self.browser.run("tip.hidden"))
        self.eval("jtm.view.top += 2")  # the note moves away from the pointer
        self.assertTrue(self.eval("tip.hidden"))
        self.eval("jtm.view.top -= 2")
        self.assertEqual(self.eval("tip.hidden || tip.textContent"), tip)

    def test_light_dark_and_print_styles(self):
        shown = []
        for dark in (False, True):
            self.open(dark=dark)
            shown.append(self.browser.run("getComputedStyle(document.body).color"))
            shown.append(self.picture())
        self.assertEqual(len(set(shown)), 4)
        self.browser.send("Emulation.setEmulatedMedia", media="print")
        hidden = "getComputedStyle(document.querySelector('footer')).display"
        self.assertEqual(self.browser.run(hidden), "none")
        self.browser.send("Emulation.setEmulatedMedia", media="")

    def test_every_control_has_an_accessible_name(self):
        self.open()
        tree = self.browser.send("Accessibility.getFullAXTree")["nodes"]
        named = [n for n in tree if n.get("role", {}).get("value") in CONTROLS]
        self.assertGreater(len(named), 15)
        for node in named:
            self.assertTrue(node["name"]["value"].strip(), node)
        self.browser.run("document.activeElement.blur()")
        self.browser.press("Tab")
        self.assertEqual(self.browser.run("document.activeElement.dataset.part"), "0")

    def test_empty_transcription_says_so(self):
        self.open("empty")
        text = self.browser.run("document.querySelector('#empty').innerText")
        self.assertEqual(text, "No notes were found in this recording.")
        self.browser.press("2")
        self.assertEqual(self.browser.run("jtm.source"), "recording")
        self.browser.click("#play")
        self.browser.until("jtm.audio.ended")
        self.browser.press("0")

    def test_long_recording_draws_only_visible_notes(self):
        self.open("long")
        self.assertEqual(self.browser.run("jtm.audio.error"), None)
        for time in (0, 900, 1790):
            self.browser.run(f"jtm.view.left = {time}, 0")
            self.assertLess(self.eval("jtm.stats.visited"), 40 * 25)
            self.assertGreater(self.eval("jtm.stats.drawn"), 50)
        self.browser.click("#fit")
        self.assertEqual(self.eval("jtm.stats.visited"), 25 * Long.seconds)

    def test_page_in_a_notebook_frame(self):
        self.browser.open((self.folder / "frame.html").as_uri())
        with self.browser.inside_frame():
            self.browser.until("window.jtm && jtm.audio.readyState >= 3")
        self.browser.click("iframe")
        self.browser.press(" ")
        with self.browser.inside_frame():
            self.browser.until("jtm.position() > 0.05")

    def test_browser_decodes_the_recording_in_time(self):
        click = np.zeros(2 * pages.MP3_RATE, np.float32)
        click[pages.MP3_RATE] = 0.9
        page = pages.page(click, pages.MP3_RATE, some_notes()[:0], "")
        coded = base64.b64encode(mp3_of(page)).decode()
        self.browser.open("about:blank")
        time = self.browser.run(
            f"new OfflineAudioContext(1, 1, {pages.MP3_RATE}).decodeAudioData("
            f"Uint8Array.from(atob('{coded}'), c => c.charCodeAt(0)).buffer).then("
            "b => { const s = [...b.getChannelData(0)].map(Math.abs);"
            "return s.indexOf(Math.max(...s)) / b.sampleRate; })"
        )
        self.assertAlmostEqual(time, 1, delta=0.002)


CONTROLS = ("button", "radio", "combobox", "slider", "application", "toggle button")


if __name__ == "__main__":
    unittest.main()

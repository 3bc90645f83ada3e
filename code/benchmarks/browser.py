"""
Scrolling speed of the page of half an hour of dense music, in a browser without a GPU.

``python code/benchmarks/browser.py`` prints frames per second and writes
``report/results/browser.json``; with ``--picture PAGE.html`` it draws the README's
picture of that page instead, ``report/figures/page.png``. Both need Chromium, which
``sh setup.sh --browser`` installs if it is allowed to.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from cpc_step import RESULTS, machine
from PIL import Image

from jtm.files import ROOT, atomic, write_json
from jtm.tests.transcriber import chromium
from jtm.tests.transcriber.test_pages import dense_notes
from jtm.transcriber import pages

SECONDS = 1800
"""Duration of the music in seconds."""

RATE = 16_000
"""Sample rate of its audio in Hz."""

FRAMES = 120
"""Number of frames of a measurement."""

SIZES = {
    "desktop, 1440 x 900": {"width": 1440, "height": 900},
    "phone, 390 x 844, two pixels each": {
        "width": 390,
        "height": 844,
        "scale": 2,
        "touch": True,
    },
}
"""Window sizes."""

SPANS = {"16 s": 16, "2 minutes": 120, "all": SECONDS}
"""Zoom levels, as the visible duration in seconds."""

SCROLL = """
new Promise((done) => {
  const span = %d, room = jtm.view.width - jtm.view.keys;
  document.querySelector("#fit").click();
  jtm.view.scale = room / span;
  let frames = 0, begun = 0;
  const next = (now) => {
    if (!frames) begun = now;
    if (frames++ === %d) {
      done(1000 * (frames - 1) / (now - begun));
      return;
    }
    jtm.view.left = Math.max(0, (%d - span) * frames / %d);
    jtm.draw();
    requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
})
"""
"""Scroll from start to end in :data:`FRAMES`, so that each frame shows new music."""


def long_page():
    """
    Make a page of :data:`SECONDS` with 25 notes per second.

    Returns
    -------
    str
        Its HTML.
    """
    notes = dense_notes(SECONDS)
    wave = np.zeros(SECONDS * RATE, np.float32)
    for note in notes:
        t = np.arange(int((note["end"] - note["start"]) * RATE)) / RATE
        first = int(note["start"] * RATE)
        pitch = 440 * 2 ** ((note["pitch"] - 69) / 12)
        tone = 0.02 * np.sin(2 * np.pi * pitch * t) * np.exp(-3 * t)
        wave[first : first + len(t)] += tone[: len(wave) - first]
    return pages.page(wave, RATE, notes, "Half an hour of dense music")


def measure(browser):
    """
    Scroll through the page at each size and zoom.

    Parameters
    ----------
    browser : jtm.tests.transcriber.chromium.Browser
        The browser.

    Returns
    -------
    dict
        Size of the page, and for each window and zoom level the frames per second, the
        CPU milliseconds per frame of all processes of the browser, and the load average
        of the machine.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(long_page(), encoding="ascii")
        for window, size in SIZES.items():
            browser.open(path.as_uri(), **size)
            browser.until("window.jtm && jtm.audio.readyState >= 3")
            for visible, span in SPANS.items():
                before = browser.cpu_seconds()
                rate = browser.run(SCROLL % (span, FRAMES, SECONDS, FRAMES))
                ms = 1000 * (browser.cpu_seconds() - before) / FRAMES
                row = {"window": window, "in_sight": visible, "cpu_ms": round(ms, 1)}
                row["frames_a_second"] = round(rate, 1)
                row["load"] = round(os.getloadavg()[0], 1)
                print(row)
                rows.append(row)
        return {"seconds": SECONDS, "bytes": path.stat().st_size, "rows": rows}


def draw_picture(browser, page, out):
    """
    Draw a picture of a page for the README.

    Parameters
    ----------
    browser : jtm.tests.transcriber.chromium.Browser
        The browser.
    page : str or Path
        Path to a page that :mod:`jtm.transcriber.pages` made.
    out : str or Path
        Path to the PNG file.
    """
    address = f"{Path(page).resolve().as_uri()}#t=12.5"
    browser.open(address, width=1280, height=720)
    browser.until("window.jtm && jtm.audio.readyState >= 3 && jtm.position() > 12")
    browser.until("jtm.settled")
    with atomic(out) as part:
        browser.picture(part)
        with Image.open(part) as image:
            method = Image.Quantize.FASTOCTREE
            few = image.convert("RGB").quantize(256, method, dither=Image.Dither.NONE)
        few.save(part, optimize=True)


def main():
    """Measure, or draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--picture", metavar="PAGE.html", help="render a picture of this page"
    )
    options = parser.parse_args()
    if not chromium.find():
        raise SystemExit("browser.py: there is no Chromium: sh setup.sh --browser")
    with chromium.Browser() as browser:
        if options.picture:
            out = ROOT / "report" / "figures" / "page.png"
            draw_picture(browser, options.picture, out)
        else:
            result = {**measure(browser), **machine()}
            write_json(RESULTS / "browser.json", result)


if __name__ == "__main__":
    sys.exit(main())

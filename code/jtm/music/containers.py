"""
Reading of audio files to the end of their data, whatever the header states.

libsndfile stops at the length in a file's header. This length is an estimate in an MP3
without a frame count, too short in concatenated MP3s, missing in a FLAC or WAV written
to a pipe, and too long in a truncated file.
"""

import contextlib
import mmap
import os
import re
import sys
import threading
from contextlib import nullcontext

import soundfile

from jtm.files import warn

TOLERANCE = 0.2  # seconds by which header and decoder may differ: an MP3's padding

UNSTATED = 1 << 62  # number of frames from which libsndfile means an unknown length
_QUIET = threading.Lock()
_CHUNK = 1 << 18  # frames read at a time
_MP3_KBPS = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class _Stream(soundfile.SoundFile):
    """A file read without seeking; `opened` sets its `path` and `stated` duration."""

    def __init__(self, file, **options):
        if not isinstance(file, int) and os.name != "nt":
            file = os.fsencode(file)  # a name need not be valid UTF-8
        super().__init__(file, **options)

    def seekable(self):
        return False

    def chunks(self):
        """Yield samples ``(frames, channels)`` up to the end or to any damage."""
        n_chunks = 0
        try:
            while len(chunk := self.read(_CHUNK, dtype="float32", always_2d=True)):
                yield chunk
                n_chunks += 1
        except soundfile.SoundFileError:
            recovered = False
            with (
                contextlib.suppress(soundfile.SoundFileError),
                _Stream(self.path) as file,
            ):
                for _ in range(n_chunks):
                    file.read(_CHUNK)
                # Then in small steps, as far as possible.
                while len(chunk := file.read(1 << 10, dtype="float32", always_2d=True)):
                    yield chunk
                    recovered = True
            if not n_chunks and not recovered:
                raise

    def check_end(self, seconds):
        """Warn if the header disagrees with the number of `seconds` that were read."""
        cut_off = more = False
        if self.format in ("WAV", "WAVEX", "AIFF", "AU"):
            log = self.extra_info
            size = re.search(r"(?:data|SSND|Data Size +) : (\d+) \(should be", log)
            # When writing to a pipe, programs state the maximum length.
            cut_off = size and 0 < int(size[1]) < 0xFFFFF000
            cut_off = cut_off and not 0x7FFFF000 <= int(size[1]) <= 0x80000000
            stop = re.search(r"Unknown chunk marker .*at position (\d+)", log)
            n_bytes = os.path.getsize(self.path)
            second = n_bytes / max(seconds, TOLERANCE)
            more = stop and n_bytes - int(stop[1]) > TOLERANCE * second
        elif self.format == "OGG":
            cut_off, more = _scan_ogg(self.path)
        elif self.format == "FLAC":
            cut_off = "DECODER_ERROR" in self.extra_info
        difference = 0.0 if self.stated is None else seconds - self.stated
        if cut_off or difference < -TOLERANCE:
            of = f" of {self.stated:.1f} s" if difference < -TOLERANCE else ""
            warn(f"{self.path}: cut off or damaged; {seconds:.1f} s{of} can be read")
        elif more:
            warn(
                f"{self.path}: only {seconds:.1f} s are read; its header does not "
                "count what follows; convert the file again"
            )
        elif difference > TOLERANCE:
            warn(
                f"{self.path}: its header states {self.stated:.1f} s, but it holds "
                f"{seconds:.1f} s, all of which are read"
            )


@contextlib.contextmanager
def opened(path):
    """
    Open an audio file for reading to the end of its data.

    Parameters
    ----------
    path : str or Path
        Path to the file.

    Yields
    ------
    _Stream
        The file; if the header is wrong, it is read through a pipe, and then `stated`
        is None or its `frames` are at least :data:`UNSTATED`.
    """
    with contextlib.ExitStack() as stack:
        with _quiet() if str(path).lower().endswith(".mp3") else nullcontext():
            file = stack.enter_context(_Stream(path))
        stated = file.frames / file.samplerate if file.frames < UNSTATED else None
        start = None if file.frames else _unstated_wav(path)
        if start and soundfile.check_format("RAW", file.subtype, "LITTLE"):
            plain = {"format": "RAW", "endian": "LITTLE", "subtype": file.subtype}
            plain |= {"samplerate": file.samplerate, "channels": file.channels}
            file, stated = stack.enter_context(_piped(path, start, **plain)), None
        if file.format == "MP3":
            seconds, first, counted = _scan_mp3(path)
            short = seconds > stated + TOLERANCE
            if short or (not counted and seconds and seconds < stated - TOLERANCE):
                # Without a frame count, reading through a pipe reaches the end.
                file = stack.enter_context(_piped(path, first))
        file.path, file.stated = path, stated
        yield file


@contextlib.contextmanager
def _quiet():
    """Suppress mpg123's warnings of an MP3's header, which `check_end` checks."""
    if not sys.stderr:
        yield
        return
    with _QUIET:
        (reading, writing), stderr = os.pipe(), os.dup(2)
        os.dup2(writing, 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.write(writing, b"\n")  # so that reading never blocks
            text = re.sub(rb"Warning: Xing.*\n\n?", b"", os.read(reading, 1 << 16)[:-1])
            for each in (reading, writing, stderr):
                os.close(each)
            os.write(2, text)  # output of other threads


@contextlib.contextmanager
def _piped(path, first, **options):
    """Open an audio file from a given byte through a pipe, which has no length."""
    reading, writing = os.pipe()

    def feed():
        with contextlib.suppress(BrokenPipeError), open(writing, "wb") as sink:
            with open(path, "rb") as source:
                source.seek(first)
                while chunk := source.read(1 << 16):
                    sink.write(chunk)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        with _Stream(reading, closefd=False, **options) as file:
            yield file
    finally:
        os.close(reading)  # stops the feeder if it is still running
        feeder.join()


def _scan_mp3(path):
    """Return an MP3's seconds, first audio byte, and whether its frames are counted."""
    seconds, first, counted = 0.0, None, False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=1) as data:
        position, size = 0, len(data)
        while data[position : position + 3] == b"ID3" and position <= size - 10:
            head = data[position : position + 10]
            position += 10 + sum(head[6 + i] << 7 * (3 - i) for i in range(4))
            position += 10 * (head[5] >> 4 & 1)  # a footer
        while 0 <= position < size - 4:
            frame = _mp3_frame(data, position)
            if frame and first is None and position + frame[0] < size - 4:
                # Other bytes may look like a frame, but hardly like two in a row.
                frame = _mp3_frame(data, position + frame[0]) and frame
            if not frame:
                position = data.find(b"\xff", position + 1)
                continue
            length, duration = frame
            head = data[position : position + 64] if first is None else b""
            if any(mark in head for mark in (b"Xing", b"Info", b"VBRI")):
                counted = True  # this frame states the frame count and has no audio
            else:
                seconds += duration
                first = position if first is None else first
            position += length
    return seconds, first or 0, counted


def _mp3_frame(data, position):
    """Return size in bytes and duration of a frame from its header, or None."""
    header = int.from_bytes(data[position : position + 4], "big")
    version = {3: 1, 2: 2, 0: 2.5}.get(header >> 19 & 3)
    rate, kbps = header >> 10 & 3, header >> 12 & 15
    layer_3 = header >> 21 == 0x7FF and header >> 17 & 3 == 1
    if not (layer_3 and version and rate < 3 and 0 < kbps < 15):
        return None
    rate = (44_100, 48_000, 32_000)[rate] // {1: 1, 2: 2, 2.5: 4}[version]
    samples = 1152 if version == 1 else 576
    kbps = _MP3_KBPS[1 if version == 1 else 2][kbps - 1]
    return samples * 125 * kbps // rate + (header >> 9 & 1), samples / rate


def _scan_ogg(path):
    """Return whether an Ogg file lacks its last page, and whether a stream follows."""
    ended = more = False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=1) as data:
        position = 0
        while data[position : position + 4] == b"OggS":
            more = more or (ended and bool(data[position + 5] & 2))
            ended = bool(data[position + 5] & 4)
            lengths = data[position + 27 : position + 27 + data[position + 26]]
            position += 27 + len(lengths) + sum(lengths)
            ended = ended and position <= len(data)
    return not ended and not more, more


def _unstated_wav(path):
    """Return the byte offset of audio in a WAV whose header lacks a length."""
    with open(path, "rb") as file:
        if file.read(12)[:4] not in (b"RIFF", b"RF64"):
            return None
        for _ in range(100):  # chunks
            head = file.read(8)
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                start = file.tell()
                following = file.read(4)  # another chunk, if this is a valid chunk name
                return None if following.isascii() and following.isalnum() else start
            file.seek(size + size % 2, os.SEEK_CUR)
    return None

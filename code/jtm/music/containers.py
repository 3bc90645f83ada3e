"""
Decoding of audio files by FFmpeg, to the end of their data.

The duration in a header may be wrong: too long if the file is cut off, missing or too
short if a program wrote to a pipe or files were concatenated. Whatever can be decoded
is read; missing audio is warned about.
"""

import contextlib
import os
import re
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np

from jtm.files import InputError, warn

AUDIO_SUFFIXES = tuple(
    ".wav .aif .aiff .au .caf .flac .wv .ogg .opus .mp3 .m4a .mp4 .aac .wma .mka .webm"
    "".split()
)
"""Extensions of audio files, in lower case, by which they are found in folders."""

FORMATS = "wav,w64,aiff,au,flac,ogg,mp3,mov,aac,caf,asf,wv,matroska"
"""Permitted formats; those of playlists, for example, would open other files."""

TOLERANCE = 0.08  # seconds by which header and decoder may differ
_CHUNK = 32  # blocks of a codec that are joined


class _Audio:
    """An open audio file: its sample `rate`, and its `stated` seconds or None."""

    def __init__(self, path, container, wav):
        self.path, self._format = path, container.format.name
        self._wav = wav  # start and number of bytes of the audio of a WAV
        self._damaged = self._more = False
        stream = container.streams.audio[0]
        if stream.name == "flac":  # whose damaged blocks would be noise
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        packets = container.demux(stream)
        first = next(packets)
        # Opus counts samples before time 0, which the decoder discards.
        early = min(0, first.pts) if stream.name == "opus" else 0
        self.stated = None
        if stream.duration:
            self.stated = float((stream.duration + early) * stream.time_base)
        is_mp3 = self._format == "mp3"
        if self._format == "aac" or (is_mp3 and not self._counted(first)):
            self.stated = None  # FFmpeg's estimate
        frames = self._decode(chain((first,), packets))
        start, size = wav
        is_empty = start and not size and _is_chunk(path, start)
        head = [] if is_empty else [*islice(frames, 1)]
        self.rate = head[0].sample_rate if head else stream.rate
        if not self.rate or (self._damaged and not head):
            raise av.InvalidDataError(0, "no block can be decoded")
        self._frames = chain(head, frames) if head else iter(())

    def _counted(self, packet):
        """Return whether an MP3 has a frame count, before its first `packet`."""
        position = packet.pos or 0
        start = max(0, position - 2048)
        with open(self.path, "rb") as file:
            file.seek(start)
            return bool(re.search(rb"Xing|Info|VBRI", file.read(position - start)))

    def _decode(self, packets):
        """Yield the blocks that can be decoded."""
        with contextlib.suppress(StopIteration):
            while True:
                try:
                    yield from next(packets).decode()
                except av.InvalidDataError:
                    self._damaged = True
                except av.PatchWelcomeError:  # another kind of stream follows
                    self._more = True

    def _samples(self):
        """Yield samples ``(samples, channels)`` of each block in float32."""
        kind = None
        for frame in self._frames:
            kind = kind or (frame.sample_rate, frame.layout.nb_channels)
            if kind != (frame.sample_rate, frame.layout.nb_channels):
                self._more = True  # another file, appended to the first
                return
            block = frame.to_ndarray()
            block = block.T if frame.format.is_planar else block.reshape(-1, kind[1])
            if block.dtype.kind in "iu":
                full = np.float32(1 << 8 * block.itemsize - 1)
                block = (block - full * (block.dtype.kind == "u")) / full
            yield block.astype(np.float32, copy=False)

    def chunks(self):
        """Yield samples ``(samples, channels)`` in float32."""
        blocks = self._samples()
        while some := [*islice(blocks, _CHUNK)]:
            yield np.concatenate(some)

    def check_end(self, seconds):
        """Warn unless the `seconds` that were decoded are the whole file."""
        cut_off, more = self._damaged, self._more
        if self._format == "wav":
            shorter, more = _compare_wav(self.path, *self._wav, TOLERANCE / seconds)
            cut_off |= shorter
        elif self._format == "ogg":
            cut_off |= not _has_last_page(self.path)
        missing = (self.stated or 0.0) - seconds > TOLERANCE
        if cut_off or missing:
            of = f" of {self.stated:.1f} s" if missing else ""
            warn(f"{self.path}: cut off or damaged; {seconds:.1f} s{of} can be read")
        elif more:
            warn(
                f"{self.path}: only {seconds:.1f} s are read; its header does not "
                "count what follows; convert the file again"
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
    _Audio
        The file.

    Raises
    ------
    InputError
        If it cannot be read, or is not an audio file.
    """
    try:
        with open(path, "rb") as file:
            # A name need not be valid UTF-8; FFmpeg looks at its extension.
            file.raw.name = os.fsencode(path).decode("ascii", "replace")
            options = {"format_whitelist": FORMATS}
            wav = _wav_data(file)
            if wav[0] and not wav[1]:
                options["ignore_length"] = "1"
            file.seek(0)
            with av.open(file, options=options, metadata_errors="replace") as container:
                streams = container.streams.audio
                if not (streams and streams[0].codec_context):
                    raise av.InvalidDataError(0, "no audio, or of an unknown codec")
                yield _Audio(path, container, wav)
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path}: {_reason(Path(path))}") from error


def _reason(path):
    """Return why a file cannot be opened as an audio file."""
    try:
        if path.is_dir():
            return "is a folder; expected an audio file"
        if path.is_fifo():
            return "is a pipe; expected a file, as it is read more than once"
        if not path.stat().st_size:
            return "is empty; expected audio"
        path.open("rb").close()
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    reason = f"expected {', '.join(AUDIO_SUFFIXES)}"
    if path.suffix.lower() in AUDIO_SUFFIXES:
        reason = "damaged, or of another format than its name says"
    return f"not a readable audio file ({reason}); replace or remove it"


def _wav_data(file):
    """Return where the audio of a WAV begins, and the stated number of bytes."""
    long = None
    if file.read(12)[:4] in (b"RIFF", b"RF64"):
        for _ in range(100):  # chunks
            name, size = file.read(4), int.from_bytes(file.read(4), "little")
            position = file.tell()
            if name == b"ds64":  # sizes beyond 32 bits
                long = int.from_bytes(file.read(16)[8:], "little")
            elif name == b"data":
                return position, size if long is None else long
            file.seek(position + size + size % 2)
    return 0, 0


def _is_chunk(path, position):
    """Return whether a position of a WAV has a chunk, no other file, or is its end."""
    with open(path, "rb") as file:
        file.seek(position)
        name = file.read(4)
    return not name or bool(re.fullmatch(rb"(?!RIF[FX]|RF64)\w{3}[\w ]", name))


def _compare_wav(path, start, size, tolerance):
    """Return whether a WAV has less, or more by a share, than its header states."""
    n_bytes = os.path.getsize(path) - start
    # When writing to a pipe, programs state nothing, or the maximum.
    if not size or 0x7FFFF000 <= size <= 0x80000000 or size >= 0xFFFFF000:
        return False, False
    more = n_bytes - size > tolerance * size
    return n_bytes < size, more and not _is_chunk(path, start + size + size % 2)


def _has_last_page(path):
    """Return whether an Ogg file has its last page, up to its last byte."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - (1 << 17)))  # two pages at most
        _, mark, page = file.read().rpartition(b"OggS")
    size = 23 + page[22] + sum(page[23 : 23 + page[22]]) if len(page) > 22 else 1 << 17
    return bool(mark) and size <= len(page) and bool(page[1] & 4)

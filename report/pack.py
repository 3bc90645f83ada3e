"""
Pack what is handed in: ``make submission NAMES="A B C"``.

The archive ``[ATIAM][ML2017] (A B C).zip`` unfolds to a folder of that name with
every file that the repository tracks, and ``toy/sample/``, some recordings of the
tiny toy set with their labels. The same files give the same bytes.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "code"))

from jtm.cli import run  # noqa: E402
from jtm.data import musicnet  # noqa: E402
from jtm.data.toyset import toy_data  # noqa: E402
from jtm.files import InputError, atomic  # noqa: E402

CELLS = "report/results/cells/"
"""Files from which a benchmark resumes; their scores are in its table."""

MANIFEST = "MANIFEST"
"""Name of the file in the archive that lists the others."""

SAMPLED = {"train": 1, "validation": 1, "test": 1}
"""Recordings of each split in the sample, about 8 s each."""

NOT_PASSED_ON = ("Palestrina",)
"""Composers whose encodings forbid it; see the licences in ``toy/datasheet.pdf``."""

MOST_BYTES = 15_000_000
"""Maximum size of the archive."""


def tracked():
    """
    List the files of the project.

    Returns
    -------
    list of str
        What git tracks or, in a tree that came out of an archive, what was packed;
        without those that begin with a dot.

    Raises
    ------
    InputError
        If git cannot tell, or neither is there.
    """
    if (ROOT / ".git").exists():
        # Whoever owns the files, as in a container.
        command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
        try:
            listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(f"{ROOT}: git cannot list the files ({error})") from error
        names = listed.stdout.decode().strip("\0").split("\0")
    elif (ROOT / MANIFEST).exists():
        names = (ROOT / MANIFEST).read_text(encoding="utf-8").splitlines()
    else:
        raise InputError(
            f"{ROOT}: neither .git nor {MANIFEST} tells which files to pack; "
            "run it in a git checkout or in an unpacked archive"
        )
    return sorted(name for name in names if not name.startswith((".", CELLS)))


def sample(data):
    """
    Choose recordings that may be passed on.

    Parameters
    ----------
    data : str or Path
        A toy set.

    Returns
    -------
    dict of str to bytes
        Content of each file by its path in a dataset of MusicNet's layout.
    """
    chosen = []
    for split, count in SAMPLED.items():
        allowed = [
            recording
            for recording in musicnet.open_dataset(data).split(split)
            if recording.metadata["composer"] not in NOT_PASSED_ON
        ]
        chosen += allowed[:count]
    paths = [path for each in chosen for path in (each.audio, each.labels)]
    found = {path.relative_to(data).as_posix(): path.read_bytes() for path in paths}
    ids = {recording.id for recording in chosen}
    table = (Path(data) / musicnet.METADATA_FILE).read_text(encoding="utf-8")
    head, *rows = table.splitlines(keepends=True)
    rows = [row for row in rows if row.partition(",")[0] in ids]
    return found | {musicnet.METADATA_FILE: "".join((head, *rows)).encode()}


def pack(names, out):
    """
    Write the archive.

    Parameters
    ----------
    names : str
        The authors.
    out : str or Path
        Folder for it.

    Returns
    -------
    Path
        The archive.

    Raises
    ------
    InputError
        If the names do not make a file name, a tracked file is missing, or the
        archive is too large.
    """
    names = " ".join(names.split())
    if not names or not names.isprintable() or set(names) & set('/\\:*?"<>|'):
        raise InputError(
            f"NAMES is {names!r}; expected the authors, without any of "
            '/\\:*?"<>|, as in make submission NAMES="A B C"'
        )
    content = {}
    for name in tracked():
        if not (ROOT / name).is_file():
            raise InputError(f"{name}: tracked, but not there; restore it")
        content[name] = (ROOT / name).read_bytes()
    content[MANIFEST] = "".join(f"{name}\n" for name in content).encode()
    for name, data in sample(toy_data("tiny")).items():
        content[f"toy/sample/{name}"] = data
    folder = f"[ATIAM][ML2017] ({names})"
    path = Path(out) / f"{folder}.zip"
    with atomic(path) as part:
        with zipfile.ZipFile(part, "w") as archive:
            for name, data in content.items():
                # Dated 1980, so that the same content gives the same bytes.
                entry = zipfile.ZipInfo(f"{folder}/{name}")
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
        if part.stat().st_size > MOST_BYTES:
            raise InputError(
                f"{path.name}: {part.stat().st_size / 1e6:.0f} MB; expected at most "
                f"{MOST_BYTES / 1e6:.0f} MB, so leave the largest files out"
            )
    return path


def main(arguments):
    """
    Run the command line.

    Parameters
    ----------
    arguments : list of str
        The authors.

    Returns
    -------
    int
        Exit code: 0, or 2 after a mistake of the user's.
    """

    def command():
        path = pack(" ".join(arguments), ROOT)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")

    return run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

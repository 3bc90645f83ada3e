"""Blocks of a Markdown page that a command writes, so that no number is typed."""

from pathlib import Path

from jtm.files import InputError, atomic


def fill(path, blocks):
    """
    Rewrite the named blocks of a page.

    Parameters
    ----------
    path : str or Path
        The page. A block stands between ``<!-- NAME -->`` and
        ``<!-- end of NAME -->``, each on a line of its own.
    blocks : dict of str to str
        New text of each block by name.

    Raises
    ------
    InputError
        If the page lacks a block.
    """
    page = Path(path).read_text(encoding="utf-8")
    for name, text in blocks.items():
        before, opened, rest = page.partition(f"<!-- {name} -->\n")
        _, closed, after = rest.partition(f"<!-- end of {name} -->")
        if not (opened and closed):
            raise InputError(f"{path}: has no block '<!-- {name} -->' with its end")
        page = f"{before}{opened}{text.strip()}\n{closed}{after}"
    with atomic(path) as part:
        part.write_text(page, encoding="utf-8")

"""Verification pairs and lists of people, read and written in LFW's formats or as CSV.

View 2 ``pairs.txt`` has ten folds; View 1 ``pairsDev*.txt`` has none and is cut into ten equal parts. Anything
LFW naming can not express is a CSV with the columns first, second, same and, if there are folds, fold.
Source: Huang et al. 2007, LFW, UMass TR 07-49; Schroff et al. 2015, section 4 (evaluation on pairs).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from facenet.data.options import PairColumns
from facenet.errors import DataError
from facenet.files import atomic_write, csv_text
from facenet.types import Pairs, image_key

PARTS = 10  # folds that a file without folds is cut into
COLUMNS = PairColumns()
WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "same": True,
    "0": False,
    "false": False,
    "no": False,
    "different": False,
}
Line = tuple[int, list[str]]  # line number and cells


def read_pairs(path: str | Path, columns: PairColumns = COLUMNS, *, named: str = "data.pair_columns") -> Pairs:
    r"""Read P pairs: View 2 (header ``10\t300``), View 1 (header ``500``) or CSV (``first,second,same[,fold]``).

    Same pairs are ``name\tn1\tn2``, different ones ``name1\tn1\tname2\tn2``; keys become ``Name/Name_0001``.
    Without folds in the file, the i-th of n same (different) pairs gets fold floor(10 i / n). A byte order mark,
    CRLF and blank lines at the end are accepted. `columns` names the columns of a CSV, in upper or lower case;
    `named` is the option that does so, for a message.

    Raises:
        DataError: missing, empty or malformed file, with the line, what was expected and what to do.
    """
    path = Path(path)
    text = _text(path)
    return _parse_csv(path, text, columns, named) if "," in text.split("\n", 1)[0] else _parse_lfw(path, text)


def write_pairs(path: str | Path, pairs: Pairs) -> None:
    """Write pairs so that :func:`read_pairs` returns them as they are, atomically.

    The format is View 2 when the keys follow LFW's naming and every fold holds n same, then n different pairs;
    it is CSV otherwise, and for a `path` ending in ``.csv``.

    Raises:
        DataError: no pairs, or the file can not be written.
    """
    path = Path(path)
    if not len(pairs):
        raise DataError(f"{path}: expected at least one pair to write, got none; make pairs first")
    text = None if path.suffix.lower() == ".csv" else _lfw_text(pairs)
    with atomic_write(path) as file:
        file.write((text or _csv_text(pairs)).encode())


def read_people(path: str | Path) -> list[list[str]]:
    r"""Read names by fold: a plain list, a name a line (one fold), or LFW's ``people.txt`` (ten) or ``peopleDev*.txt``.

    A list of LFW's is a line with its length, then lines ``name\timages``. Before its ten lists, ``people.txt`` has a
    line with their number.

    Raises:
        DataError: missing, empty or malformed file.
    """
    path = Path(path)
    text = _text(path)
    plain = [line.strip() for line in text.splitlines() if line.strip()]
    if "\t" not in text and not plain[0].isdigit():
        return [plain]
    lines, folds = _lines(text), 1
    if len(lines) > 1 and len(lines[0][1]) == 1 and len(lines[1][1]) == 1:
        folds = _number(path, *lines[0], 0, "the number of folds")
        lines = lines[1:]
    people, at = [], 0
    for _ in range(folds):
        if at >= len(lines):
            raise _broken(path, lines[-1][0] + 1, f"{folds} lists of people", "the end of the file")
        count = _number(path, *lines[at], 0, "the number of people")
        block = lines[at + 1 : at + 1 + count]
        if len(block) < count:
            raise _broken(path, lines[at][0], f"{count} people below", f"{len(block)} lines")
        for number, cells in block:
            if len(cells) not in (1, 2) or cells[0].isdigit():
                raise _broken(path, number, "name<TAB>images", "<TAB>".join(cells))
        people.append([cells[0] for _, cells in block])
        at += 1 + count
    if at < len(lines):
        raise _broken(path, lines[at][0], "the end of the file", "<TAB>".join(lines[at][1]))
    return people


def pair_rows(pairs: Pairs, keys: Iterable[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Look up the rows of P pairs among N image keys: (rows of first (P,), rows of second (P,), missing keys).

    Rows are int64, -1 where the key is missing; missing keys are listed once, in the order of the pairs.

    Raises:
        DataError: a key that the pairs name stands for several rows.
    """
    wanted = dict.fromkeys(key for pair in zip(pairs.first, pairs.second, strict=True) for key in pair)
    row_of: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key in wanted and row_of.setdefault(key, row) != row:
            raise DataError(f"pairs: several images have the key {key!r}; keep one file type for each image")
    first, second = (
        np.fromiter((row_of.get(key, -1) for key in side), np.int64, len(pairs)) for side in (pairs.first, pairs.second)
    )
    return first, second, [key for key in wanted if key not in row_of]


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")  # reads CRLF as newlines
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give an LFW pairs or people file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as text ({error}); give an LFW file or a CSV in UTF-8") from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty; expected a header and lines below it")
    return text


def _lines(text: str) -> list[Line]:
    rows = [line.rstrip() for line in text.rstrip().split("\n")]
    return [(number, row.split("\t") if "\t" in row else row.split()) for number, row in enumerate(rows, 1)]


def _broken(path: Path, number: int, expected: str, got: str) -> DataError:
    return DataError(f"{path}, line {number}: expected {expected}, got {got!r}; mend it or take the original file")


def _number(path: Path, number: int, cells: list[str], place: int, what: str) -> int:
    cell = cells[place] if place < len(cells) else ""
    if not _numbered(cell) or int(cell) < 1:
        raise _broken(path, number, f"{what} (a whole number >= 1)", "<TAB>".join(cells))
    return int(cell)


def _parse_lfw(path: Path, text: str) -> Pairs:
    lines = _lines(text)
    header = lines[0][1]
    if len(header) not in (1, 2):
        raise _broken(path, 1, "folds<TAB>pairs, or the number of pairs, or first,second,same", "<TAB>".join(header))
    folds = _number(path, 1, header, 0, "the number of folds") if len(header) == 2 else 1
    half = _number(path, 1, header, len(header) - 1, "the number of same pairs")
    if len(lines) != 1 + 2 * half * folds:
        raise _broken(path, 1, f"{2 * half * folds} pairs below the header", f"{len(lines) - 1} lines")
    first, second = [], []
    for row, (number, cells) in enumerate(lines[1:]):
        one, two = _pair_keys(path, number, cells, same=row % (2 * half) < half)
        first.append(one)
        second.append(two)
    same = np.tile(np.repeat([True, False], half), folds)
    fold = _cut(same) if len(header) == 1 else np.repeat(np.arange(folds, dtype=np.int64), 2 * half)
    return Pairs(tuple(first), tuple(second), same, fold)


def _pair_keys(path: Path, number: int, cells: list[str], *, same: bool) -> tuple[str, str]:
    form = "a same pair name<TAB>n1<TAB>n2" if same else "a different pair name1<TAB>n1<TAB>name2<TAB>n2"
    if len(cells) != (3 if same else 4):
        raise _broken(path, number, form, "<TAB>".join(cells))
    names = cells[0], cells[0 if same else 2]
    if not all(names) or (not same and names[0] == names[1]):
        raise _broken(path, number, form, "<TAB>".join(cells))
    one, two = (_number(path, number, cells, place, f"{form}, image numbers") for place in (1, 2 if same else 3))
    return f"{names[0]}/{names[0]}_{one:04d}", f"{names[1]}/{names[1]}_{two:04d}"


def _cut(same: np.ndarray) -> np.ndarray:
    """Cut pairs (P,) into ten equal parts in file order, same and different pairs apart."""
    fold = np.zeros(len(same), np.int64)
    for kind in (True, False):
        rows = np.flatnonzero(same == kind)
        fold[rows] = np.arange(len(rows)) * min(PARTS, max(1, len(rows))) // max(1, len(rows))
    return fold


def _parse_csv(path: Path, text: str, columns: PairColumns, named: str) -> Pairs:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    header = [name.strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    ends, label, part = (columns.first.lower(), columns.second.lower()), columns.same.lower(), columns.fold.lower()
    if not {*ends, label} <= set(header) or len(set(header)) < len(header):
        raise DataError(
            f"{path}, line 1: expected the header {columns.first},{columns.second},{columns.same}[,{columns.fold}], got"
            f" {','.join(header)!r}; mend it, or name its columns: {named}.first=NAME (second, same, fold)"
        )
    keys, words, fold = [], [], []
    try:
        for row in reader:
            cells = {name: (row[name] or "").strip() for name in header}
            word = cells[label].lower()
            known = word in WORDS if columns.yes is None else bool(word)
            if None in row or not known or not _numbered(cells.get(part, "0")):
                expected = ",".join([*ends, f"{label} (1 or 0)[,{part} (a whole number)]"])
                raise _broken(path, reader.line_num, expected, ",".join(cells.values()))
            keys.append(tuple(_key(path, reader.line_num, cells[name]) for name in ends))
            words.append(word)
            fold.append(int(cells.get(part, "0")))
    except csv.Error as error:
        raise _broken(path, reader.line_num, "a line of CSV", str(error)) from error
    if not keys:
        raise DataError(f"{path}: a header but no pairs; expected lines {','.join([*ends, label])} below it")
    same = _labels(path, words, columns)
    folds = np.asarray(fold, np.int64) if part in header else _cut(same)
    return Pairs(tuple(one for one, _ in keys), tuple(two for _, two in keys), same, folds)


def _labels(path: Path, words: list[str], columns: PairColumns) -> np.ndarray:
    """Return which of P words mean one person, bool (P,): those of `WORDS`, or `columns.yes` of two words."""
    if columns.yes is None:
        return np.array([WORDS[word] for word in words], bool)
    yes, found = columns.yes.lower(), set(words)
    if yes not in found or len(found) > 2:
        shown = ", ".join(sorted(found)[:4])
        raise DataError(f"{path}: expected {columns.yes!r} and one other word under {columns.same!r}, got {shown}")
    return np.array([word == yes for word in words], bool)


def _numbered(cell: str) -> bool:
    return cell.isascii() and cell.isdigit() and len(cell) <= 18  # that is how many fit into int64


def _key(path: Path, number: int, cell: str) -> str:
    try:
        return image_key(cell)
    except ValueError:
        raise _broken(path, number, "a relative image path", cell) from None


def _lfw_text(pairs: Pairs) -> str | None:
    """Write View 2 text, or return None when it would not be read back as the same pairs."""
    folds = len(np.unique(pairs.fold))
    half = len(pairs) // (2 * folds)
    lines = [f"{folds}\t{half}"]
    for one, two, same in zip(pairs.first, pairs.second, pairs.same, strict=True):
        found = [re.fullmatch(r"([^/\t\n]+)/\1_(\d{4,})", key) for key in (one, two)]
        if found[0] is None or found[1] is None:
            return None
        (name, n1), (other, n2) = ((match[1], int(match[2])) for match in found if match)
        lines.append(f"{name}\t{n1}\t{n2}" if same else f"{name}\t{n1}\t{other}\t{n2}")
    text = "\n".join(lines) + "\n"
    try:
        back = _parse_lfw(Path("pairs"), text)
    except DataError:
        return None
    as_they_are = back.first == tuple(pairs.first) and back.second == tuple(pairs.second)
    return text if as_they_are and np.array_equal(back.fold, pairs.fold) else None


def _csv_text(pairs: Pairs) -> str:
    # a key with a dot in its last part gets a file type back, since reading takes one away
    names = [[key if image_key(key) == key else f"{key}.jpg" for key in side] for side in (pairs.first, pairs.second)]
    rows = zip(*names, pairs.same.astype(int).tolist(), pairs.fold.tolist(), strict=True)
    return csv_text([("first", "second", "same", "fold"), *rows])

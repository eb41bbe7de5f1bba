"""Tables as they come: CSV of any divider and encoding, Excel, Parquet; every cell is a text."""

from __future__ import annotations

import codecs
import csv
import io
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

from robustmri.core.errors import DataError
from robustmri.data.readers.files import read_regular
from robustmri.data.readers.source import LeftOut

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet")
TABLE_LIMIT = 2**30
"""Bytes of a table, packed or unpacked, at most."""
CELL_LIMIT = 2**16
ROW_LIMIT = 10_000_000
COLUMN_LIMIT = 10_000
BATCH = 4096
LISTED = 1000
"""Faulty rows that are named one by one; the rest is counted."""
DIVIDERS = {",": "comma", ";": "semicolon", "\t": "tab"}
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Table:
    """Rows of texts.

    Attributes:
        columns: their names, as they stand in the header.
        cells: a pyarrow table; its columns are named "0", "1", ... in the order of `columns`.
        left_out: rows that do not fit the header.
        how: what had to be found out to read it, in words; "" where nothing had.
        skipped: numbers of rows of the file that are none of `cells`; the header is row 1.
    """

    path: Path
    columns: tuple[str, ...]
    cells: Any
    left_out: tuple[LeftOut, ...] = ()
    how: str = ""
    skipped: tuple[int, ...] = ()

    def number_of(self, place: int) -> int:
        """The number of a row in the file, as a person counts: the header is row 1.

        >>> Table(Path("a.csv"), ("a",), None, skipped=(2, 4)).number_of(1)
        5
        """

        # Of each skipped row, how many rows of `cells` stand above it.
        def above(k: int) -> int:
            return self.skipped[k] - 2 - k

        return place + 2 + bisect_right(range(len(self.skipped)), place, key=above)

    def __len__(self) -> int:
        return int(self.cells.num_rows)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Cells of these columns, row by row, without blanks around them.

        Raises:
            DataError: no such column, or two of that name.
        """
        chosen = self.cells.select([self._place(name) for name in names])
        for batch in chosen.to_batches(max_chunksize=BATCH):
            columns = [_as_read(column).to_pylist() for column in batch.columns]
            yield from zip(*columns, strict=True)

    def row(self, place: int, names: Sequence[str]) -> tuple[str, ...]:
        """Cells of these columns in one row, which is counted from 0."""
        columns = (self.cells.column(self._place(name)) for name in names)
        return tuple(normalize("NFC", column[place].as_py().strip()) for column in columns)

    def distinct(self, name: str) -> list[str]:
        """The texts that occur in a column, in the order in which they first do."""
        import pyarrow.compute as pc

        found = pc.unique(_as_read(self.cells.column(self._place(name))))
        texts: list[str] = found.to_pylist()
        return texts

    def _place(self, name: str) -> str:
        places = [place for place, column in enumerate(self.columns) if column == name]
        if len(places) != 1:
            raise DataError(
                f"{self.path.name} has {len(places) or 'no'} columns {name!r}. It has: "
                f"{', '.join(self.columns)}."
                if places
                else f"{self.path.name} has no column {name!r}. It has: {', '.join(self.columns)}."
            )
        return str(places[0])


def _as_read(column: Any) -> Any:
    """Texts as a reader sees them: without blanks around them, an accent and its letter in one, as
    which several systems write a letter and its accent.
    """
    import pyarrow.compute as pc

    return pc.utf8_normalize(pc.utf8_trim_whitespace(column), form="NFC")


def is_table(path: Path) -> bool:
    """Whether a file has the suffix of a table that can be read."""
    return path.suffix.lower() in TABLE_SUFFIXES and path.is_file()


def read_table(path: Path, *, rows: int | None = None) -> Table:
    """Read a table whose first row is its header.

    Args:
        path: a .csv, .tsv, .xlsx or .parquet file.
        rows: only so many, to look at it; the whole table otherwise.

    Raises:
        DataError: it cannot be read as the table that its suffix promises, or is too large.
    """
    suffix = path.suffix.lower()
    read: Callable[[Path, int | None], Table] = {
        ".xlsx": _read_excel,
        ".parquet": _read_parquet,
    }.get(suffix, _read_text)
    try:
        table = read(path, rows)
    except DataError as error:
        raise DataError(f"{path.name} cannot be read as a table: {error}") from error
    if not any(table.columns):
        raise DataError(f"{path.name} cannot be read as a table: it has no header.")
    return table


def _read_text(path: Path, rows: int | None) -> Table:
    """A CSV; divider and encoding are found by looking."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    content = read_regular(path)
    encoding = _encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"not a text in {encoding} ({error}); save it again as UTF-8") from error
    if "\0" in text[:CELL_LIMIT]:
        raise DataError("it is not a text (it holds zero bytes)")
    if "\n" not in text:  # As spreadsheets wrote it on a Macintosh.
        text = text.replace("\r", "\n")
    # A header and a few lines are enough to look at.
    text = text if rows is None else "".join(text[: 2**20].splitlines(keepends=True)[: rows + 1])
    divider = _divider_of(text)
    header = next(_parsed(text, divider), [])
    if len(header) > COLUMN_LIMIT:
        raise DataError(f"it has {len(header)} columns")
    names = [str(place) for place in range(len(header))]
    if not names:
        return Table(path, (), None)
    left: list[LeftOut] = []
    skipped: list[int] = []

    def refuse(row: Any) -> str:
        skipped.append(row.number)
        if len(left) < LISTED:
            reason = f"it has {row.actual_columns} cells and the header {row.expected_columns}"
            if row.actual_columns > row.expected_columns:
                reason += f"; a {DIVIDERS[divider]} inside a cell needs quotes around the cell"
            left.append(LeftOut(f"{path.name}: row {row.number}", reason))
        return "skip"

    try:
        cells = arrow.read_csv(
            io.BytesIO(text.encode("utf-8")),
            # In one thread, which alone counts the rows.
            read_options=arrow.ReadOptions(
                use_threads=False, column_names=names, skip_rows_after_names=1, block_size=2**24
            ),
            parse_options=arrow.ParseOptions(
                delimiter=divider, newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        raise DataError(" ".join(str(error).split())) from error
    if more := len(skipped) - len(left):
        left.append(LeftOut(path.name, f"{more} more rows do not fit the header"))
    how = f"read as {DIVIDERS[divider]}-separated"
    if encoding == "cp1252":
        how += " in Windows-1252 (it is not UTF-8, so letters beyond ASCII may be wrong)"
    elif encoding != "utf-8":
        how += f" in {encoding.upper().removesuffix('-SIG')} with a byte-order mark"
    names = [name.strip() for name in header]
    return Table(path, tuple(names), cells, tuple(left), how, tuple(skipped))


def _encoding_of(content: bytes) -> str:
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return encoding
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        try:
            content.decode("cp1252")
        except UnicodeDecodeError:
            return "latin-1"
        return "cp1252"
    return "utf-8"


def _parsed(text: str, divider: str) -> Iterator[list[str]]:
    try:
        yield from (row for row in csv.reader(io.StringIO(text), delimiter=divider) if row)
    except csv.Error as error:
        raise DataError(f"it is not a CSV file ({error})") from error


def _divider_of(text: str) -> str:
    """The divider that gives the header the most cells."""
    cells = {divider: len(next(_parsed(text, divider), [])) for divider in DIVIDERS}
    return max(cells, key=lambda divider: cells[divider])


def _read_excel(path: Path, rows: int | None) -> Table:
    """The first sheet of a workbook that is not empty."""
    content = read_regular(path)
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise DataError(
            "Excel files need openpyxl: pip install 'robustmri[formats]'; or save it as CSV"
        ) from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            # No member unpacks to more than it declares.
            size = sum(member.file_size for member in packed.infolist())
        if size > TABLE_LIMIT:
            raise DataError(f"it unpacks to {size} bytes, at most {TABLE_LIMIT} are read")
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        for sheet in book.worksheets:
            table = _read_sheet(path, sheet, rows)
            if table is not None:
                more = len(book.worksheets) > 1
                how = f"the sheet {sheet.title!r} of {len(book.worksheets)}" if more else ""
                return replace(table, how=how)
    except DataError:
        raise
    except Exception as error:  # A damaged workbook can raise anything.
        raise DataError(f"it is not an Excel workbook ({' '.join(str(error).split())})") from error
    return Table(path, (), None)


def _read_sheet(path: Path, sheet: Any, rows: int | None) -> Table | None:
    import pyarrow as pa

    sheet.reset_dimensions()  # What it declares may be anything.
    header: list[str] = []
    columns: list[list[str]] = []
    left: list[LeftOut] = []
    skipped: list[int] = []
    more = 0
    for number, line in enumerate(sheet.iter_rows(values_only=True, max_col=COLUMN_LIMIT), start=1):
        cells = [_text_of(value) for value in line]
        while cells and not cells[-1]:
            cells.pop()
        if number > ROW_LIMIT:
            raise DataError(f"it has more than {ROW_LIMIT} rows")
        if not cells:
            skipped.append(number)
            continue
        if not header:
            header, columns = cells, [[] for _ in cells]
        elif len(cells) <= len(header):
            for place, column in enumerate(columns):
                column.append(cells[place] if place < len(cells) else "")
        elif len(left) < LISTED:
            reason = f"it has {len(cells)} cells and the header {len(header)}"
            left.append(LeftOut(f"{path.name}: row {number}", reason))
            skipped.append(number)
        else:
            more += 1
            skipped.append(number)
        if rows is not None and columns and len(columns[0]) >= rows:
            break
    if not header:
        return None
    if more:
        left.append(LeftOut(path.name, f"{more} more rows do not fit the header"))
    arrays = {str(place): pa.array(column, pa.string()) for place, column in enumerate(columns)}
    names = tuple(name.strip() for name in header)
    return Table(path, names, pa.table(arrays), tuple(left), skipped=tuple(skipped))


def _text_of(value: Any) -> str:
    """A cell as a person sees it: whole numbers without ".0"."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _read_parquet(path: Path, rows: int | None) -> Table:
    """The columns of a Parquet file that hold texts or numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = read_regular(path)
    try:
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=None)
        _check_parquet(file.metadata)
        schema = file.schema_arrow
        plain = [field.name for field in schema if _is_plain(field.type)]
        texts = [field.name for field in schema if _is_text(field.type)]
        # Kept as dictionaries, a text that a million rows share stays one text until it is checked.
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
        batches, read, size = [], 0, 0
        for batch in file.iter_batches(batch_size=BATCH, columns=plain):
            batch.validate(full=True)  # Its texts are UTF-8, and its indices lead somewhere.
            arrays = [_as_text(column) for column in batch.columns]
            batches.append(pa.RecordBatch.from_arrays(arrays, [str(i) for i in range(len(plain))]))
            read, size = read + batch.num_rows, size + batches[-1].nbytes
            if size > TABLE_LIMIT:
                raise DataError(f"its cells need more than {TABLE_LIMIT} bytes")
            if rows is not None and read >= rows:
                break
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"it is not a Parquet file ({' '.join(str(error).split())})") from error
    other = [name for name in schema.names if name not in plain]
    how = f"without {', '.join(other)}: neither texts nor numbers" if other else ""
    fields = pa.schema([(str(place), pa.string()) for place in range(len(plain))])
    return Table(path, tuple(plain), pa.Table.from_batches(batches, fields), (), how)


def _check_parquet(about: Any) -> None:
    if about.num_rows > ROW_LIMIT or about.num_columns > COLUMN_LIMIT:
        raise DataError(
            f"it has {about.num_rows} rows and {about.num_columns} columns; at most {ROW_LIMIT} "
            f"and {COLUMN_LIMIT} are read"
        )
    size = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
    if size > TABLE_LIMIT:
        raise DataError(f"it unpacks to {size} bytes, at most {TABLE_LIMIT} are read")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_plain(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return bool(_is_text(kind) or is_number or pa.types.is_temporal(kind))


def _as_text(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        lengths = pc.binary_length(column.dictionary.cast(pa.string()))
        longest = pc.max(lengths).as_py() or 0
        if longest > CELL_LIMIT:
            raise DataError(f"a cell has {longest} bytes, at most {CELL_LIMIT} are read")
        if (pc.sum(lengths.take(column.indices)).as_py() or 0) > TABLE_LIMIT:
            raise DataError(f"its cells need more than {TABLE_LIMIT} bytes")
        column = column.dictionary_decode()
    elif pa.types.is_floating(column.type):
        known = column.drop_null()
        # A column of whole numbers with a gap comes as 7.0.
        if pc.all(pc.equal(known, pc.floor(known))).as_py():
            column = pc.if_else(pc.is_finite(column), column, None).cast(pa.int64())
    return pc.fill_null(column.cast(pa.string()), "")

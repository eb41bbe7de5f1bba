"""The figshare release of Cheng et al.: one MATLAB v7.3 file a slice, in a folder or still in its
zips.
"""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.limits import check_pixels, large_ones_alone
from robustmri.data.readers.class_folders import ClassFolders
from robustmri.data.readers.decode import rasterise
from robustmri.data.readers.files import (
    Found,
    find_files,
    is_hidden,
    name_below,
    open_regular,
    read_bounded,
    read_regular,
)
from robustmri.data.readers.matlab import Field, has_variable, read_numbers, read_struct
from robustmri.data.readers.source import (
    Array,
    LeftOut,
    RawSlice,
    find_contested,
    is_missing,
    leave_out,
    natural_order,
    read_each,
    readable_name,
)

LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
STRUCT, FIELDS = "cjdata", ("label", "PID", "image", "tumorBorder", "tumorMask")
FOLDS_FILE = "cvind.mat"
FOLDS = 5
PROBED = 20  # Slices that are asked for the order of their outlines, at most.
LONGEST_ID = 256


@dataclass(frozen=True)
class Member:
    """One file of the release: on disk, or in a zip."""

    archive: Path | None
    name: str

    @property
    def stem(self) -> str:
        """Number of the slice, as text."""
        return readable_name(self._path.stem)

    @property
    def is_folds(self) -> bool:
        """Whether it is the authors' folds, and no slice."""
        return self._path.name.lower() == FOLDS_FILE

    @property
    def _path(self) -> PurePosixPath:
        # Some zips are made on Windows.
        return PurePosixPath(self.name.replace("\\", "/"))


class _Files:
    """Bytes of members; the zips stay open as long as they are needed."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root, self._stack = root, stack
        self._open: dict[Path, zipfile.ZipFile] = {}
        self._lock = threading.Lock()

    def read(self, member: Member) -> bytes:
        if member.archive is None:
            return read_regular(self._root / member.name)
        with self._lock:
            if member.archive not in self._open:
                stream = self._stack.enter_context(open_regular(member.archive))
                self._open[member.archive] = self._stack.enter_context(zipfile.ZipFile(stream))
            archive = self._open[member.archive]
            with archive.open(member.name) as content:
                return read_bounded(content, archive.getinfo(member.name).file_size)


@dataclass(frozen=True)
class FigshareRelease:
    """Files `<number>.mat` below a folder or in zips, and `cvind.mat` with the authors' five folds
    if it is there.

    A slice that lies both unpacked and in a zip is read once, from the folder.
    """

    place = 30
    expects = ".mat files or zips of the figshare release"

    root: Path
    members: tuple[Member, ...]
    folds: Member | None
    passed_over: tuple[LeftOut, ...]
    other_folds: tuple[Member, ...] = ()

    synthetic = False
    patient_ids = True

    @classmethod
    def look(cls, path: Path) -> FigshareRelease | None:
        """The source, if there are .mat files in `path` (a folder or a zip) or in the zips in it,
        and no class folders unless one of them is a slice.

        Raises:
            DataError: all there is are zips in a zip.
        """
        is_zip = path.is_file() and path.suffix.lower() == ".zip"
        if not path.is_dir() and not is_zip:
            return None
        root = path.parent if is_zip else path
        found = Found([path]) if is_zip else find_files(path)
        content = _Content.of(root, found)
        slices = [member for member in content.members if not member.is_folds]
        if content.nested and (is_zip or not slices):
            raise DataError(
                f"{content.nested[0]} holds other zips. Unpack it once; the zips inside can stay "
                "as they are."
            )
        if not slices and not content.broken:
            return None
        folds = [member for member in content.members if member.is_folds]
        if is_zip and not folds and (root / FOLDS_FILE).is_file():
            folds = [Member(None, FOLDS_FILE)]
        slices.sort(key=lambda member: (natural_order(member.stem), member.name))
        source = cls(
            root,
            tuple(slices),
            folds[0] if folds else None,
            content.passed_over,
            tuple(folds[1:]),
        )
        if is_zip or source._holds_slices() or not ClassFolders.look(path):
            return source
        return None

    def _holds_slices(self) -> bool:
        """Whether one of the first .mat files is a slice of the release."""
        with ExitStack() as stack:
            files = _Files(self.root, stack)
            for member in self.members[:PROBED]:
                try:
                    if has_variable(files.read(member), STRUCT):
                        return True
                except Exception as error:  # It is told when its own turn comes.
                    leave_out(error, self._describe(member))
        return False

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{readable_name(self.root.resolve().name)} (figshare release)"

    def __len__(self) -> int:
        return len(self.members) + len(self.passed_over) + len(self.other_folds)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Slices in the order of their numbers."""
        yield from self.passed_over
        for member in self.other_folds:
            yield LeftOut(self._describe(member), "the folds are read from another file")
        rivals = find_contested((member, member.stem) for member in self.members)
        for member, others in rivals.items():
            named = ", ".join(map(self._describe, others))
            yield LeftOut(self._describe(member), f"{named} is slice {member.stem} as well")
        with ExitStack() as stack:
            files = _Files(self.root, stack)
            folds: dict[str, int] = {}
            if self.folds is not None:
                try:
                    folds = read_folds(files.read(self.folds))
                except Exception as error:  # As for a slice: a damaged file can raise anything.
                    left = leave_out(error, self._describe(self.folds))
                    yield LeftOut(left.source, f"the folds are unknown: {left.reason}")
            order = _OutlineOrder(self, files)
            yield from read_each(
                [member for member in self.members if member not in rivals],
                partial(self._read_member, files, folds, order),
                self._describe,
            )

    def _describe(self, member: Member) -> str:
        name = readable_name(member.name)
        return f"{name_below(self.root, member.archive)}/{name}" if member.archive else name

    def _read_member(
        self, files: _Files, folds: dict[str, int], order: _OutlineOrder, member: Member
    ) -> RawSlice:
        content = files.read(member)
        fields = _read_slice(content)
        label = _number(fields["label"], "label")
        if label not in LABELS:
            raise DataError(f"label is {label:g}, expected 1, 2 or 3")
        patient = read_patient(fields["PID"])
        if is_missing(patient):
            raise DataError(f"no patient id (PID is {patient!r})" if patient else "no patient id")
        image = fields["image"].values
        with large_ones_alone(image.size):
            mask = self._mask(fields, order)
        return RawSlice(
            case_id=member.stem,
            label=LABELS[int(label)],
            patient_id=patient,
            image=image,
            mask=mask,
            source=self._describe(member),
            sha256=hashlib.sha256(content).hexdigest(),
            fold=folds.get(member.stem),
        )

    def _mask(self, fields: dict[str, Field], order: _OutlineOrder) -> Array | None:
        if "tumorMask" in fields:
            mask = fields["tumorMask"].values != 0
        elif "tumorBorder" in fields and fields["image"].values.ndim == 2:
            mask = _outlined(fields, order.x_first)
        else:
            return None
        return mask if mask.any() else None


@dataclass(frozen=True)
class _Content:
    """What lies in a folder and in the zips in it.

    Attributes:
        members: .mat files, slices and folds.
        nested: zips that hold zips.
        broken: whether there is a zip that cannot be read.
        passed_over: everything else, by name.
    """

    members: list[Member]
    nested: list[Path]
    broken: bool
    passed_over: tuple[LeftOut, ...]

    @classmethod
    def of(cls, root: Path, found: Found) -> _Content:
        members = [
            Member(None, file.relative_to(root).as_posix())
            for file in found.files
            if file.suffix.lower() == ".mat"
        ]
        unpacked = {member.stem for member in members}
        passed_over, nested, broken = list(found.left_out), [], []
        for file in found.files:
            kind, name = file.suffix.lower(), name_below(root, file)
            if kind == ".mat":
                continue
            if kind != ".zip":
                passed_over.append(LeftOut(name, "neither a .mat file nor a zip"))
                continue
            try:
                with open_regular(file) as stream, zipfile.ZipFile(stream) as archive:
                    names = Counter(one.filename for one in archive.infolist() if not one.is_dir())
            except Exception as error:  # A damaged zip can raise anything.
                broken.append(leave_out(error, name))
                continue
            for inside, times in names.items():
                member = Member(file, inside)
                reason = _reason(inside, times)
                if inside.lower().endswith(".zip"):
                    nested.append(file)
                if reason:
                    passed_over.append(LeftOut(f"{name}/{readable_name(inside)}", reason))
                elif member.stem not in unpacked:
                    members.append(member)
        return cls(members, nested, bool(broken), (*broken, *passed_over))


def _reason(name: str, times: int) -> str:
    """Why a member of a zip is not even tried; empty if it is."""
    if any(is_hidden(part) for part in name.replace("\\", "/").split("/")):
        return "hidden, or one of the system's"
    if name.lower().endswith(".zip"):
        return "a zip in a zip: unpack the outer one"
    if not name.lower().endswith(".mat"):
        return "not a .mat file"
    return "the zip has it more than once" if times > 1 else ""


class _OutlineOrder:
    """Whether outlines are stored x before y: where masks are missing, the slices that have both
    decide.
    """

    def __init__(self, source: FigshareRelease, files: _Files) -> None:
        self._source, self._files = source, files
        self._lock = threading.Lock()
        self._known: bool | None = None

    @property
    def x_first(self) -> bool:
        with self._lock:
            if self._known is None:
                self._known = self._look()
            return self._known

    def _look(self) -> bool:
        votes = 0.0
        for member in self._source.members[:PROBED]:
            try:
                fields = _read_slice(self._files.read(member))
                mask = fields["tumorMask"].values != 0
                votes += _overlap(_outlined(fields, True), mask) - _overlap(
                    _outlined(fields, False), mask
                )
            # A damaged slice has no vote; it is reported when its own turn comes.
            except Exception as error:
                leave_out(error, self._source._describe(member))
        # The release says rows before columns, so that is the answer without evidence.
        return votes > 0


def _outlined(fields: dict[str, Field], x_first: bool) -> Array:
    corners = np.asarray(fields["tumorBorder"].values, dtype=np.float64)
    if corners.size % 2 or corners.size < 6 or not np.isfinite(corners).all():
        raise DataError(
            "tumorMask is missing and tumorBorder is not an outline of three or more points"
        )
    corners = corners.reshape(-1, 2)
    return rasterise(corners if x_first else corners[:, ::-1], fields["image"].values.shape)


def _overlap(a: Array, b: Array) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _read_slice(content: bytes) -> dict[str, Field]:
    """Fields of one slice, label, patient and image among them."""
    fields = read_struct(content, STRUCT, FIELDS)
    for key in ("label", "PID", "image"):
        if key not in fields:
            raise DataError(f"no {key} in {STRUCT!r}")
    if fields["image"].values.ndim == 2:
        check_pixels(*fields["image"].values.shape)
    return fields


def _number(field: Field, key: str) -> float:
    if field.values.size != 1:
        raise DataError(f"{key} is an array of shape {field.values.shape}, expected one number")
    return float(field.values.item())


def read_patient(field: Field) -> str:
    """Patient id from text, or from a number that someone stored in its place.

    Raises:
        DataError: neither text nor one whole number.
    """
    values = field.values.ravel()
    if not values.size:
        return ""
    # MATLAB's text is UTF-16; files of other programs do not say that it is text.
    is_text = field.matlab_class == "char" or (
        not field.matlab_class and (values.dtype == np.uint16 or values.size != 1)
    )
    if not is_text or values.dtype.kind == "f":
        number = _number(field, "PID")
        if np.isnan(number):
            return ""
        if number < 0 or not number.is_integer() or number >= 2**53:
            raise DataError(f"PID is {number:g}, expected text or a whole number")
        return str(int(number))
    if values.size > LONGEST_ID or not 0 <= values.min() <= values.max() < 2**16:
        raise DataError(f"PID is not text: {values.size} values of type {values.dtype}")
    try:
        text = values.astype("<u2").tobytes().decode("utf-16-le").strip("\0 \t\r\n")
    except UnicodeDecodeError as error:
        raise DataError("PID is not text") from error
    if not text.isprintable():
        raise DataError(f"PID has characters that cannot be printed: {text!r}")
    return text


def read_folds(content: bytes) -> dict[str, int]:
    """The authors' fold of each slice number from `cvind.mat`, of MATLAB v5 or v7.3.

    Raises:
        DataError: not one of five folds for each slice.
    """
    folds = read_numbers(content, "cvind").ravel()
    if not folds.size or folds.dtype.kind not in "buif":
        raise DataError(f"{FOLDS_FILE} has no numbers in it")
    if not np.isin(folds, range(1, FOLDS + 1)).all():
        raise DataError(f"{FOLDS_FILE} has values other than the folds 1 to {FOLDS}")
    return {str(number): int(fold) for number, fold in enumerate(folds, start=1)}

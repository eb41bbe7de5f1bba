"""The figshare release of Cheng et al.: one MATLAB v7.3 file a slice, in a folder or still in its
zips.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.readers.decode import rasterise
from robustmri.data.readers.source import Array, LeftOut, RawSlice, natural_order, read_each

LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
FOLDS_FILE = "cvind.mat"
PROBED = 20  # Slices that are asked for the order of their outlines, at most.


@dataclass(frozen=True)
class Member:
    """One file of the release: on disk, or in a zip."""

    archive: Path | None
    name: str

    @property
    def stem(self) -> str:
        """Number of the slice, as text."""
        return PurePosixPath(self.name).stem


class _Files:
    """Bytes of members; the zips stay open as long as they are needed."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root, self._stack = root, stack
        self._open: dict[Path, zipfile.ZipFile] = {}
        self._lock = threading.Lock()

    def read(self, member: Member) -> bytes:
        if member.archive is None:
            return (self._root / member.name).read_bytes()
        with self._lock:
            if member.archive not in self._open:
                self._open[member.archive] = self._stack.enter_context(
                    zipfile.ZipFile(member.archive)
                )
            return self._open[member.archive].read(member.name)


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
    bad_archives: tuple[LeftOut, ...]

    synthetic = False
    patient_ids = True

    @classmethod
    def look(cls, path: Path) -> FigshareRelease | None:
        """The source, if there are .mat files in `path` (a folder or a zip) or in the zips in
        it.
        """
        root = path if path.is_dir() else path.parent
        archives = (
            sorted(path.rglob("*.zip"))
            if path.is_dir()
            else [path]
            if path.suffix.lower() == ".zip"
            else []
        )
        found = [Member(None, file.relative_to(root).as_posix()) for file in path.rglob("*.mat")]
        unpacked = {member.stem for member in found}
        bad = []
        for archive in archives:
            try:
                with zipfile.ZipFile(archive) as opened:
                    names = opened.namelist()
            except (OSError, zipfile.BadZipFile) as error:
                bad.append(
                    LeftOut(archive.relative_to(root).as_posix(), f"cannot be read: {error}")
                )
                continue
            if path == archive and any(name.lower().endswith(".zip") for name in names):
                raise DataError(
                    f"{path} holds other zips. Unpack it once; the zips inside can stay as they "
                    "are."
                )
            inside = [Member(archive, name) for name in names if name.lower().endswith(".mat")]
            found += [member for member in inside if member.stem not in unpacked]
        found = [member for member in found if not PurePosixPath(member.name).name.startswith(".")]
        folds = [
            member for member in found if PurePosixPath(member.name).name.lower() == FOLDS_FILE
        ]
        if path != root and not folds and (root / FOLDS_FILE).is_file():
            folds = [Member(None, FOLDS_FILE)]
        slices = sorted(
            (m for m in found if m not in folds), key=lambda m: (natural_order(m.stem), m.name)
        )
        if not slices and not bad:
            return None
        return cls(root, tuple(slices), folds[0] if folds else None, tuple(bad))

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{self.root.resolve().name} (figshare release)"

    def __len__(self) -> int:
        return len(self.members) + len(self.bad_archives)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Slices in the order of their numbers."""
        yield from self.bad_archives
        with ExitStack() as stack:
            files = _Files(self.root, stack)
            folds: dict[str, int] = {}
            if self.folds is not None:
                try:
                    folds = read_folds(files.read(self.folds))
                except Exception as error:  # As for a slice: a damaged file can raise anything.
                    yield LeftOut(
                        self._describe(self.folds),
                        f"cannot be read, so the folds are unknown: {error}",
                    )
            order = _OutlineOrder(self, files)
            yield from read_each(
                self.members, partial(self._read_member, files, folds, order), self._describe
            )

    def _describe(self, member: Member) -> str:
        return (
            f"{member.archive.relative_to(self.root).as_posix()}/{member.name}"
            if member.archive
            else member.name
        )

    def _read_member(
        self, files: _Files, folds: dict[str, int], order: _OutlineOrder, member: Member
    ) -> RawSlice:
        content = files.read(member)
        fields = read_struct(content)
        label = _number(fields, "label")
        if label not in LABELS:
            raise DataError(f"label is {label:g}, expected 1, 2 or 3")
        patient = _text(fields["PID"])
        if not patient:
            raise DataError("no patient id (PID is empty)")
        image = fields["image"]
        mask = fields.get("tumorMask")
        if mask is None and "tumorBorder" in fields and image.ndim == 2:
            mask = _outlined(fields, order.x_first)
        return RawSlice(
            case_id=member.stem,
            label=LABELS[int(label)],
            patient_id=patient,
            image=image,
            mask=mask.astype(bool) if mask is not None and mask.any() else None,
            source=self._describe(member),
            sha256=hashlib.sha256(content).hexdigest(),
            fold=folds.get(member.stem),
        )


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
                fields = read_struct(self._files.read(member))
                mask = fields["tumorMask"].astype(bool)
                votes += _overlap(_outlined(fields, True), mask) - _overlap(
                    _outlined(fields, False), mask
                )
            # A damaged slice has no vote; it is reported when its own turn comes.
            except Exception:
                continue
        # The release says rows before columns, so that is the answer without evidence.
        return votes > 0


def _outlined(fields: dict[str, Array], x_first: bool) -> Array:
    corners = np.asarray(fields["tumorBorder"], dtype=np.float64).reshape(-1, 2)
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise DataError(
            "tumorMask is missing and tumorBorder is not an outline of three or more points"
        )
    return rasterise(corners if x_first else corners[:, ::-1], fields["image"].shape)


def _overlap(a: Array, b: Array) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def read_struct(content: bytes) -> dict[str, Array]:
    """Fields of the struct `cjdata` of a MATLAB v7.3 file, turned back to rows first."""
    import h5py

    with h5py.File(h5py.h5f.open_file_image(content)) as file:
        if "cjdata" not in file:
            raise DataError(
                "it has no struct 'cjdata', so it is not a slice of the figshare release"
            )
        fields = {}
        for key, value in file["cjdata"].items():
            # MATLAB stores an empty array as its shape.
            fields[key] = (
                np.zeros((0, 0)) if "MATLAB_empty" in value.attrs else np.asarray(value[()]).T
            )
    for key in ("label", "PID", "image"):
        if key not in fields:
            raise DataError(
                f"no {key} in 'cjdata' (it has {', '.join(sorted(fields)) or 'nothing'})"
            )
    return fields


def _number(fields: dict[str, Array], key: str) -> float:
    value = fields[key]
    if value.size != 1:
        raise DataError(f"{key} is an array of shape {value.shape}, expected one number")
    return float(value.item())


def _text(codes: Array) -> str:
    return "".join(chr(int(code)) for code in codes.ravel()).strip("\0 ")


def read_folds(content: bytes) -> dict[str, int]:
    """The authors' fold of each slice number from `cvind.mat`, of MATLAB v5 or v7.3."""
    values: dict[str, Any]
    if b"\x89HDF\r\n\x1a\n" in content[:2049]:
        import h5py

        with h5py.File(h5py.h5f.open_file_image(content)) as file:
            values = {key: value[()] for key, value in file.items() if hasattr(value, "shape")}
    else:
        from scipy.io import loadmat

        values = {
            key: value
            for key, value in loadmat(io.BytesIO(content)).items()
            if not key.startswith("__")
        }
    if not values:
        raise DataError(f"{FOLDS_FILE} is empty")
    folds = np.asarray(values.get("cvind", next(iter(values.values())))).ravel()
    return {str(number): int(fold) for number, fold in enumerate(folds, start=1)}

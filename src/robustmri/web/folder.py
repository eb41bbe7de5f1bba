"""What the folder holds: results, runs, cohorts and reports, each known by an id and by nothing
else.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from robustmri.core.errors import DataError, RobustMRIError
from robustmri.data.cohort import HEAD, Cohort
from robustmri.report.pictures import load_examples
from robustmri.results.cases import CaseTable, load_cases
from robustmri.results.schema import RobustnessReport, load_result

Kind = Literal["result", "run", "cohort", "report", "source", "answer", "slice", "model"]
DEEPEST, MOST_FOLDERS = 6, 20_000
PAGE = b'<meta name="generator" content="robustmri">'
UPLOADS = ".uploads"
"""Folder of what was given to the page; a file's name begins with its kind."""
MODELS = (".onnx", ".safetensors", ".pth", ".pt", ".pt2", ".ckpt")
KEEP, KEEP_SMALL = 4, 256
"""Things of a kind that stay in memory: large ones, and results and the like."""
SMALL = ("result", "cohort", "answer", "search")
T = TypeVar("T")


class NotThereError(RobustMRIError):
    """No such thing in the folder, or no longer."""


class Found(msgspec.Struct, frozen=True):
    """Something in the folder; `name` is its path relative to it, and only ever shown."""

    id: str
    kind: Kind
    name: str
    path: Path


class Contents(msgspec.Struct, frozen=True):
    """All that was found, and what cannot be shown with the reason."""

    found: dict[str, Found]
    left_out: dict[str, str]

    def of(self, kind: Kind) -> list[Found]:
        """Those of a kind, by name."""
        found = [one for one in self.found.values() if one.kind == kind]
        return sorted(found, key=lambda one: one.name)


def id_of(*names: str) -> str:
    """Short name of something in an address, from which its real name cannot be read.

    >>> id_of("result", "before") == id_of("result", "before") != id_of("run", "before")
    True
    """
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Folder:
    """A folder of runs, cohorts and results; looked through again where something is not known.

    Args:
        root: the folder; nothing outside of it is ever opened.

    Raises:
        DataError: it is not there.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise DataError(f"{root} is not a folder. Name one that holds runs, cohorts, results.")
        self._lock = threading.RLock()
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._contents, self._looked = Contents({}, {}), float("-inf")

    def look(self, *, at_most_every: float = 0.0) -> Contents:
        """Look through the folder, unless that was done so many seconds ago."""
        with self._lock:
            if time.monotonic() - self._looked >= at_most_every:
                self._contents, self._looked = _search(self.root), time.monotonic()
            return self._contents

    def find(self, kind: Kind, id: str) -> Found:
        """The thing of that kind and id.

        Raises:
            NotThereError: there is none, or it leads out of the folder by now.
        """
        found = self._contents.found.get(id) or self.look(at_most_every=1.0).found.get(id)
        if found is None or found.kind != kind or not found.path.exists():
            raise NotThereError(f"There is no {kind} of this address in the folder (any more).")
        if _leads_out(found.path, self.root):
            raise NotThereError(f"{found.name} holds a link that leads out of the folder.")
        return found

    def result(self, id: str) -> RobustnessReport:
        """A result, its hashes checked when it is first read and after every change."""
        path = self.find("result", id).path
        return self._keep("result", path, lambda: load_result(path))

    def cases(self, id: str) -> CaseTable:
        """Its outcomes."""
        self.result(id)
        path = self.find("result", id).path
        return self._keep("cases", path, lambda: load_cases(path))

    def examples(self, id: str) -> dict[str, Any] | None:
        """Its pictures, if it has some."""
        result, path = self.result(id), self.find("result", id).path
        return self._keep("examples", path, lambda: load_examples(path, result))

    def cohort(self, id: str) -> Cohort:
        """A cohort; its pixels are hashed when they are first asked for."""
        path = self.find("cohort", id).path
        try:
            return self._keep("cohort", path, lambda: Cohort.open(path))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{path} is not a cohort of this release ({error!r}).") from error

    def cohort_of(self, result: RobustnessReport) -> Cohort | None:
        """The cohort that a result was measured on, if it is in the folder."""
        found = self.cohort_found(result)
        return self.cohort(found.id) if found else None

    def cohort_found(self, result: RobustnessReport) -> Found | None:
        """Where that is."""
        for found in self._contents.of("cohort") or self.look(at_most_every=1.0).of("cohort"):
            try:
                cohort = self.cohort(found.id)
            except RobustMRIError:
                continue
            if cohort.fingerprint == result.cohort.fingerprint:
                return found
        return None

    def say(self, error: BaseException) -> str:
        """An error in words that do not tell where the folder is."""
        return self.say_lines(" ".join(str(error).split()))

    def say_lines(self, text: str) -> str:
        """Several lines, likewise."""
        return text.replace(f"{self.root}/", "").replace(str(self.root), ".")

    def keep(self, what: str, path: Path, make: Callable[[], T]) -> T:
        """What was made of files in `path`, made again when one of them changes."""
        return self._keep(what, path, make)

    def _keep(self, what: str, path: Path, make: Callable[[], T]) -> T:
        key, state = (what, path), _state_of(path)
        with self._lock:
            if key in self._kept and self._kept[key][0] == state:
                self._kept.move_to_end(key)
                made: T = self._kept[key][1]
                return made
            made = make()
            self._kept[key] = (state, made)
            most = KEEP_SMALL if what in SMALL else KEEP
            while sum(kept == what for kept, _ in self._kept) > most:
                self._kept.pop(next(one for one in self._kept if one[0] == what))
            return made


def _state_of(path: Path) -> tuple[Any, ...]:
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.is_file())
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def is_finished(run: Found) -> bool:
    """Whether a run holds a checkpoint."""
    places = (run.path, run.path / "checkpoint")
    return any((place / "classifier.json").is_file() for place in places)


def _search(root: Path) -> Contents:
    found: dict[str, Found] = {}
    left_out: dict[str, str] = {}
    for path, kinds in _walk(root):
        name = path.relative_to(root).as_posix() if path != root else "."
        for kind in kinds:
            if _leads_out(path, root):
                left_out[name] = "holds a link that leads out of the folder"
            else:
                one = Found(id_of(kind, name), kind, name, path)
                found[one.id] = one
    return Contents(found, left_out)


def uploads_of(root: Path) -> list[tuple[Kind, Path]]:
    """What was given to the page, in that order."""
    place = root / UPLOADS
    if place.is_symlink() or not place.is_dir():
        return []
    files = sorted(path for path in place.iterdir() if path.is_file())
    kinds: tuple[Kind, ...] = ("slice", "model")
    return [(kind, path) for path in files for kind in kinds if path.name.startswith(f"{kind}-")]


def _walk(root: Path) -> Iterator[tuple[Path, list[Kind]]]:
    """Folders and files below `root` that are something; links to folders are not followed."""
    yield from ((path, [kind]) for kind, path in uploads_of(root))
    for number, (place, folders, files) in enumerate(os.walk(root, followlinks=False)):
        here = Path(place)
        kinds = _kinds_of(here, set(files), set(folders))
        deep = len(here.relative_to(root).parts)
        inner = deep >= DEEPEST or number >= MOST_FOLDERS or "cohort" in kinds
        folders[:] = (
            []
            if inner
            else sorted(name for name in folders if name[0] != "." and name != "checkpoint")
        )
        if kinds:
            yield here, kinds
        elif deep == 1:
            yield here, ["source"]
        for name in sorted(files):
            if name.endswith(".html") and _is_report(here / name):
                yield here / name, ["report"]
            elif not deep and name.endswith(MODELS) and (here / name).is_file():
                yield here / name, ["model"]


def _kinds_of(here: Path, files: set[str], folders: set[str]) -> list[Kind]:
    if HEAD in files:
        return ["cohort"]
    if "robustness.json" in files:
        return ["result"]
    if "case.json" in files:
        return ["answer"]
    if "settings.json" in files and ("epochs.csv" in files or "checkpoint" in folders):
        return ["run"]
    places = (here, here / "checkpoint")
    return ["run"] if any((place / "classifier.json").is_file() for place in places) else []


def _is_report(path: Path) -> bool:
    if not path.is_file():  # A pipe would be waited for.
        return False
    try:
        with open(path, "rb") as stream:
            return PAGE in stream.read(2048)
    except OSError:
        return False


def _leads_out(path: Path, root: Path) -> bool:
    """Whether it, or a file in it, is a link to somewhere outside of `root`."""
    inside = [path]
    if path.is_dir():
        inside += [one for one in path.iterdir() if one.is_symlink()]
        inside += [one for one in (path / "checkpoint").glob("*") if one.is_symlink()]
    return any(not one.resolve().is_relative_to(root) for one in inside)

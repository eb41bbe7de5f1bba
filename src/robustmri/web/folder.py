"""What the folder holds: results, runs, cohorts and reports, each known by an id and by nothing
else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError, RobustMRIError
from robustmri.data.cohort import HEAD, Cohort
from robustmri.report.pictures import load_examples
from robustmri.results.cases import CaseTable, load_cases
from robustmri.results.certificate import FOLDER as CERTIFICATE
from robustmri.results.certificate import Certificate, load_certificate
from robustmri.results.comparison import Comparison, load_comparison
from robustmri.results.schema import RobustnessReport, load_result

Kind = Literal[
    "result", "run", "cohort", "report", "comparison", "source", "answer", "slice", "model"
]
DEEPEST, MOST_FOLDERS = 6, 20_000
PAGE = b'<meta name="generator" content="robustmri">'
UPLOADS = ".uploads"
"""Folder of what was given to the page; a file's name begins with its kind."""
MODELS = (".onnx", ".safetensors", ".pth", ".pt", ".pt2", ".ckpt")
KEEP = {"cases": 4, "facts": 4, "examples": 4, "cohort": 64, "pixels": 64}
"""Things of a kind that stay in memory; of others, which are small, `KEEP_SMALL`."""
KEEP_SMALL = 2000
PATIENCE = 10
"""Looking through the folder may take one part in so many of the time."""
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
        self._kept: defaultdict[str, OrderedDict[Path, Any]] = defaultdict(OrderedDict)
        self._making: dict[tuple[str, Path], threading.RLock] = {}
        self._contents, self._looked, self._took = Contents({}, {}), float("-inf"), 0.0
        self._readable: tuple[Contents, list[tuple[Found, RobustnessReport]]] | None = None

    def look(self, *, at_most_every: float = 0.0) -> Contents:
        """Look through the folder, unless that was done so many seconds ago; where it takes long,
        less often.
        """
        with self._lock:
            began = time.monotonic()
            wait = at_most_every and max(at_most_every, PATIENCE * self._took)
            if began - self._looked >= wait:
                self._contents, self._looked = _search(self.root), time.monotonic()
                self._took = self._looked - began
            return self._contents

    def results(self) -> list[tuple[Found, RobustnessReport]]:
        """Every result that can be read, as they were at the last look; the overview says why
        others cannot.
        """
        contents, readable = self.look(at_most_every=1.0), self._readable
        if readable is None or readable[0] is not contents:
            found = []
            for one in contents.of("result"):
                with contextlib.suppress(RobustMRIError, OSError):
                    found.append((one, self._read_result(one.path)))
            readable = self._readable = contents, found
        return readable[1]

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
        return self._read_result(self.find("result", id).path)

    def _read_result(self, path: Path) -> RobustnessReport:
        return self.keep("result", path, lambda: load_result(path))

    def cases(self, id: str) -> CaseTable:
        """Its outcomes."""
        self.result(id)
        path = self.find("result", id).path
        return self.keep("cases", path, lambda: load_cases(path))

    def certificate(self, id: str) -> Certificate | None:
        """What `certify` found about it, if it was asked."""
        result, path = self.result(id), self.find("result", id).path
        place = path / CERTIFICATE
        if not place.is_dir():
            return None
        if _leads_out(place, self.root):
            raise NotThereError("The certificate is a link that leads out of the folder.")
        return self.keep("certificate", place, lambda: load_certificate(path, result))

    def examples(self, id: str) -> dict[str, Any] | None:
        """Its pictures, if it has some."""
        result, path = self.result(id), self.find("result", id).path
        return self.keep("examples", path, lambda: load_examples(path, result))

    def cohort(self, id: str) -> Cohort:
        """A cohort; its pixels are hashed when they are first asked for."""
        path = self.find("cohort", id).path
        try:
            return self.keep("cohort", path, lambda: Cohort.open(path))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{path} is not a cohort of this release ({error!r}).") from error

    def cohort_of(self, result: RobustnessReport) -> Cohort | None:
        """The cohort that a result was measured on, if it is in the folder."""
        found = self.cohort_found(result)
        return self.cohort(found.id) if found else None

    def pixels(self, cohort: Cohort) -> npt.NDArray[np.uint16]:
        """Its slices, hashed once."""
        return self.keep("pixels", cohort.root, lambda: cohort.images)

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

    def comparisons(self) -> list[tuple[Found, Comparison]]:
        """What `compare` wrote and can be read."""
        found = []
        for one in self.look(at_most_every=1.0).of("comparison"):
            with contextlib.suppress(RobustMRIError, OSError):
                made = self.keep("comparison", one.path, lambda: load_comparison(one.path))  # noqa: B023
                found.append((one, made))
        return found

    def say(self, error: BaseException) -> str:
        """An error in words that do not tell where the folder is."""
        return self.say_lines(" ".join(str(error).split()))

    def say_lines(self, text: str) -> str:
        """Several lines, likewise."""
        return text.replace(f"{self.root}/", "").replace(str(self.root), ".")

    def keep(self, what: str, path: Path, make: Callable[[], T]) -> T:
        """What was made of files in `path`, made again when one of them changes."""
        state = _state_of(path)
        with self._lock:
            making = self._making.setdefault((what, path), threading.RLock())
        with making:  # Who asks for something else does not wait for it.
            with self._lock:
                kept = self._kept[what]
                if path in kept and kept[path][0] == state:
                    kept.move_to_end(path)
                    known: T = kept[path][1]
                    return known
            made = make()
            with self._lock:
                kept[path] = (state, made)
                kept.move_to_end(path)
                while len(kept) > KEEP.get(what, KEEP_SMALL):
                    kept.popitem(last=False)
            return made


def _state_of(path: Path) -> tuple[Any, ...]:
    """What changes when a file, or one in a folder, does."""
    if path.is_file():
        return path.name, path.stat().st_mtime_ns, path.stat().st_size
    with os.scandir(path) as inside:
        states = [(one.name, one.stat()) for one in inside if one.is_file()]
    return tuple(sorted((name, state.st_mtime_ns, state.st_size) for name, state in states))


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
                if (beside := (here / name).with_suffix(".json")).is_file():
                    yield beside, ["comparison"]
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
    for place in (path, path / "checkpoint"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as files:
            inside += [place / one.name for one in files if one.is_symlink()]
    return any(not one.resolve().is_relative_to(root) for one in inside)

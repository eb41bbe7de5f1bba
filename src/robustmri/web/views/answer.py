"""One slice that was asked about: what `robustmri case` wrote."""

from __future__ import annotations

from typing import Any

import msgspec

from robustmri.core.errors import DataError
from robustmri.core.files import read_json
from robustmri.report.wording import percent
from robustmri.results.one_case import CaseFacts
from robustmri.web.folder import Folder, NotThereError

PICTURE, MOST_BYTES = "picture.png", 20_000_000


class Source(msgspec.Struct):
    """The file that was asked about."""

    name: str
    sha256: str
    height: int
    width: int
    notes: list[str] = []


class Classifier(msgspec.Struct):
    """Who was asked."""

    backbone: str
    size: int | tuple[int, int]


class Origin(msgspec.Struct):
    """When it was asked."""

    created: str = ""


class Written(msgspec.Struct):
    """case.json."""

    case: CaseFacts
    source: Source
    classifier: Classifier
    intensity: str = ""
    provenance: Origin = msgspec.field(default_factory=Origin)


def read_answer(folder: Folder, id: str) -> Written:
    """The facts of an answer.

    Raises:
        DataError: they cannot be read.
    """
    path = folder.find("answer", id).path / "case.json"
    written: Written = folder.keep(
        "answer", path, lambda: read_json(path, Written, again="Ask again.")
    )
    return written


def answer(folder: Folder, id: str) -> dict[str, Any]:
    """All that is known of it, in words."""
    written = read_answer(folder, id)
    found = written.case
    classes = sorted(found.probabilities, key=lambda name: -found.probabilities[name])
    return {
        "id": id,
        "name": folder.find("answer", id).name,
        "when": written.provenance.created,
        "source": written.source.name,
        "pixels": f"{written.source.width} x {written.source.height}",
        "notes": written.source.notes,
        "backbone": written.classifier.backbone,
        "answer": found.answer,
        "nearest": found.nearest,
        "eps": said_eps(found),
        "measured": found.smallest_eps and f"{found.norm} {found.smallest_eps:.4g}",
        "classes": [
            {
                "name": name,
                "before": found.probabilities[name],
                "after": found.nearest_probabilities.get(name),
                "before_words": _percent(found.probabilities[name]),
                "after_words": _percent(found.nearest_probabilities.get(name)),
            }
            for name in classes
        ],
        "in_lesion": _percent(found.share_in_lesion),
        "lesion": _percent(found.lesion_share),
        "more_fragile": _percent(found.more_fragile),
        "compared_with": found.compared_with,
        "attacks": found.attacks,
    }


def said_eps(found: CaseFacts) -> str:
    """The smallest change in words; empty where none was found."""
    if found.smallest_eps is None:
        return ""
    if not found.grey_levels:
        return f"{found.smallest_eps:.3g} in {found.norm}"
    return f"{found.grey_levels:.3g} of 255 grey levels"


def picture(folder: Folder, id: str) -> bytes:
    """The drawn slice, change and attacked slice, as PNG.

    Raises:
        NotThereError: there is none.
        DataError: it is too large to be one of ours.
    """
    path = folder.find("answer", id).path / PICTURE
    if not path.is_file():
        raise NotThereError("This answer has no picture (any more).")
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path} is too large to be a picture of ours.")
    return path.read_bytes()


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share)

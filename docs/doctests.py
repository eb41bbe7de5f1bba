"""For the site: the doctests of a docstring are its examples, and are shown as code."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Puts each run of doctests into a section of examples, where they are looked for."""

    def on_object(self, *, obj: griffe.Object, **words: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring and ">>>" in obj.docstring.value:
            obj.docstring.value = DOCTEST.sub(_as_examples, obj.docstring.value)


def _as_examples(found: re.Match[str]) -> str:
    lines = found[0].splitlines()
    return "\n".join(["Examples:", *(f"    {line.strip()}" for line in lines)])

"""The templates of a page; each is compiled once in a process, however many pages are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

_COMPILED: dict[str, bytes] = {}
"""By a template's place and text."""


def make_templates(
    *folders: Path, filters: Mapping[str, Callable[..., Any]], own: Mapping[str, Any] | None = None
) -> jinja2.Environment:
    """Strict templates from these folders, whose values never become markup.

    Args:
        folders: where templates are looked for, in this order.
        filters: the same for every page.
        own: filters of one page, which know what that page is about.
    """
    import jinja2

    class Compiled(jinja2.BytecodeCache):
        def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
            if bucket.key + bucket.checksum in _COMPILED:
                bucket.bytecode_from_string(_COMPILED[bucket.key + bucket.checksum])

        def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
            _COMPILED[bucket.key + bucket.checksum] = bucket.bytecode_to_string()

    def asked_anew(of_page: Callable[..., Any]) -> Callable[..., Any]:
        # What needs no context is computed when a template is compiled, for the first page alone.
        return jinja2.pass_context(lambda context, *words: of_page(*words))

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        bytecode_cache=Compiled(),
    )
    templates.filters |= filters
    templates.filters |= {name: asked_anew(made) for name, made in (own or {}).items()}
    return templates

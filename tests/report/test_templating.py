"""Templates are compiled once, and each page is still asked for what is its own."""

from __future__ import annotations

import jinja2
import pytest

from robustmri.report.templating import make_templates


def rendered(folder, title):
    templates = make_templates(
        folder, filters={"loud": str.upper}, own={"named": lambda name: f"{title} {name}"}
    )
    return templates.get_template("page.html.j2").render(name="<b>")


def test_a_page_has_its_own_words_though_its_template_was_compiled_for_another(
    tmp_path, monkeypatch
):
    page = tmp_path / "page.html.j2"
    page.write_text('{{ "a"|named }}, {{ name|named }}, {{ "a"|loud }}')
    assert rendered(tmp_path, "first") == "first a, first &lt;b&gt;, A"
    with monkeypatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", None)  # Not again.
        assert rendered(tmp_path, "second") == "second a, second &lt;b&gt;, A"
    page.write_text("{{ name|named }}")
    assert rendered(tmp_path, "third") == "third &lt;b&gt;"


def test_a_name_that_a_page_does_not_have_is_an_error(tmp_path):
    (tmp_path / "page.html.j2").write_text("{{ nobody }}")
    with pytest.raises(jinja2.UndefinedError):
        rendered(tmp_path, "")

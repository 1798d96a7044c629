"""All pages share one frame: a page of its own head could fetch or run something."""

from pathlib import Path

import jinja2
import pytest

from gristmill.jobs.pages.page import render
from tests.conftest import ROOT

TEMPLATES = [path for path in sorted((ROOT / "jobs").rglob("*.html")) if path.parent.name != "pages"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_every_page_extends_the_base(path: Path) -> None:
    text = path.read_text()
    assert text.count('{% extends "base.html" %}') == 1
    assert not any(tag in text for tag in ("<!doctype", "<html", "<head>", "<style", "<script", "<main"))


def test_a_page_is_escaped_and_may_fetch_nothing(tmp_path: Path) -> None:
    template = tmp_path / "page.html"
    blocks = "{% block title %}{{ name }}{% endblock %}{% block content %}{{ name|loud }}{% endblock %}"
    template.write_text('{% extends "base.html" %}' + blocks)
    html = render(template, {"name": "<b>"}, {"loud": str.upper})
    assert "<title>&lt;b&gt;</title>" in html and "&lt;B&gt;" in html and "--c-rows" in html
    assert html.count("Content-Security-Policy") == 1 and "default-src 'none'" in html
    with pytest.raises(jinja2.UndefinedError):
        render(template, {}, {"loud": str.upper})

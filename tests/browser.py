"""A real browser for pages: headless Chromium, where one is installed."""

import json
import re
import shutil
import subprocess
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--allow-file-access-from-files",  # so that the frame below can be looked into
    "--virtual-time-budget=5000",
)
WRAPPER = """<!doctype html><body style="margin:0"><pre id="seen"></pre>
<iframe src="%s" style="width:%dpx;height:900px;border:0"></iframe>
<script>
document.querySelector("iframe").onload = (event) => {
  const page = event.target.contentDocument, view = event.target.contentWindow, seen = {};
  seen.width = page.documentElement.scrollWidth;
  seen.height = page.documentElement.scrollHeight;
  seen.svgs = [...page.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().height > 20).length;
  seen.hidden = page.querySelectorAll("svg").length - seen.svgs;
  seen.heading = page.querySelector("h1").innerText;
  seen.headings = [...page.querySelectorAll("h2")].map(h => h.innerText);
  seen.scripts = page.querySelectorAll("script, [onload], [onerror], iframe, object, embed").length;
  seen.fetched = view.performance.getEntriesByType("resource").map(e => e.name);
  seen.texts = [...page.querySelectorAll("td, blockquote")].map(e => e.innerText);
  seen.ink = view.getComputedStyle(page.body).color;
  document.getElementById("seen").innerText = JSON.stringify(seen);
};
</script>"""


def browser() -> str | None:
    """The path of a Chromium, None when there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def _run(*arguments: str) -> str:
    with tempfile.TemporaryDirectory() as profile:
        command = [browser() or "chromium", *FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def look(page: Path, width: int) -> dict[str, Any]:
    """What a browser of that width makes of a page."""
    wrapper = page.parent / f"look-{width}.html"
    wrapper.write_text(WRAPPER % (page.as_uri(), width))
    dom = _run("--window-size=1600,1000", "--dump-dom", wrapper.as_uri())
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert found and found[1], dom[:2000]
    return json.loads(unescape(found[1]))


def picture(page: Path, to: Path, width: int, height: int) -> None:
    """A screenshot."""
    _run(f"--window-size={width},{height}", f"--screenshot={to}", page.as_uri())

"""Pages of a report in a real browser: they fit, and they ask for nothing. Skipped where no chromium is installed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest
from support.stored_day import DAY, make_stored_day

from collectorctl.report import store
from conf.home import Home
from conf.text.language import LANGUAGES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (390, 1280)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-dev-shm-usage", "--virtual-time-budget=10000", "--dump-dom"),
)
MEASURE = """
<script>
onload = () => {
  const all = [];
  for (const frame of document.querySelectorAll('iframe')) {
    const view = frame.contentWindow, page = frame.contentDocument, edge = page.documentElement.clientWidth;
    const wide = [...page.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > edge + 1
      && !one.closest('.scroll, pre, svg, .hours'));
    all.push({name: frame.name, edge, width: page.documentElement.scrollWidth,
      wide: wide.map(one => one.tagName + ' ' + one.className).slice(0, 5),
      requests: view.performance.getEntriesByType('resource').map(one => one.name),
      lowest: Math.min(...[...page.querySelectorAll('svg')].map(one => one.getBoundingClientRect().height)),
      holes: [...page.querySelectorAll('path.c6')].map(one => getComputedStyle(one).stroke !== 'none').length});
  }
  document.body.replaceChildren('RESULT' + JSON.stringify(all) + 'END');
};
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_page_fits_a_phone_and_a_screen_and_asks_for_nothing(tmp_path: Path) -> None:
    """At 390 and 1280 px in both languages: nothing reaches beyond the edge, every picture has a height, no request is made."""
    assert CHROMIUM is not None
    home = Home(make_stored_day(tmp_path / "home"))
    frames = []
    for language in LANGUAGES:
        page = store.write_report(home, date.fromisoformat(DAY), language).path.read_text(encoding="utf-8")
        index = home.report_path(date.fromisoformat(DAY)).with_name("index.html").read_text(encoding="utf-8")
        for width in WIDTHS:
            for name, text in (("page", page), ("index", index)):
                size = f"width:{width}px;height:900px;border:0"
                srcdoc = html.escape(text)
                frames.append(f'<iframe name="{name} {language} {width}" style="{size}" srcdoc="{srcdoc}"></iframe>')
    outer = tmp_path / "outer.html"
    outer.write_text(f"<!doctype html><body>{''.join(frames)}{MEASURE}</body>", encoding="utf-8")

    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", outer.as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    found = re.search("RESULT(.*)END", dumped)
    assert found, dumped[-2000:]
    for one in json.loads(html.unescape(found[1])):
        assert (one["width"], one["wide"], one["requests"]) == (one["edge"], [], []), one
        if one["name"].startswith("page"):
            assert one["lowest"] >= 15
            assert one["holes"] == 3

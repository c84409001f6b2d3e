"""The page in a real browser: it shows every figure, and a phone does not scroll sideways."""

import html
import json
import re
import shutil
import subprocess

import pytest

from ddhpc.report.page import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HARNESS = """<!DOCTYPE html><title>harness</title><body style="margin: 0">
<iframe style="border: 0; width: {width}px; height: 800px" srcdoc="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  page.querySelectorAll("details").forEach(each => each.open = true);
  const wide = [...page.querySelectorAll("body *")].filter(each => !each.closest(".wide, pre"))
    .filter(each => each.getBoundingClientRect().right > {width} + 0.5).map(each => each.outerHTML.slice(0, 80));
  const found = {{
    width: page.documentElement.clientWidth,
    scrolled: page.documentElement.scrollWidth,
    wide: wide,
    images: [...page.images].map(image => [image.naturalWidth, image.getBoundingClientRect().width]),
  }};
  document.body.textContent = JSON.stringify(found);
}});
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine: apt-get install chromium"),
]


def browse(page, tmp_path, width):
    """What the browser finds on the page in a viewport of a width."""
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.format(width=width, page=html.escape(page.read_text())))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    # Whatever the page asks of a network, it does not get.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1400,1000", "--dump-dom", harness.as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(html.unescape(re.search(r"<body[^>]*>(.*)</body>", dumped, re.S).group(1)))


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_window(width, run, baseline, volumes_run, tmp_path):
    for name, pages in (("plane", (run, baseline)), ("volumes", (volumes_run, None))):
        page = write_report(*pages, tmp_path / name)
        found = browse(page, tmp_path, width)
        assert found["scrolled"] <= found["width"] <= width
        assert found["wide"] == []
        assert len(found["images"]) == len(list(page.parent.glob("*.png"))) >= 7
        for natural, shown in found["images"]:
            assert natural == 1080
            assert 300 < shown <= width

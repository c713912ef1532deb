"""The page in a browser: it opens, sorts its tables and switches its pictures without a complaint."""

import html
import json
import re
import shutil
import subprocess

import pytest

from diffusion.reporting.page import write
from tests import run_folders

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

PROBE = """<script>
const seen = {title: document.title, paths: document.querySelectorAll(".plots .line path").length,
              wide: document.documentElement.scrollWidth - innerWidth, order: [], views: []};
const head = [...document.querySelectorAll(".scores thead th")].find((th) => th.textContent.includes("prompts_right"));
const column = [...head.parentElement.children].indexOf(head);
for (let i = 0; i < 3; i++) {
  head.querySelector("button").click();
  seen.order.push([head.getAttribute("aria-sort"), ...[...head.closest("table").tBodies[0].rows]
    .map((row) => row.children[column].dataset.value ?? null)]);
}
function look() {
  const shown = [...document.querySelectorAll(".view")].filter((view) => view.checkVisibility());
  seen.views.push([shown.map((view) => view.dataset.step + ", " + view.dataset.weights),
                   [...document.querySelectorAll(".switches input")].filter((i) => i.disabled).map((i) => i.value)]);
}
look();
for (const value of ["step 10", "raw", "finished"]) {
  document.querySelector(`.switches input[value="${value}"]`).click();
  look();
}
addEventListener("load", () => {
  seen.pictures = [...document.images].every((image) => image.naturalWidth > 0) && document.images.length;
  document.body.dataset.seen = JSON.stringify(seen);
  console.log("looked");
});
</script>"""


def test_the_page_works_in_a_browser(tmp_path):
    shares = {"aa": 0.2, "bb": 0.6, "cc": 0.4}
    runs = [run_folders.write(tmp_path / "shapes" / name, right=share) for name, share in shares.items()]
    results = json.loads((runs[2] / "results.json").read_text())
    del results["prompts_right_seen"]
    (runs[2] / "results.json").write_text(json.dumps(results))
    page = tmp_path / "page.html"
    write(runs, page)
    page.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--window-size=390,800", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(lines) == 1 and "looked" in lines[0], lines
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    seen = json.loads(html.unescape(found[1]))
    assert seen["title"].startswith("3 runs")  # no prompt's script ran
    assert seen["order"] == [["descending", "0.6", "0.2", None], ["ascending", "0.2", "0.6", None],
                             ["descending", "0.6", "0.2", None]]
    assert seen["views"] == [[["finished, EMA"], ["raw"]], [["step 10, EMA"], []], [["step 10, raw"], []],
                             [["finished, EMA"], ["raw"]]]
    assert seen["pictures"] == 3 * 2 * 3 and seen["paths"] == 3 + 3 + 3 + 6
    assert seen["wide"] <= 0  # on a phone, tables scroll on their own

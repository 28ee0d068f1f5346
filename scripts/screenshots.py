"""Pictures of the report's page, to look at: `scripts/screenshots.py --out FOLDER`, and `--readme` for docs/report.png.

Needs Debian's chromium, as the tests of the page do. Each model is converted and timed for a moment, and its page is
shown at the widths of a desktop and of a phone, light, dark and in print.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from bnfold.pipeline import line as pipeline
from bnfold.reporting.page.html import render_html

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("preact_resnet", "repvgg", "densenet")
LOOKS = (("desktop", 1440, 1000), ("phone", 390, 844))
README_SIZE = (1280, 900)
COLOURS = 200


def page_of(name: str, folder: Path, *, bench: bool) -> Path:
    """The page of a model's conversion."""
    report = pipeline.convert(
        ROOT / "models" / f"{name}.pt",
        folder / f"{name}.onnx",
        arch=f"{ROOT}/models/architectures.py:{name}",
        data=str(ROOT / "models" / "digits_test.npz"),
        bench=bench,
        threads=1,
        picture=True,
    )
    path = folder / f"{name}.html"
    path.write_text(render_html(json.loads(report.to_json())), encoding="utf-8")
    return path


def shoot(browser: Browser, page: Path, out: Path) -> None:
    for look, width, height in LOOKS:
        for scheme in ("light", "dark"):
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(page.as_uri())
            tab.locator(".to-graph").nth(1).click()
            tab.screenshot(path=out / f"{page.stem}-{look}-{scheme}.png", full_page=True)
            tab.close()
    tab = browser.new_page()
    tab.goto(page.as_uri())
    tab.pdf(path=out / f"{page.stem}.pdf", format="A4")
    tab.close()


def shoot_for_readme(browser: Browser, page: Path, path: Path) -> None:
    width, height = README_SIZE
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    tab.goto(page.as_uri())
    tab.locator(".to-graph").nth(3).click()
    shot = tab.locator("#graph").screenshot()
    Image.open(io.BytesIO(shot)).convert("P", palette=Image.Palette.ADAPTIVE, colors=COLOURS).save(path, optimize=True)
    tab.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder for the pictures")
    parser.add_argument("--readme", action="store_true", help="write docs/report.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            for name in MODELS:
                shoot(browser, page_of(name, Path(scratch), bench=True), arguments.out)
        if arguments.readme:
            (Path(scratch) / "readme").mkdir()
            page = page_of("preact_resnet", Path(scratch) / "readme", bench=False)
            shoot_for_readme(browser, page, ROOT / "docs" / "report.png")
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

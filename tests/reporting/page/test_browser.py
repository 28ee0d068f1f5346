"""The page as Chromium shows it: nothing is asked for, nothing goes wrong, everything can be found and reached."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pagecases
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from bnfold.reporting.page.html import render_html
from bnfold.wording import printable

CHROMIUM = os.environ.get("BNFOLD_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

NEEDED = bool(os.environ.get("BNFOLD_NEEDS_BROWSER"))  # what .ci/run sets: there, a browser that is missing is an error

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not NEEDED, reason="there is no chromium; apt-get install chromium"
)

NAMES = ("preact_resnet", "repvgg", "densenet", "wide")

DESKTOP, PHONE = (1440, 1000), (390, 844)

MOST_BYTES = 1_500_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        # A container's root has no user namespaces to make a sandbox of, and the pages are ours.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for name in NAMES:
        made[name] = folder / f"{name}.html"
        made[name].write_text(render_html(pagecases.run_of(name, str(folder))), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def runs(files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    return {name: pagecases.run_of(name, str(path.parent)) for name, path in files.items()}


class Opened:
    """A page that is open, and what it did besides.

    Attributes:
        page: The page.
        said: What it wrote to the console, and errors that nothing caught.
        asked: The addresses that it asked for.
    """

    def __init__(self, browser: Browser, path: Path, size: tuple[int, int], **look: Any) -> None:
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height}, **look)
        self.page: Page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.goto(path.as_uri())

    def close(self) -> None:
        self.page.context.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Any]:
    opened: list[Opened] = []

    def open_one(path: Path, size: tuple[int, int] = DESKTOP, **look: Any) -> Opened:
        opened.append(Opened(browser, path, size, **look))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_opens_without_an_error_and_asks_for_nothing(name: str, files: Any, runs: Any, open_page: Any) -> None:
    opened = open_page(files[name])
    page = opened.page
    page.locator("#open-all").click()
    page.locator("#close-all").click()
    page.locator("#theme").click()
    assert opened.said == []
    assert opened.asked == [files[name].as_uri()]
    assert files[name].stat().st_size <= MOST_BYTES
    shown = page.locator("#site-table tbody th").all_text_contents()
    assert shown == [printable(site["name"], 2000) for site in runs[name]["sites"]]
    assert page.evaluate("document.documentElement.scrollWidth") == DESKTOP[0]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wider_than_a_phone(name: str, files: Any, open_page: Any) -> None:
    opened = open_page(files[name], PHONE)
    opened.page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert opened.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    wider = """() => [...document.querySelectorAll("main *")].filter((each) => !each.closest(".canvas, .sr, svg, thead")
        && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML.slice(0, 80))"""
    assert opened.page.evaluate(wider) == []


@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_serious(name: str, files: Any, open_page: Any) -> None:
    assert violations(open_page(files[name])) == []


@pytest.mark.parametrize("name", ["densenet", "repvgg"])
def test_axe_finds_enough_contrast_in_the_dark(name: str, files: Any, open_page: Any) -> None:
    assert violations(open_page(files[name], color_scheme="dark"), "color-contrast") == []


def violations(opened: Opened, *rules: str) -> list[str]:
    """What is serious or critical on a page on which everything is open and an operator is chosen."""
    opened.page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    opened.page.locator(".to-graph").first.click()
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in run_axe(opened.page, *rules)]


def run_axe(page: Page, *rules: str) -> list[dict[str, Any]]:
    """Violations that axe calls serious or critical; its code comes in by the debugger, which no policy stops."""
    script = resources.files("axe_playwright_python") / "axe.min.js"
    page.evaluate(script.read_text(encoding="utf-8"))
    result = page.evaluate(
        "rules => axe.run(document, {resultTypes: ['violations'], ...(rules.length ? {runOnly: rules} : {})})",
        list(rules),
    )
    return [each for each in result["violations"] if each["impact"] in ("serious", "critical")]


def test_axe_would_find_something(files: Any, open_page: Any) -> None:
    page = open_page(files["repvgg"]).page
    page.evaluate("document.querySelector('#search').closest('label').replaceWith(document.querySelector('#search'))")
    assert [each["id"] for each in run_axe(page, "label", "image-alt")] == ["label"]


def test_the_table_filters_searches_and_sorts(files: Any, runs: Any, open_page: Any) -> None:
    page = open_page(files["densenet"]).page
    kept = [site["name"] for site in runs["densenet"]["sites"] if site["status"] == "kept"]
    rows = page.locator("#site-table tbody tr:not([hidden]) th")
    page.locator("#by-status").select_option("kept")
    assert rows.all_text_contents() == kept
    assert page.locator("#shown").text_content() == f"12 of {len(runs['densenet']['sites'])} shown"
    page.locator("#by-reason").select_option("SHARED-UNIT")
    page.locator("#search").fill("17.BODY")
    assert rows.all_text_contents() == ["features.17.body.0"]
    page.locator("#search").fill("")
    page.locator("#by-status").select_option("")
    page.locator("#by-reason").select_option("")
    heads = page.locator("#site-table thead th")
    heads.nth(0).get_by_role("button").click()
    heads.nth(0).get_by_role("button").click()
    assert heads.nth(0).get_attribute("aria-sort") == "descending"
    assert rows.all_text_contents() == [site["name"] for site in reversed(runs["densenet"]["sites"])]
    heads.nth(4).get_by_role("button").click()
    middles = page.locator("#site-table tbody tr td:nth-child(5)").evaluate_all("all => all.map(c => +c.dataset.sort)")
    assert middles == sorted(middles)
    assert heads.nth(0).get_attribute("aria-sort") is None


def test_a_name_in_the_table_leads_to_its_place_in_the_graph(files: Any, runs: Any, open_page: Any) -> None:
    opened = open_page(files["preact_resnet"])
    page = opened.page
    last = runs["preact_resnet"]["sites"][-2]
    assert page.locator(f"#graph-before [aria-label*='{last['name']},']").count() == 0
    page.get_by_role("link", name=last["name"]).click()
    chosen = page.locator("#graph-before .g-node.chosen")
    assert chosen.count() == 1
    assert last["name"] in (chosen.get_attribute("aria-label") or "")
    assert page.evaluate("document.activeElement.classList.contains('chosen')")
    assert chosen.bounding_box()["y"] < DESKTOP[1]
    detail = page.locator("#detail").text_content() or ""
    assert all(name in detail for name in (last["name"], *last["into"], "folded", "multiplied by s"))
    said = page.locator("#chosen").text_content()
    assert said == f"Chosen on the side before: BatchNormalization {last['name']}, folded"
    twins = page.locator("#graph-after .g-node.twin")
    assert twins.count() == len(last["into"])
    page.locator("#detail").get_by_role("button", name=last["into"][0]).first.click()
    assert page.locator("#graph-after .g-node.chosen").count() == 1
    assert "moved by" in (page.locator("#detail").text_content() or "")
    assert opened.said == []


def test_a_kept_batch_norm_says_why_and_what_to_do(files: Any, runs: Any, open_page: Any) -> None:
    page = open_page(files["densenet"]).page
    kept = next(site for site in runs["densenet"]["sites"] if site["status"] == "kept")
    page.get_by_role("link", name=kept["name"], exact=True).click()
    detail = page.locator("#detail").text_content() or ""
    assert kept["reason"]["text"] in detail
    assert page.locator("#detail .hint").count() == 1


def test_blocks_open_and_close_on_both_sides(files: Any, open_page: Any) -> None:
    page = open_page(files["preact_resnet"]).page
    page.locator("#close-all").click()
    block = page.locator("#graph-before .g-node.block").first
    closed = page.locator("#graph-before .g-node").count(), page.locator("#graph-after .g-node").count()
    assert block.get_attribute("aria-expanded") == "false"
    block.click()
    opened = page.locator("#graph-before .g-node").count(), page.locator("#graph-after .g-node").count()
    assert opened > closed
    assert opened[1] > closed[1]
    page.locator("#graph-before .g-cluster").first.click(position={"x": 3, "y": 3})
    assert (page.locator("#graph-before .g-node").count(), page.locator("#graph-after .g-node").count()) == closed


def test_the_graph_works_from_the_keyboard(files: Any, open_page: Any) -> None:
    opened = open_page(files["preact_resnet"])
    page = opened.page
    page.locator("#graph-before .g-node[tabindex='0']").focus()
    assert page.locator("#graph-before .g-node[tabindex='0']").count() == 1
    first = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("ArrowDown")
    second = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert first != second
    page.keyboard.press("Enter")
    assert page.locator("#graph-before .chosen").get_attribute("aria-label") == second
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == first
    page.keyboard.press("End")
    page.keyboard.press("Escape")
    assert opened.said == []


def test_the_whole_of_a_large_graph_can_be_opened(files: Any, runs: Any, open_page: Any) -> None:
    opened = open_page(files["wide"])
    page = opened.page
    first = page.locator("#graph-before .g-node").count()
    assert first <= 40
    page.locator("#open-all").click()
    assert page.locator("#graph-before .g-node").count() == len(runs["wide"]["picture"]["before"])
    assert page.locator("#graph-after .g-node").count() == len(runs["wide"]["picture"]["after"])
    assert opened.said == []


def test_hostile_names_are_text(files: Any, runs: Any, open_page: Any) -> None:
    opened = open_page(files["wide"])
    page = opened.page
    page.locator("#open-all").click()
    names = [site["name"] for site in runs["wide"]["sites"]]
    for index, name in enumerate(names):
        if any(hostile in name for hostile in pagecases.HOSTILE):
            page.locator(f"a[data-site='{index}']").evaluate("each => each.click()")
    allowed = {"script": 4, "img": 0, "iframe": 0, "object": 0, "embed": 0, "base": 0, "link": 0}
    assert {tag: page.locator(tag).count() for tag in allowed} == allowed
    handlers = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
    assert page.evaluate(handlers) == []
    hidden = "[...document.body.innerText].filter(c => /[\\u202a-\\u202e\\u2066-\\u2069\\u001b\\u2028]/.test(c)).length"
    assert page.evaluate(hidden) == 0
    assert opened.said == []
    assert opened.asked == [files["wide"].as_uri()]


def test_the_policy_stops_a_script_that_gets_in(files: Any, open_page: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    text = files["repvgg"].read_text(encoding="utf-8")
    attack = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"></main>"
    broken.write_text(text.replace("</main>", attack), encoding="utf-8")
    opened = open_page(broken)
    opened.page.wait_for_timeout(100)
    assert opened.page.title() != "taken"
    assert len([said for said in opened.said if "Content Security Policy" in said]) >= 2


def test_the_run_can_be_saved(files: Any, runs: Any, open_page: Any) -> None:
    opened = open_page(files["repvgg"])
    with opened.page.expect_download() as saved:
        opened.page.locator("#download").click()
    assert saved.value.suggested_filename == "run.json"
    assert json.loads(Path(saved.value.path()).read_text(encoding="utf-8")) == runs["repvgg"]
    assert opened.said == []


def test_light_and_dark_follow_the_system_and_the_button(files: Any, open_page: Any) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    for scheme, before, after in (
        ("light", "rgb(255, 255, 255)", "rgb(17, 20, 23)"),
        ("dark", "rgb(17, 20, 23)", "rgb(255, 255, 255)"),
    ):
        page = open_page(files["repvgg"], color_scheme=scheme).page
        assert page.evaluate(colour) == before
        page.locator("#theme").click()
        assert page.evaluate(colour) == after


def test_print_is_light_and_without_controls(files: Any, open_page: Any) -> None:
    page = open_page(files["densenet"], color_scheme="dark").page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#search").is_visible()
    assert not page.locator("#theme").is_visible()
    assert page.locator("#graph-before svg").is_visible()
    assert len(page.pdf()) > 10_000


def test_the_tables_are_there_without_javascript(files: Any, runs: Any, open_page: Any) -> None:
    opened = open_page(files["densenet"], java_script_enabled=False)
    page = opened.page
    assert page.locator("#site-table tbody th").all_text_contents() == [s["name"] for s in runs["densenet"]["sites"]]
    assert page.locator("#site-table").is_visible()
    assert not page.locator("#filters").is_visible()
    assert page.locator("#weights .plot").first.is_visible()
    assert page.locator("noscript").count() >= 1

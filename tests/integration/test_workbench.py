"""`pgkd ui` as a person uses it: a real browser, real clicks and keys."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from pgkd_agent.cli.listening import LOOPBACK
from pgkd_agent.files import read_lines
from pgkd_agent.workbench.app import create_app
from tests.integration import chromium
from tests.integration.command_line import pgkd, pgkd_server
from tests.unit.workbench.made import WORDS, make_run

MANY = [f"{one} and {two}, in a name that is too long" for one in WORDS for two in WORDS[:7]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "helped")
    make_run(folder / "harmed", skills=(0.3, 0.6, 0.9), test_skills=(0.9, 0.6, 0.3))
    make_run(folder / "many", MANY, skills=(0.4, 0.5, 0.6), test_rows=3)
    return folder


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(runs, LOOPBACK), log_level="warning"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = chromium.executable()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=[*chromium.FLAGS])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page that may say nothing on its console, and ask no other server for anything."""
    opened = browser.new_page(base_url=address)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: request.url.startswith(address) or complaints.append(request.url))
    yield opened
    opened.close()
    assert [line for line in complaints if line != "data:," and "422" not in line] == []


def test_the_list_is_sorted_searched_and_leads_to_a_run(page: Page) -> None:
    page.goto("/")
    names = page.locator("#runs tbody tr:visible th")
    page.get_by_role("button", name="gain").click()
    assert names.all_inner_texts()[0] == "helped" and names.all_inner_texts()[-1] == "harmed"
    page.get_by_role("button", name="gain").click()
    assert names.all_inner_texts()[0] == "harmed"
    page.get_by_role("button", name="verdict").click()
    assert page.locator("#runs tbody .badge").all_inner_texts() == ["helped", "helped", "harmed"]
    page.get_by_label("Find a run").fill("HARM")
    assert names.all_inner_texts() == ["harmed"]
    page.get_by_role("link", name="harmed").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("harmed harmed")


def test_a_run_leads_to_its_samples_and_settings(page: Page) -> None:
    page.goto("/overview?run=helped")
    expect(page.get_by_text("The returned model is better than the plain student")).to_be_visible()
    expect(page.get_by_role("img")).to_have_count(2)
    expect(page.locator("svg .plain")).to_have_count(2)
    page.get_by_text("All settings").click()
    expect(page.get_by_text("near_duplicate_ratio")).to_be_visible()
    page.get_by_role("link", name="held_out 1").first.click()
    expect(page.locator(".samples li")).to_have_count(1)
    expect(page.get_by_label("Rejected by")).to_have_value("held_out")


def test_samples_are_reviewed_by_buttons_and_keys(page: Page, runs: Path) -> None:
    page.goto("/samples?run=helped")
    page.get_by_label("Step").select_option("1")
    page.get_by_role("button", name="Show", exact=True).click()
    items = page.locator(".samples li")
    expect(items).to_have_count(6)
    items.nth(0).get_by_role("button", name="Reject").click()
    expect(items.nth(0).locator(".state")).to_have_text("rejected")
    items.nth(0).get_by_role("button", name="Undo").click()
    expect(items.nth(0).locator(".state")).to_have_text("accepted")
    items.nth(0).locator(".text").click()
    items.nth(0).focus()
    page.keyboard.press("j")
    expect(items.nth(1)).to_be_focused()
    for key in "rakr":  # reject the second and go on, accept the third and go on, back, reject the third
        page.keyboard.press(key)
    expect(items.nth(3)).to_be_focused()
    page.keyboard.press("l")
    page.keyboard.type("no such class")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("none of the run's classes")
    expect(items.nth(3)).to_be_focused()
    page.keyboard.press("l")
    page.keyboard.type("animals")
    page.keyboard.press("Enter")
    expect(items.nth(3).locator(".state")).to_have_text("accepted")
    expect(page.get_by_role("status")).to_be_empty()
    expect(page.locator("#decided")).to_have_text("3")
    page.reload()
    assert (
        items.locator(".state").all_inner_texts() == ["accepted", "rejected", "rejected", "accepted"] + ["rejected"] * 2
    )
    expect(items.nth(3).get_by_label("Class")).to_have_value("animals")
    written = read_lines(runs / "helped" / "review.jsonl")
    assert [row["reviewed"] for row in written[:6]] == [False, True, True, True, False, False]
    assert written[3]["label"] == "animals" and len(written) == 12
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Your word").select_option("decided")
    page.get_by_label("Text holds").fill("HAMMER")
    page.keyboard.press("Enter")
    expect(items).to_have_count(1)


def test_what_cannot_be_saved_is_said(page: Page, runs: Path) -> None:
    page.goto("/samples?run=harmed")
    (runs / "harmed" / "review.jsonl").write_text('{"text": "of another run"}\n', encoding="utf-8")
    page.get_by_role("button", name="Reject").first.click()
    expect(page.get_by_role("status")).to_contain_text("Not saved:")
    expect(page.locator(".state").first).to_have_text("accepted")
    (runs / "harmed" / "review.jsonl").unlink()


def test_mistakes_are_filtered_and_paged(page: Page) -> None:
    page.goto("/mistakes?run=many")
    rows = page.locator("main tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("link", name="Page 2").click()
    expect(page.get_by_text("Page 2 of")).to_be_visible()
    page.get_by_label("Mistake").select_option("fixed")
    page.get_by_role("button", name="Show", exact=True).click()
    assert {*page.locator("[data-name=mistake]").all_inner_texts()} == {"fixed"}
    page.get_by_label("True class").select_option(MANY[0])
    page.get_by_role("button", name="Show", exact=True).click()
    assert {*page.locator("[data-name='true class']").all_inner_texts()} <= {MANY[0]}


def test_a_cell_of_the_heat_map_opens_its_rows(page: Page) -> None:
    page.goto("/confusion?run=helped")
    expect(page.locator(".heat")).to_have_count(2)
    cell = page.locator(".heat").first.locator("td.wrong a").first
    count = int(cell.inner_text())
    cell.click()
    expect(page.locator("main tbody tr")).to_have_count(count)
    expect(page.get_by_label("By")).to_have_value("before")
    page.goto("/confusion?run=many")
    assert page.locator(".heat tbody tr").count() == 40
    page.get_by_label("Find a class").fill(MANY[-1])
    expect(page.locator("#classes tbody tr:visible")).to_have_count(1)


def test_a_prompt_is_read_from_request_to_sample(page: Page) -> None:
    page.goto("/calls?run=helped")
    page.get_by_label("Prompt or reply holds").fill("spaceship of step 2")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Call 2").click()
    expect(page.locator(".message")).to_have_count(3)
    expect(page.locator(".message pre").first).to_have_text("You write training texts.")
    expect(page.get_by_role("cell", name="rejected: label")).to_be_visible()
    page.get_by_role("link", name="← Call 1").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Call 1 of helped")


def test_two_runs_are_compared_and_others_refused_in_a_sentence(page: Page) -> None:
    page.goto("/overview?run=helped")
    page.get_by_label("With").select_option("harmed")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("on the same 80 test rows")).to_be_visible()
    page.get_by_text("The rows").first.click()
    expect(page.locator(".cards tbody tr").first).to_be_visible()
    page.goto("/overview?run=helped")
    page.get_by_label("With").select_option("many")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("The test rows are not the same")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_can_be_read(scheme: str, page: Page) -> None:
    """Nothing is wider than the screen but tables that scroll by themselves; every field has a name."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for path in (
        "",
        *(f"{name}?run=many" for name in ("overview", "samples", "mistakes", "confusion", "calls")),
        "call?run=many&number=1",
    ):
        page.goto(f"/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.evaluate("document.querySelectorAll('h1').length") == 1
        fields = "[...document.querySelectorAll('input:not([type=hidden]), select')]"
        unlabelled = f"{fields}.filter(field => !field.labels?.length && !field.ariaLabel)"
        assert page.evaluate(f"{unlabelled}.length") == 0, path


def test_the_command_serves_until_it_is_told_to_end(runs: Path, tmp_path: Path) -> None:
    with pgkd_server("ui", runs) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        address = said.split(" at ")[1].split(";")[0]
        assert f"{runs}: 3 runs" in said and "helped" in httpx.get(address).text
        assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 403
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    refused = pgkd("ui", tmp_path / "nowhere")
    assert refused.returncode == 2 and "there is no folder" in refused.stderr

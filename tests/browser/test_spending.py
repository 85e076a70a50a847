"""The page about spending in Chromium: a plot, a table, and what they can be asked for."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.axe import grave_problems
from tests.browser.conftest import WILD, Watched
from tests.gateway.conftest import Shown, watching
from tests.support.spending import PRICES, record_month, record_prediction

pytestmark = pytest.mark.xdist_group("browser")  # one browser, whichever worker has it

SCREENS = [
    (390, "light"),
    (1440, "dark"),
    pytest.param((390, "dark"), marks=pytest.mark.long),
    pytest.param((1440, "light"), marks=pytest.mark.long),
]


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A gateway on a journal with a month of spending."""
    with watching(tmp_path_factory.mktemp("month") / "out") as shown:
        record_month(shown.journal)
        yield shown


def address(shown: Shown, query: str = "") -> str:
    return f"{str(shown.http.base_url).rstrip('/')}/spend{query}"


def test_the_page_shows_the_sums_of_the_gateway(tab: Page, watched: Watched, month: Shown) -> None:
    """One line for each job and a total, one bar for each model of a day, and nothing from elsewhere."""
    told = month.get("/api/spend?since=30d")
    tab.goto(f"{month.http.base_url!s}")
    tab.get_by_role("link", name="Spending").click()
    rows = tab.locator("tbody tr")
    expect(rows).to_have_count(len(told["groups"]))
    expect(rows.first.get_by_role("rowheader")).to_have_text(told["groups"][0]["key"][0])
    expect(tab.locator("tfoot tr")).to_contain_text(f"${float(told['total']['billed']):,.2f}")
    expect(tab.locator(".totals .billed")).to_have_text(f"${float(told['total']['billed']):,.2f}")
    expect(tab.locator(".bars rect")).to_have_count(sum(len(day["by_model"]) for day in told["days"]))
    expect(tab.locator(".legend li")).to_have_count(len(PRICES))
    expect(tab.get_by_role("img", name=re.compile("Billed by day and model: "))).to_be_visible()
    home = str(month.http.base_url).rstrip("/")
    assert all(request.startswith((home, "data:")) for request in watched.requests)
    assert watched.errors == []


def test_the_grouping_and_the_period_are_chosen_and_kept_in_the_address(tab: Page, month: Shown) -> None:
    tab.goto(address(month))
    tab.get_by_label("Sum up by").select_option("scene")
    expect(tab.locator("thead th").nth(1)).to_have_text("scene")
    tab.get_by_label("Period").select_option("7d")
    expect(tab.locator(".top .about")).to_contain_text("since")
    tab.reload()
    expect(tab.get_by_label("Sum up by")).to_have_value("scene")
    expect(tab.locator("tbody tr")).to_have_count(len(month.get("/api/spend?since=7d&by=scene")["groups"]))
    tab.get_by_label("Period").select_option("all")
    expect(tab.locator(".top .about")).to_contain_text("of all time")
    tab.get_by_label("Sum up by").select_option("run")
    tab.locator("tbody tr").first.get_by_role("link").click()
    expect(tab).to_have_url(re.compile(r"\?run=run\d+$"))


def test_the_table_can_be_downloaded(tab: Page, month: Shown) -> None:
    """As it is shown, or each prediction."""
    tab.goto(address(month, "?by=model&since=all"))
    expect(tab.locator("tbody tr")).to_have_count(len(PRICES))
    for name, query in (("This table as CSV", "?by=model"), ("Each prediction as CSV", "")):
        with tab.expect_download() as downloading:
            tab.get_by_role("link", name=name).click()
        assert downloading.value.path().read_text() == month.http.get(f"/api/spend.csv{query}").text


def test_months_are_drawn_once_there_are_many_days(tab: Page, live: Shown) -> None:
    record_prediction(live.journal, 1)
    record_prediction(live.journal, 2, at=datetime.now(UTC) - timedelta(days=120))
    tab.goto(address(live, "?since=all"))
    expect(tab.get_by_role("img", name=re.compile("Billed by month and model: "))).to_be_visible()
    expect(tab.locator(".bars rect")).to_have_count(2)


def test_names_are_text_and_an_empty_journal_is_told(tab: Page, watched: Watched, live: Shown) -> None:
    tab.goto(address(live))
    expect(tab.get_by_text("No predictions in this period.")).to_be_visible()
    expect(tab.locator(".plot")).to_be_hidden()
    record_prediction(live.journal, 1, job_id=WILD[:80], model=WILD)
    tab.reload()
    expect(tab.locator("tbody th")).to_have_text(WILD[:80])
    expect(tab.locator(".legend li")).to_have_text(WILD)
    assert tab.evaluate("window.ran") is None
    assert watched.errors == []


def test_a_wrong_address_and_a_lost_gateway_are_told(tab: Page, month: Shown) -> None:
    tab.goto(address(month, "?time_zone=Mars"))
    expect(tab.get_by_role("status")).to_contain_text("'Mars' is no time zone")
    tab.goto(address(month))
    expect(tab.locator("tbody tr").first).to_be_visible()
    tab.route("**/api/spend*", lambda route: route.abort())
    tab.get_by_label("Sum up by").select_option("day")
    expect(tab.get_by_role("status")).to_contain_text("The gateway does not answer.")


@pytest.mark.parametrize("screen", SCREENS, ids=lambda case: f"{case}")
def test_the_page_can_be_used_by_everybody(
    screen: tuple[int, Literal["light", "dark"]], tab: Page, month: Shown
) -> None:
    """On a phone and a desktop, in either scheme; the page does not scroll sideways, only the table does."""
    width, scheme = screen
    tab.set_viewport_size({"width": width, "height": 844})
    tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for by in ("job", "scene"):
        tab.goto(address(month, f"?by={by}"))
        expect(tab.locator("tbody tr").first).to_be_visible()
        assert grave_problems(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")

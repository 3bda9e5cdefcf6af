"""Prometheus's own graph of what a real observer measured, in a real browser.

Which page that is depends on the release (Debian has the classic one, others a newer one), and the data are the run's own:
so the baseline is a first picture of the same minutes in the same run. A second must agree with it, and one of another
query must not."""

import datetime
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page

import pictures
from conftest import Stack
from processes import until

REQUESTS = "sum(rate(llm_requests_total[10s]))"
QUANTILE = "histogram_quantile(0.9, sum by (le) (rate(gen_ai_server_time_to_first_token_seconds_bucket[10s])))"
NOTHING = "llm_requests_total{workload='nobody'}"

# Whatever draws: an SVG (classic page) or a canvas (newer ones).
PLOT = ".graph_container svg, .graph canvas, .uplot canvas, canvas"


def draw(page: Page, stack: Stack, expression: str) -> bytes:
    """A picture of the page with this graph, once it is drawn."""
    # The classic page knows whole minutes only.
    end = datetime.datetime.fromtimestamp(stack.over + 60, datetime.UTC).strftime("%Y-%m-%d %H:%M")
    query = {"g0.expr": expression, "g0.tab": "0", "g0.range_input": "2m", "g0.end_input": end, "g0.moment_input": end}
    with page.expect_response(lambda answer: "/api/v1/query_range" in answer.url) as answered:
        page.goto(f"{stack.prometheus}/graph?{urlencode(query)}")
    assert answered.value.ok, answered.value.url
    # Drawn when two looks in a row are the same.
    looks = [b""]

    def settled() -> bytes | None:
        looks.append(page.screenshot(animations="disabled"))
        return looks[-1] if looks[-1] == looks[-2] else None

    return until("the page to settle", 15, settled)


def plot(page: Page) -> bytes:
    """A picture of the plot alone."""
    return page.locator(PLOT).first.screenshot()


@pytest.mark.parametrize("expression", [REQUESTS, QUANTILE])
def test_graph_shows_the_series(page: Page, stack: Stack, expression: str):
    assert stack.query(expression), "Prometheus has nothing to draw"
    draw(page, stack, expression)
    assert page.locator(PLOT).first.is_visible()
    assert pictures.colours(plot(page)), "nothing is drawn"


def test_graph_of_nothing_is_noticed(page: Page, stack: Stack):
    draw(page, stack, NOTHING)
    plots = page.locator(PLOT)
    assert not plots.count() or not plots.first.is_visible() or not pictures.colours(plot(page))


def test_graph_looks_as_it_did(page: Page, stack: Stack):
    first = draw(page, stack, QUANTILE)
    page.goto("about:blank")
    pictures.expect_same("prometheus-graph", first, draw(page, stack, QUANTILE))


def test_another_graph_is_noticed(page: Page, stack: Stack, monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "TARGET", tmp_path)
    first = draw(page, stack, QUANTILE)
    other = draw(page, stack, "observer_probe_attached")
    with pytest.raises(AssertionError, match="differ"):
        pictures.expect_same("prometheus-graph", first, other)

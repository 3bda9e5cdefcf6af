"""Dashboards in a real Grafana: at GRAFANA_URL (http://127.0.0.1:23000 if not said) with GRAFANA_USER and GRAFANA_PASSWORD
(admin, admin). Its Prometheus must have scraped an observer of some load for a few minutes."""

import time

import pytest
from playwright.sync_api import Page

import grafana
import needs
import pictures
from grafana import Dashboard


def dashboards() -> list:
    found = [pytest.param(path, id=path.stem) for path in grafana.files()]
    assert found, "there is no dashboard in dashboards/"
    return found


@pytest.fixture(params=dashboards())
def dashboard(request: pytest.FixtureRequest) -> Dashboard:
    needs.require("grafana", "chromium")
    return Dashboard.read(request.param)


# What Grafana renders otherwise each time: data. Frames, titles and places of panels remain.
WITHOUT_DATA = '[data-testid="data-testid panel content"] { visibility: hidden !important }'


def test_dashboard_loads_without_errors(page: Page, dashboard: Dashboard):
    failed = grafana.open_dashboard(page, dashboard)
    assert not failed and not grafana.errors(page)
    for panel in dashboard.panels:
        if "$" not in panel.get("title", "$") and panel["title"]:
            assert grafana.panel(page, panel["title"]).count(), f"no panel {panel['title']}"


def test_heatmaps_have_colours(page: Page, dashboard: Dashboard):
    titles = dashboard.titles("heatmap")
    if not titles:
        pytest.skip(f"{dashboard.uid} has no heatmap")
    grafana.open_dashboard(page, dashboard)
    for title in titles:
        assert grafana.canvas_colours(grafana.panel(page, title).first) > 1, f"{title} is empty"


def test_dashboard_looks_the_same_twice(page: Page, dashboard: Dashboard, monkeypatch, tmp_path):
    """Of a time that is over; and a panel that is gone is noticed."""
    now = int(time.time())
    span = f"from={now - 1200}000&to={now - 300}000"
    grafana.open_dashboard(page, dashboard, span)
    first = page.screenshot(animations="disabled")
    page.goto("about:blank")
    grafana.open_dashboard(page, dashboard, span)
    pictures.expect_same(f"grafana-{dashboard.uid}", first, page.screenshot(animations="disabled"))
    largest = max(dashboard.panels, key=lambda panel: panel["gridPos"]["w"] * panel["gridPos"]["h"])
    grafana.panel(page, largest["title"]).first.evaluate("panel => panel.remove()")
    monkeypatch.setattr(pictures, "TARGET", tmp_path)
    with pytest.raises(AssertionError, match="differ"):
        pictures.expect_same("without a panel", first, page.screenshot(animations="disabled"))


def test_dashboard_looks_as_it_did(page: Page, dashboard: Dashboard):
    name = f"grafana-{dashboard.uid}"
    if not pictures.has_baseline(name):
        pytest.skip(f"no baseline of {dashboard.uid}: UPDATE_BASELINES=1 makes it")
    grafana.open_dashboard(page, dashboard)
    page.add_style_tag(content=WITHOUT_DATA)
    pictures.expect_baseline(name, page.screenshot(animations="disabled"))


# What the checks above rest on, tried on pages whose answer is known: they run without a Grafana.

CANVAS = """<div data-testid="data-testid Panel header Heat"><canvas width=90 height=90></canvas></div><script>
const context = document.querySelector("canvas").getContext("2d");
{colours}.forEach((colour, at) => {{ context.fillStyle = colour; context.fillRect(30 * at, 0, 30, 90); }});
</script>"""


@pytest.mark.parametrize(("colours", "count"), [("[]", 0), ("['#08c']", 1), ("['#08c', '#fc0', '#d00']", 3)])
def test_colours_of_a_canvas_are_counted(page: Page, colours: str, count: int):
    page.set_content(CANVAS.format(colours=colours))
    assert grafana.canvas_colours(grafana.panel(page, "Heat")) == count


def test_errors_of_panels_are_found(page: Page):
    page.set_content("<section>fine</section>")
    assert grafana.errors(page) == []
    page.set_content('<button data-testid="data-testid Panel status error" aria-label="bad_data: no">x</button>')
    assert grafana.errors(page) == ["bad_data: no"]


def test_files_of_dashboards_can_be_read():
    for path in grafana.files():
        dashboard = Dashboard.read(path)
        assert grafana.is_name(dashboard.uid) and dashboard.title and dashboard.panels, path

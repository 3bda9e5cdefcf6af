"""What tests ask of Grafana's pages. Marks of its panels are those that Grafana's own end-to-end tests use (10.0 and later)."""

import base64
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Locator, Page

import needs

DASHBOARDS = needs.WORKSPACE / "dashboards"

HEADER = "data-testid Panel header "
ERROR = '[data-testid="data-testid Panel status error"], .panel-info-corner--error'
LOADING = '[aria-label="Panel loading bar"], [data-testid="panel-loading-bar"]'

# Pixels of one row of Grafana's grid, and of what lies above it.
ROW, TOP = 38, 160


@dataclass(frozen=True)
class Dashboard:
    """A dashboard as its file says."""

    uid: str
    title: str
    panels: list[dict]

    @classmethod
    def read(cls, path: Path) -> "Dashboard":
        model = json.loads(path.read_text())
        # What a collapsed row holds is not shown.
        panels = [panel for panel in model["panels"] if panel["type"] != "row"]
        return cls(model["uid"], model["title"], panels)

    @property
    def height(self) -> int:
        """Pixels in which all of it is visible: Grafana asks for the data of visible panels only."""
        bottom = max((panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in self.panels), default=1)
        return TOP + ROW * bottom

    def titles(self, kind: str) -> list[str]:
        """Titles of its panels of a type; those that a variable makes are left out, since Grafana rewrites them."""
        return [panel["title"] for panel in self.panels if panel["type"] == kind and "$" not in panel.get("title", "$")]


def files() -> list[Path]:
    return sorted(DASHBOARDS.glob("*.json"))


def authorization() -> dict[str, str]:
    """Basic authentication, for the page and for what it asks by itself."""
    user, password = os.environ.get("GRAFANA_USER", "admin"), os.environ.get("GRAFANA_PASSWORD", "admin")
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def open_dashboard(page: Page, dashboard: Dashboard, span: str = "from=now-15m&to=now") -> list[str]:
    """Opens it and waits until its panels are drawn; tells what queries failed with."""
    failed: list[str] = []

    def look(answer) -> None:
        if "/api/ds/query" in answer.url and not answer.ok:
            failed.append(f"{answer.status}: {answer.text()[:300]}")

    page.on("response", look)
    page.set_extra_http_headers(authorization())
    page.set_viewport_size({"width": 1600, "height": dashboard.height})
    answer = page.goto(f"{needs.GRAFANA}/d/{dashboard.uid}?kiosk&theme=light&refresh=&{span}")
    assert answer.ok, f"{dashboard.uid}: {answer.status}"
    page.locator(f'[data-testid^="{HEADER}"]').first.wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_function("selector => !document.querySelector(selector)", arg=LOADING)
    return failed


def panel(page: Page, title: str) -> Locator:
    return page.locator(f'[data-testid="{HEADER}{title}"]')


def errors(page: Page) -> list[str]:
    """What panels complain about."""
    marks = page.locator(ERROR)
    return [mark.get_attribute("aria-label") or mark.inner_text() or "an error" for mark in marks.all()]


def canvas_colours(where: Locator) -> int:
    """Colours (three bits each) of opaque pixels on the canvases of a panel."""
    count = """canvases => {
        const seen = new Set();
        for (const canvas of canvases) {
            const context = canvas.getContext("2d");
            if (!context || !canvas.width || !canvas.height) continue;
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            for (let at = 0; at < data.length; at += 4)
                if (data[at + 3] === 255) seen.add((data[at] >> 5) << 6 | (data[at + 1] >> 5) << 3 | data[at + 2] >> 5);
        }
        return seen.size;
    }"""
    return where.locator("canvas").evaluate_all(count)


def is_name(uid: str) -> bool:
    """What Grafana accepts as a uid, and a file as its name."""
    return bool(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", uid))

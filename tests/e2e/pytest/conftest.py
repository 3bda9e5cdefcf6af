"""What tests share: a browser, and a real observer of a sample server under load with a real Prometheus behind it."""

import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

import needs
from processes import free_port, get, running, until

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # The same pixels whatever display this machine thinks it has.
    "--force-device-scale-factor=1",
    "--font-render-hinting=none",
    "--hide-scrollbars",
]

# As long as any test waits for a page.
PATIENCE_MS = 20_000

# Seconds that the load lasts at most; it is ended before.
LOAD = "120s"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    needs.require("chromium")
    with sync_playwright() as playwright:
        # A profile of its own is made, and removed, by Playwright.
        browser = playwright.chromium.launch(executable_path=needs.browser(), headless=True, args=FLAGS)
        yield browser
        browser.close()


def _only(route: Route, hosts: set[str]) -> None:
    if urlsplit(route.request.url).hostname in hosts:
        route.continue_()
    else:
        route.abort()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A new page that reaches this machine, and Grafana's, and nothing else."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce", locale="en-GB")
    context.set_default_timeout(PATIENCE_MS)
    hosts = {"127.0.0.1", "localhost", urlsplit(needs.GRAFANA).hostname}
    context.route("**/*", lambda route: _only(route, hosts))
    yield context.new_page()
    context.close()


@dataclass(frozen=True)
class Stack:
    """Addresses, without a slash at their end, and the port that is observed."""

    observer: str
    prometheus: str | None
    port: int
    # When Prometheus stopped scraping, in seconds since 1970.
    over: float | None = None

    def query(self, expression: str) -> list:
        """The samples of an instant query, as of the last scrape."""
        time = f"&time={self.over}" if self.over else ""
        status, body = get(f"{self.prometheus}/api/v1/query?query={quote(expression)}{time}")
        assert status == 200, body
        return json.loads(body)["data"]["result"]


def _prometheus(config: Path, data: Path, port: int) -> list[str | Path]:
    """Prometheus's command. Debian's looks for its page below /usr/share, where an unpacked one is not: then in a mount
    namespace of its own, in which it is."""
    program = Path(shutil.which("prometheus")).resolve()
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    share = needs.TARGET / "tools/prometheus/usr/share"
    if (share / "prometheus/web").is_dir() and not Path("/usr/share/prometheus/web").is_dir():
        script = 'mount -t overlay overlay -o "ro,lowerdir=$0:/usr/share" /usr/share && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, share, *command]
    return command


@pytest.fixture(scope="session")
def observer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A real observer of a sample server under load."""
    needs.require("kernel", "sample")
    folder = tmp_path_factory.mktemp("observer")
    serve = [needs.SAMPLE, "serve", "--listen", "127.0.0.1:0", "--ttft", "80ms", "--ttft-jitter", "60ms"]
    log = folder / "server.log"
    with running([*serve, "--token-interval", "10ms", "--interval-jitter", "5ms"], log):
        found = until("the sample server", 10, lambda: re.search(r"listening on .*:(\d+)", log.read_text()))
        port, own = int(found[1]), free_port()
        observe = [needs.OBSERVER, "run", "--ports", str(port), "--listen", f"127.0.0.1:{own}"]
        load = [needs.SAMPLE, "load", "--url", f"http://127.0.0.1:{port}", "--rate", "10", "--tokens", "15", "--for", LOAD]
        with running(observe, folder / "observer.log"):
            address = f"http://127.0.0.1:{own}"
            until("the observer to be ready", 15, lambda: get(f"{address}/readyz")[0] == 200)
            with running([*load, "--concurrency", "16"], folder / "load.log"):
                yield Stack(address, None, port)


@pytest.fixture(scope="session")
def stack(observer: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """That, with a Prometheus that has scraped it for a while and does not any more: what it has is the same for all
    pictures."""
    needs.require("prometheus")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config, target = folder / "prometheus.yml", observer.observer.removeprefix("http://")
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: observer, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with running(_prometheus(config, folder / "tsdb", port), folder / "prometheus.log") as process:
        stack = replace(observer, prometheus=f"http://127.0.0.1:{port}")
        until("Prometheus to be ready", 20, lambda: get(f"{stack.prometheus}/-/ready")[0] == 200)
        scraped = 'count_over_time(up{job="observer"}[1m]) >= 15'
        until("Prometheus to have scraped", 40, lambda: stack.query(scraped))
        config.write_text("scrape_configs: []\n")
        over = time.time()
        process.send_signal(signal.SIGHUP)
        targets = f"{stack.prometheus}/api/v1/targets"
        until("the scrapes to end", 10, lambda: json.loads(get(targets)[1])["data"]["activeTargets"] == [])
        yield replace(stack, over=over)

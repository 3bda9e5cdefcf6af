"""What a test needs from its host. Where something is missing, the test is skipped with the reason, unless the environment
variable OBSERVER_REQUIRE (a comma-separated list) names it: then the test fails. The same rule as in
tests/e2e/src/require.rs, and the same names; `grafana` is one more."""

import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest

WORKSPACE = Path(__file__).resolve().parents[3]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", WORKSPACE / "target"))
OBSERVER = Path(os.environ.get("OBSERVER_BIN", TARGET / "release/observer"))
SAMPLE = Path(os.environ.get("SAMPLE_LLM_BIN", TARGET / "release/sample-llm"))
GRAFANA = os.environ.get("GRAFANA_URL", "http://127.0.0.1:23000").rstrip("/")

# Capabilities by their numbers: CAP_SYS_ADMIN implies CAP_BPF.
CAP_SYS_ADMIN, CAP_BPF = 21, 39


def _may_bpf() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return bool(effective >> CAP_BPF & 1 or effective >> CAP_SYS_ADMIN & 1)
    return False


def browser() -> str | None:
    """The browser's program. Ubuntu's package chromium is none: there Chrome is, if any."""
    found = (shutil.which(name) for name in ("chromium", "google-chrome", "chromium-browser"))
    return next((path for path in found if path), None)


def _grafana() -> str | None:
    try:
        with urllib.request.urlopen(f"{GRAFANA}/api/health", timeout=5) as answer:
            return None if answer.status == 200 else f"{GRAFANA} answers {answer.status}"
    except (urllib.error.URLError, OSError) as error:
        return f"no Grafana at {GRAFANA} (set GRAFANA_URL): {getattr(error, 'reason', error)}"


def _absent(need: str) -> str | None:
    if need == "kernel":
        if os.geteuid() != 0 or not _may_bpf():
            return "not root, or not permitted to use BPF"
        if not Path("/sys/kernel/btf/vmlinux").exists():
            return "the kernel has no BTF"
        return None if OBSERVER.is_file() else f"{OBSERVER} is not there: cargo xtask build --release"
    if need == "sample":
        return None if SAMPLE.is_file() else f"{SAMPLE} is not there: cargo build --release -p sample-llm"
    if need == "chromium":
        return None if browser() else "no chromium and no google-chrome is installed"
    if need == "grafana":
        return _grafana()
    return None if shutil.which(need) else f"{need} is not installed"


def require(*needs: str) -> None:
    """Leaves the test, saying why, if the host lacks one of them."""
    demanded = {name.strip() for name in os.environ.get("OBSERVER_REQUIRE", "").split(",")}
    for need in needs:
        reason = _absent(need)
        if reason is None:
            continue
        if need in demanded or "all" in demanded or (need == "sample" and "kernel" in demanded):
            pytest.fail(f"OBSERVER_REQUIRE demands {need}, but {reason}", pytrace=False)
        pytest.skip(reason)

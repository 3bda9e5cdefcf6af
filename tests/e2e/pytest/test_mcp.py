"""tests/e2e/mcp.yaml can be used as it is: it parses, names pinned servers, and every file in it is there."""

import re
from pathlib import Path

import pytest
import yaml

import grafana
import needs

FILE = needs.WORKSPACE / "tests/e2e/mcp.yaml"
CONFIGURATION = yaml.safe_load(FILE.read_text())

# A package with exactly one version: name@1.2.3, of a scope or not.
PINNED = re.compile(r"(@[a-z0-9-]+/)?[a-z0-9-]+@\d+\.\d+\.\d+")

# What a text names of the repository: a path with a folder in it.
PATH = re.compile(r"(?<![\w./:$}-])(?:dashboards|docs|tests|deploy)/[\w./-]*\w")


def test_it_has_what_a_client_needs():
    assert set(CONFIGURATION) == {"servers", "scenarios"}
    assert set(CONFIGURATION["servers"]) == {"playwright", "screenshot", "filesystem"}
    assert len(CONFIGURATION["scenarios"]) == 3


@pytest.mark.parametrize("name", CONFIGURATION["servers"])
def test_servers_are_pinned(name: str):
    server = CONFIGURATION["servers"][name]
    assert set(server) == {"command", "args"} and server["command"] in {"npx", "uvx"}
    package = next(argument for argument in server["args"] if not argument.startswith("-"))
    assert PINNED.fullmatch(package), package
    for argument in server["args"]:
        for path in re.findall(r"\$\{workspace\}/([\w./-]+)", argument):
            assert (needs.WORKSPACE / path).is_dir(), path


@pytest.mark.parametrize("scenario", CONFIGURATION["scenarios"], ids=lambda scenario: scenario["name"])
def test_scenarios_name_what_is_there(scenario: dict):
    assert set(scenario) == {"name", "servers", "files", "prompt"}
    assert set(scenario["servers"]) <= set(CONFIGURATION["servers"])
    assert scenario["files"], "a scenario has an example to follow"
    for path in [*scenario["files"], *PATH.findall(scenario["prompt"])]:
        assert (needs.WORKSPACE / path).is_file(), path
    # Each file is one that the prompt speaks of, or that its author has to know.
    assert len(scenario["prompt"].splitlines()) >= 5


def test_addresses_may_be_opened():
    """Every address in a prompt is one that the browser's server allows."""
    arguments = CONFIGURATION["servers"]["playwright"]["args"]
    allowed = next(argument for argument in arguments if argument.startswith("--allowed-origins=")).split("=", 1)[1]
    named = re.findall(r"http://[\d.]+:\d+", "".join(scenario["prompt"] for scenario in CONFIGURATION["scenarios"]))
    assert set(named) == set(allowed.split(";"))


def test_prompts_follow_the_dashboards():
    """The scenario of dashboards is about files that the tests of Grafana read as well."""
    prompt = CONFIGURATION["scenarios"][2]["prompt"]
    assert f"{grafana.DASHBOARDS.name}/" in prompt and Path(grafana.DASHBOARDS).parent == needs.WORKSPACE

"""The observer's own page in a real browser."""

import pytest
from playwright.sync_api import Page, expect

import pictures
from conftest import Stack


def test_page_says_what_it_observes(page: Page, observer: Stack):
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(observer.observer)
    expect(page).to_have_title("observer")
    expect(page.get_by_role("heading", level=1)).to_contain_text("observer")
    expect(page.locator("body")).to_contain_text(str(observer.port))
    assert not errors


def test_every_link_leads_somewhere(page: Page, observer: Stack):
    page.goto(observer.observer)
    links = [link.get_attribute("href") for link in page.get_by_role("link").all()]
    assert "/metrics" in links
    for link in links:
        answer = page.request.get(observer.observer + link)
        assert answer.ok and answer.body(), link


def test_page_looks_as_it_did(page: Page, observer: Stack):
    page.goto(observer.observer)
    pictures.expect_baseline("observer-page", page.screenshot())


def test_a_page_that_lost_its_links_is_noticed(page: Page, observer: Stack):
    if pictures.updating():
        pytest.skip("baselines are being written")
    page.goto(observer.observer)
    page.add_style_tag(content="ul { display: none }")
    with pytest.raises(AssertionError, match="is not its baseline"):
        pictures.expect_baseline("observer-page", page.screenshot())

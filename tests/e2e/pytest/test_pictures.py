"""The comparison of pictures can tell: what is the same is, and what is not is not."""

import io

import pytest
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Page

import pictures


def drawn(draw_more=lambda draw: None, blur: float = 0) -> bytes:
    image = Image.new("RGB", (1280, 800), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((40, 40, 700, 90), fill="black")
    for row in range(6):
        draw.rectangle((60, 150 + 40 * row, 60 + 90 * (row + 1), 165 + 40 * row), fill=(40, 90, 200))
    draw_more(draw)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_the_same_is_the_same():
    one = pictures.grid(drawn())
    assert pictures.difference(one, pictures.grid(drawn())) == pictures.Difference(0, 0)
    assert pictures.from_text(pictures.to_text(one)) == one


def test_edges_that_are_drawn_otherwise_are_the_same():
    pictures.expect_same("blurred", drawn(), drawn(blur=1.5))


@pytest.mark.parametrize(
    "change",
    [
        lambda draw: draw.rectangle((40, 40, 700, 90), fill="white"),
        lambda draw: draw.rectangle((40, 40, 700, 90), fill=(90, 0, 0)),
        lambda draw: draw.rectangle((900, 300, 1100, 500), fill=(230, 160, 60)),
        lambda draw: draw.rectangle((60, 310, 420, 325), fill="white"),
    ],
    ids=["missing", "another colour", "more", "one bar less"],
)
def test_a_change_is_seen(change, monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "TARGET", tmp_path)
    with pytest.raises(AssertionError, match="differ"):
        pictures.expect_same("changed", drawn(), drawn(change))


def test_another_size_is_seen():
    cells = pictures.grid(drawn())
    assert not pictures.difference(cells, cells[1:]).small


def test_colours_are_not_greys():
    assert not pictures.colours(drawn(lambda draw: draw.rectangle((0, 0, 1279, 799), fill=(128, 128, 128))))
    assert pictures.colours(drawn()) == {(2, 5, 12)}


def test_a_browsers_picture_is_the_same_twice(page: Page):
    page.set_content("<h1>Latency</h1><p style='background: teal; height: 200px'>one two three</p>")
    pictures.expect_same("page", page.screenshot(), page.screenshot())

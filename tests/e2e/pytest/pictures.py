"""Pictures of pages, compared with a tolerance.

A picture is kept as text: a grid of cells, each the mean colour of its part of the picture, red, green and blue as one
hexadecimal digit each. So a baseline can be read in a diff, and what changes from one rasterizer of fonts to the next
(the edges of glyphs) hardly changes it, while a missing table, a panel that is empty or another colour does. What it
cannot see is anything much smaller than a cell: a wrong digit is found by asking the page for its text.

UPDATE_BASELINES=1 writes the baselines anew; look at what changed before you commit it. A picture that does not agree
is kept below target/pytest."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from needs import TARGET

# Pixels of a cell's side: a line of text and what is around it.
CELL = 80 / 3
BASELINES = Path(__file__).resolve().parent / "baselines"

# Digits by which a cell may differ and still be the same, in any of its colours.
CLOSE = 1
# Cells that may differ by more, however large the picture: less than a line of text, or a small panel.
CHANGED_MAX = 14
# Mean difference in digits over all cells and colours.
MEAN_MAX = 0.1

Grid = list[list[tuple[int, int, int]]]


@dataclass(frozen=True)
class Difference:
    """How far two pictures are apart."""

    changed: int
    mean: float

    @property
    def small(self) -> bool:
        return self.changed <= CHANGED_MAX and self.mean <= MEAN_MAX


def grid(png: bytes) -> Grid:
    """The cells of a picture."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    columns, rows = (max(1, round(side / CELL)) for side in image.size)
    image = image.resize((columns, rows), Image.Resampling.BOX)
    digits = [round(value * 15 / 255) for value in image.tobytes()]
    cells = [tuple(digits[at : at + 3]) for at in range(0, len(digits), 3)]
    return [cells[row * columns : (row + 1) * columns] for row in range(rows)]


def to_text(cells: Grid) -> str:
    return "".join(" ".join("".join(f"{digit:x}" for digit in cell) for cell in row) + "\n" for row in cells)


def from_text(text: str) -> Grid:
    return [[tuple(int(digit, 16) for digit in cell) for cell in line.split()] for line in text.splitlines()]


def difference(one: Grid, other: Grid) -> Difference:
    """How far they are apart. Pictures of unequal size are so in each cell."""
    sizes = {(len(cells), len(cells[0])) for cells in (one, other)}
    if len(sizes) > 1:
        return Difference(max(rows * columns for rows, columns in sizes), 15)
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    apart = [[abs(a - b) for a, b in zip(left, right, strict=True)] for left, right in pairs]
    changed = sum(max(digits) > CLOSE for digits in apart)
    return Difference(changed, sum(map(sum, apart)) / (3 * len(apart)))


def keep(name: str, png: bytes) -> Path:
    """Keeps a picture for reading."""
    folder = TARGET / "pytest"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    path.write_bytes(png)
    return path


def expect_same(name: str, png: bytes, other: bytes) -> None:
    """Demands that two pictures of this run agree."""
    found = difference(grid(png), grid(other))
    if not found.small:
        kept = keep(f"{name}-1", png), keep(f"{name}-2", other)
        raise AssertionError(f"two pictures of {name} differ: {found}; see {kept[0]} and {kept[1]}")


def has_baseline(name: str) -> bool:
    return (BASELINES / f"{name}.txt").is_file() or updating()


def updating() -> bool:
    return os.environ.get("UPDATE_BASELINES") == "1"


def expect_baseline(name: str, png: bytes) -> None:
    """Demands that a picture agrees with its baseline, or writes that."""
    path, cells = BASELINES / f"{name}.txt", grid(png)
    if updating():
        path.write_text(to_text(cells))
        return
    found = difference(cells, from_text(path.read_text()))
    if not found.small:
        kept = keep(name, png)
        raise AssertionError(f"{name} is not its baseline: {found}; see {kept}. UPDATE_BASELINES=1 if that is right")


def colours(png: bytes) -> set[tuple[int, int, int]]:
    """Colours that are no shade of grey, four bits each, of which a picture has more than a few pixels."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    counts: dict[tuple[int, int, int], int] = {}
    for count, (red, green, blue) in image.getcolors(image.width * image.height):
        if max(red, green, blue) - min(red, green, blue) > 32:
            colour = (red >> 4, green >> 4, blue >> 4)
            counts[colour] = counts.get(colour, 0) + count
    return {colour for colour, count in counts.items() if count > 8}

"""The photo studio of the sample catalog: a pen that draws things in parts, and a camera that photographs them.

The pen works four times larger than the photograph and the camera reduces what it drew, which is what makes edges
smooth. Light, shadow, color cast and noise are added to the small picture: cheaper, and as a sensor would.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SIZE = (60, 80)  # width, height of a photograph in pixels
ZOOM = 4

Color = tuple[int, int, int]
Point = tuple[float, float]
Points = Sequence[Point]
Array = NDArray[np.floating]

# The named colors as ranges of hue, saturation and value. Neighbors (Black and Navy Blue, White and Beige, Red and
# Orange) nearly touch, and lighting makes them overlap, as in real catalogs.
PALETTE: dict[str, tuple[Point, Point, Point]] = {
    "Black": ((0.0, 1.0), (0.0, 0.22), (0.07, 0.17)),
    "White": ((0.05, 0.65), (0.0, 0.05), (0.90, 1.0)),
    "Blue": ((0.54, 0.635), (0.50, 0.85), (0.50, 0.88)),
    "Brown": ((0.035, 0.09), (0.45, 0.75), (0.27, 0.50)),
    "Grey": ((0.0, 1.0), (0.0, 0.06), (0.42, 0.66)),
    "Red": ((-0.02, 0.012), (0.72, 0.95), (0.62, 0.88)),
    "Green": ((0.23, 0.44), (0.35, 0.80), (0.28, 0.65)),
    "Pink": ((0.88, 0.97), (0.28, 0.65), (0.80, 0.98)),
    "Navy Blue": ((0.60, 0.675), (0.48, 0.80), (0.20, 0.34)),
    "Purple": ((0.73, 0.81), (0.38, 0.70), (0.32, 0.62)),
    "Yellow": ((0.125, 0.165), (0.62, 0.95), (0.84, 0.98)),
    "Beige": ((0.08, 0.13), (0.16, 0.34), (0.74, 0.90)),
    "Orange": ((0.045, 0.085), (0.78, 0.95), (0.86, 0.98)),
}
SKINS: tuple[Color, ...] = ((236, 196, 168), (214, 164, 128), (178, 124, 88), (120, 80, 56))
METALS: tuple[Color, ...] = ((196, 198, 204), (206, 170, 96), (70, 70, 74))
GOLD = METALS[1]


def dye(rng: np.random.Generator, name: str) -> Color:
    """Draws one of the many colors that go by a name."""
    hue, saturation, value = (float(rng.uniform(*limits)) for limits in PALETTE[name])
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def blend(one: Color, other: Color, share: float) -> Color:
    """Mixes two colors; `share` is how much of the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def darker(color: Color, share: float = 0.3) -> Color:
    """Shades a color; a nearly black one is lightened instead, as its seams could not be seen otherwise."""
    return blend(color, (0, 0, 0), share) if max(color) > 62 else blend(color, (255, 255, 255), share * 0.55)


def lighter(color: Color, share: float = 0.3) -> Color:
    """Tints a color."""
    return blend(color, (255, 255, 255), share)


def rounded(points: Points, times: int) -> list[Point]:
    """Cuts the corners of a closed outline (Chaikin, 1974); a point given twice stays a corner."""
    outline = np.asarray(points, dtype=np.float64)
    for _ in range(times):
        following = np.roll(outline, -1, axis=0)
        outline = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1).reshape(-1, 2)
    return [(x, y) for x, y in outline.tolist()]


def mirrored(half: Points) -> list[Point]:
    """Closes an outline given as its right half, top to bottom."""
    return [*half, *((-x, y) for x, y in reversed(half))]


def oval(x: float, y: float, width: float, height: float, power: float = 2.0) -> list[Point]:
    """Returns an ellipse by its center and half axes; a larger power makes it squarer."""
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    across, down = np.cos(angles), np.sin(angles)
    xs = x + width * np.sign(across) * np.abs(across) ** (2 / power)
    ys = y + height * np.sign(down) * np.abs(down) ** (2 / power)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


@dataclass
class Look:
    """What a thing is to look like, apart from its shape.

    Args:
        rng: The picture's own source of chance.
        base: The color it is named for.
        accent: A second color, for prints and trimmings.
        femininity: About 0 for a man's cut and 1 for a woman's; in between for both.
        child: Whether it is cut for a child.
        unisex: Whether it is sold to both.
    """

    rng: np.random.Generator
    base: Color
    accent: Color
    femininity: float
    child: bool = False
    unisex: bool = False

    @cached_property
    def seam(self) -> Color:
        """The color of seams and other fine lines."""
        return darker(self.base, 0.32)

    def cut(self, man: float, woman: float) -> float:
        """Reads a measure off the cut, with a little chance."""
        return man + (woman - man) * self.femininity + abs(woman - man) * float(self.rng.normal(0, 0.08))

    def feminine(self) -> bool:
        """Decides between two forms of a detail by the cut: nearly always as it says, never surely."""
        return bool(self.rng.normal(self.femininity, 0.15) > 0.5)

    def chance(self, probability: float) -> bool:
        """Throws a coin."""
        return bool(self.rng.random() < probability)

    def near(self, low: float, high: float) -> float:
        """Draws a number between two."""
        return float(self.rng.uniform(low, high))


def _motion(size: float, turn: float, flip: bool) -> NDArray[np.float64]:
    """The matrix that mirrors, turns and scales points on its left."""
    across, down = size * cos(radians(turn)), size * sin(radians(turn))
    return np.array([[across, down], [-down, across]]) * ([[-1], [1]] if flip else 1)


@dataclass
class Pen:
    """Draws filled outlines and lines; x runs from -1 to 1 across the picture and y from -1.33 down to 1.33.

    Args:
        size: The scale of the whole thing in the picture.
        turn: Its rotation in degrees.
        shift: Where its center is.
        flip: Whether left and right change places.
        cloth: What `fill` fills with where no color is given: a color or a pattern.
    """

    size: float
    turn: float
    shift: Point
    flip: bool
    cloth: Color | Image.Image
    ink: Image.Image = field(init=False)
    mask: Image.Image = field(init=False)
    relief: Image.Image = field(init=False)

    def __post_init__(self) -> None:
        large = (SIZE[0] * ZOOM, SIZE[1] * ZOOM)
        self.ink = Image.new("RGB", large)
        self.mask = Image.new("L", large)
        self.relief = Image.new("L", large, 128)
        self._ink, self._mask, self._relief = (ImageDraw.Draw(i) for i in (self.ink, self.mask, self.relief))
        self.part()

    def part(self, x: float = 0.0, y: float = 0.0, size: float = 1.0, turn: float = 0.0, flip: bool = False) -> None:
        """Says where in the thing the next outlines belong: for pairs. Without arguments, back to the whole."""
        half = SIZE[0] * ZOOM / 2
        whole, inner = _motion(self.size * half, self.turn, self.flip), _motion(size, turn, flip)
        self._motion, self._scale = inner @ whole, size * self.size * half
        self._origin = np.array((x, y)) @ whole + np.array(self.shift) * half + (half, SIZE[1] * ZOOM / 2)

    def _place(self, points: Points) -> list[Point]:
        return [(x, y) for x, y in (np.asarray(points, np.float64) @ self._motion + self._origin).tolist()]

    def _width(self, width: float) -> int:
        return max(1, round(width * self._scale))

    def fill(self, outline: Points, color: Color | None = None, smooth: int = 2) -> None:
        """Fills an outline with a color, or with the cloth."""
        points = self._place(rounded(outline, smooth))
        self._mask.polygon(points, 255)
        self._relief.polygon(points, 128)  # a new piece hides the folds of the one below
        paint = color or self.cloth
        if isinstance(paint, Image.Image):
            stencil = Image.new("1", self.ink.size)
            ImageDraw.Draw(stencil).polygon(points, 1)
            self.ink.paste(paint, (0, 0), stencil)
        else:
            self._ink.polygon(points, paint)

    def line(self, points: Points, color: Color, width: float = 0.02) -> None:
        """Draws a line, of which the width is in the units of the points."""
        placed, thick = self._place(points), self._width(width)
        for draw, paint in ((self._ink, color), (self._mask, 255), (self._relief, 128)):
            draw.line(placed, paint, thick, joint="curve")

    def shade(self, outline: Points, amount: float, smooth: int = 2) -> None:
        """Darkens (amount below 1) or lightens an area, softly."""
        self._relief.polygon(self._place(rounded(outline, smooth)), round(128 * amount))

    def fold(self, points: Points, amount: float, width: float = 0.05) -> None:
        """Darkens or lightens along a line, softly."""
        self._relief.line(self._place(points), round(128 * amount), self._width(width), joint="curve")


def pattern(look: Look, kinds: Sequence[str]) -> Color | Image.Image:
    """Makes cloth of the look's base color: plain or with one of the patterns named."""
    kind = str(look.rng.choice(kinds))
    if kind == "plain":
        return look.base
    other = look.accent if look.chance(0.4) else (darker if look.chance(0.5) else lighter)(look.base, 0.45)
    cloth = Image.new("RGB", (SIZE[0] * ZOOM, SIZE[1] * ZOOM), look.base)
    draw, (width, height) = ImageDraw.Draw(cloth), cloth.size
    step, thick = int(look.rng.integers(14, 40)), look.near(0.18, 0.38)
    if kind in ("stripes", "checks"):
        for y in range(0, height, step):
            draw.rectangle((0, y, width, y + thick * step), blend(look.base, other, 0.8))
    if kind in ("pinstripes", "checks"):
        for x in range(0, width, step if kind == "checks" else max(9, step // 2)):
            draw.rectangle((x, 0, x + (thick * step if kind == "checks" else 3), height), other)
    if kind in ("dots", "flowers"):
        for x, y in look.rng.uniform((0, 0), cloth.size, (90 if kind == "dots" else 60, 2)).tolist():
            radius = 4 if kind == "dots" else look.near(4, 10)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), other)
    return cloth


def _blurred(picture: Array, radius: float) -> Array:
    image = Image.fromarray((picture * 255).clip(0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def _clouds(look: Look, across: int, down: int) -> Array:
    """Smooth noise around zero; few cells across and many down make it lie in bands."""
    cells = look.rng.normal(0, 1, (down, across)).astype(np.float32)
    return np.asarray(Image.fromarray(cells).resize(SIZE, Image.Resampling.BICUBIC), np.float32)


def _backdrop(look: Look) -> Array:
    """What is behind the thing: mostly nearly white, as in a catalog."""
    down, across = np.mgrid[-1 : 1 : SIZE[1] * 1j, -1 : 1 : SIZE[0] * 1j].astype(np.float32)
    angle = look.near(0, 2 * np.pi)
    slope: Array = ((np.cos(angle) * across + np.sin(angle) * down) * 0.5)[..., None]
    kind, grey = look.rng.random(), np.full(3, look.near(0.90, 1.0))
    tint = np.array(colorsys.hsv_to_rgb(look.near(0, 1), look.near(0.04, 0.35), look.near(0.55, 0.92)))
    scene: Array
    if kind < 0.66:
        scene = np.maximum(grey, 0.97) + 0.02 + 0 * slope
    elif kind < 0.78:
        scene = grey - 0.04 + slope * 0.1
    elif kind < 0.87:
        scene = grey - look.near(0.1, 0.45) + slope * 0.25
    elif kind < 0.95:
        scene = tint + slope * look.near(0.1, 0.4)
    else:
        planks = 0.03 * np.sign(np.sin(down * look.near(8, 16))) + 0.03 * _clouds(look, 6, 40)
        scene = tint * 0.9 + planks[..., None]
    return scene


def photograph(pen: Pen, look: Look, gloss: float) -> Image.Image:
    """Lights what was drawn, sets it before a backdrop and takes the picture.

    Args:
        pen: The pen that drew it.
        look: The look it was drawn with.
        gloss: How much it shines: near 0 for cloth, 1 for patent leather and metal.
    """
    ink, mask, relief = (np.asarray(i.reduce(ZOOM), np.float32) / 255 for i in (pen.ink, pen.mask, pen.relief))
    round_mask = _blurred(mask, 2.2)
    side = look.near(-70, 70)
    slope_down, slope_across = np.gradient(round_mask)
    facing = slope_across * sin(radians(side)) + slope_down * cos(radians(side))  # edges that look to the lamp
    down, across = np.mgrid[-1 : 1 : SIZE[1] * 1j, -1 : 1 : SIZE[0] * 1j].astype(np.float32)
    light = 0.94 + look.near(0.8, 1.8) * facing + look.near(0.0, 0.14) * (across * sin(radians(side)) - down)
    light += look.near(0.02, 0.055) * _clouds(look, 9, 5) + 0.16 * (round_mask - 1)
    light *= 2 * _blurred(relief, 0.6)
    # Cloth and leather are never as black as no light at all: what shines adds to the color, it does not multiply.
    shine = (0.25 + gloss) * np.maximum(facing + 0.08 * _clouds(look, 4, 4), 0) * mask + 0.012 * mask
    thing = ink * light[..., None] + shine[..., None]

    fall, aside = int(look.rng.integers(0, 4)), int(np.sign(-side) * look.rng.integers(0, 4))
    wider = np.pad(_blurred(mask, look.near(1.0, 3.0)), 4, mode="edge")  # rolling would bring feet back as a hat
    shadow = wider[4 - fall :, 4 - aside :][: SIZE[1], : SIZE[0]] * look.near(0.05, 0.35)
    behind = _backdrop(look) * (1 - shadow)[..., None]
    picture = behind * (1 - mask)[..., None] + thing

    cast = np.exp(look.rng.normal(0, 0.018, 3)) * np.exp(look.rng.normal(0.01, 0.05))
    picture = np.clip(picture * cast, 0, 1) ** np.exp(look.rng.normal(0, 0.07))
    if look.chance(0.25):
        picture = np.stack([_blurred(picture[..., c], look.near(0.3, 0.7)) for c in range(3)], axis=2)
    picture = picture + look.rng.normal(0, look.near(0.003, 0.013), picture.shape)
    return Image.fromarray((picture * 255).clip(0, 255).astype(np.uint8), "RGB")

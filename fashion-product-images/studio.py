"""The photo studio of the sample catalog: a pen that draws things in parts, and a camera that photographs them.

The pen draws at four times the size of the photograph. The camera reduces the drawing, which makes edges smooth. It
adds light, shadow, color cast and noise to the small picture, which is cheaper and closer to a sensor.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray
from outline import Point, Points, rounded
from palette import Color, blend, darker, lighter
from PIL import Image, ImageDraw, ImageFilter

SIZE = (60, 80)  # width, height of a photograph in pixels
ZOOM = 4

Array = NDArray[np.floating]


@dataclass
class Look:
    """The appearance of a thing, apart from its shape.

    Args:
        rng: the picture's random generator.
        base: the color of its label.
        accent: a second color, for prints and trimmings.
        femininity: about 0 for a man's cut, 1 for a woman's, and between them for unisex.
        child: whether it is cut for a child.
        unisex: whether it is sold to men and women.
    """

    rng: np.random.Generator
    base: Color
    accent: Color
    femininity: float
    child: bool = False
    unisex: bool = False

    @cached_property
    def seam(self) -> Color:
        """Return the color of seams and other fine lines."""
        return darker(self.base, 0.32)

    def cut(self, man: float, woman: float) -> float:
        """Return a random measure between a man's and a woman's, according to the cut."""
        return man + (woman - man) * self.femininity + abs(woman - man) * float(self.rng.normal(0, 0.08))

    def feminine(self) -> bool:
        """Decide randomly whether a detail has the feminine form; the cut nearly always decides."""
        return bool(self.rng.normal(self.femininity, 0.15) > 0.5)

    def chance(self, probability: float) -> bool:
        """Return True with the given probability, 0-1."""
        return bool(self.rng.random() < probability)

    def near(self, low: float, high: float) -> float:
        """Draw a random number between two bounds."""
        return float(self.rng.uniform(low, high))


def _motion(size: float, turn: float, flip: bool) -> NDArray[np.float64]:
    """Return the matrix [2, 2] that flips, turns and scales points [N, 2] when they are multiplied by it."""
    across, down = size * cos(radians(turn)), size * sin(radians(turn))
    return np.array([[across, down], [-down, across]]) * ([[-1], [1]] if flip else 1)


@dataclass
class Pen:
    """A pen for filled outlines and lines; x runs from -1 to 1 across the picture and y from -1.33 down to 1.33.

    Args:
        size: the scale of the thing in the picture.
        turn: its rotation in degrees.
        shift: the position of its center.
        flip: whether left and right are swapped.
        cloth: the color or pattern that `fill` uses without a color.
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
        """Place the next outlines within the thing, e.g. one of a pair. Without arguments, return to the whole."""
        half = SIZE[0] * ZOOM / 2
        whole, inner = _motion(self.size * half, self.turn, self.flip), _motion(size, turn, flip)
        self._motion, self._scale = inner @ whole, size * self.size * half
        self._origin = np.array((x, y)) @ whole + np.array(self.shift) * half + (half, SIZE[1] * ZOOM / 2)

    def _place(self, points: Points) -> list[Point]:
        return [(x, y) for x, y in (np.asarray(points, np.float64) @ self._motion + self._origin).tolist()]

    def _width(self, width: float) -> int:
        return max(1, round(width * self._scale))

    def fill(self, outline: Points, color: Color | None = None, smooth: int = 2) -> None:
        """Fill an outline with a color or the cloth."""
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
        """Draw a line; its width has the unit of the points."""
        placed, thick = self._place(points), self._width(width)
        for draw, paint in ((self._ink, color), (self._mask, 255), (self._relief, 128)):
            draw.line(placed, paint, thick, joint="curve")

    def shade(self, outline: Points, amount: float, smooth: int = 2) -> None:
        """Darken an area softly (amount below 1), or lighten it (above 1)."""
        self._relief.polygon(self._place(rounded(outline, smooth)), round(128 * amount))

    def fold(self, points: Points, amount: float, width: float = 0.05) -> None:
        """Darken a line softly (amount below 1), or lighten it (above 1)."""
        self._relief.line(self._place(points), round(128 * amount), self._width(width), joint="curve")


def pattern(look: Look, kinds: Sequence[str]) -> Color | Image.Image:
    """Return cloth in the look's base color, with one of the named patterns at random."""
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
    """Return smooth noise around zero; few cells across and many down give horizontal bands."""
    cells = look.rng.normal(0, 1, (down, across)).astype(np.float32)
    return np.asarray(Image.fromarray(cells).resize(SIZE, Image.Resampling.BICUBIC), np.float32)


def _backdrop(look: Look) -> Array:
    """Return the background: mostly nearly white, as in a catalog."""
    down, across = np.mgrid[-1 : 1 : SIZE[1] * 1j, -1 : 1 : SIZE[0] * 1j].astype(np.float32)
    angle = look.near(0, 2 * np.pi)
    slope: Array = ((np.cos(angle) * across + np.sin(angle) * down) * 0.5)[..., None]
    kind, gray = look.rng.random(), np.full(3, look.near(0.90, 1.0))
    tint = np.array(colorsys.hsv_to_rgb(look.near(0, 1), look.near(0.04, 0.35), look.near(0.55, 0.92)))
    scene: Array
    if kind < 0.66:
        scene = np.maximum(gray, 0.97) + 0.02 + 0 * slope
    elif kind < 0.78:
        scene = gray - 0.04 + slope * 0.1
    elif kind < 0.87:
        scene = gray - look.near(0.1, 0.45) + slope * 0.25
    elif kind < 0.95:
        scene = tint + slope * look.near(0.1, 0.4)
    else:
        planks = 0.03 * np.sign(np.sin(down * look.near(8, 16))) + 0.03 * _clouds(look, 6, 40)
        scene = tint * 0.9 + planks[..., None]
    return scene


def photograph(pen: Pen, look: Look, gloss: float) -> Image.Image:
    """Photograph a drawn thing with light, shadow and background.

    Args:
        pen: the pen with the drawing.
        look: the look of the thing.
        gloss: shine: near 0 for cloth, 1 for patent leather and metal.
    """
    # light
    ink, mask, relief = (np.asarray(i.reduce(ZOOM), np.float32) / 255 for i in (pen.ink, pen.mask, pen.relief))
    round_mask = _blurred(mask, 2.2)
    side = look.near(-70, 70)
    slope_down, slope_across = np.gradient(round_mask)
    facing = slope_across * sin(radians(side)) + slope_down * cos(radians(side))  # edges that face the lamp
    down, across = np.mgrid[-1 : 1 : SIZE[1] * 1j, -1 : 1 : SIZE[0] * 1j].astype(np.float32)
    light = 0.94 + look.near(0.8, 1.8) * facing + look.near(0.0, 0.14) * (across * sin(radians(side)) - down)
    light += look.near(0.02, 0.055) * _clouds(look, 9, 5) + 0.16 * (round_mask - 1)
    light *= 2 * _blurred(relief, 0.6)
    # Add shine to the color instead of multiplying, since cloth and leather are never fully black.
    shine = (0.25 + gloss) * np.maximum(facing + 0.08 * _clouds(look, 4, 4), 0) * mask + 0.012 * mask
    thing = ink * light[..., None] + shine[..., None]

    # shadow and background
    fall, aside = int(look.rng.integers(0, 4)), int(np.sign(-side) * look.rng.integers(0, 4))
    wider = np.pad(_blurred(mask, look.near(1.0, 3.0)), 4, mode="edge")  # rolling would move feet to the top
    shadow = wider[4 - fall :, 4 - aside :][: SIZE[1], : SIZE[0]] * look.near(0.05, 0.35)
    behind = _backdrop(look) * (1 - shadow)[..., None]
    picture = behind * (1 - mask)[..., None] + thing

    # color cast, blur and noise
    cast = np.exp(look.rng.normal(0, 0.018, 3)) * np.exp(look.rng.normal(0.01, 0.05))
    picture = np.clip(picture * cast, 0, 1) ** np.exp(look.rng.normal(0, 0.07))
    if look.chance(0.25):
        picture = np.stack([_blurred(picture[..., c], look.near(0.3, 0.7)) for c in range(3)], axis=2)
    picture = picture + look.rng.normal(0, look.near(0.003, 0.013), picture.shape)
    return Image.fromarray((picture * 255).clip(0, 255).astype(np.uint8), "RGB")

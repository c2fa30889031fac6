"""The shoes, bags and other things of the sample catalog that are not clothes."""

from itertools import pairwise
from math import cos, pi, sin

from studio import GOLD, METALS, Color, Look, Pen, Point, Points, blend, darker, lighter, mirrored, oval

WHITE: Color = (238, 238, 236)
DARK: Color = (38, 36, 36)


def _stretched(points: Points, height: float, below: float = 0.3) -> list[Point]:
    """Makes an outline higher or lower above a line that stays."""
    return [(x, below + (y - below) * height) for x, y in points]


def _stitches(pen: Pen, points: Points, color: Color, count: int = 14) -> None:
    """A dashed line."""
    for (x0, y0), (x1, y1) in pairwise(points):
        for step in range(count):
            near, far = step / count, (step + 0.55) / count
            ends = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in (near, far)]
            pen.line(ends, color, 0.02)


def _sneaker(pen: Pen, look: Look, tall: float, sole: Color, thick: float) -> None:
    """One shoe with laces from its side, the toe to the left."""
    upper = [(-0.92, 0.3), (-0.92, 0.3), (-0.9, 0.06), (-0.66, -0.06), (-0.38, -0.14), (-0.08, -0.4), (0.12, -0.56)]
    upper += [
        (0.26, -0.56),
        (0.4, -0.34),
        (0.62, -0.32),
        (0.8, -0.5),
        (0.9, -0.46),
        (0.87, -0.1),
        (0.93, 0.3),
        (0.93, 0.3),
    ]
    mouth = [(0.14, -0.53), (0.26, -0.55), (0.42, -0.33), (0.62, -0.31), (0.82, -0.48), (0.5, -0.47)]
    pen.fill(_stretched(upper, tall))
    pen.fill(_stretched(mouth, tall), blend(look.base, (30, 28, 28), 0.65))
    pen.fill([(-0.95, 0.24), (-0.95, 0.3 + thick), (-0.95, 0.3 + thick), (0.95, 0.3 + thick), (0.96, 0.24)], sole, 1)
    pen.fold([(-0.93, 0.3 + thick), (0.93, 0.3 + thick)], 0.72, 0.07)
    lace = WHITE if max(look.base) < 200 or look.chance(0.3) else darker(look.base, 0.4)
    for step in range(5):
        x, y = -0.36 + 0.1 * step, -0.12 - 0.085 * step
        pen.line(_stretched([(x - 0.01, y - 0.03), (x + 0.14, y + 0.1)], tall), lace, 0.04)


def _in_pairs(look: Look) -> list[tuple[float, float, float]]:
    """Where to draw a shoe: alone, or a second one behind it."""
    if look.chance(0.65):
        return [(0.0, 0.0, 1.0)]
    return [(look.near(0.04, 0.14), -0.3, 0.88), (-0.06, 0.24, 0.88)]


def sports_shoe(pen: Pen, look: Look) -> None:
    """A running shoe: a thick shaped sole, overlays in a second color; slimmer for women."""
    tall = look.cut(1.18, 0.92)
    sole = WHITE if look.chance(0.65) else blend(look.accent, DARK, 0.5)
    thick = look.cut(0.2, 0.15)
    for x, y, size in _in_pairs(look):
        pen.part(x, y, size)
        _sneaker(pen, look, tall, sole, thick)
        heel = [(0.62, 0.26), (0.66, -0.1), (0.86, -0.3), (0.93, 0.26)]
        pen.fill(_stretched(heel, tall), look.accent, 1)
        pen.fill([(-0.94, 0.27), (-0.86, 0.02), (-0.62, 0.1), (-0.5, 0.27)], darker(look.base, 0.25), 1)
        swoosh = [(-0.3, 0.12), (0.0, 0.22), (0.3, 0.08), (0.66, -0.22)]
        pen.line(_stretched(swoosh, tall), look.accent, look.near(0.06, 0.1))
        if look.chance(0.5):
            pen.line(_stretched([(-0.1, 0.24), (0.12, -0.2)], tall), look.accent, 0.06)
        pen.line([(-0.9, 0.3 + thick * 0.45), (0.2, 0.32), (0.93, 0.3 + thick * 0.2)], look.accent, 0.05)
        for step in range(9):
            notch = -0.85 + 0.2 * step
            pen.line([(notch, 0.28 + thick), (notch + 0.03, 0.31 + thick)], DARK, 0.05)
    pen.part()


def casual_shoe(pen: Pen, look: Look) -> None:
    """A canvas shoe, a loafer or a lace-up with a flat sole; a low ballerina for women, straps for children."""
    woman = look.feminine()
    style = (
        "straps" if look.child else "ballerina" if woman and look.chance(0.5) else look.rng.choice(["canvas", "loafer"])
    )
    tall, slim = look.cut(1.08, 0.85), look.cut(0.1, 0.06)
    sole = WHITE if style in ("canvas", "straps") and look.chance(0.75) else blend(look.base, (50, 34, 24), 0.75)
    for x, y, size in _in_pairs(look):
        pen.part(x, y, size)
        if style in ("canvas", "straps"):
            _sneaker(pen, look, tall, sole, 0.1)
            pen.fill([(-0.93, 0.26), (-0.88, 0.06), (-0.66, 0.02), (-0.56, 0.26)], sole, 1)
            pen.line([(-0.94, 0.33), (0.94, 0.33)], look.accent, 0.025)
            pen.line(_stretched([(0.72, -0.4), (0.7, 0.25)], tall), look.seam, 0.03)
            if style == "straps":
                for step in (0.0, 0.22):
                    pen.line([(-0.2 + step, -0.22 - step), (0.12 + step, 0.16 - step)], look.accent, 0.14)
            continue
        low = 0.32 if style == "ballerina" else 0.0
        pen.fill(_stretched([(-0.1, 0.0), (0.5, -0.12), (0.84, -0.3), (0.8, 0.2), (0, 0.2)], tall), (206, 178, 140), 1)
        vamp = [(-0.94, 0.3), (-0.94, 0.3), (-0.9, 0.1), (-0.66, 0.0), (-0.34 - low, -0.16 + low * 0.5)]
        vamp += [
            (0.02 - low, -0.34 + low),
            (0.14 - low, -0.3 + low),
            (0.4, 0.02),
            (0.6, -0.08),
            (0.78, -0.3),
            (0.88, -0.34),
        ]
        pen.fill(_stretched([*vamp, (0.9, 0.0), (0.92, 0.3), (0.92, 0.3)], tall))
        pen.fill([(-0.94, 0.27), (-0.92, 0.3 + slim), (0.5, 0.3 + slim), (0.93, 0.3 + slim), (0.93, 0.27)], sole, 1)
        pen.fill([(0.52, 0.28), (0.93, 0.28), (0.93, 0.36 + slim), (0.54, 0.36 + slim)], sole, 0)
        if style == "loafer":
            pen.line(_stretched([(-0.74, 0.02), (-0.4, 0.1), (-0.08, -0.24)], tall), look.seam, 0.03)
            pen.line(_stretched([(-0.26, -0.16), (-0.02, 0.16)], tall), look.seam, 0.09)
        else:
            pen.fill(oval(-0.56, 0.08, 0.1, 0.06), look.accent)
    pen.part()


def heel(pen: Pen, look: Look) -> None:
    """A shoe with a heel, thin, broad or a wedge; some with a strap or a platform."""
    rise = look.near(0.75, 1.15) * (0.55 if look.child else 1.0)
    kind, strappy = look.rng.choice(["thin", "thin", "block", "wedge"]), look.chance(0.4)
    tan = blend((196, 160, 116), look.base, look.near(0, 0.4))

    def lifted(points: Points) -> list[Point]:
        return _stretched(points, rise, 0.56)

    pen.part(0, 0.05)
    under = look.base if kind in ("thin", "block") and look.chance(0.7) else tan
    if kind == "wedge":
        pen.fill(
            lifted([(-0.5, 0.56), (-0.3, 0.5), (0.3, 0.22), (0.6, 0.0), (0.8, -0.12), (0.78, 0.56), (0.78, 0.56)]),
            under,
            1,
        )
    else:
        foot = 0.035 if kind == "thin" else 0.12
        pen.fill(
            lifted([(0.46, 0.1), (0.8, -0.16), (0.74, 0.3), (0.7 + foot, 0.6), (0.7 - foot, 0.6), (0.64, 0.3)]),
            under,
            0,
        )
    pen.fill(lifted([(-0.5, 0.36), (0.1, 0.2), (0.5, -0.2), (0.74, -0.42), (0.72, -0.1), (0.2, 0.4)]), (214, 184, 146))
    outline = [(-0.9, 0.58), (-0.9, 0.58), (-0.88, 0.42), (-0.66, 0.3), (-0.44, 0.24)]
    if strappy:
        pen.fill(
            lifted(
                [
                    (-0.9, 0.58),
                    (-0.9, 0.52),
                    (-0.5, 0.5),
                    (0.1, 0.32),
                    (0.5, 0),
                    (0.8, -0.16),
                    (0.78, 0.02),
                    (0.3, 0.4),
                    (-0.2, 0.58),
                ]
            )
        )
        for x, y in ((-0.62, 0.5), (-0.36, 0.46), (-0.1, 0.36)):
            pen.line(
                lifted([(x - 0.1, y + 0.06), (x - 0.02, y - 0.26), (x + 0.14, y - 0.2), (x + 0.2, y)]), look.base, 0.09
            )
        pen.fill(lifted([(0.56, 0.0), (0.6, -0.4), (0.72, -0.46), (0.84, -0.12), (0.78, 0.02)]), None, 1)
    else:
        outline += [(-0.2, 0.36), (0.15, 0.26), (0.42, -0.04), (0.66, -0.44), (0.8, -0.42), (0.8, -0.1), (0.7, 0.06)]
        pen.fill(lifted([*outline, (0.4, 0.3), (0.1, 0.5), (-0.3, 0.58)]))
        if look.chance(0.4):
            pen.fill(oval(-0.52, 0.56 - 0.24 * rise, 0.09, 0.06), look.accent if look.chance(0.5) else GOLD)
    if look.chance(0.5 if strappy else 0.25):
        pen.line(
            lifted([(0.74, -0.42), (0.56, -0.62), (0.32, -0.58), (0.3, -0.44), (0.5, -0.4), (0.76, -0.4)]),
            look.base,
            0.06,
        )
    if look.chance(0.3):
        pen.fill([(-0.92, 0.54), (-0.1, 0.54), (-0.16, 0.66), (-0.9, 0.68)], under, 1)
    pen.part()


def flip_flop(pen: Pen, look: Look) -> None:
    """A pair from above: broad soles for men, slim ones with a jewel for women."""
    broad, sole = look.cut(1.12, 0.82), look.base if look.chance(0.6) else DARK
    strap = look.base if sole == DARK else look.accent if look.chance(0.5) else darker(look.base, 0.4)
    outline = [(-0.3, -0.6), (-0.16, -0.95), (0.16, -0.98), (0.36, -0.6), (0.32, -0.1), (0.25, 0.4), (0.28, 0.75)]
    outline += [(0.1, 1.0), (-0.14, 1.0), (-0.28, 0.72), (-0.24, 0.3), (-0.32, -0.2)]
    outline = [(x * broad, y) for x, y in outline]
    lean, jewel = look.near(-2, 10), look.feminine()
    apart = 0.42 * (0.5 + broad / 2)
    for side in (1, -1):
        pen.part(side * apart, look.near(-0.06, 0.06), 0.98, side * lean, flip=side == -1)
        pen.fill([(x + 0.02, y + 0.05) for x, y in outline], darker(sole, 0.5))
        pen.fill(outline, sole if sole == DARK else None)
        inner = [(x * 0.84, y * 0.93) for x, y in outline]
        pen.shade(inner, 0.9)
        for row in range(4):
            pen.fold([(-0.2 * broad, 0.3 + 0.15 * row), (0.2 * broad, 0.3 + 0.15 * row)], 0.8, 0.04)
        wide = look.cut(0.13, 0.08)
        for end in (-0.33, 0.32):
            pen.line(
                [(0.0, -0.56), (end * 0.45 * broad, -0.34), (end * 0.9 * broad, -0.1), (end * broad, 0.14)], strap, wide
            )
        pen.fill(oval(0, -0.56, 0.06, 0.07), GOLD if jewel else darker(strap, 0.4), 0)
        if jewel:
            pen.fill(oval(0, -0.4, 0.11, 0.09), look.accent)
    pen.part()


def watch(pen: Pen, look: Look) -> None:
    """A watch: broad strap and large dial for men, small and golden for women, square and digital for both."""
    wide, dial = look.cut(0.31, 0.17), look.cut(0.56, 0.4)
    digital = look.chance(0.7 if look.unisex or look.child else 0.08)
    metal = METALS[int(look.rng.choice(3, p=[0.35, 0.55, 0.1] if look.feminine() else [0.6, 0.1, 0.3]))]
    bracelet = look.chance(0.3)
    ends, waist = wide * look.near(0.78, 0.9), wide * 1.1
    pen.fill(
        mirrored([(ends, -1.22), (ends, -1.22), (waist, -0.4), (waist, 0.4), (ends, 1.22), (ends, 1.22)]), smooth=1
    )
    if bracelet:
        for row in range(13):
            y = -1.16 + 0.19 * row
            pen.line([(-wide * 1.05, y), (wide * 1.05, y)], look.seam, 0.03)
        for x in (-0.4, 0.4):
            pen.fold([(x * wide, -1.2), (x * wide, 1.2)], 1.25, 0.05)
    else:
        for side in (1, -1):
            _stitches(pen, [(side * ends * 0.8, -1.18), (side * waist * 0.8, -0.5)], lighter(look.base, 0.35), 7)
            _stitches(pen, [(side * waist * 0.8, 0.5), (side * ends * 0.8, 1.18)], lighter(look.base, 0.35), 7)
        for row in range(4):
            pen.fill(oval(0, 0.72 + 0.13 * row, 0.025, 0.025), darker(look.base, 0.6), 0)
    for end in (-1, 1):
        pen.shade([(-ends, end * 1.25), (ends, end * 1.25), (waist, end * 0.95), (-waist, end * 0.95)], 0.68, 0)
    square = 5.0 if digital or look.chance(0.12) else 2.0
    pen.line([(dial, 0), (dial + 0.1, 0)], metal, 0.12)
    pen.fill(oval(0, 0, dial, dial, square), darker(metal, 0.3), 0)
    pen.fill(oval(-0.015, -0.02, dial * 0.94, dial * 0.94, square), look.base if digital else metal, 0)
    roll = look.rng.random()
    face = look.base if roll < 0.5 else WHITE if roll < 0.8 else DARK
    mark = DARK if max(face) > 140 else WHITE
    if digital:
        pen.fill(oval(0, 0, dial * 0.7, dial * 0.5, 6), (150, 164, 150), 0)
        for x in (-0.2, -0.07, 0.08, 0.21):
            pen.line([(x, -0.12), (x, 0.12)], DARK, 0.05)
        return
    pen.fill(oval(0, 0, dial * 0.78, dial * 0.78, square), face, 0)
    for hour in range(12):
        x, y = sin(hour * pi / 6) * dial, -cos(hour * pi / 6) * dial
        pen.line([(x * 0.6, y * 0.6), (x * 0.72, y * 0.72)], mark, 0.04)
    if not look.feminine() and look.chance(0.5):
        for x, y in ((-0.3, 0.0), (0.3, 0.0), (0.0, 0.32)):
            pen.fill(oval(x * dial, y * dial, dial * 0.17, dial * 0.17), blend(face, mark, 0.25), 0)
    for length, thick in ((0.36, 0.05), (0.56, 0.035)):
        turn = look.near(0, 2 * pi)
        pen.line([(0, 0), (sin(turn) * dial * length, -cos(turn) * dial * length)], mark, thick)


def sunglasses(pen: Pen, look: Look) -> None:
    """Sunglasses from the front: narrow or aviators for men, large and round for women, in between for both."""
    high, wide = look.cut(0.25, 0.42), look.cut(0.41, 0.42)
    cat, aviator = look.feminine(), look.chance(0.35) and not look.feminine()
    rim = 0.035 if aviator else look.near(0.06, 0.11)
    power = 2.4 if cat else 3.4
    tint = blend(blend(look.base, DARK, 0.72), (70, 56, 44), look.near(0, 0.6))
    for side in (1, -1):
        temple = [
            (side * 0.86, -high * 0.5),
            (side * 0.78, -high - 0.2),
            (side * 0.72, -high - 0.28),
            (side * 0.64, -high - 0.2),
        ]
        pen.line(temple, darker(look.base, 0.2), 0.05 if aviator else 0.08)
    pen.line([(-0.14, -high * 0.35), (0, -high * 0.5), (0.14, -high * 0.35)], look.base, 0.05 if aviator else 0.1)
    if aviator:
        pen.line([(-0.2, -high * 0.85), (0.2, -high * 0.85)], look.base, 0.05)
    for side in (1, -1):
        lens = oval(0, 0, wide, high, power)
        if cat:
            lens = [(x + 0.08 * (y < 0) * (x > 0), y - 0.1 * (y < 0) * max(x, 0) / wide) for x, y in lens]
        if aviator:
            lens = [(x * (1 - 0.22 * y / high), y * 1.15) for x, y in lens]
        outer = [(side * (0.49 + x), y) for x, y in lens]
        inner = [(side * (0.49 + x * (1 - rim / wide)), y * (1 - rim / high)) for x, y in lens]
        pen.fill(outer, smooth=0)
        pen.fill(inner, tint, 0)
        pen.shade([(x, max(y, 0.0)) for x, y in inner], 1.5, 0)
        glint = [
            (side * 0.3, -high * 0.5),
            (side * 0.46, -high * 0.62),
            (side * 0.4, high * 0.1),
            (side * 0.28, high * 0.2),
        ]
        pen.shade(glint, 1.85, 0)


def handbag(pen: Pen, look: Look) -> None:
    """A handbag: tote, satchel or hobo, with handles and a metal clasp."""
    kind, metal = look.rng.choice(["tote", "satchel", "hobo"]), METALS[int(look.rng.integers(2))]
    upper, lower = look.near(0.5, 0.7), look.near(0.68, 0.88)
    rim, bottom = look.near(-0.25, 0.0), look.near(0.75, 0.95)
    hold = look.base if look.chance(0.7) else blend((110, 70, 40), look.base, 0.3)
    peak = look.near(-1.1, -0.8)
    back = [(-upper * 0.62, rim + 0.1), (-upper * 0.56, peak * 0.72), (-0.16, peak), (0.16, peak)]
    loop = [*back, (upper * 0.56, peak * 0.72), (upper * 0.62, rim + 0.1)]
    pen.line([(x * 0.86, y - 0.08) for x, y in loop], darker(hold, 0.4), 0.06)
    if kind == "hobo":
        body = [(-upper, rim - 0.12), (-upper, rim - 0.12), (0, rim + 0.2), (upper, rim - 0.12), (upper, rim - 0.12)]
        pen.fill(
            [
                *body,
                (lower * 1.1, 0.4),
                (lower * 0.8, bottom),
                (0, bottom + 0.08),
                (-lower * 0.8, bottom),
                (-lower * 1.1, 0.4),
            ]
        )
        for x in (-0.5, -0.2, 0.2, 0.5):
            pen.fold([(x * upper, rim + 0.2), (x * lower, bottom - 0.3)], 0.8, 0.06)
    else:
        pen.fill(mirrored([(upper, rim), (upper, rim), (lower, bottom - 0.1), (lower * 0.96, bottom)]), smooth=1)
        for side in (1, -1):
            pen.shade([(side * upper, rim), (side * lower, bottom), (side * lower * 0.82, bottom)], 0.78, 0)
        pen.line([(-lower * 0.96, bottom - 0.12), (lower * 0.96, bottom - 0.12)], look.seam, 0.04)
    if kind == "satchel":
        flap = [(upper * 0.98, rim - 0.03), (upper * 1.04, rim + 0.3), (0.2, rim + 0.48)]
        pen.fill(mirrored(flap), smooth=1)
        pen.shade(mirrored(flap), 1.1, 1)
        pen.line([(x, y) for x, y in mirrored(flap)[1:-1]], look.seam, 0.035)
    pen.line(loop, hold, look.near(0.06, 0.1))
    for side in (1, -1):
        pen.fill(oval(side * upper * 0.62, rim + 0.1, 0.06, 0.08), metal, 0)
    pen.fill(oval(0, rim + 0.42, look.near(0.06, 0.12), 0.07, 3), metal, 0)
    if look.chance(0.4):
        pen.fill(oval(upper * 0.4, rim + 0.55, 0.06, 0.16), look.accent, 0)


def backpack(pen: Pen, look: Look) -> None:
    """A backpack: a tall round-topped body, a pocket with a zip, straps; smaller and rounder for women."""
    wide, high = look.cut(0.7, 0.56), look.cut(-1.0, -0.85)
    pen.line([(-0.16, high + 0.06), (-0.12, high - 0.16), (0.12, high - 0.16), (0.16, high + 0.06)], look.seam, 0.07)
    for side in (1, -1):
        strap = [
            (side * wide * 0.6, high + 0.1),
            (side * (wide + 0.14), -0.2),
            (side * (wide + 0.1), 0.6),
            (side * wide * 0.9, 0.85),
        ]
        pen.line(strap, darker(look.base, 0.35), 0.1)
    pen.fill(
        mirrored([(wide * 0.5, high), (wide * 0.95, high + 0.2), (wide, 0.0), (wide * 1.04, 1.0), (wide * 0.7, 1.08)])
    )
    arc = mirrored([(0.1, high + 0.2), (wide * 0.7, high + 0.34), (wide * 0.84, 0.0)])
    pen.line([*arc[3:], *arc[:3]], look.seam, 0.035)
    patch = look.accent if look.chance(0.35) else None
    pocket = mirrored([(wide * 0.6, 0.08), (wide * 0.82, 0.2), (wide * 0.84, 0.8), (wide * 0.6, 0.94)])
    pen.fill(pocket, patch)
    pen.shade(pocket, 1.1)
    pen.line([*pocket, pocket[0]], look.seam, 0.03)
    pen.line([(-wide * 0.7, 0.3), (wide * 0.7, 0.3)], look.seam, 0.045)
    pen.line([(wide * 0.6, 0.3), (wide * 0.56, 0.46)], WHITE, 0.04)
    for side in (1, -1):
        pen.shade(
            [(side * wide, high + 0.3), (side * wide * 0.86, 0), (side * wide * 0.9, 1.05), (side * wide * 1.05, 1.0)],
            0.78,
            0,
        )
    if look.chance(0.8):
        pen.fill(oval(0, high + 0.55, look.near(0.1, 0.2), 0.08, 4), look.accent, 0)


def wallet(pen: Pen, look: Look) -> None:
    """A wallet: folded in two, nearly square, for men; long with a flap and a snap for women."""
    thread = lighter(look.base, 0.4) if max(look.base) < 190 else darker(look.base, 0.35)
    if look.feminine():
        wide, high = look.near(0.8, 0.92), look.near(0.4, 0.52)
        pen.fill(oval(0, 0, wide, high, 9), smooth=0)
        flap = [
            (-wide * 0.97, -high * 0.95),
            (wide * 0.97, -high * 0.95),
            (wide * 0.95, 0),
            (0, high * 0.3),
            (-wide * 0.95, 0),
        ]
        pen.fill([flap[0], *flap[:2], *flap[1:]], smooth=1)
        pen.shade(flap, 1.1, 1)
        pen.line([flap[2], (wide * 0.4, high * 0.16), (-wide * 0.4, high * 0.16), flap[4]], look.seam, 0.035)
        pen.fill(oval(0, high * 0.14, 0.09, 0.08), GOLD, 0)
        pen.line([(-wide * 0.95, high), (wide * 0.95, high)], darker(look.base, 0.4), 0.05)
        return
    wide, high = look.near(0.72, 0.86), look.near(0.55, 0.68)
    if look.chance(0.3):
        pen.fill(oval(0, 0, 0.92, high, 12), blend(look.base, (20, 16, 14), 0.3), 0)
        for side in (1, -1):
            pen.fill(oval(side * 0.47, 0.03, 0.43, high * 0.92, 12), smooth=0)
            for row in range(4):
                pen.line([(side * 0.1, -0.3 + 0.2 * row), (side * 0.84, -0.3 + 0.2 * row)], look.seam, 0.03)
                pen.fold([(side * 0.1, -0.26 + 0.2 * row), (side * 0.84, -0.26 + 0.2 * row)], 1.15, 0.04)
        pen.fold([(0, -high), (0, high)], 0.6, 0.06)
        return
    pen.fill(oval(0.05, -0.06, wide, high, 10), darker(look.base, 0.35), 0)
    pen.fill(oval(0, 0, wide, high, 10), smooth=0)
    pen.shade([(-wide, -high), (-wide * 0.86, -high), (-wide * 0.86, high), (-wide, high)], 0.7, 0)
    inset = [
        (-wide * 0.78, -high * 0.86),
        (wide * 0.9, -high * 0.86),
        (wide * 0.9, high * 0.86),
        (-wide * 0.78, high * 0.86),
    ]
    _stitches(pen, [*inset, inset[0]], thread)
    pen.fill(oval(wide * 0.5, high * 0.5, 0.14, 0.06, 3), blend(look.base, thread, 0.5), 0)


def belt(pen: Pen, look: Look) -> None:
    """A belt, rolled up or hung double: broad with a plain buckle for men, narrow with a bright one for women."""
    wide = look.cut(0.3, 0.15)
    metal = GOLD if look.feminine() and look.chance(0.7) else METALS[0]
    if look.chance(0.4):
        for x, end in ((0.2, 1.25), (-0.2, 1.05)):
            pen.line([(x, -1.0), (x, end)], look.base, wide * 1.1)
            pen.line([(x - wide * 0.4, -1.0), (x - wide * 0.4, end)], look.seam, 0.02)
            pen.fold([(x + wide * 0.4, -1.0), (x + wide * 0.4, end)], 0.75, 0.06)
        pen.line(
            [(-0.2, -0.99), (-0.17, -1.12), (-0.06, -1.2), (0.06, -1.2), (0.17, -1.12), (0.2, -0.99)], look.base, wide
        )
        for row in range(5):
            pen.fill(oval(-0.2, 0.4 + 0.13 * row, 0.025, 0.03), darker(look.base, 0.7), 0)
        middle, down = 0.2, 1.1
    else:
        ring = [(0.86 * cos(pi * k / 12), 0.32 * sin(pi * k / 12)) for k in range(13)]
        pen.fill([*((x, -y - wide) for x, y in ring), *((x, -y + wide) for x, y in reversed(ring))], None, 0)
        pen.shade([*((x, -y - wide) for x, y in ring), *((x, -y + wide) for x, y in reversed(ring))], 0.58, 0)
        pen.fill([*((x, y - wide) for x, y in ring), *((x, y + wide) for x, y in reversed(ring))], None, 0)
        for edge in (-0.78, 0.78):
            pen.line([(x * 0.98, y + edge * wide) for x, y in ring[1:-1]], look.seam, 0.025)
        pen.fold([(x, y - wide * 0.3) for x, y in ring[2:7]], 1.2, 0.1)
        for step in range(4):
            pen.fill(oval(0.38 + 0.1 * step, 0.29 - 0.035 * step, 0.022, 0.03), darker(look.base, 0.7), 0)
        middle, down = -0.05, 0.32
    frame = oval(middle, down, wide * 0.85 + 0.04, wide + 0.08, 5 if not look.feminine() else 2)
    pen.line([*frame, frame[0], frame[1]], metal, 0.08)
    pen.line([(middle - wide, down), (middle + wide * 0.8, down)], lighter(metal, 0.3), 0.05)


def socks(pen: Pen, look: Look) -> None:
    """A pair of socks from the side: to the calf for men, to the ankle for women, striped for children."""
    high = look.cut(-1.05, -0.25) + (0.25 if look.child else 0)
    patch = look.accent if look.chance(0.4) else darker(look.base, 0.25)
    leg = [
        (-0.06, high),
        (-0.06, high),
        (0.34, high),
        (0.34, high),
        (0.34, 0.2),
        (0.4, 0.55),
        (0.22, 0.82),
        (-0.25, 0.86),
    ]
    leg += [(-0.6, 0.84), (-0.7, 0.62), (-0.5, 0.48), (-0.14, 0.34), (-0.06, 0.1)]
    lift = -0.3 * (high + 0.4)
    for x, y in ((0.3, -0.14), (0.0, 0.08)):
        pen.part(x, y + lift * 0.3, 0.96, look.near(-4, 4))
        pen.fill(leg)
        pen.fill([(0.36, 0.34), (0.42, 0.6), (0.22, 0.82), (0.06, 0.8), (0.2, 0.56)], patch, 1)
        pen.fill([(-0.48, 0.86), (-0.62, 0.84), (-0.7, 0.62), (-0.52, 0.5)], patch, 1)
        pen.fill([(-0.06, high), (0.34, high), (0.34, high + 0.16), (-0.06, high + 0.16)], patch, 0)
        for step in range(5):
            pen.fold([(-0.02 + 0.08 * step, high), (-0.02 + 0.08 * step, high + 0.16)], 0.75, 0.03)
        if look.child or look.chance(0.35):
            for row in range(3):
                level = high + 0.3 + 0.2 * row
                if level < 0.2:
                    pen.line([(-0.05, level), (0.33, level)], look.accent, 0.08)
        pen.fold([(0.02, 0.36), (0.26, 0.5)], 0.82, 0.05)
    pen.part()


def cap(pen: Pen, look: Look) -> None:
    """A cap from the side: panels, a button and a visor; lower and slimmer for women."""
    tall = look.cut(1.12, 0.9)
    dome = [
        (-0.6, 0.26),
        (-0.6, 0.26),
        (-0.6, -0.16),
        (-0.34, -0.54),
        (0.06, -0.66),
        (0.46, -0.52),
        (0.72, -0.1),
        (0.74, 0.3),
        (0.74, 0.3),
    ]
    pen.fill(_stretched(dome, tall))
    visor = look.accent if look.chance(0.3) else None
    for bend, x in ((-0.3, -0.28), (0.12, 0.14), (0.42, 0.52)):
        pen.line(_stretched([(0.06, -0.62), (bend, -0.3), (x + bend * 0.25, 0.26)], tall), look.seam, 0.026)
    pen.fill(
        [(-0.6, 0.12), (-0.84, 0.24), (-1.0, 0.46), (-0.86, 0.52), (-0.5, 0.4), (-0.1, 0.34), (0.2, 0.3), (-0.2, 0.18)],
        visor,
    )
    pen.line([(-0.62, 0.2), (-0.2, 0.24), (0.72, 0.28)], look.seam, 0.03)
    pen.fold([(-0.94, 0.48), (-0.5, 0.4)], 0.75, 0.05)
    pen.fill(oval(0.06, 0.3 - 0.95 * tall, 0.07, 0.04), look.seam, 0)
    if look.chance(0.75):
        pen.fill(oval(-0.34, -0.1, 0.14, 0.12, look.near(1.5, 4)), look.accent, 0)
    for x in (-0.1, 0.36):
        pen.fill(oval(x, -0.3, 0.03, 0.03), look.seam, 0)

"""The shoes of the sample catalog."""

from functools import partial

from outline import oval, stretched
from palette import DARK, GOLD, WHITE, Color, blend, darker
from studio import Look, Pen


def _sneaker(pen: Pen, look: Look, tall: float, sole: Color, thick: float) -> None:
    """Draw one laced shoe from the side, its toe to the left."""
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
    pen.fill(stretched(upper, tall))
    pen.fill(stretched(mouth, tall), blend(look.base, (30, 28, 28), 0.65))
    pen.fill([(-0.95, 0.24), (-0.95, 0.3 + thick), (-0.95, 0.3 + thick), (0.95, 0.3 + thick), (0.96, 0.24)], sole, 1)
    pen.fold([(-0.93, 0.3 + thick), (0.93, 0.3 + thick)], 0.72, 0.07)
    lace = WHITE if max(look.base) < 200 or look.chance(0.3) else darker(look.base, 0.4)
    for step in range(5):
        x, y = -0.36 + 0.1 * step, -0.12 - 0.085 * step
        pen.line(stretched([(x - 0.01, y - 0.03), (x + 0.14, y + 0.1)], tall), lace, 0.04)


def _in_pairs(look: Look) -> list[tuple[float, float, float]]:
    """Return x, y and size of each shoe to draw: one alone, or one with a second behind it."""
    if look.chance(0.65):
        return [(0.0, 0.0, 1.0)]
    return [(look.near(0.04, 0.14), -0.3, 0.88), (-0.06, 0.24, 0.88)]


def sports_shoe(pen: Pen, look: Look) -> None:
    """Draw a running shoe: a thick shaped sole, overlays in a second color; slimmer for women."""
    tall = look.cut(1.18, 0.92)
    sole = WHITE if look.chance(0.65) else blend(look.accent, DARK, 0.5)
    thick = look.cut(0.2, 0.15)
    for x, y, size in _in_pairs(look):
        pen.part(x, y, size)
        _sneaker(pen, look, tall, sole, thick)
        heel = [(0.62, 0.26), (0.66, -0.1), (0.86, -0.3), (0.93, 0.26)]
        pen.fill(stretched(heel, tall), look.accent, 1)
        pen.fill([(-0.94, 0.27), (-0.86, 0.02), (-0.62, 0.1), (-0.5, 0.27)], darker(look.base, 0.25), 1)
        swoosh = [(-0.3, 0.12), (0.0, 0.22), (0.3, 0.08), (0.66, -0.22)]
        pen.line(stretched(swoosh, tall), look.accent, look.near(0.06, 0.1))
        if look.chance(0.5):
            pen.line(stretched([(-0.1, 0.24), (0.12, -0.2)], tall), look.accent, 0.06)
        pen.line([(-0.9, 0.3 + thick * 0.45), (0.2, 0.32), (0.93, 0.3 + thick * 0.2)], look.accent, 0.05)
        for step in range(9):
            notch = -0.85 + 0.2 * step
            pen.line([(notch, 0.28 + thick), (notch + 0.03, 0.31 + thick)], DARK, 0.05)
    pen.part()


def casual_shoe(pen: Pen, look: Look) -> None:
    """Draw a canvas shoe, a loafer or a lace-up with a flat sole; a low ballerina for women, straps for children."""
    # style
    woman = look.feminine()
    style = (
        "straps" if look.child else "ballerina" if woman and look.chance(0.5) else look.rng.choice(["canvas", "loafer"])
    )
    tall, slim = look.cut(1.08, 0.85), look.cut(0.1, 0.06)
    sole = WHITE if style in ("canvas", "straps") and look.chance(0.75) else blend(look.base, (50, 34, 24), 0.75)

    # shoes
    for x, y, size in _in_pairs(look):
        pen.part(x, y, size)
        if style in ("canvas", "straps"):
            _sneaker(pen, look, tall, sole, 0.1)
            pen.fill([(-0.93, 0.26), (-0.88, 0.06), (-0.66, 0.02), (-0.56, 0.26)], sole, 1)
            pen.line([(-0.94, 0.33), (0.94, 0.33)], look.accent, 0.025)
            pen.line(stretched([(0.72, -0.4), (0.7, 0.25)], tall), look.seam, 0.03)
            if style == "straps":
                for step in (0.0, 0.22):
                    pen.line([(-0.2 + step, -0.22 - step), (0.12 + step, 0.16 - step)], look.accent, 0.14)
            continue
        low = 0.32 if style == "ballerina" else 0.0
        pen.fill(stretched([(-0.1, 0.0), (0.5, -0.12), (0.84, -0.3), (0.8, 0.2), (0, 0.2)], tall), (206, 178, 140), 1)
        vamp = [(-0.94, 0.3), (-0.94, 0.3), (-0.9, 0.1), (-0.66, 0.0), (-0.34 - low, -0.16 + low * 0.5)]
        vamp += [
            (0.02 - low, -0.34 + low),
            (0.14 - low, -0.3 + low),
            (0.4, 0.02),
            (0.6, -0.08),
            (0.78, -0.3),
            (0.88, -0.34),
        ]
        pen.fill(stretched([*vamp, (0.9, 0.0), (0.92, 0.3), (0.92, 0.3)], tall))
        pen.fill([(-0.94, 0.27), (-0.92, 0.3 + slim), (0.5, 0.3 + slim), (0.93, 0.3 + slim), (0.93, 0.27)], sole, 1)
        pen.fill([(0.52, 0.28), (0.93, 0.28), (0.93, 0.36 + slim), (0.54, 0.36 + slim)], sole, 0)
        if style == "loafer":
            pen.line(stretched([(-0.74, 0.02), (-0.4, 0.1), (-0.08, -0.24)], tall), look.seam, 0.03)
            pen.line(stretched([(-0.26, -0.16), (-0.02, 0.16)], tall), look.seam, 0.09)
        else:
            pen.fill(oval(-0.56, 0.08, 0.1, 0.06), look.accent)
    pen.part()


def _support(pen: Pen, kind: str, color: Color, rise: float) -> None:
    """Draw the heel under the shoe."""
    lifted = partial(stretched, height=rise, below=0.56)
    if kind == "wedge":
        pen.fill(
            lifted([(-0.5, 0.56), (-0.3, 0.5), (0.3, 0.22), (0.6, 0.0), (0.8, -0.12), (0.78, 0.56), (0.78, 0.56)]),
            color,
            1,
        )
    else:
        foot = 0.035 if kind == "thin" else 0.12
        pen.fill(
            lifted([(0.46, 0.1), (0.8, -0.16), (0.74, 0.3), (0.7 + foot, 0.6), (0.7 - foot, 0.6), (0.64, 0.3)]),
            color,
            0,
        )


def heel(pen: Pen, look: Look) -> None:
    """Draw a shoe with a thin heel, a broad heel or a wedge; some have a strap or a platform."""
    # measures
    rise = look.near(0.75, 1.15) * (0.55 if look.child else 1.0)
    kind, strappy = look.rng.choice(["thin", "thin", "block", "wedge"]), look.chance(0.4)
    tan = blend((196, 160, 116), look.base, look.near(0, 0.4))
    lifted = partial(stretched, height=rise, below=0.56)

    # heel and sole
    pen.part(0, 0.05)
    under = look.base if kind in ("thin", "block") and look.chance(0.7) else tan
    _support(pen, kind, under, rise)
    pen.fill(lifted([(-0.5, 0.36), (0.1, 0.2), (0.5, -0.2), (0.74, -0.42), (0.72, -0.1), (0.2, 0.4)]), (214, 184, 146))

    # upper
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
                ],
            )
        )
        for x, y in ((-0.62, 0.5), (-0.36, 0.46), (-0.1, 0.36)):
            pen.line(
                lifted([(x - 0.1, y + 0.06), (x - 0.02, y - 0.26), (x + 0.14, y - 0.2), (x + 0.2, y)]),
                look.base,
                0.09,
            )
        pen.fill(lifted([(0.56, 0.0), (0.6, -0.4), (0.72, -0.46), (0.84, -0.12), (0.78, 0.02)]), None, 1)
    else:
        outline += [(-0.2, 0.36), (0.15, 0.26), (0.42, -0.04), (0.66, -0.44), (0.8, -0.42), (0.8, -0.1), (0.7, 0.06)]
        pen.fill(lifted([*outline, (0.4, 0.3), (0.1, 0.5), (-0.3, 0.58)]))
        if look.chance(0.4):
            pen.fill(oval(-0.52, 0.56 - 0.24 * rise, 0.09, 0.06), look.accent if look.chance(0.5) else GOLD)

    # strap and platform
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
    """Draw a pair of flip-flops from above: broad soles for men, slim ones with a jewel for women."""
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

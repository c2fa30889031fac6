"""The bags and wallets of the sample catalog."""

from itertools import pairwise

from outline import Points, mirrored, oval
from palette import GOLD, METALS, WHITE, Color, blend, darker, lighter
from studio import Look, Pen


def stitches(pen: Pen, points: Points, color: Color, count: int = 14) -> None:
    """Draw a dashed line."""
    for (x0, y0), (x1, y1) in pairwise(points):
        for step in range(count):
            near, far = step / count, (step + 0.55) / count
            ends = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in (near, far)]
            pen.line(ends, color, 0.02)


def handbag(pen: Pen, look: Look) -> None:
    """Draw a handbag: tote, satchel or hobo, with handles and a metal clasp."""
    # measures
    kind, metal = look.rng.choice(["tote", "satchel", "hobo"]), METALS[int(look.rng.integers(2))]
    upper, lower = look.near(0.5, 0.7), look.near(0.68, 0.88)
    rim, bottom = look.near(-0.25, 0.0), look.near(0.75, 0.95)
    hold = look.base if look.chance(0.7) else blend((110, 70, 40), look.base, 0.3)
    peak = look.near(-1.1, -0.8)
    back = [(-upper * 0.62, rim + 0.1), (-upper * 0.56, peak * 0.72), (-0.16, peak), (0.16, peak)]
    loop = [*back, (upper * 0.56, peak * 0.72), (upper * 0.62, rim + 0.1)]

    # the handle behind, and the body
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

    # flap
    if kind == "satchel":
        flap = [(upper * 0.98, rim - 0.03), (upper * 1.04, rim + 0.3), (0.2, rim + 0.48)]
        pen.fill(mirrored(flap), smooth=1)
        pen.shade(mirrored(flap), 1.1, 1)
        pen.line([(x, y) for x, y in mirrored(flap)[1:-1]], look.seam, 0.035)

    # the handle in front, and metal parts
    pen.line(loop, hold, look.near(0.06, 0.1))
    for side in (1, -1):
        pen.fill(oval(side * upper * 0.62, rim + 0.1, 0.06, 0.08), metal, 0)
    pen.fill(oval(0, rim + 0.42, look.near(0.06, 0.12), 0.07, 3), metal, 0)
    if look.chance(0.4):
        pen.fill(oval(upper * 0.4, rim + 0.55, 0.06, 0.16), look.accent, 0)


def backpack(pen: Pen, look: Look) -> None:
    """Draw a backpack: a tall round-topped body, a pocket with a zip, straps; smaller and rounder for women."""
    # straps
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

    # body
    pen.fill(
        mirrored([(wide * 0.5, high), (wide * 0.95, high + 0.2), (wide, 0.0), (wide * 1.04, 1.0), (wide * 0.7, 1.08)])
    )
    arc = mirrored([(0.1, high + 0.2), (wide * 0.7, high + 0.34), (wide * 0.84, 0.0)])
    pen.line([*arc[3:], *arc[:3]], look.seam, 0.035)

    # pocket
    patch = look.accent if look.chance(0.35) else None
    pocket = mirrored([(wide * 0.6, 0.08), (wide * 0.82, 0.2), (wide * 0.84, 0.8), (wide * 0.6, 0.94)])
    pen.fill(pocket, patch)
    pen.shade(pocket, 1.1)
    pen.line([*pocket, pocket[0]], look.seam, 0.03)
    pen.line([(-wide * 0.7, 0.3), (wide * 0.7, 0.3)], look.seam, 0.045)
    pen.line([(wide * 0.6, 0.3), (wide * 0.56, 0.46)], WHITE, 0.04)

    # shade and logo
    for side in (1, -1):
        pen.shade(
            [(side * wide, high + 0.3), (side * wide * 0.86, 0), (side * wide * 0.9, 1.05), (side * wide * 1.05, 1.0)],
            0.78,
            0,
        )
    if look.chance(0.8):
        pen.fill(oval(0, high + 0.55, look.near(0.1, 0.2), 0.08, 4), look.accent, 0)


def wallet(pen: Pen, look: Look) -> None:
    """Draw a wallet: folded in two, nearly square, for men; long with a flap and a snap for women."""
    # a woman's: long, with a flap
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

    # a man's: open
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

    # a man's: folded
    pen.fill(oval(0.05, -0.06, wide, high, 10), darker(look.base, 0.35), 0)
    pen.fill(oval(0, 0, wide, high, 10), smooth=0)
    pen.shade([(-wide, -high), (-wide * 0.86, -high), (-wide * 0.86, high), (-wide, high)], 0.7, 0)
    inset = [
        (-wide * 0.78, -high * 0.86),
        (wide * 0.9, -high * 0.86),
        (wide * 0.9, high * 0.86),
        (-wide * 0.78, high * 0.86),
    ]
    stitches(pen, [*inset, inset[0]], thread)
    pen.fill(oval(wide * 0.5, high * 0.5, 0.14, 0.06, 3), blend(look.base, thread, 0.5), 0)

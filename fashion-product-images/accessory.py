"""The smaller accessories of the sample catalog: watches, sunglasses, belts, socks and caps."""

from math import cos, pi, sin

from bag import stitches
from outline import mirrored, oval, stretched
from palette import DARK, GOLD, METALS, WHITE, blend, darker, lighter
from studio import Look, Pen


def watch(pen: Pen, look: Look) -> None:
    """Draw a watch: broad strap and large dial for men, small and golden for women, square and digital for unisex."""
    # measures
    wide, dial = look.cut(0.31, 0.17), look.cut(0.56, 0.4)
    digital = look.chance(0.7 if look.unisex or look.child else 0.08)
    metal = METALS[int(look.rng.choice(3, p=[0.35, 0.55, 0.1] if look.feminine() else [0.6, 0.1, 0.3]))]
    bracelet = look.chance(0.3)

    # strap
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
            stitches(pen, [(side * ends * 0.8, -1.18), (side * waist * 0.8, -0.5)], lighter(look.base, 0.35), 7)
            stitches(pen, [(side * waist * 0.8, 0.5), (side * ends * 0.8, 1.18)], lighter(look.base, 0.35), 7)
        for row in range(4):
            pen.fill(oval(0, 0.72 + 0.13 * row, 0.025, 0.025), darker(look.base, 0.6), 0)
    for end in (-1, 1):
        pen.shade([(-ends, end * 1.25), (ends, end * 1.25), (waist, end * 0.95), (-waist, end * 0.95)], 0.68, 0)

    # case
    square = 5.0 if digital or look.chance(0.12) else 2.0
    pen.line([(dial, 0), (dial + 0.1, 0)], metal, 0.12)
    pen.fill(oval(0, 0, dial, dial, square), darker(metal, 0.3), 0)
    pen.fill(oval(-0.015, -0.02, dial * 0.94, dial * 0.94, square), look.base if digital else metal, 0)

    # face
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

    # hands
    for length, thick in ((0.36, 0.05), (0.56, 0.035)):
        turn = look.near(0, 2 * pi)
        pen.line([(0, 0), (sin(turn) * dial * length, -cos(turn) * dial * length)], mark, thick)


def sunglasses(pen: Pen, look: Look) -> None:
    """Draw sunglasses from the front: narrow or aviators for men, large and round for women, medium for unisex."""
    # measures
    high, wide = look.cut(0.25, 0.42), look.cut(0.41, 0.42)
    cat, aviator = look.feminine(), look.chance(0.35) and not look.feminine()
    rim = 0.035 if aviator else look.near(0.06, 0.11)
    power = 2.4 if cat else 3.4
    tint = blend(blend(look.base, DARK, 0.72), (70, 56, 44), look.near(0, 0.6))

    # temples and bridge
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

    # lenses
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


def belt(pen: Pen, look: Look) -> None:
    """Draw a belt, rolled up or hanging double: broad for men, narrow with a bright buckle for women."""
    # strap
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

    # buckle
    frame = oval(middle, down, wide * 0.85 + 0.04, wide + 0.08, 5 if not look.feminine() else 2)
    pen.line([*frame, frame[0], frame[1]], metal, 0.08)
    pen.line([(middle - wide, down), (middle + wide * 0.8, down)], lighter(metal, 0.3), 0.05)


def socks(pen: Pen, look: Look) -> None:
    """Draw a pair of socks from the side: to the calf for men, to the ankle for women, striped for children."""
    # shape
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

    # the two socks
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
    """Draw a cap from the side: panels, a button and a visor; lower and slimmer for women."""
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
    pen.fill(stretched(dome, tall))
    visor = look.accent if look.chance(0.3) else None
    for bend, x in ((-0.3, -0.28), (0.12, 0.14), (0.42, 0.52)):
        pen.line(stretched([(0.06, -0.62), (bend, -0.3), (x + bend * 0.25, 0.26)], tall), look.seam, 0.026)
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

"""The clothes of the sample catalog, drawn flat or on a model."""

from garment_parts import lining, torso, wearer
from outline import mirrored, oval
from palette import SKINS, darker, lighter
from studio import Look, Pen


def _print(pen: Pen, look: Look, y: float, wide: float) -> None:
    """Draw a picture or a slogan on the chest."""
    kind, ink = look.rng.integers(4), look.accent
    if kind == 0:
        for row in range(int(look.rng.integers(2, 4))):
            half = wide * look.near(0.5, 1)
            pen.line([(-half, y + 0.12 * row), (half, y + 0.12 * row)], ink, 0.06)
    elif kind == 1:
        pen.fill(oval(0, y + 0.1, wide * 0.8, wide * 0.8), ink)
        pen.fill(oval(0, y + 0.1, wide * 0.45, wide * 0.45), lighter(ink, 0.5))
    elif kind == 2:
        pen.fill([(-wide, y - 0.1), (wide, y - 0.1), (wide, y + 0.35), (-wide, y + 0.35)], ink, 1)
        pen.fill([(-wide * 0.6, y + 0.3), (0, y), (wide * 0.6, y + 0.3)], lighter(ink, 0.5), 0)
    else:
        points = [(look.near(-wide, wide), look.near(y - 0.1, y + 0.4)) for _ in range(6)]
        pen.fill(points, ink, 2)


def tshirt(pen: Pen, look: Look) -> None:
    """Draw a T-shirt or polo: straight and broad for men, short with a waist and a wide neck for women."""
    # cut
    top, bottom = -0.92, look.cut(0.92, 0.74)
    shoulder, chest = look.cut(0.57, 0.43), look.cut(0.57, 0.45)
    if look.unisex:
        shoulder, chest, bottom = shoulder * 1.16, chest * 1.18, 0.95
    if look.child:
        bottom -= 0.25
    waist, hem = look.cut(0.56, 0.36), look.cut(0.57, 0.47)
    polo = look.chance(0.28) and not look.child
    neck = (look.cut(0.2, 0.28), look.cut(0.17, 0.34) * look.near(0.8, 1.2))
    long, pointed, worn = look.chance(0.1), look.chance(0.25), look.chance(0.45)
    lean = look.near(0.3, 0.45) if worn else look.near(0.55, 0.85)
    sleeve = (1.2, look.near(0.2, 0.32), 0.11) if long else (look.cut(0.5, 0.32), lean, look.cut(0.19, 0.14))

    # body and sleeves
    if worn:
        wearer(pen, look, top, bottom, shoulder, sleeve)
    else:
        lining(pen, look, top, neck)
    torso(
        pen, look, top=top, bottom=bottom, widths=(shoulder, chest, waist, hem), neck=neck, sleeve=sleeve,
        pointed=pointed,
    )  # fmt: skip

    # neckline
    pen.line(mirrored([(hem - 0.03, bottom - 0.07)]), look.seam, 0.018)
    if polo:
        trim = look.accent if look.chance(0.3) else None
        for side in (1, -1):
            flap = [(0, top + 0.26), (side * 0.2, top - 0.06), (side * 0.3, top + 0.06), (side * 0.14, top + 0.34)]
            pen.fill([flap[0], *flap], trim, 1)
            pen.line(flap[1:], look.seam, 0.018)
        pen.line([(0, top + 0.2), (0, top + 0.62)], look.seam, 0.05)
    else:
        rib = [(neck[0] * k, top + neck[1] * (1 - abs(k) ** 2.2) - 0.01) for k in (-1, -0.8, -0.4, 0, 0.4, 0.8, 1)]
        pen.line(rib if not pointed else [rib[0], (0, top + neck[1]), rib[-1]], look.seam, 0.035)

    # print
    if polo:
        pass
    elif look.chance(0.85 if look.child else 0.45):
        _print(pen, look, top + 0.7, chest * look.near(0.35, 0.65))
    elif look.chance(0.5):
        pen.fill(oval(0.27, top + 0.6, 0.07, 0.05), look.accent)


def shirt(pen: Pen, look: Look) -> None:
    """Draw a shirt with a collar, buttons and mostly long sleeves; a pocket for men, a waist for women."""
    top, bottom = -0.98, look.cut(0.98, 0.8) - (0.2 if look.child else 0)
    shoulder, chest = look.cut(0.56, 0.43), look.cut(0.55, 0.44)
    neck = (0.2, look.cut(0.2, 0.36))
    long = look.chance(look.cut(0.75, 0.5))
    sleeve = (look.near(1.2, 1.4), look.near(0.2, 0.34), 0.105) if long else (0.55, 0.45, 0.17)
    if look.chance(0.4):
        wearer(pen, look, top, bottom, shoulder, sleeve)
    else:
        lining(pen, look, top, neck)
    widths = (shoulder, chest, look.cut(0.53, 0.35), look.cut(0.55, 0.47))
    torso(pen, look, top=top, bottom=bottom, widths=widths, neck=neck, sleeve=sleeve, pointed=True)
    pen.line([(0.04, top + neck[1]), (0.04, bottom)], look.seam, 0.02)
    pen.line([(-0.05, top + neck[1]), (-0.05, bottom)], look.seam, 0.012)
    button = lighter(look.base, 0.6) if max(look.base) < 150 else darker(look.base, 0.5)
    for step in range(6):
        pen.fill(oval(0, top + neck[1] + 0.1 + 0.27 * step, 0.028, 0.028), button, 0)
    for side in (1, -1):
        flap = [(0, top + neck[1]), (side * 0.17, top - 0.09), (side * 0.31, top + 0.05), (side * 0.22, top + 0.36)]
        pen.fill([flap[0], *flap, flap[3]], smooth=1)
        pen.shade(flap, 1.06, 0)
        pen.line([flap[1], flap[2], flap[3], flap[0]], look.seam, 0.024)
    if not look.feminine():
        pocket = [(0.18, -0.42), (0.44, -0.42), (0.44, -0.14), (0.31, -0.08), (0.18, -0.14), (0.18, -0.42)]
        pen.line(pocket, look.seam, 0.02)


def top(pen: Pen, look: Look) -> None:
    """Draw a woman's top: straps, ruffles, gathers, a flared hem."""
    high, bottom = -0.9, look.near(0.65, 0.95)
    strap, flare = look.chance(0.5), look.near(0.52, 0.76)
    shoulder = look.near(0.38, 0.46) if strap else 0.5
    neck = (shoulder - look.near(0.07, 0.12), look.near(0.42, 0.6)) if strap else (0.34, look.near(0.22, 0.45))
    sleeve = (0.0, 0.0, 0.0) if strap else (look.near(0.25, 0.7), look.near(0.3, 0.5), look.near(0.17, 0.24))
    if look.chance(0.55):
        wearer(pen, look, high, bottom, 0.45, sleeve)
    else:
        lining(pen, look, high, neck)
    waist = look.near(0.38, 0.46)
    torso(
        pen, look, top=high, bottom=bottom, widths=(shoulder, 0.48, waist, flare), neck=neck, sleeve=sleeve,
        pointed=look.chance(0.3),
    )  # fmt: skip
    for x in (-0.75, -0.45, -0.15, 0.15, 0.45, 0.75):
        pen.fold([(x * waist * 0.8, 0.2), (x * flare, bottom)], 0.84, 0.05)
    if look.chance(0.5):
        pen.line([(-waist - 0.02, 0.1), (waist + 0.02, 0.1)], look.accent if look.chance(0.4) else look.seam, 0.07)
    if look.chance(0.35):
        for row in range(3):
            y = high + neck[1] + 0.08 + 0.12 * row
            pen.line([(-0.3, y - 0.03), (-0.1, y + 0.02), (0.1, y), (0.3, y - 0.04)], look.seam, 0.03)


def kurta(pen: Pen, look: Look) -> None:
    """Draw a kurta: a tunic to the knee with a placket and slits; embroidered and with a waist for women."""
    # cut
    high, bottom = -1.12, look.near(1.05, 1.22) - (0.25 if look.child else 0)
    woman = look.feminine()
    shoulder, hem = look.cut(0.5, 0.42), look.cut(0.5, 0.56)
    neck = (look.cut(0.15, 0.22), look.cut(0.12, 0.26))
    sleeve = (look.cut(1.3, 0.8), look.near(0.2, 0.32), 0.11)

    # body and sleeves
    if look.chance(0.4):
        wearer(pen, look, high, bottom, shoulder, sleeve, 0.75 if woman else 1.0)
    else:
        lining(pen, look, high, neck)
    widths = (shoulder, look.cut(0.5, 0.44), look.cut(0.48, 0.37), hem)
    torso(pen, look, top=high, bottom=bottom, widths=widths, neck=neck, sleeve=sleeve)

    # trimmings
    placket = high + neck[1] + look.near(0.55, 0.75)
    trim = look.accent if woman or look.chance(0.3) else look.seam
    pen.line([(0, high + neck[1]), (0, placket)], trim, 0.12 if woman else 0.06)
    if woman:
        pen.line(
            [(-neck[0], high + 0.02), (-neck[0] * 0.6, high + neck[1]), (neck[0] * 0.6, high + neck[1])], trim, 0.06
        )
        pen.line([(neck[0] * 0.6, high + neck[1]), (neck[0], high + 0.02)], trim, 0.06)
        pen.line([(-hem + 0.02, bottom - 0.08), (hem - 0.02, bottom - 0.08)], trim, look.near(0.04, 0.14))
    else:
        for side in (1, -1):
            pen.line([(side * 0.02, high + 0.14), (side * 0.15, high - 0.02)], look.seam, 0.07)
        for y in (0.1, 0.25, 0.4):
            pen.fill(oval(0, high + neck[1] + y, 0.025, 0.025), lighter(look.base, 0.5), 0)

    # slits and folds
    for side in (1, -1):
        pen.fold([(side * (hem - 0.04), 0.3), (side * (hem - 0.02), bottom)], 0.72, 0.05)
        pen.fold([(side * 0.2, 0), (side * 0.24, bottom)], 0.88, 0.06)


def dress(pen: Pen, look: Look) -> None:
    """Draw a dress: a narrow bodice and a skirt with folds."""
    high, bottom = -1.12, look.near(0.85, 1.22) - (0.2 if look.child else 0)
    sleeveless, flare = look.chance(0.65), look.near(0.5, 0.9)
    shoulder = look.near(0.32, 0.4)
    neck = (shoulder - 0.09, look.near(0.25, 0.5))
    sleeve = (0.0, 0.0, 0.0) if sleeveless else (look.near(0.18, 0.4), 0.4, 0.14)
    if look.chance(0.5):
        wearer(pen, look, high, bottom, 0.4, sleeve, 0.6)
    else:
        lining(pen, look, high, neck)
    torso(pen, look, top=high, bottom=-0.1, widths=(shoulder, 0.4, 0.32, 0.31), neck=neck, sleeve=sleeve)
    skirt = [
        (0.31, -0.25),
        (0.33, -0.1),
        (flare * 0.75, bottom * 0.5),
        (flare, bottom),
        (flare, bottom),
        (0, bottom + 0.06),
    ]
    pen.fill(mirrored(skirt))
    for x in (-0.8, -0.5, -0.2, 0.15, 0.45, 0.75):
        pen.fold([(x * 0.28, 0.0), (x * flare, bottom)], look.near(0.76, 0.92), 0.06)
    pen.line([(-0.31, -0.16), (0.31, -0.16)], look.accent if look.chance(0.5) else look.seam, look.near(0.04, 0.12))
    if look.chance(0.3):
        pen.line([(-flare, bottom - 0.06), (flare, bottom - 0.06)], look.accent, 0.06)


def _legs(pen: Pen, look: Look, waist: float, hip: float, ankle: float, bottom: float, gap: float) -> None:
    """Draw the shape that jeans, trousers and shorts share, sometimes on a person."""
    high = -1.15
    if look.chance(0.4):
        skin = SKINS[int(look.rng.integers(len(SKINS)))]
        shoe = look.accent if look.chance(0.3) else (60, 48, 42)
        for side in (1, -1):
            x = gap + ankle * 0.55
            pen.line([(side * x, 0), (side * x, bottom + 0.25)], skin, ankle * 0.8)
            pen.fill(oval(side * (x + 0.05), bottom + 0.26, 0.16, 0.09), shoe)
        shirt_color = (235, 235, 235) if look.chance(0.6) else look.accent
        pen.fill(mirrored([(waist, -1.6), (waist + 0.03, high + 0.08), (0, high + 0.1)]), shirt_color, 0)
    for side in (1, -1):
        leg = [(0, high), (waist, high), (waist, high), (hip, high + 0.5), (gap + ankle, bottom), (gap + ankle, bottom)]
        leg += [(gap, bottom), (gap, bottom), (0.01, high + 0.75), (0, high + 0.7)]
        placed = [(side * x, y) for x, y in leg]
        pen.fill(placed, smooth=1)
        pen.shade([(side * 0.02, high + 0.5), (side * 0.16, high + 0.7), (side * (gap + 0.06), bottom)], 0.82, 0)
        pen.line(
            [(side * waist * 0.45, high + 0.13), (side * waist * 0.65, high + 0.3), (side * hip * 0.86, high + 0.34)],
            look.seam,
            0.022,
        )
    pen.line([(0.01 - waist, high + 0.06), (waist - 0.01, high + 0.06)], look.seam, 0.12)
    pen.line([(-waist + 0.02, high + 0.06), (waist - 0.02, high + 0.06)], look.base, 0.08)
    pen.line([(0, high + 0.1), (0.02, high + 0.55)], look.seam, 0.022)


def jeans(pen: Pen, look: Look) -> None:
    """Draw jeans: faded thighs, contrast stitching; skinny with hips for women."""
    bottom = 1.2 - (0.3 if look.child else 0)
    ankle, gap = look.cut(0.34, 0.2), look.near(0.04, 0.1)
    _legs(pen, look, look.cut(0.42, 0.34), look.cut(0.5, 0.47), ankle, bottom, gap)
    thread = (196, 150, 90)
    pen.fill(oval(0, -1.08, 0.035, 0.035), thread, 0)
    for side in (1, -1):
        pen.line([(side * 0.2, -1.02), (side * 0.28, -0.85), (side * 0.45, -0.82)], thread, 0.02)
        pen.shade(oval(side * 0.25, -0.2, 0.1, 0.4), look.near(1.1, 1.4), 0)
        pen.fold([(side * 0.14, 0.35), (side * 0.34, 0.3)], 0.82, 0.05)
        pen.line([(side * (gap + 0.02), bottom - 0.07), (side * (gap + ankle - 0.01), bottom - 0.07)], look.seam, 0.02)


def trousers(pen: Pen, look: Look) -> None:
    """Draw trousers: pressed creases, belt loops, wider at the ankle than jeans."""
    bottom = 1.22 - (0.3 if look.child else 0)
    _legs(pen, look, look.cut(0.44, 0.34), look.cut(0.54, 0.5), look.cut(0.42, 0.36), bottom, look.near(0.02, 0.06))
    for side in (1, -1):
        pen.line([(side * 0.26, -0.8), (side * 0.25, bottom - 0.02)], lighter(look.base, 0.22), 0.025)
        pen.fold([(side * 0.31, -0.8), (side * 0.3, bottom)], 0.84, 0.06)
        pen.line([(side * 0.22, -1.16), (side * 0.22, -1.02)], look.seam, 0.04)


def shorts(pen: Pen, look: Look) -> None:
    """Draw shorts: to the knee and wide for men, short for women."""
    pen.part(0, 0.45, 1.15)
    bottom = look.cut(0.55, 0.02)
    ankle = look.cut(0.58, 0.54)
    _legs(pen, look, look.cut(0.5, 0.42), look.cut(0.62, 0.56), ankle, bottom, 0.05)
    if look.chance(0.4):
        for side in (1, -1):
            pen.line([(side * 0.47, -0.8), (side * (ankle - 0.03), bottom - 0.02)], look.accent, 0.07)
    if look.chance(0.6):
        pen.line([(-0.05, -1.05), (-0.08, -0.75)], (240, 240, 240), 0.025)
        pen.line([(0.05, -1.05), (0.08, -0.78)], (240, 240, 240), 0.025)
    pen.part()

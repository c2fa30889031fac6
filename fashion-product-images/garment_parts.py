"""The parts that clothes of the sample catalog share: the garment's body, its lining, and the person who wears it."""

from math import cos, sin

from outline import Point, mirrored, oval
from palette import SKINS, Color, blend
from studio import Look, Pen


def torso(
    pen: Pen,
    look: Look,
    *,
    top: float,
    bottom: float,
    widths: tuple[float, float, float, float],
    neck: Point,
    sleeve: tuple[float, float, float],
    pointed: bool = False,
) -> None:
    """Draw the part that shirts, tops, kurtas and dresses share.

    Args:
        pen: the pen to draw with.
        look: the colors and the cut.
        top: y of the neck's sides.
        bottom: y of the hem.
        widths: half widths of shoulder, chest, waist and hem.
        neck: half width and depth of the neckline.
        sleeve: length, angle from the vertical in radians, and half width at the end; a length of 0 means no sleeves.
        pointed: whether the neckline is a V.
    """
    # measures
    shoulder, chest, waist, hem = widths
    length, angle, wide = sleeve
    armpit = top + 0.2 + 0.42 * chest / 0.6

    # sleeves
    if length:
        reach = (shoulder - 0.1 + length * sin(angle), top + 0.2 + length * cos(angle))
        out, down = wide * cos(angle), -wide * sin(angle)
        for side in (1, -1):
            arm = [(shoulder - 0.16, top + 0.06), (shoulder + 0.02, top + 0.12), (reach[0] + out, reach[1] + down)]
            arm += [(reach[0] + out, reach[1] + down), (reach[0] - out, reach[1] - down)]
            arm += [(reach[0] - out, reach[1] - down), (chest - 0.1, armpit + 0.05)]
            placed = [(side * x, y) for x, y in arm]
            pen.fill(placed, smooth=1)
            pen.shade(placed, 0.9 if side == 1 else 0.96, smooth=1)
            back = (0.06 * sin(angle), 0.06 * cos(angle))
            cuff = [(side * (reach[0] + k * out - back[0]), reach[1] + k * down - back[1]) for k in (0.9, -0.9)]
            pen.line(cuff, look.seam, 0.018)

    # body
    wide_neck, deep = neck
    front = [(0.0, top + deep), (0.0, top + deep)] if pointed else [(wide_neck * 0.62, top + deep * 0.97)]
    edge: list[Point] = [*front, (wide_neck * 0.95, top + deep * 0.4), (wide_neck, top), (wide_neck, top)]
    middle = top + 0.56 * (min(bottom, 1.0) - top)
    half = [*edge, (shoulder, top + 0.1), (shoulder, top + 0.12), (chest, armpit), (chest, armpit)]
    half += [(waist, middle), (hem, bottom - 0.1), (hem, bottom), (hem, bottom), (0.0, bottom + 0.03)]
    pen.fill(mirrored(half))
    if length:
        for side in (1, -1):
            pen.line([(side * (shoulder - 0.03), top + 0.12), (side * (chest - 0.03), armpit)], look.seam, 0.018)
            pen.fold([(side * (chest + 0.01), armpit - 0.05), (side * (waist + 0.02), middle)], 0.7, 0.05)

    # folds
    for _ in range(int(look.rng.integers(2, 6))):
        x, y = look.near(-0.8, 0.8) * waist, look.near(armpit, bottom)
        pen.fold([(x, y), (x + look.near(-0.3, 0.3), y - look.near(0.2, 0.7))], look.near(0.86, 1.08))


def lining(pen: Pen, look: Look, top: float, neck: Point, color: Color | None = None) -> None:
    """Draw the inside of the back, which the neckline shows. Call this before drawing the front."""
    wide, deep = neck
    inside = color or blend(look.base, (20, 20, 20), 0.4)
    half = [
        (wide * 0.4, top + 0.05),
        (wide + 0.01, top),
        (wide + 0.01, top + deep * 0.45),
        (wide * 0.75, top + deep * 0.95),
    ]
    pen.fill(mirrored([*half, (0, top + deep)]), inside, 0)


def wearer(
    pen: Pen,
    look: Look,
    top: float,
    bottom: float,
    shoulder: float,
    sleeve: tuple[float, float, float],
    bare: float = 1.0,
) -> None:
    """Draw the wearer's head, hair, arms and legs. Call this before drawing the garment.

    Args:
        pen: the pen to draw with.
        look: the cut: a man's, a woman's or a child's.
        top: y of the garment's neck.
        bottom: y of its hem.
        shoulder: half width of its shoulders.
        sleeve: the sleeve that `torso` gets; arms follow a long one.
        bare: half width of the legs below the hem, relative to trousers.
    """
    # colors
    skin = SKINS[int(look.rng.integers(len(SKINS)))]
    hair = blend((28, 20, 16), (120, 80, 40), look.near(0, 0.7))
    woman, big = look.feminine(), 1.25 if look.child else 1.0
    face = top - 0.36 * big

    # hair, neck and face
    if woman:
        locks = [(0.16, face - 0.3), (0.3, face), (0.3, top + look.near(-0.05, 0.4)), (0.1, top + 0.1)]
        pen.fill(mirrored([(x * big, y) for x, y in locks]), hair)
    pen.fill(mirrored([(0.1, top - 0.25), (0.1, top - 0.02), (shoulder * 0.7, top + 0.1), (0.3, top + 0.5)]), skin, 1)
    pen.shade(mirrored([(0.1, top - 0.2), (0.1, top - 0.08)]), 0.78, 1)
    pen.fill(oval(0, face, 0.19 * big, 0.25 * big), skin)
    part = look.near(-0.12, 0.12)
    crown = [(-0.2, face + 0.02), (-0.2, face - 0.2), (0, face - 0.34 * big), (0.2, face - 0.2), (0.2, face + 0.02)]
    pen.fill(
        [*((x * big, y) for x, y in crown), (0.15, face - 0.12), (part, face - 0.2), (-0.15, face - 0.12)], hair, 1
    )

    # mouth, eyes and arms
    lip = blend(skin, (170, 40, 50), 0.75 if woman else 0.3)
    pen.line([(-0.05, face + 0.13), (0.05, face + 0.13)], lip, 0.025)
    for side in (1, -1):
        pen.line([(side * 0.04, face), (side * 0.11, face)], blend(skin, (30, 20, 20), 0.8), 0.03)
        if sleeve[0] > 0.7:
            length, angle = sleeve[0] + 0.05, sleeve[1]
            elbow = (side * (shoulder - 0.1 + 0.5 * length * sin(angle)), top + 0.2 + 0.5 * length * cos(angle))
            hand = (side * (shoulder - 0.1 + length * sin(angle)), top + 0.22 + length * cos(angle))
        else:
            elbow = (side * (shoulder + look.near(0.08, 0.16)), top + 0.85)
            hand = (side * (shoulder + look.near(-0.12, 0.12)), top + 1.4)
        pen.line([(side * (shoulder - 0.06), top + 0.2), elbow, hand], skin, 0.15 if woman else 0.19)
        pen.fill(oval(*hand, 0.08, 0.12), skin, 0)

    # legs
    cloth = skin if bare < 0.7 else blend((40, 52, 84), (24, 24, 26) if look.chance(0.5) else (150, 140, 120), 0.6)
    for side in (1, -1):
        leg = [(0.01, bottom - 0.2), (0.44 * bare, bottom - 0.2), (0.36 * bare, 1.6), (0.06, 1.6)]
        pen.fill([(side * x, y) for x, y in leg], cloth, 0)
        pen.fold([(side * 0.04, bottom), (side * 0.05, 1.5)], 0.8, 0.06)

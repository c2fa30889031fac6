"""The colors of the sample catalog: the named ones, skins and metals, and how they mix."""

import colorsys

import numpy as np

Color = tuple[int, int, int]
Range = tuple[float, float]

# Ranges of hue, saturation and value. Neighbors (Black and Navy Blue, White and Beige, Red and Orange) nearly touch,
# and lighting makes them overlap, as in real catalogs.
PALETTE: dict[str, tuple[Range, Range, Range]] = {
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
WHITE: Color = (238, 238, 236)
DARK: Color = (38, 36, 36)


def dye(rng: np.random.Generator, name: str) -> Color:
    """Draw a random color from the range of a named color."""
    hue, saturation, value = (float(rng.uniform(*limits)) for limits in PALETTE[name])
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def blend(one: Color, other: Color, share: float) -> Color:
    """Mix two colors; `share` is the share of the second, 0-1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def darker(color: Color, share: float = 0.3) -> Color:
    """Darken a color. A nearly black color gets lighter instead, to keep seams visible."""
    return blend(color, (0, 0, 0), share) if max(color) > 62 else blend(color, (255, 255, 255), share * 0.55)


def lighter(color: Color, share: float = 0.3) -> Color:
    """Lighten a color."""
    return blend(color, (255, 255, 255), share)

"""Texture tiles and skies of the synthetic world: procedural, or cut from photographs.

Every tile is 256 x 256 RGB and repeats without a seam (photographs are mirrored by the renderer).
The mip levels of a tile are stored one after the other in a flat array.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8, UInt32
from PIL import Image, ImageDraw

from dyn3r.training.synthetic.photographs import SKY_HW, TILE, read_photographs

LEVELS = 8


@dataclass(frozen=True)
class TextureBank:
    """Textures of surfaces and skies."""

    tiles: UInt32[np.ndarray, "n texels"]
    """Mip chain of every tile: 256², 128², ... 2² texels, row-major, one after the other; red in
    the lowest byte, then green and blue."""
    skies: UInt8[np.ndarray, "m 256 512 3"]
    """Equirectangular skies; the top row is the zenith."""
    num_procedural: int
    """Tiles 0..num_procedural-1 are procedural, the others come from photographs."""
    num_procedural_skies: int
    """Skies 0..num_procedural_skies-1 are procedural."""


def make_bank(seed: int, photos: str | None, num_procedural: int = 120) -> TextureBank:
    """Generate the tiles and skies of `seed` and add those cut from the folder `photos`.

    Raises InputError if the folder is missing or has no readable image.
    """
    rng = np.random.default_rng([seed, 77])
    families = [_fbm, _fbm, _wood, _marble, _bricks, _tiles, _checker, _stripes, _spots]
    families += [_scratches, _text, _cells, _camouflage, _plaid]
    tiles = [_as_uint8(families[k % len(families)](rng)) for k in range(num_procedural)]
    skies = [_as_uint8(_sky(rng)) for _ in range(12)]
    if photos is not None:
        photo_tiles, photo_skies = read_photographs(Path(photos), rng)
        tiles, skies = tiles + photo_tiles, skies + photo_skies
    return TextureBank(_mip_chain(np.stack(tiles)), np.stack(skies), num_procedural, 12)


def _as_uint8(image: np.ndarray) -> np.ndarray:
    """Convert 0..1 to bytes."""
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def _mip_chain(tiles: np.ndarray) -> np.ndarray:
    """Compute all mip levels of tiles (n, 256, 256, 3), packed as in `TextureBank.tiles`."""
    n, size = len(tiles), TILE
    level = tiles.astype(np.float32)
    parts = []
    for _ in range(LEVELS):
        red, green, blue = np.moveaxis(np.clip(level + 0.5, 0, 255).astype(np.uint32), -1, 0)
        parts.append((red | green << 8 | blue << 16).reshape(n, size * size))
        size //= 2
        level = level.reshape(n, size, 2, size, 2, 3).mean((2, 4))
    return np.ascontiguousarray(np.concatenate(parts, 1))


def _noise(
    rng: np.random.Generator, slope: float, stretch: float = 1.0, low: float = 1.0
) -> Float[np.ndarray, "256 256"]:
    """Generate periodic noise with amplitudes frequency^-slope, squashed to 0..1."""
    fy = np.fft.fftfreq(TILE)[:, None] * TILE
    fx = np.fft.rfftfreq(TILE)[None] * TILE * stretch
    radius = np.hypot(fx, fy)
    amplitude = np.where(radius >= low, np.maximum(radius, 1) ** -slope, 0)
    phase = np.exp(2j * np.pi * rng.random(amplitude.shape))
    field = np.fft.irfft2(amplitude * phase, s=(TILE, TILE))
    field = (field - field.mean()) / (field.std() + 1e-9)
    return 1 / (1 + np.exp(-1.6 * field))


def _palette(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 3"]:
    """Sample colours with a common hue, from grey to saturated."""
    saturation = rng.uniform(0, 1) ** 1.5
    base = rng.random(3)
    colours = []
    for _ in range(n):
        hue = base + rng.normal(0, 0.35, 3)
        grey = rng.uniform(0.08, 0.95)
        hue = hue - hue.mean()
        colours.append(np.clip(grey + saturation * hue, 0.02, 0.98))
    return np.array(colours)


def _blend(field: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Map 0..1 to a piecewise linear ramp of colours."""
    x = np.clip(field, 0, 1) * (len(colours) - 1)
    low = np.minimum(x.astype(int), len(colours) - 2)
    part = (x - low)[..., None]
    return colours[low] * (1 - part) + colours[low + 1] * part


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Compute y and x (256, 256) in 0..1."""
    y, x = np.mgrid[:TILE, :TILE] / TILE
    return y, x


def _grain(rng: np.random.Generator, image: np.ndarray, most: float = 0.25) -> np.ndarray:
    """Multiply an image by noise."""
    amount = rng.uniform(0, most)
    field = _noise(rng, rng.uniform(0.5, 1.6))[..., None]
    return image * (1 - amount + 2 * amount * field)


def _fbm(rng: np.random.Generator) -> np.ndarray:
    """Generate fractal noise."""
    field = _noise(rng, rng.uniform(0.6, 2.2), rng.choice([1.0, 1.0, 4.0, 0.2]))
    return _blend(field, _palette(rng, int(rng.integers(2, 5))))


def _wood(rng: np.random.Generator) -> np.ndarray:
    """Generate wood, sometimes as planks."""
    _y, x = _grid()
    warp = _noise(rng, 2.2, 0.25) * rng.uniform(0.5, 3)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (x * rng.integers(2, 9) + warp))
    fine = _noise(rng, 0.8, 0.08)
    dark = np.array([rng.uniform(0.15, 0.4), rng.uniform(0.08, 0.25), rng.uniform(0.02, 0.15)])
    light = np.clip(dark + rng.uniform(0.2, 0.5) * np.array([1, 0.8, 0.55]), 0, 1)
    image = _blend(0.65 * rings + 0.35 * fine, np.stack([dark, light]))
    if rng.random() < 0.5:  # planks
        planks = int(rng.integers(2, 7))
        edge = np.abs((x * planks) % 1 - 0.5) > 0.48
        tone = rng.uniform(0.7, 1.2, planks)[np.minimum((x * planks).astype(int), planks - 1)]
        image = image * (tone * np.where(edge, 0.4, 1))[..., None]
    return image


def _marble(rng: np.random.Generator) -> np.ndarray:
    """Generate marble."""
    field = np.abs(2 * _noise(rng, rng.uniform(1.4, 2)) - 1) ** rng.uniform(0.3, 0.8)
    return _blend(field, _palette(rng, 3))


def _bricks(rng: np.random.Generator) -> np.ndarray:
    """Generate a brick wall."""
    y, x = _grid()
    rows = 2 * int(rng.integers(2, 8))
    columns = max(1, rows // int(rng.integers(2, 4)))
    row = (y * rows).astype(int)
    across = (x * columns + 0.5 * (row % 2)) % columns
    joint = rng.uniform(0.03, 0.1)
    fx, fy = across % 1, (y * rows) % 1
    mortar = (fy < joint * 1.5) | (fx < joint * 1.5 * columns / rows)
    tone = rng.uniform(0, 1, (rows, columns))[row, across.astype(int)]
    colours = _palette(rng, 3)
    if rng.random() < 0.5:
        colours[:2] = [[0.55, 0.25, 0.18], [0.35, 0.14, 0.1]]
    image = np.where(mortar[..., None], colours[2], _blend(tone, colours[:2]))
    return _grain(rng, image, 0.4)


def _tiles(rng: np.random.Generator) -> np.ndarray:
    """Generate tiles with joints."""
    y, x = _grid()
    n = int(rng.integers(2, 9))
    joint = rng.uniform(0.02, 0.08)
    mortar = ((x * n) % 1 < joint) | ((y * n) % 1 < joint)
    tone = rng.uniform(0, 1, (n, n)) ** 2 * rng.uniform(0, 1)
    image = _blend(tone[(y * n).astype(int), (x * n).astype(int)], _palette(rng, 3))
    image = np.where(mortar[..., None], _palette(rng, 1)[0], image)
    return _grain(rng, image)


def _checker(rng: np.random.Generator) -> np.ndarray:
    """Generate a checkerboard."""
    y, x = _grid()
    n = 2 * int(rng.integers(1, 7))
    odd = ((x * n).astype(int) + (y * n).astype(int)) % 2
    return _grain(rng, _palette(rng, 2)[odd])


def _stripes(rng: np.random.Generator) -> np.ndarray:
    """Generate stripes."""
    y, x = _grid()
    a, b = int(rng.integers(0, 9)), int(rng.integers(1, 9))
    wave = np.sin(2 * np.pi * (a * x + b * y + rng.uniform(0, 0.2) * _noise(rng, 2)))
    return _grain(rng, _blend(0.5 + rng.choice([0.5, 4.0]) * wave, _palette(rng, 2)))


def _discs(rng: np.random.Generator, n: int, smallest: float, largest: float) -> np.ndarray:
    """Compute the index of the topmost periodic disc at every texel, -1 for none."""
    y, x = _grid()
    index = np.full((TILE, TILE), -1)
    for k in range(n):
        cx, cy = rng.random(2)
        radius = rng.uniform(smallest, largest)
        dx, dy = (x - cx + 0.5) % 1 - 0.5, (y - cy + 0.5) % 1 - 0.5
        index[dx * dx + dy * dy < radius * radius] = k
    return index


def _spots(rng: np.random.Generator) -> np.ndarray:
    """Generate spots."""
    n, size = int(rng.integers(6, 50)), rng.uniform(0.03, 0.14)
    index = _discs(rng, n, 0.3 * size, size)
    colours = _palette(rng, 5)
    return _grain(rng, np.where(index[..., None] < 0, colours[4], colours[index % 4]))


def _scratches(rng: np.random.Generator) -> np.ndarray:
    """Generate scratches."""
    colours = _palette(rng, 4)
    canvas = Image.new("RGB", (TILE, TILE), tuple(_as_uint8(colours[0]).tolist()))
    draw = ImageDraw.Draw(canvas)
    along = rng.uniform(0, np.pi)
    spread = rng.choice([0.1, 2.0])
    for _ in range(int(rng.integers(20, 160))):
        x, y = rng.random(2) * TILE
        angle, length = along + rng.normal(0, spread), rng.uniform(10, 120)
        colour = tuple(_as_uint8(colours[rng.integers(1, 4)]).tolist())
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        draw.line([(x, y), end], fill=colour, width=int(rng.integers(1, 4)))
    return _grain(rng, np.asarray(canvas) / 255.0)


def _text(rng: np.random.Generator) -> np.ndarray:
    """Generate a page of text-like strokes."""
    paper, ink = _palette(rng, 2)
    if rng.random() < 0.6:
        paper, ink = np.array([0.92, 0.91, 0.88]), np.array([0.06, 0.06, 0.08])
    canvas = Image.new("RGB", (TILE, TILE), tuple(_as_uint8(paper).tolist()))
    draw = ImageDraw.Draw(canvas)
    line, colour = int(rng.integers(9, 40)), tuple(_as_uint8(ink).tolist())
    for top in range(line // 2, TILE - line, int(line * 1.4)):
        x = line / 2
        while x < TILE - line:
            width = line * rng.uniform(0.3, 0.6)
            if rng.random() > 0.18:  # a glyph: a few strokes
                for _ in range(int(rng.integers(2, 4))):
                    corners = rng.random(4) * [width, line * 0.8, width, line * 0.8]
                    ends = [(x + corners[0], top + corners[1]), (x + corners[2], top + corners[3])]
                    draw.line(ends, fill=colour, width=max(1, line // 9))
            x += width * 1.2
    if rng.random() < 0.5:  # an image on the page
        x, y = rng.integers(0, TILE // 2, 2)
        box = [x, y, x + int(rng.integers(30, 120)), y + int(rng.integers(30, 120))]
        draw.rectangle(box, fill=tuple(_as_uint8(_palette(rng, 1)[0]).tolist()))
    return np.asarray(canvas) / 255.0


def _cells(rng: np.random.Generator) -> np.ndarray:
    """Generate Voronoi cells."""
    y, x = _grid()
    n = int(rng.integers(8, 40))
    centres = rng.random((n, 2))
    dx = (x[..., None] - centres[:, 0] + 0.5) % 1 - 0.5
    dy = (y[..., None] - centres[:, 1] + 0.5) % 1 - 0.5
    distance = dx * dx + dy * dy
    nearest = distance.argmin(-1)
    two = np.sqrt(np.partition(distance, 1, -1)[..., :2])
    edge = np.clip((two[..., 1] - two[..., 0]) / rng.uniform(0.01, 0.05), 0, 1)
    image = _palette(rng, 6)[nearest % 6] * edge[..., None] ** rng.choice([0.3, 1.0])
    return _grain(rng, image)


def _camouflage(rng: np.random.Generator) -> np.ndarray:
    """Generate camouflage."""
    levels = int(rng.integers(2, 6))
    field = (_noise(rng, rng.uniform(1.3, 2)) * levels).astype(int).clip(0, levels - 1)
    return _grain(rng, _palette(rng, levels)[field])


def _plaid(rng: np.random.Generator) -> np.ndarray:
    """Generate plaid."""
    y, x = _grid()
    colours = _palette(rng, 3)
    a, b = rng.integers(1, 8, 2)
    one = np.sin(2 * np.pi * a * x) > rng.uniform(-0.5, 0.8)
    two = np.sin(2 * np.pi * b * y) > rng.uniform(-0.5, 0.8)
    image = colours[0] + 0.5 * one[..., None] * (colours[1] - colours[0])
    return _grain(rng, image + 0.5 * two[..., None] * (colours[2] - image))


def _sky(rng: np.random.Generator) -> np.ndarray:
    """Generate a sky: a gradient to the zenith with stretched clouds; haze below the horizon."""
    h, w = SKY_HW
    up = np.linspace(1, -1, h)[:, None, None]
    zenith = np.array([0.25, 0.45, 0.8]) * rng.uniform(0.5, 1.1)
    horizon = np.clip(np.array([0.75, 0.82, 0.9]) + rng.normal(0, 0.1, 3), 0, 1)
    if rng.random() < 0.3:  # overcast or dusk
        zenith, horizon = _palette(rng, 2) * 0.5 + 0.3
    sky = horizon + (zenith - horizon) * np.clip(up, 0, 1) ** rng.uniform(0.4, 1)
    clouds = np.concatenate([_noise(rng, 1.7, 0.5), _noise(rng, 1.7, 0.5)], 1)[:h, :w]
    clouds = 0.5 * (clouds + np.roll(clouds[:, ::-1], 40, 1))
    cover = np.clip((clouds - rng.uniform(0.4, 0.9)) * 4, 0, 1)[..., None]
    return np.clip(sky + cover * (0.95 - sky) * np.clip(up * 4, 0, 1), 0, 1)

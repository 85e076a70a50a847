"""Map HDR and BT.2020 pictures to bt709 by a table of colours, which FFmpeg and Pillow apply quickly.

FFmpeg's own mapping builds such a table for every picture size, which takes seven seconds each time.
Sources: ITU-R BT.2100 (PQ and HLG), BT.2087 (BT.2020 to bt709), BT.2408 (white is at 203 cd/m²), BT.1886 (screens).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import exp
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

Transfer = Literal["pq", "hlg", "sdr"]
Colour = tuple[float, float, float]

_TABLE_EDGE = 33
"""Number of entries along each edge of the table."""
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
_KNEE = 0.6
"""Share of white up to which light stays unchanged. Brighter light is compressed into the remaining range."""
_TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))


@contextmanager
def write_cube_file(transfer: Transfer) -> Iterator[Path]:
    """Provide the path of a table for FFmpeg's `lut3d`. The file is removed after the block."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tones.cube"
        path.write_text(_build_cube(transfer), encoding="ascii")
        yield path


@cache
def _build_cube(transfer: Transfer) -> str:
    steps = [step / (_TABLE_EDGE - 1) for step in range(_TABLE_EDGE)]
    rows = (map_colour((red, green, blue), transfer) for blue in steps for green in steps for red in steps)
    return f"LUT_3D_SIZE {_TABLE_EDGE}\n" + "".join(f"{red:.5f} {green:.5f} {blue:.5f}\n" for red, green, blue in rows)


def map_colour(signal: Colour, transfer: Transfer) -> Colour:
    """Convert a colour from BT.2020 to bt709. Both are signals from 0 to 1."""
    light = _DECODERS[transfer](signal)
    red, green, blue = (max(0.0, sum(a * b for a, b in zip(row, light, strict=True))) for row in _TO_BT709)
    brightest = max(red, green, blue)
    scale = _compress_highlights(brightest) / brightest if brightest > _KNEE and transfer != "sdr" else 1.0
    red, green, blue = (min(1.0, band * scale) ** (1 / 2.4) for band in (red, green, blue))
    return red, green, blue


def _compress_highlights(light: float) -> float:
    """Compress light between the knee and the peak into the range up to white, by Reinhard's curve."""
    room = 1 - _KNEE
    over = (light - _KNEE) / room
    peak = (_PEAK_NITS / _WHITE_NITS - _KNEE) / room
    return min(1.0, _KNEE + room * over * (1 + over / peak**2) / (1 + over))


def _decode_pq(signal: Colour) -> Colour:
    red, green, blue = (_decode_pq_nits(band) / _WHITE_NITS for band in signal)
    return red, green, blue


def _decode_pq_nits(signal: float) -> float:
    root = signal ** (1 / 78.84375)
    light: float = (max(0.0, root - 0.8359375) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    return 10_000 * light


def _decode_hlg(signal: Colour) -> Colour:
    """Return the light of a screen of 1000 cd/m², by which white is 1."""
    red, green, blue = (_decode_hlg_scene(band) for band in signal)
    luminance = 0.2627 * red + 0.678 * green + 0.0593 * blue
    scale = _PEAK_NITS / _WHITE_NITS * luminance**0.2
    return red * scale, green * scale, blue * scale


def _decode_hlg_scene(signal: float) -> float:
    if signal <= 0.5:
        return signal**2 / 3
    return (exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12


def _decode_sdr(signal: Colour) -> Colour:
    red, green, blue = (band**2.4 for band in signal)
    return red, green, blue


_DECODERS: dict[Transfer, Callable[[Colour], Colour]] = {"pq": _decode_pq, "hlg": _decode_hlg, "sdr": _decode_sdr}

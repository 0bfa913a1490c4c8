"""3×3 convolutions with fewer multiplications, compiled for the CPU at hand: Winograd's minimal filtering on BLAS.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308): with n = m + 2, an m×m tile of
the output is Aᵀ[(GgGᵀ) ⊙ (BᵀdB)]A for an n×n tile d of the input and a 3×3 kernel g. That takes n² multiplications
where the definition takes 9m². Summed over channels, each of the n² positions is a matrix product, which BLAS computes;
the rest are additions. The transforms are the paper's F(4×4, 3×3), and F(6×6, 3×3) for the points 0, ±1, ±2, ±1/2, ∞.

Arrays are float32, of one picture, (height, width, channels). What a convolution reads or writes is a canvas: the
picture one pixel in from the upper left, among zeros. All channels but those of pixels are multiples of 64.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FILTERS = 64  # multiplied and transformed back at a time
# Tiles multiplied at a time: few enough for the second-level cache, and for the products to be small ones. Up to 100³
# multiplications, OpenBLAS with AVX-512 multiplies matrices as they lie; larger ones it first copies, which takes longer
# here than multiplying (kernel/x86_64/sgemm_small_kernel_permit_skylakex.c).
TILES = 40
SMALL = 100**3
GAP = 16  # numbers between one position's and the next, lest all begin in the same place of the processor's cache

_G = {
    4: [
        [1 / 4, 0, 0],
        [-1 / 6] * 3,
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    6: [
        [1, 0, 0],
        [-2 / 9] * 3,
        [-2 / 9, 2 / 9, -2 / 9],
        [1 / 90, 1 / 45, 2 / 45],
        [1 / 90, -1 / 45, 2 / 45],
        [1 / 45, 1 / 90, 1 / 180],
        [1 / 45, -1 / 90, 1 / 180],
        [0, 0, 1],
    ],
}

F = np.float32  # a plain number would make these computations float64


def _compiled(function: Any) -> Any:
    """Compile at the first use on a machine; kept beside this file, or in the user's cache folder."""
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "nsz"}, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither folder can be written: some seconds more, every time
        return njit(**options)(function)


class Scratch(NamedTuple):
    """Room for what is on the way, one a thread: tiles half transformed, whole, multiplied, and transformed back."""

    half: NDArray[np.float32]
    tiles: NDArray[np.float32]
    products: NDArray[np.float32]
    outputs: NDArray[np.float32]


def tile_side(size: int) -> int:
    """Return m for pictures of `size` × `size`: that with fewer multiplications, tiles that stick out included."""
    return min((4, 6), key=lambda m: ((m + 2) * -(-size // m)) ** 2)


def canvas_side(size: int) -> int:
    """Return the height and width of a canvas on which a picture of `size` × `size` can be convolved."""
    m = tile_side(size)
    return -(-size // m) * m + 2


def transform_kernel(kernel: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return GgGᵀ of a kernel (3, 3, channels, filters) for such pictures: (n², filters / 64, channels, 64), float32."""
    g = np.array(_G[tile_side(size)])
    both = np.kron(g, g)
    channels, filters = kernel.shape[2:]
    transformed = np.empty((len(both), filters // FILTERS, channels, FILTERS), np.float32)
    for part in range(filters // FILTERS):
        own = kernel[..., part * FILTERS : (part + 1) * FILTERS].reshape(9, -1)
        transformed[:, part] = (both @ own.astype(np.float64)).reshape(-1, channels, FILTERS)
    return transformed


def scratch(layers: list[tuple[int, int, int]]) -> Scratch:
    """Return room enough for each of `layers`: size, channels and filters of a convolution."""
    room = [0, 0, 0, 0]
    for size, channels, filters in layers:
        m = tile_side(size)
        n, across = m + 2, -(-size // m)
        tiles = max(TILES, across)
        half = max(n * m * (across + 1) * channels, n * m * tiles * FILTERS)
        needed = half, n * n * (tiles * channels + GAP), n * n * (tiles * filters + GAP), m * m * tiles * FILTERS
        room = [max(pair) for pair in zip(room, needed, strict=True)]
    return Scratch(*(np.empty(numbers, np.float32) for numbers in room))


@_compiled
def _stretches(x, i, di, length):
    """Return three stretches of `x`, which is flat: the first from i on, each further by di."""
    return x[i : i + length], x[i + di : i + di + length], x[i + 2 * di : i + 2 * di + length]


@_compiled
def _bt4(d, i, di, wrap, v, j, dj, length):
    d0, d1, d2 = _stretches(d, i, di, length)
    d3, d4, d5 = d[i + 3 * di :][:length], d[i + wrap :][:length], d[i + wrap + di :][:length]
    v0, v1, v2 = _stretches(v, j, dj, length)
    v3, v4, v5 = _stretches(v, j + 3 * dj, dj, length)
    for c in range(length):
        a, b = d4[c] - F(4) * d2[c], d3[c] - F(4) * d1[c]
        e, f = d4[c] - d2[c], F(2) * (d3[c] - d1[c])
        x0, x5 = F(4) * d0[c] - F(5) * d2[c] + d4[c], F(4) * d1[c] - F(5) * d3[c] + d5[c]
        v0[c], v1[c], v2[c], v3[c], v4[c], v5[c] = x0, a + b, a - b, e + f, e - f, x5


@_compiled
def _bt6(d, i, di, wrap, v, j, dj, length):
    r0, r1, r2 = _stretches(d, i, di, length)
    r3, r4, r5 = _stretches(d, i + 3 * di, di, length)
    r6, r7 = d[i + wrap :][:length], d[i + wrap + di :][:length]
    v0, v1, v2 = _stretches(v, j, dj, length)
    v3, v4, v5 = _stretches(v, j + 3 * dj, dj, length)
    v6, v7 = v[j + 6 * dj :][:length], v[j + 7 * dj :][:length]
    for c in range(length):
        d0, d1, d2, d3, d4, d5, d6, d7 = r0[c], r1[c], r2[c], r3[c], r4[c], r5[c], r6[c], r7[c]
        a, b = d2 + d6 - F(4.25) * d4, d1 + d5 - F(4.25) * d3
        e, f = d6 + F(0.25) * d2 - F(1.25) * d4, F(0.5) * d1 - F(2.5) * d3 + F(2) * d5
        g, h = d6 + F(4) * d2 - F(5) * d4, F(2) * d1 - F(2.5) * d3 + F(0.5) * d5
        x0, x7 = d0 - d6 + F(5.25) * (d4 - d2), d7 - d1 + F(5.25) * (d3 - d5)
        v0[c], v1[c], v2[c], v3[c], v4[c], v5[c], v6[c], v7[c] = x0, a + b, a - b, e + f, e - f, g + h, g - h, x7


@_compiled
def _at4(p, i, di, y, j, dj, length):
    p0, p1, p2 = _stretches(p, i, di, length)
    p3, p4, p5 = _stretches(p, i + 3 * di, di, length)
    y0, y1, y2 = _stretches(y, j, dj, length)
    y3 = y[j + 3 * dj :][:length]
    for c in range(length):
        a, b, e, f = p1[c] + p2[c], p1[c] - p2[c], p3[c] + p4[c], p3[c] - p4[c]
        y0[c], y1[c], y2[c], y3[c] = p0[c] + a + e, b + F(2) * f, a + F(4) * e, b + F(8) * f + p5[c]


@_compiled
def _at6(p, i, di, y, j, dj, length):
    p0, p1, p2 = _stretches(p, i, di, length)
    p3, p4, p5 = _stretches(p, i + 3 * di, di, length)
    p6, p7 = p[i + 6 * di :][:length], p[i + 7 * di :][:length]
    y0, y1, y2 = _stretches(y, j, dj, length)
    y3, y4, y5 = _stretches(y, j + 3 * dj, dj, length)
    for c in range(length):
        a, b, e, f, g, h = p1[c] + p2[c], p1[c] - p2[c], p3[c] + p4[c], p3[c] - p4[c], p5[c] + p6[c], p5[c] - p6[c]
        x0, x1 = p0[c] + a + e + F(32) * g, b + F(2) * f + F(16) * h
        x2, x3 = a + F(4) * e + F(8) * g, b + F(8) * f + F(4) * h
        x4, x5 = a + F(16) * e + F(2) * g, p7[c] + b + F(32) * f + h
        y0[c], y1[c], y2[c], y3[c], y4[c], y5[c] = x0, x1, x2, x3, x4, x5


@_compiled
def _bt(m, d, i, di, wrap, v, j, dj, length):
    """v = Bᵀd. Stretches of d, from i on and each further by di, but the last two from i + wrap on; those of v likewise."""
    if m == 4:
        _bt4(d, i, di, wrap, v, j, dj, length)
    else:
        _bt6(d, i, di, wrap, v, j, dj, length)


@_compiled
def _at(m, p, i, di, y, j, dj, length):
    """y = Aᵀp."""
    if m == 4:
        _at4(p, i, di, y, j, dj, length)
    else:
        _at6(p, i, di, y, j, dj, length)


@_compiled
def _transform(m, x, size, rows, scratch):
    """Bᵀd along columns, then along rows, for the tiles in these rows of tiles: to `scratch.tiles`, (n², tiles, channels)."""
    side, _, channels = x.shape
    flat, half = x.reshape(-1), scratch.half
    first, last = rows
    n, across = m + 2, (size + m - 1) // m
    apart = (last - first) * across * channels + GAP
    column = (across + 1) * channels  # each m-th column of the picture, side by side
    down = side * channels
    for row in range(first, last):
        for k in range(m * across + 2):
            i, j = row * m * down + k * channels, k % m * column + k // m * channels
            _bt(m, flat, i, down, m * down, half, j, m * column, channels)
        for a in range(n):
            i, j = a * m * column, a * n * apart + (row - first) * across * channels
            _bt(m, half, i, column, channels, scratch.tiles, j, apart, across * channels)


@_compiled
def _multiply(u, tiles, scratch):
    """Multiply at each position: `scratch.tiles` by the kernel, to `scratch.products`, (n², filters / 64, tiles, 64)."""
    positions, parts, channels, _ = u.shape
    for position in range(positions):
        i = position * (tiles * channels + GAP)
        left = scratch.tiles[i : i + tiles * channels].reshape(tiles, channels)
        for part in range(parts):
            i = position * (tiles * parts * FILTERS + GAP) + part * tiles * FILTERS
            np.dot(left, u[position, part], scratch.products[i : i + tiles * FILTERS].reshape(tiles, FILTERS))


@_compiled
def _write(m, y, length, bias, to):
    """Write one tile, whose m² positions lie `length` apart in y."""
    for a in range(to.shape[0]):
        for b in range(to.shape[1]):
            output, given = to[a, b, :FILTERS], y[(a * m + b) * length :][:FILTERS]
            for c in range(FILTERS):
                value = given[c] + bias[c]
                output[c] = F(0) if value < F(0) else value


@_compiled
def _pool(m, y, length, bias, to):
    """Write the maxima of one tile's 2×2 squares."""
    for a in range(to.shape[0]):
        for b in range(to.shape[1]):
            upper = 2 * (a * m + b) * length
            lower = upper + m * length
            y0, y1 = y[upper:][:FILTERS], y[upper + length :][:FILTERS]
            y2, y3 = y[lower:][:FILTERS], y[lower + length :][:FILTERS]
            output = to[a, b, :FILTERS]
            for c in range(FILTERS):
                value = max(y0[c], y1[c], y2[c], y3[c]) + bias[c]
                output[c] = F(0) if value < F(0) else value


@_compiled
def _transform_back(m, bias, size, rows, full, pooled, scratch):
    """AᵀpA, then bias, ReLU and pooling, 64 filters at a time: from `scratch.products` to the canvases."""
    half, y = scratch.half, scratch.outputs
    first, last = rows
    n, across = m + 2, (size + m - 1) // m
    tiles = (last - first) * across
    apart, length = tiles * len(bias) + GAP, tiles * FILTERS
    for k in range(0, len(bias), FILTERS):
        for b in range(n):
            _at(m, scratch.products, b * apart + k * tiles, n * apart, half, b * length, n * length, length)
        for a in range(m):
            _at(m, half, a * n * length, length, y, a * m * length, length, length)
        add = bias[k : k + FILTERS]
        for tile in range(tiles):
            top, left = (first + tile // across) * m, tile % across * m
            height, width = min(m, size - top), min(m, size - left)
            outputs = y[tile * FILTERS :]
            if full.size:
                to = full[1 + top : 1 + top + height, 1 + left : 1 + left + width, k : k + FILTERS]
                _write(m, outputs, length, add, to)
            if pooled.size:
                i, j = 1 + top // 2, 1 + left // 2
                to = pooled[i : i + height // 2, j : j + width // 2, k : k + FILTERS]
                _pool(m, outputs, length, add, to)


@_compiled
def convolve(x, size, u, bias, full, pooled, scratch):
    """Convolve a picture, add the bias, cut off below zero, and pool where that is wanted.

    Args:
        x: the picture's canvas, (side, side, channels).
        size: the picture's height and width.
        u: the kernel, from `transform_kernel` for that size.
        bias: (filters,).
        full: canvas for the output; of no size: not wanted.
        pooled: canvas for the maxima of the output's 2×2 squares; of no size: not wanted.
        scratch: from `scratch`.
    """
    m = 4 if u.shape[0] == 36 else 6
    across = (size + m - 1) // m
    step = max(1, min(TILES, SMALL // FILTERS // x.shape[2]) // across)
    for first in range(0, across, step):
        last = min(first + step, across)
        _transform(m, x, size, (first, last), scratch)
        _multiply(u, (last - first) * across, scratch)
        _transform_back(m, bias, size, (first, last), full, pooled, scratch)


@_compiled
def convolve_pixels(x, size, kernel, bias, full):
    """Do the same for the few channels of pixels by the definition, for which `kernel` is (9 · channels, filters)."""
    channels = x.shape[2]
    squares = np.empty((size, 9 * channels), F)
    line = np.empty((size, len(bias)), F)
    for i in range(size):
        for a in range(3):
            row = x[i + a].reshape(-1)
            for j in range(size):
                for k in range(3 * channels):
                    squares[j, 3 * channels * a + k] = row[channels * j + k]
        np.dot(squares, kernel, line)
        for j in range(size):
            to = full[1 + i, 1 + j]
            for c in range(len(bias)):
                value = line[j, c] + bias[c]
                to[c] = F(0) if value < F(0) else value

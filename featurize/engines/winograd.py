"""3×3 convolutions with fewer multiplications, compiled for the CPU at hand: Winograd's minimal filtering on BLAS.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308): with n = m + 2, an m×m tile of
the output is Aᵀ[(GgGᵀ) ⊙ (BᵀdB)]A for an n×n tile d of the input and a 3×3 kernel g. That takes n² multiplications
where the definition takes 9m². Summed over channels, each of the n² positions is a matrix product, which BLAS computes;
the rest are mostly additions. m is 4 or 8. The matrices come from n - 1 points and ∞ (Cook & Toom; a good account is
Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks",
arXiv:1803.10986). The points are 0 and pairs ±p, and each pair shares what is even and what is odd in it.

Arrays are float32, of one picture, (height, width, channels). What a convolution reads or writes is a canvas: the
picture one pixel in from the upper left, among zeros. All channels but those of pixels are multiples of 64.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FILTERS = 64  # multiplied and transformed back at once
TILES = 50  # transformed and multiplied at once: at most this many, at least one row
# Up to this many multiplications, OpenBLAS with AVX-512 multiplies matrices in place; larger ones it copies first, which
# takes longer here than multiplying (kernel/x86_64/sgemm_small_kernel_permit_skylakex.c).
SMALL = 100**3
GAP = 16  # numbers between blocks of memory, so that they do not all map to the same cache set

# The p of each m. Of pairs tried beside 1, 1/2 and 2, 3/4 had the smallest error (5e-5 a layer; 4/3 as small, 4 and 1/4
# six times that), and all numbers made of these are exact in float32.
POINTS = {4: (1.0, 2.0), 8: (1.0, 0.5, 2.0, 0.75)}

F = np.float32  # a plain number would make these computations float64


def _polynomial(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coefficients of Π (x² - q), those of even powers, lowest first."""
    return np.asarray(np.poly1d(squares, True).coeffs[::-1])


def _exact(numbers: NDArray[np.float64]) -> tuple[np.float32, ...]:
    return tuple(np.float32(number) for number in numbers)


_EIGHT = np.array(POINTS[8])
_OTHERS = [_polynomial(np.delete(_EIGHT, k) ** 2) for k in range(4)]
_Z = _exact(_polynomial(_EIGHT**2))  # of the rows of Bᵀ for 0 and ∞
_E0, _E1, _E2, _E3 = (_exact(even) for even in _OTHERS)  # of the rows for ±p: their even part,
_O0, _O1, _O2, _O3 = (_exact(p * even) for p, even in zip(_EIGHT, _OTHERS, strict=True))  # and their odd part
_P1, _P2, _P3 = (_exact(p ** np.arange(8)) for p in _EIGHT[1:])  # of Aᵀ


def _compiled(function: Any) -> Any:
    """Compile at the first use on a machine; the result is kept beside this file, or in the user's cache folder."""
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "nsz"}, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither folder can be written: some seconds more, every time
        return njit(**options)(function)


class Scratch(NamedTuple):
    """Buffers of one thread: tiles half transformed, transformed, multiplied, and transformed back."""

    half: NDArray[np.float32]
    tiles: NDArray[np.float32]
    products: NDArray[np.float32]
    outputs: NDArray[np.float32]


def tile_side(size: int) -> int:
    """Return m for pictures of `size` × `size`.

    In small pictures, much of the 8×8 tiles is padding, and the 100 matrix products are small.
    """
    return 8 if size >= 48 else 4


def canvas_side(size: int) -> int:
    """Return the height and width of a canvas on which a picture of `size` × `size` can be convolved."""
    m = tile_side(size)
    return -(-size // m) * m + 2


def _g(m: int) -> NDArray[np.float64]:
    """Return G, (n, 3): a row (1, p, p²) / Π (p - q) for each point p, over the other points q, and (0, 0, 1) for ∞."""
    points = [0.0, *(sign * p for p in POINTS[m] for sign in (1, -1))]
    rows = [np.power(p, np.arange(3)) / np.prod([p - q for q in points if q != p]) for p in points]
    return np.array([*rows, (0, 0, 1)])


def transform_kernel(kernel: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return GgGᵀ of a kernel (3, 3, channels, filters) for such pictures: (n², filters / 64, channels, 64), float32."""
    g = _g(tile_side(size))
    both = np.kron(g, g)
    channels, filters = kernel.shape[2:]
    transformed = np.empty((len(both), filters // FILTERS, channels, FILTERS), np.float32)
    for part in range(filters // FILTERS):
        own = kernel[..., part * FILTERS : (part + 1) * FILTERS].reshape(9, -1)
        transformed[:, part] = (both @ own.astype(np.float64)).reshape(-1, channels, FILTERS)
    return transformed


def scratch(layers: list[tuple[int, int, int]]) -> Scratch:
    """Allocate buffers that fit each of `layers`: size, channels and filters of a convolution."""
    room = [0, 0, 0, 0]
    for size, channels, filters in layers:
        m = tile_side(size)
        n, across = m + 2, -(-size // m)
        tiles = max(TILES, across)
        half = max(n * m * ((across + 1) * channels + GAP), n * m * tiles * FILTERS)
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
def _bt8(d, i, di, wrap, v, j, dj, length):
    r0, r1, r2 = _stretches(d, i, di, length)
    r3, r4, r5 = _stretches(d, i + 3 * di, di, length)
    r6, r7 = d[i + 6 * di :][:length], d[i + 7 * di :][:length]
    r8, r9 = d[i + wrap :][:length], d[i + wrap + di :][:length]
    v0, v1, v2 = _stretches(v, j, dj, length)
    v3, v4, v5 = _stretches(v, j + 3 * dj, dj, length)
    v6, v7, v8 = _stretches(v, j + 6 * dj, dj, length)
    v9 = v[j + 9 * dj :][:length]
    for c in range(length):  # in two loops: LLVM leaves one that writes to more than eight places as it is
        d1, d2, d3, d4, d5, d6, d7, d8 = r1[c], r2[c], r3[c], r4[c], r5[c], r6[c], r7[c], r8[c]
        x0 = _Z[0] * r0[c] + _Z[1] * d2 + _Z[2] * d4 + _Z[3] * d6 + d8
        e0, f0 = _E0[0] * d2 + _E0[1] * d4 + _E0[2] * d6 + d8, _O0[0] * d1 + _O0[1] * d3 + _O0[2] * d5 + _O0[3] * d7
        e1, f1 = _E1[0] * d2 + _E1[1] * d4 + _E1[2] * d6 + d8, _O1[0] * d1 + _O1[1] * d3 + _O1[2] * d5 + _O1[3] * d7
        v0[c], v1[c], v2[c], v3[c], v4[c] = x0, e0 + f0, e0 - f0, e1 + f1, e1 - f1
    for c in range(length):
        d1, d2, d3, d4, d5, d6, d7, d8 = r1[c], r2[c], r3[c], r4[c], r5[c], r6[c], r7[c], r8[c]
        e2, f2 = _E2[0] * d2 + _E2[1] * d4 + _E2[2] * d6 + d8, _O2[0] * d1 + _O2[1] * d3 + _O2[2] * d5 + _O2[3] * d7
        e3, f3 = _E3[0] * d2 + _E3[1] * d4 + _E3[2] * d6 + d8, _O3[0] * d1 + _O3[1] * d3 + _O3[2] * d5 + _O3[3] * d7
        x9 = _Z[0] * d1 + _Z[1] * d3 + _Z[2] * d5 + _Z[3] * d7 + r9[c]
        v5[c], v6[c], v7[c], v8[c], v9[c] = e2 + f2, e2 - f2, e3 + f3, e3 - f3, x9


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
def _at8(p, i, di, y, j, dj, length):
    p0, p1, p2 = _stretches(p, i, di, length)
    p3, p4, p5 = _stretches(p, i + 3 * di, di, length)
    p6, p7, p8 = _stretches(p, i + 6 * di, di, length)
    p9 = p[i + 9 * di :][:length]
    y0, y1, y2 = _stretches(y, j, dj, length)
    y3, y4, y5 = _stretches(y, j + 3 * dj, dj, length)
    y6, y7 = y[j + 6 * dj :][:length], y[j + 7 * dj :][:length]
    for c in range(length):
        s0, s1, s2, s3 = p1[c] + p2[c], p3[c] + p4[c], p5[c] + p6[c], p7[c] + p8[c]
        t0, t1, t2, t3 = p1[c] - p2[c], p3[c] - p4[c], p5[c] - p6[c], p7[c] - p8[c]
        x0, x7 = p0[c] + s0 + s1 + s2 + s3, t0 + _P1[7] * t1 + _P2[7] * t2 + _P3[7] * t3 + p9[c]
        y1[c] = t0 + _P1[1] * t1 + _P2[1] * t2 + _P3[1] * t3
        y2[c] = s0 + _P1[2] * s1 + _P2[2] * s2 + _P3[2] * s3
        y3[c] = t0 + _P1[3] * t1 + _P2[3] * t2 + _P3[3] * t3
        y4[c] = s0 + _P1[4] * s1 + _P2[4] * s2 + _P3[4] * s3
        y5[c] = t0 + _P1[5] * t1 + _P2[5] * t2 + _P3[5] * t3
        y6[c] = s0 + _P1[6] * s1 + _P2[6] * s2 + _P3[6] * s3
        y0[c], y7[c] = x0, x7


@_compiled
def _bt(m, d, i, di, wrap, v, j, dj, length):
    """v = Bᵀd. Stretches of d, from i on and each further by di, but the last two from i + wrap on; those of v likewise."""
    if m == 4:
        _bt4(d, i, di, wrap, v, j, dj, length)
    else:
        _bt8(d, i, di, wrap, v, j, dj, length)


@_compiled
def _at(m, p, i, di, y, j, dj, length):
    """y = Aᵀp."""
    if m == 4:
        _at4(p, i, di, y, j, dj, length)
    else:
        _at8(p, i, di, y, j, dj, length)


@_compiled
def _transform(m, x, size, rows, scratch):
    """Bᵀd along columns, then along rows, for the tiles in these rows of tiles: to `scratch.tiles`, (n², tiles, channels)."""
    side, _, channels = x.shape
    flat, half = x.reshape(-1), scratch.half
    first, last = rows
    n, across = m + 2, (size + m - 1) // m
    apart = (last - first) * across * channels + GAP
    column = (across + 1) * channels + GAP  # each m-th column of the picture, side by side
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
    """Convolve a picture, add the bias, apply ReLU, and pool if requested.

    Args:
        x: the picture's canvas, (side, side, channels).
        size: the picture's height and width.
        u: the kernel, from `transform_kernel` for that size.
        bias: (filters,).
        full: canvas for the output; empty: not wanted.
        pooled: canvas for the maxima of the output's 2×2 squares; empty: not wanted.
        scratch: from `scratch`.
    """
    m = 4 if u.shape[0] == 36 else 8
    across = (size + m - 1) // m
    at_most = max(1, min(TILES, SMALL // FILTERS // x.shape[2]) // across)
    blocks = (across + at_most - 1) // at_most
    for block in range(blocks):
        first, last = block * across // blocks, (block + 1) * across // blocks
        _transform(m, x, size, (first, last), scratch)
        _multiply(u, (last - first) * across, scratch)
        _transform_back(m, bias, size, (first, last), full, pooled, scratch)


@_compiled
def convolve_pixels(x, size, kernel, bias, full):
    """Convolve RGB pixels directly, without Winograd, and apply bias and ReLU; `kernel` is (27, filters)."""
    flat, width = x.reshape(-1), 3 * x.shape[1]
    squares = np.empty((size, 27), F)
    line = np.empty((size, len(bias)), F)
    for i in range(size):
        for j in range(size):
            for a in range(3):
                given, square = flat[(i + a) * width + 3 * j :][:9], squares[j, 9 * a : 9 * a + 9]
                for k in range(9):
                    square[k] = given[k]
        np.dot(squares, kernel, line)
        for j in range(size):
            given, to = line[j], full[1 + i, 1 + j]
            for c in range(len(bias)):
                value = given[c] + bias[c]
                to[c] = F(0) if value < F(0) else value


def warm_up() -> None:
    """Compile all functions of this file, or load them from numba's cache, by running them on a tiny input."""
    none = np.empty((0, 0, 0), np.float32)
    x, pixels = (
        np.zeros((canvas_side(2),) * 2 + (FILTERS,), np.float32),
        np.zeros((canvas_side(2),) * 2 + (3,), np.float32),
    )
    bias = np.zeros(FILTERS, np.float32)
    convolve_pixels(pixels, 2, np.zeros((27, FILTERS), np.float32), bias, x)
    u = transform_kernel(np.zeros((3, 3, FILTERS, FILTERS), np.float32), 2)
    convolve(x, 2, u, bias, none, x.copy(), scratch([(2, FILTERS, FILTERS)]))

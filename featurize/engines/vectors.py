"""Vectors of float32 for functions that numba compiles, as long as the registers of this CPU.

Numba has no type for them: it leaves it to LLVM to find loops that can be computed in vectors, which uses half of the length
of AVX-512's registers and keeps no sum of a matrix product in one. So this file writes LLVM's instructions itself.

An array is flat and float32, and an index counts its numbers. Nothing is checked: beyond an array lies memory of others.
Numba's cache of a compiled function looks only at the file of that function: after a change here, touch the others.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model

# Numbers in a vector. Asked of numba, which keeps what it compiled for the same features, not of the processor.
LANES = 16 if "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2].split(",") else 8
# Sums of a product that the registers hold, beside one row of its right side: 24 of 32 with AVX-512, 12 of 16 with AVX2.
ROWS = 6
COLUMNS = LANES * (4 if LANES == 16 else 2)
LINE = 16  # numbers that come from memory at once: 64 bytes

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)
_INDEX = ir.IntType(64)
_INT = ir.IntType(32)
_FLAGS = ("contract", "nsz")  # LLVM may compute a * b + c with one rounding


class _VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32 vector")


_vector = _VectorType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@intrinsic
def load(typing, array, index):
    """Return the vector of `array` that begins at `index`."""

    def build(context, builder, signature, args):
        at = context.cast(builder, args[1], signature.args[1], types.intp)
        return _load(builder, builder.gep(_data(context, builder, signature.args[0], args[0]), [at]))

    return _vector(array, index), build


@intrinsic
def store(typing, array, index, vector):
    """Write `vector` to `array`, from `index` on."""

    def build(context, builder, signature, args):
        at = context.cast(builder, args[1], signature.args[1], types.intp)
        _store(builder, args[2], builder.gep(_data(context, builder, signature.args[0], args[0]), [at]))
        return context.get_dummy_value()

    return types.void(array, index, vector), build


@intrinsic
def larger(typing, a, b):
    """Return the larger of two numbers, lane by lane; where either is NaN, NaN."""

    def build(context, builder, signature, args):
        left, right = _vectors(builder, signature, args)
        chosen = builder.select(builder.fcmp_unordered("<", left, right), right, left)
        return builder.select(builder.fcmp_unordered("uno", left, left), left, chosen)

    return _vector(a, b), build


def _operator(name: str, instruction: str) -> None:
    """Define a + b, a - b or a * b of vectors and of numbers, at least one of them a vector."""

    @intrinsic
    def compute(typing, a, b):
        def build(context, builder, signature, args):
            return getattr(builder, instruction)(*_vectors(builder, signature, args), flags=_FLAGS)

        return _vector(a, b), build

    @overload(getattr(operator, name))
    def choose(a, b):
        kinds = (a, b)
        if _vector in kinds and all(kind in (_vector, types.float32) for kind in kinds):
            return lambda a, b: compute(a, b)  # noqa: PLW0108 (numba takes the source of a function)
        return None


_operator("add", "fadd")
_operator("sub", "fsub")
_operator("mul", "fmul")


@intrinsic
def multiply(typing, rows, a, i, a_row, b, j, b_row, y, k, y_row, depth, more, ahead):
    """Multiply up to ROWS rows of a matrix by COLUMNS columns of another.

    The order in which a sum is computed depends on `depth` only, so a row is the same whichever rows are multiplied with it.

    Args:
        rows: number of rows of a, at most ROWS.
        a, b, y: arrays of the left side (rows, depth), the right side (depth, COLUMNS) and the product (rows, COLUMNS).
        i, j, k: where each begins.
        a_row, b_row, y_row: how far apart their rows are.
        depth: at least 1.
        more: add to y instead of overwriting it.
        ahead: where in b the numbers begin that are needed soon: LINE · `depth` of them are fetched meanwhile.
    """

    def build(context, builder, signature, args):
        left, right, to = (_data(context, builder, signature.args[n], args[n]) for n in (1, 4, 7))
        rows, i, a_row, j, b_row, k, y_row, depth = (
            context.cast(builder, args[n], signature.args[n], types.intp) for n in (0, 2, 3, 5, 6, 8, 9, 10)
        )
        soon = builder.gep(right, [context.cast(builder, args[12], signature.args[12], types.intp)])
        left, right, to = builder.gep(left, [i]), builder.gep(right, [j]), builder.gep(to, [k])
        end = builder.append_basic_block("end")
        choice = builder.switch(rows, end)
        for n in range(1, ROWS + 1):
            block = builder.append_basic_block(f"rows{n}")
            choice.add_case(ir.Constant(_INDEX, n), block)
            builder.position_at_end(block)
            _multiply(builder, n, left, a_row, right, b_row, to, y_row, depth, args[11], soon)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(rows, a, i, a_row, b, j, b_row, y, k, y_row, depth, more, ahead), build


def _multiply(builder, rows, left, a_row, right, b_row, to, y_row, depth, more, soon):
    """Write the loop over `depth` for a given number of rows; all sums stay in registers meanwhile."""
    lefts = [_row(builder, left, a_row, n) for n in range(rows)]
    outputs = [
        builder.gep(_row(builder, to, y_row, n), [ir.Constant(_INDEX, c)])
        for n in range(rows)
        for c in range(0, COLUMNS, LANES)
    ]
    empty = builder.block
    with builder.if_then(more):
        given = [_load(builder, output) for output in outputs]
        filled = builder.block
    sums = [_phi(builder, _VECTOR, (_ZERO, empty), (vector, filled)) for vector in given]

    before, loop = builder.block, builder.append_basic_block("depth")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = _phi(builder, _INDEX, (ir.Constant(_INDEX, 0), before))
    sums = [_phi(builder, _VECTOR, (vector, before)) for vector in sums]
    line = builder.gep(right, [builder.mul(step, b_row)])
    columns = [builder.gep(line, [ir.Constant(_INDEX, c)]) for c in range(0, COLUMNS, LANES)]
    _fetch(builder, builder.gep(soon, [builder.mul(step, ir.Constant(_INDEX, LINE))]))
    vectors = [_load(builder, column) for column in columns]
    added: list[Any] = []
    for n in range(rows):
        number = _splat(builder, builder.load(builder.gep(lefts[n], [step])))
        for vector in vectors:
            product = builder.fmul(number, vector, flags=_FLAGS)
            added.append(builder.fadd(sums[len(added)], product, flags=_FLAGS))
    following = builder.add(step, ir.Constant(_INDEX, 1))
    for phi, value in zip([step, *sums], [following, *added], strict=True):
        phi.add_incoming(value, loop)
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    builder.position_at_end(after)
    for vector, output in zip(added, outputs, strict=True):
        _store(builder, vector, output)


def _data(context, builder, kind, array):
    return cgutils.create_struct_proxy(kind)(context, builder, array).data


def _row(builder, start, apart, n):
    return builder.gep(start, [builder.mul(apart, ir.Constant(_INDEX, n))])


def _load(builder, pointer):
    vector = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()))
    vector.align = 4
    return vector


def _store(builder, vector, pointer):
    builder.store(vector, builder.bitcast(pointer, _VECTOR.as_pointer())).align = 4


def _fetch(builder, pointer):
    """Ask for the memory at `pointer`, to read it soon; any address will do."""
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), _INT, _INT, _INT])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, to_level_2, data = (ir.Constant(_INT, n) for n in (0, 2, 1))
    builder.call(function, [builder.bitcast(pointer, ir.IntType(8).as_pointer()), read, to_level_2, data])


def _phi(builder, kind, *incoming):
    phi = builder.phi(kind)
    for value, block in incoming:
        phi.add_incoming(value, block)
    return phi


def _splat(builder, number):
    """Return a vector of which each number is `number`."""
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))


def _vectors(builder, signature, args):
    return [arg if kind == _vector else _splat(builder, arg) for kind, arg in zip(signature.args, args, strict=True)]

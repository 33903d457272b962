"""The shared library from Python with nothing but ctypes: a forward of a standalone layer against the formula.

Usage: test_ctypes.py PATH/libpvera.so
"""

import ctypes as c
import math
import sys

RANK, INPUTS, OUTPUTS, ROWS = 3, 5, 4, 2
KEY, MODE_MEAN, MODE_FIXED = 7, 1, 3


class Matrix(c.Structure):
    _fields_ = [("data", c.c_void_p), ("rows", c.c_size_t), ("cols", c.c_size_t), ("row_stride", c.c_size_t),
                ("dtype", c.c_uint8 * 4), ("device", c.c_int32 * 2)]


class StoreOptions(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("rank", c.c_size_t), ("in_max", c.c_size_t), ("out_max", c.c_size_t),
                ("base_dtype", c.c_uint8 * 4), ("allocator", c.c_void_p * 3)]


class Layer(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("name", c.c_char_p)] + [
        (name, c.c_size_t) for name in
        ("in_features", "out_features", "in_offset", "out_offset", "in_total", "out_total")] + [
        ("weight", Matrix), ("weight_layout", c.c_int32), ("output_head", c.c_uint8), ("bias", Matrix)]


class Vectors(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("lambda_b", c.c_void_p), ("lambda_d", c.c_void_p), ("bias", c.c_void_p),
                ("identity", c.c_uint64)]


class Noise(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("mode", c.c_int32), ("antithetic", c.c_uint8), ("seed", c.c_uint64),
                ("seed_at", c.c_void_p), ("eps", Matrix), ("dropout_mask", Matrix)]


def floats(values):
    return (c.c_float * len(values))(*values)


def matrix(values, rows, cols):
    return Matrix(c.cast(values, c.c_void_p), rows, cols, cols, (c.c_uint8 * 4)(2, 32, 1, 0), (c.c_int32 * 2)(1, 0))


def view(lent):
    values = c.cast(lent.data, c.POINTER(c.c_float))
    return [[values[row * lent.row_stride + col] for col in range(lent.cols)] for row in range(lent.rows)]


def main(path):
    library = c.CDLL(path)
    library.pvera_error_message.restype = c.c_char_p
    library.pvera_error_message.argtypes = [c.c_void_p]

    def call(name, *arguments):
        function = getattr(library, name)
        function.restype = c.c_void_p
        error = function(*arguments)
        if error:
            sys.exit(f"{name}: {library.pvera_error_message(error).decode()}")

    store, linear, context = c.c_void_p(), c.c_void_p(), c.c_void_p()
    options = StoreOptions(c.sizeof(StoreOptions), RANK, INPUTS, OUTPUTS)
    call("pvera_store_from_key", c.c_uint64(KEY), c.byref(options), c.byref(store))
    a, b = Matrix(), Matrix()
    call("pvera_store_matrices", store, c.byref(a), c.byref(b))
    a, b = view(a), view(b)

    lambda_b = floats([0.5 - 0.25 * j for j in range(OUTPUTS)])
    lambda_d = floats([0.3 + 0.1 * k for k in range(2 * RANK)])
    x = floats([math.sin(i + 1) for i in range(ROWS * INPUTS)])
    layer = Layer(struct_size=c.sizeof(Layer), name=b"q_proj", in_features=INPUTS, out_features=OUTPUTS)
    vectors = Vectors(c.sizeof(Vectors), c.cast(lambda_b, c.c_void_p), c.cast(lambda_d, c.c_void_p))
    call("pvera_linear_new", c.byref(layer), store, None, c.byref(vectors), c.byref(linear))
    call("pvera_context_new", None, c.byref(context))
    worst = 0.0
    for mode in (MODE_MEAN, MODE_FIXED):
        y = floats([1.0] * (ROWS * OUTPUTS))
        noise = Noise(struct_size=c.sizeof(Noise), mode=mode)
        call("pvera_forward", context, linear, c.byref(matrix(x, ROWS, INPUTS)), None, c.byref(noise), None,
             c.byref(matrix(y, ROWS, OUTPUTS)))
        for n in range(ROWS):
            m = [lambda_d[k] * sum(a[k][i] * x[n * INPUTS + i] for i in range(INPUTS)) for k in range(2 * RANK)]
            z = [m[k] + (math.exp(0.5 * m[RANK + k]) if mode == MODE_FIXED else 0.0) for k in range(RANK)]
            for j in range(OUTPUTS):
                wanted = 1.0 + lambda_b[j] * sum(z[k] * b[j][k] for k in range(RANK))
                worst = max(worst, abs(y[n * OUTPUTS + j] - wanted))
    library.pvera_linear_free(linear)
    library.pvera_context_free(context)
    library.pvera_store_free(store)
    if not worst < 1e-6:
        sys.exit(f"the largest difference is {worst}; wanted less than 1e-6")
    print(f"largest difference {worst:.1e}")


if __name__ == "__main__":
    main(sys.argv[1])

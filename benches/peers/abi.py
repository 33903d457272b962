"""The C ABI through ctypes: the structs of include/pvera.h, and calls that raise the library's message."""

import ctypes as c

import torch

MODE_MEAN, MODE_SAMPLE = 1, 2
KEEP_LATENT, KEEP_DELTA, RECOMPUTE = 0, 1, 2
OVERWRITE_ALL = 15
PACK_FORWARD, PACK_BACKWARD = 1, 2
PRODUCTS_BF16 = 1

DTYPES = {torch.float32: (2, 32, 1, 0), torch.bfloat16: (4, 16, 1, 0)}
CPU = (1, 0)


class Matrix(c.Structure):
    _fields_ = [("data", c.c_void_p), ("rows", c.c_size_t), ("cols", c.c_size_t), ("row_stride", c.c_size_t),
                ("dtype", c.c_uint8 * 4), ("device", c.c_int32 * 2)]


class ContextOptions(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("backend", c.c_int32), ("threads", c.c_uint32),
                ("parallel_for", c.c_void_p), ("parallel_for_user", c.c_void_p), ("allocator", c.c_void_p * 3),
                ("device", c.c_int32 * 2), ("stream", c.c_void_p), ("cpu_features_off", c.c_uint32),
                ("products", c.c_int32)]


class Layer(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("name", c.c_char_p)] + [
        (name, c.c_size_t) for name in
        ("in_features", "out_features", "in_offset", "out_offset", "in_total", "out_total")] + [
        ("weight", Matrix), ("weight_layout", c.c_int32), ("output_head", c.c_uint8), ("bias", Matrix)]


class Vectors(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("lambda_b", c.c_void_p), ("lambda_d", c.c_void_p), ("bias", c.c_void_p),
                ("identity", c.c_uint64)]


class Rows(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("slot", c.c_void_p), ("active", c.c_void_p),
                ("active_count", c.c_size_t), ("identity", c.c_void_p), ("identity_base", c.c_uint64),
                ("sample", c.c_void_p), ("sample_base", c.c_uint32)]


class Noise(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("mode", c.c_int32), ("antithetic", c.c_uint8), ("seed", c.c_uint64),
                ("seed_at", c.c_void_p), ("eps", Matrix), ("dropout_mask", Matrix)]


class SlotGradients(c.Structure):
    _fields_ = [("slot", c.c_int32), ("lambda_b", c.c_void_p), ("lambda_d", c.c_void_p), ("bias", c.c_void_p)]


class Gradients(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("overwrite", c.c_uint32), ("kl_reduction", c.c_int32),
                ("slots", c.POINTER(SlotGradients)), ("slot_count", c.c_size_t), ("kl_weight", c.c_double),
                ("kl_value", c.c_void_p), ("dmu", Matrix), ("dlogvar", Matrix), ("variance", c.c_void_p),
                ("variance_count", c.c_size_t), ("variance_index", c.c_void_p)]


def sized(struct, **fields):
    return struct(struct_size=c.sizeof(struct), **fields)


def matrix(tensor):
    """A view of a 2-D tensor, which the caller keeps alive."""
    if tensor is None:
        return Matrix()
    assert tensor.dim() == 2 and tensor.stride(1) == 1, "wanted rows of elements side by side"
    return Matrix(tensor.data_ptr(), tensor.shape[0], tensor.shape[1], tensor.stride(0),
                  (c.c_uint8 * 4)(*DTYPES[tensor.dtype]), (c.c_int32 * 2)(*CPU))


class Handle:
    """An object of the library, freed with its last Python reference; keeps what it borrows alive."""

    def __init__(self, library, kind, pointer, keep=()):
        self.library, self.kind, self.pointer, self.keep = library, kind, pointer, keep

    def __del__(self):
        getattr(self.library.shared, f"pvera_{self.kind}_free")(self.pointer)


class LibraryError(Exception):
    pass


class Library:
    def __init__(self, path):
        self.shared = c.CDLL(str(path))
        self.shared.pvera_error_message.restype = c.c_char_p
        self.shared.pvera_error_message.argtypes = [c.c_void_p]
        self.shared.pvera_version_text.restype = c.c_char_p

    def has(self, name):
        return hasattr(self.shared, name)

    def version(self):
        return self.shared.pvera_version_text().decode()

    def prepared(self, name, *arguments, keep=()):
        """A function without arguments that makes this call: what is timed has as little Python in it as possible."""
        function = getattr(self.shared, name)
        function.restype = c.c_void_p
        message = self.shared.pvera_error_message

        def call(_keep=keep):
            error = function(*arguments)
            if error:
                raise LibraryError(f"{name}: {message(error).decode()}")

        return call

    def call(self, name, *arguments):
        self.prepared(name, *arguments)()

    def make(self, kind, name, *arguments, keep=()):
        """Calls a constructor whose last argument is the place of the new object."""
        pointer = c.c_void_p()
        self.call(name, *arguments, c.byref(pointer))
        return Handle(self, kind, pointer, keep)

    def size(self, name, *arguments):
        """Calls a function whose last argument is the place of a size_t."""
        value = c.c_size_t()
        self.call(name, *arguments, c.byref(value))
        return value.value

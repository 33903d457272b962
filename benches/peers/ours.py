"""This library's side: contexts, stores, layers, and prepared calls on torch tensors."""

import ctypes as c

import torch

from abi import (MODE_MEAN, MODE_SAMPLE, OVERWRITE_ALL, PACK_BACKWARD, PACK_FORWARD, PRODUCTS_BF16, ContextOptions,
                 Gradients, Layer, Matrix, Noise, Rows, SlotGradients, Vectors, matrix, sized)


def context(library, threads, bf16_products=False):
    """Threads counts the calling one, as torch.set_num_threads does."""
    options = sized(ContextOptions, threads=threads - 1, products=PRODUCTS_BF16 if bf16_products else 0)
    return library.make("context", "pvera_context_new", c.byref(options))


def store(library, a, b):
    """The frozen pair, in the element type of the tensors (or in 16 bits where that loses nothing)."""
    made = library.make("store", "pvera_store_from_matrices", c.byref(matrix(a)), c.byref(matrix(b)), None)
    if library.has("pvera_store_pack"):
        library.call("pvera_store_pack", made.pointer, c.c_uint32(PACK_FORWARD | PACK_BACKWARD))
    return made


def declared(name, inputs, outputs, weight):
    return sized(Layer, name=name.encode(), in_features=inputs, out_features=outputs, weight=matrix(weight))


def linear(library, pair, lambda_b, lambda_d, inputs, weight=None, name="q", pack=0):
    """A standalone layer; without a weight its forward adds the delta to what y holds."""
    layer = declared(name, inputs, len(lambda_b), weight)
    vectors = sized(Vectors, lambda_b=lambda_b.data_ptr(), lambda_d=lambda_d.data_ptr())
    made = library.make("linear", "pvera_linear_new", c.byref(layer), pair.pointer, None, c.byref(vectors),
                        keep=(weight, lambda_b, lambda_d, pair))
    if pack:
        library.call("pvera_linear_pack_base", made.pointer, c.c_uint32(pack))
    return made


def noise_of(mode, eps=None, seed=1):
    return sized(Noise, mode=mode, seed=seed, eps=matrix(eps))


def rows_of(slots=None, identities=None, samples=None, sample_base=0):
    place = [None if tensor is None else tensor.data_ptr() for tensor in (slots, identities, samples)]
    return sized(Rows, slot=place[0], identity=place[1], sample=place[2], sample_base=sample_base)


def _array(kind, items):
    return (kind * len(items))(*items)


def forward(library, where, linears, x, ys, mode=MODE_MEAN, eps=None, rows=None, tape=None):
    """One layer, or several with one input as a group. ys: one output tensor a layer."""
    noise = noise_of(mode, eps)
    keep = (where, linears, x, ys, noise, eps, rows, tape)
    lent = (None if rows is None else c.byref(rows), c.byref(noise), None if tape is None else tape.pointer)
    if len(linears) == 1:
        return library.prepared("pvera_forward", where.pointer, linears[0].pointer, c.byref(matrix(x)), *lent,
                                c.byref(matrix(ys[0])), keep=keep)
    pointers = _array(c.c_void_p, [each.pointer.value for each in linears])
    return library.prepared("pvera_forward_group", where.pointer, c.c_size_t(len(linears)), pointers,
                            c.byref(matrix(x)), *lent, _array(Matrix, [matrix(y) for y in ys]), keep=keep)


def sample(library, where, layer, x, draws, y, eps=None, rows=None):
    noise = noise_of(MODE_SAMPLE, eps)
    return library.prepared("pvera_sample", where.pointer, layer.pointer, c.byref(matrix(x)),
                            None if rows is None else c.byref(rows), c.byref(noise), c.c_size_t(draws),
                            c.byref(matrix(y)), keep=(where, layer, x, y, noise, eps, rows))


def moments(library, where, layer, x, mean, variance):
    return library.prepared("pvera_moments", where.pointer, layer.pointer, c.byref(matrix(x)), None,
                            c.byref(matrix(mean)), c.byref(matrix(variance)), keep=(where, layer, x, mean, variance))


class Training:
    """Forward and backward of one layer or of a group: y, dx and the gradients of both vectors of every layer."""

    def __init__(self, library, where, linears, x, dys, rank, policy, eps=None):
        self.ys = [torch.empty_like(dy) for dy in dys]
        self.dx = torch.empty_like(x)
        self.dlambda_b = [torch.empty(dy.shape[1]) for dy in dys]
        self.dlambda_d = [torch.empty(2 * rank) for _ in dys]
        self.library = library
        self.tape = library.make("tape", "pvera_tape_new", c.c_int32(policy), None)
        self._forward = forward(library, where, linears, x, self.ys, MODE_SAMPLE, eps, tape=self.tape)
        slots = [SlotGradients(0, b.data_ptr(), d.data_ptr()) for b, d in zip(self.dlambda_b, self.dlambda_d)]
        gradients = _array(Gradients, [
            sized(Gradients, overwrite=OVERWRITE_ALL, slots=c.pointer(slot), slot_count=1) for slot in slots])
        lent = _array(Matrix, [matrix(dy) for dy in dys])
        count = () if len(dys) == 1 else (c.c_size_t(len(dys)),)
        self._backward = library.prepared("pvera_backward_group" if count else "pvera_backward", where.pointer,
                                          self.tape.pointer, *count, lent, gradients, c.byref(matrix(self.dx)),
                                          keep=(where, slots, dys))

    def __call__(self):
        self._forward()
        self._backward()

    def tape_bytes(self):
        return self.library.size("pvera_tape_bytes", self.tape.pointer)


class Served:
    """A model of one layer with one published adapter for each row of the two matrices of vectors."""

    def __init__(self, library, pair, lambda_b, lambda_d, inputs, weight, pack=0):
        self.model = library.make("model", "pvera_model_new", None, keep=(weight,))
        layer = declared("q", inputs, lambda_b.shape[1], weight)
        library.call("pvera_model_declare", self.model.pointer, c.byref(layer), None)
        config = library.make("config", "pvera_config_new")
        library.call("pvera_config_set_int", config.pointer, b"r", c.c_int64(lambda_d.shape[1] // 2))
        library.call("pvera_config_set_json", config.pointer, b"target_modules", b'["q"]')
        for number in range(len(lambda_b)):
            self._publish(library, config, pair, f"adapter{number}", lambda_b[number], lambda_d[number])
        self.snapshot = library.make("snapshot", "pvera_model_snapshot", self.model.pointer, keep=(self.model,))
        self.pointer = c.c_void_p()
        library.call("pvera_snapshot_linear", self.snapshot.pointer, c.c_size_t(0), c.byref(self.pointer))
        if pack:
            library.call("pvera_linear_pack_base", self.pointer, c.c_uint32(pack))

    def _publish(self, library, config, pair, name, lambda_b, lambda_d):
        adapter = library.make("adapter", "pvera_adapter_new", self.model.pointer, config.pointer, pair.pointer, None)
        values, count = c.POINTER(c.c_float)(), c.c_size_t()
        library.call("pvera_adapter_parameters", adapter.pointer, c.byref(values), c.byref(count))
        places = (c.c_size_t * 6)()  # pvera_parameter_range: first and count of lambda_b, lambda_d, bias
        library.call("pvera_adapter_range", adapter.pointer, c.c_size_t(0), places)
        for first, vector in ((places[0], lambda_b), (places[2], lambda_d)):
            vector = vector.contiguous()
            c.memmove(c.addressof(values.contents) + 4 * first, vector.data_ptr(), 4 * len(vector))
        library.call("pvera_model_publish", self.model.pointer, name.encode(), adapter.pointer, None)

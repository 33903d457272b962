// pvera for C++17 and newer, header only: every call of <pvera.h>, with owners that free, views, and errors of your choice.
// SPDX-License-Identifier: Apache-2.0 OR MIT
//
//     auto model = pvera::model::create();
//     model.declare(pvera::layer("model.layers.0.self_attn.q_proj", 4096, 4096));
//     model.publish("support", pvera::adapter::load(model, "path/to/peft/checkpoint"));
//     auto snapshot = model.snapshot();
//     auto context = pvera::context::create();
//     context.forward(snapshot.linear(0), pvera::matrix(x, n, 4096), pvera::matrix_mut(y, n, 4096));
//
// What a call does, its shapes, errors, ownership and threads: <pvera.h>, whose function the C++ one is named after. Here is
// only what C++ adds:
//
// Owners. Each handle is a class that moves and is freed with its object; those with reference counts have clone(). A
// moved-from one holds NULL, which every call refuses with PVERA_ERROR_NULL. get() lends the C handle, release() gives it away.
//
// Errors. A failed call throws pvera::exception. Define PVERA_NO_EXCEPTIONS (implied by -fno-exceptions), and the same
// functions return pvera::result<T> instead, which may not be ignored: error.hpp. Below, "outcome<T>" means either.
// Translation units of one program may choose differently.
//
// Options. pvera::noise, rows, gradients, … are the structs of C with zero and struct_size filled in; set their fields.
//
// Memory. Matrices and arrays are lent, never copied; forward, backward, sample and what belongs to a pass allocate nothing.
//
// Texts. Any of const char *, std::string and std::string_view; the last is copied, to end in NUL. One that holds a NUL
// is given as NULL, which every call refuses.
#ifndef PVERA_HPP
#define PVERA_HPP

#include "pvera/adapter.hpp"
#include "pvera/bank.hpp"
#include "pvera/callbacks.hpp"
#include "pvera/config.hpp"
#include "pvera/context.hpp"
#include "pvera/dlpack.hpp"
#include "pvera/error.hpp"
#include "pvera/files.hpp"
#include "pvera/handle.hpp"
#include "pvera/linear.hpp"
#include "pvera/matrix.hpp"
#include "pvera/model.hpp"
#include "pvera/noise.hpp"
#include "pvera/optimiser.hpp"
#include "pvera/options.hpp"
#include "pvera/outline.hpp"
#include "pvera/span.hpp"
#include "pvera/statistics.hpp"
#include "pvera/store.hpp"
#include "pvera/tape.hpp"
#include "pvera/text.hpp"

#endif

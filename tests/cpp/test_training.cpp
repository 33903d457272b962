// Training in C++ and what is done with what was trained: taped steps on the caller's memory, groups, a hot swap under a snapshot,
// checkpoints, merges, parts, standalone layers, and the gradients against central differences.
#include <filesystem>

#include "world.hpp"

namespace {

constexpr std::size_t n = world::n, in = world::in, out = world::out, v_out = world::v_out;

// Sum of y * dy over a taped sampled forward of both layers, in double, on the reference backend.
struct loss {
    const world &all;
    pvera::linear q = all.adapter.linear(0), v = all.adapter.linear(1);
    std::vector<float> dq = std::vector<float>(n * out), dv = std::vector<float>(n * v_out);
    pvera::noise noise{PVERA_MODE_SAMPLE, 5};
    pvera::context reference;

    explicit loss(const world &of) : all(of) {
        check::fill(dq, 11), check::fill(dv, 12);
        pvera::context_options options;
        options.backend = PVERA_BACKEND_REFERENCE;
        reference = pvera::context::create(options);
    }

    double operator()() const {
        std::vector<float> yq(n * out), yv(n * v_out);
        reference.forward_group({q, v}, all.input(), {pvera::as_matrix(yq, n, out), pvera::as_matrix(yv, n, v_out)}, pvera::rows(), noise);
        double sum = 0;
        for (std::size_t i = 0; i < yq.size(); ++i) sum += static_cast<double>(yq[i]) * static_cast<double>(dq[i]);
        for (std::size_t i = 0; i < yv.size(); ++i) sum += static_cast<double>(yv[i]) * static_cast<double>(dv[i]);
        return sum;
    }

    float by(float &number) const {
        const float saved = number, up = saved + 1.0f / 1024, down = saved - 1.0f / 1024;
        number = up;
        const double above = (*this)();
        number = down;
        const double below = (*this)();
        number = saved;
        return static_cast<float>((above - below) / static_cast<double>(up - down));
    }
};

void gradients() {
    world all;
    loss of(all);
    const auto parameters = all.adapter.parameters();
    for (int32_t policy = PVERA_TAPE_KEEP_LATENT; policy <= PVERA_TAPE_RECOMPUTE; ++policy) {
        auto tape = pvera::tape::create(policy);
        std::vector<float> found(parameters.size()), dx(n * in), yq(n * out), yv(n * v_out), wanted;
        const pvera::slot_gradients places[] = {all.adapter.gradients_in(found, 0), all.adapter.gradients_in(found, 1)};
        std::array<pvera::gradients, 2> both;
        for (std::size_t layer = 0; layer < 2; ++layer)
            both[layer].into({&places[layer], 1}).overwrite = PVERA_OVERWRITE_ALL;
        all.context.forward_group(tape, {of.q, of.v}, all.input(), {pvera::as_matrix(yq, n, out), pvera::as_matrix(yv, n, v_out)},
                                  pvera::rows(), of.noise);
        CHECK((tape.bytes() == 0) == (policy == PVERA_TAPE_RECOMPUTE));
        const pvera::matrix dy[] = {pvera::as_matrix(of.dq, n, out), pvera::as_matrix(of.dv, n, v_out)};
        all.context.backward_group(tape, dy, both, pvera::as_matrix(dx, n, in));
        for (float &number : parameters) wanted.push_back(of.by(number));
        CHECK_CLOSE("parameters", found, wanted, 3e-4); // y is rounded to f32 before the difference is taken
        wanted.clear();
        for (float &number : all.x) wanted.push_back(of.by(number));
        CHECK_CLOSE("dx", dx, wanted, 3e-4);
        const auto once = found;
        all.context.backward_group(tape, dy, both);
        CHECK(found == once);
        CHECK_THROWS(all.context.backward_group(tape, dy, {both.data(), 1}), pvera::code::shape, "wanted has 1|dy, 2");
    }
}

// A least-squares fit on the caller's parameters; what was published before does not move until it is replaced.
void fit_and_swap() {
    const world all;
    std::vector<float> parameters(all.adapter.parameter_count()), gradient(parameters.size()), first(parameters.size()),
        second(parameters.size()), y(n * out), dy(n * out), target(n * out);
    check::fill(target, 21);
    const auto mine = all.adapter.trainable(parameters);
    CHECK(mine.parameters().data() == parameters.data() && parameters[0] == all.adapter.parameters()[0]);
    const int32_t slot = all.model.publish("one", mine);
    const auto before = all.model.snapshot();
    const auto published = all.forward(before.linear(0));

    const auto linear = mine.linear(0);
    const pvera::parameter_range range = mine.range(0);
    const pvera::slot_gradients places[] = {{0, gradient.data() + range.lambda_b, gradient.data() + range.lambda_d, nullptr}};
    pvera::gradients wanted;
    wanted.into(places).overwrite = PVERA_OVERWRITE_ALL;
    auto tape = pvera::tape::create(PVERA_TAPE_KEEP_DELTA);
    double losses[2] = {};
    for (uint64_t step = 1; step <= 300; ++step) {
        all.context.forward(tape, linear, all.input(), pvera::as_matrix(y, n, out), pvera::rows(), pvera::noise(PVERA_MODE_MEAN));
        losses[1] = 0;
        for (std::size_t i = 0; i < y.size(); ++i) dy[i] = y[i] - target[i], losses[1] += static_cast<double>(dy[i] * dy[i]);
        if (step == 1) losses[0] = losses[1];
        all.context.backward(tape, pvera::as_matrix(dy, n, out), wanted);
        pvera::adamw(0.02).step(step, parameters, gradient, first, second);
    }
    CHECK(losses[1] < 0.7 * losses[0]);
    CHECK_THROWS(static_cast<void>(all.adapter.clone().range(9)), pvera::code::not_found, "9");

    CHECK(all.forward(before.linear(0)) == published);
    CHECK(all.model.replace("one", mine) == slot && before.slot("one") == slot);
    const auto after = all.model.snapshot();
    CHECK(all.forward(before.linear(0)) == published && all.forward(after.linear(0)) == all.forward(linear));
    all.model.remove("one");
    CHECK_THROWS(static_cast<void>(all.model.snapshot().slot("one")), pvera::code::not_found, "'one'");
    CHECK(after.slot("one") == slot);
}

void checkpoints() {
    const world all;
    const auto folder = std::filesystem::temp_directory_path() / ("pvera-cpp-" + std::to_string(getpid()));
    auto carrying = all.adapter.trainable();
    const std::size_t shape[] = {2, 2};
    const uint8_t data[16] = {1, 2, 3};
    carrying.set_tensor("base_model.model.classifier.weight", pvera::f32, shape, data);
    carrying.save(folder.string());
    pvera::adapter_options options;
    options.map_file = true;
    {
        const auto loaded = pvera::adapter::load(all.model, folder.string(), options);
        CHECK(all.forward(loaded.linear(0)) == all.forward(all.adapter.linear(0)) && loaded.adapts(1));
        CHECK(loaded.tensor_count() == 1 && loaded.tensor_at(0).data[2] == 3);
        const auto store = pvera::store::from_file((folder / "adapter_model.safetensors").string(), true);
        CHECK(store.equals(loaded.store()));
    }
    std::filesystem::remove_all(folder);
    CHECK_THROWS(carrying.save("/proc/no/such/place"), pvera::code::io, "/proc/no");
}

void stores() {
    const auto store = pvera::store::from_key(77, pvera::store_options(world::rank, in, out));
    CHECK(store.equals(world().adapter.store()));
    const auto held = store.matrices();
    CHECK(held.a.rows == 2 * world::rank && held.a.cols == in && held.b.rows == out && held.b.cols == world::rank);
    CHECK(pvera::store::from_matrices(held.a, held.b).equals(store));
    CHECK(!store.equals(pvera::store::from_key(78, pvera::store_options(world::rank, in, out))));
    const std::size_t before = store.bytes();
    store.pack(PVERA_PACK_FORWARD);
    CHECK(store.packed_bytes(PVERA_PACK_FORWARD) > 0 && store.bytes() > before);
}

// The same layer on borrowed vectors; its base packed; in halves and in parts; merged and put back.
void standalone_and_parts() {
    const world all;
    const auto own = all.adapter.linear(0);
    const auto wanted = all.forward(own);
    const pvera::parameter_range range = all.adapter.range(0);
    const float *const parameters = all.adapter.parameters().data();
    pvera::layer layer("q", in, out);
    layer.weight = pvera::as_matrix(all.weight, out, in), layer.bias = pvera::as_matrix(all.bias, 1, out);
    const pvera::linear_vectors vectors({parameters + range.lambda_b, out}, {parameters + range.lambda_d, 2 * world::rank});
    const auto alone = pvera::linear::create(layer, all.adapter.store(), vectors);
    CHECK(all.forward(alone) == wanted);
    alone.pack_base(PVERA_PACK_FORWARD);
    CHECK(all.forward(alone) == wanted && alone.packed_base_bytes(PVERA_PACK_FORWARD) > 0);
    CHECK(all.forward(pvera::linear::create(layer, all.adapter.store(), all.config, vectors)) == wanted);

    const pvera::projected_size size = own.project_width(n);
    CHECK(size.latents == world::rank && size.width == 2 * world::rank);
    std::vector<float> p(n * size.width), parts(p.size()), delta(n * out), delta_of_parts(n * out);
    const auto p_view = pvera::as_matrix(p, n, size.width), parts_view = pvera::as_matrix(parts, n, size.width);
    const pvera::noise sampled(PVERA_MODE_SAMPLE, 3);
    all.context.project(own, all.input(), p_view, pvera::rows(), sampled);
    all.context.expand(own, p_view, pvera::as_matrix(delta, n, out), pvera::rows(), sampled);
    for (std::size_t i = 0; i < 3; ++i) all.context.project_part(own, all.input(), parts_view, i, 3, pvera::rows(), sampled);
    for (std::size_t i = 0; i < 3; ++i)
        all.context.expand_part(own, parts_view, pvera::as_matrix(delta_of_parts, n, out), i, 3, pvera::rows(), sampled);
    CHECK(p == parts && delta == delta_of_parts);
    const auto whole = all.forward(own, sampled);
    std::vector<float> base = wanted;
    const auto nobody = std::vector<int32_t>(n, -1);
    all.context.forward(own, all.input(), pvera::as_matrix(base, n, out), pvera::rows().slots(nobody));
    for (std::size_t i = 0; i < base.size(); ++i) base[i] += delta[i];
    CHECK_CLOSE("base and delta", base, whole, 1e-6);

    std::vector<float> weight = all.weight, y(n * out);
    const auto view = pvera::as_matrix(weight, out, in);
    const auto undo = all.context.merge_with_undo(own, view, view);
    for (std::size_t i = 0; i < n * out; ++i) {
        double sum = static_cast<double>(all.bias[i % out]);
        for (std::size_t k = 0; k < in; ++k)
            sum += static_cast<double>(all.x[i / out * in + k]) * static_cast<double>(weight[i % out * in + k]);
        y[i] = static_cast<float>(sum);
    }
    CHECK_CLOSE("merged", y, wanted, 1e-6);
    undo.unmerge(view);
    CHECK(weight == all.weight);
    CHECK_THROWS(undo.unmerge(view), pvera::code::state, "weight");
}

// Arrays that are lent as spans keep their counts, and every call that takes them compares these with what it wants.
void counts() {
    const world all;
    const auto linear = all.adapter.linear(0);
    std::vector<float> y(3 * n * out), p(n * 2 * world::rank), latents(2 * n * world::rank);
    const auto y_view = pvera::as_matrix(y, 3 * n, out), first = pvera::matrix_mut(y.data(), n, out);
    const auto second = pvera::matrix_mut(y.data() + n * out, n, out), p_view = pvera::as_matrix(p, n, 2 * world::rank);
    const pvera::matrix_mut mu(latents.data(), n, world::rank), logvar(latents.data() + n * world::rank, n, world::rank);
    auto tape = pvera::tape::create();
    const std::vector<int32_t> slots(n + 1), enough(n), none;
    const std::vector<uint64_t> identities(n - 1);
    const std::vector<uint32_t> samples(2 * n);
    const auto all_calls = [&](const pvera::rows &whose, std::string_view words) {
        CHECK_THROWS(all.context.forward(linear, all.input(), first, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.forward(tape, linear, all.input(), first, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.forward_group({linear}, all.input(), {first}, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.forward_group(tape, {linear}, all.input(), {first}, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.sample(linear, all.input(), y_view, 3, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.moments(linear, all.input(), first, second, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.latent(linear, all.input(), mu, logvar, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.project(linear, all.input(), p_view, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.project_part(linear, all.input(), p_view, 0, 1, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.expand(linear, p_view, first, whose), pvera::code::shape, words);
        CHECK_THROWS(all.context.expand_part(linear, p_view, first, 0, 1, whose), pvera::code::shape, words);
        CHECK_THROWS(static_cast<void>(linear.project_width(n, whose)), pvera::code::shape, words);
        CHECK_THROWS(static_cast<void>(all.context.scratch_bytes({linear}, n, 1, false, whose)), pvera::code::shape, words);
    };
    all_calls(pvera::rows().slots(slots), "rows.slot has 7|wanted 6");
    all_calls(pvera::rows().slots(none), "rows.slot has 0|wanted 6"); // which C would take for "slot 0 on every row"
    all_calls(pvera::rows().slots(enough).identities(identities), "rows.identity has 5|wanted 6");
    all_calls(pvera::rows().samples(samples), "rows.sample has 12|wanted 6");
    pvera::rows by_hand;
    by_hand.slots(slots).slot = enough.data();
    all.context.forward(linear, all.input(), first, by_hand);
    all.context.forward(linear, all.input(), first, static_cast<const pvera_rows &>(pvera::rows().slots(slots)));

    pvera::layer layer("q", in, out);
    layer.bias = pvera::as_matrix(all.bias, 1, out);
    const auto store = all.adapter.store();
    std::vector<float> b(out), d(2 * world::rank), longer(out + 1);
    const auto make = [&](const pvera::linear_vectors &vectors) { static_cast<void>(pvera::linear::create(layer, store, vectors)); };
    make({b, d, b});
    CHECK_THROWS(make({longer, d}), pvera::code::shape, "lambda_b has 14|wanted 13");
    CHECK_THROWS(make({b, b}), pvera::code::shape, "lambda_d has 13|wanted 8");
    CHECK_THROWS(make({b, d, d}), pvera::code::shape, "bias has 8|wanted 13");
    pvera::layer shard("q", in, 3);
    shard.out_offset = 10;
    static_cast<void>(pvera::linear::create(shard, store, {b, d})); // vectors are whole
    shard.out_total = 14;
    CHECK_THROWS(static_cast<void>(pvera::linear::create(shard, store, {b, d})), pvera::code::shape, "lambda_b has 13|wanted 14");

    const pvera::slot_gradients places = pvera::gradients_of(layer, store, b, d);
    CHECK(places.slot == 0 && places.lambda_b == b.data() && places.lambda_d == d.data() && !places.bias);
    CHECK(!pvera::gradients_of(layer, store, b, {}).lambda_d);
    CHECK_THROWS(static_cast<void>(pvera::gradients_of(layer, store, longer, d)), pvera::code::shape, "lambda_b has 14|wanted 13");
    CHECK_THROWS(static_cast<void>(pvera::gradients_of(layer, store, b, longer)), pvera::code::shape, "lambda_d has 14|wanted 8");
    CHECK_THROWS(static_cast<void>(pvera::gradients_of(layer, store, b, d, d)), pvera::code::shape, "bias has 8|wanted 13");
    std::vector<float> flat(all.adapter.parameter_count());
    const pvera::parameter_range range = all.adapter.range(1);
    const pvera::slot_gradients in_flat = all.adapter.gradients_in(flat, 1, 3);
    CHECK(in_flat.slot == 3 && in_flat.lambda_b == &flat[range.lambda_b] && in_flat.lambda_d == &flat[range.lambda_d] && !in_flat.bias);
    CHECK_THROWS(static_cast<void>(all.adapter.gradients_in(b, 1)), pvera::code::shape, "gradients has 13|wanted 34");
    CHECK_THROWS(static_cast<void>(all.adapter.gradients_in(flat, 9)), pvera::code::not_found, "9");
}

} // namespace

int main() {
    return check::run([] {
        gradients();
        fit_and_swap();
        checkpoints();
        stores();
        standalone_and_parts();
        counts();
    });
}

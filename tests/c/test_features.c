/* CPU features, products in bf16 and packing, as the ABI has them: what is asked for is reported, and changes no bits. */
#include "world.h"

static const uint32_t all_features = PVERA_CPU_AVX2 | PVERA_CPU_AVX512 | PVERA_CPU_AVX512_BF16 | PVERA_CPU_NEON;

/* y of layer q under a context's options. */
static void forward_under(const struct world *w, const pvera_context_options *options, float *y_values) {
    pvera_context *context = NULL;
    pvera_matrix x = pvera_f32(w->x, ROWS, IN);
    pvera_matrix_mut y = pvera_f32_mut(y_values, ROWS, OUT);
    pvera_noise noise = {.struct_size = sizeof noise, .mode = PVERA_MODE_SAMPLE, .seed = 5};
    MUST(pvera_context_new(options, &context));
    fill(y_values, ROWS * OUT, 9);
    CHECK_OK(pvera_forward(context, w->q, &x, NULL, &noise, NULL, &y));
    pvera_context_free(context);
}

static uint32_t features_under(uint32_t off) {
    pvera_context_options options = {.struct_size = sizeof options, .cpu_features_off = off};
    pvera_context *context = NULL;
    uint32_t features = UINT32_MAX;
    MUST(pvera_context_new(&options, &context));
    CHECK_OK(pvera_context_cpu_features(context, &features));
    pvera_context_free(context);
    return features;
}

static void features(const struct world *w) {
    uint32_t found = UINT32_MAX;
    float wanted[ROWS * OUT], y[ROWS * OUT];
    MUST(pvera_cpu_features(&found));
    CHECK((found & ~all_features) == 0, "features are %#x", found);
    CHECK(features_under(0) == found, "%#x of %#x", features_under(0), found);
    CHECK(features_under(UINT32_MAX) == 0, "%#x are left", features_under(UINT32_MAX));
    forward_under(w, NULL, wanted);
    for (int bit = 0; bit < 32; ++bit) {
        uint32_t off = (uint32_t)1 << bit, left = features_under(off);
        CHECK((left & off) == 0 && (left & ~found) == 0, "bit %d off leaves %#x of %#x", bit, left, found);
        CHECK((left == found) == ((found & off) == 0), "bit %d off leaves %#x of %#x", bit, left, found);
        pvera_context_options options = {.struct_size = sizeof options, .cpu_features_off = off};
        forward_under(w, &options, y);
        CHECK_SAME_BITS("y with a feature off", y, wanted, sizeof y);
    }
    pvera_context_options options = {.struct_size = sizeof options, .cpu_features_off = UINT32_MAX};
    forward_under(w, &options, y);
    CHECK_SAME_BITS("y with every feature off", y, wanted, sizeof y);
}

static void products(const struct world *w) {
    float wanted[ROWS * OUT], y[ROWS * OUT];
    pvera_context *context = NULL;
    const int32_t wrong[] = {-1, 2, INT32_MAX};
    pvera_context_options options = {.struct_size = sizeof options};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
        char words[80];
        options.products = wrong[i];
        snprintf(words, sizeof words, "options.products is %d|wanted|PVERA_PRODUCTS_F32|PVERA_PRODUCTS_BF16", wrong[i]);
        CHECK_ERROR(pvera_context_new(&options, &context), PVERA_ERROR_ARGUMENT, words);
    }
    CHECK(context == NULL, "a context was made");
    forward_under(w, NULL, wanted);
    options.products = PVERA_PRODUCTS_BF16;
    forward_under(w, &options, y);
    CHECK_SAME_BITS("bf16 products of f32 matrices", y, wanted, sizeof y);
}

/* A store of A and B in f32: panels of 16 outputs, padded to 32, of every value of k. */
static void stores(const struct world *w) {
    const char *uses_words = "uses is|wanted PVERA_PACK_FORWARD (1)|PVERA_PACK_BACKWARD (2)|both (3)";
    const uint32_t wrong[] = {0, 4, UINT32_MAX};
    size_t before = 0, after = 0, forward = 0, backward = 0, both = 0, untouched = 99;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
        CHECK_ERROR(pvera_store_pack(w->store, wrong[i]), PVERA_ERROR_ARGUMENT, uses_words);
        CHECK_ERROR(pvera_store_packed_bytes(w->store, wrong[i], &untouched), PVERA_ERROR_ARGUMENT, uses_words);
    }
    CHECK(untouched == 99, "%zu was written", untouched);
    MUST(pvera_store_packed_bytes(w->store, PVERA_PACK_FORWARD, &forward));
    MUST(pvera_store_packed_bytes(w->store, PVERA_PACK_BACKWARD, &backward));
    MUST(pvera_store_packed_bytes(w->store, PVERA_PACK_FORWARD | PVERA_PACK_BACKWARD, &both));
    CHECK(forward == 4 * 32 * (IN + IN + RANK), "%zu bytes", forward);
    CHECK(backward == 4 * 32 * (2 * RANK + OUT), "%zu bytes", backward);
    CHECK(both == forward + backward, "%zu is not %zu + %zu", both, forward, backward);
    MUST(pvera_store_bytes(w->store, &before));
    MUST(pvera_store_pack(w->store, PVERA_PACK_FORWARD));
    MUST(pvera_store_bytes(w->store, &after));
    CHECK(after == before + forward, "%zu after, %zu before", after, before);
    MUST(pvera_store_pack(w->store, PVERA_PACK_FORWARD | PVERA_PACK_BACKWARD));
    MUST(pvera_store_pack(w->store, PVERA_PACK_BACKWARD));
    MUST(pvera_store_bytes(w->store, &after));
    CHECK(after == before + both, "%zu after, %zu before", after, before);
}

static void bases(const struct world *w) {
    const char *uses_words = "uses is|wanted PVERA_PACK_FORWARD (1)|PVERA_PACK_BACKWARD (2)|both (3)";
    const uint32_t wrong[] = {0, 4, UINT32_MAX};
    size_t forward = 0, backward = 0, untouched = 99;
    float wanted[ROWS * OUT], y[ROWS * OUT];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
        CHECK_ERROR(pvera_linear_pack_base(w->q, wrong[i]), PVERA_ERROR_ARGUMENT, uses_words);
        CHECK_ERROR(pvera_linear_packed_base_bytes(w->q, wrong[i], &untouched), PVERA_ERROR_ARGUMENT, uses_words);
    }
    CHECK_ERROR(pvera_linear_pack_base(w->v, PVERA_PACK_FORWARD), PVERA_ERROR_STATE, "layer 'v'|without a weight");
    CHECK_ERROR(pvera_linear_packed_base_bytes(w->v, PVERA_PACK_FORWARD, &untouched), PVERA_ERROR_STATE,
                "layer 'v'|without a weight");
    CHECK(untouched == 99, "%zu was written", untouched);
    MUST(pvera_linear_packed_base_bytes(w->q, PVERA_PACK_FORWARD, &forward));
    MUST(pvera_linear_packed_base_bytes(w->q, PVERA_PACK_BACKWARD, &backward));
    CHECK(forward == 4 * 32 * IN, "%zu bytes", forward);
    CHECK(backward == 4 * 32 * OUT, "%zu bytes", backward);
    forward_under(w, NULL, wanted);
    for (uint32_t uses = PVERA_PACK_FORWARD; uses <= (PVERA_PACK_FORWARD | PVERA_PACK_BACKWARD); ++uses) {
        CHECK_OK(pvera_linear_pack_base(w->q, uses));
        forward_under(w, NULL, y);
        CHECK_SAME_BITS("y with the base packed", y, wanted, sizeof y);
    }
}

int main(int argc, char **argv) {
    check_begin(argc, argv);
    uint32_t *nowhere = NULL;
    CHECK_ERROR(pvera_cpu_features(nowhere), PVERA_ERROR_NULL, "features");
    struct world *w = world_default();
    features(w);
    products(w);
    world_free(w);
    w = world_default();
    stores(w);
    bases(w);
    world_free(w);
    return check_end();
}

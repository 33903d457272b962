// Other programs' files: exports of the mean, merges on disk, shrinking and growing checkpoints, imports.
#ifndef PVERA_CPP_FILES_HPP
#define PVERA_CPP_FILES_HPP

#include "adapter.hpp"
#include "context.hpp"
#include "model.hpp"

namespace pvera {

// What declare_files declared: how many layers, and the element type of their weights (zero bits where they differ).
struct declared {
    std::size_t count;
    pvera::dtype dtype;
};

// A declared layer.
struct layer_place {
    std::string name;
    std::size_t in_total, out_total;
};

// What the load of a shrunken checkpoint is to be told.
struct shrunk {
    dtype base_dtype;
    std::size_t in_max;
};

// Whether a checkpoint holds projections, and how its key's were rounded.
struct checked {
    bool held;
    dtype base_dtype;
    int32_t grid;
};

inline namespace PVERA_CPP_ERRORS {

// The layers that a checkpoint adapts, with the sizes that they have in a model's files.
inline outcome<declared> declare_files(const model &model, const text &checkpoint, const text &files,
                                       const pvera_files_options &options = files_options()) {
    declared made{};
    pvera_error *const failed =
        pvera_model_declare_files(model.get(), checkpoint.c_str(), files.c_str(), &options, &made.count, &made.dtype);
    return finish(failed, made);
}

[[nodiscard]] inline outcome<layer_place> layer_at(const model &model, std::size_t number) {
    char *name = nullptr;
    layer_place place{};
    pvera_error *const failed = pvera_model_layer(model.get(), number, &name, &place.in_total, &place.out_total);
    place.name = detail::taken(name);
    return finish(failed, std::move(place));
}

// The mean as a LoRA that PEFT loads.
inline outcome<void> export_lora(const adapter &adapter, const text &folder,
                                 const pvera_files_options &options = files_options()) {
    calls::border border;
    return calls::finish_at(border, pvera_adapter_export_lora(adapter.get(), folder.c_str(), &options));
}

// The same for llama.cpp.
inline outcome<void> export_gguf(const adapter &adapter, const text &path, const pvera_gguf_options &gguf,
                                 const pvera_files_options &options = files_options()) {
    calls::border border;
    return calls::finish_at(border, pvera_adapter_export_gguf(adapter.get(), path.c_str(), &gguf, &options));
}

// A checkpoint without the projections that its key draws.
inline outcome<shrunk> shrink_checkpoint(const text &folder, const text &out,
                                         const pvera_files_options &options = files_options()) {
    calls::border border;
    shrunk told{};
    pvera_error *const failed =
        pvera_checkpoint_shrink(folder.c_str(), out.c_str(), &options, &told.base_dtype, &told.in_max);
    return calls::finish_at(border, failed, told);
}

// Whether the projections that a checkpoint holds are those of its key.
[[nodiscard]] inline outcome<checked> check_checkpoint(const text &folder, const pvera_files_options &options = files_options()) {
    calls::border border;
    checked told{};
    pvera_error *const failed = pvera_checkpoint_check(folder.c_str(), &options, &told.held, &told.base_dtype, &told.grid);
    return calls::finish_at(border, failed, told);
}

// And with them again; out_max 0: the longest vector.
inline outcome<void> grow_checkpoint(const text &folder, const text &out, std::size_t in_max, std::size_t out_max = 0,
                                     const pvera_files_options &options = files_options()) {
    calls::border border;
    return calls::finish_at(border, pvera_checkpoint_grow(folder.c_str(), out.c_str(), in_max, out_max, &options));
}

// A model with the mean folded into its weights, shard by shard.
inline outcome<void> merge_files(const context &context, const adapter &adapter, const text &files, const text &out,
                                 const pvera_files_options &options = files_options()) {
    calls::border border;
    return calls::finish_at(border, pvera_merge_files(context.get(), adapter.get(), files.c_str(), out.c_str(), &options));
}

// A PEFT checkpoint of a state dictionary of the method's authors.
inline outcome<void> import_authors(const text &file, const text &out,
                                    const pvera_authors_options &authors = authors_options(),
                                    const pvera_files_options &options = files_options()) {
    calls::border border;
    return calls::finish_at(border, pvera_import_authors(file.c_str(), out.c_str(), &authors, &options));
}

} // namespace PVERA_CPP_ERRORS
} // namespace pvera

#endif

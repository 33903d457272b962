// Other programs' files: exports of the mean, merges on disk, shrinking and growing checkpoints, imports.

package pvera

// #include "shim.h"
import "C"

import (
	"context"
	"unsafe"
)

// FilesFlags are words for files, to be or-ed.
type FilesFlags uint32

const (
	// FilesMean means the mean, also of an adapter that samples at inference: its sampling is lost.
	FilesMean FilesFlags = C.PVERA_FILES_MEAN
	// FilesLeaveOut leaves out what the target cannot hold, with a warning, instead of refusing it.
	FilesLeaveOut FilesFlags = C.PVERA_FILES_LEAVE_OUT
	// FilesReplace replaces what the target holds.
	FilesReplace FilesFlags = C.PVERA_FILES_REPLACE
)

// FilesOptions is how files are read and written. The zero value is the default.
type FilesOptions struct {
	Flags FilesFlags
	// DType is the element type of what is exported; zero: f32. Of shrinking and growing: the base model's.
	DType DType
	// Prefix stands before a module's path in the names of the model's tensors.
	Prefix string
	// Warning gets a sentence about something odd that is not an error.
	Warning func(message string)
	// Progress is called now and then; false stops the work with [ErrCancelled], and nothing is left behind. Like every
	// callback it must not call runtime.Goexit, nor FailNow of a test.
	Progress func(stage string, done, total uint64) bool
}

// filesCall is a call of C with options, which tells the listener behind a handle.
type filesCall func(listener C.uintptr_t, options C.pvera_files_options) *C.pvera_error

// call runs a call with these options. Cancelling ctx stops it.
func (o *FilesOptions) call(ctx context.Context, call filesCall) error {
	if o == nil {
		o = &FilesOptions{}
	}
	prefix, err := newText("options.Prefix", o.Prefix)
	if err != nil {
		return err
	}
	defer prefix.free()
	options := C.pvera_files_options{struct_size: C.sizeof_pvera_files_options, flags: C.uint32_t(o.Flags), dtype: o.DType.c(),
		prefix: prefix.c}
	listener := listener{ctx: ctx, warning: o.Warning, progress: o.Progress}
	return listener.listen(func(handle C.uintptr_t) *C.pvera_error { return call(handle, options) }, nil)
}

// texts are NUL-terminated copies of two paths.
func texts(first, one, second, two string) (a, b cText, err error) {
	if a, err = newText(first, one); err != nil {
		return a, b, err
	}
	if b, err = newText(second, two); err != nil {
		a.free()
	}
	return a, b, err
}

// DeclareFiles declares the layers that a checkpoint folder adapts, in the order of their names and without weights, with the
// sizes that they have in a model's files: a folder with model.safetensors or an index and its shards, or one safetensors file.
// It returns how many these are, and the element type of their weights (zero where they differ). Of the options, which may be
// nil, only the prefix matters.
func (m *Model) DeclareFiles(checkpoint, files string, options *FilesOptions) (count int, dtype DType, err error) {
	from, model, err := texts("checkpoint", checkpoint, "files", files)
	if err != nil {
		return 0, DType{}, err
	}
	defer from.free()
	defer model.free()
	if err := m.own().enter("model"); err != nil {
		return 0, DType{}, err
	}
	defer m.object.leave()
	m.layers.guard.Lock()
	defer m.layers.guard.Unlock()
	var layers C.size_t
	var element C.pvera_dtype
	err = options.call(context.Background(), func(_ C.uintptr_t, c C.pvera_files_options) *C.pvera_error {
		return C.pvera_go_model_declare_files(m.c(), from.c, model.c, c, &layers, &element)
	})
	if err != nil {
		return 0, DType{}, err
	}
	for range int(layers) {
		var wide C.size_t
		if err := take(C.pvera_model_layer(m.c(), C.size_t(len(m.layers.wide)), nil, nil, &wide)); err != nil {
			return 0, DType{}, err
		}
		m.layers.wide = append(m.layers.wide, int(wide))
	}
	return int(layers), dtypeFrom(element), nil
}

// LayerAt is the module path of the layer of that number, and the sizes of the whole layer.
func (m *Model) LayerAt(number int) (name string, inTotal, outTotal int, err error) {
	if err := m.own().enter("model"); err != nil {
		return "", 0, 0, err
	}
	defer m.object.leave()
	var text *C.char
	var inputs, outputs C.size_t
	if err := take(C.pvera_model_layer(m.c(), C.size_t(number), &text, &inputs, &outputs)); err != nil {
		return "", 0, 0, err
	}
	return takeText(text), int(inputs), int(outputs), nil
}

// ExportLoRA writes the adapter's mean as a LoRA in PEFT's format, all or nothing; options may be nil.
func (a *Adapter) ExportLoRA(ctx context.Context, folder string, options *FilesOptions) error {
	text, err := newText("folder", folder)
	if err != nil {
		return err
	}
	defer text.free()
	if err := a.enter(); err != nil {
		return err
	}
	defer a.leave()
	return options.call(ctx, func(listener C.uintptr_t, c C.pvera_files_options) *C.pvera_error {
		return C.pvera_go_adapter_export_lora(listener, a.c(), text.c, c)
	})
}

// Rope says whether the rows of q and k are permuted for llama.cpp.
type Rope int32

const (
	RopeByArchitecture Rope = C.PVERA_ROPE_BY_ARCHITECTURE // as llama.cpp's converter does
	RopeKeep           Rope = C.PVERA_ROPE_KEEP            // as they are
	RopePermute        Rope = C.PVERA_ROPE_PERMUTE         // from rotate-half pairs to neighbours
)

// GGUFOptions is what llama.cpp must be told of the model.
type GGUFOptions struct {
	// Architecture is the model's general.architecture: "llama", "qwen2", …
	Architecture string
	// Names are tensors by module path ("model.layers.0.self_attn.q_proj": "blk.0.attn_q.weight"), before those of the built-in
	// table.
	Names map[string]string
	// Heads and KVHeads are num_attention_heads and num_key_value_heads, where rows of q and k are permuted.
	Heads, KVHeads int
	Rope           Rope
}

// ExportGGUF writes the adapter's mean as a GGUF adapter, which llama.cpp loads; options may be nil.
func (a *Adapter) ExportGGUF(ctx context.Context, path string, gguf GGUFOptions, options *FilesOptions) error {
	to, architecture, err := texts("path", path, "gguf.Architecture", gguf.Architecture)
	if err != nil {
		return err
	}
	defer to.free()
	defer architecture.free()
	if gguf.Heads < 0 || gguf.KVHeads < 0 {
		return errorf(ErrArgument, "gguf.Heads is %d and gguf.KVHeads %d; wanted no negative number", gguf.Heads, gguf.KVHeads)
	}
	// The array lies in C's memory, since it holds pointers.
	names := (*C.pvera_gguf_name)(C.calloc(C.size_t(len(gguf.Names)+1), C.sizeof_pvera_gguf_name))
	defer C.free(unsafe.Pointer(names))
	count := 0
	for module, tensor := range gguf.Names {
		from, name, err := texts("gguf.Names", module, "gguf.Names", tensor)
		if err != nil {
			return err
		}
		defer from.free()
		defer name.free()
		unsafe.Slice(names, len(gguf.Names))[count] = C.pvera_gguf_name{module: from.c, tensor: name.c}
		count++
	}
	if err := a.enter(); err != nil {
		return err
	}
	defer a.leave()
	told := C.pvera_gguf_options{struct_size: C.sizeof_pvera_gguf_options, architecture: architecture.c, names: names,
		name_count: C.size_t(count), heads: C.size_t(gguf.Heads), kv_heads: C.size_t(gguf.KVHeads), rope: C.int32_t(gguf.Rope)}
	return options.call(ctx, func(listener C.uintptr_t, c C.pvera_files_options) *C.pvera_error {
		return C.pvera_go_adapter_export_gguf(listener, a.c(), to.c, told, c)
	})
}

// ShrinkCheckpoint writes a checkpoint without its projections, after checking that its key draws them bit for bit. It returns
// what a load of the result is to be told: the base's element type, and InMax where that is not the default. folder and out may
// be the same; options may be nil.
func ShrinkCheckpoint(ctx context.Context, folder, out string, options *FilesOptions) (base DType, inMax int, err error) {
	from, to, err := texts("folder", folder, "out", out)
	if err != nil {
		return DType{}, 0, err
	}
	defer from.free()
	defer to.free()
	var element C.pvera_dtype
	var columns C.size_t
	err = options.call(ctx, func(listener C.uintptr_t, c C.pvera_files_options) *C.pvera_error {
		return C.pvera_go_checkpoint_shrink(listener, from.c, to.c, c, &element, &columns)
	})
	return dtypeFrom(element), int(columns), err
}

// CheckCheckpoint checks that the projections that a checkpoint holds are those that its key draws, bit for bit; [ErrProjection]
// says where they first differ. held says whether it holds any, base and grid how they were rounded. options may be nil.
func CheckCheckpoint(ctx context.Context, folder string, options *FilesOptions) (held bool, base DType, grid Grid, err error) {
	text, err := newText("folder", folder)
	if err != nil {
		return false, DType{}, GridNone, err
	}
	defer text.free()
	var holds C.bool
	var element C.pvera_dtype
	var rounded C.int32_t
	err = options.call(ctx, func(listener C.uintptr_t, c C.pvera_files_options) *C.pvera_error {
		return C.pvera_go_checkpoint_check(listener, text.c, c, &holds, &element, &rounded)
	})
	return bool(holds), dtypeFrom(element), Grid(rounded), err
}

// GrowCheckpoint writes the projections that the key draws into a checkpoint that has none. inMax is the largest in_features
// over all adapted layers; outMax that of out_features, or 0 for the longest vector. options may be nil.
func GrowCheckpoint(ctx context.Context, folder, out string, inMax, outMax int, options *FilesOptions) error {
	from, to, err := texts("folder", folder, "out", out)
	if err != nil {
		return err
	}
	defer from.free()
	defer to.free()
	if inMax < 0 || outMax < 0 {
		return errorf(ErrArgument, "inMax is %d and outMax %d; wanted no negative number", inMax, outMax)
	}
	return options.call(ctx, func(listener C.uintptr_t, c C.pvera_files_options) *C.pvera_error {
		return C.pvera_go_checkpoint_grow(listener, from.c, to.c, C.size_t(inMax), C.size_t(outMax), c)
	})
}

// MergeFiles writes a model with the adapter's mean folded into its weights, with the bits of [Context.Merge], a block of rows at
// a time; options may be nil. files is as for [Model.DeclareFiles], out a new or empty folder.
func (c *Context) MergeFiles(ctx context.Context, adapter *Adapter, files, out string, options *FilesOptions) error {
	from, to, err := texts("files", files, "out", out)
	if err != nil {
		return err
	}
	defer from.free()
	defer to.free()
	if err := c.own().enter("context"); err != nil {
		return err
	}
	defer c.object.leave()
	if err := adapter.enter(); err != nil {
		return err
	}
	defer adapter.leave()
	return options.call(ctx, func(listener C.uintptr_t, given C.pvera_files_options) *C.pvera_error {
		return C.pvera_go_merge_files(listener, c.c(), adapter.c(), from.c, to.c, given)
	})
}

// AuthorsOptions is what the files of the method's authors do not say. The zero value is the default.
type AuthorsOptions struct {
	// Alpha is what they multiply the delta by; 0: 16.
	Alpha float64
	// Head is which of the copies that were trained side by side in a grid search.
	Head int
	// Seed is what their projections are drawn from, where Draws is set and the file holds none.
	Seed  uint64
	Draws bool
}

// ImportAuthors writes a PEFT checkpoint of a state dictionary of the method's authors, given as safetensors; options may be nil.
func ImportAuthors(ctx context.Context, file, out string, authors AuthorsOptions, options *FilesOptions) error {
	from, to, err := texts("file", file, "out", out)
	if err != nil {
		return err
	}
	defer from.free()
	defer to.free()
	if authors.Head < 0 {
		return errorf(ErrArgument, "authors.Head is %d; wanted no negative number", authors.Head)
	}
	told := C.pvera_authors_options{struct_size: C.sizeof_pvera_authors_options, alpha: C.double(authors.Alpha),
		head: C.size_t(authors.Head), seed: C.uint64_t(authors.Seed)}
	if authors.Draws {
		told.draws = 1
	}
	return options.call(ctx, func(listener C.uintptr_t, c C.pvera_files_options) *C.pvera_error {
		return C.pvera_go_import_authors(listener, from.c, to.c, told, c)
	})
}

// Outlines: what is in a checkpoint or a bank, for programs that have yet to declare layers.

package pvera

// #include "shim.h"
import "C"

import "errors"

// Outline is what a checkpoint is, or the adapters of a bank that have one config, layers and projections (a family of them).
type Outline struct {
	// Config is a copy, the caller's to close.
	Config *Config
	// Modules are the adapted ones.
	Modules []OutlineModule
	// Adapters is 1 for a checkpoint; of a family, how many the bank holds.
	Adapters int
	// Tensors are those that the checkpoint carries beside the adapter.
	Tensors int
	// InMax and OutMax are the columns of A and the rows of B; 0 for a checkpoint that holds none.
	InMax, OutMax int
	// HoldsProjections says that A and B are in the file, and not drawn from the config's key.
	HoldsProjections bool
	// Base and Grid say, of a bank's family whose A and B are drawn, how they are rounded; zero otherwise.
	Base DType
	Grid Grid
}

// OutlineModule is an adapted module, with the out_features of the whole layer.
type OutlineModule struct {
	Path        string
	OutFeatures int
	LearnsBias  bool
}

// CheckpointOutline reads the config of a checkpoint folder and the header of its tensor file; no tensor is read.
func CheckpointOutline(folder string) (*Outline, error) {
	text, err := newText("folder", folder)
	if err != nil {
		return nil, err
	}
	defer text.free()
	var pointer *C.pvera_outline
	if err := take(C.pvera_outline_from_checkpoint(text.c, &pointer)); err != nil {
		return nil, err
	}
	return outlineFrom(pointer)
}

// Families are the outlines of the bank's adapters, whose model need not declare any layer.
func (b *Bank) Families() (families []*Outline, err error) {
	for {
		var pointer *C.pvera_outline
		err := b.run(func() *C.pvera_error { return C.pvera_outline_from_bank(b.c(), C.size_t(len(families)), &pointer) })
		if errors.Is(err, ErrNotFound) {
			return families, nil
		}
		var family *Outline
		if err == nil {
			family, err = outlineFrom(pointer)
		}
		if err != nil {
			for _, family := range families {
				family.Config.Close()
			}
			return nil, err
		}
		families = append(families, family)
	}
}

// outlineFrom copies an outline and frees it.
func outlineFrom(pointer *C.pvera_outline) (*Outline, error) {
	defer C.pvera_outline_free(pointer)
	info := C.pvera_outline_info{struct_size: C.sizeof_pvera_outline_info}
	if err := take(C.pvera_outline_get_info(pointer, &info)); err != nil {
		return nil, err
	}
	modules := make([]OutlineModule, int(info.modules))
	for i := range modules {
		var path *C.char
		var outputs C.size_t
		var learns C.bool
		if err := take(C.pvera_outline_module(pointer, C.size_t(i), &path, &outputs, &learns)); err != nil {
			return nil, err
		}
		modules[i] = OutlineModule{Path: takeText(path), OutFeatures: int(outputs), LearnsBias: bool(learns)}
	}
	var config *C.pvera_config
	if err := take(C.pvera_outline_config(pointer, &config)); err != nil {
		return nil, err
	}
	return &Outline{
		Config: configFrom(config), Modules: modules, Adapters: int(info.adapters), Tensors: int(info.tensors),
		InMax: int(info.in_max), OutMax: int(info.out_max), HoldsProjections: info.holds_projections != 0,
		Base: dtypeFrom(info.base_dtype), Grid: Grid(info.grid),
	}, nil
}

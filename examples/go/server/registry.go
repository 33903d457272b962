// The registry: which adapter is published under a name, and the how manieth it is.

package main

import (
	"context"
	"maps"
	"sync"

	"pvera.invalid/pvera"
)

// registry publishes adapters. Each that is put under a name gets a version of its own.
type registry struct {
	model    *pvera.Model
	guard    sync.Mutex
	versions map[string]int // never written, only replaced: a view keeps its own
	last     int
}

// view is the adapters of one moment, and their versions.
type view struct {
	*pvera.Snapshot
	versions map[string]int
}

// view never waits for a load: an adapter is loaded before the guard is taken.
func (r *registry) view() (view, error) {
	r.guard.Lock()
	defer r.guard.Unlock()
	snapshot, err := r.model.Snapshot()
	return view{snapshot, r.versions}, err
}

// put loads an adapter and publishes it, in the place of an older one if there is any. Passes that run keep theirs.
func (r *registry) put(ctx context.Context, name string, config, tensors []byte) (version int, err error) {
	adapter, err := r.model.LoadAdapterMemory(ctx, config, tensors, nil)
	if err != nil {
		return 0, err
	}
	defer adapter.Close() // the model holds its own reference
	r.guard.Lock()
	defer r.guard.Unlock()
	publish := r.model.Publish
	if _, known := r.versions[name]; known {
		publish = r.model.Replace
	}
	if _, err := publish(name, adapter); err != nil {
		return 0, err
	}
	r.last++
	r.change(func(versions map[string]int) { versions[name] = r.last })
	return r.last, nil
}

func (r *registry) remove(name string) error {
	r.guard.Lock()
	defer r.guard.Unlock()
	if err := r.model.Remove(name); err != nil {
		return err
	}
	r.change(func(versions map[string]int) { delete(versions, name) })
	return nil
}

func (r *registry) change(how func(versions map[string]int)) {
	changed := make(map[string]int, len(r.versions)+1)
	maps.Copy(changed, r.versions)
	how(changed)
	r.versions = changed
}

func (r *registry) list() map[string]int {
	r.guard.Lock()
	defer r.guard.Unlock()
	return r.versions
}

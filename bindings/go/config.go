// Configs: the hyper-parameters of an adapter, under PEFT's names.

package pvera

// #include "shim.h"
import "C"

import (
	"sync"
	"unsafe"
)

// Config is the hyper-parameters of an adapter, under PEFT's names and with PEFT's defaults; pvera.h lists the fields.
type Config struct {
	object *object
	guard  sync.RWMutex // setters need the config to themselves
}

func configFrom(pointer *C.pvera_config) *Config {
	own := newObject("config", unsafe.Pointer(pointer), func(config unsafe.Pointer) {
		C.pvera_config_free((*C.pvera_config)(config))
	})
	return watch(&Config{object: own}, own)
}

// NewConfig is a config with PEFT's defaults.
func NewConfig() (*Config, error) {
	var pointer *C.pvera_config
	if err := take(C.pvera_config_new(&pointer)); err != nil {
		return nil, err
	}
	return configFrom(pointer), nil
}

// ParseConfig reads the text of an adapter_config.json.
func ParseConfig(json []byte) (*Config, error) {
	var pointer *C.pvera_config
	text := (*C.char)(unsafe.Pointer(unsafe.SliceData(json)))
	if err := take(C.pvera_config_from_json(text, C.size_t(len(json)), &pointer)); err != nil {
		return nil, err
	}
	return configFrom(pointer), nil
}

// Close gives its memory back.
func (c *Config) Close() error {
	c.own().close()
	return nil
}

func (c *Config) own() *object {
	if c == nil {
		return nil
	}
	return c.object
}

func (c *Config) c() *C.pvera_config { return (*C.pvera_config)(c.object.pointer) }

// read runs a call that reads the config.
func (c *Config) read(call func() *C.pvera_error) error {
	if err := c.own().enter("config"); err != nil {
		return err
	}
	defer c.object.leave()
	c.guard.RLock()
	defer c.guard.RUnlock()
	return take(call())
}

// field runs a call that reads a field.
func (c *Config) field(name string, call func(field *C.char) *C.pvera_error) error {
	text, err := newText("field", name)
	if err != nil {
		return err
	}
	defer text.free()
	return c.read(func() *C.pvera_error { return call(text.c) })
}

// set runs a call that writes a field.
func (c *Config) set(name string, call func(field *C.char) *C.pvera_error) error {
	text, err := newText("field", name)
	if err != nil {
		return err
	}
	defer text.free()
	if err := c.own().enter("config"); err != nil {
		return err
	}
	defer c.object.leave()
	c.guard.Lock()
	defer c.guard.Unlock()
	return take(call(text.c))
}

// MarshalJSON is the text of an adapter_config.json as PEFT lays it out.
func (c *Config) MarshalJSON() ([]byte, error) {
	var json *C.char
	if err := c.read(func() *C.pvera_error { return C.pvera_config_to_json(c.c(), &json) }); err != nil {
		return nil, err
	}
	return []byte(takeText(json)), nil
}

// Clone is a copy that shares nothing.
func (c *Config) Clone() (*Config, error) {
	var pointer *C.pvera_config
	if err := c.read(func() *C.pvera_error { return C.pvera_config_clone(c.c(), &pointer) }); err != nil {
		return nil, err
	}
	return configFrom(pointer), nil
}

// Validate says whether the fields make sense, each and together.
func (c *Config) Validate() error {
	return c.read(func() *C.pvera_error { return C.pvera_config_validate(c.c()) })
}

// Targets says whether an adapter of this config targets a linear layer of this module path, by PEFT's rules.
func (c *Config) Targets(path string, outputHead bool) (targeted bool, err error) {
	text, err := newText("path", path)
	if err != nil {
		return false, err
	}
	defer text.free()
	var answer C.bool
	err = c.read(func() *C.pvera_error {
		return C.pvera_config_targets(c.c(), text.c, C.bool(outputHead), &answer)
	})
	return bool(answer), err
}

// Int reads a whole-number field: r, projection_prng_key, generator_seed, layers_to_transform (of one value).
func (c *Config) Int(field string) (int64, error) {
	var value C.int64_t
	err := c.field(field, func(name *C.char) *C.pvera_error { return C.pvera_config_get_int(c.c(), name, &value) })
	return int64(value), err
}

// SetInt sets a whole-number field. On an error the config is as before.
func (c *Config) SetInt(field string, value int64) error {
	return c.set(field, func(name *C.char) *C.pvera_error { return C.pvera_config_set_int(c.c(), name, C.int64_t(value)) })
}

// Real reads a number: d_initial, pvera_dropout, alpha, logvar_bound.
func (c *Config) Real(field string) (float64, error) {
	var value C.double
	err := c.field(field, func(name *C.char) *C.pvera_error { return C.pvera_config_get_real(c.c(), name, &value) })
	return float64(value), err
}

// SetReal sets a number.
func (c *Config) SetReal(field string, value float64) error {
	return c.set(field, func(name *C.char) *C.pvera_error { return C.pvera_config_set_real(c.c(), name, C.double(value)) })
}

// Bool reads a truth value: fan_in_fan_out, inference_mode, init_weights, sample_at_inference, save_projection.
func (c *Config) Bool(field string) (bool, error) {
	var value C.bool
	err := c.field(field, func(name *C.char) *C.pvera_error { return C.pvera_config_get_bool(c.c(), name, &value) })
	return bool(value), err
}

// SetBool sets a truth value.
func (c *Config) SetBool(field string, value bool) error {
	return c.set(field, func(name *C.char) *C.pvera_error { return C.pvera_config_set_bool(c.c(), name, C.bool(value)) })
}

// Text reads a text field: bias, target_modules (of the pattern form), task_type, ….
func (c *Config) Text(field string) (string, error) {
	var value *C.char
	err := c.field(field, func(name *C.char) *C.pvera_error { return C.pvera_config_get_text(c.c(), name, &value) })
	if err != nil {
		return "", err
	}
	return takeText(value), nil
}

// SetText sets a text field.
func (c *Config) SetText(field, value string) error {
	text, err := newText("value", value)
	if err != nil {
		return err
	}
	defer text.free()
	return c.set(field, func(name *C.char) *C.pvera_error { return C.pvera_config_set_text(c.c(), name, text.c) })
}

// JSON reads any field, known or not, as JSON.
func (c *Config) JSON(field string) (string, error) {
	var value *C.char
	err := c.field(field, func(name *C.char) *C.pvera_error { return C.pvera_config_get_json(c.c(), name, &value) })
	if err != nil {
		return "", err
	}
	return takeText(value), nil
}

// SetJSON sets any known field from JSON: SetJSON("target_modules", `["q_proj", "v_proj"]`).
func (c *Config) SetJSON(field, value string) error {
	text, err := newText("value", value)
	if err != nil {
		return err
	}
	defer text.free()
	return c.set(field, func(name *C.char) *C.pvera_error { return C.pvera_config_set_json(c.c(), name, text.c) })
}

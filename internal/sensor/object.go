package sensor

import (
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"profile/internal/sensor/bpf"
)

// object is the sensor's object, parsed once: that takes as long as loading the
// programs of a policy.
var object = sync.OnceValues(bpf.LoadSensor)

// loadObject gives a copy of it, for the caller to change.
func loadObject() (*ebpf.CollectionSpec, error) {
	spec, err := object()
	if err != nil {
		return nil, fmt.Errorf("read the sensor's object: %w", err)
	}
	return spec.Copy(), nil
}

// kernelTypes are those of this kernel, decoded once: that takes 20 ms. They stay
// in 2 MB of memory.
var kernelTypes = btf.NewCache()

// loadCollection loads programs and maps, some of which there are already.
func loadCollection(spec *ebpf.CollectionSpec, there map[string]*ebpf.Map) (*ebpf.Collection, error) {
	return ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: there, Cache: kernelTypes})
}

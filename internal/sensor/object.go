package sensor

import (
	"fmt"
	"sync"

	"github.com/cilium/ebpf"

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

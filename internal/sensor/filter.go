package sensor

import (
	"slices"
	"strings"

	"github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A client may ask for some events and some of their fields, as of a Tetragon
// and with the same meaning: an event is sent if one filter of the allow list
// takes it, and then goes through the field filters one after the other. What
// the sensor does not filter by is refused, since a filter that is ignored
// would send more than was asked for.

// filters are those of one request.
type filters struct {
	allow  []*tetragon.Filter
	fields []fieldFilter
}

type fieldFilter struct {
	*tetragon.FieldFilter
	paths fields
}

// fields are the fields that a filter names, and those below them; one without
// any below it is named whole.
type fields map[string]fields

func readFilters(req *tetragon.GetEventsRequest) (filters, error) {
	switch {
	case len(req.GetDenyList()) > 0:
		return filters{}, refusal("deny_list", "this sensor has none: name what to send in allow_list")
	case req.GetAggregationOptions() != nil:
		return filters{}, refusal("aggregation_options", "this sensor aggregates nothing")
	}
	var f filters
	if !slices.ContainsFunc(req.GetAllowList(), isEmpty) { // one lets everything through, as tetra sends it
		f.allow = req.GetAllowList()
	}
	for _, one := range f.allow {
		known := &tetragon.Filter{EventSet: one.GetEventSet(), PolicyNames: one.GetPolicyNames()}
		if !proto.Equal(one, known) {
			return filters{}, refusal("allow_list", "this sensor filters by event_set and policy_names alone")
		}
	}
	for _, one := range req.GetFieldFilters() {
		f.fields = append(f.fields, fieldFilter{one, parseFields(one.GetFields().GetPaths())})
	}
	return f, nil
}

// isEmpty reports whether a filter asks for nothing.
func isEmpty(f *tetragon.Filter) bool { return proto.Equal(f, &tetragon.Filter{}) }

func parseFields(paths []string) fields {
	root := fields{}
	for _, path := range paths {
		at := root
		for name := range strings.SplitSeq(path, ".") {
			if at[name] == nil {
				at[name] = fields{}
			}
			at = at[name]
		}
	}
	return root
}

// of gives the event as it is sent, nil if it is not. The event itself, which
// others get too, stays as it is.
func (f filters) of(ev *tetragon.GetEventsResponse) *tetragon.GetEventsResponse {
	if len(f.allow) == 0 && len(f.fields) == 0 {
		return ev
	}
	kind := kindOf(ev)
	if kind == nil {
		return nil
	}
	typ := tetragon.EventType(kind.Number()) // in sync, as the API has it
	if len(f.allow) > 0 && !slices.ContainsFunc(f.allow, func(one *tetragon.Filter) bool {
		return (one.EventSet == nil || slices.Contains(one.EventSet, typ)) &&
			(one.PolicyNames == nil || slices.Contains(one.PolicyNames, policyOf(ev)))
	}) {
		return nil
	}
	for _, one := range f.fields {
		if len(one.EventSet) > 0 && slices.Contains(one.EventSet, typ) == one.GetInvertEventSet().GetValue() {
			continue
		}
		to := new(tetragon.GetEventsResponse)
		ev.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if fd != kind {
				to.ProtoReflect().Set(fd, v)
			}
			return true
		})
		include := one.GetAction() == tetragon.FieldFilterAction_INCLUDE
		copyFields(to.ProtoReflect().Mutable(kind).Message(), ev.ProtoReflect().Get(kind).Message(), one.paths, include)
		ev = to
	}
	return ev
}

// kindOf is the field of the event's own kind, nil if it has none.
func kindOf(ev *tetragon.GetEventsResponse) protoreflect.FieldDescriptor {
	m := ev.ProtoReflect()
	return m.WhichOneof(m.Descriptor().Oneofs().ByName("event"))
}

func policyOf(ev *tetragon.GetEventsResponse) string {
	if k := ev.GetProcessKprobe(); k != nil {
		return k.GetPolicyName()
	}
	return ev.GetProcessTracepoint().GetPolicyName()
}

// copyFields copies the fields that are named, or all others. No names are all
// of them, either way.
func copyFields(to, from protoreflect.Message, named fields, include bool) {
	from.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		below, is := named[string(fd.Name())]
		deeper := is && len(below) > 0 && fd.Message() != nil && !fd.IsMap()
		switch {
		case deeper && fd.IsList():
			list := to.Mutable(fd).List()
			for i := range v.List().Len() {
				copyFields(list.AppendMutable().Message(), v.List().Get(i).Message(), below, include)
			}
		case deeper:
			copyFields(to.Mutable(fd).Message(), v.Message(), below, include)
		case len(named) == 0 || is == include:
			to.Set(fd, v)
		}
		return true
	})
}

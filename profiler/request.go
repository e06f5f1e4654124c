package profiler

import (
	api "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"profile/internal/tetragon"
)

// EventsRequest asks a Tetragon for the events that a session folds, and for
// none of other policies. A version that does not know a filter sends more,
// which is ignored. The embedded sensor, which has nothing else to send, is
// asked for all.
//
// Of their fields only the parent of an exec is left out, which repeats the
// whole of another event. To leave out a field further down, a Tetragon (v1.7
// was tried, and the code is the same since v1.1) copies each event by
// reflection: some 100 µs instead of 10, so that it loses events at a tenth of
// the rate. Arguments come with each exec, because they tell scripts from
// symlinks; they are not kept.
func EventsRequest(session string, agent *tetragon.Agent) *api.GetEventsRequest {
	if agent.IsSensor() {
		return &api.GetEventsRequest{}
	}
	name := PolicyName(session)
	policies := []string{name, name + tetragon.ForksSuffix, name + tetragon.SocketsSuffix}
	for generation := range narrowedNames {
		policies = append(policies, narrowedName(session, generation))
	}
	return &api.GetEventsRequest{
		// Policies alone would leave out what is of none.
		AllowList: []*api.Filter{
			{EventSet: []api.EventType{api.EventType_PROCESS_EXEC, api.EventType_PROCESS_EXIT,
				api.EventType_PROCESS_THROTTLE, api.EventType_RATE_LIMIT_INFO}},
			{EventSet: []api.EventType{api.EventType_PROCESS_KPROBE, api.EventType_PROCESS_TRACEPOINT}, PolicyNames: policies},
		},
		FieldFilters: []*api.FieldFilter{{
			EventSet: []api.EventType{api.EventType_PROCESS_EXEC},
			Fields:   &fieldmaskpb.FieldMask{Paths: []string{"process"}}, Action: api.FieldFilterAction_INCLUDE,
		}},
	}
}

package sensor

import (
	"testing"

	tapi "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func filterProcess(pid uint32) *tapi.Process {
	return &tapi.Process{ExecId: "id", Pid: wrapperspb.UInt32(pid), Binary: "/bin/x", Arguments: "--secret", Cwd: "/"}
}

func execEvent() *tapi.GetEventsResponse {
	return &tapi.GetEventsResponse{NodeName: "node", Time: &timestamppb.Timestamp{Seconds: 7},
		Event: &tapi.GetEventsResponse_ProcessExec{ProcessExec: &tapi.ProcessExec{Process: filterProcess(2), Parent: filterProcess(1),
			Ancestors: []*tapi.Process{filterProcess(3)}}}}
}

func kprobeEvent(policy string) *tapi.GetEventsResponse {
	return &tapi.GetEventsResponse{NodeName: "node", Event: &tapi.GetEventsResponse_ProcessKprobe{ProcessKprobe: &tapi.ProcessKprobe{
		Process: filterProcess(2), PolicyName: policy, Args: []*tapi.KprobeArgument{{Arg: &tapi.KprobeArgument_IntArg{IntArg: 2}}}}}}
}

// The cases were compared with what Tetragon's own filters make of them.
func TestFiltersSendWhatWasAskedFor(t *testing.T) {
	exec, kprobe := tapi.EventType_PROCESS_EXEC, tapi.EventType_PROCESS_KPROBE
	mask := func(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }
	changed := func(ev *tapi.GetEventsResponse, change func(*tapi.ProcessExec)) *tapi.GetEventsResponse {
		change(ev.GetProcessExec())
		return ev
	}
	for _, c := range []struct {
		name string
		req  *tapi.GetEventsRequest
		ev   *tapi.GetEventsResponse
		want *tapi.GetEventsResponse
	}{
		{"none", &tapi.GetEventsRequest{}, execEvent(), execEvent()},
		{"its type", &tapi.GetEventsRequest{AllowList: []*tapi.Filter{{EventSet: []tapi.EventType{kprobe}}, {EventSet: []tapi.EventType{exec}}}}, execEvent(), execEvent()},
		{"another type", &tapi.GetEventsRequest{AllowList: []*tapi.Filter{{EventSet: []tapi.EventType{kprobe}}}}, execEvent(), nil},
		{"an event of no type", &tapi.GetEventsRequest{AllowList: []*tapi.Filter{{EventSet: []tapi.EventType{exec}}}}, &tapi.GetEventsResponse{}, nil},
		{"its policy", &tapi.GetEventsRequest{AllowList: []*tapi.Filter{{PolicyNames: []string{"a", "b"}}}}, kprobeEvent("b"), kprobeEvent("b")},
		{"another policy", &tapi.GetEventsRequest{AllowList: []*tapi.Filter{{PolicyNames: []string{"a", "b"}}}}, kprobeEvent("c"), nil},
		{"policies drop what has none", &tapi.GetEventsRequest{AllowList: []*tapi.Filter{{PolicyNames: []string{"a"}}}}, execEvent(), nil},
		{"type and policy both", &tapi.GetEventsRequest{AllowList: []*tapi.Filter{{EventSet: []tapi.EventType{exec}, PolicyNames: []string{"a"}}}}, kprobeEvent("a"), nil},
		{"a field included", &tapi.GetEventsRequest{FieldFilters: []*tapi.FieldFilter{{Fields: mask("process")}}}, execEvent(),
			changed(execEvent(), func(e *tapi.ProcessExec) { e.Parent, e.Ancestors = nil, nil })},
		{"a field excluded", &tapi.GetEventsRequest{FieldFilters: []*tapi.FieldFilter{{Fields: mask("process.arguments", "parent.exec_id"), Action: tapi.FieldFilterAction_EXCLUDE}}}, execEvent(),
			changed(execEvent(), func(e *tapi.ProcessExec) { e.Process.Arguments, e.Parent.ExecId = "", "" })},
		{"a field of each of a list", &tapi.GetEventsRequest{FieldFilters: []*tapi.FieldFilter{{Fields: mask("ancestors.cwd"), Action: tapi.FieldFilterAction_EXCLUDE}}}, execEvent(),
			changed(execEvent(), func(e *tapi.ProcessExec) { e.Ancestors[0].Cwd = "" })},
		{"no field included is all", &tapi.GetEventsRequest{FieldFilters: []*tapi.FieldFilter{{}}}, execEvent(), execEvent()},
		{"one filter after the other", &tapi.GetEventsRequest{FieldFilters: []*tapi.FieldFilter{{Fields: mask("process")}, {Fields: mask("process"), Action: tapi.FieldFilterAction_EXCLUDE}}}, execEvent(),
			changed(execEvent(), func(e *tapi.ProcessExec) { e.Process, e.Parent, e.Ancestors = nil, nil, nil })},
		{"fields of another type", &tapi.GetEventsRequest{FieldFilters: []*tapi.FieldFilter{{EventSet: []tapi.EventType{kprobe}, Fields: mask("process")}}}, execEvent(), execEvent()},
		{"fields of all other types", &tapi.GetEventsRequest{FieldFilters: []*tapi.FieldFilter{{EventSet: []tapi.EventType{kprobe}, Fields: mask("process"), InvertEventSet: wrapperspb.Bool(true)}}}, execEvent(),
			changed(execEvent(), func(e *tapi.ProcessExec) { e.Parent, e.Ancestors = nil, nil })},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := readFilters(c.req)
			if err != nil {
				t.Fatal(err)
			}
			before := proto.Clone(c.ev)
			if got := f.of(c.ev); !proto.Equal(got, c.want) || (got == nil) != (c.want == nil) {
				t.Errorf("sent %v\nwant %v", got, c.want)
			}
			if !proto.Equal(c.ev, before) {
				t.Errorf("the event that others get is %v now", c.ev)
			}
		})
	}
}

func TestFiltersThatWouldBeIgnoredAreRefused(t *testing.T) {
	for name, req := range map[string]*tapi.GetEventsRequest{
		"deny_list":           {DenyList: []*tapi.Filter{{}}},
		"aggregation_options": {AggregationOptions: &tapi.AggregationOptions{WindowSize: durationpb.New(1)}},
		"allow_list":          {AllowList: []*tapi.Filter{{EventSet: []tapi.EventType{1}, BinaryRegex: []string{"x"}}}},
	} {
		if _, err := readFilters(req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: error %v, want that it is refused", name, err)
		}
	}
}

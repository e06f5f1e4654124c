package sensor

import (
	"context"
	"strings"
	"testing"

	tapi "github.com/cilium/tetragon/api/v1/tetragon"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// What the sensor cannot do for a client that is not ours, such as tetra, is
// refused by its field.
func TestServerRefusesWhatItWouldIgnore(t *testing.T) {
	conn := NewServer(Config{Name: "unit-test-server", Node: "here"}).Local()
	defer conn.Close()
	client := tapi.NewFineGuidanceSensorsClient(conn)
	events := func(req *tapi.GetEventsRequest) func(context.Context) error {
		return func(ctx context.Context) error {
			stream, err := client.GetEvents(ctx, req)
			if err == nil {
				_, err = stream.Header()
			}
			return err
		}
	}
	off := false
	curl := &tapi.Filter{BinaryRegex: []string{"curl"}}
	for name, c := range map[string]struct {
		call  func(context.Context) error
		field string // that the refusal names; "" is none
	}{
		"events":                  {events(&tapi.GetEventsRequest{}), ""},
		"a filter that is none":   {events(&tapi.GetEventsRequest{AllowList: []*tapi.Filter{{}}}), ""},
		"one of them is none":     {events(&tapi.GetEventsRequest{AllowList: []*tapi.Filter{curl, {}}}), ""},
		"a filter":                {events(&tapi.GetEventsRequest{AllowList: []*tapi.Filter{curl}}), "allow_list"},
		"a filter that lets none": {events(&tapi.GetEventsRequest{DenyList: []*tapi.Filter{{}}}), "deny_list"},
		"fields": {events(&tapi.GetEventsRequest{FieldFilters: []*tapi.FieldFilter{
			{Fields: &fieldmaskpb.FieldMask{Paths: []string{"process"}}}}}), ""},
		"aggregation": {events(&tapi.GetEventsRequest{AggregationOptions: &tapi.AggregationOptions{}}), "aggregation_options"},
		"deletion in a namespace": {func(ctx context.Context) error {
			_, err := client.DeleteTracingPolicy(ctx, &tapi.DeleteTracingPolicyRequest{Name: "x", Namespace: "kube-system"})
			return err
		}, "namespace"},
		"a mode in a namespace": {func(ctx context.Context) error {
			_, err := client.ConfigureTracingPolicy(ctx, &tapi.ConfigureTracingPolicyRequest{
				Name: "x", Namespace: "kube-system", Mode: tapi.TracingPolicyMode_TP_MODE_MONITOR.Enum()})
			return err
		}, "namespace"},
		"disabling": {func(ctx context.Context) error {
			_, err := client.ConfigureTracingPolicy(ctx, &tapi.ConfigureTracingPolicyRequest{Name: "x", Enable: &off})
			return err
		}, "enable"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := c.call(ctx)
			if c.field == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if status.Code(err) != codes.InvalidArgument || !strings.HasPrefix(status.Convert(err).Message(), c.field+": ") {
				t.Errorf("the error is %v, want one that names %s", err, c.field)
			}
		})
	}
}

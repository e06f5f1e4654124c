package enforcer

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// anyText holds what JSON, HTML and JavaScript escape, and what is not UTF-8.
func anyText() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[ -~]{0,12}`),
		rapid.String(),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 12), func(b []byte) string { return string(b) }),
		rapid.SampledFrom([]string{"", "/usr/bin/tar", "\u2028\u2029", "<a&b>", "\x00\x1f\x7f", "\\x41", "\xed\xa0\x80", "\"'`"}),
	)
}

func anyTexts() *rapid.Generator[[]string] {
	return rapid.OneOf(rapid.Just[[]string](nil), rapid.SliceOfN(anyText(), 0, 4))
}

// anyTime holds the zero time, any zone and, seldom, what RFC 3339 cannot say.
func anyTime() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		zones := []*time.Location{time.UTC, time.UTC, time.FixedZone("", 19800), time.FixedZone("", -90), time.FixedZone("", 24*3600)}
		seconds := rapid.OneOf(rapid.Int64Range(0, 1<<33), rapid.Int64Range(-1<<40, 1<<40)).Draw(t, "seconds")
		if rapid.IntRange(0, 4).Draw(t, "zero") == 0 {
			return time.Time{}
		}
		nanos := rapid.SampledFrom([]int64{0, 1, 120_000_000, 123_456_789, 999_999_999}).Draw(t, "nanoseconds")
		return time.Unix(seconds, nanos).In(rapid.SampledFrom(zones).Draw(t, "zone"))
	})
}

func anyList[T any](one func(*rapid.T) T) *rapid.Generator[[]T] {
	return rapid.OneOf(rapid.Just[[]T](nil), rapid.SliceOfN(rapid.Custom(one), 0, 3))
}

// anyRow names no fields, so that one that is new to a row does not go by it.
func anyRow(t *rapid.T) Row {
	text := func(label string) string { return anyText().Draw(t, label) }
	return Row{
		text("scope"), text("path"), text("path_base64"), text("verdict"), anyTexts().Draw(t, "reasons"),
		RunCount{rapid.Uint64().Draw(t, "seen"), rapid.Uint64().Draw(t, "complete")},
		anyList(func(t *rapid.T) NetworkUse {
			return NetworkUse{anyText().Draw(t, "family"), anyText().Draw(t, "type"), rapid.Uint64().Draw(t, "count"),
				anyTime().Draw(t, "first"), anyTime().Draw(t, "last"), anyTexts().Draw(t, "protocols"), anyTexts().Draw(t, "reach"),
				anyTexts().Draw(t, "destinations"), rapid.Uint64Range(0, 2).Draw(t, "inherited"), rapid.Bool().Draw(t, "at_least")}
		}).Draw(t, "network"),
		anyList(func(t *rapid.T) AttemptRow {
			return AttemptRow{anyText().Draw(t, "family"), anyText().Draw(t, "type"), anyText().Draw(t, "stage"),
				rapid.Uint64().Draw(t, "count"), anyTime().Draw(t, "first"), anyTime().Draw(t, "last")}
		}).Draw(t, "attempts"),
		anyList(func(t *rapid.T) EntryRow {
			return EntryRow{anyText().Draw(t, "name"), anyText().Draw(t, "name_base64"), rapid.Uint64().Draw(t, "runs")}
		}).Draw(t, "entries"),
		anyTime().Draw(t, "first_seen"), anyTime().Draw(t, "last_seen"),
		rapid.Bool().Draw(t, "replaced"), anyTexts().Draw(t, "able"), text("family"),
	}
}

func TestRowsAreWrittenAsEncodingJSONWrites(t *testing.T) {
	refused := 0
	rapid.Check(t, func(t *rapid.T) {
		row := anyRow(t)
		want, wantErr := json.Marshal(&row)
		got, err := row.AppendJSON([]byte("before"))
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("AppendJSON: %v, encoding/json: %v", err, wantErr)
		}
		if err != nil {
			refused++
			return
		}
		if string(got) != "before"+string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	})
	if refused == 0 {
		t.Error("no time was refused: the draws do not reach there")
	}
}

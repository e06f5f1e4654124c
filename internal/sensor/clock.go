package sensor

import (
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// clock turns the kernel's boot time into wall-clock time. The offset between
// the two is taken anew each second, since the wall clock can be set.
type clock struct {
	offset int64 // ns
	next   int64 // boot time at which to take it again
}

func bootNow() int64 {
	var ts unix.Timespec
	// CLOCK_BOOTTIME exists on every kernel that can load the sensor.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano()
}

func (c *clock) wall(boot uint64) time.Time {
	if now := bootNow(); now >= c.next {
		c.offset = time.Now().UnixNano() - now
		c.next = now + int64(time.Second)
	}
	return time.Unix(0, int64(boot)+c.offset)
}

func (c *clock) stamp(boot uint64) *timestamppb.Timestamp {
	return timestamppb.New(c.wall(boot))
}

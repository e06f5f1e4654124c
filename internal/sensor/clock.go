package sensor

import (
	"math"
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
	// What is told has just happened, so that the clock need not be asked.
	if int64(boot) >= c.next {
		c.offset = offset()
		c.next = bootNow() + int64(time.Second)
	}
	return time.Unix(0, int64(boot)+c.offset)
}

// offset reads both clocks at one moment, as near as it gets: on a busy machine
// this thread can stand still for long between one and the other.
func offset() int64 {
	const near = 20_000 // ns
	var best int64
	least := int64(math.MaxInt64)
	for range 10 {
		before := bootNow()
		wall := time.Now().UnixNano()
		apart := bootNow() - before
		if apart < least {
			least, best = apart, wall-before-apart/2
		}
		if apart < near {
			break
		}
	}
	return best
}

func (c *clock) stamp(boot uint64) *timestamppb.Timestamp {
	return timestamppb.New(c.wall(boot))
}

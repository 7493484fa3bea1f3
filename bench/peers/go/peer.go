// SPDX-License-Identifier: ISC

// The workloads of docs/benchmarks.md for Go: goroutines are the actors, channels the mailboxes.
// Usage: peer W1 [workers].  Prints one JSON object; counts are checked.
package main

import (
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"sort"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// One rule for the capacity of a channel: as many messages as can lie in it while their senders go on,
// at most `mailbox`.  None where the sender waits for the answer (W1, W8: a hand-over is the cheapest
// for Go), 1 in W3, W4 and W7, 10 in W6, 200 in W5; only in W2 does a sender ever wait for room.
const mailbox = 1024

func rssMiB() float64 {
	var ru syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return float64(ru.Maxrss) / 1024
}

func report(name string, value float64, unit string, check uint64, want uint64) {
	if check != want {
		fmt.Fprintf(os.Stderr, "%s: counted %d, expected %d\n", name, check, want)
		os.Exit(1)
	}
	fmt.Printf("{\"name\":%q,\"value\":%.6g,\"unit\":%q,\"rss_mib\":%.1f}\n", name, value, unit, rssMiB())
}

func rate(n uint64, d time.Duration) float64 { return float64(n) / d.Seconds() / 1e6 }

func w1() {
	const rounds = 2000000
	ping, pong := make(chan uint64), make(chan uint64)
	done := make(chan uint64, 1)
	start := time.Now()
	go func() {
		for v := range ping {
			pong <- v + 1
		}
	}()
	go func() {
		var v uint64
		for i := 0; i < rounds; i++ {
			ping <- v
			v = <-pong
		}
		done <- v
	}()
	v := <-done
	report("W1", rate(2*rounds, time.Since(start)), "M msg/s", v, rounds)
}

func w2(name string, yieldEvery int) {
	const producers, each = 4, 2500000
	box := make(chan uint64, mailbox)
	done := make(chan uint64, 1)
	start := time.Now()
	go func() {
		var n uint64
		for i := 0; i < producers*each; i++ {
			n += <-box
		}
		done <- n
	}()
	for p := 0; p < producers; p++ {
		go func() {
			for i := 1; i <= each; i++ {
				box <- 1
				if yieldEvery > 0 && i%yieldEvery == 0 {
					runtime.Gosched()
				}
			}
		}()
	}
	n := <-done
	report(name, rate(producers*each, time.Since(start)), "M msg/s", n, producers*each)
}

func w3() {
	const actors, hops = 1000, 5000000
	boxes := make([]chan uint64, actors)
	for i := range boxes {
		boxes[i] = make(chan uint64, 1)
	}
	done := make(chan uint64, 1)
	start := time.Now()
	for i := range boxes {
		go func(in, out chan uint64) {
			for v := range in {
				if v == 0 {
					done <- hops
					return
				}
				out <- v - 1
			}
		}(boxes[i], boxes[(i+1)%actors])
	}
	boxes[0] <- hops
	n := <-done
	report("W3", rate(hops, time.Since(start)), "M hops/s", n, hops)
}

// One message each: who ends counts itself, and only the last one says so.
func w4(name string, yieldEvery int) {
	const actors = 1000000
	var ended uint64
	done := make(chan uint64, 1)
	start := time.Now()
	go func() {
		for i := 1; i <= actors; i++ {
			box := make(chan uint64, 1)
			go func() {
				if n := atomic.AddUint64(&ended, <-box); n == actors {
					done <- n
				}
			}()
			box <- 1
			if yieldEvery > 0 && i%yieldEvery == 0 {
				runtime.Gosched()
			}
		}
	}()
	n := <-done
	report(name, rate(actors, time.Since(start)), "M spawns/s", n, actors)
}

type ping struct{ from chan uint64 }

func w5() {
	const actors, pings = 200, 5000
	in := make([]chan ping, actors)
	for i := range in {
		in[i] = make(chan ping, actors)
	}
	done := make(chan uint64, actors)
	start := time.Now()
	for i := 0; i < actors; i++ {
		go func(self int) {
			pong := make(chan uint64, 1)
			r := rand.New(rand.NewSource(int64(self)))
			var got uint64
			send := func() {
				to := r.Intn(actors - 1)
				if to >= self {
					to++
				}
				in[to] <- ping{pong}
			}
			send()
			for {
				select {
				case p := <-in[self]:
					p.from <- 1
				case v := <-pong:
					got += v
					if got == pings {
						done <- got
						pong = nil
					} else {
						send()
					}
				}
			}
		}(i)
	}
	var n uint64
	for i := 0; i < actors; i++ {
		n += <-done
	}
	report("W5", rate(2*actors*pings, time.Since(start)), "M msg/s", n, actors*pings)
}

func skynet(out chan uint64, num, size uint64) {
	if size == 1 {
		out <- num
		return
	}
	box := make(chan uint64, 10)
	for i := uint64(0); i < 10; i++ {
		go skynet(box, num+i*(size/10), size/10)
	}
	var sum uint64
	for i := 0; i < 10; i++ {
		sum += <-box
	}
	out <- sum
}

func w6() {
	out := make(chan uint64, 1)
	start := time.Now()
	go skynet(out, 0, 1000000)
	n := <-out
	report("W6", time.Since(start).Seconds(), "s", n, 499999500000)
}

func w7() {
	const actors = 1000000
	before := rssNow()
	boxes := make([]chan uint64, actors)
	for i := range boxes {
		boxes[i] = make(chan uint64, 1)
		go func(in chan uint64) { <-in }(boxes[i])
	}
	for runtime.NumGoroutine() < actors {
		runtime.Gosched()
	}
	report("W7", float64(rssNow()-before)/actors, "B/actor", actors, actors)
	runtime.KeepAlive(boxes)
}

func rssNow() uint64 {
	data, _ := os.ReadFile("/proc/self/statm")
	var size, rss uint64
	fmt.Sscan(string(data), &size, &rss)
	return rss * 4096
}

func w8() {
	const rounds = 200000
	in, out := make(chan uint64), make(chan uint64)
	go func() {
		for v := range in {
			out <- v + 1
		}
	}()
	runtime.LockOSThread() // the asking side is a thread of its own
	ns := make([]float64, rounds)
	var v uint64
	for i := range ns {
		t := time.Now()
		in <- v
		v = <-out
		ns[i] = float64(time.Since(t).Nanoseconds())
	}
	sort.Float64s(ns)
	if v != rounds {
		os.Exit(1)
	}
	fmt.Printf("{\"name\":\"W8\",\"value\":%.6g,\"unit\":\"us\",\"p99\":%.6g,\"rss_mib\":%.1f}\n",
		ns[rounds/2]/1000, ns[rounds*99/100]/1000, rssMiB())
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: peer W1|W2|W2c|W3|W4|W4c|W5|W6|W7|W8 [workers]")
		os.Exit(2)
	}
	workers := 2
	if len(os.Args) > 2 {
		workers, _ = strconv.Atoi(os.Args[2])
	}
	runtime.GOMAXPROCS(workers)
	switch os.Args[1] {
	case "W1":
		w1()
	case "W2":
		w2("W2", 0)
	case "W2c":
		w2("W2c", 1000)
	case "W3":
		w3()
	case "W4":
		w4("W4", 0)
	case "W4c":
		w4("W4c", 100)
	case "W5":
		w5()
	case "W6":
		w6()
	case "W7":
		w7()
	case "W8":
		w8()
	default:
		os.Exit(2)
	}
}

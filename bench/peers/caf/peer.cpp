// SPDX-License-Identifier: ISC

// The workloads of docs/benchmarks.md for CAF, the C++ actor framework (Debian: libcaf-dev 0.17).
// Usage: peer W1 [workers].  Prints one JSON object; counts are checked.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <random>
#include <string>
#include <vector>
#include <sys/resource.h>
#include "caf/all.hpp"

using namespace caf;
using clk = std::chrono::steady_clock;
using kick = atom_constant<atom("kick")>;

static double since(clk::time_point t)
{
	return std::chrono::duration<double>(clk::now() - t).count();
}

static void report(const char *name, double value, const char *unit, uint64_t got, uint64_t want)
{
	struct rusage ru;

	if (got != want) {
		fprintf(stderr, "%s: counted %llu, expected %llu\n", name, (unsigned long long)got,
			(unsigned long long)want);
		exit(1);
	}
	getrusage(RUSAGE_SELF, &ru);
	printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"rss_mib\":%.1f}\n", name, value, unit,
	       double(ru.ru_maxrss) / 1024);
}

static void w1(actor_system &sys)
{
	const uint64_t n = 2000000;
	std::promise<uint64_t> done;
	auto t = clk::now();
	auto pong = sys.spawn([](event_based_actor *self) -> behavior {
		return { [self](uint64_t v, const actor &from) { self->send(from, v + 1); } };
	});
	auto ping = sys.spawn([&done, pong](event_based_actor *self) -> behavior {
		auto me = actor_cast<actor>(self);
		self->send(pong, uint64_t(0), me);
		return { [=, &done](uint64_t v) {
			if (v == n) {
				done.set_value(v);
				self->quit();
			} else {
				self->send(pong, v, me);
			}
		} };
	});
	uint64_t v = done.get_future().get();
	report("W1", 2 * n / since(t) / 1e6, "M msg/s", v, n);
	anon_send_exit(pong, exit_reason::user_shutdown);
}

static void w2(actor_system &sys, const char *name, unsigned yield_every)
{
	const uint64_t producers = 4, each = 2500000;
	std::promise<uint64_t> done;
	auto t = clk::now();
	auto consumer = sys.spawn([&done](event_based_actor *self) -> behavior {
		auto n = std::make_shared<uint64_t>(0);
		return { [=, &done](uint64_t v) {
			*n += v;
			if (*n == producers * each) {
				done.set_value(*n);
				self->quit();
			}
		} };
	});
	for (uint64_t p = 0; p < producers; p++) {
		auto a = sys.spawn([=](event_based_actor *self) -> behavior {
			auto left = std::make_shared<uint64_t>(each);
			return { [=](kick) {
				uint64_t batch = yield_every > 0 ? yield_every : *left;
				for (uint64_t i = 0; i < batch && *left > 0; i++, --*left) {
					self->send(consumer, uint64_t(1));
				}
				if (*left > 0) {
					self->send(self, kick::value);
				} else {
					self->quit();
				}
			} };
		});
		anon_send(a, kick::value);
	}
	uint64_t v = done.get_future().get();
	report(name, producers * each / since(t) / 1e6, "M msg/s", v, producers * each);
}

static void w3(actor_system &sys)
{
	static const uint64_t actors = 1000, hops = 5000000;
	std::promise<uint64_t> done;
	std::vector<actor> ring;
	auto node = [&done](event_based_actor *self) -> behavior {
		auto next = std::make_shared<actor>();
		return { [=](const actor &n) { *next = n; },
			 [=, &done](uint64_t v) {
				 if (v == 0) {
					 done.set_value(hops);
				 } else {
					 self->send(*next, v - 1);
				 }
			 } };
	};
	for (uint64_t i = 0; i < actors; i++) {
		ring.push_back(sys.spawn(node));
	}
	for (uint64_t i = 0; i < actors; i++) {
		anon_send(ring[i], ring[(i + 1) % actors]);
	}
	auto t = clk::now();
	anon_send(ring[0], hops);
	uint64_t v = done.get_future().get();
	report("W3", hops / since(t) / 1e6, "M hops/s", v, hops);
	for (auto &a : ring) {
		anon_send_exit(a, exit_reason::user_shutdown);
	}
}

// One message each: who ends counts itself, and only the last one says so.
static void w4(actor_system &sys, const char *name, unsigned yield_every)
{
	static const uint64_t actors = 1000000;
	std::promise<uint64_t> done;
	std::atomic<uint64_t> ended{ 0 };
	auto t = clk::now();
	auto spawner = sys.spawn([&, yield_every](event_based_actor *self) -> behavior {
		auto left = std::make_shared<uint64_t>(actors);
		return { [=, &done, &ended](kick) {
			uint64_t batch = yield_every > 0 ? yield_every : *left;
			for (uint64_t i = 0; i < batch && *left > 0; i++, --*left) {
				auto a = self->spawn([&](event_based_actor *s) -> behavior {
					return { [s, &done, &ended](uint64_t v) {
						uint64_t n = ended.fetch_add(v) + v;
						s->quit();
						if (n == actors) {
							done.set_value(n);
						}
					} };
				});
				self->send(a, uint64_t(1));
			}
			if (*left > 0) {
				self->send(self, kick::value);
			} else {
				self->quit();
			}
		} };
	});
	anon_send(spawner, kick::value);
	uint64_t v = done.get_future().get();
	report(name, actors / since(t) / 1e6, "M spawns/s", v, actors);
	sys.await_all_actors_done();
}

static void w5(actor_system &sys)
{
	const uint64_t actors = 200, pings = 5000;
	std::promise<void> done;
	std::atomic<uint64_t> left{ actors }, sum{ 0 };
	auto all = std::make_shared<std::vector<actor>>();
	auto t0 = clk::now();
	for (uint64_t i = 0; i < actors; i++) {
		all->push_back(sys.spawn([&, i](event_based_actor *self) -> behavior {
			struct state {
				std::minstd_rand r;
				uint64_t got = 0;
			};
			auto st = std::make_shared<state>();
			st->r.seed(unsigned(i + 1));
			auto go = [=] {
				uint64_t to = st->r() % (actors - 1);
				self->send((*all)[to >= i ? to + 1 : to], actor_cast<actor>(self));
			};
			return { [=](kick) { go(); },
				 [=](const actor &from) { self->send(from, uint64_t(1)); },
				 [=, &done, &left, &sum](uint64_t v) {
					 sum += v;
					 if (++st->got == pings) {
						 if (--left == 0) {
							 done.set_value();
						 }
					 } else {
						 go();
					 }
				 } };
		}));
	}
	for (auto &a : *all) {
		anon_send(a, kick::value);
	}
	done.get_future().get();
	report("W5", 2 * actors * pings / since(t0) / 1e6, "M msg/s", sum, actors * pings);
	for (auto &a : *all) {
		anon_send_exit(a, exit_reason::user_shutdown);
	}
}

static behavior skynet(event_based_actor *self, actor up, uint64_t num, uint64_t size)
{
	if (size == 1) {
		self->send(up, num);
		self->quit();
		return {};
	}
	auto me = actor_cast<actor>(self);
	for (uint64_t i = 0; i < 10; i++) {
		self->spawn(skynet, me, num + i * (size / 10), size / 10);
	}
	auto left = std::make_shared<int>(10);
	auto sum = std::make_shared<uint64_t>(0);
	return { [=](uint64_t v) {
		*sum += v;
		if (--*left == 0) {
			self->send(up, *sum);
			self->quit();
		}
	} };
}

static void w6(actor_system &sys)
{
	std::promise<uint64_t> done;
	auto t = clk::now();
	auto top = sys.spawn([&done](event_based_actor *self) -> behavior {
		self->spawn(skynet, actor_cast<actor>(self), uint64_t(0), uint64_t(1000000));
		return { [=, &done](uint64_t v) {
			done.set_value(v);
			self->quit();
		} };
	});
	uint64_t v = done.get_future().get();
	report("W6", since(t), "s", v, 499999500000ull);
}

static uint64_t rss_now()
{
	unsigned long size = 0, rss = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f == nullptr || fscanf(f, "%lu %lu", &size, &rss) != 2) {
		exit(1);
	}
	fclose(f);
	return rss * 4096ull;
}

static void w7(actor_system &sys)
{
	const uint64_t actors = 1000000;
	std::vector<actor> all;
	all.reserve(actors);
	uint64_t before = rss_now();
	for (uint64_t i = 0; i < actors; i++) {
		all.push_back(sys.spawn([](event_based_actor *) -> behavior {
			return { [](uint64_t) {} };
		}));
	}
	report("W7", double(rss_now() - before) / actors, "B/actor", all.size(), actors);
	exit(0);
}

static void w8(actor_system &sys)
{
	const size_t rounds = 200000;
	scoped_actor self{ sys };
	auto pong = sys.spawn([]() -> behavior { return { [](uint64_t v) { return v + 1; } }; });
	std::vector<double> us(rounds);
	uint64_t v = 0;
	for (auto &x : us) {
		auto t = clk::now();
		self->request(pong, infinite, v).receive([&](uint64_t r) { v = r; },
							 [](error &) { exit(1); });
		x = since(t) * 1e6;
	}
	std::sort(us.begin(), us.end());
	if (v != rounds) {
		exit(1);
	}
	printf("{\"name\":\"W8\",\"value\":%.6g,\"unit\":\"us\",\"p99\":%.6g}\n", us[rounds / 2],
	       us[rounds * 99 / 100]);
	anon_send_exit(pong, exit_reason::user_shutdown);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: peer W1|W2|W2c|W3|W4|W4c|W5|W6|W7|W8 [workers]\n");
		return 2;
	}
	actor_system_config cfg;
	cfg.set("scheduler.max-threads", size_t(argc > 2 ? atoi(argv[2]) : 2));
	actor_system sys{ cfg };
	std::string w = argv[1];
	if (w == "W1") w1(sys);
	else if (w == "W2") w2(sys, "W2", 0);
	else if (w == "W2c") w2(sys, "W2c", 1000);
	else if (w == "W3") w3(sys);
	else if (w == "W4") w4(sys, "W4", 0);
	else if (w == "W4c") w4(sys, "W4c", 100);
	else if (w == "W5") w5(sys);
	else if (w == "W6") w6(sys);
	else if (w == "W7") w7(sys);
	else if (w == "W8") w8(sys);
	else return 2;
	fflush(stdout);
	return 0;
}

%% SPDX-License-Identifier: ISC
%% The workloads of docs/benchmarks.md for Erlang/OTP.
%% Usage: erl -noshell +S N:N -run bench_peer main W1.  Prints one JSON object; counts are checked.
-module(bench_peer).
-export([main/1]).

main([W]) ->
    run(W),
    halt(0).

run("W1") -> w1();
run("W2") -> w2("W2", 0);
run("W2c") -> w2("W2c", 1000);
run("W3") -> w3();
run("W4") -> w4("W4", 0);
run("W4c") -> w4("W4c", 100);
run("W5") -> w5();
run("W6") -> w6();
run("W7") -> w7();
run("W8") -> w8().

now_s() -> erlang:monotonic_time(nanosecond) / 1.0e9.

rss_mib() ->
    {ok, F} = file:read_file("/proc/self/status"),
    case re:run(F, "VmHWM:\\s+(\\d+)", [{capture, [1], list}]) of
        {match, [Kb]} -> list_to_integer(Kb) / 1024;
        _ -> 0.0
    end.

report(Name, Value, Unit, Want, Want) ->
    io:format("{\"name\":\"~s\",\"value\":~.6g,\"unit\":\"~s\",\"rss_mib\":~.1f}~n",
              [Name, float(Value), Unit, float(rss_mib())]);
report(Name, _, _, Got, Want) ->
    io:format(standard_error, "~s: counted ~p, expected ~p~n", [Name, Got, Want]),
    halt(1).

rate(N, S) -> N / S / 1.0e6.

%% Ping-pong, 2 actors, 2,000,000 round trips.
w1() ->
    N = 2000000, Me = self(),
    T = now_s(),
    Pong = spawn(fun() -> pong() end),
    spawn(fun() -> Me ! {done, ping(Pong, N, 0)} end),
    receive {done, V} -> report("W1", rate(2 * N, now_s() - T), "M msg/s", V, N) end.

pong() -> receive {From, V} -> From ! V + 1, pong() end.

ping(_, 0, V) -> V;
ping(Pong, N, V) -> Pong ! {self(), V}, receive X -> ping(Pong, N - 1, X) end.

%% Counting, 4 producers x 2,500,000 messages to one consumer.
w2(Name, Yield) ->
    P = 4, Each = 2500000, Me = self(),
    T = now_s(),
    C = spawn(fun() -> Me ! {done, count(P * Each, 0)} end),
    [spawn(fun() -> produce(C, Each, Yield) end) || _ <- lists:seq(1, P)],
    receive {done, V} -> report(Name, rate(P * Each, now_s() - T), "M msg/s", V, P * Each) end.

count(0, V) -> V;
count(N, V) -> receive X -> count(N - 1, V + X) end.

produce(_, 0, _) -> ok;
produce(C, N, Y) ->
    C ! 1,
    case Y > 0 andalso N rem Y =:= 0 of true -> erlang:yield(); false -> ok end,
    produce(C, N - 1, Y).

%% Thread ring, 1,000 actors, 5,000,000 hops.
w3() ->
    A = 1000, H = 5000000, Me = self(),
    First = spawn(fun() -> receive {next, N} -> ring(N, Me) end end),
    Last = lists:foldl(fun(_, Next) -> spawn(fun() -> ring(Next, Me) end) end, First, lists:seq(2, A)),
    First ! {next, Last},
    T = now_s(),
    First ! H,
    receive done -> report("W3", rate(H, now_s() - T), "M hops/s", H, H) end.

ring(Next, Me) ->
    receive
        0 -> Me ! done;
        V -> Next ! V - 1, ring(Next, Me)
    end.

%% Spawn 1,000,000 actors, one message each, then they end.  Who ends counts itself, and only the
%% last one says so.
w4(Name, Yield) ->
    N = 1000000, Me = self(),
    Ended = atomics:new(1, [{signed, false}]),
    T = now_s(),
    spawn(fun() -> spawner(N, N, Ended, Me, Yield) end),
    receive {done, V} -> report(Name, rate(N, now_s() - T), "M spawns/s", V, N) end.

spawner(0, _, _, _, _) -> ok;
spawner(Left, N, Ended, Me, Y) ->
    P = spawn(fun() -> short(N, Ended, Me) end),
    P ! 1,
    case Y > 0 andalso Left rem Y =:= 0 of true -> erlang:yield(); false -> ok end,
    spawner(Left - 1, N, Ended, Me, Y).

short(N, Ended, Me) ->
    receive
        X ->
            case atomics:add_get(Ended, 1, X) of
                N -> Me ! {done, N};
                _ -> ok
            end
    end.

%% Big, 200 actors x 5,000 pings to random others, one outstanding.
w5() ->
    A = 200, P = 5000, Me = self(),
    T = now_s(),
    Pids = [spawn(fun() -> receive {all, All} -> big_start(All, Me, P, I) end end)
            || I <- lists:seq(1, A)],
    All = list_to_tuple(Pids),
    [Pid ! {all, All} || Pid <- Pids],
    V = lists:sum([receive {done, X} -> X end || _ <- Pids]),
    report("W5", rate(2 * A * P, now_s() - T), "M msg/s", V, A * P).

big_start(All, Me, P, I) ->
    rand:seed(exsp, I),
    big_send(All, I),
    big(All, Me, P, 0, I).

big_send(All, I) ->
    R = rand:uniform(tuple_size(All) - 1),
    To = if R >= I -> R + 1; true -> R end,
    element(To, All) ! {ping, self()}.

big(All, Me, P, Got, I) ->
    receive
        {ping, From} -> From ! 1, big(All, Me, P, Got, I);
        1 when Got + 1 =:= P -> Me ! {done, P}, big(All, Me, P, Got + 1, I);
        1 -> big_send(All, I), big(All, Me, P, Got + 1, I)
    end.

%% Skynet, 1,000,000 leaves, fan-out 10.
w6() ->
    Me = self(),
    T = now_s(),
    spawn(fun() -> skynet(Me, 0, 1000000) end),
    receive V -> report("W6", now_s() - T, "s", V, 499999500000) end.

skynet(To, Num, 1) -> To ! Num;
skynet(To, Num, Size) ->
    Me = self(), S = Size div 10,
    [spawn(fun() -> skynet(Me, Num + I * S, S) end) || I <- lists:seq(0, 9)],
    To ! count(10, 0).

%% Bytes per idle actor, 1,000,000 live.
w7() ->
    N = 1000000,
    Before = rss_now(),
    Pids = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, N)],
    [begin true = is_process_alive(P) end || P <- [hd(Pids), lists:last(Pids)]],
    report("W7", (rss_now() - Before) / N, "B/actor", length(Pids), N).

rss_now() ->
    {ok, F} = file:read_file("/proc/self/statm"),
    [_, R | _] = string:tokens(binary_to_list(F), " "),
    list_to_integer(R) * 4096.

%% Request and reply.  Erlang has no foreign threads: the caller is a process.
w8() ->
    N = 200000,
    Pong = spawn(fun() -> pong() end),
    L = lists:sort(w8(Pong, N, 0, [])),
    P50 = lists:nth(N div 2, L) / 1000, P99 = lists:nth(N * 99 div 100, L) / 1000,
    io:format("{\"name\":\"W8\",\"value\":~.6g,\"unit\":\"us\",\"p99\":~.6g,\"rss_mib\":~.1f}~n",
              [P50, P99, float(rss_mib())]).

w8(_, 0, _, L) -> L;
w8(Pong, N, V, L) ->
    T = erlang:monotonic_time(nanosecond),
    Pong ! {self(), V},
    X = receive Y -> Y end,
    w8(Pong, N - 1, X, [erlang:monotonic_time(nanosecond) - T | L]).

"""The rows of the acceptance table: what is simulated, and what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import inf

import judge_peers as peers
from judge_bars import Finding, Results, Row, alarms, each, in_time, quantile, rarely, shown, soon, sure
from judge_exact import counters_of_any_size, expectations, million, recorded, strata_of_nothing
from judge_runs import (
    Cell,
    Outcome,
    against_peers,
    alarm,
    cell,
    cost,
    errors_alone,
    leans,
    peers_only,
    proof_of_errors,
    rollout,
    switched,
)
from judge_traffic import World

from segue.engine.deciding import AGAINST


def _pair(world: World) -> str:
    return f"{world.old * 100:g} → {world.new * 100:g} %"


def _a1() -> Row:
    cells = [
        cell(f"{rps:,} rps, {share:.0%}, {rate:.2%}", alarm, World(rps, share, rate, rate, ("all", 1.0)), 2000)
        for rps in (5, 50, 1000, 50_000)
        for share in (0.01, 0.1, 0.3, 0.5)
        for rate in (0.0001, 0.001, 0.01, 0.02)
    ]

    def find(results: Results) -> Sequence[Finding]:
        runs = [run for of_cell in results.values() for run in of_cell]
        worst, size = max((alarms(of_cell), len(of_cell)) for of_cell in results.values())
        some = {name: of_cell for name, of_cell in results.items() if alarms(of_cell)}
        over_all = rarely("over all", alarms(runs), len(runs), 0.003, 64 * 2000)
        most = rarely("the worst of 64 cells", worst, size, 0.01, 2000)
        cells_with = [replace(one, verdict="") for one in each(0.01, 2000)(some)]
        return [over_all, most, *cells_with]

    return Row("A1", "A/A, errors and latency, 10 minutes", cells, find, sure=sure(0.01))


def _a2() -> Row:
    cells = [
        cell(f"1,000 rps, {share:.0%}", alarm, World(1000, share, 0.001, 0.001, ("all", 1.0), 3600), 500)
        for share in (0.1, 0.5)
    ]
    return Row("A2", "A/A, errors and latency, an hour", cells, each(0.018, 500), sure=sure(0.018))


def _a3() -> Row:
    worlds = [
        World(rps, share, p, 1.1 * p + 0.0002) for p in (0.001, 0.01, 0.3) for rps, share in ((100, 0.1), (1000, 0.5))
    ]
    cells = [
        cell(f"{w.old:.1%}, {w.rps:g} rps, {w.share:.0%}", partial(errors_alone, 1.0, (20.0, 200.0)), w, 4000, False)
        for w in worlds
    ]

    def find(results: Results) -> Sequence[Finding]:
        runs = [run for all_of in results.values() for run in all_of]
        return [
            rarely("E ≥ 200", alarms(runs, 1), len(runs), 0.01, 24_000),
            rarely("E ≥ 20", alarms(runs, 0), len(runs), 0.06, 24_000),
        ]

    return Row("A3", "at the margin: 1.1 × + 0.02 points, errors", cells, find)


def _a4() -> Row:
    cells = [
        cell(f"{p:.1%}", proof_of_errors, World(1000, 0.1, p, 1.5 * p + 0.005, seconds=300), 4000, False)
        for p in (0.0, 0.001, 0.01)
    ]
    return Row("A4", "proof at its margin: 1.5 × + 0.5 points", cells, each(0.06, 4000), least=100)


def _r1() -> Row:
    kinds = [("bursts", 0.002), ("gamma", 0.01), ("drift", 0.01), ("step", 0.002)]
    cells = [
        cell(f"{kind}, {what}", alarm, World(1000, 0.1, p, p, times, kind=kind), 1000)
        for kind, p in kinds
        for what, times in (("errors", None), ("errors and latency", ("all", 1.0)))
        if not (times and kind == "gamma")
    ]
    return Row(
        "R1",
        "trouble that both versions have: bursts, drift with shares 10/30/50 %, a step with a shift",
        cells,
        each(0.005, 1000),
        sure=sure(0.005),
    )


def _r2() -> Row:
    cells = [
        cell("bunches of 2, 10 %", alarm, World(1000, 0.1, 0.005, 0.005, bunch=2), 500, False),
        cell(
            "pauses of 0.2 s in 20 s, 1 instance to 9",
            alarm,
            World(1000, 0.1, 0, 0, ("all", 1.0), kind="pauses"),
            200,
            False,
        ),
    ]
    return Row("R2", "trouble within one version of a healthy pair", cells, each(0.015, 500))


def _r3() -> Row:
    def worlds(share: float) -> World:
        return World(1000, share, 0.005, 0.005, bunch=5)

    alone = (200.0,)
    cells = [
        cell("10 %", partial(errors_alone, 1.0, alone), worlds(0.1), 500, False),
        cell("50 %", partial(errors_alone, 1.0, alone), worlds(0.5), 500, False),
        cell("10 %, φ₀ = 9", partial(errors_alone, 9.0, alone), worlds(0.1), 500, False),
        cell("50 %, φ₀ = 9", partial(errors_alone, 9.0, alone), worlds(0.5), 500, False),
    ]
    most = {"10 %": 0.025, "50 %": 0.08, "10 %, φ₀ = 9": 0.015, "50 %, φ₀ = 9": 0.015}

    def find(results: Results) -> Sequence[Finding]:
        return [rarely(name, alarms(runs), len(runs), most[name], 500) for name, runs in results.items()]

    return Row("R3", "bunches of 5 within one version, errors", cells, find, least=100)


def _detection(
    name: str, what: str, worlds: Sequence[tuple[World, float, float | None, float]], runs: int, delay: float = 0
) -> Row:
    cells, bars = [], {}
    for world, middle, late, part in worlds:
        told = _pair(world) if not world.times else _slower(world.times)
        cells.append(cell(told, alarm, world, runs, long=False))
        bars[told] = (middle, late, part)
    return Row(name, what, cells, in_time(bars, delay))


def _slower(times: tuple[str, float]) -> str:
    kind = {"all": "all", "tail": "tail, p99", "mean": "mean unchanged, p99"}
    return f"{kind[times[0]]} × {times[1]:g}"


def _detections() -> list[Row]:
    def at(rps: float, share: float, old: float, new: float, onset: int = 0, seconds: int = 600) -> World:
        return World(rps, share, old, new, None, seconds, onset)

    d1 = [
        (0.001, 0.005, 40, 85),
        (0.001, 0.01, 13, 28),
        (0.01, 0.02, 46, 88),
        (0.01, 0.05, 6, 10),
        (0.001, 0.5, 4, 4),
    ]
    d2 = [(0.001, 0.01, 190, None, 0.97), (0.01, 0.05, 70, 145, 1.0), (0.001, 0.5, 5, 7, 1.0)]
    d3 = [(old, new) for old, new, *_ in d1]
    d4 = [(0.001, 0.01, 90, 215), (0.01, 0.05, 30, 65)]
    late = [(0.001, 0.01, 25, 40), (0.01, 0.05, 12, 18)]
    return [
        _detection("D1", "1,000 rps, 10 %", [(at(1000, 0.1, o, n), m, p, 1.0) for o, n, m, p in d1], 400),
        _detection("D2", "50 rps, 10 %", [(at(50, 0.1, o, n), m, p, part) for o, n, m, p, part in d2], 400),
        _detection("D3", "50,000 rps, 10 %", [(at(50_000, 0.1, o, n), 5, 5, 1.0) for o, n in d3], 100),
        _detection("D4", "1,000 rps, 1 %", [(at(1000, 0.01, o, n), m, p, 1.0) for o, n, m, p in d4], 400),
        _detection(
            "T1",
            "1,000 rps, 10 %, healthy for 8 minutes",
            [(at(1000, 0.1, o, n, 480, 900), m, p, 1.0) for o, n, m, p in late],
            400,
            480,
        ),
    ]


L1 = [
    (("all", 1.2), 23, 42), (("all", 1.5), 5, 7), (("all", 2.0), 5, 5), (("tail", 1.5), 15, 28),
    (("tail", 2.0), 7, 10), (("mean", 2.0), 7, 10), (("tail", 1.2), 190, 380),
]  # fmt: skip


def _latencies() -> list[Row]:
    def at(rps: float, times: tuple[str, float], octaves: bool = False) -> World:
        return World(rps, 0.1, 0.001, 0.001, times, octaves=octaves)

    l1 = [(at(1000, times), middle, late, 1.0) for times, middle, late in L1]
    even = [(at(1000, times, True), middle, late, 1.0) for times, middle, late in L1]
    l2 = [(at(50, ("all", 1.5)), 36, 70, 1.0), (at(50, ("tail", 2.0)), 65, 145, 1.0)]
    return [
        _detection("L1", "latency, 1,000 rps, 10 %", l1, 100),
        _detection("L1e", "the same in even buckets of 9.05 %, those that the bars were made with", even, 100),
        _detection("L2", "latency, 50 rps, 10 %", l2, 100),
    ]


def _b1() -> Row:
    worlds = [World(rps, 1.0, 0.001, new) for rps in (5, 50, 1000) for new in (0.05, 0.1, 0.5)]
    healthy = [World(rps, 1.0, rate, rate) for rps in (5, 50, 1000) for rate in (0.001, 0.01, 0.04)]
    broken = [cell(f"{_pair(w)}, {w.rps:g} rps", switched, w, 100, long=False) for w in worlds]
    well = [cell(f"A/A {w.old:.1%}, {w.rps:g} rps", switched, w, 200, long=False) for w in healthy]

    def find(results: Results) -> Sequence[Finding]:
        runs = [run for one in well for run in results[one.name]]
        printed = [
            replace(soon(one.name, results[one.name], inf, None, 0, 0), bar=f"{one.name}: printed", verdict="")
            for one in broken
        ]
        return [rarely("A/A over all", alarms(runs), len(runs), 0.01, 1800), *printed]

    return Row("B1", "after a switch, against the ten minutes before it (not in the table)", [*well, *broken], find)


def _w1() -> Row:
    cells = [
        cell(
            f"{rps * 0.1:g} rps, {rate:.1%}", partial(leans, AGAINST), World(rps, 0.1, rate, rate, ("all", 1.0)), 200
        )
        for rps in (10, 50)
        for rate in (0.001, 0.01, 0.05)
    ]

    def find(results: Results) -> Sequence[Finding]:
        runs = [run for of_cell in results.values() for run in of_cell]
        cells_of = [replace(one, verdict="") for one in each(0.2, 200)(results)]
        return [rarely("over all", alarms(runs), len(runs), 0.2, 1200), *cells_of]

    what = "a healthy version with little traffic has E ≥ 5 within 10 minutes, and waits for more (not in the table)"
    return Row("W1", what, cells, find, least=200)


def _p1() -> Row:
    def world(rps: float, seconds: int) -> World:
        return World(rps, 0.1, 0.001, 0.001, ("all", 1.0), seconds)

    cells = [
        cell("1,000 rps", rollout, world(1000, 300), 100, long=False),
        cell("50 rps", rollout, world(50, 1800), 100, long=False),
        cell("5 rps", rollout, world(5, 600), 100, long=False),
    ]

    def find(results: Results) -> Sequence[Finding]:
        says = sum(run[2] for run in results["5 rps"]) / len(results["5 rps"])
        let_on = alarms(results["5 rps"]) / len(results["5 rps"])
        verdict = "met" if says + let_on >= 0.99 else "MISSED"
        return [
            soon("1,000 rps", [run[:1] for run in results["1,000 rps"]], 70, None, 0.99, 0),
            soon("50 rps", [run[:1] for run in results["50 rps"]], 400, None, 0.99, 0),
            Finding(
                "5 rps, 10 minutes: says what is missing", f"{says:.0%} say so, {let_on:.0%} are let on", verdict
            ),
        ]

    return Row("P1", "a healthy canary is let on, at 10 % and 30 %", cells, find)


def _s1() -> Row:
    pairs = [(0.001, 0.005), (0.001, 0.01), (0.01, 0.02), (0.01, 0.05), (0.001, 0.5)]
    worlds = [
        World(rps, share, old, new) for old, new in pairs for rps, share in ((1000, 0.1), (1000, 0.5), (50_000, 0.1))
    ]
    worlds += [World(1000, 0.1, 0.001, 0.001, times) for times, _, _ in L1]
    told = {f"{_slower(w.times) if w.times else _pair(w)}, {w.rps:,.0f} rps, {w.share:.0%}": w for w in worlds}
    cells = [cell(name, against_peers, world, 100, long=bool(world.times)) for name, world in told.items()]
    healthy = {_healthy(world): world.aa() for world in worlds}
    cells += [cell(name, peers_only, world, 100 if world.times else 1000, False) for name, world in healthy.items()]

    def find(results: Results) -> Sequence[Finding]:
        return [_beats(name, world, results[name], results[_healthy(world)]) for name, world in told.items()]

    return Row("S1", "against the peers, where their false alarms are at most 2 %: median s", cells, find)


def _healthy(world: World) -> str:
    return f"A/A {world.old:.1%} {world.rps:g} {world.share:g} {'latency' if world.times else 'errors'}"


def _beats(name: str, world: World, runs: Sequence[Outcome], healthy: Sequence[Outcome]) -> Finding:
    ours, rules = quantile([run[0] for run in runs], 0.5), peers.TIMES if world.times else peers.ERRORS
    told, beaten = [], True
    for i, peer in enumerate(rules):
        wrong = sum(run[i] < inf for run in healthy) / len(healthy)
        median = quantile([run[i + 1] for run in runs], 0.5)
        told.append(f"{peer} {shown(median)}" + (f" (A/A {wrong:.0%})" if wrong > 0.02 else ""))
        beaten = beaten and (wrong > 0.02 or ours < median)
    return Finding(f"{name}: before all", f"{shown(ours)}; {', '.join(told)}", "met" if beaten else "MISSED")


def _exactly(name: str, bar: str, seen: tuple[bool, str]) -> Finding:
    return Finding(f"{name}: {bar}", seen[1], "met" if seen[0] else "MISSED")


def _n1() -> Row:
    def find(_: Results) -> Sequence[Finding]:
        return [
            _exactly("10⁶ updates at 50,000 rps", "finite", million()),
            _exactly("counters of 2⁵³, none, gone back", "finite, refused", counters_of_any_size()),
            _exactly("ln E", "the reference's, ± 1e-9", recorded()),
        ]

    return Row("N1", "numbers", [], find)


def _c1() -> Row:
    def find(results: Results) -> Sequence[Finding]:
        ratio, threshold, whole, state = (min(run[i] for run in results["cost"]) for i in range(4))
        bars = [("errors' alarm", ratio, 40, "µs"), ("a latency threshold", threshold, 50, "µs"),
                ("a whole look", whole, 500, "µs"), ("state", state / 1024, 64, "KiB")]  # fmt: skip
        return [
            Finding(f"{name}: ≤ {bar} {unit}", f"{value:.0f} {unit}", "met" if value <= bar else "MISSED")
            for name, value, bar, unit in bars
        ]

    return Row(
        "C1",
        "CPU of one core, the best of the runs; histograms of about 120 buckets",
        [Cell("cost", cost, 5, False)],
        find,
        least=3,
    )


def _u1() -> Row:
    def find(_: Results) -> Sequence[Finding]:
        return [
            _exactly("E[e] of every stratum of n ≤ 12", "≤ 1", expectations()),
            _exactly("time without traffic, cut into looks", "changes nothing", strata_of_nothing()),
        ]

    return Row("U1", "by enumeration", [], find)


def rows() -> list[Row]:
    """All of them, the long ones last."""
    return [
        _u1(),
        _n1(),
        _c1(),
        *_detections(),
        *_latencies(),
        _b1(),
        _w1(),
        _p1(),
        _a3(),
        _a4(),
        _r2(),
        _r3(),
        _s1(),
        _r1(),
        _a2(),
        _a1(),
    ]

"""What an experiment shows: wrong no more often than it says, whatever the delays, and told in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import exp, inf, lgamma, log, prod
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.judge.experiment import Finding, Say, Seen, find, words
from segue.judge.split import SPREADS, Coins

# Exactly, for a few users


def _by_integral(coins: Coins, log_ratio: float) -> float:
    """E as what it is: the mean of likelihood ratios, summed over a fine grid of chances."""
    s, q = coins.share, coins.share * exp(log_ratio) / (coins.share * exp(log_ratio) + 1 - coins.share)
    total, points = 0.0, 20_000
    for spread, part in SPREADS:
        k = 1 / (spread**2 * s * (1 - s))
        scale = lgamma(k) - lgamma(k * s) - lgamma(k * (1 - s))
        for i in range(points):
            x = (i + 0.5) / points
            density = exp(scale + (k * s - 1) * log(x) + (k * (1 - s) - 1) * log(1 - x))
            total += part * density * (x / q) ** coins.new * ((1 - x) / (1 - q)) ** coins.old / points
    return total


@pytest.mark.parametrize("coins", [Coins(7, 2, 0.5), Coins(3, 9, 0.3), Coins(40, 25, 0.5)])
def test_the_evidence_is_the_mean_of_likelihood_ratios(coins: Coins) -> None:
    assert exp(coins.log_e()) == pytest.approx(_by_integral(coins, 0.0), rel=1e-3)
    low, high = coins.ratios(0.05)
    assert _by_integral(coins, log(low)) == pytest.approx(20, rel=2e-3)
    assert _by_integral(coins, log(high)) == pytest.approx(20, rel=2e-3)


SCHEDULES = (
    (1, 1, 1, 2, 2, 2, 3, None, None, None),
    (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    (3, None, 3, 1, 5, 5, None, 5, 1, 5),
)
"""When each of ten users reaches the goal, whichever version it is given; None: never."""


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_if_nothing_differs_one_is_expected_at_every_look_and_no_bar_is_reached_too_often(
    schedule: tuple[int | None, ...], share: float
) -> None:
    looks = sorted({at for at in schedule if at})
    expected, reached = dict.fromkeys(looks, 0.0), dict.fromkeys((1.1, 1.5, 2.0, 5.0), 0.0)
    for given_new in product((True, False), repeat=len(schedule)):
        chance = prod(share if new else 1 - share for new in given_new)
        most = 0.0
        for look in looks:
            came = [new for new, at in zip(given_new, schedule, strict=True) if at and at <= look]
            evidence = exp(Coins(sum(came), len(came) - sum(came), share).log_e())
            expected[look] += chance * evidence
            most = max(most, evidence)
        for bar in reached:
            reached[bar] += chance * (most >= bar * (1 - 1e-12))
    assert list(expected.values()) == pytest.approx([1.0] * len(looks), abs=1e-9)
    assert all(often <= 1 / bar for bar, often in reached.items())
    assert reached[1.1] > 0


@pytest.mark.parametrize("ratio", [0.25, 1.0, 1.6])
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_one_is_expected_against_the_true_ratio_with_users_who_are_not_alike(ratio: float, share: float) -> None:
    usual = (0.6, 0.3, 0.05, 0.6, 0.01, 0.5)
    expected = 0.0
    for fates in product(product((True, False), repeat=2), repeat=len(usual)):
        chance, came = 1.0, []
        for p, (new, reaches) in zip(usual, fates, strict=True):
            mine = p * ratio if new else p
            chance *= (share if new else 1 - share) * (mine if reaches else 1 - mine)
            came += [new] if reaches else []
        coins = Coins(sum(came), len(came) - sum(came), share)
        expected += chance * exp(coins.log_e(log(ratio)))
    assert expected == pytest.approx(1.0, abs=1e-9)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0.01, 0.99), st.sampled_from([0.001, 0.01, 0.05, 0.2]))
def test_the_set_holds_the_odds_that_were_asked_for_as_long_as_the_evidence_is_small(
    new: int, old: int, share: float, doubt: float
) -> None:
    coins = Coins(new, old, share)
    low, high = coins.ratios(doubt)
    assert 0 <= low < high <= inf
    if abs(coins.log_e() + log(doubt)) > 1e-3:
        assert (low <= 1 <= high) == (coins.log_e() < -log(doubt))


# Simulated, with a look after every slot


@dataclass(frozen=True)
class World:
    """Users that come slot by slot, more by day than by night, and reach the goal up to `late` slots later."""

    ratio: float = 1.0
    rate: float = 0.2
    share: float = 0.5
    late: int = 12
    slots: int = 60
    users: int = 20

    def run(self, rng: Random) -> Iterator[Seen]:
        """What was seen until each slot ended."""
        users, reached, coming = [0, 0], [0, 0], [[0, 0] for _ in range(self.slots + self.late + 1)]
        for slot in range(self.slots):
            day = slot % 24 >= 12
            for _ in range(int(self.users * (1.8 if day else 0.2))):
                old = rng.random() >= self.share
                users[old] += 1
                usual = self.rate * (1.5 if day else 0.5)
                if rng.random() < (usual if old else usual * self.ratio):
                    coming[slot + (rng.randint(0, self.late) if day else 0)][old] += 1
            reached = [before + came for before, came in zip(reached, coming[slot], strict=True)]
            yield Seen(*users, *reached)


def _missed(world: World, runs: int, doubt: float = 0.05) -> float:
    """In how many of the experiments some look's set does not hold the true ratio."""
    missed = 0
    for seed in range(runs):
        for seen in world.run(Random(seed)):
            goal = Coins(seen.reached_new, seen.reached_old, world.share)
            if goal.log_e(log(world.ratio)) >= -log(doubt):
                finding = find(seen, world.share, doubt=doubt)
                assert not finding.low * (1 + 1e-6) < world.ratio < finding.high * (1 - 1e-6)
                missed += 1
                break
    return missed / runs


WORLDS = (World(), World(1.4), World(0.5, share=0.2), World(1.6, rate=0.4), World(late=0))


@pytest.mark.parametrize("world", WORLDS)
def test_the_true_ratio_is_in_the_set_at_every_look_of_nineteen_experiments_in_twenty(world: World) -> None:
    assert 0 < _missed(world, runs=100, doubt=0.2) <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("world", [World(w.ratio, w.rate, w.share, w.late, slots=400) for w in WORLDS])
def test_the_true_ratio_is_in_the_set_in_longer_experiments(world: World) -> None:
    assert 0 < _missed(world, runs=400) <= 0.05


def _says(world: World, seed: int) -> list[Say]:
    return [find(seen, world.share).say for seen in world.run(Random(seed))]


def test_what_is_better_is_kept_and_what_is_worse_is_dropped() -> None:
    assert _says(World(2.0, slots=96), 1)[-1] is Say.KEEP
    assert _says(World(0.4, slots=96), 1)[-1] is Say.DROP


# What is said


def test_a_version_is_kept_or_dropped_only_if_the_whole_set_is_on_one_side() -> None:
    better, worse = find(Seen(8095, 8120, 530, 412), 0.5), find(Seen(8120, 8095, 412, 530), 0.5)
    assert better.say is Say.KEEP and 1 < better.low < 1.29 < better.high
    assert worse.say is Say.DROP and worse.low < 0.77 < worse.high < 1
    assert find(Seen(8095, 8120, 470, 412), 0.5).say is Say.NEITHER


def test_a_wrong_split_beats_any_effect() -> None:
    finding = find(Seen(9484, 8720, 4000, 10), 0.5)
    assert finding.say is Say.DISTRUST and finding.low > 1
    assert finding.needed is None
    assert find(Seen(9484, 8720, 500, 450), 0.521).say is Say.NEITHER


def test_what_is_needed_is_enough_if_it_comes_as_it_came() -> None:
    seen = Seen(80_000, 80_000, 4260, 4000)
    finding = find(seen, 0.5)
    assert finding.needed is not None
    for part, say in ((0.95, Say.NEITHER), (1.05, Say.KEEP)):
        more = 1 + part * finding.needed / 160_000
        counts = [round(count * more) for count in (seen.new, seen.old, seen.reached_new, seen.reached_old)]
        assert find(Seen(*counts), 0.5).say is say


def test_what_is_detectable_is_shown_when_the_users_to_come_have_come() -> None:
    finding = find(Seen(8000, 8000, 400, 400), 0.5, users_to_come=24_000)
    assert finding.needed is None and finding.detectable is not None
    assert finding.to_come == 24_000
    more, less = round(1000 * finding.detectable) + 1, round(1000 * finding.detectable) - 2
    assert find(Seen(20_000, 20_000, more, 1000), 0.5).say is Say.KEEP
    assert find(Seen(20_000, 20_000, less, 1000), 0.5).say is Say.NEITHER
    later = find(Seen(8000, 8000, 400, 400), 0.5, users_to_come=240_000).detectable
    assert later is not None and 1 < later < finding.detectable


@pytest.mark.parametrize(
    "seen",
    [Seen(), Seen(40, 0, 30, 0), Seen(0, 3, 0, 3), Seen(1, 1), Seen(1, 1, 1, 0), Seen(0, 0, 1, 1), Seen(3, 2, 3, 2)],
)
def test_next_to_nothing_shows_nothing(seen: Seen) -> None:
    finding = find(seen, 0.5)
    assert finding.say in (Say.NEITHER, Say.DISTRUST)
    assert finding.low < 1 < finding.high
    assert words(finding, 0.5, "v2", "v1", "/thanks")


def test_the_set_holds_the_estimate_where_everybody_reaches_the_goal() -> None:
    finding = find(Seen(1090, 910, 1090, 910), 0.5, doubt=0.2)
    assert Coins(1090, 910, 0.5).ratios(0.2)[0] > 1
    assert finding.say is Say.NEITHER
    assert finding.low == finding.estimate == 1


def test_the_set_is_finite_with_counts_of_any_size() -> None:
    finding = find(Seen(10**9, 10**9, 50_100_000, 50_000_000), 0.5)
    assert finding.say is Say.KEEP
    assert 1.001 < finding.low < 1.002 < finding.high < 1.003


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_of_nobody_or_everybody_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="compares nothing"):
        find(Seen(1, 1), share)


def test_fewer_than_no_users_are_refused() -> None:
    with pytest.raises(ValueError, match="no -1 users"):
        find(Seen(5, 5, -1, 0), 0.5)


SAID = (
    (Seen(), ["No user was seen yet."]),
    (
        Seen(1, 0),
        [
            "0 of 1 user of v2 reached /thanks (0.00 %); no user of v1 was seen yet.",
            "There is nothing to compare it with yet.",
        ],
    ),
    (
        Seen(0, 10, 0, 1),
        [
            "1 of 10 users of v1 reached /thanks (10.00 %); no user of v2 was seen yet.",
            "There is nothing to compare it with yet.",
        ],
    ),
    (
        Seen(8095, 8120),
        [
            "0 of 8,095 users of v2 reached /thanks (0.00 %), 0 of 8,120 of v1 (0.00 %).",
            "No difference can be seen before users reach /thanks.",
        ],
    ),
    (
        Seen(3, 3, 1, 1),
        [
            "1 of 3 users of v2 reached /thanks (33.33 %), 1 of 3 of v1 (33.33 %).",
            "v2's users reach it 0.01 to 84.9 times as often, most likely 1.00 times.",
            "No difference is shown yet: too few users were seen.",
        ],
    ),
    (
        Seen(8095, 8120, 530, 412),
        [
            "530 of 8,095 users of v2 reached /thanks (6.55 %), 412 of 8,120 of v1 (5.07 %).",
            "v2's users reach it 1.05 to 1.59 times as often, most likely 1.29 times.",
            "Keep v2: `segue promote`.",
        ],
    ),
    (
        Seen(8120, 8095, 412, 530),
        [
            "412 of 8,120 users of v2 reached /thanks (5.07 %), 530 of 8,095 of v1 (6.55 %).",
            "v2's users reach it 0.63 to 0.96 times as often, most likely 0.77 times.",
            "Drop v2: `segue rollback`.",
        ],
    ),
    (
        Seen(8095, 8120, 470, 412),
        [
            "470 of 8,095 users of v2 reached /thanks (5.81 %), 412 of 8,120 of v1 (5.07 %).",
            "v2's users reach it 0.93 to 1.40 times as often, most likely 1.14 times.",
            "No difference is shown yet. About 17,000 more users would show a difference of 1.16 times.",
        ],
    ),
    (
        Seen(8095, 8120, 500, 412),
        [
            "500 of 8,095 users of v2 reached /thanks (6.18 %), 412 of 8,120 of v1 (5.07 %).",
            "v2's users reach it 0.99 to 1.49 times as often, most likely 1.22 times.",
            "No difference is shown yet; if it is what it looks like, about 2,100 more users show it.",
        ],
    ),
    (
        Seen(9484, 8720, 500, 450),
        [
            "52.10 % of 18,204 users were given v2, 50 % were asked for: chance does that in fewer than one of "
            "510,000 experiments.",
            "Do not trust a comparison: users of one version are lost, counted twice or sent elsewhere.",
            "500 of 9,484 users of v2 reached /thanks (5.27 %), 450 of 8,720 of v1 (5.16 %).",
        ],
    ),
    (
        Seen(1000, 1000, 1000, 1000),
        [
            "1,000 of 1,000 users of v2 reached /thanks (100.00 %), 1,000 of 1,000 of v1 (100.00 %).",
            "v2's users reach it 0.87 to 1.15 times as often, most likely 1.00 times.",
            "No difference is shown yet. A goal that fewer users reach shows one sooner.",
        ],
    ),
    (
        Seen(1000, 1000, 0, 50),
        [
            "0 of 1,000 users of v2 reached /thanks (0.00 %), 50 of 1,000 of v1 (5.00 %).",
            "v2's users reach it at most 0.18 times as often.",
            "Drop v2: `segue rollback`.",
        ],
    ),
    (
        Seen(1000, 1000, 500, 1),
        [
            "500 of 1,000 users of v2 reached /thanks (50.00 %), 1 of 1,000 of v1 (0.10 %).",
            "v2's users reach it at least 38.1 times as often, most likely 500.0 times.",
            "Keep v2: `segue promote`.",
        ],
    ),
    (
        Seen(10**9, 10**9, 50_100_000, 50_000_000),
        [
            "50,100,000 of 1,000,000,000 users of v2 reached /thanks (5.01 %), 50,000,000 of 1,000,000,000 of v1 "
            "(5.00 %).",
            "v2's users reach it 1.0011 to 1.0029 times as often, most likely 1.0020 times.",
            "Keep v2: `segue promote`.",
        ],
    ),
)


@pytest.mark.parametrize(("seen", "said"), SAID)
def test_what_was_found_is_told_in_sentences(seen: Seen, said: list[str]) -> None:
    assert words(find(seen, 0.5), 0.5, "v2", "v1", "/thanks") == said


@given(
    st.builds(Seen, *[st.integers(1, 10**6)] * 2, *[st.integers(0, 10**6)] * 2),
    st.floats(0.01, 0.99),
    st.floats(0, 10**7),
)
def test_there_are_words_for_whatever_was_seen(seen: Seen, share: float, to_come: float) -> None:
    finding: Finding = find(seen, share, users_to_come=to_come)
    said = words(finding, share, "v2", "v1", "/thanks")
    assert len(said) >= 2
    assert not any(no in sentence for no in ("nan", "inf", "None") for sentence in said)
    if finding.say is Say.KEEP:
        assert "to 1.00 times" not in said[1] and " 1.00 to" not in said[1]


@pytest.mark.parametrize(
    ("seen", "last"),
    [
        (Seen(8095, 8120, 530, 412), "v2's users reach it 1.05 to 1.59 times as often, most likely 1.29 times."),
        (Seen(8095, 8120, 470, 412), "No difference was shown."),
    ],
)
def test_of_an_experiment_that_is_over_it_is_said_what_was_found_and_nothing_to_do(seen: Seen, last: str) -> None:
    assert words(find(seen, 0.5), 0.5, "v2", "v1", "/thanks", over=True)[-1] == last

"""Medians and bootstrap intervals of paired measurements. No I/O, no clock."""

import random
import statistics

RESAMPLES = 10_000
ENOUGH_ROUNDS = 5


def ratio(ours, theirs, seed=1):
    """Median of ours over median of theirs, with a 95 % bootstrap interval over rounds.

    The two lists are paired by round, so a round is drawn as a whole: what slowed
    the machine down in one round slowed both.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"unpaired samples: {len(ours)} and {len(theirs)}")
    rounds = list(zip(ours, theirs))
    rng = random.Random(seed)
    draws = sorted(_ratio(rng.choices(rounds, k=len(rounds))) for _ in range(RESAMPLES))
    low, high = draws[int(0.025 * RESAMPLES)], draws[int(0.975 * RESAMPLES) - 1]
    return {"ratio": _ratio(rounds), "low": low, "high": high}


def _ratio(rounds):
    ours, theirs = zip(*rounds)
    return statistics.median(ours) / statistics.median(theirs)


def verdict(interval, higher_is_better, rounds):
    """ahead, lost, or no difference found: the interval must leave 1 out and rest on enough rounds."""
    if rounds < ENOUGH_ROUNDS:
        return "too few rounds"
    if interval["low"] > 1:
        return "ahead" if higher_is_better else "lost"
    if interval["high"] < 1:
        return "lost" if higher_is_better else "ahead"
    return "no difference found"

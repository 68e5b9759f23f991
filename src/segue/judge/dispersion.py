"""How much less a stratum is trusted because events do not come one by one.

The tests take the attempts of one version as independent of each other. Retries, sticky sessions, a pause of
the one new instance break that: one cause gives several events on the same version. φ estimates how much more
the split of the events between the versions varies than chance makes it: the mean of the χ² of homogeneity
between successive blocks of at least five events. Two blocks are compared with each other and not with the
shares, so that a steady difference, which is what is looked for, does not count as dispersion.

    χ² = (c − Kθ)² / (K·K'/K″·θ(1 − θ)) · (K″ − 1)/K″      c of K events on the new version, c' of K' before,
    φ  = max(1, mean of four values of 1 and all χ² ≤ 25)    K″ = K + K', θ = (c + c') / K″

The next stratum's evidence is multiplied by trust = 1/φ. As φ ≥ 1 comes from the past alone, the guarantee
stands (`mixture.py`); φ does not extend it, it is an estimate and not a bound.
"""

from __future__ import annotations

from segue.judge.errors import Counts

LEAST = 5
HIGHEST = 25.0
PRIOR = 4.0


class Dispersion:
    """φ of one kind of event. `prior` is what it is before anything was seen."""

    __slots__ = ("_before", "_block", "_sum", "_values")

    def __init__(self, prior: float = 1.0) -> None:
        self._sum, self._values = PRIOR * prior, PRIOR
        self._block = Counts()
        self._before: tuple[float, float, float] | None = None

    @property
    def trust(self) -> float:
        """1/φ, for the stratum to come."""
        return min(1.0, self._values / self._sum)

    def add(self, counts: Counts) -> None:
        """A stratum ended."""
        self._block = block = self._block + counts
        events = block.new + block.old
        if events < LEAST or not block.both:
            return
        share = block.of_new / (block.of_new + block.of_old)
        if self._before:
            self._compare(*self._before, block.new, events, share)
        self._before = block.new, events, share
        self._block = Counts()

    def _compare(self, c0: float, k0: float, w0: float, c: float, k: float, w: float) -> None:
        new, events = c0 + c, k0 + k
        near = 0.3 * min(w, 1 - w, w0, 1 - w0) + 0.02
        if 0 < new < events and abs(w - w0) < near:  # else it says nothing, or the shares have changed
            theta = new / events
            chi2 = (c - k * theta) ** 2 / (k * k0 / events * theta * (1 - theta)) * (events - 1) / events
            self._sum += min(chi2, HIGHEST)
            self._values += 1

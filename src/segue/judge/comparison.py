"""The judge of one rollout: what each look brings goes in, and judgements come out.

How evidence is gathered, and why it may be looked at for ever, says `gathering.py`. Here it becomes verdicts and
sentences. `numbers` have the counts of the whole rollout (``new_attempts`` …) and the logarithms of the evidence:
``ln_e`` of harm, its parts, and of each proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, isfinite, log

from segue.core.quantities import duration
from segue.core.traffic import Sample
from segue.core.verdict import Basis, Judgement, Number, Verdict
from segue.judge import reasons
from segue.judge.errors import Counts, Ratio
from segue.judge.gathering import Gathering, Harm
from segue.judge.latency import PROVEN
from segue.judge.ratio import Interval
from segue.judge.settings import Gate, Settings

FEW = 10
"""With fewer attempts the numbers are not worth telling."""
_USUAL = 9.0
"""The old version's attempts for each of the new one's, as long as one of them had none."""
_NAMES = ("p50", "p90", "p99")
_NOTHING = Sample()


class Comparison:
    """Compares the new version of a rollout with the old one.

    There is one for a whole rollout, so that `false_alarm` is per rollout. `history`: the old version's last ten
    minutes before the first share.
    """

    def __init__(self, settings: Settings, history: Sample = _NOTHING) -> None:
        self._gathered = Gathering(settings, history)

    def look(self, seconds: float, new: Sample, old: Sample | None, *, timed: bool = True) -> None:
        """What came in the `seconds` since the last look. Raises ValueError if something went back.

        `old` of None: it is given no traffic, so the new version is held against what the old one did before.
        Not `timed`: instances still settle, and their latency does not count now.
        """
        self._gathered.look(seconds, new, old, timed)

    def close(self) -> None:
        """End the present stratum: shares change, an instance began again, a counter too, or a look was missed."""
        self._gathered.close()

    def step(self, gate: Gate) -> None:
        """A new step of the rollout: what proves something is gathered anew, with the margins of `gate`."""
        self._gathered.begin(gate)

    def tell_apart(self, paths: Sequence[str]) -> None:
        """From now on these paths are looked at by themselves as well: looks have them as `parts`."""
        self._gathered.tell_apart(paths)

    @property
    def alarm(self) -> bool:
        """Whether the new version is worse than the margin beyond chance, or was at some time."""
        return self._gathered.harm is not None

    @property
    def amber(self) -> bool:
        """Whether there is a tenth of the evidence that an alarm takes."""
        return self._gathered.amber

    def ratio(self, doubt: float = 0.05) -> Interval:
        """How many times as often the new version fails as the old one, in this step."""
        return self._gathered.step.ratio.interval(doubt)

    def percentiles(self) -> Mapping[str, tuple[float, float]]:
        """p50, p90 and p99 of the new and the old version's last minute side by side, in microseconds."""
        new, old = self._gathered.latency.new, self._gathered.latency.old
        if not new.total or not old.total:
            return {}
        return {name: (new.percentile(part), old.percentile(part)) for name, part in zip(_NAMES, PROVEN, strict=True)}

    def silence(self, new: str, old: str) -> Judgement:
        """Fail on an alarm, else pass. `new` and `old` are the versions' names, for the sentence."""
        if self._gathered.harm:
            return self._fail(self._gathered.harm, new, old)
        return Judgement(Verdict.PASS, self._basis, self._sentence(new, old), self._numbers())

    def proof(self, new: str, old: str) -> Judgement:
        """Fail on an alarm, pass when the new version is shown to keep the margin, else undecided.

        `numbers` also says how many `requests` there were in this step, how many more are `needed` (None: proof
        cannot come so) and the `seconds` that takes at the traffic of this step. `whole`: how many a version as
        good as the old one needs from the step's beginning, whatever this one did; None: too little is known of
        the old one.
        """
        if self._gathered.harm:
            return self._fail(self._gathered.harm, new, old)
        needed = self._needed()
        verdict = Verdict.UNDECIDED
        if not self._gathered.proven:
            why = reasons.needs(needed, self._eta(needed))
        elif self.amber:
            why = "something speaks against it, so nothing is proven now"
        else:
            verdict, why = Verdict.PASS, reasons.kept(self._gathered.step.margin)
        numbers = self._numbers() | self._missing(needed)
        return Judgement(verdict, self._basis, f"{self._sentence(new, old)}: {why}", numbers)

    def _needed(self, *, anew: bool = False) -> int | None:
        """About how many more attempts on the new version a proof takes if it is as good as the old one.

        `anew`: how many it takes from the beginning, whatever was seen.
        """
        it = self._gathered
        if it.alone:
            return None
        seen, recent = it.step.seen, it.recent
        old_per_new = seen.of_old / seen.of_new if seen.both else _USUAL
        rate = recent.failures / recent.attempts if recent.attempts else 0.0
        enough = -log(it.settings.doubt)
        test = Ratio.proof(it.step.margin) if anew else it.step.errors
        errors = test.until(enough, rate, old_per_new, it.guard.trust)
        needed = max(errors, it.latency.until(enough, old_per_new, it.now, anew=anew))
        return ceil(needed) if isfinite(needed) else None

    def _eta(self, needed: int | None) -> float | None:
        seen, seconds = self._gathered.step.seen, self._gathered.step.seconds
        return needed / seen.of_new * seconds if needed is not None and seen.of_new else None

    def _missing(self, needed: int | None) -> dict[str, Number]:
        seen, whole = self._gathered.step.seen.of_new, self._needed(anew=True)
        return {"requests": seen, "needed": needed, "seconds": self._eta(needed), "whole": whole}

    @property
    def _basis(self) -> Basis:
        return Basis.EVIDENCE if self._gathered.total.of_new >= FEW else Basis.HEALTH

    def _fail(self, harm: Harm, new: str, old: str) -> Judgement:
        if harm.slow:
            told = reasons.slower(*harm.slow, new, old)
        else:
            when = "" if harm.whole else f" in the last {duration(harm.seconds)}"
            told = self._failed(harm.seen, harm.alone, new, old, when)
        reason = f"{_where(harm, told)}: {reasons.chance(harm.log_e)}"
        return Judgement(Verdict.FAIL, Basis.EVIDENCE, reason, self._numbers() | _only(harm))

    def _sentence(self, new: str, old: str) -> str:
        it = self._gathered
        if not it.total.of_new:
            return f"No user request reached {new}"
        if it.total.of_new < FEW:
            return f"{reasons.tried(it.total.new, it.total.of_new, new)}: too few to judge"
        if it.alone and it.alone.seen.of_new:
            return self._failed(it.alone.seen, it.alone.highest, new, old)
        return self._failed(it.beside, None, new, old)

    def _failed(self, seen: Counts, allowed: float | None, new: str, old: str, when: str = "") -> str:
        told, recent = reasons.told(seen.new, seen.of_new, new), self._gathered.recent
        if allowed is None:
            if not seen.of_old:
                return f"{told}{when}; no request reached {old} meanwhile"
            return f"{told}, {reasons.shortly(seen.old, seen.of_old, old)}{when}"
        most = f"up to {reasons.percent(allowed, 1)} are allowed"
        if not recent.attempts:
            return f"{told}{when}; {most} where there is little to compare with"
        before = reasons.shortly(recent.failures, recent.attempts, f"{old} before it")
        return f"{told}{when}, {before}; {most} then"

    def _numbers(self) -> dict[str, Number]:
        it = self._gathered
        proofs = {f"ln_e_proof_{name}": log_e for name, log_e in zip(_NAMES, it.latency.proofs, strict=True)}
        return {
            "new_attempts": it.total.of_new,
            "new_failures": it.total.new,
            "old_attempts": it.total.of_old,
            "old_failures": it.total.old,
            "ln_e": it.log_e,
            "ln_e_errors": it.errors.log_e,
            "ln_e_latency": it.latency.log_e,
            **({"ln_e_paths": it.apart.log_e} if it.apart else {}),
            "ln_e_proof_errors": it.step.errors.log_e,
            **proofs,
        }


def _where(harm: Harm, told: str) -> str:
    """What was `told` of the harm, with the paths where it is."""
    only = _listed(harm.worse)
    if harm.path is None:
        return f"{told}; only {only} got worse" if only else told
    alone = harm.worse == (harm.path,)
    return f"On {reasons.path(harm.path)} {told}" + ("; no other path got worse" if alone else "")


def _only(harm: Harm) -> dict[str, Number]:
    """The only paths with harm, if that is known."""
    return {"worse": _listed(harm.worse)} if harm.worse else {}


def _listed(paths: Sequence[str]) -> str:
    return reasons.listed([reasons.path(path) for path in paths])

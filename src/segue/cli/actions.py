"""The commands that change a running service: promote, pause, resume, rollback, scale, restart, retire, down.

Each asks the control plane and gets the answer when it is decided, if that is soon; else what goes on is shown.

Rule: nothing is imported at the top that `segue rollback` cannot afford.
"""

from __future__ import annotations

import os
import time

from segue.cli.context import Context, quote
from segue.cli.text import seconds
from segue.core.quantities import count as of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Sentence = Callable[[Mapping[str, Any], str], str]

_SOON = 1
"""Seconds after which a rollout that is not decided is shown instead of waited for in silence."""


def promote(context: Context, full: bool = False, reason: str | None = None, detach: bool = False) -> int:
    """Go on past a hold; with `full` to the end without further judging or asking."""
    return _act(
        context,
        "promote",
        {"full": full, "reason": reason},
        detach,
        lambda r, took: f"{r['service']}: {r['to']} serves all traffic, after {took}.",
    )


def pause(context: Context) -> int:
    """Let the rollout begin no further step."""
    answer = _ask(context, "pause", {})
    sentence = f"{context.service()} is paused: no further step begins. Next: segue resume, or segue rollback"
    return _done(context, answer, sentence)


def resume(context: Context) -> int:
    """Let a rollout that is paused go on."""
    answer = _ask(context, "resume", {})
    return _done(context, answer, f"{context.service()} is no longer paused. Next: segue wait {answer['rollout']}")


def rollback(context: Context, to: str | None = None, reason: str | None = None, detach: bool = False) -> int:
    """Back to the old version, during a rollout, in keep, or later."""
    return _act(context, "rollback", {"to": to, "reason": reason}, detach, back_on)


def scale(context: Context, count: int, detach: bool = False) -> int:
    """More or fewer instances of the version that serves. Raises Refused where there is no memory for more."""
    _refuse_too_many(context, count)
    return _act(
        context,
        "scale",
        {"count": count},
        detach,
        lambda r, took: f"{r['service']}: {of(count, 'instance')}, after {took}.",
    )


def _refuse_too_many(context: Context, count: int) -> None:
    """Where it cannot be told nothing is refused; that there is no such service the request itself will say."""
    from segue.cli import capacity
    from segue.core.quantities import size_of
    from segue.errors import Refused, SegueError

    try:
        service = context.ask("GET", context.path())
    except SegueError:
        return
    version = service["versions"].get(service["stable"]) or {"size": 0, "instances": []}
    more = count - version["size"]
    pids = [one["pid"] for one in version["instances"] if one["state"] == "ready" and one["pid"]]
    each = capacity.unique(pids) if more > 0 else None
    if each and each * more > (free := capacity.obtainable()):
        needed = f"for {of(more, 'more instance')} about {size_of(each * more)} are needed"
        raise Refused(f"{needed}, and {size_of(free)} are free", next="segue status")


def restart(context: Context, detach: bool = False) -> int:
    """Fresh instances of the same version, by the service's strategy."""
    return _act(context, "restart", {}, detach, lambda r, took: f"{r['service']}: fresh instances, after {took}.")


def retire(context: Context, detach: bool = False) -> int:
    """End the keep of the old version."""
    return _act(
        context, "retire", {}, detach, lambda r, took: f"{r['service']}: the old version is stopped, after {took}."
    )


def down(context: Context, detach: bool = False) -> int:
    """Drain and stop the service."""
    return _act(context, "down", {}, detach, lambda r, took: f"{r['service']} is stopped, after {took}.")


def back_on(rollout: Mapping[str, Any], took: str) -> str:
    """What a rollback did. A rollout that was turned back left its `to`; a new one went there.

    A restart is gone back from to the instances that were there before, of the same version.
    """
    turned = rollout["outcome"] == "rolled_back"
    left, now = (rollout["to"], rollout["from"]) if turned else (rollout["from"], rollout["to"])
    if left == now:
        return f"Back on the former instances of {now}, in {took}."
    return f"Back on {now or 'nothing'} ({left or 'nothing'} → {now or 'nothing'} in {took})."


def _act(context: Context, action: str, body: Mapping[str, object], detach: bool, sentence: Sentence) -> int:
    began = time.monotonic()
    answer = _ask(context, action if detach else f"{action}?wait={_SOON}", body)
    if answer["rollout"] is None or detach:
        return _done(context, answer, f"Under way: segue wait {answer['rollout']}")
    shown = "outcome" not in answer
    if shown:
        from segue.cli.follow import show

        answer = show(context, answer["rollout"])
    else:
        answer = _whole(context, action, answer)
        if context.json:
            context.print({"event": "finished", **answer})
    rollout = {**context.ask("GET", f"/v1/rollouts/{quote(answer['rollout'])}"), **answer}
    if rollout.get("kind") != action:  # it was turned back: its own time counts from its beginning
        rollout["seconds"] = time.monotonic() - began
    status = _status(action, rollout)
    if not context.json and rollout["outcome"] != "holding" and (not shown or status != rollout["exit"]):
        _tell(rollout, status, sentence)
    return status


def _whole(context: Context, action: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer with all that is known: whether the hook of who retires has failed only the events tell."""
    if action != "retire":
        return answer
    from segue.cli.follow import finished

    return finished(context, answer["rollout"])


def _ask(context: Context, action: str, body: Mapping[str, object]) -> Any:
    return context.ask("POST", context.path(f"/{action}"), body, key=os.urandom(16).hex())


def _done(context: Context, answer: Mapping[str, Any], sentence: str) -> int:
    """Print the answer, or what is to be said about it where nothing was to do."""
    if answer["rollout"] is None:
        from segue.cli.trouble import sentence as whole

        sentence = whole(answer["message"])
    if context.json:
        context.print(answer)
    else:
        print(sentence)
    return 0


def _tell(rollout: Mapping[str, Any], status: int, sentence: Sentence) -> None:
    if status == 0:
        print(sentence(rollout, seconds(rollout.get("seconds") or 0)))
    else:
        from segue.cli.views import ending

        print(ending(rollout))


def _status(action: str, rollout: Mapping[str, Any]) -> int:
    """A deploy that was turned back has failed, its own status says so; the rollback that did it has not.

    Nor has a promotion failed after which a person is asked again: it went past what it was for.
    """
    if action == "promote" and rollout["outcome"] == "holding":
        return 0
    if action == "rollback" and rollout["outcome"] == "rolled_back" and rollout.get("kind") != "rollback":
        return 0
    return int(rollout["exit"])

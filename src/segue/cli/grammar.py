"""The command line as data: the commands and their options, once, for the quick parser and for click.

Rule: no import. `segue status` reads this.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Kind = str | tuple[str, ...] | range


class Option:
    """An option of a command.

    `kind`: ``flag``, ``text``, ``texts`` (repeated), ``version``, ``seconds``, the words or the numbers there are.
    """

    __slots__ = ("help", "kind", "metavar", "name", "names")

    def __init__(self, *names: str, help: str, kind: Kind = "text", metavar: str = "", name: str = "") -> None:
        self.names = names
        self.help = help
        self.kind = kind
        self.metavar = metavar
        self.name = name or names[0].lstrip("-").replace("-", "_")

    def without(self, taken: set[str]) -> Option:
        """The option, leaving out the names that mean something else to a command."""
        names = (name for name in self.names if name not in taken)
        return Option(*names, help=self.help, kind=self.kind, metavar=self.metavar, name=self.name)


class Argument:
    """A value without a name. `kind` as an option's. `zero`: why 0 is no value, and the command for who says it."""

    __slots__ = ("kind", "name", "required", "zero")

    def __init__(
        self, name: str, *, kind: Kind = "text", required: bool = False, zero: tuple[str, str] = ("", "")
    ) -> None:
        self.name = name
        self.kind = kind
        self.required = required
        self.zero = zero


class Command:
    """A command. It is carried out by the function of its name in the module `module` of this package."""

    __slots__ = ("argument", "help", "module", "options", "section")

    def __init__(
        self, section: str, module: str, help: str, *options: Option, argument: Argument | None = None
    ) -> None:
        self.section = section
        self.module = module
        self.help = help
        self.argument = argument
        own = {name for option in options for name in option.names}
        self.options = (*options, *(option.without(own) for option in COMMON))


COMMON = (
    Option(
        "--service", "-s", metavar="SERVICE", help="The service; otherwise that of ./segue.yaml, or the only one."
    ),
    Option("--directory", "-C", metavar="DIR", help="The folder that segue.yaml is in."),
    Option("--file", "-f", metavar="FILE", help="The manifest, if it is not segue.yaml."),
    Option("--json", kind="flag", help="Print JSON and nothing else."),
)

_VERSION = Option(
    "--version",
    kind="version",
    metavar="VERSION",
    help="The version's name; otherwise the git commit, or the time.",
)
_STRATEGY = Option(
    "--strategy",
    kind=("rolling", "in_place", "blue_green", "canary", "experiment"),
    help="Another strategy than the manifest's.",
)
_TRAFFIC = Option(
    "--traffic", metavar="RATE", help="Requests a second, if they are to be other than those that are measured."
)
_REASON = Option("--reason", metavar="TEXT", help="Why; it is kept with the rollout.")
_INSTANCES = range(1, 10_001)
_DETACH = Option("--detach", kind="flag", help="Return at once; the rollout goes on.")

DEPLOY, LOOK, CHANGE, MACHINE = "Deploy", "Look", "Change", "The machine"

COMMANDS: Mapping[str, Command] = {
    "init": Command(
        DEPLOY,
        "init",
        "Write a segue.yaml that fits the folder.",
        Option("--force", kind="flag", help="Replace a segue.yaml that is there."),
    ),
    "check": Command(DEPLOY, "check", "Validate the manifest and the machine; change nothing."),
    "plan": Command(
        DEPLOY,
        "deploy",
        "Show the steps of a deploy, and what they need; change nothing.",
        _VERSION,
        _STRATEGY,
        _TRAFFIC,
    ),
    "advise": Command(
        DEPLOY,
        "advise",
        "Say which strategy fits this change, and what each would take; change nothing.",
        Option("--since", metavar="COMMIT", help="Where to count the change from; otherwise the commit that serves."),
        _TRAFFIC,
        Option("--most-instances", kind=_INSTANCES, metavar="N", help="There may be at most so many at a time."),
        Option("--long-lived", kind="flag", help="Connections stay open for long, such as WebSockets."),
        Option("--validate", kind="flag", help="It is to be proven that the new version is no worse."),
        Option("--experiment", kind="flag", help="It is to be shown by a goal which version is better (A/B)."),
    ),
    "deploy": Command(
        DEPLOY,
        "deploy",
        "Bring a new version to the users. Returns when it is decided; Ctrl-C detaches.",
        _VERSION,
        _STRATEGY,
        _REASON,
        _DETACH,
        Option("--wait", kind="seconds", metavar="TIME", help="Wait at most so long (90s, 10m); then exit with 130."),
        Option("--no-wait", kind="flag", help="Return with 6 as soon as a person is asked, also on a terminal."),
        Option(
            "--if-busy",
            kind=("refuse", "wait", "replace"),
            help="When a rollout runs: refuse (the default), wait for its end, or take it back first.",
        ),
        Option("--require-evidence", kind="flag", help="Ask a person where it would go on without evidence."),
    ),
    "promote": Command(
        DEPLOY,
        "actions",
        "Go on past a hold, or past a judgement that has not said enough.",
        Option("--full", kind="flag", help="To the end, without further judging or asking."),
        _REASON,
        _DETACH,
    ),
    "pause": Command(DEPLOY, "actions", "Let the rollout begin no further step."),
    "resume": Command(DEPLOY, "actions", "Let a rollout that is paused go on."),
    "rollback": Command(
        DEPLOY,
        "actions",
        "Back to the old version now, or to a retained one.",
        Option("--to", metavar="VERSION", help="The version to go back to; otherwise the one before."),
        _REASON,
        _DETACH,
    ),
    "status": Command(LOOK, "status", "Services, versions, shares, instances, rollouts."),
    "watch": Command(LOOK, "watch", "The status, live."),
    "wait": Command(
        LOOK,
        "follow",
        "Wait until a rollout is decided; exit as its deploy would.",
        Option("--timeout", kind="seconds", metavar="TIME", help="Wait at most so long; then exit with 130."),
        argument=Argument("rollout"),
    ),
    "history": Command(
        LOOK,
        "past",
        "Past rollouts, newest first.",
        Option("--limit", "-n", kind=range(1, 1_001), metavar="N", help="At most so many (20)."),
    ),
    "report": Command(
        LOOK,
        "past",
        "One rollout's account: what happened, and every request.",
        Option("--html", metavar="FILE", help="Write a page that needs nothing else."),
        Option("--markdown", kind="flag", help="Print Markdown."),
        argument=Argument("rollout"),
    ),
    "explain": Command(
        LOOK,
        "explain",
        "Why a rollout went as it went, with the numbers that each decision was made from.",
        Option(
            "--replay",
            kind="texts",
            metavar="KEY=VALUE",
            help="Judge it again with another setting (judge.alarm.errors=0.5%); may be repeated.",
        ),
        argument=Argument("rollout"),
    ),
    "experiment": Command(
        LOOK,
        "experiment",
        "What an A/B experiment has shown: keep the new version, drop it, or no difference yet.",
        argument=Argument("rollout"),
    ),
    "logs": Command(
        LOOK,
        "logs",
        "What the instances wrote.",
        Option("--follow", "-f", kind="flag", help="Go on with what they write."),
        Option("--version", metavar="VERSION", help="Only of this version."),
        Option("--instance", metavar="INSTANCE", help="Only of this instance."),
        Option("--lines", "-n", kind=range(100_001), metavar="N", help="The last so many lines of each (100)."),
    ),
    "scale": Command(
        CHANGE,
        "actions",
        "More or fewer instances.",
        _DETACH,
        argument=Argument(
            "count", kind=_INSTANCES, required=True, zero=("a service has at least one instance", "segue down")
        ),
    ),
    "restart": Command(CHANGE, "actions", "Fresh instances of the same version, by the service's strategy.", _DETACH),
    "retire": Command(CHANGE, "actions", "Stop the old version that is kept warm.", _DETACH),
    "down": Command(CHANGE, "actions", "Drain and stop the service.", _DETACH),
    "serve": Command(MACHINE, "machine", "The control plane, in the foreground."),
    "shutdown": Command(
        MACHINE,
        "machine",
        "Stop the control plane; the services go on.",
        Option("--all", kind="flag", help="Stop the services and Envoy too, first."),
    ),
    "install": Command(
        MACHINE,
        "install",
        "Let systemd keep the control plane, from the start of the machine on.",
        Option(
            "--user", metavar="NAME", help="As root: whom the control plane is to be; low ports work all the same."
        ),
        Option("--print", kind="flag", help="Print the unit; change nothing.", name="only_print"),
        Option("--uninstall", kind="flag", help="Remove the unit; the services go on."),
    ),
    "doctor": Command(MACHINE, "doctor", "Look for what keeps Segue from working here, and say what to do."),
    "demo": Command(MACHINE, "machine", "The tour: deploys of a small shop under load."),
    "completion": Command(
        MACHINE,
        "machine",
        "Print the completion script of a shell.",
        argument=Argument("shell", kind=("bash", "zsh", "fish"), required=True),
    ),
    "version": Command(MACHINE, "machine", "The version of Segue."),
}

QUICK = ("status", "rollback")
"""The commands that are parsed without click where they can be."""

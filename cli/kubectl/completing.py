"""``kubectl_complete-fracgpu``: what kubectl calls when somebody presses TAB behind ``kubectl fracgpu``.

It gets the words of the line, the last of which is the one to complete, and answers a candidate a line, each with what
it means behind a tab, and at the end ``:`` and a number that tells the shell what to do with them (cobra's
ShellCompDirective). Behind ``--flag=`` the candidates are values alone. An error means no candidates, and is not told:
it would be written into the line that somebody is typing.
"""

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer

from cli.kubectl.flags import Output, Where
from cli.kubectl.main import app

FILES: Final = 0
NO_FILES: Final = 4
_SECONDS: Final = 3.0  # somebody is waiting for a line to be completed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be completed.

    Attributes:
        kind: commands, flags, outputs, files, namespaces, contexts, nodes, pods or nothing.
        prefix: what is there already.
        command: the command of the plugin; empty for none yet.
        given: arguments before it.
        where: what the flags before it say.
    """

    kind: str
    prefix: str
    command: str = ""
    given: tuple[str, ...] = ()
    where: Where = field(default_factory=Where)


_ARGUMENTS: Final = {"top": "nodes", "pods": "pods", "explain": "pods"}  # command -> what its arguments are
# Parameter -> what it takes.
_VALUES: Final = {"namespace": "namespaces", "context": "contexts", "kubeconfig": "files", "output": "outputs"}


def main() -> None:
    """Answer kubectl."""
    wanted = wanted_of(sys.argv[1:] or [""])
    print("\n".join([*_candidates(wanted), f":{FILES if wanted.kind == 'files' else NO_FILES}"]))


def wanted_of(words: Sequence[str]) -> Wanted:
    """Make out what is to be completed."""
    *before, last = words
    commands = _commands()
    name, rest = next(
        ((word, before[place + 1 :]) for place, word in enumerate(before) if word in commands), ("", before)
    )
    if not name:
        return Wanted("commands" if not last.startswith("-") else "flags", last)
    flags = _flags(commands[name])
    values: dict[str, str] = {}
    given = []
    pending = None  # the flag that waits for its value
    for word in rest:
        if pending is not None:
            values[pending.name], pending = word, None
        elif word.startswith("-"):
            flag, equals, value = word.partition("=")
            found = flags.get(flag)
            if found is not None and not found.is_flag:
                if equals:
                    values[found.name] = value
                else:
                    pending = found
        else:
            given.append(word)
    where = Where(
        Path(values["kubeconfig"]) if values.get("kubeconfig") else None,
        values.get("context", ""),
        values.get("namespace", ""),
    )
    if pending is None and last.startswith("-"):
        flag, equals, value = last.partition("=")
        if not equals:
            return Wanted("flags", last, name)
        pending, last = flags.get(flag), value
        if pending is None or pending.is_flag:
            return Wanted("nothing", last, name)
    if pending is not None:
        return Wanted(_VALUES.get(pending.name, "nothing"), last, name, where=where)
    kind = _ARGUMENTS.get(name, "nothing")
    if name == "explain" and given:
        kind = "nothing"
    return Wanted(kind, last, name, tuple(given), where)


def _candidates(wanted: Wanted) -> Iterator[str]:
    for text, meaning in _known(wanted):
        if text.startswith(wanted.prefix) and text not in wanted.given:
            yield f"{text}\t{meaning}" if meaning else text


def _known(wanted: Wanted) -> list[tuple[str, str]]:
    """Everything that could be meant, with what it means."""
    commands = _commands()
    match wanted.kind:
        case "commands":
            return [(name, command.get_short_help_str(60)) for name, command in commands.items()]
        case "flags":
            flags = _flags(commands[wanted.command]) if wanted.command else {}
            named = [(name, flag.help or "") for name, flag in flags.items() if name.startswith("--")]
            return [*named, ("--help", "Show help.")]
        case "outputs":
            return [(value, "") for value in Output]
        case "namespaces" | "nodes" | "pods" | "contexts":
            from cli.kubectl.candidates import names_of

            with contextlib.suppress(Exception):  # whatever it is, TAB is not the place to say it
                return [(name, "") for name in asyncio.run(names_of(wanted.kind, wanted.where, seconds=_SECONDS))]
    return []


def _commands() -> dict[str, Any]:
    found: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    return found


def _flags(command: Any) -> dict[str, Any]:
    """A flag as it is written -> what typer knows of it."""
    return {name: option for option in command.params if option.param_type_name == "option" for name in option.opts}

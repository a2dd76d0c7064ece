"""What docker-compose.yml says about a service: the command line, the environment and what is mounted where."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from stack.programs import ROOT

COMPOSE_FILE = ROOT / "docker-compose.yml"

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::?-(?P<default>[^}]*))?\})")


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the compose file, its variables replaced."""

    name: str
    command: tuple[str, ...]
    """What follows the image's entry point."""
    environment: Mapping[str, str]
    files: Mapping[str, Path]
    """Folders of the checkout that it sees, by their path in the container."""
    volumes: tuple[str, ...]
    """Paths in the container of its named volumes."""


def service(name: str, variables: Mapping[str, str]) -> Service:
    """A service of the compose file, with ``variables`` as the environment that compose would be started in."""
    fields = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))["services"][name]
    mounts = [_mount(entry) for entry in fields.get("volumes", ())]
    return Service(
        name=name,
        command=tuple(_filled(part, variables) for part in _words(fields.get("command", ()))),
        environment={key: _filled(value, variables) for key, value in _pairs(fields.get("environment", {})).items()},
        files={target: (ROOT / source).resolve() for source, target in mounts if source.startswith(".")},
        volumes=tuple(target for source, target in mounts if not source.startswith(".")),
    )


def _words(command: str | Sequence[str]) -> Sequence[str]:
    return command.split() if isinstance(command, str) else command


def _pairs(environment: Mapping[str, Any] | Sequence[str]) -> dict[str, str]:
    if isinstance(environment, Mapping):
        return {key: "" if value is None else str(value) for key, value in environment.items()}
    return {key: value for key, _, value in (entry.partition("=") for entry in environment)}


def _mount(entry: str | Mapping[str, Any]) -> tuple[str, str]:
    """Source and target of a mount in the short or the long form."""
    if isinstance(entry, str):
        source, target, *_ = entry.split(":")
        return source, target
    return str(entry["source"]), str(entry["target"])


def _filled(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        return variables.get(match["name"]) or match["default"] or ""

    return _VARIABLE.sub(value, text)

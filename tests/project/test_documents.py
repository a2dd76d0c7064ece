"""What the documents name exists: links, sections, files, settings, commands, verbs of make and of the stack."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import stagelight
import yaml
from stagelight.cli.failures import CommandError
from stagelight.cli.program import VERBS, build_parser

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "*/README.md", "examples/*/README.md", "prometheus/runbooks/*.md")
    for path in ROOT.glob(pattern)
    if not path.relative_to(ROOT).parts[0].startswith(".")
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
MADE_IN_THE_HOW_TO = re.compile(r".*/\w*acme\w*\.py")
"""Files that docs/add-an-integration.md has its reader write."""
SOURCES = ("instrumentation/stagelight", "collector", "deploy", "tests", "tools")


class Fence(NamedTuple):
    """A block of code."""

    language: str
    text: str


def fences(text: str) -> list[Fence]:
    """The blocks of code of a document."""
    return [Fence(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


def prose(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def sections(text: str) -> set[str]:
    """Where a link into a document may lead, as GitHub names its headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken(document: Path) -> Iterator[str]:
    """Links of a document to files and sections that are not there."""
    text = prose(document.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, section = link.partition("#")
        if re.match(r"https?://", link):
            continue
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (section and section not in sections(target.read_text(encoding="utf-8"))):
            yield link


def shell_lines(document: Path) -> Iterator[str]:
    """The lines of a document's shell blocks and the commands it has between backticks."""
    text = document.read_text(encoding="utf-8")
    for fence in fences(text):
        if fence.language in {"sh", "dockerfile"}:
            yield from fence.text.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", prose(text))


def commands(document: Path) -> Iterator[str]:
    """The commands of Stagelight that a document gives, each without what stands around it."""
    for line in shell_lines(document):
        for found in re.findall(r"(?:^|[\s(/])stagelight ([a-z]+(?: [^|&;#)>]*)?)", line):
            verb = found.split()[0]
            if verb in VERBS or line.startswith("stagelight "):
                yield found.replace('"', "").strip()


def refused(command: str) -> str | None:
    """Why a command is not accepted."""
    verb, *words = shlex.split(command)
    if verb not in VERBS:
        return f"{command}: no such command"
    if not words:
        return None  # the name of a command, in a sentence
    parser = build_parser(verb, importlib.import_module(f"stagelight.cli.{verb}"))
    try:
        parser.parse_args(words)
    except (CommandError, argparse.ArgumentError) as error:
        return f"{command}: {error}"
    except SystemExit:  # --help
        return None
    return None


def unreachable(code: str) -> Iterator[str]:
    """Modules of the package that a block uses as `stagelight.<module>` without their import."""
    tree = ast.parse(code)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "stagelight":
            name = f"stagelight.{node.attr}"
            if node.attr not in stagelight.__all__ and name not in imported:
                yield name
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "stagelight":
            module = importlib.import_module(node.module or "")
            yield from (f"{node.module}.{alias.name}" for alias in node.names if not hasattr(module, alias.name))


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """Every file and section that a document links to is there."""
    assert list(broken(ROOT / name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_files_exist(name: str) -> None:
    """Every path between backticks that begins with a folder of the checkout or of the package is there."""
    document = ROOT / name
    folders = {path.name for base in (ROOT, ROOT / "instrumentation/stagelight") for path in base.iterdir()}
    named = re.findall(r"`([a-z_]+)/([\w./*-]*)`", prose(document.read_text(encoding="utf-8")))
    bases = (ROOT, ROOT / "instrumentation/stagelight", document.parent)
    missing = [
        f"{folder}/{rest}"
        for folder, rest in named
        if folder in folders and not any(list(base.glob(f"{folder}/{rest}".rstrip("/"))) for base in bases)
    ]

    assert [path for path in missing if not MADE_IN_THE_HOW_TO.fullmatch(path)] == []


def test_settings_exist() -> None:
    """Every variable of ours that a document names is read somewhere."""
    suffixes = {".py", ".yaml", ".yml", ".sh", ".conf", ""}
    read = [ROOT / "docker-compose.yml", ROOT / "Makefile"]
    read += [
        path for name in SOURCES for path in (ROOT / name).rglob("*") if path.suffix in suffixes and path.is_file()
    ]
    known = {
        found
        for path in read
        for found in re.findall(r"STAGELIGHT_[A-Z0-9_]+", path.read_text("utf-8", errors="replace"))
    }
    named = {
        found: str(document.relative_to(ROOT))
        for document in DOCUMENTS
        for found in re.findall(r"\bSTAGELIGHT_[A-Z0-9_]*[A-Z0-9]\b", document.read_text(encoding="utf-8"))
    }

    assert {variable: where for variable, where in named.items() if variable not in known} == {}
    assert len(named) >= 15


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_accepted(name: str) -> None:
    """Every command line of Stagelight that a document gives is one that the program takes."""
    assert [reason for command in commands(ROOT / name) if (reason := refused(command)) is not None] == []


def test_commands_are_found() -> None:
    """A wrong flag or command in a document is seen, and the README's commands are."""
    found = list(commands(ROOT / "README.md"))

    assert {"up", "run -- uvicorn app:app", "doctor --app", "cost --by tenant"} <= set(found)
    assert refused("cost --by nobody") is not None
    assert refused("costs") == "costs: no such command"


def test_verbs_of_make_exist() -> None:
    """Every verb of make that a document gives is in the Makefile."""
    verbs = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        verb
        for document in DOCUMENTS
        for line in shell_lines(document)
        for verb in re.findall(r"^make ([a-z-]+)", line.strip())
    }

    assert named - verbs == set()
    assert {"demo", "test", "tools"} <= named


def test_services_and_verbs_of_the_stack_exist() -> None:
    """Every service and every verb of set-up in a document's `docker compose` lines is in the stack."""
    services = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"])
    script = (ROOT / "deploy/compose/setup/setup.sh").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^#   setup ([a-z-]+)", script, re.MULTILINE))
    lines = [line for document in DOCUMENTS for line in shell_lines(document)]
    addressed = {
        service
        for line in lines
        for service in re.findall(
            r"docker compose (?:exec|restart|stop|logs --since \w+|run --rm(?: -T| --no-deps)*) ([a-z][a-z-]+)", line
        )
    }
    asked = {verb for line in lines for verb in re.findall(r"compose run --rm (?:-T )?setup ([a-z-]+)", line)}

    assert (addressed - services, asked - verbs) == (set(), set())
    assert {"setup", "collector", "prometheus"} <= addressed
    assert {"env", "password", "rotate"} <= asked


@pytest.mark.parametrize(
    "name", sorted(set(NAMES) - {"README.md", "docs/add-an-integration.md"})
)  # have tests of their own
def test_python_can_be_copied(name: str) -> None:
    """Blocks of Python parse, and what they use of Stagelight they import."""
    blocks = [fence.text for fence in fences((ROOT / name).read_text(encoding="utf-8")) if fence.language == "python"]

    assert [missing for block in blocks for missing in unreachable(block)] == []


def test_data_can_be_copied() -> None:
    """Blocks of YAML are YAML."""
    blocks = [
        fence.text
        for document in DOCUMENTS
        for fence in fences(document.read_text(encoding="utf-8"))
        if fence.language == "yaml"
    ]

    assert blocks
    assert all(isinstance(yaml.safe_load(block), (dict, list)) for block in blocks)

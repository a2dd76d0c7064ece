# ruff: noqa: INP001 - a folder for PYTHONPATH, not a package
"""Activates Stagelight in every interpreter that has this folder on its PYTHONPATH, then lets the next one run.

Python imports the first ``sitecustomize`` it finds; one that stands further along the path is run after this. Nothing
here keeps the interpreter from starting: an interpreter without Stagelight, say of another environment, goes on as if
this file did not exist.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib would be imported by every interpreter

ALONE = ("stagelight", "opentelemetry-instrument", "opentelemetry-bootstrap", "pip", "uv")
"""Programs that are no application."""
WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
"""Switches of the interpreter whose value may be a word of its own."""


def _is_application() -> bool:
    words = getattr(sys, "orig_argv", [])[1:]
    while words and words[0].startswith("-") and words[0][:2] not in {"-m", "-c"}:
        words = words[2 if words[0] in WITH_VALUE else 1 :]  # switches of the interpreter
    what, value = [*words, "", ""][:2]
    if what[:2] in {"-m", "-c"}:
        value = what[2:] or value
    if what[:2] == "-c":
        return not value.startswith("from multiprocessing.resource_tracker")
    name = value.partition(".")[0] if what[:2] == "-m" else os.path.basename(what)  # noqa: PTH119 - as above
    return name.rstrip("0123456789.") not in ALONE  # pip3.11 is pip


def _activate() -> None:
    if not _is_application() or importlib.util.find_spec("stagelight") is None:
        return
    path = os.environ.get("PYTHONPATH")
    # What is started meanwhile must not activate in turn.
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in (path or "").split(os.pathsep) if part != HERE)
    try:
        from stagelight.distro import activate

        activate()
    finally:
        if path is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = path


def _next() -> ModuleSpec | None:
    folders = [folder for folder in sys.path if os.path.abspath(folder) != HERE]  # noqa: PTH100 - as above
    found = PathFinder.find_spec("sitecustomize", folders)
    upstream = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")  # noqa: PTH118 - as above
    if found is not None and upstream in (found.origin or ""):
        return None  # it would do a second time what was done
    return found


def _run_the_next() -> None:
    found = _next()
    if found is not None and found.loader is not None:
        module = importlib.util.module_from_spec(found)
        sys.modules["sitecustomize"] = module
        found.loader.exec_module(module)


try:
    _activate()
finally:
    _run_the_next()

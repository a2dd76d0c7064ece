"""Images under the names that the compose file uses, made from the programs at hand: nothing is pulled.

They hold what the real images hold that the compose file relies on: the program at its path, and a shell or `wget`
only where the real image has one.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stack.programs import program

BUSYBOX = Path("/bin/busybox")
NGINX = Path("/usr/sbin/nginx")


@dataclass(frozen=True, slots=True)
class Image:
    """What is in an image."""

    files: Mapping[str, Path]
    """What there is, by its path in the image."""
    entrypoint: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)


def image_of(service: str) -> Image:
    """The image of a service of the compose file; skips the test when its program is missing."""
    match service:
        case "collector":
            return _image("/otelcol-contrib")
        case "prometheus" | "alertmanager":
            return _image(f"/bin/{service}", has_shell=True)
        case "loki":
            return _image("/usr/bin/loki")
        case "tempo":
            return _image("/tempo")
        case "gateway":
            return Image({"/bin/busybox": BUSYBOX, "/usr/sbin/nginx": NGINX, **_libraries(NGINX)}, links=_applets())
        case _:
            return Image({"/bin/busybox": BUSYBOX}, links=_applets())


def _image(path: str, *, has_shell: bool = False) -> Image:
    files = {path: program(Path(path).name)}
    if has_shell:
        return Image({**files, "/bin/busybox": BUSYBOX}, (path,), _applets())
    return Image(files, (path,))


def write_archive(image: Image, to: Path) -> None:
    """Write the file system of an image as a tar archive."""
    with tarfile.open(to, "w") as archive:
        for path, source in image.files.items():
            archive.add(source.resolve(), path.lstrip("/"))
        for path, target in image.links.items():
            link = tarfile.TarInfo(path.lstrip("/"))
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)


def _applets() -> dict[str, str]:
    listed = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True, timeout=60).stdout
    return {f"/bin/{name}": "busybox" for name in listed.split() if name != "busybox"}


def _libraries(binary: Path) -> dict[str, Path]:
    return {path: Path(path) for path in _linked(binary)}


def _linked(binary: Path) -> Iterator[str]:
    ldd = shutil.which("ldd") or "ldd"
    listed = subprocess.run([ldd, binary], check=True, capture_output=True, text=True, timeout=60).stdout
    for line in listed.splitlines():
        words = line.partition("=>")[2].split() or line.split()
        if words[0].startswith("/"):
            yield words[0]

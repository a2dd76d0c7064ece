"""Bodies that are forms with files, as clients send recordings."""

from __future__ import annotations

from email.parser import BytesParser
from typing import Any

__all__ = ["fields_of"]


def fields_of(body: bytes, content_type: str) -> dict[str, Any]:
    """Read a body of ``multipart/form-data``: the texts of its fields, and the bytes of its files."""
    message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    found: dict[str, Any] = {}
    for part in message.walk():
        data = part.get_payload(decode=True)
        if not isinstance(data, bytes):  # the whole form
            continue
        name = str(part.get_param("name", "", "content-disposition"))
        found[name] = data if part.get_filename() else data.decode("utf-8", "replace")
    return found

"""Pseudonyms of user and session ids: ``h1:<key id>:<HMAC-SHA256>``; no key, no id."""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import lru_cache

__all__ = ["Pseudonyms"]

_SCHEME = "h1"
_DIGEST_CHARACTERS = 32  # 128 bits of the digest: collisions stay out of reach of any number of users


class Pseudonyms:
    """Makes the same pseudonym of the same id everywhere the same key is used.

    Args:
        key: the secret; its first four hashed bytes name it, so that pseudonyms of a rotated key can be told apart.
    """

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self.key_id = hashlib.sha256(b"stagelight key id:" + self._key).hexdigest()[:8]
        self._tagged = re.compile(rf"{_SCHEME}:{self.key_id}:[0-9a-f]{{{_DIGEST_CHARACTERS}}}")
        self.of = lru_cache(maxsize=4096)(self._of)

    def _of(self, value: str) -> str:
        """The pseudonym of an id; one that this key made, perhaps in a service upstream, stays as it is."""
        if self._tagged.fullmatch(value):
            return value
        digest = hmac.new(self._key, value.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
        return f"{_SCHEME}:{self.key_id}:{digest[:_DIGEST_CHARACTERS]}"

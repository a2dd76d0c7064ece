"""Token counts per modality, as generation 2 of the conventions has them."""

from __future__ import annotations

from collections.abc import Mapping

from stagelight.conventions import metrics as m
from stagelight.facts import Usage

__all__ = ["modal_counts"]


def modal_counts(usage: Usage) -> list[tuple[str, str, int]]:
    """Generation 2 counters with their modality; text is what the other modalities leave."""
    rows: list[tuple[str, str, int]] = []
    for name, total, audio, image in (
        (
            m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS,
            usage.input_tokens,
            usage.audio_input_tokens,
            usage.image_input_tokens,
        ),
        (
            m.GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS,
            usage.output_tokens,
            usage.audio_output_tokens,
            usage.image_output_tokens,
        ),
        (m.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS, usage.cache_read_tokens,
         usage.audio_cache_read_tokens, None),
    ):  # fmt: skip
        if total is None:
            continue
        rows.append((name, "text", max(total - (audio or 0) - (image or 0), 0)))
        rows += [(name, kind, count) for kind, count in (("audio", audio), ("image", image)) if count]
    written = usage.cache_write_tokens
    if written is not None:
        count = sum(written.values()) if isinstance(written, Mapping) else written
        rows.append((m.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS, "text", count))
    if usage.reasoning_tokens is not None:
        rows.append((m.GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS, "text", usage.reasoning_tokens))
    return rows

"""What is said of a tool: where it runs, and which call of the model's it answers."""

from __future__ import annotations

from typing import Any

import pytest
import stagelight
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import capture


def test_type_and_call_id() -> None:
    """The type is a label of the duration, the id of the model's call is on the span only; decorated tools say both."""

    @stagelight.tool("look_up", type="function", call_id="call_1")
    def look_up() -> int:
        return 1

    with capture() as captured:
        assert look_up() == 1
    call = captured.call("tool")

    assert (call.attributes[a.GEN_AI_TOOL_TYPE], call.attributes[a.GEN_AI_TOOL_CALL_ID]) == ("function", "call_1")
    assert [point.attributes for point in captured.metric(m.GEN_AI_EXECUTE_TOOL_DURATION)] == [
        {a.GEN_AI_TOOL_NAME: "look_up", a.GEN_AI_TOOL_TYPE: "function"}
    ]


@pytest.mark.parametrize("given", ["robot", 3, ["function"]])
def test_a_type_that_there_is_not(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Another type is a misuse that names what is accepted, and is left out."""
    with pytest.raises(_guard.MisuseError, match="accepted: function, extension, datastore"):
        stagelight.tool("look_up", type=given)
    _guard.set_strict(False)
    try:
        with capture() as captured, stagelight.tool("look_up", type=given):
            pass
    finally:
        _guard.set_strict(True)

    assert a.GEN_AI_TOOL_TYPE not in captured.call("tool").attributes

"""A deterministic server that speaks the providers' real protocols, for tests, demos and game days.

Needs the extra ``server``: ``pip install 'stagelight[server]'``.
"""

from stagelight.sim.faults import Fault, FaultError
from stagelight.sim.holds import Hold
from stagelight.sim.scenario import Scenario, ScenarioError
from stagelight.sim.simulator import Simulator
from stagelight.sim.wire import Recorded

__all__ = ["Fault", "FaultError", "Hold", "Recorded", "Scenario", "ScenarioError", "Simulator"]

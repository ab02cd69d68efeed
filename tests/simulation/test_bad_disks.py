"""A disk that takes nothing, in every state an update can be in: it waits, the device serves, nothing is lost."""

from __future__ import annotations

import pytest

from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.sim.crash import serves
from drupelet.sim.device import SimDevice

S = UpdateState
STATES = (S.DOWNLOADING, S.VERIFYING, S.INSTALLING, S.TRIAL, S.SWITCHING, S.PROBATION, S.COMMITTING)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.value)
def test_a_disk_that_is_full_in_any_state_delays_the_update_and_loses_nothing(state: S) -> None:
    device = SimDevice(seed=7)
    old = device.forge("1.1")
    device.order(Mode.INSTALL, old)
    device.settle()
    new = device.forge("1.2")
    device.order(Mode.INSTALL, new)
    device.run(lambda d: d.state.state is state, what=state.value)
    before = device.state.committed
    assert before is not None
    device.disk.full = True
    upto = len(device.fleet.polls) + 4
    device.run(lambda d: len(d.fleet.polls) >= upto, what="heartbeats")
    assert device.fleet.polls[-1].status.reason is Reason.DISK_FULL
    assert device.state.committed is before
    assert serves(device, old) or serves(device, new)
    device.disk.full = False
    device.settle()
    assert serves(device, new)
    assert device.state.committed is before.other

"""As many clients of Flower's simulation at once as there are workers for them. Reaches into Flower; decides nothing.

Source: the installed flwr 1.41 (``server/superlink/fleet/vce/vce_api.py``): its dispatcher waits for workers in a
``ThreadPoolExecutor()`` of default size, which is the cores of this machine plus four and 32 at the most, however many
workers a cluster has. As in flower_adapter.py, it is compared with what stands here first; where it differs, it stays
as it is, with a warning.
"""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from testudo_common.flower_adapter import expect, expect_version, or_stock


def widen_dispatcher(workers: int) -> bool:
    """Let this process's simulations wait for ``workers`` at once; False: Flower is not as expected."""
    return or_stock("the number of clients at once", partial(_widen_dispatcher, workers))


def _widen_dispatcher(workers: int) -> None:
    from flwr.server.superlink.fleet.vce import vce_api

    expect_version()
    source = inspect.getsource(vce_api.run_api)
    expect("with ThreadPoolExecutor() as executor:" in source, "it waits for workers in another way")
    vars(vce_api)["ThreadPoolExecutor"] = partial(ThreadPoolExecutor, workers)

"""What Flower 1.41 does not get over by itself, mended in its processes. Decides no policy.

Source: the installed flwr 1.41 (``supernode/start_client_internal.py``, ``supercore/sql_mixin.py``,
``supercore/corestate/in_memory_corestate.py``). As in flower_adapter.py, it is compared with what stands here first;
where it differs, it stays as it is, with a warning.

========================== ================= ================================================
what                        Flower 1.41       here
========================== ================= ================================================
database of the SuperLink   waits for 5 s     waits for 30 s
finished tasks of a node    are all kept      are forgotten with the next reply
task of a message lost      stays             fails
========================== ================= ================================================
"""

from __future__ import annotations

import inspect
from typing import Any

from testudo_common.flower_adapter import expect, expect_version, or_stock

_BUSY, _BUSY_MILLISECONDS = "busy_timeout", ("5000", "30000")


def forget_finished_tasks() -> bool:
    """Let this process's SuperNode forget what it has answered: it keeps every task, and looks through all of them
    whenever it is asked for one. False: Flower is not as expected, and it stays as it is.
    """
    return or_stock("the tasks that a node has finished", _forget_finished_tasks)


def fail_tasks_of_lost_messages() -> bool:
    """Let this process's SuperNode end the task of a message whose run ended before all of it had come.

    The executor, which has taken the task, would wait for the rest for two hours, and the owner with it. False: Flower
    is not as expected, and it stays as it is.
    """
    return or_stock("the tasks of messages that are lost", _fail_tasks_of_lost_messages)


def wait_for_the_database() -> bool:
    """Let this process's SuperLink wait longer until its database is free.

    With twenty nodes on two busy cores 5 s were too short once in fifty messages: the node got a status of 500, and
    dropped the message that its owner was answering. False: Flower is not as expected, and it stays as it is.
    """
    return or_stock("how long the SuperLink waits for its database", _wait_for_the_database)


def _forget_finished_tasks() -> None:
    from flwr.common.constant import Status
    from flwr.supercore.corestate.in_memory_corestate import InMemoryCoreState
    from flwr.supernode import start_client_internal as node
    from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

    expect_version()
    made = inspect.getsource(InMemoryCoreState.__init__)
    expect("self.task_store: dict[int, Task] = {}" in made, "its tasks are kept in another way")
    expect("self.lock_task_store = Lock()" in made, "its tasks are locked in another way")
    expect("state" in inspect.signature(node._push_messages).parameters, "it pushes otherwise")
    push = node._push_messages

    def push_and_forget(*args: Any, **more: Any) -> None:
        push(*args, **more)
        state = more.get("state")
        if not isinstance(state, InMemoryNodeState):
            return
        with state.lock_task_store:
            for number in [key for key, task in state.task_store.items() if task.status.status == Status.FINISHED]:
                del state.task_store[number]

    vars(node)["_push_messages"] = push_and_forget


def _fail_tasks_of_lost_messages() -> None:
    from flwr.common.constant import SubStatus
    from flwr.supernode import start_client_internal as node
    from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

    expect_version()
    pull = node._pull_and_store_message
    expect({"state", "object_store"} <= set(inspect.signature(pull).parameters), "it pulls otherwise")
    expect("return None" in inspect.getsource(pull), "it says otherwise that nothing came")

    def pull_or_fail(*args: Any, **more: Any) -> int | None:
        state, store = more.get("state"), more.get("object_store")
        if not isinstance(state, InMemoryNodeState) or store is None:
            return pull(*args, **more)
        tasks, messages = set(state.task_store), set(state.msg_store)
        if (run_id := pull(*args, **more)) is not None:
            return run_id
        for message in set(state.msg_store) - messages:  # before the task: else it would be answered by an error
            state.delete_messages(message_ids=[message])
            store.delete(message)
        for task in set(state.task_store) - tasks:
            state.finish_task(task, sub_status=SubStatus.FAILED, details="")
        return None

    vars(node)["_pull_and_store_message"] = pull_or_fail


def _wait_for_the_database() -> None:
    from flwr.supercore import sql_mixin

    expect_version()
    pragmas = dict(vars(sql_mixin)["SQLITE_PRAGMAS"])
    expect(pragmas.get(_BUSY) in _BUSY_MILLISECONDS, "its database is waited for in another way")
    expect("SQLITE_PRAGMAS" in sql_mixin._set_sqlite_pragmas.__code__.co_names, "its database is set up elsewhere")
    vars(sql_mixin)["SQLITE_PRAGMAS"] = tuple({**pragmas, _BUSY: _BUSY_MILLISECONDS[-1]}.items())

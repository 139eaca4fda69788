"""What all clients of a cohort find alike in the lists that they are sent, once for all clients of one process.

A client by itself finds everything once in any case. In a simulation a cohort of n would check n signatures n times
over. Lists are told apart by identity: they are frozen, and whoever remembers what was found in one holds on to it, so
that no other can take its place. Only what was found is remembered, and never that something was wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar, TypeVarTuple

from testudo_common.secagg.messages import MESSAGES
from testudo_common.secagg.terms import Terms

Lists = TypeVarTuple("Lists")
T = TypeVar("T")
_REMEMBERED = 4  # lists of one attempt, and of one that follows
_BODIES = 8


class _Lists:
    """Terms and lists, equal where the lists are the same ones and the terms say the same."""

    def __init__(self, terms: Terms, lists: tuple[Any, ...]) -> None:
        self.terms, self.lists = terms, lists
        self._named = terms.round_context, id(terms.roster), terms.parameters, *map(id, lists)

    def __hash__(self) -> int:
        return hash(self._named)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lists) and other._named == self._named


def once_for_all(find: Callable[[Terms, *Lists], T]) -> Callable[[Terms, *Lists], T]:
    """``find`` of terms and lists, with a memory. Neither the lists nor what it gives back may ever be changed."""

    @lru_cache(maxsize=_REMEMBERED)
    def remembered(key: _Lists) -> T:
        return find(key.terms, *key.lists)

    @wraps(find)
    def found(terms: Terms, *lists: *Lists) -> T:
        return remembered(_Lists(terms, lists))

    return found


@lru_cache(maxsize=_BODIES)
def decoded(body: bytes) -> Any:
    """The message in ``body``; the same one for the same bytes, as of a list that everybody is sent.

    Raises:
        ProtocolError: See :meth:`testudo_common.secagg.codec.Catalogue.decode`.
    """
    return MESSAGES.decode(body)

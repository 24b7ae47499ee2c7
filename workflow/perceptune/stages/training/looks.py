"""What a method over ranked lists asks of a group, in any process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load
from perceptune.core.methods.logprob_queries import Look, Pairs
from perceptune.core.methods.method import GroupMethod
from perceptune.engines.training.groups import RankedList


@dataclass(frozen=True)
class MethodLooks:
    """The log-prob queries of a method. In another process, it loads the method again."""

    method: str
    """Its name."""
    parameters: Mapping[str, Any]
    view: str
    """View of the training."""

    def __reduce__(self) -> tuple[type[MethodLooks], tuple[str, Mapping[str, Any], str]]:
        return MethodLooks, (self.method, self.parameters, self.view)

    def __call__(self, one: RankedList) -> list[Look]:
        """The queries for one group."""
        return self.of(one.rewards, one.pairs)

    def of(self, rewards: Sequence[float], pairs: Pairs) -> list[Look]:
        """The queries for a group with these rewards and pairs.

        Raises `UserError` if the method queries a view that it does not declare.
        """
        method, parameters, declared = self._loaded
        queries = method.looks(rewards, pairs, parameters, self.view)
        if undeclared := [look.view for look in queries if look.view not in declared]:
            raise UserError(
                f"method `{self.method}` queries view `{undeclared[0]}`, which its `views` does not declare"
            )
        return queries

    @cached_property
    def _loaded(self) -> tuple[GroupMethod, Any, Sequence[str]]:
        """The method, its parameters, and the views that it declares."""
        method: GroupMethod = load("method", self.method)
        parameters = method.Parameters.model_validate(self.parameters)
        return method, parameters, method.views(parameters, self.view)

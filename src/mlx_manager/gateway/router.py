"""Plans by routes: who is to answer a request, in order, and why."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mlx_manager.backends import Backend
from mlx_manager.catalog import PatternKind, ProviderKind, Route, RouteTarget, TargetOrder, Timeouts
from mlx_manager.errors import MlxManagerError, ModelNotFound, NotPermitted, Unavailable
from mlx_manager.gateway.affinity import beginning_of, by_affinity
from mlx_manager.gateway.asker import Asker
from mlx_manager.gateway.patterns import REST, compile_pattern
from mlx_manager.gateway.queues import Queues
from mlx_manager.gateway.traits import Traits
from mlx_manager.ir import Caller, GenerationRequest, Prompt, Usage

QUEUE_WAIT = "queue_wait"
HERE = "local"


class RemoteBackend(Backend, Protocol):
    """A backend that is somebody else's: it takes its time in phases, and money."""

    timeouts: Timeouts
    kind: ProviderKind

    def told(self, request: GenerationRequest) -> Mapping[str, Any]:
        """The parameters of `request` that mean nothing here and that it is told, by name."""
        ...

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """What an answer cost; None where nobody knows the price."""
        ...


@dataclass(frozen=True)
class Target:
    """Who is to answer, with which model, and within which time."""

    backend: Backend
    model: str
    timeouts: Timeouts
    remote: RemoteBackend | None = None
    """The same backend, where it is somebody else's."""

    @property
    def kind(self) -> str:
        """What answers: local, or the kind of the provider."""
        return HERE if self.remote is None else self.remote.kind.value

    @property
    def label(self) -> str:
        """For its circuit breaker, and for people."""
        return f"{self.backend.name}/{self.model}"


@dataclass(frozen=True)
class Plan:
    """Who is asked, in order; at least one."""

    targets: tuple[Target, ...]
    route: Route | None = None
    steps: tuple[str, ...] = ()
    """How it came about, for people."""
    skipped_for: str | None = None
    """The code of the reason for which targets before the first were passed over."""


@dataclass(frozen=True)
class _Wanted:
    """What a request asks a route for."""

    model: str
    rest: str
    """What `*` stands for."""
    prompt: Prompt | None


class Router:
    """Holds the routes, ready to be matched. `local` are the backends of this machine, asked in their order.

    `find_remote` gives the backend of a provider that is on; `cloud_refusal` why none may be asked for somebody.
    `names` are those of this machine's models; one may take `local_timeout_s` to its first token and to each next one.
    """

    def __init__(
        self,
        local: Sequence[Backend],
        *,
        find_remote: Callable[[str], RemoteBackend | None] = lambda _: None,
        cloud_refusal: Callable[[Caller], MlxManagerError | None] = lambda _: None,
        local_timeout_s: Callable[[], float] = lambda: 900.0,
        names: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._local = tuple(local)
        self._find_remote = find_remote
        self._cloud_refusal = cloud_refusal
        self._names = names
        self._local_timeout_s = local_timeout_s
        self._routes: tuple[tuple[Route, Callable[[str], str | None]], ...] = ()
        self.queues = Queues()

    def update(self, routes: Sequence[Route]) -> None:
        """From now on these routes hold, in this order."""
        self._routes = tuple((route, compile_pattern(route.pattern_kind, route.pattern)) for route in routes)

    def not_found(self, error: ModelNotFound, model: str) -> ModelNotFound:
        """`error`, with the names near `model` that would be answered to."""
        return ModelNotFound(error.message + self.hint(model), param=error.param)

    def hint(self, model: str) -> str:
        """A sentence about the names near `model` that would be answered to; "" where there is none."""
        routed = (route.pattern for route, _ in self._routes if route.is_on and route.pattern_kind is PatternKind.EXACT)
        near = difflib.get_close_matches(model, {*self._names(), *routed}, n=3, cutoff=0.5)
        return f" Did you mean {' or '.join(near)}?" if near else ""

    def missing(self, plan: Plan) -> list[str]:
        """The models that `plan` would ask this machine for, and that it does not have."""
        asked = dict.fromkeys(target.model for target in plan.targets if target.remote is None)
        known = set(self._names()) if asked else set()
        return [name for name in asked if name not in known]

    def plan(self, model: str, traits: Traits, asker: Asker) -> Plan:
        """Who answers a request for `model`.

        Raises `NotPermitted` where only providers could and it has to stay here, and what else keeps them from it.
        """
        steps: list[str] = []
        for route, match in self._routes:
            rest = match(model)
            if rest is None:
                continue
            unmet = "it is off" if not route.is_on else traits.unmet(route.conditions)
            if unmet is not None:
                steps.append(f"route {route.name}: passed over, {unmet}")
                continue
            steps.append(f"route {route.name}: matches {model!r}")
            return self._follow(route, _Wanted(model, rest, traits.prompt), asker, steps)
        steps.append("no route matches: this machine answers, if it has the model")
        return Plan(self._here(model), None, tuple(steps))

    def _follow(self, route: Route, wanted: _Wanted, asker: Asker, steps: list[str]) -> Plan:
        refusal = self._refuse_cloud(route, wanted.model, asker)
        found: list[Target] = []
        for target in route.targets:
            name = (target.model or wanted.model).replace(REST, wanted.rest) if target.model else wanted.model
            if target.provider is None:
                found += self._here(name)
                steps.append(f"target local/{name}")
            elif refusal is not None:
                steps.append(f"target {target.provider}/{name}: left out. {refusal.message}")
            else:
                found += self._there(target, name, steps)
        if not found:
            if refusal is not None:
                raise refusal
            raise Unavailable(f"No provider of the route {route.name} is on.")
        if route.order is TargetOrder.CONVERSATION and wanted.prompt is not None:
            found = by_affinity(found, [target.label for target in found], beginning_of(wanted.prompt))
            steps.append(f"its conversation begins with {found[0].label}")
        kept = self._spill(route, found, steps)
        skipped_for = QUEUE_WAIT if len(kept) < len(found) else None
        return Plan(tuple(kept), route, tuple(steps), skipped_for)

    def _refuse_cloud(self, route: Route, model: str, asker: Asker) -> MlxManagerError | None:
        if asker.stays_here:
            return NotPermitted(
                f"Providers answer {model!r} (route {route.name}), and this request has to stay on this machine.",
                param="model",
            )
        return self._cloud_refusal(asker.caller)

    def _spill(self, route: Route, targets: list[Target], steps: list[str]) -> list[Target]:
        """Without the targets of this machine that a request would wait for too long, while others can be asked."""
        most_s = route.spill.queue_wait_s
        if most_s is None or all(target.remote is None for target in targets):
            return targets
        kept = []
        for target in targets:
            wait_s = self.queues.expected_wait_s(target.model) if target.remote is None else 0.0
            if wait_s > most_s:
                steps.append(f"target {target.label}: left out, others wait for {wait_s:.1f} s already")
            else:
                kept.append(target)
        return kept

    def _here(self, model: str) -> tuple[Target, ...]:
        patience_s = self._local_timeout_s()
        timeouts = Timeouts(first_token_s=patience_s, between_tokens_s=patience_s, total_s=float("inf"))
        return tuple(Target(backend, model, timeouts) for backend in self._local)

    def _there(self, wanted: RouteTarget, model: str, steps: list[str]) -> list[Target]:
        remote = self._find_remote(wanted.provider or "")
        if remote is None:
            steps.append(f"target {wanted.provider}/{model}: left out, the provider is off or gone")
            return []
        steps.append(f"target {wanted.provider}/{model}")
        return [Target(remote, model, remote.timeouts, remote)]

"""The definition of a runner: a name, its room, and its handlers."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from controlplane.events.identity import IDENTIFIER
from controlplane.events.types import RetryPolicy
from controlplane.runner.capability import CapabilityInvalid, Handler, HandlerFunction, handler_of

Function = TypeVar("Function", bound=HandlerFunction)


class Runner:
    """A named set of handlers. Each process that runs it registers as a runner of its own, with so many slots."""

    def __init__(
        self, name: str, *, pool: str = "default", slots: int = 16, labels: Mapping[str, str] | None = None
    ) -> None:
        """Define a runner; `name` is stable, claims are attributed to it.

        Raises:
            CapabilityInvalid: a name, the pool or the number of slots cannot be.
        """
        for what, value in (("name", name), ("pool", pool)):
            if not IDENTIFIER.fullmatch(value):
                raise CapabilityInvalid(
                    f"Expected a {what} of letters, digits and ._:@/+- for the runner, but found {value!r}."
                )
        if slots < 1:
            raise CapabilityInvalid(f"Expected at least 1 slot for runner {name}, but found {slots!r}.")
        self.name = name
        self.pool = pool
        self.slots = slots
        self.labels = dict(labels or {})
        self.handlers: dict[tuple[str, int], Handler] = {}

    def capability(
        self, job_type: str, *, version: str = "1.0.0", timeout: float | None = None, retry: RetryPolicy | None = None,
        slots: int = 1, executor: Literal["thread", "process"] | None = None,
    ) -> Callable[[Function], Function]:  # fmt: skip
        """Offer the decorated function as the handler of a job type.

        It is called with the payload and, if it has a second parameter, with its `JobContext`. Async functions run on the
        event loop, plain ones in threads, or in processes of their own with `executor="process"`. `timeout` limits one attempt,
        in seconds. The function itself stays as it is.

        Raises:
            CapabilityInvalid: the signature is no contract, or the job type is offered twice in one major version.
        """

        def register(function: Function) -> Function:
            handler = handler_of(
                function, job_type=job_type, version=version, timeout=timeout, retry=retry, slots=slots, executor=executor
            )  # fmt: skip
            if slots > self.slots:
                raise CapabilityInvalid(
                    f"Expected {job_type} to fit into the {self.slots} slots of runner {self.name}, but it takes {slots}."
                )
            key = (handler.job_type, handler.major)
            if key in self.handlers:
                raise CapabilityInvalid(
                    f"Expected one handler for {job_type} in major version {handler.major}, but runner {self.name} has "
                    f"{self.handlers[key].function.__qualname__} and {function.__qualname__}."
                )
            self.handlers[key] = handler
            return function

        return register

    def handler(self, job_type: str, major: int) -> Handler | None:
        """Return the handler of a job type in a major version, if there is one."""
        return self.handlers.get((job_type, major))

    def __repr__(self) -> str:
        return (
            f"Runner({self.name!r}, slots={self.slots}, capabilities={[one.label for one in self.handlers.values()]})"
        )

"""What a handler sees of its job, and how it says something while it runs."""

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable
from datetime import datetime
from typing import Any, Final, Self, Unpack

from controlplane.api.models import JobRequest
from controlplane.api.submissions import JobOptions, OptionInvalid, instant_of, json_content
from controlplane.events.identity import name_based_id
from controlplane.events.texts import valid_text
from controlplane.events.types import Claim, LogPosition, ValueKind
from controlplane.events.values import SUBJECT_LIMIT_CHARACTERS, typed_value
from controlplane.log.positions import position_text
from controlplane.runner.errors import ClaimInvalid, NonRetryable
from controlplane.runner.reports import JobFacts, Progressed, Report, Submitted

PREDICATE_LIMIT_CHARACTERS: Final = 128
MESSAGE_LIMIT_CHARACTERS: Final = 1_000
CLAIMS_LIMIT: Final = 10_000


class Reported:
    """The answer to a report: already handed over, so that plain functions need not wait; `await` lets others run."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.sleep(0).__await__()


_REPORTED: Final = Reported()


class ChildJob:
    """A job that this one submitted. Its id is known at once; `await` it to wait until the submission stands on the log."""

    __slots__ = ("_acknowledged", "job_id")

    def __init__(self, job_id: str, acknowledged: "asyncio.Future[None] | None" = None) -> None:
        self.job_id = job_id
        self._acknowledged = acknowledged

    def __await__(self) -> Generator[Any, None, Self]:
        if self._acknowledged is not None:
            yield from asyncio.shield(self._acknowledged).__await__()
        return self

    def __repr__(self) -> str:
        return f"ChildJob({self.job_id!r})"


Receive = Callable[[Report], "asyncio.Future[None] | None"]
"""Takes what a handler says; for a submission it may return what is done when the submission stands on the log."""


class JobContext:
    """One attempt of a job, as its handler sees it. Every method may be called from any thread."""

    def __init__(self, facts: JobFacts, receive: Receive) -> None:
        """Prepare the context of one attempt."""
        self._facts = facts
        self._receive = receive
        self._claims: list[Claim] = []
        self._children = 0
        self._stop_reason: str | None = None

    @property
    def job_id(self) -> str:
        """Return the id of the job: the same in every attempt."""
        return self._facts.job_id

    @property
    def job_type(self) -> str:
        """Return what the job is."""
        return self._facts.job_type

    @property
    def attempt_id(self) -> str:
        """Return the lease of this attempt: never used again."""
        return self._facts.attempt_id

    @property
    def attempt_number(self) -> int:
        """Return 1 for the first attempt, and so on."""
        return self._facts.attempt_number

    @property
    def correlation_id(self) -> str:
        """Return the chain that the job belongs to: its first submission."""
        return self._facts.correlation_id

    @property
    def tenant(self) -> str:
        """Return the tenant that the job belongs to."""
        return self._facts.tenant

    @property
    def log(self) -> logging.Logger:
        """Return a logger; what a handler logs, here or elsewhere, is kept with its job."""
        return logging.getLogger(f"job.{self._facts.job_type}")

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Return what was claimed so far."""
        return tuple(self._claims)

    @property
    def cancelled(self) -> bool:
        """Say whether the handler should stop: the job was cancelled, the time is over, or the runner is shutting down."""
        return self._stop_reason is not None

    def raise_if_cancelled(self) -> None:
        """Raise `asyncio.CancelledError` when the handler should stop, as async handlers get it by themselves."""
        if self._stop_reason is not None:
            raise asyncio.CancelledError(self._stop_reason)

    def stop(self, reason: str) -> None:
        """Ask the handler to stop; the runner calls this, tests may."""
        self._stop_reason = reason

    def progress(self, fraction: float, message: str = "") -> Reported:
        """Report how much is done, in [0, 1]; `await` it in async handlers, plain functions just call it.

        A handler may report as often as it likes: beyond a burst, the newest report is told a few times a second, and the last always.

        Raises:
            NonRetryable: the fraction is not in [0, 1].
        """
        if not _is_share(fraction):
            raise NonRetryable(f"Expected progress in [0, 1], but found {fraction!r}.")
        self._receive(Progressed(fraction=float(fraction), message=_clipped(message)))
        return _REPORTED

    def claim(
        self, subject: str, predicate: str, object: Any, confidence: float = 1.0, *, unit: str | None = None,  # noqa: A002 -- as claims name it
        kind: ValueKind | None = None, valid_from: datetime | None = None, valid_to: datetime | None = None,
        inputs: Iterable[str | LogPosition] = (),
    ) -> None:  # fmt: skip
        """Say that a subject has a property; it becomes an assertion if this attempt concludes the job.

        `object` is text, a number (with a unit), a boolean, a datetime, a `Reference` or JSON; `confidence` is in [0, 1];
        it holds from `valid_from` to `valid_to` (by default from now on); `inputs` are the assertions or log positions that
        it was derived from.

        Raises:
            ClaimInvalid: it cannot be an assertion.
        """
        if len(self._claims) >= CLAIMS_LIMIT:
            raise ClaimInvalid(f"Expected at most {CLAIMS_LIMIT} claims of one attempt, but found more.")
        _check_text("subject", subject, SUBJECT_LIMIT_CHARACTERS)
        _check_text("predicate", predicate, PREDICATE_LIMIT_CHARACTERS)
        if not _is_share(confidence):
            raise ClaimInvalid(f"Expected a confidence in [0, 1] for {predicate}, but found {confidence!r}.")
        try:
            value = typed_value(object, kind=kind, unit=unit)
            since = None if valid_from is None else instant_of(valid_from, "valid_from")
            until = None if valid_to is None else instant_of(valid_to, "valid_to")
        except ValueError as error:
            raise ClaimInvalid(f"{predicate} of {subject}: {error}") from error
        if since is not None and until is not None and until <= since:
            raise ClaimInvalid(f"Expected {predicate} to hold for some time, but it ends at {valid_to}.")
        self._claims.append(
            Claim(
                subject=subject, predicate=predicate, object=value, confidence=float(confidence), valid_from=since,
                valid_to=until, inputs=tuple(_input(one) for one in inputs),
            )
        )  # fmt: skip

    def submit(
        self, job_type: str, payload: object = None, *, key: str | None = None, **options: Unpack[JobOptions]
    ) -> ChildJob:
        """Submit a child job: it carries this job's correlation, tenant, pool and priority, and names it as its parent.

        An attempt that runs again submits the same children, not more: a child's id follows from this job's id and from `key`, or
        from its place in the order of the calls. Give a `key` when that order may change. A job only succeeds once its children's
        submissions stand on the log.

        Raises:
            NonRetryable: the options are not those of a job, a time has no zone, or there is a secret, for which nothing here has the key.
            asyncio.CancelledError: the attempt is over.
        """
        self.raise_if_cancelled()
        place = f"key/{key}" if key is not None else f"place/{self._children}"
        self._children += key is None
        job_id = name_based_id(f"{self._facts.job_id}/child/{place}")
        inherited: JobOptions = {"pool": self._facts.pool, "priority": self._facts.priority}
        try:
            request = _in_time(JobRequest.model_validate({"job_type": job_type, **inherited, **options}))
            data = json_content(payload).data
            if request.secret is not None:
                raise OptionInvalid(
                    "Expected no secret for a child job, which nothing encrypts: submit it through the gateway."
                )
        except ValueError as error:
            raise NonRetryable(f"Expected a child job like controlplane's JobRequest, but: {error}") from error
        report = Submitted(job_id=job_id, request=request.model_dump_json(exclude_unset=True).encode(), payload=data)
        return ChildJob(job_id, self._receive(report))


def _in_time(request: JobRequest) -> JobRequest:
    """Return a request whose times have a zone: the gateway is told by JSON's, here they come as Python has them."""
    for option in ("not_before", "deadline"):
        if (moment := getattr(request, option)) is not None:
            instant_of(moment, option)
    return request


def _clipped(message: str) -> str:
    return valid_text(message[:MESSAGE_LIMIT_CHARACTERS])[:MESSAGE_LIMIT_CHARACTERS]


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _check_text(what: str, value: object, limit: int) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise ClaimInvalid(f"Expected a {what} of 1 to {limit} characters, but found {value!r:.100}.")
    _check_unicode(what, value)


def _check_unicode(what: str, text: str) -> None:
    if valid_text(text) != text:
        raise ClaimInvalid(f"Expected a {what} that is valid Unicode, but found {text!r:.100}.")


def _input(source: str | LogPosition) -> str:
    text = source if isinstance(source, str) else position_text(source)
    _check_unicode("input", text)
    return text

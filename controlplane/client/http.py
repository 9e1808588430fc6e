"""The HTTP client: typed, retrying only what is safe to repeat, with the client minting the ids that make it so."""

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx

from controlplane.api.models import (
    Acknowledgement,
    CausationAnswer,
    DigestAnswer,
    JobAnswer,
    JobsAnswer,
    JobView,
    RunnersAnswer,
    SqlAnswer,
    TruthsAnswer,
    TruthView,
)
from controlplane.client.errors import ControlPlaneError
from controlplane.events.identity import random_id

ATTEMPTS: Final = 5
PAUSE_SECONDS: Final = 0.2
CONCLUDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "REJECTED"})


class JobHandle:
    """A submitted job."""

    def __init__(self, client: "Client", acknowledgement: Acknowledgement) -> None:
        """Take the acknowledgement of a submission."""
        self._client = client
        self.job_id: str = acknowledgement.job_id or ""
        self.position: str = acknowledgement.position

    def status(self) -> JobView:
        """Return the job; its own submission is always reflected."""
        return self._client.job(self.job_id, min_position=self.position)

    def wait(self, timeout: float = 60.0) -> JobView:
        """Return the job once it is concluded.

        Raises:
            TimeoutError: it is not within `timeout` seconds.
        """
        give_up_at, pause = time.monotonic() + timeout, 0.02
        while (job := self.status()).phase not in CONCLUDED:
            if time.monotonic() > give_up_at:
                raise TimeoutError(
                    f"Expected job {self.job_id} to conclude within {timeout:g} s, but it is {job.phase}."
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        return job

    def result(self, timeout: float = 60.0) -> Any:
        """Return the result of the job once it is completed.

        Raises:
            ControlPlaneError: it failed, was rejected or cancelled.
            TimeoutError: it is not concluded within `timeout` seconds.
        """
        job = self.wait(timeout)
        if job.phase != "COMPLETED":
            raise ControlPlaneError({"title": f"Job {self.job_id} is {job.phase}", **(job.error or {})})
        return job.result

    def cancel(self, reason: str = "", *, kill: bool = False) -> Acknowledgement:
        """Ask for the job to be cancelled."""
        return self._client.cancel(self.job_id, reason, kill=kill)


class Client:
    """A synchronous client of one gateway; use it as a context manager, or `close` it."""

    def __init__(self, url: str = "http://127.0.0.1:8400", *, timeout: float = 40.0) -> None:
        """Prepare a client; nothing is asked yet. `timeout` is in seconds, per request."""
        self._http = httpx.Client(base_url=url, timeout=timeout)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Return the JSON of an answer; what may be repeated is, with the pauses that the answers ask for.

        Every write of this client carries an id that it minted, so repeating it is safe.

        Raises:
            ControlPlaneError: the request was refused, or nothing answered.
        """
        parameters = {name: value for name, value in (query or {}).items() if value is not None}
        refused = ControlPlaneError({"title": "no answer"})
        for attempt in range(ATTEMPTS):
            try:
                answer = self._http.request(method, path, params=parameters, json=body)
            except httpx.TransportError as error:
                text = f"Expected the gateway at {self._http.base_url} to answer, but: {error}."
                refused = ControlPlaneError(
                    {"title": "no answer", "message": text, "code": "no_answer", "retryable": True}
                )
            else:
                if answer.is_success:
                    return answer.json()
                refused = ControlPlaneError(
                    {"title": answer.reason_phrase, **_problem(answer), "status": answer.status_code}
                )
            if not refused.retryable or attempt == ATTEMPTS - 1:
                break
            time.sleep(refused.retry_after_seconds or PAUSE_SECONDS * 2**attempt)
        raise refused

    def submit(self, job_type: str, payload: Any = None, *, job_id: str | None = None, **options: Any) -> JobHandle:
        """Submit a job; returns once the log has it. `options` are those of `JobRequest`.

        Raises:
            ControlPlaneError: it was refused, for example because the payload breaks its contract.
        """
        body = {"job_type": job_type, "payload": payload, "job_id": job_id or random_id(), **options}
        return JobHandle(self, Acknowledgement.model_validate(self.request("POST", "/v1/jobs", body=body)))

    def post_lines(self, path: str, lines: Sequence[str]) -> str:
        """Post lines (NDJSON) and return the lines of the answer; every line carries an id, so repeating it is safe.

        Raises:
            ControlPlaneError: the whole request was refused.
        """
        answer = self._http.post(
            path, content="\n".join(lines).encode(), headers={"content-type": "application/x-ndjson"}
        )
        if not answer.is_success:
            raise ControlPlaneError({"title": answer.reason_phrase, **_problem(answer), "status": answer.status_code})
        return answer.text

    def job(self, job_id: str, *, min_position: str | None = None) -> JobView:
        """Return a job with its attempts, payload and result."""
        answer = self.request("GET", f"/v1/jobs/{job_id}", query={"min_position": min_position})
        return JobAnswer.model_validate(answer).job

    def jobs(self, **filters: Any) -> Iterator[JobView]:
        """Yield jobs, newest first, page by page; filters are those of `GET /v1/jobs`."""
        cursor: str | None = None
        while True:
            page = JobsAnswer.model_validate(self.request("GET", "/v1/jobs", query={**filters, "cursor": cursor}))
            yield from page.jobs
            cursor = page.next_cursor
            if cursor is None:
                return

    def cancel(self, job_id: str, reason: str = "", *, kill: bool = False) -> Acknowledgement:
        """Ask for a job to be cancelled."""
        body = {"reason": reason, "kill": kill}
        return Acknowledgement.model_validate(self.request("POST", f"/v1/jobs/{job_id}/cancel", body=body))

    def truths(self, subject: str = "*", predicate: str = "*", **query: Any) -> list[TruthView]:
        """Return what is true of the subjects that match; `*` stands for anything."""
        answer = self.request("GET", "/v1/truths", query={"subject": subject, "predicate": predicate, **query})
        return TruthsAnswer.model_validate(answer).truths

    def assert_truth(
        self, subject: str, predicate: str, value: Any, confidence: float = 1.0, **options: Any
    ) -> Acknowledgement:
        """Assert something of a subject; the answer's `event_id` is the assertion id."""
        body = {
            "subject": subject, "predicate": predicate, "value": value, "confidence": confidence,
            "assertion_id": random_id(), **options,
        }  # fmt: skip
        return Acknowledgement.model_validate(self.request("POST", "/v1/assertions", body=body))

    def declare_predicate(self, predicate: str, **contract: Any) -> Acknowledgement:
        """Declare how a predicate's competing assertions are fused."""
        return Acknowledgement.model_validate(
            self.request("POST", "/v1/predicates", body={"predicate": predicate, **contract})
        )

    def why(self, **reference: str) -> CausationAnswer:
        """Return what caused a record and what followed from it; give one of `event`, `job`, `assertion`."""
        return CausationAnswer.model_validate(self.request("GET", "/v1/causation", query=reference))

    def runners(self) -> RunnersAnswer:
        """Return the runners that the log knows."""
        return RunnersAnswer.model_validate(self.request("GET", "/v1/runners"))

    def digest(self, *, min_position: str | None = None) -> DigestAnswer:
        """Return the digest of every projected table."""
        return DigestAnswer.model_validate(self.request("GET", "/v1/digest", query={"min_position": min_position}))

    def sql(self, text: str, limit_rows: int = 1000) -> SqlAnswer:
        """Run one read-only SELECT over the documented tables."""
        return SqlAnswer.model_validate(self.request("POST", "/v1/sql", body={"sql": text, "limit_rows": limit_rows}))


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {"message": answer.text[:500]}
    return body if isinstance(body, dict) else {"message": str(body)[:500]}

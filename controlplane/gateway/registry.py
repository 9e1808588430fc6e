"""The read side of a schema registry, as stock Avro tools call it; schemas come from the repository, so writes are refused.

Source: Confluent Schema Registry API reference. Subjects follow TopicRecordNameStrategy: `<topic>-<record full name>`.
"""

import json
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from controlplane.events.catalog import EVENT_TYPES
from controlplane.events.codec import EventSchema, current_schemas, schemas_by_id
from controlplane.events.compatibility import full_incompatibilities
from controlplane.events.schemas import NAMESPACE, released_schemas, schema_id

MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"

router = APIRouter(tags=["schema registry"])


def _answer(content: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(content, status, media_type=MEDIA_TYPE)


def _error(code: int, message: str) -> JSONResponse:
    return _answer({"error_code": code, "message": message}, code // 100)


def _subjects() -> dict[str, str]:
    return {f"{one.topic.name}-{NAMESPACE}.{name}": name for name, one in EVENT_TYPES.items()}


def _versions(event_name: str) -> dict[int, Any]:
    versions = {number: schema for name, number, schema in released_schemas() if name == f"{NAMESPACE}.{event_name}"}
    return versions | {EVENT_TYPES[event_name].schema_version: current_schemas()[event_name].schema}


def _version(subject: str, version: str) -> tuple[int, Any] | JSONResponse:
    name = _subjects().get(subject)
    if name is None:
        return _error(40401, f"Expected a subject of the contract, but found {subject!r}.")
    versions = _versions(name)
    if version in ("latest", "-1"):
        return max(versions), versions[max(versions)]
    if not version.isdecimal() or int(version) < 1:
        return _error(42202, f"Expected a version number or latest, but found {version!r}.")
    if int(version) not in versions:
        return _error(40402, f"Expected one of the versions {sorted(versions)}, but found {version}.")
    return int(version), versions[int(version)]


@router.get("/subjects")
async def subjects() -> JSONResponse:
    """List the subjects."""
    return _answer(sorted(_subjects()))


@router.get("/subjects/{subject}/versions")
async def versions(subject: str) -> JSONResponse:
    """List the versions of a subject."""
    name = _subjects().get(subject)
    if name is None:
        return _error(40401, f"Expected a subject of the contract, but found {subject!r}.")
    return _answer(sorted(_versions(name)))


@router.get("/subjects/{subject}/versions/{version}")
async def version(subject: str, version: str) -> JSONResponse:
    """Return one version of a subject."""
    found = _version(subject, version)
    if isinstance(found, JSONResponse):
        return found
    number, schema = found
    return _answer({"subject": subject, "version": number, "id": schema_id(schema), "schema": json.dumps(schema)})


def _by_id(identity: int) -> EventSchema | None:
    return schemas_by_id().get(identity)


@router.get("/schemas/ids/{identity}")
async def schema(identity: int) -> JSONResponse:
    """Return the schema of an id, as it stands in the first five bytes of a record."""
    found = _by_id(identity)
    if found is None:
        return _error(40403, f"Expected the id of a schema of the contract, but found {identity}.")
    return _answer({"schema": json.dumps(found.schema)})


@router.get("/schemas/ids/{identity}/versions")
async def schema_versions(identity: int) -> JSONResponse:
    """Return the subject and version of an id."""
    found = _by_id(identity)
    if found is None:
        return _error(40403, f"Expected the id of a schema of the contract, but found {identity}.")
    subject = next(subject for subject, name in _subjects().items() if name == found.event_name)
    numbers = [number for number, one in _versions(found.event_name).items() if schema_id(one) == identity]
    return _answer([{"subject": subject, "version": number} for number in numbers])


@router.get("/schemas/types")
async def schema_types() -> JSONResponse:
    """List the kinds of schemas."""
    return _answer(["AVRO"])


async def _posted_schema(request: Request) -> Any | JSONResponse:
    try:
        return json.loads((await request.json())["schema"])
    except (ValueError, KeyError, TypeError):
        return _error(42201, "Expected an object with a schema as JSON text.")


@router.post("/subjects/{subject}")
async def look_up(subject: str, request: Request) -> JSONResponse:
    """Find a schema under a subject."""
    posted = await _posted_schema(request)
    if isinstance(posted, JSONResponse):
        return posted
    name = _subjects().get(subject)
    if name is None:
        return _error(40401, f"Expected a subject of the contract, but found {subject!r}.")
    for number, one in _versions(name).items():
        if one == posted:
            return _answer({"subject": subject, "version": number, "id": schema_id(one), "schema": json.dumps(one)})
    return _error(40403, "Expected a schema of this subject, but found another one.")


@router.post("/compatibility/subjects/{subject}/versions/{version}")
async def compatibility(subject: str, version: str, request: Request) -> JSONResponse:
    """Say whether a schema could follow, both ways."""
    posted = await _posted_schema(request)
    if isinstance(posted, JSONResponse):
        return posted
    found = _version(subject, version)
    if isinstance(found, JSONResponse):
        return found
    reasons = full_incompatibilities(found[1], posted)
    return _answer({"is_compatible": not reasons, "messages": reasons})


@router.get("/config")
@router.get("/config/{subject}")
async def config(subject: str | None = None) -> JSONResponse:
    """Return the level of compatibility."""
    if subject is not None and subject not in _subjects():
        return _error(40401, f"Expected a subject of the contract, but found {subject!r}.")
    return _answer({"compatibilityLevel": "FULL_TRANSITIVE"})


@router.get("/mode")
async def mode() -> JSONResponse:
    """Return the mode: schemas are only read here."""
    return _answer({"mode": "READONLY"})


@router.post("/subjects/{subject}/versions")
@router.delete("/subjects/{subject}")
@router.delete("/subjects/{subject}/versions/{version}")
async def not_here(subject: str, version: str | None = None) -> JSONResponse:
    """Refuse: schemas change in the repository, where compatibility is checked."""
    return _error(42205, "Expected a read, but found a write: schemas change in the repository only.")

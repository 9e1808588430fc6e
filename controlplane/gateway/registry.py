"""The read side of a schema registry, as stock Avro tools call it; schemas come from the repository, so writes are refused.

Source: Confluent Schema Registry API reference. Subjects follow TopicRecordNameStrategy: `<topic>-<record full name>`.
"""

import json
from typing import Annotated, Any, Final, Literal

from avro.errors import AvroException
from avro.schema import parse
from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from controlplane.events.catalog import EVENT_TYPES
from controlplane.events.codec import EventSchema, current_schemas, schemas_by_id
from controlplane.events.compatibility import full_incompatibilities
from controlplane.events.schemas import NAMESPACE, released_schemas, schema_id

MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"

POSTED: Final = {
    "requestBody": {
        "required": True,
        "content": {
            form: {"schema": {"$ref": "#/components/schemas/PostedSchema"}} for form in (MEDIA_TYPE, "application/json")
        },
    }
}

router = APIRouter(tags=["schema registry"])


VersionName = Annotated[str, Path(json_schema_extra={"pattern": r"^(latest|-1|[1-9]\d{0,8})$"}, examples=["latest"])]


class RegistryError(BaseModel):
    """What stock tools expect: 40401 no such subject, 40402 version, 40403 schema; 42201 no schema, 42202 no version, 42205 not permitted."""

    error_code: int
    message: str


class PostedSchema(BaseModel):
    """A schema as stock tools post it."""

    model_config = ConfigDict(json_schema_extra={"required": ["schema"]})

    text: str = Field(alias="schema", description="The schema as JSON text.")
    schema_type: Literal["AVRO"] = Field("AVRO", alias="schemaType")
    references: list[dict[str, Any]] = []


class SubjectVersion(BaseModel):
    """One version of a subject."""

    subject: str
    version: int
    id: int
    text: str = Field(alias="schema", description="The schema as JSON text.")


class SchemaText(BaseModel):
    """A schema as JSON text."""

    text: str = Field(alias="schema")


class SubjectAndVersion(BaseModel):
    """Where a schema stands."""

    subject: str
    version: int


class Compatible(BaseModel):
    """Whether a schema could follow, and why not."""

    is_compatible: bool
    messages: list[str]


class Level(BaseModel):
    """The level of compatibility."""

    level: Literal["FULL_TRANSITIVE"] = Field(alias="compatibilityLevel")


class Mode(BaseModel):
    """What may be done here."""

    mode: Literal["READONLY"]


class _Answer(JSONResponse):
    media_type = MEDIA_TYPE


def _says(answer: Any, **extra: Any) -> dict[str, Any]:
    """Return how a call is described: its answer, and errors as stock tools expect them."""
    schema: dict[str, Any] = TypeAdapter(answer).json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    if isinstance(answer, type) and issubclass(answer, BaseModel):
        definitions[answer.__name__] = schema
        schema = {"$ref": f"#/components/schemas/{answer.__name__}"}
    _SCHEMAS.update(definitions)
    error = {"schema": {"$ref": "#/components/schemas/RegistryError"}}
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    errors = {
        status: {"description": text, "content": {MEDIA_TYPE: error, "application/problem+json": problem}}
        for status, text in (("404", "There is no such subject, version or schema."), ("422", "It cannot be, or is not permitted."))
    }  # fmt: skip
    described = {"200": {"description": "As asked.", "content": {MEDIA_TYPE: {"schema": schema}}}, **errors}
    return {"response_class": _Answer, "openapi_extra": {"responses": described, "x-own-errors": [404, 422], **extra}}


_SCHEMAS: Final[dict[str, Any]] = {
    "PostedSchema": PostedSchema.model_json_schema(), "RegistryError": RegistryError.model_json_schema()
}  # fmt: skip


def _refuses(**extra: Any) -> dict[str, Any]:
    described = _says(RegistryError, **extra)
    del described["openapi_extra"]["responses"]["200"]
    return {**described, "status_code": 422}


def registry_schemas() -> dict[str, Any]:
    """Return the schemas that the descriptions of these calls name."""
    return dict(_SCHEMAS)


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


@router.get("/subjects", **_says(list[str]))
async def subjects() -> JSONResponse:
    """List the subjects."""
    return _answer(sorted(_subjects()))


@router.get("/subjects/{subject}/versions", **_says(list[int]))
async def versions(subject: str) -> JSONResponse:
    """List the versions of a subject."""
    name = _subjects().get(subject)
    if name is None:
        return _error(40401, f"Expected a subject of the contract, but found {subject!r}.")
    return _answer(sorted(_versions(name)))


@router.get("/subjects/{subject}/versions/{version}", **_says(SubjectVersion))
async def version(subject: str, version: VersionName) -> JSONResponse:
    """Return one version of a subject."""
    found = _version(subject, version)
    if isinstance(found, JSONResponse):
        return found
    number, schema = found
    return _answer({"subject": subject, "version": number, "id": schema_id(schema), "schema": json.dumps(schema)})


def _by_id(identity: int) -> EventSchema | None:
    return schemas_by_id().get(identity)


@router.get("/schemas/ids/{identity}", **_says(SchemaText))
async def schema(identity: int) -> JSONResponse:
    """Return the schema of an id, as it stands in the first five bytes of a record."""
    found = _by_id(identity)
    if found is None:
        return _error(40403, f"Expected the id of a schema of the contract, but found {identity}.")
    return _answer({"schema": json.dumps(found.schema)})


@router.get("/schemas/ids/{identity}/versions", **_says(list[SubjectAndVersion]))
async def schema_versions(identity: int) -> JSONResponse:
    """Return the subject and version of an id."""
    found = _by_id(identity)
    if found is None:
        return _error(40403, f"Expected the id of a schema of the contract, but found {identity}.")
    subject = next(subject for subject, name in _subjects().items() if name == found.event_name)
    numbers = [number for number, one in _versions(found.event_name).items() if schema_id(one) == identity]
    return _answer([{"subject": subject, "version": number} for number in numbers])


@router.get("/schemas/types", **_says(list[str]))
async def schema_types() -> JSONResponse:
    """List the kinds of schemas."""
    return _answer(["AVRO"])


async def _posted_schema(request: Request) -> Any | JSONResponse:
    """Return the schema that was posted, or what is wrong with it."""
    try:
        posted = json.loads((await request.json())["schema"])
        schema_id(posted)
        parse(json.dumps(posted))
    except (ValueError, KeyError, TypeError, AttributeError, AvroException, RecursionError) as error:
        return _error(
            42201, f"Expected an object with an Avro schema as JSON text, but: {str(error)[:500] or 'it is none'}."
        )
    return posted


@router.post("/subjects/{subject}", **_says(SubjectVersion, **POSTED))
async def look_up(subject: str, request: Request) -> JSONResponse:
    """Find a schema under a subject."""
    posted = await _posted_schema(request)
    if isinstance(posted, JSONResponse):
        return posted
    name = _subjects().get(subject)
    if name is None:
        return _error(40401, f"Expected a subject of the contract, but found {subject!r}.")
    for number, one in _versions(name).items():
        if schema_id(one) == schema_id(posted):
            return _answer({"subject": subject, "version": number, "id": schema_id(one), "schema": json.dumps(one)})
    return _error(40403, "Expected a schema of this subject, but found another one.")


@router.post("/compatibility/subjects/{subject}/versions/{version}", **_says(Compatible, **POSTED))
async def compatibility(subject: str, version: VersionName, request: Request) -> JSONResponse:
    """Say whether a schema could follow, both ways."""
    posted = await _posted_schema(request)
    if isinstance(posted, JSONResponse):
        return posted
    found = _version(subject, version)
    if isinstance(found, JSONResponse):
        return found
    reasons = full_incompatibilities(found[1], posted)
    return _answer({"is_compatible": not reasons, "messages": reasons})


@router.get("/config", **_says(Level))
async def config() -> JSONResponse:
    """Return the level of compatibility."""
    return _answer({"compatibilityLevel": "FULL_TRANSITIVE"})


@router.get("/config/{subject}", **_says(Level))
async def config_of_subject(subject: str) -> JSONResponse:
    """Return the level of compatibility of a subject: that of all."""
    if subject not in _subjects():
        return _error(40401, f"Expected a subject of the contract, but found {subject!r}.")
    return _answer({"compatibilityLevel": "FULL_TRANSITIVE"})


@router.get("/mode", **_says(Mode))
async def mode() -> JSONResponse:
    """Return the mode: schemas are only read here."""
    return _answer({"mode": "READONLY"})


@router.delete("/subjects/{subject}/versions/{version}", **_refuses())
async def refuse_write_of_version(subject: str, version: str) -> JSONResponse:
    """Refuse: schemas change in the repository, where compatibility is checked."""
    return await refuse_write()


@router.post("/subjects/{subject}/versions", **_refuses(**POSTED))
@router.delete("/subjects/{subject}", **_refuses())
@router.put("/config/{subject}", **_refuses())
@router.delete("/config/{subject}", **_refuses())
async def refuse_write_of_subject(subject: str) -> JSONResponse:
    """Refuse: schemas change in the repository, where compatibility is checked."""
    return await refuse_write()


@router.put("/config", **_refuses())
@router.put("/mode", **_refuses())
async def refuse_write() -> JSONResponse:
    """Refuse: schemas change in the repository, where compatibility is checked."""
    return _error(42205, "Expected a read, but found a write: schemas change in the repository only.")

"""The AsyncAPI 3 document of all topics, made from the catalog and the schemas: what is on the log, who writes and who reads it.

Source: AsyncAPI 3.0.0, with its Kafka bindings 0.5.0 and Avro payloads as `application/vnd.apache.avro`.
"""

from functools import cache
from typing import Any, Final

from fastapi import APIRouter

from controlplane import __version__
from controlplane.events.catalog import EVENT_TYPES, TOPICS, EventType, Service, Topic
from controlplane.events.codec import current_schemas
from controlplane.events.schemas import NAMESPACE

AVRO: Final = "application/vnd.apache.avro;version=1.9.0"
DESCRIPTION: Final = """Every submission, decision, observation and assertion is one Avro event on one of these topics.

Values are in the Confluent wire format: a zero byte, the schema id (4 bytes, big-endian), the Avro datum. A topic carries several event
types, so the subjects of the schema registry follow `TopicRecordNameStrategy`: `<topic>-<record full name>`. The gateway serves the
registry's read calls. Each topic has the authors that are named here; brokers with access control refuse everybody else.
"""

router = APIRouter(tags=["events"])


@router.get("/asyncapi.json")
async def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3 document of the topics: messages with their Avro schemas, who sends and who receives them."""
    return document()


@cache
def document() -> dict[str, Any]:
    """Return the whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ControlPlane's log", "version": __version__, "description": DESCRIPTION,
            "license": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/avro",
        "servers": {
            "kafka": {
                "host": "{bootstrap}", "protocol": "kafka", "description": "The brokers.",
                "variables": {"bootstrap": {"default": "127.0.0.1:9092", "description": "host:port of a broker"}},
            }
        },
        "channels": {_short(topic.name): _channel(topic) for topic in TOPICS.values()},
        "operations": {name: one for topic in TOPICS.values() for name, one in _operations(topic).items()},
        "components": {"messages": {name: _message(one) for name, one in EVENT_TYPES.items()}},
    }  # fmt: skip


def _short(topic: str) -> str:
    return topic.rpartition(".")[2]


def _of(topic: Topic) -> dict[str, EventType]:
    return {name: one for name, one in EVENT_TYPES.items() if one.topic is topic}


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name, "title": f"Keyed by {topic.key}",
        "description": f"Partitioned by {topic.key}; times are the broker's append times; nothing is compacted or expires.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _of(topic)},
        "bindings": {
            "kafka": {
                "topic": topic.name, "bindingVersion": "0.5.0",
                "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": -1, "retention.bytes": -1},
            }
        },
    }  # fmt: skip


def _operations(topic: Topic) -> dict[str, Any]:
    """Return who sends and who receives on a topic, each as an operation of that service."""
    short, events = _short(topic.name), _of(topic)
    found: dict[str, Any] = {}
    for service in Service:
        written = [name for name, one in events.items() if service in one.authors]
        for action, names in (("send", written), ("receive", list(events) if service in topic.readers else [])):
            if names:
                verb = "writes" if action == "send" else "reads"
                found[f"{service.value}.{action}.{short}"] = {
                    "action": action, "channel": {"$ref": f"#/channels/{short}"},
                    "summary": f"{service.value} {verb} {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}.",
                    "messages": [{"$ref": f"#/channels/{short}/messages/{name}"} for name in names],
                }  # fmt: skip
    return found


def _headers(name: str) -> dict[str, Any]:
    """Return the headers that a record may have, each by a setting of the processes that write."""
    values: dict[str, dict[str, Any]] = {
        "traceparent": {"description": "W3C Trace Context, where CONTROLPLANE_TRACING is on."},
        "ce_specversion": {"const": "1.0", "description": "CloudEvents, where CONTROLPLANE_CLOUDEVENTS is on."},
        "ce_type": {"const": f"{NAMESPACE}.{name}"},
        "ce_source": {"examples": ["/controlplane/jobforge"]},
        "ce_id": {"description": "The event's id: the same event again has the same."},
        "ce_time": {"format": "date-time"},
        "content-type": {"const": "application/avro"},
    }
    return {"type": "object", "properties": {header: {"type": "string", **said} for header, said in values.items()}}


def _message(one: EventType) -> dict[str, Any]:
    schema = current_schemas()[one.name]
    subject = f"{one.topic.name}-{NAMESPACE}.{one.name}"
    return {
        "name": one.name, "title": one.name, "summary": str(schema.schema.get("doc", one.name)),
        "contentType": "application/avro", "headers": _headers(one.name), "payload": {"schemaFormat": AVRO, "schema": schema.schema},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": one.topic.key}, "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent", "schemaLookupStrategy": "TopicRecordNameStrategy", "bindingVersion": "0.5.0",
            }
        },
        "x-schema-id": schema.id, "x-subject": subject, "x-version": one.schema_version,
        "x-authors": sorted(author.value for author in one.authors),
    }  # fmt: skip

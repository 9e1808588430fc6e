"""Brokers that read their certificates again, while they run."""

from typing import Final

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from controlplane.log.clients import administrator
from controlplane.log.connection import LogConnection, refusal

LISTENERS: Final = ("ssl", "controller")


async def reload_certificates(connection: LogConnection, node_id: int, keystore: str, truststore: str) -> None:
    """Have a broker read its PEM files again; connections made from then on use them, those that are open go on.

    Source: Kafka, "Updating SSL Keystore of an Existing Listener": naming the file again makes the broker read it. The names are removed
    afterwards, so that the broker's own settings stay the only ones; a crash in between leaves them with the same values.

    Raises:
        LogUnavailable: the broker does not answer, or cannot use the files: it then goes on with those in hand.
        LogRefused: this principal may not do so.
    """
    files = {"ssl.keystore.location": keystore, "ssl.truststore.location": truststore}
    named = {f"listener.name.{listener}.{name}": path for listener in LISTENERS for name, path in files.items()}
    expected = f"broker {node_id} to read {keystore} and {truststore} again"
    async with administrator(connection) as admin:
        try:
            for configs in (named, {}):
                answers = await admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, str(node_id), configs)])
                for code, message, *_ in (one for answer in answers for one in answer.resources):
                    if code:
                        raise refusal(for_code(code)(message or ""), expected)
        except KafkaError as error:
            raise refusal(error, expected) from error

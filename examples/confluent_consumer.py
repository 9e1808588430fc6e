"""Follow conclusions with confluent-kafka and its stock Avro deserialiser, nothing of ControlPlane's: the gateway is the schema registry."""

import os

from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext


def main() -> None:
    deserialise = AvroDeserializer(SchemaRegistryClient({"url": os.environ["CONTROLPLANE_GATEWAY_URL"]}))
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["CONTROLPLANE_KAFKA_BOOTSTRAP"],
            "group.id": "confluent-example",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["controlplane.jobs"])
    try:
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise RuntimeError(f"Expected a record of controlplane.jobs, but found: {message.error()}")
            event = deserialise(message.value(), SerializationContext("controlplane.jobs", MessageField.VALUE))
            if "result" in event:
                print(event["job_id"], event["result"]["data"].decode(), flush=True)
    finally:
        consumer.close()


if __name__ == "__main__":
    main()

"""The services that every other integration test stands on: chosen by the environment, real in every case."""

import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic


def test_kafka_takes_records(kafka_bootstrap: str, namespace: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.create_topics([NewTopic(namespace, 1, 1)])[namespace].result(20)
    outcomes: list[object] = []
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "enable.idempotence": True})
    producer.produce(namespace, b"x", on_delivery=lambda error, _message: outcomes.append(error))
    assert producer.flush(20) == 0
    assert outcomes == [None]


def test_redis_keeps_keys(redis_url: str, namespace: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.set(namespace, "x")
        assert client.getdel(namespace) == b"x"

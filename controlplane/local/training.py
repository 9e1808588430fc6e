"""Makes the broker start in under a second: one short run that leaves a cache of its loaded classes."""

import sys
import tempfile
from pathlib import Path
from typing import Final

from controlplane.local.errors import EmbeddedStackError
from controlplane.local.jars import exclusive, kafka_class_path, kafka_folder
from controlplane.local.java import Java, java_environment
from controlplane.local.kafka import KafkaCluster, KafkaNode, jvm_flags, prepare_node, why_not_serving
from controlplane.local.ports import choose_port
from controlplane.local.process import NEVER
from controlplane.local.supervisor import Supervisor

WRITE_WITHIN_SECONDS: Final = 120.0


def ready_java() -> Java:
    """Return the Java runtime with the broker's jars, downloaded and with a class cache; slow once, then instant.

    Raises:
        MissingDependency: a package is missing or the jars could not be downloaded.
    """
    java = Java(kafka_class_path())
    if java.trainable and not java.class_cache.exists():
        with exclusive(kafka_folder()):
            if not java.class_cache.exists():
                print("Preparing the broker for quick starts (once) ...", file=sys.stderr)
                train(java)
    return java


def train(java: Java) -> None:
    """Run an empty broker and stop it, so that it writes the class cache. Without the cache a start only takes longer."""
    with tempfile.TemporaryDirectory(prefix="controlplane-") as temporary:
        folder = Path(temporary)
        client_port = choose_port(None)
        controller_port = choose_port(None, (client_port,))
        node = KafkaNode(node_id=1, client_port=client_port, controller_port=controller_port, folder=folder)
        try:
            prepare_node(java, node, KafkaCluster(nodes=(node,)))
            argv = java.training_command(jvm_flags(node), "kafka.Kafka", str(folder / "server.properties"))
            with Supervisor(log_folder=folder) as supervisor:
                supervisor.add(
                    "training",
                    argv,
                    whole_environment=java_environment(),
                    ready=lambda: why_not_serving(node),
                    restart=NEVER,
                    stop_within_seconds=WRITE_WITHIN_SECONDS,
                ).wait_ready()
            java.keep_training()
        except (EmbeddedStackError, OSError) as error:
            print(f"Starts stay slower than they could be: {error}", file=sys.stderr)


if __name__ == "__main__":
    ready_java()

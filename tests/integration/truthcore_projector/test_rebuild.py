"""A projection folded anew beside the one that answers, by the command, and the switch of the process that runs."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from controlplane.api.models import DigestAnswer
from controlplane.truthcore_projector.rebuilding import next_file, ready_file
from controlplane.truthcore_projector.replay import verify
from tests.integration.truthcore_projector.test_service import Log, running


def test_truthcore_answers_while_it_is_rebuilt_and_switches(
    kafka_bootstrap: str, tmp_path: Path, namespace: str
) -> None:
    log, file = Log(kafka_bootstrap), tmp_path / "truthcore.duckdb"
    with running(kafka_bootstrap, tmp_path) as service:
        for job in ("before", "as-well"):
            service.get(f"/v1/jobs/{namespace}-{job}", *log.job(f"{namespace}-{job}"))
        old = file.stat().st_ino
        command = [sys.executable, "-m", "controlplane.cli.main", "rebuild", "--wait", "90", "--json"]
        done = subprocess.run(command, env=service.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        said = json.loads(done.stdout)
        assert said["switched"]
        assert said["records"] > 0
        assert file.stat().st_ino != old
        assert not next_file(file).exists()
        assert not ready_file(file).exists()
        service.until(lambda: service.client.get("/health/ready").status_code == 200)
        written = log.job(f"{namespace}-behind")
        for job in ("before", "behind"):
            assert service.get(f"/v1/jobs/{namespace}-{job}", *written)["job"]["phase"] == "COMPLETED"
        standing = service.client.get("/v1/standing").json()
        assert standing["folded_records"] < said["records"], (
            "Expected only the tail to be folded by the process itself."
        )
        live = DigestAnswer.model_validate_json(service.client.get("/v1/digest").content)
        assert asyncio.run(verify(log.connection, live)).agrees

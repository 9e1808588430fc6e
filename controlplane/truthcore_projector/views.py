"""What is current, as views over the rows: documented, and the same for the HTTP interface and for SQL."""

from typing import Final

STAGE_RANK: Final = (
    "CASE stage WHEN 'ROUTED' THEN 1 WHEN 'STARTED' THEN 2 WHEN 'PROGRESSED' THEN 3 WHEN 'LOST' THEN 5 WHEN 'RETRYING' THEN 6"
    " ELSE 4 END"
)
"""How far a stage is; JobForge's word about an attempt (lost, retrying) stands above the runner's."""
FIRST_OF_RANK: Final = f'({STAGE_RANK})::BIGINT * 10_000_000_000_000 - "offset"'
"""Orders stages by rank; of two of one rank, which are in one partition, the first stands."""

STEP: Final = f"attempt_number * 10 + {STAGE_RANK}"
PHASE: Final = """CASE
        WHEN l.stage = 'ROUTED' THEN 'ROUTED'
        WHEN l.stage IN ('RETRYING', 'LOST') THEN
          CASE WHEN m.run_now_offset > l.stage_offset THEN 'QUEUED' ELSE 'RETRYING' END
        WHEN l.stage IS NOT NULL THEN 'RUNNING'
        WHEN l.accepted IS NOT TRUE THEN 'SUBMITTED'
        WHEN s.not_before > s.log_time AND m.run_now_offset IS NULL THEN 'DELAYED'
        ELSE 'QUEUED'
      END"""
"""Where an unfinished job stands: `s` is its submission, `l` its last stage and whether it was accepted, `m` what commands changed."""

VIEWS: Final = (
    """CREATE OR REPLACE VIEW first_submissions AS
    SELECT * FROM submissions QUALIFY row_number() OVER (PARTITION BY job_id ORDER BY "offset") = 1""",
    # The first terminal event in a job's partition is its outcome; a second one changes nothing, and the audit reports it.
    """CREATE OR REPLACE VIEW first_conclusions AS
    SELECT * FROM conclusions QUALIFY row_number() OVER (PARTITION BY job_id ORDER BY "offset") = 1""",
    # What a query does not ask for of the tables with the most rows is not read: who wants the phase needs the stages of unfinished jobs only.
    f"""CREATE OR REPLACE VIEW last_stages AS
    SELECT job_id, max(attempt_number) AS attempts, max_by(due_at, {STEP}) AS due_at FROM attempt_events GROUP BY job_id""",
    # Which jobs are pending is found out once, for stages and acceptances together: both tables are large, and few jobs are.
    f"""CREATE OR REPLACE VIEW pending_stages AS
    WITH pending AS MATERIALIZED (
      SELECT DISTINCT s.job_id FROM submissions AS s ANTI JOIN conclusions AS c ON c.job_id = s.job_id),
    staged AS (
      SELECT job_id, max_by(stage, {STEP}) AS stage, max_by("offset", {STEP}) AS stage_offset
      FROM attempt_events WHERE job_id IN (SELECT job_id FROM pending) GROUP BY job_id),
    accepted AS (SELECT DISTINCT job_id FROM acceptances WHERE job_id IN (SELECT job_id FROM pending))
    SELECT p.job_id, t.stage, t.stage_offset, a.job_id IS NOT NULL AS accepted
    FROM pending AS p
    LEFT JOIN staged AS t ON t.job_id = p.job_id
    LEFT JOIN accepted AS a ON a.job_id = p.job_id""",
    """CREATE OR REPLACE VIEW last_changes AS
    SELECT job_id, max_by(priority, "offset") FILTER (kind = 'REPRIORITISED') AS priority,
      max(retry_job_id) FILTER (kind = 'RETRIED') AS retried_as,
      max("offset") FILTER (kind = 'RETRIED' AND retry_job_id IS NULL) AS run_now_offset,
      max_by(reason, "offset") FILTER (kind = 'CANCEL_REQUESTED') AS cancel_reason
    FROM job_changes GROUP BY job_id""",
    f"""CREATE OR REPLACE VIEW jobs AS
    SELECT s.job_id, s.job_type, s.contract_major, s.pool, coalesce(m.priority, s.priority) AS priority, s.tenant,
      s.correlation_id, s.parent_job_id, s.not_before, s.payload, s.payload_sha256, s.payload_size_bytes,
      s.log_time AS submitted_at, c.log_time AS concluded_at, c.error_code, c.error_message, c.result, c.result_sha256,
      c.result_size_bytes, coalesce(n.attempts, 0) AS attempts, s.concurrency_key, s.rate_key, s.schedule_id, s.payload_key, n.due_at,
      m.retried_as, m.cancel_reason,
      CASE WHEN c.phase IS NOT NULL THEN c.phase ELSE {PHASE} END AS phase
    FROM first_submissions AS s
    LEFT JOIN first_conclusions AS c ON c.job_id = s.job_id
    LEFT JOIN last_stages AS n ON n.job_id = s.job_id
    LEFT JOIN pending_stages AS l ON l.job_id = s.job_id
    LEFT JOIN last_changes AS m ON m.job_id = s.job_id""",
    # What `jobs` says of jobs that are not concluded, at the cost of those alone where it can.
    f"""CREATE OR REPLACE VIEW unfinished_jobs AS
    WITH pending AS (
      SELECT s.* FROM submissions AS s ANTI JOIN conclusions AS c ON c.job_id = s.job_id
      QUALIFY row_number() OVER (PARTITION BY s.job_id ORDER BY s."offset") = 1),
    staged AS (
      SELECT job_id, max(attempt_number) AS attempts, max_by(stage, {STEP}) AS stage, max_by(due_at, {STEP}) AS due_at,
        max_by("offset", {STEP}) AS stage_offset, max_by(runner_id, {STEP}) AS runner_id,
        max_by(slots, attempt_number) FILTER (stage = 'ROUTED') AS slots
      FROM attempt_events WHERE job_id IN (SELECT job_id FROM pending) GROUP BY job_id),
    accepted AS (SELECT DISTINCT job_id FROM acceptances WHERE job_id IN (SELECT job_id FROM pending)),
    l AS (
      SELECT p.job_id, t.* EXCLUDE job_id, a.job_id IS NOT NULL AS accepted FROM pending AS p
      LEFT JOIN staged AS t ON t.job_id = p.job_id LEFT JOIN accepted AS a ON a.job_id = p.job_id)
    SELECT s.job_id, s.job_type, s.contract_major, s.pool, coalesce(m.priority, s.priority) AS priority, s.tenant,
      s.concurrency_key, s.rate_key, s.not_before, s.log_time AS submitted_at, coalesce(l.attempts, 0) AS attempts,
      l.due_at, l.runner_id, coalesce(l.slots, 1) AS slots, m.cancel_reason, {PHASE} AS phase
    FROM pending AS s
    LEFT JOIN l ON l.job_id = s.job_id
    LEFT JOIN last_changes AS m ON m.job_id = s.job_id""",
    f"""CREATE OR REPLACE VIEW attempts AS
    SELECT job_id, attempt_id, max(attempt_number) AS attempt_number, max(runner_id) AS runner_id,
      coalesce(max_by(CASE stage WHEN 'PROGRESSED' THEN 'STARTED' ELSE stage END, {FIRST_OF_RANK})
        FILTER (stage <> 'RETRYING'), 'FAILED') AS phase,
      min(log_time) FILTER (stage = 'ROUTED') AS routed_at, min(log_time) FILTER (stage = 'STARTED') AS started_at,
      min(log_time) FILTER (stage IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'LOST')) AS ended_at,
      max_by(fraction, "offset") FILTER (stage = 'PROGRESSED') AS fraction,
      max_by(message, "offset") FILTER (stage = 'PROGRESSED') AS message,
      min_by(error_code, {FIRST_OF_RANK}) FILTER (stage IN ('FAILED', 'LOST', 'RETRYING')) AS error_code,
      min_by(message, {FIRST_OF_RANK}) FILTER (stage IN ('FAILED', 'LOST', 'RETRYING')) AS error_message,
      min_by(message, "offset") FILTER (stage = 'ROUTED') AS routing_reason
    FROM attempt_events WHERE attempt_id IS NOT NULL GROUP BY job_id, attempt_id""",
    """CREATE OR REPLACE VIEW runners AS
    SELECT runner_id, max(name) AS name, max(pool) AS pool, max(slots) AS slots,
      min(log_time) FILTER (kind = 'REGISTERED') AS registered_at, max(log_time) FILTER (kind = 'HEARTBEAT') AS last_heartbeat_at,
      coalesce(max_by(in_flight, "offset") FILTER (kind = 'HEARTBEAT'), 0) AS in_flight,
      CASE WHEN bool_or(kind = 'LEFT') THEN 'LEFT' WHEN bool_or(kind = 'DRAINING') THEN 'DRAINING' ELSE 'REGISTERED' END AS state,
      max_by(value, "offset") FILTER (kind = 'REGISTERED') AS value
    FROM runner_events GROUP BY runner_id HAVING count(*) FILTER (kind = 'REGISTERED') > 0""",
)
VIEW_NAMES: Final = tuple(view.removeprefix("CREATE OR REPLACE VIEW ").split(" AS\n", 1)[0] for view in VIEWS)

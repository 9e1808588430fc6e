-- Store what was decided from one batch, all or nothing.
--
-- KEYS[1]: any key of the namespace, so that a cluster finds the slot.  ARGV[1]: prefix of all keys.
-- ARGV[2]: MessagePack of { owned, trusted, expect, places, guards, jobs, waited, ready, unready, due, undue, release, lease, open, close, standing, children, orphans,
-- failed, settled, observed, outbox }; bytes are further arguments, named by their number (the library reads text, not binary).
-- `owned` is { { partition, epoch, revision, seen at or 0 }, ... }: every commit of an owner makes the revision one higher, so a store that went back
-- in time has a lower one than its owner knows. One that was stopped since before that time knows no other: it was fenced where the store has forgotten it.
-- So whoever did not see the store for `trusted` microseconds of its clock is told, and compares it with the log first.
-- Returns "ok", "fenced" (another owner has the partition), "lost" (the store is not where its owner left it), "late", "conflict"
-- (a router leased one of the jobs since it was read, or a parent was cancelled with its children: read again, decide again), or "stale" (a guarded value is another by now).
local prefix, batch = ARGV[1], cmsgpack.unpack(ARGV[2])

for _, owned in ipairs(batch.owned) do
  if redis.call('HGET', prefix .. 'epoch', owned[1]) ~= owned[2] then
    return 'fenced'
  end
end
for _, owned in ipairs(batch.owned) do
  if (redis.call('HGET', prefix .. 'revisions', owned[1]) or '0') ~= owned[3] then
    return 'lost'
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for _, owned in ipairs(batch.owned) do
  if owned[4] > 0 and math.abs(now - owned[4]) > batch.trusted then
    return 'late'
  end
end
for _, position in ipairs(batch.expect) do
  if redis.call('HGET', prefix .. 'positions', position[1]) ~= position[2] then
    return 'lost'
  end
end
for _, entry in ipairs(batch.waited) do
  if not redis.call('ZSCORE', prefix .. 'ready:' .. entry[1], entry[2]) then
    return 'conflict'
  end
end
for _, parent in ipairs(batch.standing) do
  if redis.call('EXISTS', prefix .. 'tree:' .. parent) == 1 then
    return 'conflict'
  end
end
for _, guard in ipairs(batch.guards) do
  if (redis.call('HGET', prefix .. guard[1], guard[2]) or '') ~= guard[3] then
    return 'stale'
  end
end

for _, owned in ipairs(batch.owned) do
  redis.call('HINCRBY', prefix .. 'revisions', owned[1], 1)
end
for _, position in ipairs(batch.expect) do
  redis.call('HSET', prefix .. 'positions', position[1], position[3])
end
for _, place in ipairs(batch.places) do
  redis.call('HSET', prefix .. 'positions', place[1], place[2])
end
for _, guard in ipairs(batch.guards) do
  if guard[4] == '' then
    redis.call('HDEL', prefix .. guard[1], guard[2])
  else
    redis.call('HSET', prefix .. guard[1], guard[2], guard[4])
  end
end
for _, job in ipairs(batch.jobs) do
  if job[3] > 0 then
    redis.call('SET', prefix .. 'job:' .. job[1], ARGV[job[2]], 'EX', job[3])
  else
    redis.call('SET', prefix .. 'job:' .. job[1], ARGV[job[2]])
  end
end
local touched = {}
for _, entry in ipairs(batch.unready) do
  if redis.call('ZREM', prefix .. 'ready:' .. entry[1], entry[2]) == 1 then
    deepen(prefix, entry[3], -1)
  end
  touched[entry[1]] = touched[entry[1]] or false
end
for _, entry in ipairs(batch.ready) do
  if redis.call('ZADD', prefix .. 'ready:' .. entry[1], entry[2], entry[3]) == 1 then
    deepen(prefix, entry[4], 1)
  end
  touched[entry[1]] = true
end
for queue, wake in pairs(touched) do
  index(prefix, queue, wake)
end
for _, entry in ipairs(batch.undue) do
  redis.call('ZREM', prefix .. 'due:' .. entry[1], entry[2])
end
for _, entry in ipairs(batch.due) do
  redis.call('ZADD', prefix .. 'due:' .. entry[1], entry[2], entry[3])
end
for _, lease in ipairs(batch.release) do
  release(prefix, lease[1], lease[2], lease[3], lease[4])
end
for _, lease in ipairs(batch.lease) do
  if redis.call('HSETNX', prefix .. 'held:' .. lease[1], lease[2], lease[5]) == 1 then
    redis.call('HINCRBY', prefix .. 'busy', lease[1], lease[3])
    for _, subject in ipairs(lease[4]) do
      redis.call('SADD', prefix .. 'running:' .. subject, lease[2])
    end
  end
end
for _, entry in ipairs(batch.close) do
  redis.call('ZREM', prefix .. 'open:' .. entry[1], entry[2])
end
for _, entry in ipairs(batch.open) do
  redis.call('ZADD', prefix .. 'open:' .. entry[1], entry[2], entry[3])
end
for _, entry in ipairs(batch.children) do
  redis.call('SADD', prefix .. 'children:' .. entry[1], entry[2])
end
for _, entry in ipairs(batch.orphans) do
  redis.call('SREM', prefix .. 'children:' .. entry[1], entry[2])
end
for _, entry in ipairs(batch.failed) do
  redis.call('ZADD', prefix .. 'failed:' .. entry[1], entry[2], entry[3])
end
for _, entry in ipairs(batch.settled) do
  redis.call('ZREM', prefix .. 'failed:' .. entry[1], entry[2])
end
for _, entry in ipairs(batch.observed) do
  redis.call('HINCRBY', prefix .. 'counts:' .. entry[1], entry[2], entry[3])
  redis.call('SADD', prefix .. 'counted', entry[1])
end
if batch.outbox then
  keep(prefix, batch.outbox[1], batch.outbox[2], ARGV[batch.outbox[3]])
end
return 'ok'

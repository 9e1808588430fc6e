-- Store what was decided from one batch, all or nothing.
--
-- KEYS[1]: any key of the namespace, so that a cluster finds the slot.  ARGV[1]: prefix of all keys.
-- ARGV[2]: MessagePack of { owned, expect, jobs, waited, ready, unready, due, undue, release, open, close, outbox }; bytes are
-- further arguments, named by their number (the library reads text, not binary).
-- Returns "ok", "fenced" (another owner has the partition), "lost" (the store is not where its owner left it), or "conflict"
-- (a router leased one of the jobs since it was read: read again, decide again).
local prefix, batch = ARGV[1], cmsgpack.unpack(ARGV[2])

for _, owned in ipairs(batch.owned) do
  if redis.call('HGET', prefix .. 'epoch', owned[1]) ~= owned[2] then
    return 'fenced'
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

for _, position in ipairs(batch.expect) do
  redis.call('HSET', prefix .. 'positions', position[1], position[3])
end
for _, job in ipairs(batch.jobs) do
  if job[3] > 0 then
    redis.call('SET', prefix .. 'job:' .. job[1], ARGV[job[2]], 'EX', job[3])
  else
    redis.call('SET', prefix .. 'job:' .. job[1], ARGV[job[2]])
  end
end
for _, entry in ipairs(batch.unready) do
  redis.call('ZREM', prefix .. 'ready:' .. entry[1], entry[2])
end
for _, entry in ipairs(batch.ready) do
  redis.call('SADD', prefix .. 'queues', entry[1])
  redis.call('ZADD', prefix .. 'ready:' .. entry[1], entry[2], entry[3])
end
for _, entry in ipairs(batch.undue) do
  redis.call('ZREM', prefix .. 'due:' .. entry[1], entry[2])
end
for _, entry in ipairs(batch.due) do
  redis.call('ZADD', prefix .. 'due:' .. entry[1], entry[2], entry[3])
end
for _, lease in ipairs(batch.release) do
  -- A lease that is not held any more was released before: never free its slots twice.
  if redis.call('HDEL', prefix .. 'held:' .. lease[1], lease[2]) == 1 then
    redis.call('HINCRBY', prefix .. 'busy', lease[1], -lease[3])
  end
end
for _, entry in ipairs(batch.close) do
  redis.call('ZREM', prefix .. 'open:' .. entry[1], entry[2])
end
for _, entry in ipairs(batch.open) do
  redis.call('ZADD', prefix .. 'open:' .. entry[1], entry[2], entry[3])
end
if batch.outbox then
  redis.call('HSET', prefix .. 'outbox:' .. batch.outbox[1], batch.outbox[2], ARGV[batch.outbox[3]])
end
return 'ok'

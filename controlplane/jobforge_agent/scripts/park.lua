-- Set queues aside that a limit stops, so that nobody looks at them before that can have changed.
--
-- KEYS[1]: any key of the namespace.  ARGV[1]: prefix.
-- ARGV[2]: MessagePack of { parked = { { queue, subject, most running }, ... }, resting = { { queue, moment }, ... }, version }.
-- A queue whose limit is no longer reached stays where it is, and all do when the controls have another version than the caller's: a change woke them.
local prefix, batch = ARGV[1], cmsgpack.unpack(ARGV[2])
if (redis.call('HGET', prefix .. 'controls', 'version') or '0') ~= batch.version then
  return 'changed'
end
for _, entry in ipairs(batch.parked) do
  local queue, subject = entry[1], entry[2]
  if redis.call('SCARD', prefix .. 'running:' .. subject) >= entry[3] then
    redis.call('ZREM', prefix .. 'lane:' .. lane_of(queue), queue)
    redis.call('SADD', prefix .. 'parked:' .. subject, queue)
    redis.call('SADD', prefix .. 'parked', subject)
    index(prefix, queue, false)
  end
end
for _, entry in ipairs(batch.resting) do
  redis.call('ZREM', prefix .. 'lane:' .. lane_of(entry[1]), entry[1])
  redis.call('ZADD', prefix .. 'resting', entry[2], entry[1])
  index(prefix, entry[1], false)
end
return 'ok'

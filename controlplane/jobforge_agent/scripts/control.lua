-- Note what operators declared; limits may have changed, so every queue that one stopped is looked at again.
--
-- KEYS[1]: any key of the namespace.  ARGV[1]: prefix.
-- ARGV[2]: MessagePack of { { guard, value }, ... }, empty to remove it.  ARGV[3...]: pairs of a field and its bytes, empty to remove the field.
local prefix = ARGV[1]
for _, guard in ipairs(cmsgpack.unpack(ARGV[2])) do
  if guard[2] == '' then
    redis.call('HDEL', prefix .. 'guards', guard[1])
  else
    redis.call('HSET', prefix .. 'guards', guard[1], guard[2])
  end
end
for at = 3, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', prefix .. 'controls', ARGV[at])
  else
    redis.call('HSET', prefix .. 'controls', ARGV[at], ARGV[at + 1])
  end
end
redis.call('HINCRBY', prefix .. 'controls', 'version', 1)
for _, subject in ipairs(redis.call('SMEMBERS', prefix .. 'parked')) do
  wake_parked(prefix, subject)
end
for _, queue in ipairs(redis.call('ZRANGE', prefix .. 'resting', 0, -1)) do
  redis.call('ZREM', prefix .. 'resting', queue)
  index(prefix, queue, true)
end
return 'ok'

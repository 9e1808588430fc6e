-- Note a heartbeat, unless a later one of its runner is noted: whoever comes late with it makes nobody silent.
--
-- KEYS[1]: any key of the namespace.  ARGV[1]: prefix.  ARGV[2]: the runner.
-- ARGV[3]: MessagePack of { moment, { attempt, ... } }.  ARGV[4]: "1" if it takes no new work.
local prefix, runner = ARGV[1], ARGV[2]
local before = redis.call('HGET', prefix .. 'beats', runner)
if not before or cmsgpack.unpack(before)[1] <= cmsgpack.unpack(ARGV[3])[1] then
  redis.call('HSET', prefix .. 'beats', runner, ARGV[3])
end
if ARGV[4] == '1' then
  redis.call('SADD', prefix .. 'draining', runner)
end

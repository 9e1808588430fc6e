-- Remove what was published on behalf of an instance, and forget the instance, unless it has decided more meanwhile: it was slow, not dead.
--
-- KEYS[1]: any key of the namespace.  ARGV[1]: prefix.  ARGV[2]: the instance.  ARGV[3...]: entries of its outbox that are published.
local prefix, instance = ARGV[1], ARGV[2]
for at = 3, #ARGV do
  redis.call('HDEL', prefix .. 'outbox:' .. instance, ARGV[at])
end
if redis.call('EXISTS', prefix .. 'outbox:' .. instance) == 0 then
  redis.call('ZREM', prefix .. 'instances', instance)
end

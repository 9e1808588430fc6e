-- Return what could be routed now: { { queue, { job, ... } }, ... } and the busy slots { runner, slots, ... }.
--
-- KEYS[1]: any key of the namespace.  ARGV[1]: prefix.  ARGV[2]: how many jobs of each queue to look at, at most.
-- ARGV[3]: slots of all living runners; ARGV[4...]: those runners.
-- The cost depends on the number of queues and of free slots, not on how many jobs wait.
local prefix, most = ARGV[1], tonumber(ARGV[2])
local heads = {}
local free = tonumber(ARGV[3])
for index = 4, #ARGV do
  free = free - tonumber(redis.call('HGET', prefix .. 'busy', ARGV[index]) or '0')
end
most = math.min(most, free)
if most <= 0 then
  return { heads, {} }
end
for _, queue in ipairs(redis.call('SMEMBERS', prefix .. 'queues')) do
  local ids = redis.call('ZRANGE', prefix .. 'ready:' .. queue, 0, most - 1)
  if #ids == 0 then
    redis.call('SREM', prefix .. 'queues', queue)
  else
    local keys = {}
    for index, id in ipairs(ids) do
      keys[index] = prefix .. 'job:' .. id
    end
    heads[#heads + 1] = { queue, redis.call('MGET', unpack(keys)) }
  end
end
return { heads, redis.call('HGETALL', prefix .. 'busy') }
